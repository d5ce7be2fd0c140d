"""Turns of a shard's loop: the greenlets in which sessions run, and how they give way.

A session works for a `share` of a millisecond at a time and then lets everybody
else be served.  A delivery needs three to four turns of the loop, so that this,
together with the number of sessions that want to work without end, is what such
company costs others (benchmarks/slow.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from gevent import get_hub, getcurrent
from gevent.hub import Waiter
from greenlet import greenlet

from madmail import log

# PERF: a turn of the loop takes 20 us, so shorter shares would be spent on turns.
TURN = 0.001  # seconds of work in one turn, by all who have much to do
LEAST = 0.0002  # seconds, however many they are
SPARE_RUNNERS = 32  # greenlets kept for the next input

_log = log.get('shard')

Task = tuple[Callable[..., object], tuple[object, ...]]


class Runners:
    """The greenlets of one loop in which sessions run; a few wait for the next one.

    PERF: a fresh greenlet costs 12 us, most of it mapping and unmapping its 16 KiB
    of Python stack; one that waits costs 1 us, without a turn of the loop.  NOOP
    took 56 us of the shard's CPU before and 40 after.
    """

    __slots__ = ('_callback', '_hub', '_spare')

    def __init__(self) -> None:
        self._hub = get_hub()
        self._callback = self._hub.loop.run_callback
        self._spare: list[greenlet] = []

    def start(self, function: Callable[..., object], *arguments: object) -> None:
        """Call in a greenlet of its own, from a loop callback at once."""
        if getcurrent() is self._hub:
            self._switch((function, arguments))
        else:
            self._callback(self._switch, (function, arguments))

    def _switch(self, task: Task) -> None:
        runner = self._spare.pop() if self._spare else greenlet(self._serve, self._hub)
        runner.switch(task)

    def _serve(self, task: Task) -> None:
        """One greenlet's life."""
        spare, switch, runner = self._spare, self._hub.switch, getcurrent()
        while True:
            function, arguments = task
            try:
                function(*arguments)
            except Exception as error:
                _log.exception('runner failed', error)
            del task, function, arguments  # a runner that waits keeps nothing alive
            if len(spare) >= SPARE_RUNNERS:
                return
            spare.append(runner)
            task = switch()


_runners: WeakKeyDictionary[Any, Runners] = WeakKeyDictionary()  # by hub


def runners() -> Runners:
    """Those of this thread's loop."""
    hub = get_hub()
    found = _runners.get(hub)
    if found is None:
        found = _runners[hub] = Runners()
    return found


_waiting = 0  # greenlets that have given way and want to go on


def share() -> float:
    """Seconds that a session may work before it gives way."""
    return max(TURN / (1 + _waiting), LEAST) if _waiting else TURN


def yield_to_others() -> None:
    """Let the loop serve everybody else before going on.

    PERF: gevent.sleep(0) would not do: the loop runs 50 callbacks before it looks
    at its sockets again, so a greenlet that yields every 5 ms holds it for 250 ms.
    A wake-up through the loop's event descriptor takes 3 µs and one whole turn.
    """
    global _waiting
    hub = get_hub()
    waiter = Waiter(hub)
    watcher = hub.loop.async_()
    watcher.start(waiter.switch, None)
    watcher.send()
    _waiting += 1
    try:
        waiter.get()
    finally:
        _waiting -= 1
        watcher.stop()
        watcher.close()
