"""A relay that also serves HTTP, and connections to it."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.relay import Relay, client_tls, free_ports, merge

PEER = 'fay@[192.0.2.9]'  # no DKIM is asked from an IP address


class WebRelay(Relay):
    """`web` has the ports of http and https."""

    def __init__(self, directory: Path, options: dict[str, Any] | None = None) -> None:
        http_port, https_port = free_ports(2)
        self.web = {'http': http_port, 'https': https_port}
        listen = {f'listen.{name}': [f'127.0.0.1:{port}'] for name, port in self.web.items()}
        super().__init__(directory, merge(listen, options or {}))

    def wait_ready(self, timeout: float = 30.0) -> None:
        super().wait_ready(timeout)
        client = self.client('http', timeout)
        client.request('GET', '/')
        client.getresponse().read()
        client.close()

    def client(self, scheme: str = 'https', timeout: float = 20.0) -> http.client.HTTPConnection:
        port = self.web[scheme]
        if scheme == 'https':
            return http.client.HTTPSConnection(
                '127.0.0.1', port, timeout=timeout, context=client_tls()
            )
        return http.client.HTTPConnection('127.0.0.1', port, timeout=timeout)

    def raw(self, scheme: str = 'http') -> socket.socket:
        """A connection to write anything to."""
        stream: socket.socket = socket.create_connection(('127.0.0.1', self.web[scheme]), 20)
        if scheme == 'https':
            stream = client_tls().wrap_socket(stream)
        return stream

    def post(
        self,
        body: Any,
        *recipients: str,
        sender: str = PEER,
        client: http.client.HTTPConnection | None = None,
        path: str = '/mxdeliv',
        **kinds: Any,
    ) -> tuple[int, str]:
        """One delivery with a line for each recipient; status and text."""
        connection = client or self.client()
        connection.putrequest('POST', path)
        connection.putheader('X-Mail-From', sender)
        for recipient in recipients:
            connection.putheader('X-Mail-To', recipient)
        if isinstance(body, bytes):
            connection.putheader('Content-Length', str(len(body)))
            connection.endheaders(body)
        else:
            connection.putheader('Transfer-Encoding', 'chunked')
            connection.endheaders(body, encode_chunked=True)
        response = connection.getresponse()
        text = response.read().decode()
        if client is None:
            connection.close()
        return response.status, text


def answer(stream: socket.socket | ssl.SSLSocket) -> bytes:
    """Everything to the end of the stream."""
    received = b''
    try:
        while data := stream.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRelay]:
    with WebRelay(tmp_path_factory.mktemp('relay')) as relay:
        yield relay


@pytest.fixture
def room(tmp_path: Path) -> Path:
    return tmp_path / 'relay'
