"""Accounts from `/new`, `dcaccount:`, the start page and an invitation, by a real core."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.core import require_core
from tests.client.new_accounts import DOMAIN
from tests.system.relay import ROOT

NAMES = ('', 'autoconfig.', 'imap.', 'smtp.', 'mail.', 'mta-sts.')


def test_a_core_gets_an_account_from_the_pages(tmp_path: Path) -> None:
    require_core()
    hosts = tmp_path / 'hosts'
    hosts.write_text('127.0.0.1 localhost ' + ' '.join(f'{n}{DOMAIN}' for n in NAMES) + '\n')
    script = (
        f'ip link set lo up && mount --bind {hosts} /etc/hosts && '
        f'exec {sys.executable} -m tests.client.new_accounts {tmp_path}'
    )
    alone = ['unshare', '--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc']
    probe = shutil.which('unshare') and subprocess.run([*alone, 'ip', 'link', 'set', 'lo', 'up'])
    if not probe or probe.returncode:
        pytest.skip('network namespaces cannot be made here (root and iproute2 are needed)')
    done = subprocess.run(
        [*alone, 'sh', '-c', script],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    addresses = [found[name] for name in ('new', 'domain', 'page', 'invited')]
    assert len(set(addresses)) == 4
    assert all(address.endswith(f'@{DOMAIN}') for address in addresses)
    assert 'Registration token is required' in found['refused']
