"""Trimming, expiry and purging against a model: the right messages go, and no others."""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from madmail.store.interface import FlagUpdate, Outcome
from madmail.store.spool import MemoryBody
from madmail.store.sqlite import open_store
from tests.store.conftest import Place, consistent, together

DAY = 86_400
QUOTA = 100_000
FROM, TO = 0.75, 0.70
BEGIN = 1_700_000_000
ADDRESS = 'a@localhost'


class Row(NamedTuple):
    date: int
    box: int
    uid: int
    size: int


class Model:
    """What the account should hold."""

    def __init__(self, boxes: list[int]) -> None:
        self.boxes: dict[int, list[Row]] = {box: [] for box in boxes}
        self.next = dict.fromkeys(boxes, 1)
        self.seen: set[tuple[int, int]] = set()

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self.boxes.values() for row in rows]

    @property
    def used(self) -> int:
        return sum(row.size for row in self.rows)

    def add(self, box: int, size: int, date: int) -> int:
        uid = self.next[box]
        self.next[box] += 1
        self.boxes[box].append(Row(date, box, uid, size))
        return uid

    def remove(self, gone: list[Row]) -> None:
        for row in gone:
            self.boxes[row.box].remove(row)
            self.seen.discard((row.box, row.uid))

    def room(self, size: int, now: int) -> bool:
        """Make room as the account should; False, and nothing goes, if there cannot be any."""
        after = self.used + size
        if after <= QUOTA * FROM:
            return True
        if size > QUOTA:
            return False
        goal, freed, gone = after - int(QUOTA * TO), 0, []
        for row in heapq.merge(*self.boxes.values()):
            if freed >= goal:
                break
            if row.date <= now - DAY:
                gone.append(row)
                freed += row.size
        if after - freed > QUOTA:
            return False
        self.remove(gone)
        return True

    def check(self, store: Any) -> None:
        for box, rows in self.boxes.items():
            assert list(store.uids(box)) == [row.uid for row in rows]
        assert store.usage(store.account(ADDRESS).id) == (self.used, len(self.rows))
        assert self.used <= QUOTA


sizes = st.sampled_from([10, 1000, 4000, 9000, 30_000, 60_000, QUOTA + 1])
steps = st.one_of(
    st.tuples(st.just('deliver'), st.lists(sizes, min_size=1, max_size=12)),
    st.tuples(st.just('pass'), st.integers(60, 2 * DAY)),
    st.tuples(st.just('see'), st.integers(0, 200)),
    st.tuples(st.just('copy'), st.integers(0, 200)),
    st.tuples(st.just('expire'), st.integers(0, 3 * DAY)),
    st.tuples(st.just('purge'), st.sampled_from([True, False, None]), st.integers(0, 3 * DAY)),
)


# Near the mark, with old and young mail, so that what follows has to trim.
FULL: list[tuple[Any, ...]] = [
    ('deliver', [2000] * 20),
    ('pass', DAY),
    ('deliver', [900] * 30),
    ('pass', DAY // 2),
]


class Clock:
    """Stands in for the module `time` where the store looks at the clock."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.now = BEGIN

    def time(self) -> float:
        return float(self.now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=40))
def test_what_goes_is_what_the_model_says(script: list[tuple[Any, ...]]) -> None:
    import time as real

    clock = Clock(real)
    with (
        tempfile.TemporaryDirectory() as directory,
        patch('madmail.store.room.time', clock),
        patch('madmail.store.delivering.time', clock),
        patch('madmail.store.changes.time', clock),
    ):
        place = Place(Path(directory) / 'shard', open_store)
        store = place.store
        store.limit(quota_default=QUOTA, trim_from=FROM, trim_to=TO)
        inbox = place.inbox(ADDRESS)
        other = store.create_mailbox(store.account(ADDRESS).id, 'Other').id
        model = Model([inbox, other])
        try:
            for step, *arguments in FULL + script:
                clock.now += 61  # an account that had nothing to give is looked at again
                STEPS[step](store, model, clock, inbox, other, *arguments)
                model.check(store)
            consistent(store)
        finally:
            store.close()


def deliver(store: Any, model: Model, clock: Clock, inbox: int, other: int, many: Any) -> None:
    """All in one commit group, or nearly so: each is judged by what those before have done."""
    outcomes = together(
        *[
            lambda size=size: store.deliver(
                MemoryBody(b'x' * size), [ADDRESS], delivery_id=os.urandom(16)
            )
            for size in many
        ]
    )
    for size, outcome in zip(many, outcomes, strict=True):
        if model.room(size, clock.now):
            model.add(inbox, size, clock.now)
            assert outcome == [Outcome.STORED]
        else:
            assert outcome == [Outcome.OVER_QUOTA]


def pass_(store: Any, model: Model, clock: Clock, inbox: int, other: int, much: int) -> None:
    clock.now += much


def see(store: Any, model: Model, clock: Clock, inbox: int, other: int, number: int) -> None:
    if model.rows:
        row = model.rows[number % len(model.rows)]
        store.store_flags(row.box, [row.uid], FlagUpdate('add', 1))
        model.seen.add((row.box, row.uid))


def copy(store: Any, model: Model, clock: Clock, inbox: int, other: int, number: int) -> None:
    if not model.boxes[inbox] or model.used > QUOTA * FROM - 60_000:
        return
    row = model.boxes[inbox][number % len(model.boxes[inbox])]
    store.copy(inbox, [row.uid], other)
    uid = model.add(other, row.size, row.date)
    if (inbox, row.uid) in model.seen:
        model.seen.add((other, uid))


def expire(store: Any, model: Model, clock: Clock, inbox: int, other: int, age: int) -> None:
    gone = [row for row in model.rows if row.date < clock.now - age]
    assert store.overdue(clock.now - age) == len(gone)
    assert store.expire(clock.now - age, 10_000) == len(gone)
    model.remove(gone)


def purge(
    store: Any, model: Model, clock: Clock, inbox: int, other: int, seen: bool | None, age: int
) -> None:
    before = clock.now - age
    saved = {box: {r.uid: r.saved for r in store.messages(box, 1, 9999)} for box in model.boxes}
    gone = [
        row
        for row in model.rows
        if (seen is None or ((row.box, row.uid) in model.seen) is seen)
        and saved[row.box][row.uid] < before
    ]
    for dry_run in (True, False):
        done = 0
        for box in store.mailbox_ids(account_id=store.account(ADDRESS).id):
            last = 0
            while True:
                purged = store.purge(box, last, seen=seen, before=before, dry_run=dry_run)
                done += purged.messages
                last = purged.last
                if not last:
                    break
        assert done == len(gone)
    model.remove(gone)


STEPS: dict[str, Callable[..., None]] = {
    'deliver': deliver,
    'pass': pass_,
    'see': see,
    'copy': copy,
    'expire': expire,
    'purge': purge,
}
