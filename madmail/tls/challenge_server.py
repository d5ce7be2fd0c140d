"""Port 80 of a relay that does not run, for the time of an order: challenges and nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from madmail.tls import challenges

PATIENCE = 10.0  # seconds for a request
CLIENTS = 64  # at a time


class ChallengeServer:
    """Serves in threads until closed."""

    def __init__(self, directory: Path, descriptors: Iterable[int]) -> None:
        """`descriptors` are listening sockets."""
        self._servers = [
            _Server(directory, socket.socket(fileno=descriptor)) for descriptor in descriptors
        ]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE
    server: _Server

    def do_GET(self) -> None:
        answer = None
        if self.path.startswith(challenges.PATH):
            answer = challenges.find(self.server.directory, self.path.removeprefix(challenges.PATH))
        self.send_response(HTTPStatus.OK if answer else HTTPStatus.NOT_FOUND)
        body = answer or b''
        self.send_header('Content-Type', 'application/octet-stream')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass  # who asked is nobody's business


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, directory: Path, listener: socket.socket) -> None:
        super().__init__(('', 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_address = listener.getsockname()
        self.directory = directory
        self._room = threading.BoundedSemaphore(CLIENTS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # it went away
