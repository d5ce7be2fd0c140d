"""What upkeep needs of a store: removal by age and by \\Seen, doubtful dates, totals, notes.

Everything comes in slices: one call looks at a bounded number of rows and
removes some of them in one transaction, so whoever goes through a whole store
decides between the calls how much of the loop it takes.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from madmail.store.commit import Transaction, Work
from madmail.store.database import SLICE, Row
from madmail.store.interface import Flag, Purged
from madmail.store.leases import Leases

LOOK = 2000  # rows looked at by one call, about 2 ms
TOTAL = 4000  # mailboxes added up by one statement, about 1 ms
ARRIVED = 'CASE WHEN saved THEN saved ELSE internal_date END'  # in its mailbox


class Purging(Leases):
    """The part of the store that upkeep works with."""

    # -- removal

    def mailbox_ids(self, after: int = 0, limit: int = 1000, account_id: int = 0) -> list[int]:
        """Mailboxes that hold messages, behind `after`; of all accounts or of one."""
        owner = ' AND account_id = ?3' if account_id else ' AND ?3 = 0'
        rows = self._read(
            f'SELECT id FROM mailboxes WHERE id > ?1 AND messages > 0{owner} ORDER BY id LIMIT ?2',
            (after, limit, account_id),
        )
        return [row[0] for row in rows.fetchall()]

    def purge(
        self,
        mailbox_id: int,
        after: int = 0,
        *,
        seen: bool | None = None,
        before: int | None = None,
        dry_run: bool = False,
    ) -> Purged:
        """Remove a slice of the messages behind UID `after`.

        Only those with \\Seen or without it, if `seen` says so, and only those that
        came into the mailbox before the Unix time `before`.  With `dry_run` they are
        merely counted.  A mailbox that is gone has no messages.
        """
        wanted = ''
        if seen is not None:
            wanted += ' AND flags & 1' if seen else ' AND NOT flags & 1'
        parameters: list[int] = []
        if before is not None:
            wanted += f' AND {ARRIVED} < ?'
            parameters.append(before)
        if mailbox_id in self._graves:
            return Purged(0, 0, 0)
        # The rows to look at first, so that a mailbox with nothing to remove is slices too.
        end = self._one(
            'SELECT count(*), max(uid) FROM (SELECT uid FROM messages WHERE mailbox_id = ?'
            ' AND uid > ? ORDER BY uid LIMIT ?)',
            mailbox_id,
            after,
            LOOK,
        )
        if not end[0]:
            return Purged(0, 0, 0)
        found: list[Row] = self._read(
            'SELECT uid, flags, size, body_id FROM messages WHERE mailbox_id = ?'
            f' AND uid > ? AND uid <= ?{wanted} ORDER BY uid LIMIT ?',
            (mailbox_id, after, end[1], *parameters, SLICE),
        ).fetchall()
        last = found[-1][0] if len(found) == SLICE else end[1]
        if end[0] < LOOK and len(found) < SLICE:
            last = 0
        if dry_run or not found:
            return Purged(len(found), sum(row[2] for row in found), last)
        uids = [row[0] for row in found]

        def work(tx: Transaction) -> Generator[None, None, tuple[int, int]]:
            rows = self._pick(tx, 'uid, flags, size, body_id', mailbox_id, uids)
            if seen is not None:  # it may have been changed since
                rows = [row for row in rows if bool(row[1] & Flag.SEEN) is seen]
            if rows:
                yield from self._removal(tx, mailbox_id, rows)
            return len(rows), sum(row[2] for row in rows)

        job: Work[tuple[int, int]] = work
        return Purged(*self._submit(job), last)

    def remove(
        self, mailbox_id: int, uids: Sequence[int], origin: object | None = None
    ) -> list[int]:
        """Remove messages whatever their flags; the UIDs removed.  Raises MailboxMissing."""
        self._mailbox_owner(mailbox_id)
        ordered = sorted(set(uids))
        removed: list[int] = []
        for start in range(0, len(ordered), SLICE):
            removed += self._submit(
                self._taking(mailbox_id, ordered[start : start + SLICE], origin)
            )
        return removed

    def _taking(
        self, mailbox_id: int, uids: Sequence[int], origin: object | None
    ) -> Work[list[int]]:
        def work(tx: Transaction) -> Generator[None, None, list[int]]:
            rows = self._pick(tx, 'uid, flags, size, body_id', mailbox_id, uids)
            if rows:
                yield from self._removal(tx, mailbox_id, rows, origin)
            return [row[0] for row in rows]

        return work

    # -- dates that cannot be right

    def undated(
        self, low: int, high: int, now: int, after: tuple[int, int, int] | None = None
    ) -> tuple[list[tuple[int, int, int]], tuple[int, int, int] | None]:
        """Messages dated before `low` or after `high`: (mailbox id, UID, since when).

        They came while the clock was wrong, or a client gave them that date.  Since
        when they are here is what counts for them; where it is not known either, it is
        `now` from now on.  A slice behind `after`, and where to go on (None = the end).
        """
        begin = after or (-(1 << 62), 0, 0)
        rows: list[Row] = []
        if begin[0] < low:
            rows = self._read(
                'SELECT internal_date, mailbox_id, uid, saved FROM messages INDEXED BY by_date'
                ' WHERE internal_date < ? AND (internal_date, mailbox_id, uid) > (?, ?, ?)'
                ' ORDER BY internal_date, mailbox_id, uid LIMIT ?',
                (low, *begin, SLICE),
            ).fetchall()
            if len(rows) < SLICE:
                begin = (high, 1 << 62, 0)
        if begin[0] >= low:
            rows += self._read(
                'SELECT internal_date, mailbox_id, uid, saved FROM messages INDEXED BY by_date'
                ' WHERE internal_date > ? AND (internal_date, mailbox_id, uid) > (?, ?, ?)'
                ' ORDER BY internal_date, mailbox_id, uid LIMIT ?',
                (high, *begin, SLICE),
            ).fetchall()
        # Neither is a date from a clock that was wrong at the time.
        unknown = [(now, row[1], row[2]) for row in rows if not low <= row[3] <= high]
        if unknown:
            self._submit(
                lambda tx: tx.executemany(
                    'UPDATE messages SET saved = ? WHERE mailbox_id = ? AND uid = ?', unknown
                )
            )
        found = [(row[1], row[2], row[3] if low <= row[3] <= high else now) for row in rows]
        return found, rows[-1][:3] if len(rows) >= SLICE else None

    def redate_account(self, account_id: int, low: int, today: int) -> None:
        """Days of an account that are before `low` or after `today` become `today`."""

        def work(tx: Transaction) -> None:
            tx.execute(
                'UPDATE accounts SET created_day = ?2 WHERE id = ?1'
                ' AND (created_day < ?3 OR created_day > ?2)',
                (account_id, today, low),
            )
            tx.execute(
                'UPDATE accounts SET last_login_day = ?2 WHERE id = ?1'
                ' AND last_login_day <> 0 AND (last_login_day < ?3 OR last_login_day > ?2)',
                (account_id, today, low),
            )

        self._submit(work)

    # -- totals

    def storage(self, after: int = 0) -> tuple[int, int, int]:
        """(bytes, messages, last) of a slice of the mailboxes behind id `after`; last 0 = end."""
        size, messages, last, count = self._one(
            'SELECT coalesce(sum(size), 0), coalesce(sum(messages), 0), max(id), count(*) FROM'
            ' (SELECT id, size, messages FROM mailboxes WHERE id > ? ORDER BY id LIMIT ?)',
            after,
            TOTAL,
        )
        return size, messages, last if count == TOTAL else 0

    def newest(self) -> int:
        """The latest Unix time something is known to have happened here; 0 = nothing has."""
        # A message with a date of its client's choice has a `saved` of its own.
        message = self._read(
            'SELECT internal_date FROM messages INDEXED BY by_date WHERE saved = 0'
            ' ORDER BY internal_date DESC LIMIT 1'
        ).fetchone()
        day = self._one('SELECT coalesce(max(max(created_day, last_login_day)), 0) FROM accounts')
        return max(int(day[0]), 0 if message is None else int(message[0]))

    # -- notes that outlive the process

    def note(self, name: str) -> int | None:
        """The number kept under a name."""
        row = self._read('SELECT value FROM meta WHERE name = ?', (name,)).fetchone()
        return None if row is None else int(row[0])

    def set_note(self, name: str, value: int) -> None:
        self._submit(
            lambda tx: tx.execute(
                'INSERT INTO meta (name, value) VALUES (?, ?)'
                ' ON CONFLICT (name) DO UPDATE SET value = excluded.value',
                (name, value),
            )
        )
