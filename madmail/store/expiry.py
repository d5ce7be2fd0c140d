"""Expiry: the oldest messages of all mailboxes go, slice by slice.

What is to go is planned from the index by date, then removed mailbox by mailbox,
and the bodies in the order in which they lie in the file.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator, Sequence

import gevent

from madmail.store.changes import Changes, in_slices
from madmail.store.commit import Transaction, Work
from madmail.store.database import PAUSE, SLICE
from madmail.store.interface import INLINE_LIMIT

# PERF: the oldest messages are spread over all mailboxes.  Removed in order of age, each
# changes a page of its own (18 us a message).  So OVERDUE of them are removed by mailbox
# and then their bodies in the order in which they lie (7 us).
OVERDUE = 100_000  # messages planned at a time, 4 bytes each
OVERDUE_READ = 2000  # rows of the plan read at once, about 2 ms
DAWN = -1 << 62  # before every date
EXPIRE_SLICE = 2000  # messages of one transaction, which lets the loop in between


class Expiry(Changes):
    def expire(
        self, before: int, limit: int = SLICE, larger_than: int = 0, *, since: int = DAWN
    ) -> int:
        """Remove up to `limit` of the oldest messages with an internal date below `before`.

        With `since` only those that are not older than that; with `larger_than` (at
        least INLINE_LIMIT) only messages of more bytes.  How many were removed: fewer
        than `limit` when there are no more.  Sessions get their turn after each slice.
        """
        if 0 < larger_than < INLINE_LIMIT:
            raise ValueError('No index for small sizes')
        done = 0
        while done < limit:
            wanted = min(limit - done, OVERDUE)
            found, overdue = self._overdue(before, wanted, larger_than, since)
            for some in _batches(overdue):
                done += self._submit(self._expiring(some))
            self._clear()
            if found < wanted:
                break
        return done

    def overdue(self, before: int, larger_than: int = 0, *, since: int = DAWN) -> int:
        """How many messages `expire` would remove."""
        return self._overdue(before, 1 << 40, larger_than, since)[0]

    def _overdue(
        self, before: int, limit: int, larger_than: int, since: int
    ) -> tuple[int, dict[int, array[int]]]:
        """How many and which: the UIDs of the oldest messages by mailbox; may switch."""
        index = (
            f'INDEXED BY by_date_large WHERE size > {INLINE_LIMIT} AND size > {larger_than} AND'
            if larger_than
            else 'INDEXED BY by_date WHERE'
        )
        overdue: dict[int, array[int]] = {}
        found = 0
        last = (since, 0, 0)
        while found < limit:
            wanted = min(limit - found, OVERDUE_READ)
            rows = self._read(
                'SELECT internal_date, mailbox_id, uid FROM messages'
                f' {index} internal_date < ? AND (internal_date, mailbox_id, uid) > (?, ?, ?)'
                ' ORDER BY internal_date, mailbox_id, uid LIMIT ?',
                (before, *last, wanted),
            ).fetchall()
            found += len(rows)
            for _, mailbox_id, uid in rows:
                uids = overdue.get(mailbox_id)
                if uids is None:
                    uids = overdue[mailbox_id] = array('I')
                uids.append(uid)
            if len(rows) < wanted:
                break
            last = rows[-1]
            gevent.sleep(PAUSE)
        return found, overdue

    def _expiring(self, batch: Sequence[tuple[int, Sequence[int]]]) -> Work[int]:
        def work(tx: Transaction) -> Generator[None, None, int]:
            bodies: list[tuple[int, int]] = []
            for mailbox_id, uids in batch:
                rows = self._pick(tx, 'uid, flags, size, body_id', mailbox_id, uids)
                if rows:
                    self._remove(tx, mailbox_id, rows, release=False)
                    bodies += [(row[3], row[2]) for row in rows]
                yield
            spent: list[int] = []
            for start in range(0, len(bodies), SLICE):
                self._release(tx, bodies[start : start + SLICE], spent)
                yield
            self._spend(tx, spent)
            return len(bodies)

        return work


def _batches(overdue: dict[int, array[int]]) -> Iterator[list[tuple[int, Sequence[int]]]]:
    """Pieces of at most SLICE UIDs of one mailbox, as many as go into one transaction."""
    batch: list[tuple[int, Sequence[int]]] = []
    size = 0
    for mailbox_id in sorted(overdue):
        for some in in_slices(overdue[mailbox_id]):
            batch.append((mailbox_id, some))
            size += len(some)
            if size >= EXPIRE_SLICE:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch
