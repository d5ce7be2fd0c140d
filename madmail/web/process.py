"""The web role: the child of the master that starts gunicorn, watches it, and ends it.

gunicorn is a process of its own, in a process group of its own, because it has
to be monkey patched and this process must not be.  It gets the listening
sockets by descriptor.  Its heartbeat is a request on a socket that only this
process knows; a reload starts a whole new generation beside the old one, which
then ends its requests.

<state_dir>/web/N/   large messages while they come in; empty when nobody sends
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
from gevent import socket as green

import madmail
from madmail import log
from madmail.account import flood
from madmail.shard.address import bind, connect
from madmail.web.brief import VARIABLE, Brief
from madmail.web.counters import Counters, create

if TYPE_CHECKING:
    from madmail.master.child import ChildContext

START_TIME = 60.0  # seconds gunicorn gets to serve
CHECK_TIME = 10.0  # seconds for the answer to a heartbeat
RETIRE_TIME = 90.0  # seconds that requests under way get at a reload
AUTO_LIMIT = 4  # workers that `auto` makes at most
PROBE = b'GET /-/alive HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'

_log = log.get('web')


def workers(setting: int) -> int:
    """How many `processes.web` means, 0 = auto."""
    return setting or max(1, min(len(os.sched_getaffinity(0)) // 2, AUTO_LIMIT))


class WebRole:
    """See `madmail.master`'s Role."""

    def __init__(self, context: ChildContext) -> None:
        self._context = context
        self._probe_name = f'web-{context.index}.sock'
        self._memory = create()
        self._counters = Counters(self._memory)
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when gunicorn serves.  Raises OSError when it does not."""
        context = self._context
        directory = context.state_dir / 'web' / str(context.index)
        shutil.rmtree(directory, ignore_errors=True)  # what a crash has left
        directory.mkdir(mode=0o700, parents=True)
        http = context.listeners.get('http', [])
        https = context.listeners.get('https', [])
        listeners = [*http, *https, *context.listeners.get('metrics', [])]
        with bind(context.state_dir, self._probe_name) as probe:
            descriptors = tuple(listener.fileno() for listener in listeners)
            brief = Brief(
                given=context.settings.given,
                stored=context.settings.stored(),
                origin=context.settings.origin,
                state_dir=context.state_dir,
                shards=context.shards,
                slot=context.index,
                parent=os.getpid(),
                workers=workers(context.settings['processes.web']),
                http=len(http),
                https=len(https),
                listeners=descriptors,
                probe=probe.fileno(),
                counters=self._memory,
                peer_key=flood.hash_key(context.shared) if context.shared else b'',
                pem=getattr(context.shared_tls, 'pem', b''),
            ).store()
            self._spawn(brief, (*descriptors, probe.fileno(), self._memory, brief))
            os.close(brief)
        for listener in listeners:
            listener.close()  # gunicorn's now
        self._wait()
        context.bus.subscribe('log', lambda data: self._pass_on_log())

    def check(self) -> bool:
        """Whether a request goes through a worker; gunicorn watches each of them itself."""
        return self._ask()

    def retire(self) -> None:
        """Let gunicorn end its requests."""
        server = self._server
        if server is None:
            return
        limit = RETIRE_TIME
        if self._context.stopping:
            limit = max(self._context.settings['master.grace'] - 1.0, 0.0)
        _signal(server, signal.SIGTERM)
        deadline = time.monotonic() + limit
        while server.poll() is None and time.monotonic() < deadline:
            gevent.sleep(0.02)
        if server.poll() is None:
            _log.warning('requests did not end in time')
            self._kill(server)
        try:
            os.unlink(self._context.state_dir / 'run' / self._probe_name)
        except OSError:
            pass

    def statistics(self) -> dict[str, Any]:
        """Counts since this process began."""
        totals: dict[str, Any] = self._counters.totals()
        directions = ('received', 'sent')
        octets = {direction: totals.pop(f'octets_{direction}') for direction in directions}
        return {**totals, 'octets': {'web': octets}}

    # -- inside

    def _spawn(self, brief: int, descriptors: tuple[int, ...]) -> None:
        package = Path(madmail.__file__).resolve().parent.parent
        path = os.pathsep.join(filter(None, (str(package), os.environ.get('PYTHONPATH'))))
        for needed in (Path(sys.executable), package / 'madmail' / 'web' / 'server.py'):
            if not os.access(needed, os.R_OK):
                raise PermissionError(f'the user of the relay cannot read {needed}')
        self._server = subprocess.Popen(
            [sys.executable, '-m', 'madmail.web.server'],
            env={**os.environ, 'PYTHONPATH': path, VARIABLE: str(brief)},
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
            process_group=0,
        )

    def _wait(self) -> None:
        assert self._server is not None
        deadline = time.monotonic() + START_TIME
        while not self._ask():
            status = self._server.poll()
            if status is not None:
                raise OSError(f'gunicorn ended with status {status}')
            if time.monotonic() > deadline:
                self._kill(self._server)
                raise OSError('gunicorn does not serve')
            gevent.sleep(0.02)

    def _ask(self) -> bool:
        """One request on the probe."""
        if self._server is None or self._server.poll() is not None:
            return False
        try:
            stream = connect(self._context.state_dir, self._probe_name)
        except OSError:
            return False
        with green.socket(stream.family, stream.type, fileno=stream.detach()) as probe:
            probe.settimeout(CHECK_TIME)
            answer = b''
            try:
                probe.sendall(PROBE)
                while data := probe.recv(4096):
                    answer += data
            except OSError:
                return False
        return answer.startswith(b'HTTP/1.1 200')

    def _kill(self, server: subprocess.Popen[bytes]) -> None:
        try:
            os.killpg(server.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        server.wait()

    def _pass_on_log(self) -> None:
        """The log was opened anew here or goes elsewhere; gunicorn has its own descriptor."""
        if self._server is not None:
            _signal(self._server, signal.SIGUSR1)


def _signal(server: subprocess.Popen[bytes], number: int) -> None:
    if server.poll() is None:
        server.send_signal(number)
