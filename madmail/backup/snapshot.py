"""Writing a backup of a state directory, whether or not its relay runs.

All databases are opened first, each at one state of its own; they are a few
milliseconds apart, which delivery between shards survives as it survives a crash:
what was on its way is delivered again and recognised.  While the backup lasts, the
write-ahead logs of the databases grow by what the relay writes meanwhile.

Large messages are files, which the relay removes when nobody refers to them any
more.  So `shards/N/backup/` gets hard links to all of them, made until a state of the
database needs none that is not there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from madmail import __version__
from madmail.backup.archive import Writer, has_room
from madmail.backup.tables import Source
from madmail.master.state import LOCK, PID_FILE, RUN, read_shards

LINKS = 'backup'  # directory of a shard for the links
GUARD = 'backup.lock'  # held by the backup that is made
FILE_LIMIT = 16 * 1024 * 1024  # octets; what is larger is no key or certificate
TRIES = 20  # states of a database tried until all of its files are there
MAIL = frozenset(
    ('messages', 'bodies', 'shared', 'expunged', 'graves', 'spent', 'delivered', 'outbox')
)

_NO_KEYS = ('.log', '.db', '.db-wal', '.db-shm', '.partial')
_LEFT_OUT = frozenset((LOCK, PID_FILE, RUN, GUARD, 'web', 'shards', 'core'))


class Busy(Exception):
    """Another backup of this relay is being made."""


class Unsettled(Exception):
    """Files go faster than they are found; does not happen to a relay that works."""


class Snapshot:
    """The state of a relay; `write` it, then `close`."""

    def __init__(self, state_dir: Path, *, mail: bool = True) -> None:
        """Raises Busy, Unsettled, Stop, OSError, sqlite3.Error."""
        self.state_dir = state_dir
        self.mail = mail
        self.shards = read_shards(state_dir) or 0
        self.octets = 0  # read, about, before compression
        self.left_out: list[str] = []  # files of others, too large or of a name no archive has
        self._sources: list[Source] = []
        self._guard = os.open(state_dir / GUARD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy from None
            self._control = self._open(state_dir / 'control.db')
            self._shards = [self._settle(index) for index in range(self.shards)]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for source in self._sources:
            source.close()
        for index in range(self.shards):
            shutil.rmtree(self._links(index), ignore_errors=True)
        os.close(self._guard)

    def estimate(self) -> int:
        """Octets that `write` will read, about."""
        paths = [self.state_dir / 'control.db']
        for index in range(self.shards):
            paths.append(self.state_dir / 'shards' / str(index) / 'store.db')
            if self.mail:
                paths += [entry for entry in self._links(index).iterdir()]
        return sum(path.stat().st_size for path in paths if self.mail or 'shards' not in path.parts)

    def write(
        self, stream: BinaryIO, domain: str, progress: Callable[[int], object] = lambda octets: None
    ) -> dict[str, Any]:
        """The whole archive; its head.  `progress` is told how many octets were read."""
        head = {
            'madmail': __version__,
            'domain': domain,
            'shards': self.shards,
            'created': int(time.time()),
            'mail': self.mail,
        }
        archive = Writer(stream, head)
        for name, path in sorted(self._files()):
            with contextlib.suppress(FileNotFoundError):  # it was for a moment only
                archive.add('files/' + name, path.read_bytes())
        for number, member in enumerate(self._control.members()):
            archive.add(f'control/rows/{number}', member)
        for index, source in enumerate(self._shards):
            without = frozenset() if self.mail else MAIL
            for number, member in enumerate(source.members(without)):
                archive.add(f'shards/{index}/rows/{number}', member)
                progress(archive.octets)
            for link in sorted(self._links(index).iterdir()) if self.mail else ():
                with link.open('rb') as file:
                    size = os.fstat(file.fileno()).st_size
                    archive.add_file(f'shards/{index}/blobs/{link.name}', file, size)
                progress(archive.octets)
        archive.finish()
        self.octets = archive.octets
        return head

    # -- what there is

    def _open(self, path: Path) -> Source:
        source = Source(path)
        self._sources.append(source)
        return source

    def _links(self, index: int) -> Path:
        return self.state_dir / 'shards' / str(index) / LINKS

    def _settle(self, index: int) -> Source:
        """A state of a shard's database with links to all of its files."""
        shard = self.state_dir / 'shards' / str(index)
        links = self._links(index)
        shutil.rmtree(links, ignore_errors=True)  # of a backup that was killed
        links.mkdir(mode=0o700)
        if not self.mail:
            return self._open(shard / 'store.db')
        blobs = shard / 'blobs'
        for directory in blobs.iterdir():
            for blob in directory.iterdir():
                _link(blob, links / blob.name)
        for _ in range(TRIES):
            source = self._open(shard / 'store.db')
            needed = set(source.blobs())
            linked = set(os.listdir(links))
            if all(_link(blobs / name[:2] / name, links / name) for name in needed - linked):
                for name in linked - needed:
                    (links / name).unlink()
                return source
            self._sources.remove(source)
            source.close()
        raise Unsettled

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Keys, certificates and whatever else is small and ours, by relative name."""
        for directory, names, files in os.walk(self.state_dir):
            here = Path(directory)
            if here == self.state_dir:
                names[:] = [name for name in names if name not in _LEFT_OUT]
                files = [name for name in files if name not in _LEFT_OUT]
            for name in files:
                path = here / name
                if name.endswith(_NO_KEYS) or path.is_symlink():
                    continue
                relative = str(path.relative_to(self.state_dir))
                try:
                    found = path.stat()
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(found.st_mode):
                    continue
                if found.st_size > FILE_LIMIT or not has_room(f'files/{relative}'):
                    self.left_out.append(relative)
                else:
                    yield relative, path


def _link(source: Path, target: Path) -> bool:
    """False if the file is gone."""
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except FileNotFoundError:
        return False
    return True


def readable(error: Exception) -> str:
    """What went wrong, as a clause."""
    if isinstance(error, Busy):
        return 'another backup of this relay is being made'
    if isinstance(error, Unsettled):
        return 'large messages disappear faster than they are found; try again'
    if isinstance(error, sqlite3.Error):
        return f'a database cannot be read: {error}'
    return str(error)
