"""Turns for TLS handshakes, so that a storm of them does not hold the pipes.

A step of a handshake takes up to half a millisecond.  When thousands of
clients come back at once, libev would run all their steps in one iteration of
the loop; here only `STEPS` of them run, the rest wait for the next iterations,
between which established pipes are served.

Who has begun goes before who has not: otherwise all clients would wait until
the last has said hello, and all would be through at the end only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

# PERF: with 1,500 ClientHellos waiting, a line through an established pipe and
# back took at most 10 ms with 4 steps an iteration, 16 ms with 8, 27 ms unlimited.
STEPS = 4  # an iteration, about 2 ms


class Turns:
    __slots__ = ('_begun', '_crashed', '_left', '_timer', '_waiting')

    def __init__(self, loop: Any, crashed: Callable[[BaseException], None]) -> None:
        self._left = STEPS
        self._waiting: deque[Callable[[], None]] = deque()
        self._begun: deque[Callable[[], None]] = deque()
        self._timer = loop.timer(0.0)  # fires in the next iteration
        self._crashed = crashed

    def take(self, begun: bool) -> bool:
        """Whether a step may run now; otherwise `wait` for one."""
        if not self._timer.active:
            self._timer.start(self._next)
        if self._left <= 0 or self._begun or (self._waiting and not begun):
            return False
        self._left -= 1
        return True

    def wait(self, turn: Callable[[], None], begun: bool) -> None:
        """Call `turn` when its turn comes.  It checks itself whether it is still needed."""
        (self._begun if begun else self._waiting).append(turn)

    def _next(self) -> None:
        self._left = STEPS
        begun, waiting = self._begun, self._waiting
        first = waiting  # one step at least, so that nobody can keep newcomers out
        while (begun or waiting) and self._left > 0:
            self._left -= 1
            queue = first or begun or waiting
            first = begun
            try:
                queue.popleft()()
            except Exception as error:
                self._crashed(error)
        if begun or waiting:
            self._timer.stop()
            self._timer.start(self._next)

    def close(self) -> None:
        self._waiting.clear()
        self._begun.clear()
        self._timer.stop()
        self._timer.close()
