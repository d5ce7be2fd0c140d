"""A notification service for tests: answers as it is told and remembers what it was asked.

It runs in threads, so it serves greenlets of the test and other processes alike.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from tests.tls.authority import Pair


class Request(NamedTuple):
    at: float  # time.time()
    path: str
    fields: dict[str, str]
    token: str


# What to do with a request: an HTTP status, one with fields, or how to misbehave.
Behaviour = int | str | tuple[int, dict[str, str]]
BEHAVIOURS = ('hang', 'reset', 'close', 'garbage', 'endless', 'redirect')


class NotificationService:
    """Use with `with`.  `behave(request)` decides, unless `script` has something left."""

    def __init__(self, tls: Pair | None = None, port: int = 0) -> None:
        self.behave: Callable[[Request], Behaviour] = lambda request: 200
        self.script: list[Behaviour] = []
        self.delay = 0.0  # seconds before an answer
        self.requests: list[Request] = []
        self.connections = 0
        self.at_once = 0  # requests under way, the most there were
        self._under_way = 0
        self._lock = threading.Lock()
        self.released = threading.Event()  # ends what hangs
        self._server = _Server(('127.0.0.1', port), self, tls)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.port: int = self._server.server_address[1]
        self.url = f'{"https" if tls else "http"}://127.0.0.1:{self.port}/notify'

    def __enter__(self) -> NotificationService:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def tokens(self) -> list[str]:
        return [request.token for request in self.requests]

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.tokens)

    def wait(self, count: int, timeout: float = 20.0, sleep: Any = time.sleep) -> list[Request]:
        """The requests, once there are at least `count`."""
        end = time.monotonic() + timeout
        while len(self.requests) < count:
            if time.monotonic() > end:
                raise AssertionError(f'{len(self.requests)} of {count} requests')
            sleep(0.01)
        return self.requests

    def decide(self, request: Request) -> Behaviour:
        with self._lock:
            self.requests.append(request)
            return self.script.pop(0) if self.script else self.behave(request)

    def enter(self, change: int) -> None:
        with self._lock:
            self._under_way += change
            self.at_once = max(self.at_once, self._under_way)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], service: NotificationService, tls: Pair | None
    ) -> None:
        self.service = service
        self._context = None
        if tls is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(tls.certificate, tls.key)
        super().__init__(address, _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.service.connections += 1
        if self._context is not None:
            request = self._context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that goes away, or does not like our certificate


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    timeout = 30

    def do_POST(self) -> None:
        service: NotificationService = self.server.service  # type: ignore[attr-defined]
        length = int(self.headers['Content-Length'])
        token = self.rfile.read(length).decode('ascii')
        request = Request(time.time(), self.path, dict(self.headers.items()), token)
        service.enter(1)
        try:
            behaviour = service.decide(request)
            if service.delay:
                time.sleep(service.delay)
            self._answer(service, behaviour)
        finally:
            service.enter(-1)

    def _answer(self, service: NotificationService, behaviour: Behaviour) -> None:
        if isinstance(behaviour, int):
            behaviour = behaviour, {}
        if isinstance(behaviour, tuple):
            status, fields = behaviour
            self.send_response_only(status)
            for field in fields.items():
                self.send_header(*field)
            self.send_header('Content-Length', '2')
            self.end_headers()
            self.wfile.write(b'ok')
            return
        self.close_connection = True
        if behaviour == 'hang':
            service.released.wait(60)
        elif behaviour == 'reset':
            linger = struct.pack('ii', 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif behaviour == 'garbage':
            self.wfile.write(b'220 this is something else\r\n\r\n')
        elif behaviour == 'endless':
            self.wfile.write(b'HTTP/1.1 200 OK\r\n\r\n')
            try:
                while not service.released.is_set():
                    self.wfile.write(b'x' * 65536)
            except OSError:
                pass
        elif behaviour == 'redirect':
            self.send_response(307)
            self.send_header('Location', f'{service.url}/elsewhere')
            self.send_header('Content-Length', '0')
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def root_environment(root: Path) -> dict[str, str]:
    """With which a process trusts `root`."""
    return {'SSL_CERT_FILE': str(root)}
