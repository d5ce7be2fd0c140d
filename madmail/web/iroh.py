"""The way to the iroh relay over the web listeners.

Its probes are answered here.  A request for the relay itself goes to its process with all
that follows: TLS ends here, and what is left is a pipe on the loop without a greenlet, as
in a gate.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

import gevent

from madmail import log
from madmail.gate.deadlines import Deadlines
from madmail.gate.gate import READ, SCRATCH, Octets
from madmail.gate.pipe import Pipe
from madmail.realtime.iroh import request as http
from madmail.realtime.iroh.probe import SOCKET
from madmail.realtime.iroh.speech import PREAMBLE
from madmail.shard.address import connect
from madmail.web.peers import Connections
from madmail.web.peers import client as peer_of
from madmail.web.services import Services

PROBES = ('/ping', '/generate_204')
_PASSED_ON = (
    'UPGRADE',
    'SEC-WEBSOCKET-KEY',
    'SEC-WEBSOCKET-VERSION',
    'SEC-WEBSOCKET-PROTOCOL',
)

_log = log.get('web')


def wanted(services: Services, path: str) -> bool:
    """Whether a request is for the relay, and it is there."""
    if path not in http.RELAY_PATHS and path not in PROBES:
        return False
    services.refresh()
    return bool(services.settings['iroh.enabled'])


class _Counts:
    pipes = 0


class _Leaving:
    """Counts who has gone, by the address under which it was counted."""

    def __init__(self, connections: Connections) -> None:
        self.closed = connections.leave


class Passages:
    """All pipes to the relay of one worker; what `gate.pipe` needs of a gate."""

    def __init__(self, services: Services, connections: Connections) -> None:
        self._services = services
        self.loop = gevent.get_hub().loop
        self.scratch = memoryview(bytearray(SCRATCH))
        self.counts = _Counts()
        self.deadlines = Deadlines(self.loop, self.crashed)
        self.peers = _Leaving(connections)
        self.imap: dict[Any, int] = {}
        self.imap_octets = Octets()
        # Counted by the relay, which knows what they are.
        self.smtp_octets = Octets()

    def crashed(self, error: BaseException) -> None:
        _log.exception('pipe to the iroh relay crashed', error)

    def serve(self, request: Any, unreader: Any, stream: Any, host: str, peer: str) -> bool:
        """Answer, or pass the connection on; True if it is ours now.

        `request` and `unreader` are gunicorn's, `host` is who is connected, and `peer`
        under what it was counted.
        """
        headers = {name: value for name, value in reversed(request.headers)}
        if request.method != 'GET':
            stream.sendall(http.page(404, 'Not Found', head=request.method == 'HEAD'))
            return False
        if request.path in PROBES:
            fields = {name.lower(): value for name, value in headers.items()}
            stream.sendall(http.probe(request.path, fields))
            return False
        lines = [f'{name}: {headers[name]}' for name in _PASSED_ON if name in headers]
        head = '\r\n'.join((f'GET {request.path} HTTP/1.1', *lines, '', ''))
        ahead = unreader.take_buffered()
        secure = isinstance(stream, ssl.SSLSocket)
        if secure and stream.pending():
            ahead += stream.recv(stream.pending())
        data = PREAMBLE.pack(self._number(headers, host)) + head.encode('latin-1') + ahead
        try:
            relay = connect(self._services.state_dir, SOCKET)
        except OSError:
            stream.sendall(http.page(503, ''))
            return False
        try:
            if relay.send(data) < len(data):
                raise BlockingIOError
        except OSError:
            relay.close()
            stream.sendall(http.page(503, ''))
            return False
        if not secure:
            # The server closes what it has accepted when we return; wrapping for TLS took it away.
            stream = socket.socket(stream.family, stream.type, fileno=stream.detach())
        stream.setblocking(False)
        Pipe(
            self,
            peer,
            False,
            stream,
            self.loop.io(stream.fileno(), READ),
            secure,
            relay,
            self.loop.io(relay.fileno(), READ),
        ).start(b'', memoryview(b''))
        return True

    def _number(self, headers: dict[str, str], host: str) -> int:
        """What the relay counts the peer under."""
        environ = {
            'REMOTE_ADDR': host,
            'HTTP_X_FORWARDED_FOR': headers.get('X-FORWARDED-FOR', ''),
        }
        origin = self._services.guest(peer_of(environ, self._services.settings))
        return origin[0] if origin else 0
