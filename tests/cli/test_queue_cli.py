"""queue … on a stopped relay and on a running one."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from madmail.delivery.destination import Parked
from madmail.store.interface import OutboxEntry
from madmail.store.spool import MemoryBody
from madmail.store.sqlite import open_store
from tests.cli.test_cli import Shell, shell
from tests.system import mail
from tests.system.relay import Relay, free_ports

__all__ = ['shell']  # the fixture

SENDER = 'alice@chat.example'


def fill(shell: Shell, shard: int, *domains: str) -> None:
    """Let mail wait in a shard, as the relay would, due in an hour."""
    directory: Path = shell.config.parent / 'state' / 'shards' / str(shard)
    store = open_store(directory, quota_default=0, trim_from=0.75, trim_to=0.7)
    now = int(time.time())
    for domain in domains:
        names = (f'x@{domain}', f'y@{domain}')
        entry = OutboxEntry(0, SENDER, domain, names, now - 90, next_try=now + 3600)
        store.deliver(MemoryBody(b'words'), (), delivery_id=os.urandom(16), outbox=[entry])
    store.close()


def entries(shell: Shell) -> list[dict[str, Any]]:
    data = shell.data('queue', 'list')
    assert data['count'] == len(data['entries'])
    found: list[dict[str, Any]] = data['entries']
    return found


def test_an_empty_queue(shell: Shell) -> None:
    assert entries(shell) == []
    assert shell('queue', 'list')[1] == 'Nothing waits.\n'
    assert shell.data('queue', 'retry', '--all') == {'domains': [], 'running': False}
    assert shell.data('queue', 'purge', '-y')['deleted'] == 0


def test_what_waits_is_listed_and_shown(shell: Shell) -> None:
    fill(shell, 0, 'one.example', Parked(1, b'i' * 16).domain)
    fill(shell, 1, 'two.example')
    found = entries(shell)
    assert [(one['id'], one['domain']) for one in found] == [
        ('0-1', 'one.example'),
        ('0-2', '(this relay)'),
        ('1-1', 'two.example'),
    ]
    assert shell.data('queue', 'show', '1-1') == found[2]
    assert found[2]['rcpt_to'] == ['x@two.example', 'y@two.example']
    assert (found[2]['mail_from'], found[2]['body_bytes'], found[2]['tries_count']) == (
        SENDER,
        5,
        0,
    )
    text = shell('queue', 'list')[1]
    assert 'one.example' in text
    assert 'in 59m' in text or 'in 1h' in text
    assert 'y@two.example' in shell('queue', 'show', '1-1')[1]


@pytest.mark.parametrize('wrong', ['1', 'x', '0-1-1', '-', '0-99', '7-1', '99999-1', '0-1x'])
@pytest.mark.parametrize('verb', ['show', 'retry', 'remove'])
def test_an_id_that_is_none_changes_nothing(shell: Shell, verb: str, wrong: str) -> None:
    fill(shell, 0, 'one.example')
    code, out, err = shell('--json', 'queue', verb, '--', wrong)
    assert (code, out) == (1, '')
    assert wrong in err
    assert len(entries(shell)) == 1


def test_retry_makes_a_destination_due(shell: Shell) -> None:
    fill(shell, 0, 'one.example', 'two.example')
    fill(shell, 1, 'one.example')
    assert shell.data('queue', 'retry', '0-1') == {'domains': ['one.example'], 'running': False}
    now = time.time()
    due = {one['id'] for one in entries(shell) if one['next_attempt_unix'] <= now}
    assert due == {'0-1', '1-1'}, 'a destination is tried as a whole'
    assert all(one['tries_count'] == 0 for one in entries(shell))
    assert shell.data('queue', 'retry', '--all')['domains'] == ['one.example', 'two.example']
    assert all(one['next_attempt_unix'] <= time.time() for one in entries(shell))


def test_status_sums_by_destination(shell: Shell) -> None:
    fill(shell, 0, 'one.example', 'two.example')
    fill(shell, 1, 'two.example')
    for words in (('queue',), ('queue', 'status')):
        data = shell.data(*words)
        assert (data['count'], data['bytes'], data['running']) == (3, 15, False)
        assert [(row['domain'], row['count']) for row in data['destinations']] == [
            ('one.example', 1),
            ('two.example', 2),
        ]
    assert shell.data('queue', 'list', '--domain', 'Two.Example')['count'] == 2
    assert 'two.example' in shell('queue')[1]


def test_the_old_alone_are_purged(shell: Shell) -> None:
    fill(shell, 0, 'one.example')
    assert shell.data('queue', 'purge', '--older', '2m', '-y') == {'deleted': 0, 'older_secs': 120}
    assert shell.data('queue', 'purge', '--older', '1m', '--dry-run')['deleted'] == 1
    assert len(entries(shell)) == 1
    assert shell.data('queue', 'purge', '--older', '1m', '-y')['deleted'] == 1
    assert entries(shell) == []
    assert 'duration' in shell.error('queue', 'purge', '--older', 'ever', '-y')


def test_a_purge_is_declined(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(shell, 0, 'one.example')
    monkeypatch.setattr('sys.stdin', io.StringIO('n\n'))
    assert shell('queue', 'purge')[0] == 1
    assert len(entries(shell)) == 1


def test_retry_of_a_domain(shell: Shell) -> None:
    fill(shell, 0, 'one.example', 'two.example')
    assert shell.data('queue', 'retry', '--domain', 'ONE.example')['domains'] == ['one.example']
    due = [one['domain'] for one in entries(shell) if one['next_attempt_unix'] <= time.time()]
    assert due == ['one.example']
    assert 'nothing waits' in shell.error('queue', 'retry', '--domain', 'three.example')


def test_retry_wants_one_or_all(shell: Shell) -> None:
    assert shell('queue', 'retry')[0] == 2
    assert shell('queue', 'retry', '0-1', '--all')[0] == 2


def test_remove_and_purge(shell: Shell) -> None:
    fill(shell, 0, 'one.example', 'two.example', 'two.example')
    fill(shell, 1, 'two.example', 'three.example')
    assert shell.data('queue', 'remove', '0-2', '-y') == {
        'id': '0-2',
        'mail_from': SENDER,
        'rcpt_to': ['x@two.example', 'y@two.example'],
        'deleted': 1,
    }
    assert 'not waiting' in shell.error('queue', 'remove', '0-2', '-y')
    purged = shell.data('queue', 'purge', '--domain', 'TWO.example', '-y')
    assert purged == {'domain': 'two.example', 'deleted': 2}
    assert [one['domain'] for one in entries(shell)] == ['one.example', 'three.example']
    assert 'not a domain' in shell.error('queue', 'purge', '-y', '--domain', 'a b')
    assert shell.data('queue', 'purge', '-y')['deleted'] == 2
    assert entries(shell) == []


def test_a_running_relay(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    options = {
        'federation': {'dkim': 'off', 'transports': ['smtp']},
        'queue': {'first_retry': 3000},
    }
    with Relay(tmp_path / 'relay', options) as relay:
        relay.cli('endpoint-cache', 'set', 'two.example', f'smtp://127.0.0.1:{port}')
        alice = relay.account()
        with relay.smtp(*alice) as client:
            for _ in range(3):
                text = mail.encrypted(alice[0], 'bob@two.example')
                client.sendmail(alice[0], ['bob@two.example'], text)
        waiting = until(relay, lambda found: any(one['tries_count'] for one in found))
        assert len(waiting) == 3
        assert all('cannot connect' in one['last_error'] for one in waiting)
        assert all(one['next_attempt_unix'] > time.time() + 1000 for one in waiting)
        shown = data(relay, 'queue', 'show', waiting[0]['id'])
        assert shown['rcpt_to'] == ['bob@two.example']
        before = sum(one['tries_count'] for one in waiting)
        answer = data(relay, 'queue', 'retry', waiting[0]['id'])
        assert answer == {'domains': ['two.example'], 'running': True}
        until(relay, lambda found: sum(one['tries_count'] for one in found) > before)
        assert data(relay, 'queue', 'remove', waiting[0]['id'], '-y')['deleted'] == 1
        assert data(relay, 'queue', 'purge', '-y')['deleted'] == 2
        assert data(relay, 'queue', 'list')['entries'] == []


def data(relay: Relay, *words: str) -> Any:
    return json.loads(relay.cli('--json', *words).stdout)['data']


def until(relay: Relay, wanted: Any) -> list[dict[str, Any]]:
    """The queue once it is as wanted."""
    end = time.monotonic() + 15
    while True:
        found: list[dict[str, Any]] = data(relay, 'queue', 'list')['entries']
        if wanted(found):
            return found
        assert time.monotonic() < end, 'the queue did not change'
        time.sleep(0.1)
