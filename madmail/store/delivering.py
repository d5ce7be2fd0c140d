"""Delivery: one body into many INBOXes and outbox entries, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence

from madmail.store.changes import INSERT
from madmail.store.commit import Transaction, Work
from madmail.store.database import Route
from madmail.store.devices import Devices
from madmail.store.interface import INLINE_LIMIT, Appended, Body, OutboxEntry, Outcome
from madmail.store.room import Trim

DAY = 86_400  # seconds; a delivery id is known for the rest of the day and all of the next
KNOWN = 'SELECT outcomes FROM delivered WHERE day IN (?, ?) AND id = ?'
PURGE_EVERY = 60  # seconds
PURGE_SLICE = 1000

_LETTER = {Outcome.STORED: 's', Outcome.UNKNOWN: 'u', Outcome.OVER_QUOTA: 'q'}
_OUTCOME = {letter: outcome for outcome, letter in _LETTER.items()}


class Delivering(Devices):
    """The part of the store that delivers."""

    _purge_at = 0.0

    def deliver(
        self,
        body: Body | None,
        addresses: Sequence[str],
        *,
        delivery_id: bytes,
        outbox: Sequence[OutboxEntry] = (),
        quiet: str = '',
    ) -> list[Outcome]:
        """Store one body for many accounts and remote domains, in one transaction.

        One outcome an address; an address named twice gets one copy.  A `delivery_id`
        (16 random octets) that was seen within the last day changes nothing and gives
        the outcomes of the first time, so a caller that lost the answer may ask again;
        it must then name the same addresses (ValueError).  Only when nothing was stored
        and a mailbox was full, it is tried anew.  Without a body only a repetition is
        possible (ValueError).  Devices of the accounts are to be told, but for those of
        the address `quiet`.  Raises StoreFull.
        """
        data = blob = None
        size = 0
        if body is not None:
            size = body.size
            if size <= INLINE_LIMIT:
                data = body.read()
            elif not self._delivered(delivery_id):
                blob = self._adopt(body)

        # PERF: a lone delivery costs 150 us of CPU, 30 of them statements, 40 the two
        # thread switches, the rest COMMIT with its fsync; in groups of 50 writers 80 us,
        # and each further recipient 20 us (benchmarks/store.py).
        def work(tx: Transaction) -> Generator[None, None, list[Outcome]]:
            return self._delivery(tx, data, blob, size, addresses, delivery_id, outbox, quiet)

        job: Work[list[Outcome]] = work
        outcomes = self._with_room(job, (blob,))
        now = time.monotonic()
        if now >= self._purge_at:
            self._purge_at = now + PURGE_EVERY
            self._commit.post(self._purge)
        return outcomes

    def _delivery(
        self,
        tx: Transaction,
        data: bytes | None,
        blob: str | None,
        size: int,
        addresses: Sequence[str],
        delivery_id: bytes,
        outbox: Sequence[OutboxEntry],
        quiet: str = '',
    ) -> Generator[None, None, list[Outcome]]:
        now = int(time.time())
        day = now // DAY
        known = tx.execute(KNOWN, (day, day - 1, delivery_id)).fetchone()
        if known is not None:
            if blob is not None:
                tx.dropped.append(blob)
            if len(known[0]) != len(addresses):
                raise ValueError('A delivery id was used for other addresses')
            return [_OUTCOME[letter] for letter in known[0]]
        if data is None and blob is None:
            raise ValueError('A delivery needs a body')
        # First decide, then write: what cannot be done then costs no rollback.
        found: dict[str, Outcome] = {}
        places: list[tuple[Route, Trim]] = []
        silent = 0  # account id
        for address in addresses:
            if address in found:
                continue
            route = self._route(tx, address)
            if route is None:
                found[address] = Outcome.UNKNOWN
                continue
            trim = self._room(tx, route.account_id, route.quota, size)
            if trim is None:
                found[address] = Outcome.OVER_QUOTA
            else:
                found[address] = Outcome.STORED
                places.append((route, trim))
                if address == quiet:
                    silent = route.account_id
            yield
        refs = len(places) + len(outbox)
        if refs:
            body_id = self._insert_body(tx, size, blob, data, refs)
            for entry in outbox:
                self._insert_entry(tx, entry, body_id, size)
        elif blob is not None:
            tx.dropped.append(blob)
        for route, trim in places:
            yield from self._trim(tx, trim)
            uid, modseq = self._allocate(tx, route.inbox_id, 1, 1, size)
            tx.execute(INSERT, (route.inbox_id, uid, 0, '', now, size, modseq, body_id))
            tx.events.append(Appended(route.inbox_id, (uid,), modseq))
            if route.devices and self.notifying and route.account_id != silent:
                self._make_due(tx, route.account_id, now)
            yield
        outcomes = [found[address] for address in addresses]
        # Nothing stored because mailboxes are full: who asks again may find room.
        if refs or Outcome.OVER_QUOTA not in outcomes:
            tx.execute(
                'INSERT INTO delivered VALUES (?, ?, ?)',
                (day, delivery_id, ''.join([_LETTER[outcome] for outcome in outcomes])),
            )
        return outcomes

    def _delivered(self, delivery_id: bytes) -> bool:
        day = int(time.time()) // DAY
        row = self._read(KNOWN, (day, day - 1, delivery_id)).fetchone()
        return row is not None

    def _insert_entry(self, tx: Transaction, entry: OutboxEntry, body_id: int, size: int) -> None:
        tx.execute(
            'INSERT INTO outbox (sender, domain, recipients, created, body_id, size, tries,'
            ' next_try, last_error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
            (
                entry.sender,
                entry.domain,
                '\n'.join(entry.recipients),
                entry.created,
                body_id,
                size,
                entry.tries,
                entry.next_try,
                entry.last_error,
            ),
        )

    def _purge(self, tx: Transaction) -> None:
        """Forget delivery ids of the days before yesterday, a slice at a time."""
        count = tx.execute(
            'DELETE FROM delivered WHERE (day, id) IN'
            ' (SELECT day, id FROM delivered WHERE day < ? LIMIT ?)',
            (int(time.time()) // DAY - 1, PURGE_SLICE),
        ).rowcount
        if count == PURGE_SLICE:
            tx.after.append(lambda: None if self._closing else self._commit.post(self._purge))
