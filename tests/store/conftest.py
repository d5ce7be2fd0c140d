"""The store under test: every suite here runs against each implementation in STORES."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent
import pytest

from madmail.store.interface import Event, NewMessage, Outcome, Store
from madmail.store.spool import MemoryBody
from madmail.store.sqlite import open_store

STORES: dict[str, Callable[..., Store]] = {'sqlite': open_store}
QUOTA = 1_000_000


class Place:
    """A store that can be closed and opened again, with what its observer has seen."""

    def __init__(self, directory: Path, opener: Callable[..., Store]) -> None:
        self.directory = directory
        self.events: list[Event] = []
        self._opener = opener
        self.store: Any = None
        self.open()

    def open(self) -> Any:
        self.store = self._opener(self.directory, quota_default=QUOTA, trim_from=0.75, trim_to=0.70)
        self.store.observer = self.events.extend
        return self.store

    def reopen(self) -> Any:
        self.store.close()
        return self.open()

    def inbox(self, address: str = 'a@localhost') -> int:
        """The id of the INBOX of an account, which is made if need be."""
        account = self.store.account(address) or self.store.create_account(address, 'secret', 0)
        return self.store.mailbox(account.id, 'INBOX').id

    def deliver(self, *addresses: str, data: bytes = b'Subject: x\r\n\r\n') -> list[Outcome]:
        return self.store.deliver(MemoryBody(data), addresses, delivery_id=os.urandom(16))

    def append(self, mailbox_id: int, count: int = 1, **how: Any) -> list[int]:
        size = how.pop('size', 10)
        return self.store.append(
            mailbox_id, [NewMessage(MemoryBody(b'x' * size), **how) for _ in range(count)]
        )

    def take_events(self) -> list[Event]:
        events = list(self.events)
        self.events.clear()
        return events


@pytest.fixture(params=sorted(STORES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / 'shard', STORES[request.param])
    yield made
    made.store.close()


@pytest.fixture
def store(place: Place) -> Any:
    return place.store


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls in greenlets of their own; results or exceptions, in order."""

    def guarded(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            return error

    greenlets = [gevent.spawn(guarded, call) for call in calls]
    gevent.joinall(greenlets)
    return [greenlet.value for greenlet in greenlets]


def consistent(store: Any) -> None:
    """Counters, references and leftovers of an SQLite store agree with its rows."""
    store._reader.execute('BEGIN')  # one snapshot: the commit thread may be at work
    try:
        _consistent(store._reader.execute)
    finally:
        store._reader.execute('ROLLBACK')


def _consistent(read: Callable[..., Any]) -> None:
    rows = read(
        'SELECT id, messages, unseen, size, uid_next, highest_modseq FROM mailboxes'
    ).fetchall()
    for mailbox_id, messages, unseen, size, uid_next, highest in rows:
        found = read(
            'SELECT count(*), coalesce(sum(NOT flags & 1), 0), coalesce(sum(size), 0),'
            ' coalesce(max(uid), 0), coalesce(max(modseq), 0)'
            ' FROM messages WHERE mailbox_id = ?',
            (mailbox_id,),
        ).fetchone()
        assert found[:3] == (messages, unseen, size)
        assert found[3] < uid_next
        assert found[4] <= highest
    users = dict(
        read(
            'SELECT body_id, count(*) FROM (SELECT body_id FROM messages UNION ALL'
            ' SELECT body_id FROM outbox) GROUP BY body_id'
        ).fetchall()
    )
    bodies = {row[0] for row in read('SELECT id FROM bodies').fetchall()}
    assert bodies == set(users)
    shared = dict(read('SELECT body_id, refs FROM shared').fetchall())
    assert {body: count for body, count in users.items() if count > 1}.items() <= shared.items()
    assert all(users[body] == refs for body, refs in shared.items())
    assert read('PRAGMA integrity_check').fetchone() == ('ok',)


def settle(store: Any, rounds: int = 50) -> None:
    """Let work that follows commits (slices, removals of files) come to its end."""
    for _ in range(rounds):
        store.barrier()
        if not store._graves:
            break
    store.blobs.close()  # waits for files to be removed; goes on working


Calls = Sequence[Callable[[], Any]]
