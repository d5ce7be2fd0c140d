"""What operators type from habit: short forms, old forms, and the errors of a host."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from madmail.admin import endpoints, transfer
from madmail.admin.refused import Refused
from madmail.store.control import Control
from tests.cli.test_cli import Shell, shell
from tests.cli.test_queue_cli import SENDER, fill

__all__ = ['shell']  # the fixture

PASSWORD = 'correct horse'
CHECKOUT = Path(__file__).resolve().parents[2]


def rows(shell: Shell) -> dict[str, str]:
    control = Control(shell.config.parent / 'state')
    try:
        return control.settings()
    finally:
        control.close()


def test_asking_for_the_password_of_the_proxy_makes_no_other(shell: Shell) -> None:
    shell.data('proxy', 'cipher', 'set', 'aes-256-gcm')
    shell.data('proxy', 'enable')
    shell.data('proxy', 'port', 'set', '8399')
    before = rows(shell)
    assert shell.data('proxy', 'password') == shell.data('proxy', 'password', 'status')
    assert shell.data('proxy', 'cipher') == {
        'cipher': 'aes-256-gcm',
        'db_override': 'aes-256-gcm',
        'source': 'live',
    }
    assert shell.data('proxy', 'port')['port'] == 8399
    assert rows(shell) == before


@pytest.mark.parametrize(
    'family', ['proxy', 'push', 'turn', 'iroh', 'queue', 'language', 'webimap', 'webmail-cors']
)
def test_a_family_alone_is_its_status(shell: Shell, family: str) -> None:
    alone = json.loads(shell('--json', family)[1])
    assert alone == json.loads(shell('--json', family, 'status')[1])
    assert alone['command'] == f'{family} status'


def test_words_are_not_doubled_in_the_name_of_a_command(shell: Shell) -> None:
    for words in (['imap-acct', 'quota', 'list'], ['quota', 'list']):
        assert json.loads(shell('--json', *words)[1])['command'] == ' '.join(words)


def test_both_services_of_web_mail_together(shell: Shell) -> None:
    data = shell.data('webmail-cors', 'enable', 'https://one.example')
    assert (data['status'], data['origin']) == ('enabled', 'https://one.example')
    assert data['cors_origins_list'] == ['https://one.example']
    assert shell.data('webmail-dev', 'enable')['origin'] is None
    assert shell.data('webmail-cors')['status'] == 'enabled'
    data = shell.data('webmail-cors', 'disable')
    assert (data['webimap_enabled'], data['websmtp_enabled']) == (False, False)
    assert data['cors_origins_list'] == ['https://one.example']
    assert 'origin' in shell.error('webmail-cors', 'enable', 'ftp://one.example')
    assert shell.data('webmail-cors')['status'] == 'disabled'


def test_services_by_the_words_of_creds(shell: Shell) -> None:
    assert shell.data('creds', 'turn', 'off')['enabled'] is False
    assert shell.data('turn', 'status')['enabled'] is False
    assert shell.data('creds', 'turn', 'status')['enabled'] is False
    assert shell.data('creds', 'turn', 'on')['enabled'] is True
    assert shell.data('creds', 'logging', 'on') == {'enabled': True, 'target': 'stderr'}
    assert shell.data('log', 'status')['enabled'] is True
    assert shell.data('creds', 'logging', 'off')['enabled'] is False
    assert shell.data('creds', 'logging', 'status')['target'] == 'off'


def test_the_iroh_relay_needs_no_installing(shell: Shell) -> None:
    shell.data('iroh', 'disable')
    data = shell.data('iroh', 'install')
    assert (data['configured'], data['config_updated'], data['enabled']) == (True, False, True)
    assert shell.data('iroh')['enabled'] is True


def test_a_yes_is_taken_where_nothing_is_asked(shell: Shell) -> None:
    assert shell.data('federation', 'flush', '-y')['flushed'] is True
    assert shell.data('federation', 'dismiss-flush', '--yes')['flushed'] is True
    shell.data('exchanger', 'add', 'one', 'https://exchanger.example')
    shell.data('exchanger', 'remove', 'one', '-y')
    shell.data('tokens', 'create', '--token', 'abcdef')
    shell.data('tokens', 'delete', 'abcdef', '-y')


def test_a_short_name_is_kept_free_by_its_address(shell: Shell) -> None:
    link = 'https://i.delta.chat/#' + '0123456789ABCDEF' * 2 + '01234567'
    shell.data('sharing', 'create', 'alice', link, 'Alice')
    assert shell.data('sharing', 'edit', 'alice', 'reserved') == {
        'slug': 'alice',
        'url': 'reserved',
        'name': '',
    }
    assert shell.data('sharing', 'create', 'bob', 'reserved') == {'slug': 'bob', 'reserved': True}
    kept = {one['slug']: one['url'] for one in shell.data('sharing', 'list')['links']}
    assert kept == {'alice': 'reserved', 'bob': 'reserved'}
    assert 'taken' in shell.error('sharing', 'create', 'bob', link)


def test_a_blocked_name_gets_no_mailboxes_either(shell: Shell) -> None:
    shell.data('blocklist', 'add', 'mallory')
    assert 'blocklist' in shell.error('imap-acct', 'create', 'mallory', '-p', PASSWORD)
    assert shell.data('accounts', 'list')['total'] == 0


@pytest.mark.parametrize(
    ('options', 'left'),
    [
        ([], {'three.example'}),
        (['--recipient=false'], {'two.example', 'three.example'}),
        (['--sender=false'], {'one.example', 'three.example'}),
        (['--dry-run'], {'one.example', 'two.example', 'three.example'}),
    ],
)
def test_mail_of_one_user_is_taken_from_the_queue(
    shell: Shell, options: list[str], left: set[str]
) -> None:
    fill(shell, 0, 'one.example')  # from SENDER
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('tests.cli.test_queue_cli.SENDER', 'x@three.example')
        fill(shell, 1, 'three.example')
        patch.setattr('tests.cli.test_queue_cli.SENDER', f'not-{SENDER}')
        fill(shell, 1, 'two.example')
    user = 'X@two.example' if 'one.example' in left else SENDER.partition('@')[0]
    if not options:
        shell.data('queue', 'purge', 'x@two.example', '-y')
    if options == ['--recipient=false']:
        assert shell.data('queue', 'purge', 'x@two.example', '-y', *options)['deleted'] == 0
    shell.data('queue', 'purge', user, '-y', *options)
    assert {one['domain'] for one in shell.data('queue', 'list')['entries']} == left


@pytest.mark.parametrize(
    'words',
    [
        ['alice', '--all'],
        ['alice', '--older', '1h'],
        ['--sender=true'],
        ['alice', '--sender=false', '--recipient=false'],
    ],
)
def test_a_purge_that_means_two_things_removes_nothing(shell: Shell, words: list[str]) -> None:
    fill(shell, 0, 'one.example')
    shell.error('queue', 'purge', '-y', *words)
    assert shell.data('queue', 'list')['count'] == 1


@pytest.mark.parametrize(
    ('failure', 'text'),
    [
        (sqlite3.OperationalError('database or disk is full'), 'database or disk is full'),
        (OSError(28, 'No space left on device'), 'No space left on device'),
        (OSError(30, 'Read-only file system', 'control.db'), 'control.db: Read-only file system'),
    ],
)
def test_trouble_with_the_disk_is_one_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, failure: Exception, text: str
) -> None:
    def fail(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(endpoints, 'set_', fail)
    assert shell.error('endpoint-cache', 'set', 'one.example', 'two.example') == text


@pytest.mark.parametrize('links', [True, False])
def test_a_backup_gets_its_name_where_there_are_no_links(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def link(*_: Any) -> None:
        raise PermissionError(1, 'Operation not permitted')

    place = shell.config.parent / 'one.backup'
    (shell.config.parent / 'state' / 'two\nlines').write_text('x')
    if not links:
        monkeypatch.setattr('madmail.cli.backup.os.link', link)
    assert shell.data('backup', 'create', str(place))['left_out'] == ['two?lines']
    assert 'whole' in shell('backup', 'verify', str(place))[1]
    assert 'there already' in shell.error('backup', 'create', str(place))
    assert not list(place.parent.glob('*.partial'))


def test_figures_are_for_this_host_unless_told_otherwise(shell: Shell) -> None:
    assert shell.data('port', 'metrics', 'set', '9417')['addresses'] == ['127.0.0.1:9417']
    shell.data('port', 'metrics', 'reset')
    assert shell.data('port', 'metrics', 'enable')['mode'] == 'local'
    assert shell.data('port', 'metrics', 'public')['mode'] == 'public'
    assert shell.data('port', 'metrics', 'set', '9418')['addresses'] == ['0.0.0.0:9418']


def outside(
    shell: Shell, *words: str, encoding: str = 'utf-8', **streams: Any
) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, '-m', 'madmail', '--config', str(shell.config), *words],
        cwd=CHECKOUT,
        env={**os.environ, 'PYTHONIOENCODING': encoding},
        stderr=subprocess.PIPE,
        check=False,
        **streams,
    )


def test_nobody_who_could_answer_is_a_no(shell: Shell) -> None:
    shell.data('accounts', 'create', 'alice', '-p', PASSWORD)
    script = f'exec "{sys.executable}" -m madmail --config "{shell.config}" "$@" <&-'
    for words in (['accounts', 'delete', 'alice'], ['accounts', 'password', 'alice']):
        done = subprocess.run(
            ['/bin/sh', '-c', script, 'sh', *words], cwd=CHECKOUT, capture_output=True, check=False
        )
        assert done.returncode == 1
        assert b'Traceback' not in done.stderr
    assert shell.data('accounts', 'list')['total'] == 1


def test_an_answer_that_cannot_be_written_is_a_failure(shell: Shell) -> None:
    with open('/dev/full', 'wb') as full:
        done = outside(shell, 'accounts', 'list', stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith(b'Error: standard output: ')
    assert b'Traceback' not in done.stderr


def test_letters_that_the_terminal_does_not_know(shell: Shell) -> None:
    words = ('settings', 'set', 'relay.comment', 'caf\xe9 \u2013 ok')
    text = outside(shell, *words, encoding='ascii', stdout=subprocess.PIPE)
    assert text.returncode == 0
    assert b'caf\\xe9' in text.stdout
    told = outside(shell, *words, '--json', encoding='ascii', stdout=subprocess.PIPE)
    assert json.loads(told.stdout)['data']['value'] == 'caf\xe9 \u2013 ok'


def test_an_export_is_opened_by_who_asked_and_replaces_nothing_for_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.data('accounts', 'create', 'alice', '-p', PASSWORD)
    output = shell.config.parent / 'export.json'
    output.write_text('what was there ' * 100)
    output.chmod(0o644)
    seen: list[int] = []
    export = transfer.export

    def looking(relay: Any) -> Any:
        seen.append(output.stat().st_mode & 0o777)
        raise Refused('failed', 'not now')

    monkeypatch.setattr(transfer, 'export', looking)
    assert shell.error('accounts', 'export', '-o', str(output)) == 'not now'
    assert seen == [0o600]
    assert output.read_text().startswith('what was there')
    monkeypatch.setattr(transfer, 'export', export)
    assert shell.data('accounts', 'export', '-o', str(output))['count'] == 1
    assert [one['username'] for one in json.loads(output.read_text())] == ['alice@chat.example']
    assert shell('accounts', 'export', '-o', '/dev/null')[0] == 0


@pytest.mark.parametrize(
    'words',
    [
        ['imap-msgs', 'dump', 'alice', 'INBOX', '\u00b2'],
        ['imap-msgs', 'dump', 'alice', 'INBOX', '9' * 30],
        ['accounts', 'password', 'alice', '-p', '\udcff' * 12],
        ['imap-mboxes', 'create', 'alice', '\udcff'],
        ['html-serve', '\udcff'],
        ['hash', '-p', '\udcff'],
    ],
)
def test_arguments_that_cannot_be_meant_are_one_line_of_error(
    shell: Shell, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.data('accounts', 'create', 'alice', '-p', PASSWORD)
    monkeypatch.chdir(shell.config.parent)
    os.mkdir(b'\xff')
    assert shell.error(*words)
