"""The committed bundle is what the sources give, it is small, and it asks nobody else.

Where Node.js is there the bundle is built again and compared; elsewhere the hashes of the
sources that it records are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from madmail.web.panel.resources import API_MARK, DIST, made_from
from madmail.web.site.words import LANGUAGES

WEB = Path(__file__).resolve().parents[3] / 'web'
MESSAGES = WEB / 'src/messages'
SCRIPT_LIMIT = 122_880  # octets of all scripts, unpacked
# Names of things, nobody is asked at them.
NAMED = (
    'http://www.w3.org/',
    'https://svelte.dev/e/',
    'https://i.delta.chat/#',
    'https://exchange.example',
    'https://203.0.113.5:8443',
)
# The same in every language.
SAME = {'service_webimap', 'service_websmtp', 'service_ss', 'url', 'from_to'}


def sources() -> dict[str, str]:
    names = ['index.html', 'package.json', 'package-lock.json', 'vite.config.js']
    paths = [WEB / name for name in names]
    paths += [path for path in (WEB / 'src').rglob('*') if path.is_file()]
    return {
        str(path.relative_to(WEB)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob('*')
        if path.is_file()
    }


def test_the_bundle_was_made_from_these_sources() -> None:
    assert made_from() == sources(), 'run scripts/panel'


def test_a_build_gives_the_same_bundle(tmp_path: Path) -> None:
    npm, node = shutil.which('npm'), shutil.which('node')
    if npm is None or node is None:
        pytest.skip('Node.js is not installed')
    said = subprocess.run([node, '--version'], capture_output=True, text=True, check=True).stdout
    major, minor = (int(part) for part in said.strip().lstrip('v').split('.')[:2])
    if (major, minor) < (20, 19) or (major == 22 and minor < 12) or major == 21:
        pytest.skip(f'Node.js {said.strip()} cannot build it')
    # In a copy, as another person finds it, beside a place for what comes out.
    shutil.copytree(WEB, tmp_path / 'web', ignore=shutil.ignore_patterns('node_modules'))
    tools = WEB / 'node_modules'
    lock = tools / '.package-lock.json'
    if lock.is_file() and lock.stat().st_mtime >= (WEB / 'package-lock.json').stat().st_mtime:
        (tmp_path / 'web/node_modules').symlink_to(tools)
    else:
        done = subprocess.run(
            [npm, 'ci', '--no-audit', '--no-fund'],
            cwd=tmp_path / 'web', capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        if done.returncode:
            pytest.skip('the tools to build it cannot be fetched')
    done = subprocess.run(
        [npm, 'run', 'build'], cwd=tmp_path / 'web', capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert 'warn' not in done.stderr.lower().replace('npm warn', '')
    made = files(tmp_path / 'madmail/web/panel/dist')
    assert made.keys() == files(DIST).keys()
    assert made == files(DIST)


def test_it_is_small_and_has_no_source_maps() -> None:
    found = files(DIST)
    assert sum(len(data) for name, data in found.items() if name.endswith('.js')) < SCRIPT_LIMIT
    for name, data in found.items():
        assert not name.endswith('.map')
        assert b'sourceMappingURL' not in data, name


def test_it_names_no_other_host() -> None:
    for name, data in files(DIST).items():
        if name == 'licenses.md':
            continue  # not served
        text = data.decode()
        for url in re.findall(r'(?:https?|wss?)://[^\s"\'`<)]*|["\'`(]//[a-z][^\s"\'`]*', text):
            assert url.startswith(NAMED), f'{name} names {url}'


def test_whose_work_is_in_it_is_told() -> None:
    text = (DIST / 'licenses.md').read_text('utf-8')
    assert 'Svelte Contributors' in text
    assert 'shall be included in all copies' in text


def test_it_evaluates_no_text() -> None:
    """The policy of the page forbids it anyway."""
    for name, data in files(DIST).items():
        if name.endswith('.js'):
            assert b'eval(' not in data
            assert b'new Function' not in data


def test_the_page_tells_the_path_of_the_api_once() -> None:
    assert (DIST / 'index.html').read_text().count(API_MARK) == 1


def test_the_lock_file_names_no_registry() -> None:
    for name in ('package.json', 'package-lock.json', '.npmrc'):
        text = (WEB / name).read_text()
        assert 'resolved' not in text.replace('omit-lockfile-registry-resolved', '')
        assert 'registry.' not in text
    packages = json.loads((WEB / 'package-lock.json').read_text())['packages']
    for name, package in packages.items():
        assert not name or package['integrity'].startswith('sha512-')
        assert not name or package.get('dev') or package.get('optional') or package.get('peer')
    assert 'dependencies' not in json.loads((WEB / 'package.json').read_text())


@pytest.mark.parametrize('language', LANGUAGES)
def test_every_language_says_everything(language: str) -> None:
    english = json.loads((MESSAGES / 'en.json').read_text('utf-8'))
    texts = json.loads((MESSAGES / f'{language}.json').read_text('utf-8'))
    assert list(texts) == list(english)
    for key, text in texts.items():
        assert text.strip(), key
        places = sorted(re.findall(r'\{\w+\}', text))
        assert places == sorted(re.findall(r'\{\w+\}', english[key])), key
    if language in ('fa', 'ru'):
        same = {key for key, text in texts.items() if text == english[key]}
        assert same <= SAME, same


def test_every_text_is_there_and_used() -> None:
    english = json.loads((MESSAGES / 'en.json').read_text('utf-8'))
    text = ''.join(
        path.read_text()
        for path in (WEB / 'src').rglob('*')
        if path.suffix in ('.svelte', '.js') and path.is_file()
    )
    for key in re.findall(r'\bT\.(\w+)', text):
        assert key in english, key
    made = tuple(re.findall(r'\bt\(`(\w+_)\$\{', text))
    for key in english:
        known = f'T.{key}' in text or f"'{key}'" in text or key.startswith((*made, 'service_'))
        assert known, f'{key} is not used'


def test_the_sources_are_in_the_checkout_only() -> None:
    if os.path.isdir(WEB / 'node_modules'):
        ignored = (WEB.parent / '.gitignore').read_text().splitlines()
        assert 'node_modules/' in ignored
