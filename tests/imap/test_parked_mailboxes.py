"""A large mailbox that nobody has selected keeps its UIDs, and they stay true."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from madmail.imap.mailbox import OpenMailboxes
from madmail.store.interface import NewMessage, Store
from madmail.store.spool import MemoryBody
from madmail.store.sqlite import open_store


class Nobody:
    def stirred(self) -> None: ...

    def mailbox_gone(self) -> None: ...


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(tmp_path / 's', quota_default=0, trim_from=1.0, trim_to=1.0)
    yield made
    made.close()


@pytest.fixture
def boxes(store: Store, monkeypatch: pytest.MonkeyPatch) -> OpenMailboxes:
    monkeypatch.setattr('madmail.imap.mailbox.PARKED_FROM', 10)
    monkeypatch.setattr('madmail.imap.mailbox.SPARE_UIDS', 60)
    boxes = OpenMailboxes(store)
    store.observer = boxes.events
    return boxes


def mailbox(store: Store, name: str, messages: int) -> int:
    account = store.account('a@localhost') or store.create_account('a@localhost', '', 0)
    assert account is not None
    made = store.create_mailbox(account.id, name)
    add(store, made.id, messages)
    return made.id


def add(store: Store, mailbox_id: int, messages: int) -> None:
    store.append(mailbox_id, [NewMessage(MemoryBody(b'x'), flags=8) for _ in range(messages)])


def visit(boxes: OpenMailboxes, mailbox_id: int) -> list[int]:
    """All UIDs as a session sees them that selects, looks at message 1 and leaves."""
    row = boxes.store.mailbox_by_id(mailbox_id)
    assert row is not None
    view = boxes.select(row, Nobody(), read_only=False)
    assert view.uid_at(1) == boxes.store.uids(mailbox_id)[0]
    found = list(view.uids([(1, view.uid_end - 1)]))
    assert view.exists == len(found)
    boxes.leave(view)
    return found


def test_small_ones_are_closed_and_large_ones_kept(store: Store, boxes: OpenMailboxes):
    visit(boxes, mailbox(store, 'small', 9))
    assert len(boxes) == 0
    visit(boxes, mailbox(store, 'large', 10))
    assert len(boxes) == 1


def test_what_happens_meanwhile_is_known(store: Store, boxes: OpenMailboxes):
    large = mailbox(store, 'large', 20)
    visit(boxes, large)
    store.expunge(large, [1, 2, 7])
    add(store, large, 5)
    assert visit(boxes, large) == list(store.uids(large)) == [3, 4, 5, 6, *range(8, 26)]
    store.expunge(large)
    row = store.mailbox_by_id(large)
    assert row is not None
    view = boxes.select(row, Nobody(), read_only=False)
    assert view.exists == 0
    boxes.leave(view)
    assert len(boxes) == 0


def test_the_oldest_goes_when_there_are_too_many(store: Store, boxes: OpenMailboxes):
    ids = [mailbox(store, f'{n}', 25) for n in range(5)]
    for each in ids:
        assert len(visit(boxes, each)) == 25
    assert len(boxes) == 2
    for each in ids:
        assert visit(boxes, each) == list(range(1, 26))


def test_a_deleted_one_is_forgotten(store: Store, boxes: OpenMailboxes):
    large = mailbox(store, 'large', 20)
    visit(boxes, large)
    store.delete_mailbox(large)
    assert len(boxes) == 0
    again = mailbox(store, 'large', 20)
    row = store.mailbox_by_id(again)
    assert row is not None
    view = boxes.select(row, Nobody(), read_only=False)
    view.uid_at(1)
    store.delete_mailbox(again)
    boxes.leave(view)
    assert len(boxes) == 0
