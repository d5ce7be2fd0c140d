"""Accepting: listeners on the loop, in batches, with a pause when the system has no more room."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from gevent import get_hub
from gevent.event import Event

from madmail.gate.gate import READ

BATCH = 16  # connections a callback, so that a storm shares the loop with those who are there
PAUSE = 0.2  # seconds, when out of descriptors or memory
LOOP_TIME = 5.0  # seconds in which a healthy loop comes round

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # the system has no more room

Kind = TypeVar('Kind')


class Door(Generic[Kind]):
    """One listener, its watcher, and what the owner knows it by."""

    __slots__ = ('kind', 'listener', 'watcher')

    def __init__(self, loop: Any, listener: socket.socket, kind: Kind) -> None:
        listener.setblocking(False)
        self.listener = listener
        self.kind = kind
        self.watcher = loop.io(listener.fileno(), READ)


class Doors(Generic[Kind]):
    """All listeners of a process.

    `admit(kind, stream, address)` gets each connection, non-blocking; what it raises goes
    to `crashed` and costs that connection only.  While `room()` is false nobody is accepted.
    `paused` is told whenever a pause begins.
    """

    def __init__(
        self,
        admit: Callable[[Kind, socket.socket, Any], object],
        *,
        crashed: Callable[[BaseException], object],
        paused: Callable[[], object],
        room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._admit = admit
        self._crashed = crashed
        self._paused = paused
        self._room = room
        self._doors: list[Door[Kind]] = []
        self._pause: Any = None  # the timer while accepting is paused
        self._closed = False

    def __iter__(self) -> Any:
        return iter(self._doors)

    def add(self, listener: socket.socket, kind: Kind) -> None:
        """Before `open`."""
        self._doors.append(Door(get_hub().loop, listener, kind))

    def open(self) -> None:
        for door in self._doors:
            door.watcher.start(self._accept, door)

    def close(self) -> None:
        """Accept no more, for good; closes the listeners."""
        self._closed = True
        self._stop_pause()
        for door in self._doors:
            door.watcher.stop()
            door.watcher.close()
            door.listener.close()
        self._doors.clear()

    @property
    def resting(self) -> bool:
        """Whether nobody is accepted because that is how it should be."""
        return self._closed or self._pause is not None

    def check(self) -> bool:
        """Whether the loop turns and connections are accepted, or deliberately not; blocks."""
        turned = Event()
        timer = get_hub().loop.timer(0.0)
        timer.start(turned.set)
        try:
            if not turned.wait(LOOP_TIME):
                return False
        finally:
            timer.stop()
            timer.close()
        return self.resting or all(door.watcher.active for door in self._doors)

    def _accept(self, door: Door[Kind]) -> None:
        for _ in range(BATCH):
            if not self._room():
                self._rest()
                return
            try:
                stream, address = door.listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._rest()
                    return
                continue  # that one is gone: ECONNABORTED and its kin
            try:
                stream.setblocking(False)
                self._admit(door.kind, stream, address)
            except Exception as error:
                stream.close()
                self._crashed(error)

    def _rest(self) -> None:
        """The backlog waits; a listener left active would wake the loop without end."""
        if self._pause is not None:
            return
        self._paused()
        for door in self._doors:
            door.watcher.stop()
        self._pause = get_hub().loop.timer(PAUSE)
        self._pause.start(self._resume)

    def _resume(self) -> None:
        self._stop_pause()
        self.open()

    def _stop_pause(self) -> None:
        if self._pause is not None:
            self._pause.stop()
            self._pause.close()
            self._pause = None
