"""The control socket `run/control.sock`: how the command line speaks to a running relay.

One framed request a connection, one framed answer `{ok, data}` or `{ok,
error}`: `status`, `reload` (answered when it is done or refused; with `wait`
false at once, with `alone` refused when another one waits already), `stop` (the
connection ends when the relay has), `restart` (stop, and begin again under the
same process id), `publish` (an event for all children), `unusable` (stored settings
that are not in force, and why), `trouble` (these and services that cannot run).
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from madmail import __version__
from madmail.bus.frame import FrameError, Unframer, pack, receive, send
from madmail.master.state import RUN
from madmail.shard.address import bind, connect

if TYPE_CHECKING:
    from madmail.master.arbiter import Arbiter

NAME = 'control.sock'
STATISTICS_TIME = 1.0  # seconds children get to tell theirs
CLIENTS = 64


class _Client:
    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.unframer = Unframer()
        self.unsent = bytearray()
        self.command = ''  # what is being worked on
        self.number = 0  # of the statistics waited for
        self.deadline = 0.0


class ControlServer:
    """The master's end, part of the arbiter's loop."""

    def __init__(self, arbiter: Arbiter) -> None:
        self._arbiter = arbiter
        self._listener = bind(arbiter.state.path, NAME)
        self._clients: dict[int, _Client] = {}

    def register(self, poll: select.poll) -> None:
        if len(self._clients) < CLIENTS:
            poll.register(self._listener.fileno(), select.POLLIN)
        for descriptor, client in self._clients.items():
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if client.unsent else 0))

    def event(self, descriptor: int, events: int) -> None:
        if descriptor == self._listener.fileno():
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            self._clients[stream.fileno()] = _Client(stream)
            return
        client = self._clients.get(descriptor)
        if client is None:
            return
        try:
            if events & select.POLLOUT:
                self._write(client)
            if events & ~select.POLLOUT:
                data = client.stream.recv(65536)
                if not data:
                    raise ConnectionError
                for request in client.unframer.feed(data):
                    self._request(client, request)
        except BlockingIOError:
            pass
        except (OSError, FrameError, KeyError, TypeError):
            self._drop(client)

    def turn(self, now: float) -> None:
        """Answer who waits for statistics, when they are there or late."""
        for client in list(self._clients.values()):
            if client.command == 'status':
                missing = any(
                    one.ready and not one.closed and one.statistics_number < client.number
                    for one in self._arbiter.processes.values()
                )
                if not missing or now > client.deadline:
                    self._answer(client, {'ok': True, 'data': status(self._arbiter)})

    def reloaded(self) -> None:
        """A reload came to its end."""
        error = self._arbiter.reload_error
        for client in list(self._clients.values()):
            if client.command == 'reload' and not self._arbiter.reload_wanted:
                if error:
                    self._answer(client, {'ok': False, 'error': error})
                else:
                    data = {'reloaded': True, 'generation': self._arbiter.generation}
                    self._answer(client, {'ok': True, 'data': data})

    def close(self, *, unlink: bool = True) -> None:
        self._listener.close()
        for client in self._clients.values():
            client.stream.close()
        self._clients.clear()
        if unlink:
            try:
                os.unlink(self._arbiter.state.path / RUN / NAME)
            except OSError:
                pass

    def _request(self, client: _Client, request: dict[str, Any]) -> None:
        command = request['command']
        if command == 'status':
            client.number = self._arbiter.ask_statistics()
            client.deadline = time.monotonic() + STATISTICS_TIME
            client.command = 'status'
        elif command == 'trouble':
            trouble = {**self._arbiter.trouble, **self._arbiter.unusable}
            self._answer(client, {'ok': True, 'data': trouble})
        elif command == 'unusable':
            self._answer(client, {'ok': True, 'data': self._arbiter.unusable})
        elif command == 'reload':
            if request.get('alone') and self._arbiter.reload_wanted:
                error = 'another reload is waiting already'
                self._answer(client, {'ok': False, 'error': error, 'busy': True})
                return
            self._arbiter.reload_wanted = True
            if request.get('wait', True):
                client.command = 'reload'
            else:
                self._answer(client, {'ok': True, 'data': {'reloaded': False}})
        elif command == 'stop':
            client.command = 'stop'
            self._arbiter.stop(at_once=bool(request.get('at_once')))
        elif command == 'restart':
            self._arbiter.restarting = True
            self._arbiter.stop()
            self._answer(client, {'ok': True, 'data': {'restarting': True}})
        elif command == 'publish':
            self._arbiter.publish(request)
            self._answer(client, {'ok': True, 'data': {}})
        else:
            self._answer(client, {'ok': False, 'error': 'unknown command'})

    def _answer(self, client: _Client, answer: dict[str, Any]) -> None:
        client.command = ''
        client.unsent += pack(answer)
        try:
            self._write(client)
        except OSError:
            self._drop(client)

    def _write(self, client: _Client) -> None:
        try:
            del client.unsent[: client.stream.send(client.unsent)]
        except BlockingIOError:
            pass

    def _drop(self, client: _Client) -> None:
        self._clients.pop(client.stream.fileno(), None)
        client.stream.close()


def status(arbiter: Arbiter) -> dict[str, Any]:
    """What `madmail status` shows."""
    now = time.monotonic()
    children = [
        {
            'kind': one.kind.name,
            'index': one.index,
            'pid': one.pid,
            'generation': one.generation,
            'state': one.state,
            'uptime_seconds': int(now - one.born),
            'statistics': one.statistics or {},
        }
        for one in arbiter.processes.values()
    ]
    return {
        'version': __version__,
        'pid': os.getpid(),
        'domain': arbiter.settings['domain'],
        'state_dir': str(arbiter.state.path),
        'tls_mode': arbiter.settings['tls.mode'],
        'generation': arbiter.generation,
        'boot_time': int(arbiter.started),
        'uptime_seconds': int(time.time() - arbiter.started),
        'shards': arbiter.state.shards,
        'complete': arbiter.complete,
        'listeners': [
            {'name': name, 'address': str(address)}
            for name, address in arbiter.listeners.addresses()
        ],
        'unusable': arbiter.unusable,
        'trouble': arbiter.trouble,
        'past': arbiter.ledger.past,
        'starts': arbiter.ledger.starts,
        'children': sorted(children, key=lambda c: (str(c['kind']), c['generation'], c['index'])),
        'imap_connections': sum(
            (one.statistics or {}).get('imap', 0) for one in arbiter.processes.values()
        ),
        'imap_unique_ips': unique(one.peers for one in arbiter.processes.values()),
        'registered_users': sum(
            (one.statistics or {}).get('accounts', 0)
            for one in arbiter.processes.values()
            if not one.retiring
        ),
    }


def unique(peers: Iterable[bytes]) -> int:
    """How many different numbers of 8 octets there are."""
    seen: set[int] = set()
    for numbers in peers:
        seen.update(memoryview(numbers).cast('Q'))
    return len(seen)


class NotRunning(Exception):
    """No relay serves this state directory."""


class Refused(Exception):
    """The relay answered that it cannot; the text says why."""

    def __init__(self, text: str, *, busy: bool = False) -> None:
        super().__init__(text)
        self.busy = busy  # with another of the same


def ask(
    state_dir: Path, request: dict[str, Any], *, timeout: float | None = 30.0
) -> dict[str, Any] | None:
    """One request to the relay of `state_dir`; its data, None when it hung up (stop).

    Raises NotRunning, Refused, or TimeoutError.
    """
    try:
        stream = connect(state_dir, NAME)
    except OSError:
        raise NotRunning(f'no relay is running in {state_dir}') from None
    with stream:
        stream.settimeout(timeout)
        try:
            send(stream, request)
            answer = receive(stream)
        except ConnectionError:
            return None
    if answer is None:
        return None
    if not answer.get('ok'):
        raise Refused(str(answer.get('error')), busy=bool(answer.get('busy')))
    data: dict[str, Any] = answer.get('data') or {}
    return data
