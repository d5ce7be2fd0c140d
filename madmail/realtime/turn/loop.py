"""The loop of a TURN process: epoll, in a native thread of its own.

The hub of the process's main thread, where the master is heard, sleeps nearly always;
so nothing but packets has a turn here, and the interpreter lock is free.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable

from madmail import log

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
TICK = 1.0  # seconds
EVENTS = 256  # taken at a time

_log = log.get('turn')

Handler = Callable[[int], None]


class Loop:
    """Calls handlers with what epoll says of their descriptors; all in one thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._mail: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False
        self.add(self._wake, self._woken)
        self.turn = 0
        self.now = time.monotonic()
        self.on_tick: list[Callable[[float], None]] = []

    def add(self, descriptor: int, handler: Handler, events: int = READ) -> None:
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, handler: Handler, events: int) -> None:
        """Look for other events; for none, not even an end is told."""
        if not events:
            self.remove(descriptor)
        elif descriptor in self._handlers:
            self._epoll.modify(descriptor, events)
        else:
            self.add(descriptor, handler, events)

    def remove(self, descriptor: int) -> None:
        """Before it is closed."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def call(self, function: Callable[[], None]) -> None:
        """Have it called in the loop; from any thread."""
        self._mail.append(function)
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """End `run` soon; from any thread."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        handlers = self._handlers
        poll = self._epoll.poll
        due = time.monotonic() + TICK
        while not self._stopping:
            found = poll(max(due - time.monotonic(), 0.0), EVENTS)
            self.turn += 1
            now = self.now = time.monotonic()
            for descriptor, events in found:
                handler = handlers.get(descriptor)
                if handler is not None:
                    try:
                        handler(events)
                    except Exception as error:
                        _log.exception('handler failed', error)
            if now >= due:
                due = now + TICK
                for function in self.on_tick:
                    try:
                        function(now)
                    except Exception as error:
                        _log.exception('tick failed', error)

    def close(self) -> None:
        """After `run` has ended."""
        self._epoll.close()
        os.close(self._wake)

    def _woken(self, events: int) -> None:
        os.eventfd_read(self._wake)
        while self._mail:
            function = self._mail.popleft()
            try:
                function()
            except Exception as error:
                _log.exception('call failed', error)
