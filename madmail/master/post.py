"""The master's view of its children: posts to be filled, and the processes that fill them."""

from __future__ import annotations

import socket
import time
from typing import Any

from madmail.bus.frame import FrameError, Unframer, pack
from madmail.master.plan import Kind

UNSENT_LIMIT = 16 * 1024 * 1024  # octets; a child that reads less quickly loses events
SHORT_LIFE = 5.0  # seconds; who lived longer is replaced at once
TERMINATED_DELAY = 0.3  # seconds; SIGTERM to the whole process group may reach us a bit later
LONGEST_DELAY = 10.0  # seconds between two attempts
BOOT_ATTEMPTS = 5  # deaths before `ready`, in a row, that stop the relay


class Process:
    """A living (or just dead) child."""

    def __init__(
        self, pid: int, post: Post, index: int, generation: int, stream: socket.socket
    ) -> None:
        now = time.monotonic()
        self.pid = pid
        self.post = post
        self.index = index
        self.generation = generation
        self.born = now
        self.heard = now  # last pong, or the birth
        self.pinged = now
        self.ready = False
        self.awaiting = False  # a successor that waits for its predecessor's sessions
        self.retiring = False
        self.doomed = False  # killed or to be killed by us; no surprise when it dies
        self.terminated = False  # somebody sent it SIGTERM
        self.deadline = 0.0  # monotonic time to kill it at; 0 = none
        self.aborted = 0.0  # when it got SIGABRT
        self.boot_error = ''
        self.statistics: dict[str, Any] | None = None
        self.peers = b''  # numbers of the peers on IMAP, 8 octets each; they go nowhere else
        self.statistics_number = 0
        self.closed = False
        stream.setblocking(False)
        self.stream = stream
        self._unframer = Unframer()
        self.unsent = bytearray()

    @property
    def kind(self) -> Kind:
        return self.post.kind

    @property
    def label(self) -> str:
        return f'{self.kind.name} {self.index} (process {self.pid})'

    @property
    def state(self) -> str:
        if self.retiring:
            return 'retiring'
        return 'serving' if self.ready else 'starting'

    def send(self, frame: dict[str, Any]) -> None:
        self.send_packed(pack(frame), droppable=frame['kind'] == 'event')

    def send_packed(self, data: bytes, droppable: bool = False) -> None:
        """Send soon.  Never blocks; an event may be dropped, see UNSENT_LIMIT."""
        if self.closed or (droppable and len(self.unsent) > UNSENT_LIMIT):
            return
        self.unsent += data
        self.write()

    def write(self) -> None:
        """Send what is possible now."""
        try:
            del self.unsent[: self.stream.send(self.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.unsent.clear()  # it is dying; reaping tells the rest

    def read(self) -> list[dict[str, Any]] | None:
        """What it says now; None at end of stream."""
        try:
            data = self.stream.recv(262144)
            return self._unframer.feed(data) if data else None
        except BlockingIOError:
            return []
        except (OSError, FrameError):
            return None

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.unsent.clear()
            self.stream.close()


class Post:
    """A place that has to be filled: shard 3, the second gate, the courier."""

    def __init__(self, kind: Kind, index: int) -> None:
        self.kind = kind
        self.index = index
        self.process: Process | None = None
        self.successor: Process | None = None
        self.failures = 0  # short lives in a row
        self.boot_failures = 0  # deaths before `ready` in a row
        self.boot_error = ''
        self.due = 0.0  # monotonic time of the next attempt
        self.vacant = False  # left empty on purpose during a reload

    def died(self, process: Process, now: float) -> None:
        """Note the death of who filled it, and when to try again."""
        if process.ready:
            self.boot_failures = 0
        else:
            self.boot_failures += 1
            self.boot_error = process.boot_error
        self.failures = 0 if now - process.born > SHORT_LIFE else self.failures + 1
        delay = 0.0 if self.failures < 2 else min(0.1 * 2 ** (self.failures - 2), LONGEST_DELAY)
        self.due = now + max(delay, TERMINATED_DELAY if process.terminated else 0.0)
