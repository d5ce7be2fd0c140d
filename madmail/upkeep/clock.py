"""Whether the clock can be trusted with removing what is old.

A machine without a battery starts in 1970, one with a bad one may start in 2099;
by such a clock everything is too new or too old.  So the last time that was
trusted is kept, and nothing is removed while the clock says

- `behind`: more than a day before that time;
- `ahead`: more than JUMP after it, though we have looked at it every minute or have
  been stopped no longer than that.  A relay that really was off for weeks goes on
  after HOLD; a leap of more than a year is only accepted by the operator.

The first time, before anything is kept, the newest message or login stands in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

DAY = 86_400
JUMP = 3 * DAY
HOLD = DAY
YEAR = 366 * DAY
KEPT_EVERY = 600  # seconds
TRUSTED, DOUBTED = 'upkeep.clock', 'upkeep.doubt'
REASONS = {
    'behind': 'the clock is behind the newest data',
    'ahead': 'the clock has jumped ahead',
}


class Notes(Protocol):
    """The store, as far as the clock asks it."""

    def note(self, name: str) -> int | None: ...
    def set_note(self, name: str, value: int) -> None: ...
    def newest(self) -> int: ...


class Clock:
    """The clock of one shard."""

    def __init__(self, notes: Notes, now: Callable[[], float] = time.time) -> None:
        self._notes = notes
        self._now = now
        self._trusted: int | None = None
        self._kept = 0
        self.trouble = ''  # '', 'behind' or 'ahead', as of the last check

    def check(self) -> str:
        """'' if it can be trusted, else what is wrong with it.  Blocks the greenlet."""
        now = int(self._now())
        if self._trusted is None:
            self._trusted = self._notes.note(TRUSTED) or self._notes.newest() or now
        trusted = self._trusted
        if now < trusted - DAY:
            self.trouble = 'behind'
        elif now > trusted + JUMP and not self._held(now, trusted):
            self.trouble = 'ahead'
        else:
            self.trouble = ''
            self._trust(now)
        return self.trouble

    def trust(self) -> None:
        """The operator says that the clock is right."""
        self.trouble = ''
        self._kept = 0
        self._trust(int(self._now()))

    def _held(self, now: int, trusted: int) -> bool:
        """Whether the doubt has lasted long enough to go by the new time."""
        if now > trusted + YEAR:
            return False
        began = self._notes.note(DOUBTED) or 0
        if not now - HOLD - JUMP <= began <= now:
            self._notes.set_note(DOUBTED, now)
            return False
        return now - began >= HOLD

    def _trust(self, now: int) -> None:
        self._trusted = now
        if abs(now - self._kept) >= KEPT_EVERY:
            self._kept = now
            self._notes.set_note(TRUSTED, now)
