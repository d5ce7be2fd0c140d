"""Small requests over a connection that is kept."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from pathlib import Path

import gevent.ssl
import pytest

from madmail.delivery.exchanger import place
from madmail.delivery.pull_client import PullClient
from tests.tls.authority import Authority

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'


@pytest.mark.parametrize('how', ['end', 'reset'])
@pytest.mark.parametrize('scheme', ['http', 'https'])
def test_a_connection_that_was_closed_meanwhile_is_made_anew(
    tmp_path: Path, scheme: str, how: str
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue('127.0.0.1')
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    listener = socket.create_server(('127.0.0.1', 0))
    listener.settimeout(20)
    answered: list[int] = []
    read = threading.Semaphore(0)  # answers by the client

    def serve() -> None:
        for _ in range(3):
            stream, _ = listener.accept()
            stream.settimeout(20)
            if scheme == 'https':
                stream = context.wrap_socket(stream, server_side=True)
            heard = b''
            while b'{}' not in heard:
                heard += stream.recv(65536)
            answered.append(1)
            stream.sendall(ANSWER)
            assert read.acquire(timeout=20)
            bare = socket.socket(fileno=stream.detach())
            if how == 'reset':
                bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            else:
                bare.shutdown(socket.SHUT_WR)
            bare.close()

    server = threading.Thread(target=serve)
    server.start()
    trusting = gevent.ssl.create_default_context(cafile=str(authority.root))
    at = place(f'{scheme}://127.0.0.1:{listener.getsockname()[1]}/')
    client = PullClient(at, trusting, lambda host: (host,), verify=True)
    try:
        for count in range(1, 4):
            answer = client.ask('POST', '/', {}, b'{}', limit=100, timeout=20)
            assert (answer.status, answer.data, len(answered)) == (200, b'ok', count)
            assert client._connection is not None
            end = select.poll()
            end.register(client._connection.sock.fileno(), select.POLLRDHUP)
            read.release()
            assert end.poll(20_000)
    finally:
        server.join(20)
        client.close()
        listener.close()
