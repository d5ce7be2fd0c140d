"""The state directory as a whole: that it exists, is ours alone, and of a version we know.

    lock          flock held by the running relay (or a CLI command on a stopped one)
    state.json    {"version": 1, "shards": N}, written once
    master.pid    while a relay runs
    run/          Unix sockets
    shards/N/     one store each

The lock is inherited by all children on purpose: it is free only when the
last of them is gone, so a new master never meets a writer of the old one.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

from madmail.master.exits import STATE, Stop
from madmail.master.privileges import Identity

VERSION = 1
LOCK = 'lock'
STATE_FILE = 'state.json'
PID_FILE = 'master.pid'
RUN = 'run'

_PATIENCE = 5.0  # seconds given to the children of a dead master to end


class StateDirectory:
    """A prepared and locked state directory; closing gives the lock back."""

    def __init__(self, path: Path, shards: int, descriptor: int) -> None:
        self.path = path
        self.shards = shards
        self._descriptor = descriptor

    def write_pid(self) -> None:
        (self.path / PID_FILE).write_text(f'{os.getpid()}\n')

    def close(self) -> None:
        """Remove what only means something while we run, and unlock."""
        if self._descriptor >= 0:
            try:
                if (self.path / PID_FILE).read_text().strip() == str(os.getpid()):
                    (self.path / PID_FILE).unlink()
            except OSError:
                pass
            os.close(self._descriptor)
            self._descriptor = -1


def prepare(path: Path, shards: int, auto_shards: int, user: Identity | None) -> StateDirectory:
    """Make or check the directory and lock it.

    `shards` is the configured count, 0 for auto; `auto_shards` what auto means
    for a new directory.  Raises Stop with the reason.
    """
    path = path.absolute()
    try:
        _make(path, user)
    except OSError as error:
        raise Stop(STATE, f'state directory {path}: {error.strerror}') from None
    descriptor = lock(path, user)
    try:
        count = read_shards(path)
        if count is None:
            if (path / 'shards').exists():
                raise Stop(STATE, f'state directory {path}: {STATE_FILE} is missing')
            count = shards or auto_shards
            _write(path, count, user)
        elif shards and shards != count:
            raise Stop(
                STATE,
                f'state directory {path} was made with {count} shards, which is fixed; '
                f'processes.shards is {shards}',
            )
        return StateDirectory(path, count, descriptor)
    except OSError as error:
        os.close(descriptor)
        raise Stop(STATE, f'state directory {path}: {error.strerror}') from None
    except BaseException:
        os.close(descriptor)
        raise


def _make(path: Path, user: Identity | None) -> None:
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
        if user:
            user.give(path)
    elif path.stat().st_mode & 0o007 and path.stat().st_uid == os.geteuid():
        path.chmod(path.stat().st_mode & 0o770)  # nobody else reads mail or keys
    run = path / RUN
    run.mkdir(mode=0o700, exist_ok=True)
    if user:
        user.give(run)
    probe = path / f'.writable-{os.getpid()}'
    probe.touch()
    probe.unlink()


def lock(path: Path, user: Identity | None = None) -> int:
    """Lock the directory; the descriptor that holds the lock.  Raises Stop when it is in use."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Stop(STATE, f'state directory {path}: {error.strerror}') from None
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode('ascii', 'replace').strip()
            if _alive(holder) or time.monotonic() > deadline:
                os.close(descriptor)
                who = f'process {holder}' if holder else 'another process'
                raise Stop(STATE, f'state directory {path} is in use by {who}') from None
            time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b'%d\n' % os.getpid(), 0)
    if user:
        user.give(path / LOCK)
    return descriptor


def _alive(pid: str) -> bool:
    if not pid.isdigit():
        return False
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except OSError:
        return False
    return state not in 'ZX'


def read_shards(path: Path) -> int | None:
    """The fixed number of shards; None for a new directory.  Raises Stop."""
    try:
        data = json.loads((path / STATE_FILE).read_text())
        version, shards = data['version'], data['shards']
        if type(version) is not int or type(shards) is not int or shards < 1:
            raise ValueError
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise Stop(STATE, f'state directory {path}: {STATE_FILE} is damaged') from None
    if version > VERSION:
        raise Stop(
            STATE,
            f'state directory {path} is of version {version}, this program knows '
            f'{VERSION}: install a newer madmail',
        )
    return shards


def _write(path: Path, shards: int, user: Identity | None) -> None:
    fresh = path / f'{STATE_FILE}.new'
    with fresh.open('w') as file:
        json.dump({'version': VERSION, 'shards': shards}, file)
        file.write('\n')
        file.flush()
        os.fsync(file.fileno())
    if user:
        user.give(fresh)
    fresh.replace(path / STATE_FILE)
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
