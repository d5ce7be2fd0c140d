"""Package description; dependencies are listed here and nowhere else."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r"__version__ = '([^']+)'", (here / 'madmail/__init__.py').read_text())

setup(
    name='madmail',
    version=version[1],
    description='A chatmail relay in one program',
    long_description=(here / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='MIT',
    author='the madmail developers',
    python_requires='>=3.11',
    packages=find_packages(include=['madmail', 'madmail.*']),
    package_data={
        'madmail': [
            'py.typed',
            'web/site/templates/*',
            'web/site/static/*',
            'web/site/texts/*',
            'web/site/guide/*/*',
            'web/panel/dist/*',
            'web/panel/dist/assets/*',
        ]
    },
    install_requires=[
        'gevent>=24.11',
        'msgpack>=1.0',
        'bcrypt>=4.1',
        'cryptography>=44',
        'dnspython>=2.9',
        'pyyaml>=6.0',
        'segno>=1.6',
        'falcon>=4.0',
        'jinja2>=3.1',
        'markdown-it-py>=3.0',
        'gunicorn[gevent]>=27.0',
        'acme>=5.9',
        'josepy>=2.2',
    ],
    extras_require={
        'test': [
            'pytest>=8.0',
            'hypothesis>=6.100',
            'ruff>=0.8',
            'mypy>=1.13',
            'PGPy>=0.6',
            'dkimpy[ed25519]>=1.1',
            'standard-imghdr; python_version >= "3.13"',  # PGPy imports it
            'IMAPClient>=3.0',
            'deltachat-rpc-server>=2.0',
            'deltachat-rpc-client>=2.0',
            'aiortc>=1.16',
            'blake3>=1.0',
            'pproxy>=2.7',
            'pycryptodome>=3.20',  # the ciphers of pproxy
            'iroh>=1.2',
            'deltachat>=2.0',
        ],
    },
    entry_points={'console_scripts': ['madmail=madmail.cli.main:main']},
    classifiers=[
        'Environment :: No Input/Output (Daemon)',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Communications :: Email :: Mail Transport Agents',
    ],
)
