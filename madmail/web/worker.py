"""gunicorn's worker for this relay: its gevent worker with our listeners and bounds.

TLS is ours, because gunicorn gives all listeners the same: here only those of
listen.https have it.  The loop over the requests of a connection is ours,
because gunicorn's logs what peers send, bounds a header only by the product of
two limits, and keeps idle connections to the end of a shutdown.

The probe is a listener of its own, on which the relay's child process asks
whether this worker does its work.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
import warnings
from functools import partial
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.http.errors import (
    ExpectationFailed,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.workers.ggevent import GeventWorker

from madmail import log
from madmail.tls.context import ServerTLS, Unusable
from madmail.web import iroh
from madmail.web.peers import Connections, peer, trusted
from madmail.web.stream import Application, in_pieces, stop_reading
from madmail.web.webimap import socket as websocket

HEADER_LIMIT = 384 * 1024  # octets of a request's header: a thousand recipients and more
HANDSHAKE_TIME = 20.0  # seconds
SEND_TIME = 60.0  # seconds an answer may be stuck in one send
CERTIFICATE_CHECK = 5.0  # seconds between looks at the certificate's files
TCP_INFO_SIZE = 136  # octets of tcp(7)'s tcp_info up to tcpi_bytes_received
_BYTES = struct.Struct('=QQ')  # tcpi_bytes_acked, tcpi_bytes_received
LAST_WORDS = 1.0  # seconds in which a peer can read why its request was refused

_log = log.get('web')


class _Request(Request):
    """A request whose header is bounded as a whole."""

    @property
    def max_buffer_headers(self) -> int:
        return HEADER_LIMIT

    @max_buffer_headers.setter
    def max_buffer_headers(self, product: int) -> None:
        pass  # fields times size of a field: far too much


class _Parser(RequestParser):
    mesg_class = _Request


class Worker(GeventWorker):
    """One process; `app.services` is made in it, see `server`."""

    def patch(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # ssl is imported, but nothing was made with it
            super().patch()

    def init_process(self) -> None:
        self._ending = Event()
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi: Application = in_pieces(self.wsgi)

    def run(self) -> None:
        self._idle: set[Any] = set()  # connections between two requests
        services = self.app.services
        self._services = services
        self._settings = services.settings
        self._connections = Connections()
        self._passages = iroh.Passages(services, self._connections)
        self._tls: ServerTLS | None = None
        plain, secure = self.app.brief.http, self.app.brief.https
        self._secure: set[Any] = set(self.sockets[plain : plain + secure])
        # Asked now: a connection may be served when its listener is closed already.
        self._names = {listener: listener.getsockname() for listener in self.sockets}
        services.metrics_at = {
            (name[0], str(name[1]))
            for name in (self._names[listener] for listener in self.sockets[plain + secure :])
        }
        if self._secure:
            self._tls = ServerTLS(self._settings, services.state_dir, self.app.spare)
            self._tls.context('http/1.1')
        pool = Pool(self.worker_connections)
        servers = [
            StreamServer(listener, handle=partial(self.handle, listener), spawn=pool)
            for listener in self.sockets
        ]
        probe = socket.socket(fileno=self.app.brief.probe)
        servers.append(StreamServer(probe, handle=partial(self.handle, probe)))
        for server in servers:
            if self.cfg.workers > 1:
                server.max_accept = 1
            server.start()
        self._live()
        services.ending.set()
        for server in servers:
            server.close()
        self._part(pool)

    def handle_exit(self, sig: int, frame: object) -> None:
        self.alive = False
        self._ending.set()

    def _live(self) -> None:
        looked = time.monotonic()
        while self.alive:
            self.notify()
            if time.monotonic() - looked > CERTIFICATE_CHECK:
                looked = time.monotonic()
                self._look_at_certificate()
            self._ending.wait(1.0)

    def _part(self, pool: Pool) -> None:
        """Let requests end; who is between two of them is told the end of the stream."""
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while len(pool) and time.monotonic() < deadline:
            self.notify()
            for client in list(self._idle):
                stop_reading(client)
            gevent.sleep(0.1)
        pool.kill(timeout=1.0)

    def _look_at_certificate(self) -> None:
        """Load a renewed certificate; connections do not notice."""
        if self._tls is None or not self._tls.changed():
            return
        try:
            self._tls.reload()
        except (Unusable, OSError) as error:
            _log.error('certificate not usable, the old one stays', cause=type(error).__name__)
        else:
            _log.info('certificate loaded')

    # -- connections

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """One connection, from accept to close."""
        count = self._services.counters.count
        host = peer(addr[0]) if isinstance(addr, tuple) else ''
        limit = self._settings['limits.connections_per_ip']
        if host and trusted(host, self._settings):
            limit = 0  # many clients behind one address
        if not self._connections.enter(host, limit):
            count('refused_connections')
            client.close()
            return
        passed_on = False
        try:
            if host:
                count('connections')
                client.settimeout(SEND_TIME)
                # Before TLS, see gate.process.
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if listener in self._secure:
                assert self._tls is not None
                client = self._tls.context('http/1.1').wrap_socket(
                    client, server_side=True, do_handshake_on_connect=False
                )
                with gevent.Timeout(HANDSHAKE_TIME):
                    client.do_handshake()
            passed_on = self._serve(listener, client, addr, host)
        except (OSError, gevent.Timeout):
            pass  # it went away, or never spoke
        except Exception as error:
            _log.exception('connection failed', error)
        finally:
            if not passed_on:
                self._connections.leave(host)
                if host:
                    self._weigh(client)
                client.close()

    def _weigh(self, client: Any) -> None:
        """Count the octets of a connection, TLS included."""
        try:
            info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
            sent, received = _BYTES.unpack_from(info, TCP_INFO_SIZE - _BYTES.size)
        except (OSError, struct.error):
            return
        self._services.counters.count('octets_received', received)
        self._services.counters.count('octets_sent', sent)

    def _serve(self, listener: Any, client: Any, addr: Any, host: str) -> bool:
        """Requests one after the other; True if the connection is somebody else's now."""
        parser = _Parser(self.cfg, client, addr)
        name = self._names.get(listener, 'localhost')
        while True:
            request = None
            if parser.req_count:
                # A first request is waited for even at a shutdown: we have accepted it.
                self._idle.add(client)
            try:
                with gevent.Timeout(self.cfg.keepalive, False):
                    request = next(parser)
            except (StopIteration, NoMoreData):
                return False
            except ParseException as error:
                self._refuse(client, error)
                return False
            finally:
                self._idle.discard(client)
            if request is None:
                return False
            self._services.counters.count('requests')
            request.proxy_protocol_info = {}
            request.body.close_connection = request.force_close
            if isinstance(client, ssl.SSLSocket):
                request.scheme = 'https'
            if iroh.wanted(self._services, request.path):
                return self._passages.serve(request, parser.unreader, client, addr[0], host)
            if websocket.wanted(request.path, request.headers):
                self._services.refresh()
                websocket.serve(self._services, request, client, addr[0])
                return False
            try:
                self.handle_request(name, request, client, addr)
            except StopIteration:
                return False
            if not self.alive:
                return False

    def _refuse(self, client: Any, error: ParseException) -> None:
        """Answer what is no request, without a word of what it said."""
        self._services.counters.count('bad_requests')
        status = '400 Bad Request'
        if isinstance(error, LimitRequestLine):
            status = '414 URI Too Long'
        elif isinstance(error, LimitRequestHeaders):
            status = '431 Request Header Fields Too Large'
        elif isinstance(error, ExpectationFailed):
            status = '417 Expectation Failed'
        elif isinstance(error, UnsupportedTransferCoding):
            status = '501 Not Implemented'
        text = status.partition(' ')[2]
        client.sendall(
            f'HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\n'
            f'Content-Length: {len(text)}\r\n\r\n{text}'.encode()
        )
        with gevent.Timeout(LAST_WORDS, False):
            # A close with unread input would be a reset, and the answer lost.
            while client.recv(65536):
                pass
