"""Whether a client would be served, found out by being one."""

from __future__ import annotations

import secrets
import socket
import ssl
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gevent import socket as green

from madmail.account.address import hostname
from madmail.realtime.iroh import derp, handshake, request
from madmail.realtime.iroh.speech import PREAMBLE
from madmail.settings import Settings
from madmail.shard.address import connect

SOCKET = 'iroh.sock'  # of the service, in run/
PATIENCE = 5.0  # seconds
_ASK = f'GET /relay HTTP/1.1\r\nHost: localhost\r\nUpgrade: {request.UPGRADE}\r\n\r\n'.encode()


def answers(state_dir: Path) -> bool:
    """A node of 0.35 says who it is and gets the answer to its ping.  Raises OSError."""
    data = secrets.token_bytes(derp.PING_SIZE)
    hello = handshake.introduce(Ed25519PrivateKey.generate())
    stream = connect(state_dir, SOCKET)
    with green.socket(stream.family, stream.type, fileno=stream.detach()) as probe:
        probe.settimeout(PATIENCE)
        probe.sendall(PREAMBLE.pack(0) + _ASK)
        head = b''
        while b'\r\n\r\n' not in head:
            got = probe.recv(4096)
            if not got:
                return False
            head += got
        if not head.startswith(b'HTTP/1.1 101 '):
            return False
        probe.sendall(hello + derp.frame(derp.PING, data))
        want = derp.frame(derp.PONG, data)
        answer = b''
        while len(answer) < len(want):
            got = probe.recv(len(want) - len(answer))
            if not got:
                return False
            answer += got
    return answer == want


def trusted(settings: Settings) -> bool:
    """Whether somebody who knows our name finds us by HTTPS, with a certificate to be trusted.

    What counts as trusted is what this host trusts.  Blocks: for a native thread.
    """
    listeners = settings['listen.https']
    if not listeners or settings['tls.mode'] == 'self_signed':
        return False
    wildcards = {'0.0.0.0': '127.0.0.1', '::': '::1', 'localhost': '127.0.0.1'}
    address = listeners[0]
    host = hostname(settings)
    challenge = secrets.token_hex(8)
    ask = (
        f'GET /generate_204 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n'
        f'X-Iroh-Challenge: {challenge}\r\n\r\n'
    )
    answer = b''
    try:
        at = (wildcards.get(address.host, address.host), address.port)
        with (
            socket.create_connection(at, PATIENCE) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=host) as stream,
        ):
            stream.sendall(ask.encode())
            while len(answer) < 8192 and (got := stream.recv(4096)):
                answer += got
    except (OSError, ValueError):
        return False
    return answer.startswith(b'HTTP/1.1 204 ') and f'response {challenge}'.encode() in answer
