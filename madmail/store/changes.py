"""Changes to the messages of a mailbox: APPEND, STORE, EXPUNGE, COPY and MOVE.

A change takes the mailbox's next modseq and leaves an event.  Commands about
many messages are cut into slices, each a job of its own, so that neither the
loop nor other writers wait for a whole huge command.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TypeVar

from madmail.store.commit import Transaction, Work
from madmail.store.database import FLAGS, SLICE, TOUCHED, Row
from madmail.store.interface import (
    INLINE_LIMIT,
    Appended,
    Flag,
    FlagsChanged,
    FlagUpdate,
    MailboxMissing,
    MessageMissing,
    NewMessage,
)
from madmail.store.room import Room, TrimFirst

T = TypeVar('T')

Changed = tuple[int, int, tuple[str, ...], int]  # uid, flags, keywords, modseq

FULL_ROW = 'uid, flags, keywords, internal_date, size, modseq, body_id'
_COLUMNS = 'mailbox_id, uid, flags, keywords, internal_date, size, modseq, body_id'
INSERT = f'INSERT INTO messages ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)'
_INSERT_SAVED = f'INSERT INTO messages ({_COLUMNS}, saved) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)'


class Changes(Room):
    """The part of the store that changes messages."""

    # -- APPEND

    def append(
        self,
        mailbox_id: int,
        messages: Sequence[NewMessage],
        origin: object | None = None,
        *,
        replacing: tuple[int, int] | None = None,
    ) -> list[int]:
        """All or nothing; the new UIDs.  Raises MailboxMissing, OverQuota, StoreFull.

        With `replacing`, a mailbox id and a UID, that message goes in the same
        transaction (RFC 8508); raises MessageMissing if it has gone already.
        """
        if not messages:
            return []
        self._mailbox_owner(mailbox_id)
        small = [
            message.body.read() if message.body.size <= INLINE_LIMIT else None
            for message in messages
        ]
        blobs: list[str | None] = []
        try:
            for message in messages:
                blobs.append(self._adopt(message.body))
        except BaseException:
            self._abandon(blobs)
            raise

        def work(tx: Transaction) -> Generator[None, None, list[int]]:
            now = int(time.time())
            size = sum(message.body.size for message in messages)
            old = self._replaced(tx, replacing)
            if replacing is not None and not old:
                raise MessageMissing
            needed = max(0, size - sum(row[2] for row in old))
            yield from self._room_for_own(tx, self._owner(tx, mailbox_id), needed)
            unseen = sum(1 for message in messages if not message.flags & Flag.SEEN)
            uid, modseq = self._allocate(tx, mailbox_id, len(messages), unseen, size)
            uids = list(range(uid, uid + len(messages)))
            for uid, message, data, blob in zip(uids, messages, small, blobs, strict=True):
                body_id = self._insert_body(tx, message.body.size, blob, data, 1)
                date = message.internal_date or now
                tx.execute(
                    _INSERT_SAVED,
                    (
                        mailbox_id,
                        uid,
                        int(message.flags),
                        ' '.join(message.keywords),
                        date,
                        message.body.size,
                        modseq,
                        body_id,
                        now if date != now else 0,
                    ),
                )
            tx.events.append(Appended(mailbox_id, uids, modseq))
            if replacing is not None:
                old = self._replaced(tx, replacing)  # making room may have taken it
                if old:
                    self._remove(tx, replacing[0], old, origin)
            return uids

        return self._with_room(work, blobs)

    def _replaced(self, tx: Transaction, replacing: tuple[int, int] | None) -> list[Row]:
        if replacing is None:
            return []
        return self._pick(tx, 'uid, flags, size, body_id', replacing[0], (replacing[1],))

    # -- STORE

    def store_flags(
        self,
        mailbox_id: int,
        uids: Iterable[int],
        update: FlagUpdate,
        origin: object | None = None,
    ) -> list[Changed]:
        """The rows after the change: uid, flags, keywords, modseq.

        Rows that are as wanted already keep their modseq and are in no event.
        UIDs that are gone are skipped.  Raises MailboxMissing.
        """
        if update.mode not in ('add', 'remove', 'replace'):
            raise ValueError('Unknown mode')
        self._mailbox_owner(mailbox_id)
        result: list[Changed] = []
        for some in in_slices(uids):
            rows, modified = self._submit(self._storing(mailbox_id, some, update, origin))
            result += rows
            update.modified += modified
        return result

    def _storing(
        self, mailbox_id: int, uids: Sequence[int], update: FlagUpdate, origin: object | None
    ) -> Callable[[Transaction], tuple[list[Changed], list[int]]]:
        mode, bits, words = update.mode, int(update.flags), update.keywords
        limit = update.unchanged_since

        def work(tx: Transaction) -> tuple[list[Changed], list[int]]:
            row = tx.execute(
                'SELECT highest_modseq FROM mailboxes WHERE id = ?', (mailbox_id,)
            ).fetchone()
            if row is None:
                raise MailboxMissing
            modseq = row[0] + 1
            result: list[Changed] = []
            modified: list[int] = []
            changes: list[Changed] = []
            seen = 0
            found = self._pick(tx, 'uid, flags, keywords, modseq', mailbox_id, uids)
            for uid, old_bits, old_text, old_modseq in found:
                if limit is not None and old_modseq > limit:  # RFC 7162 3.1.3
                    modified.append(uid)
                    continue
                old_bits &= FLAGS
                old_words = tuple(old_text.split(' ')) if old_text else ()
                if mode == 'add':
                    new_bits = old_bits | bits
                    new_words = old_words + tuple(w for w in words if w not in old_words)
                elif mode == 'remove':
                    new_bits = old_bits & ~bits
                    new_words = tuple(w for w in old_words if w not in words)
                else:
                    new_bits, new_words = bits, tuple(dict.fromkeys(words))
                if new_bits == old_bits and new_words == old_words:
                    result.append((uid, old_bits, old_words, old_modseq))
                    continue
                seen += (new_bits & 1) - (old_bits & 1)
                change = (uid, new_bits, new_words, modseq)
                result.append(change)
                changes.append(change)
            if changes:
                tx.executemany(
                    'UPDATE messages SET flags = ?, keywords = ?, modseq = ?'
                    ' WHERE mailbox_id = ? AND uid = ?',
                    [
                        (flags | TOUCHED, ' '.join(keywords), modseq, mailbox_id, uid)
                        for uid, flags, keywords, _ in changes
                    ],
                )
                tx.execute(
                    'UPDATE mailboxes SET highest_modseq = ?, unseen = unseen - ? WHERE id = ?',
                    (modseq, seen, mailbox_id),
                )
                tx.events.append(FlagsChanged(mailbox_id, changes, origin))
            return result, modified

        return work

    # -- EXPUNGE

    def expunge(
        self, mailbox_id: int, uids: Iterable[int] | None = None, origin: object | None = None
    ) -> list[int]:
        """Remove messages that carry \\Deleted, all or those among `uids`; the UIDs removed.

        Raises MailboxMissing.
        """
        self._mailbox_owner(mailbox_id)
        slices = (
            self._marked(mailbox_id, uids)
            if uids is None or isinstance(uids, range)
            else in_slices(uids)
        )
        removed: list[int] = []
        for some in slices:
            removed += self._submit(self._expunging(mailbox_id, some, origin))
        return removed

    def _marked(self, mailbox_id: int, within: range | None) -> Iterator[list[int]]:
        """UIDs that carry \\Deleted, in slices, each read when it is asked for."""
        first = 0 if within is None else within.start
        last = self._one('SELECT uid_next FROM mailboxes WHERE id = ?', mailbox_id)[0] - 1
        while True:
            some = [
                row[0]
                for row in self._read(
                    'SELECT uid FROM messages INDEXED BY deleted WHERE mailbox_id = ?'
                    ' AND flags & 8 AND uid BETWEEN ? AND ? ORDER BY uid LIMIT ?',
                    (mailbox_id, first, last, SLICE),
                ).fetchall()
            ]
            if not some:
                return
            first = some[-1] + 1
            yield some if within is None else [uid for uid in some if uid in within]

    def _expunging(
        self, mailbox_id: int, uids: Sequence[int], origin: object | None
    ) -> Work[list[int]]:
        def work(tx: Transaction) -> Generator[None, None, list[int]]:
            found = self._pick(tx, 'uid, flags, size, body_id', mailbox_id, uids)
            rows = [row for row in found if row[1] & Flag.DELETED]
            if rows:
                yield from self._removal(tx, mailbox_id, rows, origin)
            return [row[0] for row in rows]

        return work

    # -- COPY and MOVE

    def copy(self, mailbox_id: int, uids: Sequence[int], target_id: int) -> list[tuple[int, int]]:
        """Pairs (source UID, new UID); bodies are shared.  UIDs that are gone are skipped.

        All or nothing: what a copy of more than a slice has made before it fails is
        removed again (RFC 3501 6.4.7).  Raises MailboxMissing, OverQuota, StoreFull.
        """
        self._mailbox_owner(mailbox_id)
        self._mailbox_owner(target_id)
        pairs: list[tuple[int, int]] = []
        try:
            for some in in_slices(uids):
                pairs += self._with_room(self._copying(mailbox_id, some, target_id))
        except Exception:
            for some in in_slices(pair[1] for pair in pairs):
                self._submit(self._undoing(target_id, some))
            raise
        return pairs

    def move(
        self,
        mailbox_id: int,
        uids: Sequence[int],
        target_id: int,
        origin: object | None = None,
    ) -> list[tuple[int, int]]:
        """COPY and expunge in one transaction (RFC 6851), for each slice of a large set."""
        self._mailbox_owner(mailbox_id)
        self._mailbox_owner(target_id)
        pairs: list[tuple[int, int]] = []
        for some in in_slices(uids):
            pairs += self._with_room(self._copying(mailbox_id, some, target_id, True, origin))
        return pairs

    def _copying(
        self,
        mailbox_id: int,
        uids: Sequence[int],
        target_id: int,
        move: bool = False,
        origin: object | None = None,
    ) -> Work[list[tuple[int, int]]]:
        def work(tx: Transaction) -> Generator[None, None, list[tuple[int, int]]]:
            source = self._owner(tx, mailbox_id)
            target = self._owner(tx, target_id)
            rows = self._pick(tx, FULL_ROW, mailbox_id, uids)
            if not rows:
                return []
            size = sum(row[4] for row in rows)
            if not move or source != target:
                yield from self._room_for_own(tx, target, size)
                if tx.events:  # trimming may have taken some of them
                    rows = self._pick(tx, FULL_ROW, mailbox_id, uids)
                    if not rows:
                        return []
                    size = sum(row[4] for row in rows)
            unseen = sum(1 for row in rows if not row[1] & 1)
            uid, modseq = self._allocate(tx, target_id, len(rows), unseen, size)
            new = range(uid, uid + len(rows))
            now = int(time.time())
            tx.executemany(
                _INSERT_SAVED,
                [
                    (target_id, uid, flags & FLAGS, keywords, date, size, modseq, body, now)
                    for uid, (_, flags, keywords, date, size, _, body) in zip(
                        new, rows, strict=True
                    )
                ],
            )
            tx.events.append(Appended(target_id, list(new), modseq))
            if move:
                gone = [(row[0], row[1], row[4], row[6]) for row in rows]
                self._remove(tx, mailbox_id, gone, origin, release=False)
            else:
                tx.executemany(
                    'INSERT INTO shared VALUES (?, ? + 1)'
                    ' ON CONFLICT (body_id) DO UPDATE SET refs = refs + excluded.refs - 1',
                    Counter(row[6] for row in rows).items(),
                )
            return [(row[0], uid) for row, uid in zip(rows, new, strict=True)]

        return work

    def _undoing(self, mailbox_id: int, uids: Sequence[int]) -> Work[None]:
        def work(tx: Transaction) -> Generator[None, None, None]:
            rows = self._pick(tx, 'uid, flags, size, body_id', mailbox_id, uids)
            if rows:
                yield from self._removal(tx, mailbox_id, rows)

        return work

    # -- shared by the commands

    def _with_room(self, work: Work[T], blobs: Sequence[str | None] = ()) -> T:
        """Submit work that may ask for trimming first; `blobs` go if it fails in the end."""

        def failed(error: BaseException) -> None:
            if not isinstance(error, TrimFirst):
                self._abandon(blobs)

        while True:
            try:
                return self._submit(work, failed)
            except TrimFirst as first:
                try:
                    self._trim_now(first)
                except BaseException:
                    self._abandon(blobs)
                    raise

    def _owner(self, tx: Transaction, mailbox_id: int) -> int:
        """The mailbox's account.  Raises MailboxMissing."""
        row = tx.execute('SELECT account_id FROM mailboxes WHERE id = ?', (mailbox_id,)).fetchone()
        if row is None:
            raise MailboxMissing
        return int(row[0])

    def _allocate(
        self, tx: Transaction, mailbox_id: int, count: int, unseen: int, size: int
    ) -> tuple[int, int]:
        """Take `count` UIDs and a modseq: (first UID, modseq).  Raises MailboxMissing.

        Modseqs grow by as much as UIDs, which `changed_since` relies on.
        """
        row = tx.execute(
            'UPDATE mailboxes SET uid_next = uid_next + ?1, highest_modseq = highest_modseq + ?1,'
            ' messages = messages + ?1, unseen = unseen + ?2, size = size + ?3 WHERE id = ?4'
            ' RETURNING uid_next, highest_modseq',
            (count, unseen, size, mailbox_id),
        ).fetchone()
        if row is None:
            raise MailboxMissing
        return row[0] - count, row[1]

    def _pick(
        self, tx: Transaction, columns: str, mailbox_id: int, uids: Sequence[int]
    ) -> list[Row]:
        """Rows of those of the ascending `uids` that are there, ascending."""
        if len(uids) == 1:
            return tx.execute(
                f'SELECT {columns} FROM messages WHERE mailbox_id = ? AND uid = ?',
                (mailbox_id, uids[0]),
            ).fetchall()
        if uids and uids[-1] - uids[0] + 1 == len(uids):
            return tx.execute(
                f'SELECT {columns} FROM messages WHERE mailbox_id = ?'
                ' AND uid BETWEEN ? AND ? ORDER BY uid',
                (mailbox_id, uids[0], uids[-1]),
            ).fetchall()
        rows: list[Row] = tx.execute(
            f'SELECT {columns} FROM messages WHERE mailbox_id = ?'
            ' AND uid IN (SELECT value FROM json_each(?)) ORDER BY uid',
            (mailbox_id, '[' + ','.join(map(str, uids)) + ']'),
        ).fetchall()
        return rows


def in_slices(uids: Iterable[int]) -> Iterator[list[int]]:
    ordered = sorted(set(uids))
    for start in range(0, len(ordered), SLICE):
        yield ordered[start : start + SLICE]
