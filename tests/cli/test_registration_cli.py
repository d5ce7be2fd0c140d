"""accounts, registration, tokens, creds and hash: their words, members and exit codes."""

from __future__ import annotations

import io
import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from madmail.account import password as verifiers
from tests.cli.test_cli import Shell, shell  # noqa: F401

GOOD = 'correct horse'


def test_status_of_the_accounts(shell: Shell) -> None:  # noqa: F811
    shell.data('accounts', 'create', 'alice', '-p', GOOD)
    shell.data('accounts', 'ban', '-y', 'eve')
    data = shell.data('accounts', 'status')
    assert data.pop('state_dir').endswith('state')
    assert data == {
        'login_count': 1,
        'registration': 'open',
        'registration_open': True,
        'token_required': False,
        'jit_enabled': True,
        'blocklisted': 1,
        'mail_directories': 1,
        'database': 'sqlite',
    }
    assert 'registration' in shell('accounts', 'status')[1]


def test_info_of_an_account_that_nobody_used(shell: Shell) -> None:  # noqa: F811
    shell.data('accounts', 'create', 'alice', '-p', GOOD)
    data = shell.data('accounts', 'info', 'alice')
    assert data['credentials'] is True
    assert data['maildir_present'] is True
    assert (data['first_login_at'], data['last_login_at']) == (None, None)
    assert data['created_at'] > 0
    assert 'no such account' in shell.error('accounts', 'info', 'nobody')


@pytest.mark.parametrize('words', [('accounts', 'create-random'), ('create-user',)])
def test_a_random_account_in_all_its_forms(shell: Shell, words: tuple[str, ...]) -> None:  # noqa: F811
    data = shell.data(*words)
    assert data.keys() == {'username', 'password', 'email', 'dclogin'}
    assert data['email'] == data['username'] + '@chat.example'
    bare = json.loads(shell(*words, '--json-only')[1])
    assert bare.keys() == {'email', 'password', 'dclogin'}
    assert shell(*words)[1].count('\n') == 3
    assert shell.data('accounts', 'list')['total'] == 3


def test_the_short_forms_of_delete_and_ban_list(shell: Shell) -> None:  # noqa: F811
    shell.data('accounts', 'create', 'alice', '-p', GOOD)
    assert shell.data('delete', '-y', 'alice', '--reason', 'spam') == {
        'username': 'alice@chat.example',
        'reason': 'spam',
    }
    for words in (('ban-list',), ('accounts', 'ban-list'), ('blocklist', 'list')):
        (entry,) = shell.data(*words)['entries']
        assert (entry['username'], entry['reason']) == ('alice@chat.example', 'spam')
    assert 'no such account' in shell.error('delete', '-y', 'alice')


def test_accounts_go_out_to_a_file_and_come_in_again(shell: Shell, tmp_path: Path) -> None:  # noqa: F811
    for name in ('bob', 'alice'):
        shell.data('accounts', 'create', name, '-p', GOOD)
    file = tmp_path / 'accounts.json'
    file.write_text('old')
    file.chmod(0o644)
    data = shell.data('accounts', 'export', '-o', str(file))
    assert data == {'count': 2, 'output': str(file)}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    users = json.loads(file.read_text())
    assert [user['username'] for user in users] == ['alice@chat.example', 'bob@chat.example']
    assert json.loads(shell('accounts', 'export')[1]) == users
    assert shell.data('accounts', 'export')['accounts'] == users
    assert shell.data('accounts', 'import', str(file)) == {
        'imported': 0,
        'skipped': 2,
        'errors': [],
    }
    assert shell.data('accounts', 'delete-all', '-y') == {'deleted': 2}
    data = shell.data('accounts', 'import', str(file))
    assert (data['imported'], data['skipped'], len(data['errors'])) == (0, 2, 2)
    shell.data('accounts', 'unban', '-y', 'alice')
    assert shell.data('accounts', 'import', str(file))['imported'] == 1


def test_a_file_that_is_no_list_of_accounts_is_refused(shell: Shell, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / 'x.json'
    assert 'No such file' in shell.error('accounts', 'import', str(file))
    for text, reason in (('{', 'not JSON'), ('[]', 'a list'), ('7', 'a list'), ('\0', 'not JSON')):
        file.write_text(text)
        assert reason in shell.error('accounts', 'import', str(file))


def test_nothing_is_deleted_without_a_yes(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    shell.data('accounts', 'create', 'alice', '-p', GOOD)
    for words in (
        ('accounts', 'delete-all'),
        ('delete', 'alice'),
        ('accounts', 'delete', 'alice'),
        ('creds', 'remove', 'alice'),
    ):
        monkeypatch.setattr(sys, 'stdin', io.StringIO('no\n'))
        assert shell(*words)[0] == 1
    assert shell.data('accounts', 'list')['total'] == 1


def test_registration_and_first_logins(shell: Shell) -> None:  # noqa: F811
    assert shell.data('registration', 'status')['open'] is True
    assert shell.data('registration', 'close')['open'] is False
    data = shell.data('registration', 'closed')
    assert (data['registration'], data['jit_enabled']) == ('closed', False)
    assert shell.data('jit', 'enable')['enabled'] is True
    assert 'all the same' in shell('registration', 'status')[1]
    data = shell.data('registration', 'token')
    assert (data['token_required'], data['jit_enabled']) == (True, False)
    assert shell.data('creds', 'registration', 'open')['open'] is True
    assert shell.data('creds', 'jit', 'disable')['enabled'] is False
    assert shell.data('jit', 'auto')['enabled'] is True
    assert shell('registration', 'ajar')[0] == 2


def test_a_tokens_life(shell: Shell) -> None:  # noqa: F811
    made = shell.data('registration-tokens', 'create', '--max-uses', '3', '--comment', 'party')
    assert made.keys() == {'token', 'max_uses', 'comment', 'expires_at'}
    assert (len(made['token']), made['expires_at']) == (24, None)
    code, out, _ = shell('tokens', 'create', '--token', 'by-hand', '--expires', '72h')
    assert (code, out) == (0, 'by-hand')  # for scripts, and no line end
    answer = json.loads(shell('reg-tokens', 'list', '--json')[1])
    assert answer['command'] == 'registration-tokens list'
    listed = {one['token']: one for one in answer['data']['tokens']}
    assert listed.keys() == {made['token'], 'by-hand'}
    assert listed['by-hand']['expires_at'] > listed['by-hand']['created_at']
    assert listed[made['token']].keys() >= {
        *('token', 'max_uses', 'used_count', 'pending'),
        *('status', 'comment', 'expires_at', 'created_at'),
    }
    data = shell.data('tokens', 'status', made['token'])
    assert (data['available'], data['status'], data['pending_accounts']) == (3, 'active', [])
    assert shell.data('tokens', 'delete', made['token']) == {'token': made['token']}
    assert 'no such token' in shell.error('tokens', 'delete', made['token'])
    assert 'such a token already' in shell.error('tokens', 'create', '--token', 'by-hand')
    assert 'duration' in shell.error('tokens', 'create', '--expires', 'soon')
    for words in (('status', 'by-hand'), ('list',)):
        assert 'by-hand' in shell('tokens', *words)[1]


def test_credentials(shell: Shell) -> None:  # noqa: F811
    shell.data('creds', 'create', 'alice', '-p', GOOD)
    shell.data('creds', 'create', 'bob', '-p', GOOD, '--hash', 'argon2')
    assert 'exists' in shell.error('creds', 'create', 'bob', '-p', GOOD, '--hash', 'sha256')
    assert shell.data('creds', 'list')['logins'] == ['alice@chat.example', 'bob@chat.example']
    hashes = {one['username'][0]: one['hash'] for one in shell.data('accounts', 'export')['users']}
    assert hashes['b'].startswith('argon2:3:1024:1:')
    shell.data('creds', 'remove', '-y', 'alice')
    assert shell('creds', 'list')[1] == 'bob@chat.example\n'
    assert shell.data('accounts', 'info', 'alice')['credentials'] is False
    shell.data('creds', 'password', 'alice', '-p', GOOD)
    assert shell.data('creds', 'list')['total'] == 2


@pytest.mark.parametrize('algorithm', ['bcrypt', 'argon2', 'sha256'])
def test_a_hash_is_one_that_can_be_imported(shell: Shell, algorithm: str) -> None:  # noqa: F811
    code, out, err = shell('hash', '-p', GOOD, '--hash', algorithm, '--bcrypt-cost', '4')
    assert (code, err) == (0, '')
    made = out.strip()
    assert made.startswith(f'{algorithm}:')
    kept = verifiers.importable(made)
    assert verifiers.verify(GOOD.encode(), kept, bytes(32))
    assert not verifiers.verify(b'another', kept, bytes(32))


def test_hash_warns_and_takes_no_nonsense(shell: Shell) -> None:  # noqa: F811
    assert 'empty' in shell('hash', '-p', '', '--bcrypt-cost', '4')[2]
    assert 'blank' in shell('hash', '-p', 'x ', '--bcrypt-cost', '4')[2]
    assert 'bcrypt' in shell.error('hash', '-p', 'x', '--bcrypt-cost', '99')
    assert 'argon2' in shell.error('hash', '-p', 'x', '--hash', 'argon2', '--argon2-time', '0')
    assert '72' in shell.error('hash', '-p', 'x' * 73)
    assert shell('hash', '-p', 'x', '--hash', 'plain')[0] == 2


def test_a_password_comes_from_standard_input_and_is_not_said_again(
    shell: Shell,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[Any] = []
    for words in (
        ('accounts', 'create', 'alice'),
        ('accounts', 'password', 'alice'),
        ('creds', 'create', 'bob'),
        ('creds', 'password', 'bob'),
    ):
        monkeypatch.setattr(sys, 'stdin', io.StringIO('a very secret word\n'))
        code, out, err = shell(*words)
        assert code == 0, err
        said += [out, err]
    assert 'secret word' not in ''.join(said)
