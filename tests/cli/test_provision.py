"""scripts/provision on a machine that is made of shell functions of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TAKEN = 'Error: listen.smtp: the port is taken by exim4'


def machine(directory: Path, programs: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Provision it; `programs` are laid over those of a machine on which all goes well."""
    source, bin_, prefix = (directory / name for name in ('source', 'bin', 'opt'))
    (source / 'scripts').mkdir(parents=True)
    (prefix / 'bin').mkdir(parents=True)
    bin_.mkdir()
    shutil.copytree(CHECKOUT / 'supervisor', source / 'supervisor')
    shutil.copy(CHECKOUT / 'scripts' / 'environment.bash', source / 'scripts')
    text = (CHECKOUT / 'scripts' / 'provision').read_text()
    places = {
        'prefix=/opt/madmail': f'prefix={prefix}',
        'config=/etc/madmail/madmail.yaml': f'config={directory}/madmail.yaml',
        'program=/etc/supervisor/conf.d/madmail.conf': f'program={directory}/madmail.conf',
        ' /usr/local/bin/madmail': f' {directory}/madmail',
    }
    for there, here in places.items():
        assert text.count(there) == 1
        text = text.replace(there, here)
    script = source / 'scripts' / 'provision'
    script.write_text(text)
    script.chmod(0o755)
    every = {
        'id': 'echo 0',
        'apt-get': '',
        'dpkg-query': 'echo install ok installed',
        'getent': '',
        'sleep': '',
        'supervisorctl': f'echo "$@" >>{directory}/supervised',
        f'{prefix}/bin/python': '',
        f'{prefix}/bin/madmail': 'echo "relay $*"',
        **programs,
    }
    for name, body in every.items():
        path = bin_ / name  # an absolute name stays what it is
        path.write_text(f'#!/bin/sh\n{body}\n')
        path.chmod(0o755)
    return subprocess.run(
        [str(script)],
        env={**os.environ, 'PATH': f'{bin_}:{os.environ["PATH"]}'},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_ends_with_the_state_of_the_relay(tmp_path: Path) -> None:
    done = machine(tmp_path, {})
    assert (done.returncode, done.stdout) == (0, 'relay status\n'), done.stderr
    assert 'restart madmail' in (tmp_path / 'supervised').read_text().splitlines()


def test_a_relay_that_does_not_stay_is_told_with_the_reason(tmp_path: Path) -> None:
    done = machine(
        tmp_path,
        {
            'supervisorctl': 'case $1 in restart | status | stop) exit 7 ;; esac',
            f'{tmp_path}/opt/bin/madmail': (
                f'case $1 in status) exit 1 ;; run) echo "{TAKEN}" >&2; exit 4 ;; esac'
            ),
        },
    )
    assert done.returncode == 1
    assert 'did not start' in done.stderr
    assert TAKEN in done.stderr
