"""Retention, trimming and the operator's hand on a real relay, with sessions that look on."""

from __future__ import annotations

import imaplib
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.relay import ROOT, Relay, running

MESSAGE = b'From: a@chat.example\r\nTo: b@chat.example\r\nSubject: s\r\n\r\nText\r\n'
DAY = 86_400


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    options = {'policy.require_encryption': False, 'limits.quota': '4M'}
    with running(tmp_path_factory.mktemp('upkeep'), options) as relay:
        yield relay


def cli(relay: Relay, *words: str, check: bool = True) -> Any:
    """A command's data; with `check` off, its whole answer."""
    done = relay.cli('--json', *words, check=False)
    assert done.returncode in (0, 1), done.stderr
    answer = json.loads(done.stdout or done.stderr)
    if check:
        assert answer['ok'], answer
        return answer['data']
    return answer


class Idler:
    """A session in IDLE; `lines` reads what it is told."""

    def __init__(self, relay: Relay, person: tuple[str, str], *, qresync: bool = False) -> None:
        self.client = relay.imap(*person)
        if qresync:
            assert self.client._simple_command('ENABLE', 'QRESYNC')[0] == 'OK'
        self.client.select('INBOX')
        self.client.send(b'idle1 IDLE\r\n')
        while not self.client.readline().startswith(b'+'):
            pass

    def until(self, pattern: str) -> list[str]:
        """The lines up to one that matches."""
        lines = []
        while True:
            lines.append(self.client.readline().decode().strip())
            assert lines[-1], 'the session ended'
            if re.search(pattern, lines[-1]):
                return lines

    def close(self) -> None:
        self.client.shutdown()


def append(client: imaplib.IMAP4, count: int, *, days: float = 0, flags: str = '') -> None:
    """Messages that came so many days ago."""
    date = imaplib.Time2Internaldate(time.time() - days * DAY) if days else None
    for _ in range(count):
        status, said = client.append('INBOX', flags, date, MESSAGE)
        assert status == 'OK', said


def fill(relay: Relay, person: tuple[str, str], count: int, *, days: float) -> None:
    """Many messages, by MULTIAPPEND."""
    date = imaplib.Time2Internaldate(time.time() - days * DAY).encode()
    with relay.connect('imaps') as stream:
        reader = stream.makefile('rb')
        reader.readline()
        stream.sendall(b'a LOGIN "%s" "%s"\r\n' % (person[0].encode(), person[1].encode()))
        while not reader.readline().startswith(b'a OK'):
            pass
        one = b' %s {%d+}\r\n%s' % (date, len(MESSAGE), MESSAGE)
        for number in range(0, count, 50):
            many = min(50, count - number)
            stream.sendall(b'b APPEND INBOX' + one * many + b'\r\n')
            while not (line := reader.readline()).startswith(b'b '):
                pass
            assert line.startswith(b'b OK'), line


def test_sessions_in_idle_see_what_retention_removes(relay: Relay) -> None:
    person = relay.account('idle')
    client = relay.imap(*person)
    append(client, 3, days=30)
    append(client, 1)
    plain, quick = Idler(relay, person), Idler(relay, person, qresync=True)
    assert cli(relay, 'tasks', 'run', 'retention', '--dry-run')['deleted'] == 3
    done = cli(relay, 'tasks', 'run', 'prune-old-messages')
    assert (done['task'], done['skipped'], done['deleted']) == ('prune-old-messages', False, 3)
    assert plain.until('1 EXPUNGE')[-3:] == ['* 3 EXPUNGE', '* 2 EXPUNGE', '* 1 EXPUNGE']
    assert quick.until('VANISHED')[-1] == '* VANISHED 1:3'
    client.select('INBOX')
    assert client.uid('SEARCH', 'ALL') == ('OK', [b'4'])
    used = re.search(rb'STORAGE (\d+) (\d+)', client.getquotaroot('INBOX')[1][1][0])
    assert used is not None
    assert [int(n) for n in used.groups()] == [1, 4096]
    for idler in (plain, quick):
        idler.close()


def test_sessions_in_idle_see_what_the_operator_does(relay: Relay) -> None:
    person = relay.account('hand')
    user = person[0]
    client = relay.imap(*person)
    append(client, 2, flags='\\Seen')
    append(client, 3)
    idler = Idler(relay, person)
    cli(relay, 'imap-msgs', 'add-flags', user, 'INBOX', '5', 'Flagged')
    assert r'\Flagged' in idler.until('5 FETCH')[-1]
    assert cli(relay, 'imap-msgs', 'remove', user, 'INBOX', '4', '-u', '-y')['removed'] == 1
    idler.until(r'\* 4 EXPUNGE')
    cli(relay, 'imap-mboxes', 'create', user, 'Archive', '--special', 'archive')
    assert cli(relay, 'imap-msgs', 'move', user, 'INBOX', '1', 'Archive')['messages'] == 1
    idler.until(r'\* 1 EXPUNGE')
    assert cli(relay, 'imap-acct', 'purge-read', '-y', '--dry-run')['deleted'] == 2
    assert cli(relay, 'imap-acct', 'purge-read', '-y')['deleted'] == 2
    idler.until(r'\* 1 EXPUNGE')
    words = ['--json', 'imap-msgs', 'add', user, 'INBOX', '-f', 'Seen', '-f', 'word']
    done = subprocess.run(
        [sys.executable, '-m', 'madmail', '--config', str(relay.config), *words],
        input=b'Subject: by hand\n\nText\n',
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    added = json.loads(done.stdout)['data']
    idler.until(r'\* 3 EXISTS')
    (row,) = cli(relay, 'imap-msgs', 'list', user, 'INBOX', str(added['uid']), '-u', '-f')[
        'messages'
    ]
    assert (row['flags'], row['header']['Subject']) == (['\\Seen', 'word'], 'by hand')
    assert cli(relay, 'notice', 'send', '-s', 'Grüße', '-b', 'Text', '--to', user)['sent'] == 1
    idler.until(r'\* 4 EXISTS')
    assert cli(relay, 'imap-acct', 'purge-msgs', user, '-y')['deleted'] == 4
    idler.until(r'\* 1 EXPUNGE')
    assert cli(relay, 'quota', 'get', user)['used_bytes'] == 0
    idler.close()


def test_quota_and_message_size_are_live(relay: Relay) -> None:
    person = relay.account('limits')
    client = relay.imap(*person)
    cli(relay, 'quota', 'set', person[0], '2M')
    assert b'STORAGE 0 2048' in client.getquotaroot('INBOX')[1][1][0]
    cli(relay, 'quota', 'set-default', '3M')
    assert b'STORAGE 0 2048' in client.getquotaroot('INBOX')[1][1][0]
    cli(relay, 'imap-acct', 'quota', 'reset', person[0])
    assert b'STORAGE 0 3072' in client.getquotaroot('INBOX')[1][1][0]
    cli(relay, 'quota', 'set-default', '0')
    assert b'STORAGE 0 4096' in client.getquotaroot('INBOX')[1][1][0]
    assert cli(relay, 'imap-acct', 'appendlimit', person[0], '-v', '1000')['append_limit'] == 1000
    assert b'APPENDLIMIT=1000' in client.capability()[1][-1]
    assert b'TOOBIG' in client.append('INBOX', '', None, b'x' * 1001)[1][0]
    sender = relay.smtp(*person)
    sender.ehlo('[127.0.0.1]')
    assert sender.esmtp_features['size'] == '1000'
    assert sender.docmd(f'MAIL FROM:<{person[0]}> SIZE=1001')[0] == 552
    cli(relay, 'imap-acct', 'appendlimit', person[0], '-v', '-1')
    assert sender.docmd(f'MAIL FROM:<{person[0]}> SIZE=1001')[0] == 250
    # Less than a quota, yet over the mark with mail of today, which is never given up.
    cli(relay, 'quota', 'set', person[0], '4K')
    assert client.append('INBOX', '', None, b'Subject: x\r\n\r\n' + b'x' * 3000)[0] == 'OK'
    status, said = client.append('INBOX', '', None, b'Subject: x\r\n\r\n' + b'x' * 3000)
    assert (status, said[0][:11]) == ('NO', b'[OVERQUOTA]')
    assert not cli(relay, 'quota', 'get', 'nobody-here', check=False)['ok']
    assert not cli(relay, 'quota', 'set', person[0], 'much', check=False)['ok']


def test_ten_thousand_messages_expire_while_a_session_works(relay: Relay) -> None:
    crowded, busy = relay.account('crowd'), relay.account('busy')
    fill(relay, crowded, 10_000, days=40)
    idler = Idler(relay, crowded, qresync=True)
    client = relay.imap(*busy)
    results: list[Any] = []
    worker = threading.Thread(
        target=lambda: results.append(cli(relay, 'tasks', 'run', 'retention'))
    )
    rounds, slowest = 0, 0.0
    worker.start()
    while worker.is_alive() or rounds < 5:
        began = time.monotonic()
        append(client, 1)
        client.select('INBOX')
        assert client.search(None, 'ALL')[1][0].split()[-1] == b'%d' % (rounds + 1)
        slowest = max(slowest, time.monotonic() - began)
        rounds += 1
    worker.join(60)
    print(f'{rounds} rounds meanwhile, the slowest took {slowest * 1e3:.0f} ms')
    assert results[0]['deleted'] == 10_000
    gone = 0
    while gone < 10_000:
        line = idler.until('VANISHED')[-1]
        for part in line.rpartition(' ')[2].split(','):
            first, _, last = part.partition(':')
            gone += int(last or first) - int(first) + 1
    assert gone == 10_000
    assert slowest < 10  # nothing but a hang would be
    idler.close()


def test_a_restart_keeps_the_schedule(room: Path) -> None:
    with running(room, {'policy.require_encryption': False}) as relay:
        before = {task['name']: task for task in cli(relay, 'tasks', 'list')['tasks']}
        assert all(task['last_run'] is None for task in before.values())
        done = cli(relay, 'tasks', 'run', 'sweep-blobs')
        assert not done['skipped']
        person = relay.account('still')
        assert relay.stop() == 0
        relay.start()
        after = {task['name']: task for task in cli(relay, 'tasks', 'list')['tasks']}
        for name, task in after.items():
            if name == 'sweep-blobs':
                assert task['last_run']
                assert abs(task['next_run'] - task['last_run'] - DAY) <= 5
            else:
                assert task['next_run'] == before[name]['next_run']
        # What is done on a relay that does not run counts as well.
        append(relay.imap(*person), 2, days=50)
        relay.stop()
        assert cli(relay, 'tasks', 'run', 'retention')['deleted'] == 2
        assert cli(relay, 'quota', 'get', person[0])['used_bytes'] == 0
        relay.start()
        names = {task['name']: task for task in cli(relay, 'tasks', 'list')['tasks']}
        assert names['prune-old-messages']['last_run']
        assert not cli(relay, 'tasks', 'run', 'nonsense', check=False)['ok']
        assert not cli(relay, 'tasks', 'run', 'retention', '--retention', '10m', check=False)['ok']


def test_deleted_accounts_end_their_sessions_and_leave_nothing(relay: Relay) -> None:
    person = relay.account('gone')
    append(relay.imap(*person), 3)
    idler = Idler(relay, person)
    cli(relay, 'imap-acct', 'remove', person[0], '-y')
    with pytest.raises((AssertionError, OSError, ssl.SSLError, socket.timeout)):
        idler.until('never said')
    assert not cli(relay, 'quota', 'get', person[0], check=False)['ok']
    relay.imap(*person).logout()  # the name is free again
    assert cli(relay, 'quota', 'get', person[0])['used_bytes'] == 0
