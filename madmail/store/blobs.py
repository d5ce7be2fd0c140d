"""Bodies above INLINE_LIMIT: one file each, `<shard>/blobs/<xx>/<32 hex digits>`.

Names are random and never used twice.  A blob is on disk, name and all, before
the transaction that refers to it commits, and is removed after the commit that
dropped the last reference.  So a crash can only leave files too many; they are
found by comparing with the database when the store opens.

`keep`, `remove`, `directories` and `names` block and are meant for native threads.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from madmail.store.interface import Body
from madmail.store.spool import BUFFER, FileBody, refused


class Blobs:
    """The blob directory of one shard."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        self._doomed: SimpleQueue[Sequence[str]] = SimpleQueue()
        self._remover: Thread | None = None
        self._durable: set[str] = set()  # directories known to be on disk

    @staticmethod
    def new_name() -> str:
        return secrets.token_hex(16)

    def path(self, name: str) -> Path:
        return self.directory / name[:2] / name

    def keep(self, name: str, body: Body) -> None:
        """Make `body` durable under `name`: by a hard link where possible, else by copying.

        Raises StoreFull.
        """
        path = self.path(name)
        try:
            if name[:2] not in self._durable:
                try:
                    os.mkdir(path.parent, 0o700)
                except FileExistsError:
                    pass  # made just now by another thread, perhaps, and not on disk yet
                sync(self.directory)
                self._durable.add(name[:2])
            if not (isinstance(body, FileBody) and _link(body.path, path)):
                _copy(body, path)
            sync(path)
            sync(path.parent)
        except BaseException as error:
            self.remove((name,))
            if isinstance(error, OSError):
                raise refused(error) from error
            raise

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are gone already are no error."""
        for name in names:
            try:
                os.unlink(self.path(name))
            except OSError:
                pass  # found again when the store opens

    def remove_later(self, names: Sequence[str]) -> None:
        """Have files removed by a thread; never blocks, usable in loop callbacks."""
        if not names:
            return
        self._doomed.put(names)
        if self._remover is None:
            self._remover = Thread(target=self._remove_doomed, name='blobs', daemon=True)
            self._remover.start()

    def close(self) -> None:
        """Return when everything given to `remove_later` is removed."""
        remover, self._remover = self._remover, None
        if remover is not None:
            self._doomed.put(())
            remover.join()

    def _remove_doomed(self) -> None:
        while names := self._doomed.get():
            self.remove(names)

    def directories(self) -> list[str]:
        return sorted(entry for entry in os.listdir(self.directory) if len(entry) == 2)

    def names(self, directory: str) -> list[str]:
        """The blobs in one of `directories`."""
        return os.listdir(self.directory / directory)


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError as error:
        # Another file system, or one without links: copy instead.
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            return False
        raise
    return True


def _copy(body: Body, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        offset = 0
        while offset < body.size:
            piece = body.read(offset, BUFFER)
            if not piece:
                raise ValueError('The body is shorter than its size')
            offset += len(piece)
            while piece:
                piece = piece[os.write(descriptor, piece) :]
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, on disk on return."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
