"""Expiry in bulk: by mailbox, then bodies in order of their ids, whatever happens in between."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from madmail.store.interface import Expunged, NewMessage
from madmail.store.spool import MemoryBody
from tests.store.conftest import Place, consistent


@pytest.fixture
def boxes(place: Place) -> list[int]:
    return [place.inbox(f'{name}@localhost') for name in 'abcde']


def arrive_by_turns(place: Place, boxes: list[int], each: int) -> None:
    for n in range(each):
        for box in boxes:
            place.append(box, 1, internal_date=1000 + n)


def test_the_oldest_go_though_they_are_removed_by_mailbox(place, boxes, monkeypatch):
    monkeypatch.setattr('madmail.store.expiry.OVERDUE', 20)
    monkeypatch.setattr('madmail.store.expiry.OVERDUE_READ', 7)
    monkeypatch.setattr('madmail.store.expiry.EXPIRE_SLICE', 6)
    arrive_by_turns(place, boxes, 20)
    assert place.store.expire(1020, limit=52) == 52
    left = [len(place.store.uids(box)) for box in boxes]
    assert sum(left) == 48
    assert set(left) == {9, 10}
    assert place.store.expire(1015, limit=1000) == 23
    assert all(list(place.store.uids(box)) == [16, 17, 18, 19, 20] for box in boxes)
    consistent(place.store)


def test_a_body_that_others_have_stays(place, boxes):
    store = place.store
    place.append(boxes[0], 3, internal_date=1000)
    store.copy(boxes[0], [1, 2], boxes[1])
    store.deliver(MemoryBody(b'x'), ['c@localhost', 'd@localhost'], delivery_id=bytes(16))
    body = store.message(boxes[2], 1).body_id
    store._submit(
        lambda tx: tx.execute(
            'UPDATE messages SET internal_date = 5 WHERE mailbox_id = ?', (boxes[2],)
        )
    )
    store._submit(
        lambda tx: tx.execute(
            'UPDATE messages SET internal_date = 5000 WHERE mailbox_id = ? AND uid = 2', (boxes[1],)
        )
    )
    assert store.expire(2000) == 5  # three, one copy, one of a delivery
    assert store.body(body).read() == b'x'
    consistent(store)


def test_expunged_meanwhile_is_not_counted(place, boxes):
    store = place.store
    place.append(boxes[0], 1000, internal_date=1000, flags=8, size=1)
    place.append(boxes[1], 1000, internal_date=1000, size=1)
    place.take_events()
    expiring = gevent.spawn(store.expire, 2000, 5000)
    expunged = store.expunge(boxes[0])
    assert expiring.get() + len(expunged) == 2000
    gone = [
        (event.mailbox_id, uid)
        for event in place.take_events()
        if isinstance(event, Expunged)
        for uid in event.uids
    ]
    assert len(gone) == len(set(gone)) == 2000
    consistent(store)


def test_bodies_left_by_a_crash_go_when_the_store_opens_and_their_ids_are_not_reused(
    place, boxes, monkeypatch
):
    store = place.store
    place.append(boxes[0], 10, internal_date=1000)
    highest = store._one('SELECT max(id) FROM bodies')[0]
    monkeypatch.setattr(type(store), '_clear', lambda self: None)
    assert store.expire(2000) == 10
    store = place.reopen()
    assert store._one('SELECT count(*) FROM bodies')[0] == 10
    # Had the bodies been removed and their list not: a new one must not be on it.
    store._submit(lambda tx: tx.execute('DELETE FROM bodies WHERE id >= ?', (highest - 3,)))
    store = place.reopen()
    place.append(boxes[1], 1, internal_date=5000)
    monkeypatch.undo()
    store = place.reopen()
    store._sweeper.join(5)
    assert store._one('SELECT count(*), min(id) > ? FROM bodies', highest) == (1, 1)
    assert store._one('SELECT count(*) FROM spent') == (0,)
    consistent(store)


def test_large_and_small_bodies_expire_together(place, boxes):
    store: Any = place.store
    bodies = [MemoryBody(b'x' * size) for size in (10, 200_000, 30)]
    store.append(boxes[0], [NewMessage(body, internal_date=1000) for body in bodies])
    assert store.expire(2000) == 3
    place.reopen()
    assert not [
        name for part in place.store.blobs.directories() for name in place.store.blobs.names(part)
    ]
    consistent(place.store)
