"""When a token is tried again, and when the service is left alone.  No I/O, no clock.

A token has TRIES tries within a lifetime that begins with the message: at once, then
8, 64, 512 and 4096 seconds after one another, each up to a fifth longer, so that what
failed together does not come back together.  Then it is given up; the mail is there
all the same.

The breaker is about the service.  Only what says that it is away counts: no connection,
no answer, 5xx.  A service that refuses a token answers.  One that says how long it wants
to be left alone (429 or 503 with Retry-After) is left alone, up to LONGEST_PAUSE.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

TRIES = 5
PERMANENT_TRIES = 2  # for what the service refuses: it may have been a slip
BASE = 8.0  # seconds, to the power of the tries that failed
JITTER = 0.2  # share of a pause added at most
THRESHOLD = 5  # failures in a row that open the breaker
FIRST_PAUSE = 60.0  # seconds the service is left alone, doubled with each failure
LONGEST_PAUSE = 1800.0  # seconds


class Answer(Enum):
    """What a request says."""

    TAKEN = 'sent'
    GONE = 'gone'  # the token is dead
    REFUSED = 'refused'  # nobody can do anything with it
    BUSY = 'busy'  # it is there and wants us to wait
    DOWN = 'failed'


class Told(NamedTuple):
    """What became of a request."""

    answer: Answer
    wait: float = 0.0  # seconds for which the service asks to be left alone


def meaning(status: int) -> Answer:
    """Of an HTTP status."""
    if 200 <= status < 300:
        return Answer.TAKEN
    if status == 410:
        return Answer.GONE
    if status in (408, 425, 429):
        return Answer.BUSY
    return Answer.DOWN if status >= 500 else Answer.REFUSED


def spread() -> float:
    """The factor of a pause."""
    return 1.0 + random.random() * JITTER


def next_try(
    told: Told, tries: int, since: float, now: float, lifetime: float, factor: float
) -> float:
    """When a token is tried again that failed for the `tries`-th time; 0.0 = it is given up.

    `since` is when its message came, `factor` from `spread`.
    """
    if tries >= (PERMANENT_TRIES if told.answer is Answer.REFUSED else TRIES):
        return 0.0
    moment = now + max(BASE**tries, told.wait) * factor
    return moment if moment <= since + lifetime else 0.0


class Breaker:
    """Closed while the service answers; open for a while after THRESHOLD failures in a row.

    After that one request at a time asks how it is, and the pause doubles as long as it
    fails.
    """

    def __init__(self, factor: Callable[[], float] = spread) -> None:
        self.failures = 0  # in a row
        self._factor = factor
        self._until = 0.0
        self._pause = 0.0  # 0 = closed
        self._probing = False
        self._held = 0.0  # until when the service has asked to be left alone

    @property
    def open(self) -> bool:
        """Whether the service counts as away."""
        return self._pause > 0

    def held(self, now: float) -> float:
        """Seconds for which the service has asked to be left alone."""
        return max(self._held - now, 0.0)

    def wait(self, now: float) -> float:
        """Seconds until a request may be made; a request that asks how it is holds all others."""
        if not self._pause:
            return self.held(now)
        return max(self._until - now, self.held(now), 1.0 if self._probing else 0.0)

    def admit(self, now: float) -> bool:
        """Whether a request may be made now; it must be followed by `told` or `unasked`."""
        if self.wait(now) > 0:
            return False
        self._probing = self.open
        return True

    def unasked(self) -> None:
        """A request that was admitted was not made, or nobody knows how it ended."""
        self._probing = False

    def told(self, told: Told, now: float) -> None:
        """How a request ended."""
        self._probing = False
        self._held = max(self._held, now + min(told.wait, LONGEST_PAUSE))
        if told.answer is not Answer.DOWN:
            self.failures = 0
            self._pause = self._until = 0.0
            return
        self.failures += 1
        if self.failures < THRESHOLD:
            return
        if self._until <= now:  # those that failed side by side count once
            self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
            self._until = now + self._pause * self._factor()

    def close(self) -> None:
        """Try again at once: the operator, or another service."""
        self.failures = 0
        self._pause = self._until = self._held = 0.0
        self._probing = False
