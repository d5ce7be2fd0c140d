"""Where the admin API answers, also right after its path was changed.

A panel that saves another `admin.path` goes on with a call at the old one: it asks
for a reload there, then looks for the API at the new path.  So for a while after a
change both answer; whoever comes without the token learns nothing at either.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from madmail.settings import Settings

LINGER = 60.0  # seconds that a former path answers


class ApiPath:
    """The path of one web worker."""

    def __init__(self, settings: Settings, now: Callable[[], float] = monotonic) -> None:
        self._settings = settings
        self._now = now
        self._current: str = settings['admin.path']
        self._former = ''
        self._until = 0.0

    def serves(self, path: str) -> bool:
        """Whether the API answers at `path`."""
        current = self._settings['admin.path']
        if current != self._current:
            self._former, self._current = self._current, current
            self._until = self._now() + LINGER
        if path == current:
            return True
        return path == self._former and self._now() < self._until
