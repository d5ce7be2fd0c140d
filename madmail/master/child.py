"""A child of the master: its context, its control channel, its life.

    master → child   ping {n}, event {topic, data}, statistics {n}, reopen,
                     retire {succeeded, stopping}
    child → master   ready, pong {n}, event, statistics {n, data}, awaiting,
                     retiring, boot_failed {reason}

A pong is only sent when the role's `check` came back through its real work
loop, so a child that merely schedules greenlets but gets nothing done counts
as stuck.  End of stream means that the master is gone; the child goes too.
"""

from __future__ import annotations

import faulthandler
import gc
import mmap
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import gevent
from gevent.event import Event

from madmail import log
from madmail.bus.embedded import Bus
from madmail.bus.frame import FrameError, Unframer, pack
from madmail.metrics.histogram import Histogram
from madmail.settings import Settings

READ, WRITE = 1, 2
PAGE = resource.getpagesize()
LAG_INTERVAL = 0.5  # seconds between two looks at how late the loop is
BOOT_EXIT = 70  # exit status of a child whose role did not start
UNSENT_LIMIT = 8 * 1024 * 1024  # octets of events kept for a master that does not read

_log = log.get('child')


class Role(Protocol):
    """What a child does.  The class is called with its ChildContext after the fork."""

    def start(self) -> None:
        """Begin to work; raises what keeps it from working."""

    def check(self) -> bool:
        """Whether the real work loop works.  In a greenlet of its own, may block."""

    def retire(self) -> None:
        """Take no new work, finish what there is, return.  The process ends then."""

    def statistics(self) -> dict[str, Any]:
        """Numbers by name, nothing personal."""


class ChildContext:
    """What the master gives a child.

    `index` is the shard number, or the slot (< 64) that tells living gates
    apart.  `listeners` has the sockets by the names of `listen.*`, and a
    shard's own Unix listener as 'shard'.  `shared` is memory common to all
    gates, `shared_tls` their certificate and ticket keys.  With `takeover` a
    living predecessor passes its sessions on.
    `succeeded` and `stopping` are set before `retire`: a successor waits for
    the sessions; the whole relay stops.
    """

    def __init__(
        self,
        *,
        kind: str,
        index: int,
        settings: Settings,
        state_dir: Path,
        shards: int = 1,
        generation: int = 1,
        listeners: dict[str, list[socket.socket]] | None = None,
        shared: mmap.mmap | None = None,
        shared_tls: Any = None,
        takeover: bool = False,
        channel: Channel | None = None,
    ) -> None:
        self.kind = kind
        self.index = self.slot = index
        self.settings = settings
        self.state_dir = state_dir
        self.shards = shards
        self.generation = generation
        self.listeners = listeners or {}
        self.shared = shared
        self.shared_tls = shared_tls
        self.takeover = takeover
        self.succeeded = False
        self.stopping = False
        self._send: Callable[[dict[str, Any]], None] = (
            channel.send if channel else lambda frame: None
        )
        self.bus = Bus(self._send)

    def awaiting(self) -> None:
        """Say that the successor is ready to be given its predecessor's sessions."""
        self._send({'kind': 'awaiting'})


class Channel:
    """The child's end of the control channel, on the loop, never blocking."""

    def __init__(self, stream: socket.socket, received: Callable[[dict[str, Any]], None]) -> None:
        stream.setblocking(False)
        self._stream = stream
        self._received = received
        self._unframer = Unframer()
        self._unsent = bytearray()
        loop = gevent.get_hub().loop
        self._reader = loop.io(stream.fileno(), READ)
        self._writer = loop.io(stream.fileno(), WRITE)

    def open(self) -> None:
        self._reader.start(self._read)

    def send(self, frame: dict[str, Any]) -> None:
        """Send soon; an event is dropped when too much is unsent."""
        if len(self._unsent) > UNSENT_LIMIT and frame['kind'] == 'event':
            return
        idle = not self._unsent
        self._unsent += pack(frame)
        if idle:
            self._write()
            if self._unsent:
                self._writer.start(self._write)

    def flush(self) -> None:
        """Send what is left, blocking; before the process ends."""
        self._writer.stop()
        self._stream.settimeout(1.0)
        try:
            self._stream.sendall(self._unsent)
        except OSError:
            pass

    def _write(self) -> None:
        try:
            del self._unsent[: self._stream.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            os._exit(1)  # the master is gone
        if not self._unsent:
            self._writer.stop()

    def _read(self) -> None:
        try:
            data = self._stream.recv(262144)
            frames = self._unframer.feed(data)
        except BlockingIOError:
            return
        except (OSError, FrameError):
            os._exit(1)
        if not data:
            os._exit(1)
        for frame in frames:
            self._received(frame)


class Child:
    """One child process, from the fork to its end."""

    def __init__(self, factory: Callable[[ChildContext], Role], stream: socket.socket) -> None:
        self._factory = factory
        self._channel = Channel(stream, self._received)
        self._retire = Event()
        self._role: Role | None = None
        self._checking = False
        self._lag = Histogram()

    def run(self, context: ChildContext) -> int:
        """Live; the exit status."""
        self.context = context
        quiet_hub()
        gevent.signal_handler(signal.SIGTERM, self._terminated)
        try:
            self._role = self._factory(context)
            self._role.start()
        except BaseException as error:
            _log.exception('role did not start', error, kind=context.kind)
            reason = str(error) or type(error).__name__
            if not isinstance(error, (OSError, ValueError)):
                reason = f'{type(error).__name__}: {reason}'
            self._channel.send({'kind': 'boot_failed', 'reason': reason})
            self._channel.flush()
            return BOOT_EXIT
        gc.enable()
        self._channel.open()
        self._watch_lag()
        self._channel.send({'kind': 'ready'})
        self._retire.wait()
        try:
            self._role.retire()
        except Exception as error:
            _log.exception('role did not retire', error, kind=context.kind)
            self._channel.flush()
            return 1
        self._statistics(0)
        self._channel.flush()
        return 0

    def _watch_lag(self) -> None:
        """Note twice a second how late the loop is."""
        due = time.monotonic() + LAG_INTERVAL
        timer = gevent.get_hub().loop.timer(LAG_INTERVAL, LAG_INTERVAL)

        def woken() -> None:
            nonlocal due
            now = time.monotonic()
            self._lag.observe(max(now - due, 0.0))
            due = now + LAG_INTERVAL

        timer.again(woken, update=True)
        self._lag_timer = timer

    def context_channel(self) -> Channel:
        return self._channel

    def _terminated(self) -> None:
        if self._role is None:
            os._exit(0)
        self._channel.send({'kind': 'retiring'})
        self._retire.set()

    def _received(self, frame: dict[str, Any]) -> None:
        kind = frame.get('kind')
        if kind == 'ping':
            if not self._checking:
                self._checking = True
                gevent.spawn(self._check, frame.get('n', 0))
        elif kind == 'event':
            self.context.bus.arrived(frame['topic'], frame['data'])
        elif kind == 'statistics':
            gevent.spawn(self._statistics, frame.get('n', 0))
        elif kind == 'retire':
            self.context.succeeded = bool(frame.get('succeeded'))
            self.context.stopping = bool(frame.get('stopping'))
            self._retire.set()
        elif kind == 'reopen':
            try:
                log.reopen()
            except OSError:
                pass  # goes on with the old file
            self.context.bus.arrived('log', {})
        elif kind == 'log':
            try:
                log.configure(frame['target'], frame['level'])
            except OSError as error:
                _log.error('log not opened', errno=error.errno)
            self.context.bus.arrived('log', frame)

    def _check(self, number: int) -> None:
        assert self._role is not None
        try:
            # a retiring role is closing what check() would use; that it is alive is enough
            if self._retire.is_set() or self._role.check():
                self._channel.send({'kind': 'pong', 'n': number})
        except Exception as error:
            if self._retire.is_set():
                self._channel.send({'kind': 'pong', 'n': number})
            else:
                _log.exception('check failed', error, kind=self.context.kind)
        finally:
            self._checking = False

    def _statistics(self, number: int) -> None:
        assert self._role is not None
        data: dict[str, Any] = {}
        try:
            data.update(self._role.statistics())
        except Exception as error:
            _log.exception('no statistics', error, kind=self.context.kind)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        data['cpu_seconds'] = round(usage.ru_utime + usage.ru_stime, 3)
        data['exceptions'] = dict(log.exceptions)
        data['lag'] = self._lag.as_dict()
        data['resident_bytes'] = resident()
        self._channel.send({'kind': 'statistics', 'n': number, 'data': data})


def resident() -> int:
    """Octets of memory that this process has in use, what it shares included."""
    with open('/proc/self/statm', 'rb') as statm:
        return int(statm.read().split()[1]) * PAGE


def quiet_hub() -> None:
    """Count and log what greenlets and threads raise, instead of printing it with its data."""
    hub = gevent.get_hub()

    def failed(context: object, kind: type, error: BaseException | None, trace: object) -> None:
        _log.exception('greenlet failed', error)

    hub.print_exception = failed
    hub.exception_stream = None
    threading.excepthook = lambda args: _log.exception('thread failed', args.exc_value)


def live(
    factory: Callable[[ChildContext], Role],
    stream: socket.socket,
    make_context: Callable[[Channel], ChildContext],
) -> int:
    """The life of a forked child; the exit status for os._exit."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the master tells us what they mean
    for number in (signal.SIGTERM, signal.SIGABRT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if log.enabled():
        faulthandler.enable(all_threads=True)
    child = Child(factory, stream)
    return child.run(make_context(child.context_channel()))
