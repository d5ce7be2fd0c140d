"""The database of one shard: its connections, and what all nouns of the store share.

Two connections: jobs of the group commit write on one, everything else reads
on the other, which sees committed data only and is never kept waiting (WAL).
Whatever a job reads it reads on the writing connection, so it sees the jobs
before it in its group.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections import Counter, OrderedDict
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from random import randrange
from typing import Any, NamedTuple

import gevent

from madmail.store import schema
from madmail.store.blobs import Blobs, sync
from madmail.store.commit import GroupCommit, Transaction, Work, through
from madmail.store.interface import (
    INLINE_LIMIT,
    Body,
    Event,
    Expunged,
    Observer,
)

SLICE = 500  # rows a job removes or changes, so that it holds the loop for a few ms
CHECKPOINT_PAGES = 2000  # WAL pages after which COMMIT, in its thread, also checkpoints
BODIES = 50  # of them removed before the loop may get a turn
SPENT = 60  # lists of spent bodies taken together
BUCKET_BITS = 12  # of body ids removed in one transaction, which lets the loop in between
ADOPTION = 3600.0  # seconds a message may take from its file to its transaction
PAUSE = 0.0001  # seconds; 0 would be no whole turn of the loop, see commit
WAL_LIMIT = 64 * 1024 * 1024  # bytes the WAL file keeps after a checkpoint
CACHE_KIB = 8 * 1024  # page cache of a connection
STATEMENTS = 200  # prepared statements a connection keeps
ROUTES = 20_000  # accounts whose INBOX is remembered, about 200 bytes each
TOUCHED = 32  # in the stored flags: changed since it came, see schema
FLAGS = 31  # the bits of interface.Flag
LOG_LIMIT = 1000  # ranges of expunged UIDs remembered for a mailbox

Row = tuple[Any, ...]
Gone = tuple[int, int, int, int]  # of a message to be removed: uid, flags, size, body id


class StoreInUse(Exception):
    """Another process has this store open."""


class Route(NamedTuple):
    """Where an address's mail goes."""

    account_id: int
    inbox_id: int
    quota: int  # bytes; -1 = the relay's default
    devices: int  # 0 = no device of it is to be told of mail; see store.devices


class Database:
    """One open shard database."""

    observer: Observer | None

    def __init__(
        self, directory: Path, *, quota_default: int, trim_from: float, trim_to: float
    ) -> None:
        self.observer = None
        self.directory = directory
        self.quota_default = quota_default
        self.trim_from = trim_from
        self.trim_to = trim_to
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(directory / 'lock')
        try:
            self.blobs = Blobs(directory / 'blobs')
            path = directory / 'store.db'
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            for place in (directory, *directory.parents[:2]):
                sync(place)  # a store that was made just now outlasts a loss of power
            self._writer = _connect(path)
            self._writer.execute('PRAGMA journal_mode = WAL')
            self._writer.execute('PRAGMA synchronous = FULL')
            self._writer.execute(f'PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}')
            self._writer.execute(f'PRAGMA journal_size_limit = {WAL_LIMIT}')
            # FAST overwrites removed content only where a page is written anyway.
            self._writer.execute('PRAGMA secure_delete = FAST')
            schema.migrate(self._writer, schema.SHARD)
            self._reader = _connect(path)
            self._reader.execute('PRAGMA query_only = 1')
        except BaseException:
            os.close(self._lock)
            raise
        self._read = self._reader.execute
        self._routes: OrderedDict[str, Route] = OrderedDict()
        # Body ids need only be new within this process: nobody remembers older ones.
        self._last_body: int = self._one(
            'SELECT max(coalesce((SELECT max(id) FROM bodies), 0),'
            ' coalesce((SELECT max(highest) FROM spent), 0),'
            " coalesce((SELECT value FROM meta WHERE name = 'last_body'), 0))"
        )[0]
        self._account_count: int = self._one('SELECT count(*) FROM accounts')[0]
        self._graves = {row[0] for row in self._read('SELECT mailbox_id FROM graves')}
        self._closing = False
        # Blobs that are too young for the sweep to take them for orphans, by age.
        self._adopted: dict[str, float] = {}
        self._commit = GroupCommit(
            self._writer, committed=self._committed, rolled_back=self._routes.clear
        )
        self._submit = self._commit.submit
        if self._graves:
            self._commit.post(self._bury)
        leftovers = _listing(directory / 'spool')
        self._sweeper = gevent.spawn(self._clean, leftovers)

    # -- life

    def close(self) -> None:
        """Commit what is queued and close; later calls raise."""
        if self._closing:
            return
        self._closing = True
        self._sweeper.kill()
        self._commit.close()
        self.blobs.close()
        self._reader.close()
        try:
            self._writer.execute('PRAGMA wal_checkpoint(TRUNCATE)')
        except sqlite3.Error:
            pass  # everything is in the WAL
        self._writer.close()
        os.close(self._lock)

    def barrier(self) -> None:
        """Return when every write queued so far is durable (the heartbeat)."""
        self._submit(through)

    @property
    def commits(self) -> int:
        """Transactions that went to disk."""
        return self._commit.commits

    @property
    def jobs(self) -> int:
        """Write jobs done."""
        return self._commit.jobs

    # -- shared by the nouns

    def _one(self, statement: str, *parameters: object) -> Row:
        """The only row of a query that always has one."""
        row: Row = self._read(statement, parameters).fetchone()
        return row

    def _committed(self, events: Sequence[Event], dropped: Sequence[str]) -> None:
        self.blobs.remove_later(dropped)
        if events and self.observer is not None:
            self.observer(events)

    def _route(self, tx: Transaction, address: str) -> Route | None:
        """Looked up in the open transaction, remembered while it is true."""
        routes = self._routes
        route = routes.get(address)
        if route is not None:
            routes.move_to_end(address)
            return route
        row = tx.execute(
            'SELECT a.id, m.id, a.quota,'
            ' EXISTS (SELECT 1 FROM push_tokens WHERE account_id = a.id) FROM accounts a'
            " JOIN mailboxes m ON m.account_id = a.id AND m.name = 'INBOX' WHERE a.address = ?",
            (address,),
        ).fetchone()
        if row is None:
            return None
        route = routes[address] = Route(*row)
        if len(routes) > ROUTES:
            routes.popitem(last=False)
        return route

    def _meta_next(self, tx: Transaction, name: str, at_least: int) -> int:
        """A number above every one given out under this name, and not below `at_least`."""
        row = tx.execute(
            'INSERT INTO meta (name, value) VALUES (?, ?)'
            ' ON CONFLICT (name) DO UPDATE SET value = max(value + 1, excluded.value)'
            ' RETURNING value',
            (name, at_least),
        ).fetchone()
        return int(row[0])

    # -- bodies

    def _adopt(self, body: Body) -> str | None:
        """Bring a large body's file into the blob directory; None for a small body.

        Blocks the greenlet, a thread waits for the disk.
        """
        if body.size <= INLINE_LIMIT:
            return None
        name = self.blobs.new_name()
        now = time.monotonic()
        adopted = self._adopted
        while adopted and now - adopted[oldest := next(iter(adopted))] > ADOPTION:
            del adopted[oldest]
        adopted[name] = now
        gevent.get_hub().threadpool.apply(self.blobs.keep, (name, body))
        return name

    def _abandon(self, names: Iterable[str | None]) -> None:
        """Remove blobs that were adopted for nothing."""
        self.blobs.remove_later([name for name in names if name is not None])

    def _insert_body(
        self, tx: Transaction, size: int, blob: str | None, data: bytes | None, refs: int
    ) -> int:
        self._last_body += 1
        body_id = self._last_body
        tx.execute('INSERT INTO bodies VALUES (?, ?, ?, ?)', (body_id, size, blob, data))
        if refs > 1:
            tx.execute('INSERT INTO shared VALUES (?, ?)', (body_id, refs))
        return body_id

    def _release(
        self, tx: Transaction, gone: Iterable[tuple[int, int]], spent: list[int] | None = None
    ) -> None:
        """Give up one reference for each (body id, size); bodies without any are removed.

        With `spent` only large ones are; it gets the others.
        """
        counts = Counter(gone)
        found = tx.execute(
            'SELECT body_id, refs FROM shared WHERE body_id IN (SELECT value FROM json_each(?))',
            (_json(body for body, _ in counts),),
        )
        shared = dict(found.fetchall())
        kept: list[tuple[int, int]] = []
        last: list[tuple[int]] = []
        large: list[int] = []
        unshared: list[tuple[int]] = []
        for (body, size), count in counts.items():
            left = shared.get(body, 1) - count
            if left > 0:
                kept.append((left, body))
                continue
            if body in shared:
                unshared.append((body,))
            if size > INLINE_LIMIT:
                large.append(body)
            elif spent is not None:
                spent.append(body)
                continue
            last.append((body,))
        tx.executemany('UPDATE shared SET refs = ? WHERE body_id = ?', kept)
        tx.executemany('DELETE FROM shared WHERE body_id = ?', unshared)
        if large:
            rows = tx.execute(
                'SELECT blob FROM bodies WHERE id IN (SELECT value FROM json_each(?))',
                (_json(large),),
            )
            tx.dropped += [row[0] for row in rows.fetchall() if row[0] is not None]
        tx.executemany('DELETE FROM bodies WHERE id = ?', last)

    # -- messages that go

    def _remove(
        self,
        tx: Transaction,
        mailbox_id: int,
        rows: Sequence[Gone],
        origin: object | None = None,
        *,
        release: bool = True,
    ) -> None:
        """Remove messages from a mailbox: rows, counters, log, event, and their bodies.

        `rows` ascend by UID and exist.  Without `release` the bodies live on elsewhere.
        """
        runs = list(ranges([row[0] for row in rows]))
        if len(runs) * 2 > len(rows):
            tx.executemany(
                'DELETE FROM messages WHERE mailbox_id = ? AND uid = ?',
                [(mailbox_id, row[0]) for row in rows],
            )
        else:
            # PERF: 0.7 us a message in place of 2.5.
            tx.executemany(
                'DELETE FROM messages WHERE mailbox_id = ? AND uid BETWEEN ? AND ?',
                [(mailbox_id, first, last) for first, last in runs],
            )
        if release:
            self._release(tx, [(row[3], row[2]) for row in rows])
        found = tx.execute(
            'UPDATE mailboxes SET highest_modseq = highest_modseq + 1, messages = messages - ?,'
            ' unseen = unseen - ?, size = size - ? WHERE id = ? RETURNING highest_modseq',
            (
                len(rows),
                sum(1 for row in rows if not row[1] & 1),
                sum(row[2] for row in rows),
                mailbox_id,
            ),
        ).fetchone()
        if found is None:
            return  # the mailbox is in its grave
        modseq = found[0]
        uids = [row[0] for row in rows]
        tx.executemany(
            'INSERT INTO expunged VALUES (?, ?, ?, ?)',
            [(mailbox_id, modseq, first, last) for first, last in runs],
        )
        if len(runs) > randrange(64):
            self._forget(tx, mailbox_id)
        tx.events.append(Expunged(mailbox_id, uids, modseq, origin))

    def _removal(
        self, tx: Transaction, mailbox_id: int, rows: Sequence[Gone], origin: object | None = None
    ) -> Generator[None, None, None]:
        """`_remove` in steps: bodies lie scattered and take 10 to 40 us each."""
        self._remove(tx, mailbox_id, rows, origin, release=False)
        for start in range(0, len(rows), BODIES):
            yield
            self._release(tx, [(row[3], row[2]) for row in rows[start : start + BODIES]])

    def _forget(self, tx: Transaction, mailbox_id: int) -> None:
        """Keep the log of expunged UIDs within its limit."""
        row = tx.execute(
            'SELECT modseq FROM expunged WHERE mailbox_id = ?'
            ' ORDER BY modseq DESC LIMIT 1 OFFSET ?',
            (mailbox_id, LOG_LIMIT),
        ).fetchone()
        if row is not None:
            tx.execute(
                'DELETE FROM expunged WHERE mailbox_id = ? AND modseq <= ?', (mailbox_id, row[0])
            )
            tx.execute('UPDATE mailboxes SET log_floor = ? WHERE id = ?', (row[0], mailbox_id))

    # -- leftovers

    def _dig(self, tx: Transaction, boxes: Sequence[Row]) -> None:
        """Mailboxes (id, messages) are gone; have their messages removed in slices."""
        tx.executemany('DELETE FROM expunged WHERE mailbox_id = ?', [(box[0],) for box in boxes])
        graves = [(box[0],) for box in boxes if box[1]]
        if not graves:
            return
        tx.executemany('INSERT INTO graves VALUES (?)', graves)
        tx.after.append(lambda: self._graves.update(grave[0] for grave in graves))
        tx.after.append(lambda: self._commit.post(self._bury))

    def _bury(self, tx: Transaction) -> Generator[None, None, None]:
        """Remove one slice of what lies in graves, and come back for the next."""
        if self._closing:
            return
        grave = tx.execute('SELECT mailbox_id FROM graves LIMIT 1').fetchone()
        if grave is None:
            return
        rows = tx.execute(
            'SELECT uid, body_id, size FROM messages WHERE mailbox_id = ? ORDER BY uid LIMIT ?',
            (*grave, SLICE),
        ).fetchall()
        if rows:
            tx.execute(
                'DELETE FROM messages WHERE mailbox_id = ? AND uid <= ?', (*grave, rows[-1][0])
            )
            for start in range(0, len(rows), BODIES):
                yield
                self._release(tx, [(row[1], row[2]) for row in rows[start : start + BODIES]])
        if len(rows) < SLICE:
            tx.execute('DELETE FROM graves WHERE mailbox_id = ?', grave)
            tx.after.append(lambda: self._graves.discard(grave[0]))
        tx.after.append(lambda: None if self._closing else self._commit.post(self._bury))

    def _spend(self, tx: Transaction, bodies: Sequence[int]) -> None:
        """Note bodies nobody refers to for `_clear`."""
        if bodies:
            tx.execute(
                'INSERT INTO spent (highest, bodies) VALUES (?, ?)', (max(bodies), _json(bodies))
            )

    def _clear(self) -> None:
        """Remove spent bodies in the order of their ids; blocks the greenlet.

        Done twice it does no harm.
        """
        while True:
            found = self._read('SELECT id, bodies FROM spent ORDER BY id LIMIT ?', (SPENT,))
            rows = found.fetchall()
            if not rows:
                return
            # Sorted bucket by bucket, for all at once would hold the loop.
            buckets: dict[int, list[int]] = {}
            for _, text in rows:
                for body in json.loads(text):
                    buckets.setdefault(body >> BUCKET_BITS, []).append(body)
                gevent.sleep(PAUSE)
            for bucket in sorted(buckets):
                self._submit(_clearing(sorted(buckets[bucket])))
            self._submit(_forgetting(rows[-1][0]))

    def _clean(self, leftovers: Sequence[Path]) -> None:
        """Remove what a crash left behind: its spool, spent bodies, blobs nobody refers to."""
        self._clear()
        gevent.get_hub().threadpool.apply(_unlink, (leftovers,))
        self.sweep()

    def sweep(self) -> int:
        """Remove blobs nobody refers to; how many.  Blocks the greenlet."""
        threads = gevent.get_hub().threadpool
        removed = 0
        for directory in threads.apply(self.blobs.directories):
            names = threads.apply(self.blobs.names, (directory,))
            for start in range(0, len(names), SLICE):
                # Listed before they are looked up: what refers to them is committed
                # by now, or they are among the adopted.
                some = [name for name in names[start : start + SLICE] if name not in self._adopted]
                kept = self._read(
                    'SELECT blob FROM bodies WHERE blob IN (SELECT value FROM json_each(?))',
                    ('[' + ','.join(f'"{name}"' for name in some if name.isalnum()) + ']',),
                )
                orphans = set(some).difference(row[0] for row in kept.fetchall())
                if orphans:
                    threads.apply(self.blobs.remove, (orphans,))
                    removed += len(orphans)
        return removed


def _clearing(bodies: Sequence[int]) -> Work[None]:
    def work(tx: Transaction) -> Generator[None, None, None]:
        for start in range(0, len(bodies), SLICE // 2):
            tx.executemany(
                'DELETE FROM bodies WHERE id BETWEEN ? AND ?',
                list(ranges(bodies[start : start + SLICE // 2])),
            )
            yield

    return work


def _forgetting(last: int) -> Work[object]:
    return lambda tx: tx.execute('DELETE FROM spent WHERE id <= ?', (last,))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS
    )
    connection.execute('PRAGMA busy_timeout = 2000')
    connection.execute(f'PRAGMA cache_size = -{CACHE_KIB}')
    connection.execute('PRAGMA temp_store = MEMORY')
    return connection


def _lock(path: Path) -> int:
    """POSIX lock: it ends with the process, and forked children do not inherit it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreInUse('Another process has this store open') from error
    return descriptor


def _listing(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in os.listdir(directory)]
    except FileNotFoundError:
        return []


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            os.unlink(path)
        except OSError:
            pass


def _json(numbers: Iterable[int]) -> str:
    return '[' + ','.join(map(str, numbers)) + ']'


def ranges(uids: Sequence[int]) -> Generator[tuple[int, int], None, None]:
    """Ascending UIDs as (first, last) of each unbroken run."""
    first = last = 0
    for uid in uids:
        if uid == last + 1 and last:
            last = uid
        else:
            if last:
                yield first, last
            first = last = uid
    if last:
        yield first, last
