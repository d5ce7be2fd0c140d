"""Whether the host has room for new accounts: disk, memory, load.

Who has an account is served as long as anything works; who wants a new one is
asked to come again.  A look costs about 0.1 ms and holds for some seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from madmail.settings import Settings

HOLDS = 3.0  # seconds
PROC = Path('/proc')
CGROUP = Path('/sys/fs/cgroup')


class Shortage:
    """What the host of a state directory is short of."""

    def __init__(
        self,
        state_dir: Path,
        settings: Settings,
        *,
        now: Callable[[], float] = time.monotonic,
        proc: Path = PROC,
        cgroup: Path = CGROUP,
    ) -> None:
        self._state_dir = state_dir
        self._settings = settings
        self._now = now
        self._proc = proc
        self._cgroup = cgroup
        self._looked = 0.0
        self._limits: tuple[int, int, int] | None = None
        self._found = ''

    def what(self) -> str:
        """'disk', 'memory', 'load', or '' when there is enough of everything."""
        settings = self._settings
        limits = (
            settings['limits.disk_reserve'],
            settings['limits.memory_reserve'],
            settings['limits.load_per_core'],
        )
        now = self._now()
        if limits != self._limits or now - self._looked >= HOLDS:
            self._limits, self._looked = limits, now
            self._found = self._look(*limits)
        return self._found

    def _look(self, disk: int, memory: int, load: int) -> str:
        if disk and free_disk(self._state_dir) < disk:
            return 'disk'
        if memory:
            free = free_memory(self._proc, self._cgroup)
            if free is not None and free < memory:
                return 'memory'
        if load and _load(self._proc) > load * len(os.sched_getaffinity(0)):
            return 'load'
        return ''


def free_disk(directory: Path) -> int:
    """Octets that may still be written below a directory; 0 when there are no inodes left."""
    found = os.statvfs(directory)
    if found.f_files and not found.f_favail:
        return 0
    return found.f_bavail * found.f_frsize


def free_memory(proc: Path = PROC, cgroup: Path = CGROUP) -> int | None:
    """Octets that processes may still get, by the host and by the control group.

    None where the system does not say.
    """
    known = [octets for octets in (_of_host(proc), _of_group(proc, cgroup)) if octets is not None]
    return min(known, default=None)


def _of_host(proc: Path) -> int | None:
    try:
        return _field(proc / 'meminfo', 'MemAvailable:') * 1024
    except (OSError, ValueError):
        return None


def _of_group(proc: Path, cgroup: Path) -> int | None:
    """cgroup v2: what the limit leaves; file pages not in use can be given back."""
    try:
        own = (proc / 'self' / 'cgroup').read_text().rpartition('::')[2].strip().lstrip('/')
        directory = cgroup / own
        limit = int((directory / 'memory.max').read_text())  # ValueError: "max"
        used = int((directory / 'memory.current').read_text())
        spare = _field(directory / 'memory.stat', 'inactive_file')
    except (OSError, ValueError):
        return None
    return max(limit - used + spare, 0)


def _field(file: Path, name: str) -> int:
    """The number behind a name; raises ValueError when it is not there."""
    for line in file.read_text().splitlines():
        words = line.split()
        if words and words[0] == name:
            return int(words[1])
    raise ValueError('no such field')


def _load(proc: Path) -> float:
    """The load of the last minute."""
    try:
        return float((proc / 'loadavg').read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
