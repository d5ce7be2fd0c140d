"""A state directory out of a backup.

It is made beside its place under another name and put there when everything is
proved and on disk, so a restore is there or it is not.  Where no other directory can
be put, because a file system is mounted there, it is made inside.

Clients noticed what came after the backup, and must not be told something else
under the same numbers: UIDs, mod-sequences and object ids go on well above all
that can have been given out meanwhile.  All messages count as changed, so that
clients with CONDSTORE take their flags anew, and the record of what was expunged
is forgotten up to now, so that those with QRESYNC compare.  UIDVALIDITY stays.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from madmail.backup.archive import Damaged, Member, Reader
from madmail.backup.tables import Target
from madmail.master.privileges import Identity
from madmail.master.state import LOCK, STATE_FILE, read_shards
from madmail.store import schema

UIDS = 10_000  # UIDs of a mailbox passed over at least, and one more for each second since
MODSEQS = 1 << 32
IDS = 1_000_000  # row ids of accounts, mailboxes and queue entries
BODIES = 1 << 40  # body ids
UID_LIMIT = (1 << 32) - 1

Progress = Callable[[int], object]

_EMPTY = (LOCK, 'lost+found')  # what an empty directory may have


class NotEmpty(Exception):
    """There is something in the way."""


def restore(
    stream: BinaryIO, state_dir: Path, owner: Identity | None, progress: Progress = lambda n: None
) -> dict[str, Any]:
    """Make `state_dir`, which must be empty or not be there; the archive's head.

    Raises NotEmpty, Damaged, NewerVersion, OSError, sqlite3.Error; nothing is left then.
    """
    if state_dir.exists() and any(entry.name not in _EMPTY for entry in state_dir.iterdir()):
        raise NotEmpty
    state_dir.parent.mkdir(parents=True, exist_ok=True)
    stays = state_dir.exists() and not _replaceable(state_dir)
    place = state_dir if stays else state_dir.parent
    fresh = place / f'.{state_dir.name}.restore-{secrets.token_hex(4)}'
    fresh.mkdir(mode=0o700)
    try:
        reader = Reader(stream)
        _Restoration(fresh, reader).run(progress)
        for directory, names, files in os.walk(fresh):
            for name in (*names, *files):
                if owner:
                    owner.give(Path(directory) / name)
        if owner:
            owner.give(fresh)
        os.sync()  # one look at the disk instead of one for each of many files
        if stays:
            if owner:
                owner.give(state_dir)
            _move_up(fresh, state_dir)
        else:
            if state_dir.exists():
                (state_dir / LOCK).unlink(missing_ok=True)
                state_dir.rmdir()
            fresh.rename(state_dir)
            _sync(state_dir.parent)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return reader.head


def _replaceable(state_dir: Path) -> bool:
    """Whether another directory can take its place: not where a file system is mounted."""
    return not os.path.ismount(state_dir) and os.access(state_dir.parent, os.W_OK)


def _move_up(fresh: Path, state_dir: Path) -> None:
    """All of it into the directory it is in; there is no relay before the last file."""
    (state_dir / LOCK).unlink(missing_ok=True)
    moved: list[Path] = []
    try:
        for entry in sorted(fresh.iterdir(), key=lambda entry: entry.name == STATE_FILE):
            if entry.name == STATE_FILE:
                _sync(state_dir)
            entry.rename(state_dir / entry.name)
            moved.append(state_dir / entry.name)
        fresh.rmdir()
        _sync(state_dir)
    except BaseException:
        for entry in reversed(moved):  # `fresh` is removed with what comes back
            entry.rename(fresh / entry.name)
        raise


def verify(stream: BinaryIO, progress: Progress = lambda n: None) -> dict[str, Any]:
    """Read a whole backup as a restore would, without keeping anything; its head.

    Raises Damaged, NewerVersion, OSError.
    """
    reader = Reader(stream)
    _Restoration(None, reader).run(progress)
    return reader.head


class _Restoration:
    """Takes member by member; without a directory it only looks."""

    def __init__(self, directory: Path | None, reader: Reader) -> None:
        self._directory = directory
        self._reader = reader
        self._targets: dict[str, Target] = {}
        self._blobs: set[str] = set()

    def run(self, progress: Progress) -> None:
        try:
            for member in self._reader.members():
                self._take(member)
                progress(self._reader.octets)
            self._finish()
        finally:
            for target in self._targets.values():
                target.close()

    def _take(self, member: Member) -> None:
        kind, _, rest = member.name.partition('/')
        if kind == 'control':
            self._target('control.db', schema.CONTROL).load(member.read())
            return
        index, what, name = rest.split('/', 2) if kind == 'shards' else ('', '', rest)
        if what == 'rows':
            self._target(f'shards/{index}/store.db', schema.SHARD).load(member.read())
            return
        if what == 'blobs':
            self._blobs.add(f'{index}/{name}')
            rest = f'shards/{index}/blobs/{name[:2]}/{name}'
        if self._directory is not None:
            path = self._directory / rest
            _directory(path.parent)
            _write(member, path)

    def _target(self, name: str, migrations: Sequence[schema.Migration]) -> Target:
        if name not in self._targets:
            path = self._directory / name if self._directory is not None else None
            if path is not None:
                _directory(path.parent)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._targets[name] = Target(path, migrations)
        return self._targets[name]

    def _finish(self) -> None:
        head = self._reader.head
        shards, created = head.get('shards'), head.get('created')
        if type(shards) is not int or type(created) is not int:
            raise Damaged('its head is damaged')
        stores = [f'shards/{index}/store.db' for index in range(shards)]
        if sorted(('control.db', *stores)) != sorted(self._targets):
            raise Damaged('a database is missing')
        if self._directory is not None and read_shards(self._directory) != shards:
            raise Damaged('its number of shards is missing')
        needed = {f'{n}/{b}' for n, store in enumerate(stores) for b in self._targets[store].blobs}
        if needed - self._blobs:
            raise Damaged('a large message is missing')
        for target in self._targets.values():
            target.finish()
        for store in stores:
            if not head.get('mail'):
                _empty(self._targets[store].connection)
            _go_on(self._targets[store].connection, max(0, int(time.time()) - created))


def _empty(shard: sqlite3.Connection) -> None:
    """Mailboxes without mail, for a backup without it."""
    shard.execute('UPDATE mailboxes SET messages = 0, unseen = 0, size = 0')


def _go_on(shard: sqlite3.Connection, age: int) -> None:
    """Go on above all numbers that the original can have given out in `age` seconds."""
    execute = shard.execute
    execute('BEGIN')
    # Distinct, ascending by UID, and marked as touched: see `changed_since` of the store.
    execute(
        'UPDATE messages SET flags = flags | 32, modseq = uid + ? +'
        ' (SELECT highest_modseq FROM mailboxes WHERE id = mailbox_id)',
        (MODSEQS,),
    )
    execute('UPDATE mailboxes SET highest_modseq = highest_modseq + ? + uid_next', (MODSEQS,))
    execute('UPDATE mailboxes SET log_floor = highest_modseq')
    execute('DELETE FROM expunged')
    # At the end of its numbers a mailbox gives half of what is left.
    execute(
        'UPDATE mailboxes SET uid_next = min(uid_next + ?, uid_next + (? - uid_next) / 2)',
        (UIDS + age, UID_LIMIT),
    )
    execute('UPDATE sqlite_sequence SET seq = seq + ?', (IDS,))
    execute(
        "INSERT INTO meta VALUES ('last_body', (SELECT coalesce(max(id), 0) FROM bodies) + ?)"
        ' ON CONFLICT (name) DO UPDATE SET value = max(value + ?, excluded.value)',
        (BODIES, BODIES),
    )
    execute('COMMIT')


def _directory(path: Path) -> None:
    """Make it and what is above it, for us alone."""
    if not path.is_dir():
        _directory(path.parent)
        path.mkdir(mode=0o700)


def _write(member: Member, path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, 'wb') as file:
        shutil.copyfileobj(member.file, file, 256 * 1024)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
