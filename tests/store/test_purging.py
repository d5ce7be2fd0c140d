"""Removal by age and flag in slices, the sweep of files, limits that change."""

from __future__ import annotations

import os
from typing import Any

import pytest

from madmail.store.interface import Expunged, Flag, FlagUpdate, NewMessage, Outcome
from madmail.store.spool import MemoryBody
from tests.store.conftest import Place, consistent


def purge_all(store: Any, box: int, **how: Any) -> int:
    done = last = 0
    while True:
        purged = store.purge(box, last, **how)
        done += purged.messages
        last = purged.last
        if not last:
            return done


@pytest.mark.parametrize('look', [2000, 7])
def test_slices_miss_nothing(place: Place, monkeypatch: pytest.MonkeyPatch, look: int) -> None:
    monkeypatch.setattr('madmail.store.purging.LOOK', look)
    monkeypatch.setattr('madmail.store.purging.SLICE', 5)
    box = place.inbox()
    place.append(box, 50)
    place.store.store_flags(box, range(10, 41), FlagUpdate('add', int(Flag.SEEN)))
    assert purge_all(place.store, box, seen=True, dry_run=True) == 31
    assert purge_all(place.store, box, seen=True) == 31
    assert len(place.store.uids(box)) == 19
    assert purge_all(place.store, box) == 19
    assert place.store.mailbox_ids() == []
    consistent(place.store)


def test_sessions_are_told_of_each_slice(place: Place) -> None:
    box = place.inbox()
    place.append(box, 3, flags=Flag.SEEN)
    place.append(box, 2)
    place.take_events()
    purge_all(place.store, box, seen=True)
    (event,) = place.take_events()
    assert isinstance(event, Expunged)
    assert list(event.uids) == [1, 2, 3]
    assert place.store.remove(box, [5, 9]) == [5]
    (event,) = place.take_events()
    assert (event.uids, event.origin) == ([5], None)


def test_a_mailbox_that_is_gone_has_nothing_to_purge(place: Place) -> None:
    account = place.store.create_account('b@localhost', '', 0)
    box = place.store.create_mailbox(account.id, 'Gone').id
    place.append(box, 3)
    place.store.delete_mailbox(box)
    assert place.store.purge(box).messages == 0


def test_the_sweep_removes_orphans_and_nothing_else(place: Place) -> None:
    box = place.inbox()
    store = place.store
    store.limit(quota_default=0, trim_from=0.75, trim_to=0.7)
    store.append(box, [NewMessage(MemoryBody(b'x' * 200_000))])
    orphan = store.blobs.path('ab' * 16)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b'left over')
    assert store.sweep() == 1
    assert not orphan.exists()
    assert store.sweep() == 0
    assert store.body(store.message(box, 1).body_id).read() == b'x' * 200_000


def test_the_sweep_leaves_what_is_on_its_way_in(place: Place) -> None:
    """A blob whose transaction has not begun is not referred to, and no orphan."""
    store = place.store
    store.limit(quota_default=0, trim_from=0.75, trim_to=0.7)
    box = place.inbox()
    submit, swept = store._submit, []

    def sweep_first(*arguments: Any) -> Any:
        swept.append(store.sweep())
        return submit(*arguments)

    store._submit = sweep_first
    store.append(box, [NewMessage(MemoryBody(b'y' * 200_000))])
    store._submit = submit
    assert swept == [0]
    assert store.body(store.message(box, 1).body_id).read() == b'y' * 200_000


def test_other_limits_hold_from_the_next_message_on(place: Place) -> None:
    store = place.store
    place.inbox()
    place.deliver('a@localhost', data=b'x' * 1000)
    store.limit(quota_default=1500, trim_from=0.75, trim_to=0.7)
    assert place.deliver('a@localhost', data=b'x' * 1000) == [Outcome.OVER_QUOTA]
    store.set_quota(store.account('a@localhost').id, 5000)
    assert place.deliver('a@localhost', data=b'x' * 1000) == [Outcome.STORED]
    store.set_quota(store.account('a@localhost').id, -1)
    assert place.deliver('a@localhost', data=b'x' * 10) == [Outcome.OVER_QUOTA]


def test_a_lower_quota_is_kept_to_without_waiting_for_mail(place: Place) -> None:
    store = place.store
    box = place.inbox()
    account = store.account('a@localhost')
    place.append(box, 1500, size=100, internal_date=1000)
    store.trim(account.id)
    store.barrier()
    assert len(store.uids(box)) == 1500  # it may hold them
    store.set_quota(account.id, 50_000)
    store.trim(account.id)
    for _ in range(10):
        store.barrier()
    assert len(store.uids(box)) == 350
    consistent(store)


def test_without_trimming_an_account_takes_its_quota_and_no_more(place: Place) -> None:
    store = place.store
    box = place.inbox()
    store.limit(quota_default=1000, trim_from=0, trim_to=0)
    place.append(box, 1, size=600, internal_date=1000)
    assert place.deliver('a@localhost', data=b'x' * 400) == [Outcome.STORED]
    assert place.deliver('a@localhost', data=b'x') == [Outcome.OVER_QUOTA]
    assert list(store.uids(box)) == [1, 2]


def test_a_date_in_the_future_does_not_save_a_message_from_trimming(place: Place) -> None:
    box = place.inbox()
    store = place.store
    place.append(box, 1, size=500_000, internal_date=4_000_000_000)
    store._submit(lambda tx: tx.execute('UPDATE messages SET saved = 1000000000'))
    assert place.deliver('a@localhost', data=b'x' * 400_000) == [Outcome.STORED]
    assert list(store.uids(box)) == [2]


def test_totals_come_in_slices(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('madmail.store.purging.TOTAL', 2)
    for name in 'abcde':
        place.append(place.inbox(f'{name}@localhost'), 2, size=10)
    size = messages = last = 0
    while True:
        some = place.store.storage(last)
        size, messages, last = size + some[0], messages + some[1], some[2]
        if not last:
            break
    assert (size, messages) == (100, 10)


def test_notes_outlive_the_process(place: Place) -> None:
    assert place.store.note('upkeep.x') is None
    place.store.set_note('upkeep.x', -5)
    place.store.set_note('upkeep.x', 7)
    assert place.reopen().note('upkeep.x') == 7


def test_the_newest_is_not_what_a_client_says(place: Place) -> None:
    box = place.inbox()
    place.append(box, 1, internal_date=4_000_000_000)
    assert place.store.newest() == 0
    place.store.deliver(MemoryBody(b'x'), ['a@localhost'], delivery_id=os.urandom(16))
    assert 1_600_000_000 < place.store.newest() < 4_000_000_000
