"""Quota: making room in an account before something is added to it.

An account that would stand above `trim_from` of its quota gives up its oldest
messages until it stands at `trim_to`, so that clients, which warn at 80 %, never
do; with a `trim_from` of 0 it gives up none and takes no more than its quota.
Messages younger than a day are never given up: a box that fills within a day stays
full on purpose, so that its owner notices.

Oldest first means by internal date over all mailboxes and whether seen or not, where
a date after the message came counts as the day it came, and within a mailbox the
order of UIDs is taken for the order of arrival: no index by mailbox and date has to
be kept for it.
"""

from __future__ import annotations

import heapq
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypedDict

from madmail.settings import Settings
from madmail.store.commit import Transaction, Work
from madmail.store.database import SLICE, Gone
from madmail.store.interface import OverQuota
from madmail.store.messages import Messages

PROTECTED = 86_400  # seconds a message is safe from trimming
STEP = 0.05  # of the quota: how far below where it begins trimming goes
SCAN = 3000  # rows looked at for old messages in one go
FRUITLESS = 60  # seconds until an account without old messages is looked at again
FRUITLESS_LIMIT = 10_000  # such accounts remembered


class Limits(TypedDict):
    """How much accounts may hold, as `open_store` and `limit` take it."""

    quota_default: int
    trim_from: float
    trim_to: float


def room(settings: Settings) -> Limits:
    """The limits that the settings make."""
    trim = settings['limits.quota_trim_percent'] / 100
    return {
        'quota_default': settings['limits.quota'],
        'trim_from': trim,
        'trim_to': max(trim - STEP, 0.0),
    }


class TrimFirst(Exception):
    """Room can be made, but not by one slice: trim, then try again."""

    def __init__(self, account_id: int, incoming: int) -> None:
        super().__init__()
        self.account_id = account_id
        self.incoming = incoming


Trim = list[tuple[int, list[Gone]]]  # mailbox id and what it gives up


class Room(Messages):
    """The part of the store that makes room."""

    def __init__(
        self, directory: Path, *, quota_default: int, trim_from: float, trim_to: float
    ) -> None:
        self._fruitless: OrderedDict[int, float] = OrderedDict()
        super().__init__(
            directory, quota_default=quota_default, trim_from=trim_from, trim_to=trim_to
        )

    def limit(self, *, quota_default: int, trim_from: float, trim_to: float) -> None:
        """Other limits from now on."""
        self.quota_default, self.trim_from, self.trim_to = quota_default, trim_from, trim_to
        self._fruitless.clear()

    def _room(self, tx: Transaction, account_id: int, quota: int, incoming: int) -> Trim | None:
        """What to give up so that `incoming` bytes fit; None if they do not.

        Only reads.  Raises TrimFirst.
        """
        if quota < 0:
            quota = self.quota_default
        if quota <= 0:
            return []
        used = (
            tx.execute(
                'SELECT sum(size) FROM mailboxes WHERE account_id = ?', (account_id,)
            ).fetchone()[0]
            or 0
        )
        after = used + incoming
        if not self.trim_from:
            return [] if after <= quota else None
        if after <= quota * self.trim_from:
            return []
        if incoming > quota:
            return None
        found, freed, rows = self._oldest(tx, account_id, after - int(quota * self.trim_to))
        if after - freed > quota:
            if rows >= SLICE:
                raise TrimFirst(account_id, incoming)
            return None
        if rows >= SLICE and after - freed > quota * self.trim_to:
            tx.after.append(lambda: self._trim_later(account_id))
        return found

    def _oldest(self, tx: Transaction, account_id: int, goal: int) -> tuple[Trim, int, int]:
        """Messages to free `goal` bytes, at most a slice: (what, bytes, how many)."""
        now = time.time()
        if self._fruitless.get(account_id, 0) > now:
            return [], 0, 0
        boxes = tx.execute(
            'SELECT id FROM mailboxes WHERE account_id = ? AND messages > 0', (account_id,)
        ).fetchall()
        cursors: list[sqlite3.Cursor] = [
            tx.execute(
                'SELECT CASE WHEN saved THEN min(saved, internal_date) ELSE internal_date END,'
                ' mailbox_id, uid, flags, size, body_id FROM messages'
                ' WHERE mailbox_id = ? ORDER BY uid LIMIT ?',
                (*box, SCAN),
            )
            for box in boxes
        ]
        chosen: dict[int, list[Gone]] = {}
        freed = rows = 0
        stream: Iterator[tuple[int, int, int, int, int, int]] = heapq.merge(*cursors)
        for scanned, (date, mailbox_id, uid, flags, size, body_id) in enumerate(stream, 1):
            if date <= now - PROTECTED:
                chosen.setdefault(mailbox_id, []).append((uid, flags, size, body_id))
                freed += size
                rows += 1
            if freed >= goal or rows >= SLICE or scanned >= SCAN:
                break
        for cursor in cursors:
            cursor.close()
        if not rows:
            self._fruitless[account_id] = now + FRUITLESS
            if len(self._fruitless) > FRUITLESS_LIMIT:
                self._fruitless.popitem(last=False)
        return list(chosen.items()), freed, rows

    def trim(self, account_id: int) -> None:
        """Have an account that stands above its mark give up what is too much, in slices."""
        account = self.account_by_id(account_id)
        if account is None:
            return
        quota = self.quota_default if account.quota < 0 else account.quota
        if self.usage(account_id)[0] > quota * self.trim_from > 0:
            self._fruitless.pop(account_id, None)
            self._trim_later(account_id)

    def _trim(self, tx: Transaction, trim: Trim) -> Generator[None, None, None]:
        for mailbox_id, rows in trim:
            yield from self._removal(tx, mailbox_id, rows)

    def _trim_slice(
        self, tx: Transaction, account_id: int, incoming: int
    ) -> Generator[None, None, None]:
        """Give up one slice, towards room for `incoming`."""
        row = tx.execute('SELECT quota FROM accounts WHERE id = ?', (account_id,)).fetchone()
        if row is None:
            return
        quota = self.quota_default if row[0] < 0 else row[0]
        used, _ = tx.execute(
            'SELECT coalesce(sum(size), 0), 0 FROM mailboxes WHERE account_id = ?', (account_id,)
        ).fetchone()
        goal = used + incoming - int(quota * self.trim_to)
        if quota <= 0 or not self.trim_from or goal <= 0:
            return
        found, freed, rows = self._oldest(tx, account_id, goal)
        yield from self._trim(tx, found)
        if rows >= SLICE and freed < goal and not incoming:
            tx.after.append(lambda: self._trim_later(account_id))

    def _trim_later(self, account_id: int) -> None:
        if not self._closing:
            self._commit.post(lambda tx: self._trim_slice(tx, account_id, 0))

    def _trim_now(self, first: TrimFirst) -> None:
        """One slice, durable; the caller tries again."""

        def work(tx: Transaction) -> Generator[None, None, None]:
            return self._trim_slice(tx, first.account_id, first.incoming)

        job: Work[None] = work
        self._submit(job)

    def _room_for_own(
        self, tx: Transaction, account_id: int, incoming: int
    ) -> Generator[None, None, None]:
        """For what the owner adds: trims, or raises OverQuota before anything is changed."""
        row = tx.execute('SELECT quota FROM accounts WHERE id = ?', (account_id,)).fetchone()
        trim = None if row is None else self._room(tx, account_id, row[0], incoming)
        if trim is None:
            raise OverQuota
        yield from self._trim(tx, trim)
