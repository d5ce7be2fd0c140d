"""admin-web: the dashboard from the command line."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.cli.test_cli import Shell

HTTPS = 'listen: {https: ["0.0.0.0:8443"]}\n'


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    config = tmp_path / 'madmail.yaml'
    config.write_text(f'domain: chat.example\nstate_dir: state\n{HTTPS}')
    shell = Shell(config, capsys)
    assert shell('init')[0] == 0
    return shell


def test_it_is_off_and_switched_on_and_off(shell: Shell) -> None:
    off, on = {'enabled': False, 'path': '/admin'}, {'enabled': True, 'path': '/admin'}
    assert shell.data('admin-web', 'status') == shell.data('admin-web') == off
    assert 'off' in shell('admin-web', 'status')[1]
    assert shell.data('admin-web', 'enable') == on
    assert shell.data('admin-web', 'status') == shell.data('admin-web') == on
    assert 'https://chat.example:8443/admin/' in shell('admin-web', 'status')[1]
    assert shell.data('settings', 'get', 'panel.enabled')['value'] == 'true'
    assert shell.data('admin-web', 'disable') == off
    assert shell.data('admin-web', 'status') == off


def test_only_enable_shows_a_link_that_logs_in(shell: Shell) -> None:
    token = shell.data('admin-token')['token']
    said = shell('admin-web', 'enable')[1]
    link = said.split('To log in: ')[1].strip()
    assert link.startswith('https://chat.example:8443/admin/#')
    packed = link.partition('#')[2]
    payload = json.loads(base64.urlsafe_b64decode(packed + '=' * (-len(packed) % 4)))
    assert payload == {'u': 'https://chat.example:8443/api/admin', 't': token}
    assert packed not in shell('admin-web', 'status')[1]
    assert token not in json.dumps(shell.data('admin-web', 'enable'))
    # The command for the token leads here now, and elsewhere while there is nothing here.
    assert link in shell('admin-token', '--no-qr')[1]
    shell('admin-web', 'disable')
    assert f'https://admin.madmail.chat/#{packed}' in shell('admin-token', '--no-qr')[1]


def test_the_path_is_shown_set_and_reset(shell: Shell) -> None:
    assert shell.data('admin-web', 'path') == {'path': '/admin'}
    assert shell.data('admin-web', 'path', 'office/') == {'enabled': True, 'path': '/office'}
    assert shell.data('admin-web', 'status') == {'enabled': True, 'path': '/office'}
    assert 'https://chat.example:8443/office/' in shell('admin-web', 'status')[1]
    assert shell.data('admin-web', 'path', '--reset') == {'path': '/admin', 'reset': True}
    assert shell.data('admin-web', 'status') == {'enabled': True, 'path': '/admin'}


@pytest.mark.parametrize('path', ['/api/admin', '/docs', '/webimap/x', '/new', '/', '/a b'])
def test_a_path_that_is_no_path_or_means_something_else(shell: Shell, path: str) -> None:
    assert 'panel.path: expected' in shell.error('admin-web', 'path', path)
    assert shell.data('admin-web', 'status') == {'enabled': False, 'path': '/admin'}


def test_a_path_and_reset_at_once(shell: Shell) -> None:
    assert 'either' in shell.error('admin-web', 'path', '/x', '--reset')


def test_it_says_what_is_missing(shell: Shell) -> None:
    shell('admin-web', 'enable')
    shell('settings', 'set', 'admin.enabled', 'false')
    assert 'admin.enabled' in shell('admin-web')[1]
    shell('settings', 'reset', 'admin.enabled')
    shell('settings', 'set', 'listen.https', '')
    assert 'listen.https' in shell('admin-web', 'enable')[1]
