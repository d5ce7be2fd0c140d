"""Two sessions of one account that do things at the same time."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence

import gevent
import pytest

from madmail.imap import mailbox as mailboxes
from madmail.imap import session as sessions
from madmail.imap.session import ImapSession
from madmail.imap.view import View
from madmail.shard.wire import OUTPUT_LIMIT
from madmail.store.interface import Event, FlagUpdate, NewMessage
from madmail.store.spool import MemoryBody
from tests.imap.test_session_wire import serve
from tests.imap.wire_double import Client, ShardDouble, message

Fill = Callable[..., Client]
Login = Callable[..., Client]
PLENTY = 2_000_000  # octets, more than a socket and a wire hold


class Nobody:
    """A session behind a view that never says anything."""

    def stirred(self) -> None: ...

    def mailbox_gone(self) -> None: ...


def test_flags_set_behind_a_fetch_that_waits_for_its_client_are_told_afterwards(
    login: Login,
) -> None:
    client, other = login(), login()
    client.append(message(1, body=b'x' * 700_000))
    client.append(message(2))
    client.ask('SELECT INBOX')
    other.ask('SELECT INBOX')
    client.wire.reading = False  # the FETCH hangs in message 1, with the row of 2 read already
    client.wire.feed(b'x FETCH 1:2 (FLAGS BODY.PEEK[])\r\n')
    until(lambda: client.wire.unsent > OUTPUT_LIMIT)
    other.ask('STORE 2 +FLAGS (\\Seen)')
    client.wire.reading = True
    answer = client.take()
    assert b'* 2 FETCH (FLAGS (\\Recent) ' in answer
    assert b'* 2 FETCH (UID 2 FLAGS (\\Seen' in client.ask('NOOP')


@pytest.mark.parametrize('item', [b'+FLAGS', b'+FLAGS.SILENT'])
def test_flags_set_by_another_in_the_same_commit_are_told(
    filled: Fill, login: Login, item: bytes
) -> None:
    client, other, first = filled(2), login(), login()
    for session in (other, first):
        session.ask('SELECT INBOX')
    client.ask('NOOP')
    # While the first is at the disk, the other two queue up for one transaction.
    first.wire.feed(b'x STORE 1 +FLAGS (\\Draft)\r\n')
    client.wire.feed(b'x STORE 2 %s (\\Flagged)\r\n' % item)
    other.wire.feed(b'x STORE 2 +FLAGS (\\Answered)\r\n')
    told = client.take() + client.ask('NOOP')
    assert re.findall(rb'\* 2 FETCH .*\\Answered', told)


def test_what_happens_while_news_are_loaded_gets_right_numbers(
    shard: ShardDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = shard.account()
    row = shard.store.mailbox(account.id, 'INBOX')
    assert row is not None
    shard.store.append(row.id, [NewMessage(MemoryBody(b'x'), flags=8) for _ in range(500)])
    row = shard.store.mailbox(account.id, 'INBOX')
    assert row is not None
    view = shard.boxes.select(row, Nobody(), read_only=False)
    monkeypatch.setattr(mailboxes, 'FIRST_WINDOW', 16)
    monkeypatch.setattr(mailboxes, 'WINDOW', 16)
    meanwhile = [lambda: shard.store.expunge(row.id, [5])]
    monkeypatch.setattr(
        mailboxes, 'yield_to_others', lambda: meanwhile.pop()() if meanwhile else None
    )
    shard.store.expunge(row.id, [400])
    view.load_news(100)
    assert not meanwhile
    assert view.expunges(100) == [400, 5]


def test_flags_changed_while_news_are_loaded_get_right_numbers(
    shard: ShardDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = shard.account()
    row = shard.store.mailbox(account.id, 'INBOX')
    assert row is not None
    shard.store.append(row.id, [NewMessage(MemoryBody(b'x'), flags=8) for _ in range(500)])
    shard.store.expunge(row.id, [1, 2, 3])
    row = shard.store.mailbox(account.id, 'INBOX')
    assert row is not None
    view: View = shard.boxes.select(row, Nobody(), read_only=False)
    monkeypatch.setattr(mailboxes, 'FIRST_WINDOW', 16)
    monkeypatch.setattr(mailboxes, 'WINDOW', 16)
    seen = FlagUpdate('add', 1)
    meanwhile = [lambda: shard.store.store_flags(row.id, [7], seen)]
    monkeypatch.setattr(
        mailboxes, 'yield_to_others', lambda: meanwhile.pop()() if meanwhile else None
    )
    shard.store.store_flags(row.id, [400], seen)
    view.load_news(100)
    assert not meanwhile
    assert {change[0]: view.sequence(change[0]) for change in view.changes(100)} == {400: 397, 7: 4}


def test_a_command_is_heard_while_news_wait_for_the_client(shard: ShardDouble) -> None:
    shard.account()
    ours, stream = socket.socketpair()
    stream.settimeout(0)
    wire = serve(shard, ours)
    stream.send(
        b'a SELECT INBOX\r\nb NOTIFY SET (SELECTED (MessageNew (UID BODY.PEEK[])'
        b' MessageExpunge))\r\n'
    )
    assert b'b OK' in receive(stream, b'b OK')
    row = shard.store.mailbox(shard.account().id, 'INBOX')
    assert row is not None
    shard.store.append(row.id, [NewMessage(MemoryBody(message(1, body=b'x' * PLENTY)))])
    until(lambda: wire.unsent > OUTPUT_LIMIT)
    stream.send(b'c NOOP\r\n')
    gevent.sleep(0.02)
    answer = receive(stream, b'c OK')
    assert answer.startswith(b'* 1 EXISTS\r\n')
    assert len(answer) > PLENTY
    assert answer.endswith(b')\r\nc OK Noop completed\r\n')
    stream.close()
    gevent.sleep(0.01)


def until(ready: Callable[[], bool]) -> None:
    for _ in range(2000):
        if ready():
            return
        gevent.sleep(0.005)
    raise AssertionError('it did not happen')


def receive(stream: socket.socket, end: bytes) -> bytes:
    """What comes up to and with the line that begins with `end`."""
    data = bytearray()
    for _ in range(1000):
        try:
            data += stream.recv(1 << 20)
        except BlockingIOError:
            gevent.sleep(0.005)
        if data.endswith(b'\r\n') and data[data.rfind(b'\n', 0, -1) + 1 :].startswith(end):
            break
    return bytes(data)


def test_keepalive_does_not_come_within_a_response(
    shard: ShardDouble, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = login()
    client.ask('SELECT INBOX')
    client.ask(
        'NOTIFY SET (SELECTED (MessageNew (UID BODY.PEEK[]) MessageExpunge))',
    )
    client.wire.feed(b'i IDLE\r\n')
    client.take()
    client.wire.reading = False
    row = shard.store.mailbox(shard.account().id, 'INBOX')
    assert row is not None
    shard.store.append(row.id, [NewMessage(MemoryBody(message(1, body=b'x' * PLENTY)))])
    until(lambda: client.wire.unsent > OUTPUT_LIMIT)
    assert client.session.in_literal
    client.session.tick(client.session.spoke + 1000)
    client.wire.reading = True
    answer = client.take(lambda: not client.session.working)
    assert b'Still here' not in answer[: answer.rindex(b')\r\n')]
    assert answer.count(b'x' * PLENTY) == 1


def test_commands_that_find_nothing_let_others_run(
    shard: ShardDouble, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = shard.store.mailbox(shard.account().id, 'INBOX')
    assert row is not None
    shard.store.append(row.id, [NewMessage(MemoryBody(b'x')) for _ in range(1000)])
    for first in range(1, 1001, 100):
        shard.store.store_flags(row.id, range(first, first + 100), FlagUpdate('add', 1))
    client = login()
    client.ask('SELECT INBOX')
    client.ask('ENABLE CONDSTORE')
    turns: list[None] = []
    monkeypatch.setattr(sessions, 'share', lambda: -1.0)
    monkeypatch.setattr(sessions, 'yield_to_others', lambda: turns.append(None))
    assert b' OK ' in client.ask('UID FETCH 2000 (FLAGS) (CHANGEDSINCE 1)')
    assert len(turns) >= 5
    turns.clear()
    assert b' OK ' in client.ask('UID FETCH 1:1000 (UID) (CHANGEDSINCE 1 PARTIAL 2000:2001)')
    assert len(turns) >= 5
    shard.store.store_flags(row.id, range(1, 1001), FlagUpdate('add', 8))
    shard.store.expunge(row.id, range(1, 1000))
    turns.clear()
    odd = ','.join(map(str, range(1, 1000, 2)))
    assert b' OK ' in client.ask(f'UID FETCH {odd} (FLAGS)')
    assert len(turns) >= 500


def test_an_expunge_while_a_new_message_is_shown_gets_its_right_number(
    shard: ShardDouble, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = shard.store.mailbox(shard.account().id, 'INBOX')
    assert row is not None
    shard.store.append(row.id, [NewMessage(MemoryBody(b'x'), flags=8) for _ in range(500)])
    shard.store.expunge(row.id, [1, 2, 3])
    monkeypatch.setattr(mailboxes, 'FIRST_WINDOW', 16)
    monkeypatch.setattr(mailboxes, 'WINDOW', 16)
    client = login()
    client.ask('SELECT INBOX')
    client.ask('NOTIFY SET (SELECTED (MessageNew (UID BODY.PEEK[]) MessageExpunge))')
    client.wire.reading = False
    shard.store.append(row.id, [NewMessage(MemoryBody(message(1, body=b'x' * PLENTY)))])
    until(lambda: client.wire.unsent > OUTPUT_LIMIT)
    shard.store.expunge(row.id, [100])
    client.wire.reading = True
    told = client.take(lambda: b'EXPUNGE' in client.wire.output)
    assert told.endswith(b')\r\n* 97 EXPUNGE\r\n')


def test_a_session_comes_from_another_process_while_others_are_at_work(
    shard: ShardDouble, filled: Fill, login: Login
) -> None:
    client, other = filled(5), login()
    other.ask('SELECT INBOX')
    client.wire.feed(b'i IDLE\r\n')
    client.take()
    box = client.session.view.box.id
    state = client.session.freeze()
    assert state is not None
    # The store is ahead of what the sessions have heard.
    held: list[Sequence[Event]] = []
    hear = shard.store.observer
    assert hear is not None
    shard.store.observer = held.append
    shard.store.store_flags(box, [2], FlagUpdate('add', 8))
    shard.store.expunge(box, [2])
    shard.store.observer = hear
    gevent.spawn_later(0.01, lambda: [hear(events) for events in held])
    session = ImapSession.thaw(client.wire, shard, shard.account(), state)  # type: ignore[arg-type]
    assert not session.doomed
    assert not client.wire.output  # its wire may not be whole, see Compressed.thaw
    assert not client.wire.unsent
    client.session = session
    client.wire.attach(session)
    until(lambda: b'EXPUNGE' in client.wire.output)
    assert client.take() == b'* 2 EXPUNGE\r\n'
