"""The stream of one session in a shard.

A parked session costs a socket, one read watcher and its own object: it has
no greenlet until input arrives.  Then `run()` is called in one and may block in
`wait` and `drain` like ordinary code.  Output is corked while a session runs,
so a batch of pipelined commands is answered by one send.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from gevent import get_hub, getcurrent

from madmail.shard.turns import runners

READ = 1  # libev's EV_READ and EV_WRITE
WRITE = 2
RECEIVE = 65536  # octets a read
INPUT_LIMIT = 256 * 1024  # octets kept unread before reading stops
CORK_LIMIT = 64 * 1024  # octets corked before they are sent anyway
OUTPUT_LIMIT = 256 * 1024  # octets unsent above which `drain` blocks
STALL = 120.0  # seconds a peer may leave us unable to send


class Gone(Exception):
    """The peer is gone, or has not read for STALL seconds."""


class Idle(Exception):
    """No input arrived in the time that `wait` was given."""


class Session(Protocol):
    """What speaks on a wire."""

    def run(self) -> None: ...
    def tick(self, now: float) -> None: ...
    def retire(self) -> None: ...
    def ended(self) -> None: ...


class Stream(Protocol):
    """The session's side of a wire, see there; a layer may stand in between."""

    @property
    def input(self) -> bytearray: ...
    @property
    def eof(self) -> bool: ...
    @property
    def closing(self) -> bool: ...
    @property
    def unsent(self) -> int: ...
    def write(self, data: bytes | bytearray | memoryview) -> None: ...
    def flush(self) -> None: ...
    def drain(self) -> None: ...
    def wait(self, timeout: float) -> bool: ...
    def close(self) -> None: ...


Crashed = Callable[[BaseException], None]


class Wire:
    """One session's two-way stream; everything happens on the loop."""

    __slots__ = (
        '_arrived',
        '_closing',
        '_corked',
        '_corked_size',
        '_crashed',
        '_ended',
        '_loop',
        '_output',
        '_output_size',
        '_reader',
        '_reading',
        '_runners',
        '_running',
        '_session',
        '_socket',
        '_stalled_since',
        '_waiter',
        '_writer',
        '_writing',
        'eof',
        'input',
        'on_end',
        'received',
        'sent',
    )

    def __init__(self, stream: socket.socket, crashed: Crashed) -> None:
        self.input = bytearray()
        self.eof = False
        self.on_end: Callable[[Wire], None] | None = None
        self.received = self.sent = 0  # octets; whoever weighs them starts them anew
        self._socket: socket.socket | None = stream
        self._crashed = crashed
        self._loop = get_hub().loop
        self._reader = self._loop.io(stream.fileno(), READ)
        self._writer: Any = None
        self._reading = False
        self._writing = False
        self._corked: list[bytes] = []
        self._corked_size = 0
        self._output: list[memoryview] = []
        self._output_size = 0
        self._runners = runners()
        self._running = False
        self._arrived = False
        self._closing = False
        self._ended = False
        self._session: Session | None = None
        self._waiter: Any = None  # the greenlet in wait() or drain()
        self._stalled_since = 0.0

    # -- for the owner of the session

    @property
    def session(self) -> Session | None:
        return self._session

    @property
    def busy(self) -> bool:
        """Whether a run is active or input waits for one."""
        return self._running or bool(self.input)

    def attach(self, session: Session) -> None:
        """Start the session; it runs at once, whether or not there is input."""
        self._session = session
        self._start_reading()
        self._kick()

    def become(self, session: Session) -> None:
        """Let `session` go on where the one that runs now ends."""
        self._session = session
        self._arrived = True

    def detach(self) -> socket.socket:
        """Give the socket away, for a session that moves to another process.

        Only for a session that is not `busy` and has nothing unsent.
        """
        assert self._socket is not None
        stream = self._socket
        self._socket = None
        self._stop_watchers()
        self._ended = True
        return stream

    @property
    def unsent(self) -> int:
        return self._corked_size + self._output_size

    # -- for the session

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Cork `data`; never blocks and never raises."""
        if self._ended:
            return
        self._corked.append(bytes(data))
        self._corked_size += len(data)
        if self._corked_size > CORK_LIMIT:
            self.flush()

    def flush(self) -> None:
        """Send as much as the peer takes now."""
        if not self._corked_size or self._ended:
            return
        corked = self._corked
        data = corked[0] if len(corked) == 1 else b''.join(corked)
        self._corked = []
        self._corked_size = 0
        if not self._output:
            data = self._send(data)
            if not data:
                return
        self._output.append(memoryview(data))
        self._output_size += len(data)
        self._start_writing()

    def drain(self) -> None:
        """Block this greenlet until less than OUTPUT_LIMIT is unsent; raises Gone."""
        self.flush()
        while self._output_size > OUTPUT_LIMIT and not self._ended:
            self._park(STALL)
            if (
                self._output_size > OUTPUT_LIMIT
                and not self._ended
                and time.monotonic() - self._stalled_since > STALL
            ):
                self._end()
        if self._ended:
            raise Gone

    def wait(self, timeout: float) -> bool:
        """Flush, then block until more input arrived; False at the end of input.

        Raises Idle after `timeout` seconds.
        """
        self.flush()
        if self.eof or self._ended:
            return False
        before = len(self.input)
        deadline = time.monotonic() + timeout
        self._start_reading()
        while len(self.input) == before:
            if self.eof or self._ended:
                return False
            left = deadline - time.monotonic()
            if left <= 0:
                raise Idle
            self._park(left)
        return True

    def close(self) -> None:
        """Send what is pending, then close; `run` is not called again."""
        if self._ended or self._closing:
            return
        self._closing = True
        self.flush()
        if not self._output:
            self._end()
        else:
            # Somebody must notice a peer that never reads again.
            self._stalled_since = time.monotonic()

    @property
    def closing(self) -> bool:
        return self._closing or self._ended

    # -- for the process's clock

    def tick(self, now: float) -> None:
        """About every 5 s: end a peer that does not read, then the session's own tick."""
        if self._ended:
            return
        if self._output and now - self._stalled_since > STALL:
            self._end()
        elif self._session is not None and not self._closing:
            try:
                self._session.tick(now)
            except Exception as error:
                self._crashed(error)
                self._end()

    # -- inside

    def _kick(self) -> None:
        if not self._running and not self._closing and not self._ended:
            self._running = True
            self._runners.start(self._run)

    def _run(self) -> None:
        try:
            while self._session is not None:
                self._arrived = False
                self._session.run()
                # Input that came while run() was on its way out needs another.
                if self._closing or self._ended or not self._arrived:
                    break
            self.flush()
        except Gone:
            self._end()
        except Exception as error:
            self._crashed(error)
            self.flush()
            self._end()
        self._running = False
        if self._ended:
            self._release()
        elif self.eof and not self._closing:
            # The peer has said all it will say and run() has seen it.
            self.close()
        elif not self._closing and len(self.input) < INPUT_LIMIT:
            self._start_reading()

    def _readable(self) -> None:
        stream = self._socket
        if stream is None:
            return
        try:
            data = stream.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if data:
            self.received += len(data)
            self.input += data
            if len(self.input) >= INPUT_LIMIT:
                self._stop_reading()
        else:
            self.eof = True
            self._stop_reading()
        if self._running:
            if self._waiter is not None:
                self._wake()
            else:
                self._arrived = True
        elif not self._closing:
            # Somebody may be in `drain` nevertheless: news are told outside of runs.
            self._kick()
        elif self.eof:
            self._end()
        else:
            self.input.clear()

    def _writable(self) -> None:
        while self._output:
            data = self._output[0]
            left = self._send(data)
            if self._ended:
                return
            self._output_size -= len(data) - len(left)
            if left:
                self._output[0] = memoryview(left)
                break
            del self._output[0]
        if not self._output:
            self._stop_writing()
            if self._closing:
                self._end()
                return
        if self._waiter is not None and self._output_size <= OUTPUT_LIMIT // 2:
            self._wake()

    def _send(self, data: Any) -> Any:
        """Send without blocking; what is left, empty when the peer is gone."""
        stream = self._socket
        if stream is None:
            return b''
        try:
            sent = stream.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.eof = True
            self._end()
            return b''
        if sent:
            self.sent += sent
            self._stalled_since = time.monotonic()
        if sent == len(data):
            return b''
        return memoryview(data)[sent:]

    def _park(self, timeout: float) -> None:
        """Switch to the loop until woken or `timeout` seconds passed."""
        timer = self._loop.timer(timeout)
        self._waiter = getcurrent()
        timer.start(self._wake)
        try:
            get_hub().switch()
        finally:
            timer.stop()
            timer.close()
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.switch()

    def _start_reading(self) -> None:
        if not self._reading and self._socket is not None and not self.eof:
            self._reading = True
            self._reader.start(self._readable)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._reader.stop()

    def _start_writing(self) -> None:
        if self._socket is None or self._writing:
            return
        if self._writer is None:
            self._writer = self._loop.io(self._socket.fileno(), WRITE)
        self._writing = True
        self._stalled_since = time.monotonic()
        self._writer.start(self._writable)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._writer.stop()

    def _stop_watchers(self) -> None:
        self._stop_reading()
        self._stop_writing()
        self._reader.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self.eof = True
        if self._socket is not None:
            self._stop_watchers()
            self._socket.close()
            self._socket = None
        self._corked.clear()
        self._output.clear()
        self._corked_size = self._output_size = 0
        if self._waiter is not None:
            # Not from here: the end may be noticed inside another greenlet.
            self._loop.run_callback(self._wake)
        if not self._running:
            self._release()

    def _release(self) -> None:
        """Tell the session, never while it still runs."""
        session, self._session = self._session, None
        if session is not None:
            try:
                session.ended()
            except Exception as error:
                self._crashed(error)
        if self.on_end is not None:
            self.on_end(self)
