"""When a destination may be tried: one clock for all its messages.

A destination that cannot be reached is down for a while, and the while doubles
with each failure in a row.  Its messages wait together; none of them finds out
alone, so ten thousand messages to a dead relay cost one connection attempt a
round.  Pauses are spread, so that destinations that failed together do not
come back together.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

LONGEST = 3600.0  # seconds
STEP = 60.0  # seconds by which a clock must be set to count as set
KNOWN_LIMIT = 10_000  # destinations that are down or were lately
DOUBLINGS = 12


class _Down(NamedTuple):
    failures: int
    until: float
    error: str


class Schedule:
    """The destinations that are down; times are of the clock that is given."""

    def __init__(
        self,
        first: Callable[[], float],
        clock: Callable[[], float],
        spread: Callable[[], float] = lambda: random.uniform(0.8, 1.2),
    ) -> None:
        """`first` is the pause after one failure, seconds."""
        self._first = first
        self._clock = clock
        self._spread = spread
        self._down: OrderedDict[str, _Down] = OrderedDict()

    def down_until(self, domain: str) -> float:
        """0.0 when the destination may be tried now."""
        down = self._down.get(domain)
        return down.until if down is not None and down.until > self._clock() else 0.0

    def failing(self, domain: str) -> bool:
        """Whether it could not be reached the last time."""
        return domain in self._down

    def error(self, domain: str) -> str:
        """Why it was down the last time."""
        down = self._down.get(domain)
        return down.error if down is not None else ''

    def failed(self, domain: str, error: str) -> float:
        """It could not be reached; until when it is left alone.

        Several messages that failed side by side count as one failure.
        """
        now = self._clock()
        down = self._down.get(domain)
        if down is not None and down.until > now:
            return down.until
        failures = down.failures + 1 if down is not None else 1
        pause = min(self._first() * 2 ** min(failures - 1, DOUBLINGS), LONGEST)
        until: float = now + pause * self._spread()
        self._down[domain] = _Down(failures, until, error)
        self._down.move_to_end(domain)
        if len(self._down) > KNOWN_LIMIT:
            self._down.popitem(last=False)
        return until

    def succeeded(self, domain: str) -> None:
        """It answered, whatever it said."""
        self._down.pop(domain, None)

    def retry(self, domain: str = '') -> None:
        """The operator wants it tried now; without a domain, all of them."""
        if domain:
            self._down.pop(domain, None)
        else:
            self._down.clear()

    def down(self) -> dict[str, float]:
        """Destinations that are down now, and until when."""
        now = self._clock()
        return {domain: one.until for domain, one in self._down.items() if one.until > now}


class Steps:
    """Notices that somebody has set the clock, which all times of a queue are of."""

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._offset = clock() - monotonic()

    def look(self) -> float:
        """By how many seconds it was set since the last look, 0.0 = not."""
        before, self._offset = self._offset, self._clock() - self._monotonic()
        step = self._offset - before
        return step if abs(step) > STEP else 0.0
