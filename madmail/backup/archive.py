"""The container of a backup: a compressed tar whose last member proves all others.

    madmail-backup.json      what this is: format, version, domain, shards, when
    files/PATH               a small file of the state directory (keys, certificates, …)
    control/rows/N           rows of the control database
    shards/S/rows/N          rows of a shard's database
    shards/S/blobs/NAME      a large message
    madmail-backup.sha256    digest over the names, sizes and octets of all members before

Rows are msgpack, see `tables`, so that a backup does not depend on the file
format of a database.  Any tar lists and unpacks it.  Both ends stream: nothing
is held but a member of rows (about a megabyte).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

FORMAT = 1
HEAD = 'madmail-backup.json'
PROOF = 'madmail-backup.sha256'
ROWS_LIMIT = 64 * 1024 * 1024  # octets of a member of rows that a reader accepts
COMPRESSION = 1  # PERF: mail is ciphertext in base64, more effort gains little
PIECE = 256 * 1024

_NAME = re.compile(
    r'files(?:/(?!\.\.?(?:/|$))[^/\0-\x1f\x7f\ud800-\udfff]{1,255}){1,32}'
    r'|control/rows/\d{1,9}'
    r'|shards/\d{1,4}/rows/\d{1,9}'
    r'|shards/\d{1,4}/blobs/[0-9a-f]{32}'
)

_TORN = (tarfile.TarError, EOFError, zlib.error, OSError, ValueError)


def has_room(name: str) -> bool:
    """Whether a member may have this name."""
    return _NAME.fullmatch(name) is not None


class Damaged(Exception):
    """The archive is cut off, altered, or none of ours; the text is a clause for the operator."""


class Writer:
    """Writes an archive to a stream that need not seek."""

    def __init__(self, stream: BinaryIO, head: dict[str, Any]) -> None:
        self._gzip = gzip.GzipFile(fileobj=stream, mode='wb', compresslevel=COMPRESSION)
        self._tar = tarfile.TarFile(fileobj=self._gzip, mode='w', format=tarfile.PAX_FORMAT)
        self._digest = hashlib.sha256()
        self.octets = 0
        self.add(HEAD, json.dumps({'format': FORMAT, **head}, indent=1).encode() + b'\n')

    def add(self, name: str, data: bytes) -> None:
        self.add_file(name, io.BytesIO(data), len(data))

    def add_file(self, name: str, file: BinaryIO, size: int) -> None:
        """Exactly `size` octets of `file`; raises OSError if it has fewer."""
        self._digest.update(_heading(name, size))
        self._tar.addfile(_member(name, size), _Digesting(file, self._digest))
        self.octets += size

    def finish(self) -> None:
        proof = self._digest.hexdigest().encode() + b'\n'
        self._tar.addfile(_member(PROOF, len(proof)), io.BytesIO(proof))
        self._tar.close()
        self._gzip.close()


class Member(NamedTuple):
    """One member on its way by; `read` before asking for the next one."""

    name: str
    size: int
    file: BinaryIO

    def read(self) -> bytes:
        if self.size > ROWS_LIMIT:
            raise Damaged('a member is too large')
        return self.file.read()


class Reader:
    """Reads an archive from a stream that need not seek.  Raises Damaged."""

    def __init__(self, stream: BinaryIO) -> None:
        self._digest = hashlib.sha256()
        self.octets = 0
        self._members = self._walk(stream)
        first = next(self._members, None)
        if first is None or first.name != HEAD or first.size > PIECE:
            raise Damaged('this is not a backup of madmail')
        try:
            head = json.loads(first.read())
            form = head['format']
        except (ValueError, KeyError, TypeError):
            raise Damaged('its first member is damaged') from None
        if form != FORMAT:
            raise Damaged(f'it has format {form!r}, this version of madmail knows {FORMAT}')
        self.head: dict[str, Any] = head

    def members(self) -> Iterator[Member]:
        """All members behind the head; Damaged unless they end with their proof."""
        yield from self._members

    def _walk(self, stream: BinaryIO) -> Iterator[Member]:
        try:
            with tarfile.open(fileobj=stream, mode='r|*') as tar:
                for info in tar:
                    file = tar.extractfile(info) if info.isreg() else None
                    if file is None:
                        raise Damaged('it holds something that is no file')
                    if info.name == PROOF:
                        if file.read(100).strip() != self._digest.hexdigest().encode():
                            raise Damaged('its checksum is wrong')
                        return
                    if info.name != HEAD and not _NAME.fullmatch(info.name):
                        raise Damaged('it holds a file that no backup has')
                    self._digest.update(_heading(info.name, info.size))
                    digesting = _Digesting(file, self._digest)
                    yield Member(info.name, info.size, digesting)  # type: ignore[arg-type]
                    while digesting.read(PIECE):
                        pass  # what the caller left
                    self.octets += info.size
        except _TORN as error:
            raise _damaged(error) from None
        raise Damaged('it is cut off: its end is missing')


class _Digesting:
    """Reads on, and digests what it has read."""

    def __init__(self, file: Any, digest: Any) -> None:
        self._file = file
        self._digest = digest

    def read(self, size: int = -1) -> bytes:
        try:
            data: bytes = self._file.read(size)
        except _TORN as error:
            raise _damaged(error) from None
        self._digest.update(data)
        return data


def _damaged(error: Exception) -> Exception:
    """What to raise for it: trouble of the disk is not the archive's."""
    if isinstance(error, OSError) and error.errno:
        return error
    return Damaged('it is cut off or damaged')


def _heading(name: str, size: int) -> bytes:
    return b'%s\0%d\0' % (name.encode(), size)


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o600
    return info
