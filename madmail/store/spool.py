"""Messages in flight: bodies in memory or in a file, and the spool that receives them.

A message is received into a `Spool`, which keeps it in memory up to
INLINE_LIMIT and beyond that writes it to a file `<shard>/spool/<random>`, so a
large message holds 64 KiB.  Nothing is synced here: the store does that, in a
thread, when it adopts the file by a hard link, and so may several shards of
the same file system, one after the other, without copying.

A spool file lives as long as the Spool or its Body (whichever is dropped
last), or until `discard`.  What a crash leaves behind is removed when the
store opens the next time.
"""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from madmail.store.interface import INLINE_LIMIT, StoreFull

BUFFER = 64 * 1024  # bytes collected before they are written to the file

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


class MemoryBody:
    """A message held in memory."""

    __slots__ = ('data', 'size')

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, offset: int = 0, length: int = -1) -> bytes:
        if offset == 0 and (length < 0 or length >= self.size):
            return self.data
        return self.data[offset:] if length < 0 else self.data[offset : offset + length]


class FileBody:
    """A message in a file, opened by the first `read`.

    It stays open from then on, so that an expunge by another session does not
    cut off a FETCH that has announced its length.  Raises FileNotFoundError if
    the file was removed before.
    """

    __slots__ = ('_descriptor', '_temporary', 'path', 'size')

    def __init__(self, path: Path, size: int, *, temporary: bool = False) -> None:
        """`temporary`: the file is removed together with this object."""
        self.path = path
        self.size = size
        self._temporary = temporary
        self._descriptor = -1

    def read(self, offset: int = 0, length: int = -1) -> bytes:
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        wanted = max(0, self.size - offset)
        if 0 <= length < wanted:
            wanted = length
        data = os.pread(self._descriptor, wanted, offset)
        if len(data) == wanted:
            return data
        pieces = [data]  # pread gives at most 2 GiB, and less on some file systems
        got = len(data)
        while data and got < wanted:
            data = os.pread(self._descriptor, wanted - got, offset + got)
            pieces.append(data)
            got += len(data)
        return b''.join(pieces)

    def discard(self) -> None:
        """Close, and remove a temporary file; harmless when done twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        if self._temporary:
            self._temporary = False
            try:
                os.unlink(self.path)
            except OSError:
                pass

    def __del__(self) -> None:
        self.discard()


class Spool:
    """Receives one message."""

    __slots__ = ('_body', '_buffer', '_descriptor', '_directory', 'size')

    def __init__(self, directory: Path) -> None:
        """`directory` is the shard's; nothing is created before it is needed."""
        self.size = 0
        self._directory = directory
        self._buffer = bytearray()
        self._descriptor = -1
        self._body: FileBody | MemoryBody | None = None

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Add octets.  Raises StoreFull when the disk refuses them."""
        if self._body is not None and self._descriptor < 0:
            raise ValueError('The spool is finished')
        self._buffer += data
        self.size += len(data)
        # PERF: a write of 64 KiB to the page cache takes 15 to 30 us on the loop,
        # handing it to a thread and waiting more than that.
        if self._descriptor >= 0:
            if len(self._buffer) >= BUFFER:
                self._write()
        elif self.size > INLINE_LIMIT:
            self._open()
            self._write()

    def finish(self) -> FileBody | MemoryBody:
        """The whole message; nothing can be added any more."""
        if self._descriptor >= 0:
            self._write()
            os.close(self._descriptor)
            self._descriptor = -1
            assert isinstance(self._body, FileBody)
            self._body.size = self.size
        elif self._body is None:
            self._body = MemoryBody(bytes(self._buffer))
            self._buffer = bytearray()
        return self._body

    def discard(self) -> None:
        """Forget the message and remove its file; harmless when done twice.

        A store that has adopted the body keeps it.
        """
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if isinstance(self._body, FileBody):
            self._body.discard()
        else:
            self._body = MemoryBody(b'')
        self._buffer = bytearray()

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _open(self) -> None:
        spool = self._directory / 'spool'
        path = spool / secrets.token_hex(16)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            try:
                self._descriptor = os.open(path, flags, 0o600)
            except FileNotFoundError:
                os.makedirs(spool, mode=0o700, exist_ok=True)
                self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise refused(error) from error
        self._body = FileBody(path, 0, temporary=True)

    def _write(self) -> None:
        with memoryview(self._buffer) as view:
            done = 0
            try:
                while done < len(view):
                    done += os.write(self._descriptor, view[done:])
            except OSError as error:
                raise refused(error) from error
        self._buffer.clear()


def refused(error: OSError) -> Exception:
    """StoreFull if that is what an OSError says, else the error."""
    return StoreFull() if error.errno in FULL else error
