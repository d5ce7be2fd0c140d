"""What a connection has to send and could not yet; there only while there is something."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable

from madmail.realtime.iroh.relay import WRITE, IrohRelay

FRAMES = 512  # a connection; its octets are `iroh.queue`
CORK = 65536  # octets gathered for one send


class Waiting:
    __slots__ = ('_begun', '_octets', '_pong', '_queue', '_relay', '_watcher', 'since')

    def __init__(
        self, relay: IrohRelay, stream: socket.socket, writable: Callable[[], None]
    ) -> None:
        """`writable` is called when the peer takes more."""
        self.since = time.monotonic()  # when something was sent last
        self._relay = relay
        self._begun = b''  # the rest of what the peer has seen the beginning of
        self._pong = b''  # goes before all frames; the newest is enough
        self._queue: deque[bytes] = deque()
        self._octets = 0  # of both but the pong
        self._watcher = relay.loop.io(stream.fileno(), WRITE)
        self._watcher.start(writable)

    def fits(self, octets: int) -> bool:
        """Whether so much more may wait."""
        return (
            len(self._queue) < FRAMES
            and self._octets + octets <= self._relay.settings['iroh.queue']
            and self._relay.room_to_wait(octets)
        )

    def append(self, frames: bytes) -> None:
        """Whole frames, whether they fit or not."""
        self._queue.append(frames)
        self._count(len(frames))

    def pong(self, frame: bytes) -> None:
        self._pong = frame

    def begin(self, rest: bytes) -> None:
        """What `take` gave, or what was sent first, has gone but for this."""
        self._begun = rest
        self._count(len(rest))

    def take(self) -> bytes:
        """What to send next, b'' for nothing: frames are gathered, a pong goes between two."""
        pieces = [self._begun] if self._begun else []
        if self._pong:
            pieces.append(self._pong)
        size = taken = len(self._begun)
        self._begun = self._pong = b''
        queue = self._queue
        while queue and size < CORK:
            piece = queue.popleft()
            size += len(piece)
            taken += len(piece)
            pieces.append(piece)
        self._count(-taken)
        return pieces[0] if len(pieces) == 1 else b''.join(pieces)

    def forget(self) -> None:
        """Drop all that the peer has not seen the beginning of."""
        self._queue.clear()
        self._pong = b''
        self._count(len(self._begun) - self._octets)

    def close(self) -> None:
        self._begun = b''
        self.forget()
        self._watcher.stop()
        self._watcher.close()

    def _count(self, octets: int) -> None:
        self._octets += octets
        self._relay.held += octets
