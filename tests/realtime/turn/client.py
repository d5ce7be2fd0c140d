"""A TURN client that blocks, over UDP, TCP or TLS, for tests and measurements."""

from __future__ import annotations

import os
import socket
import ssl
import time
from typing import Any

from madmail.realtime.turn import message
from madmail.realtime.turn.credentials import password
from madmail.realtime.turn.message import (
    REQUEST,
    Address,
    Message,
    build,
    long_term_key,
    parse,
    read_error_code,
    read_xor_address,
    xor_address,
)

Attributes = list[tuple[int, bytes]]
PATIENCE = 10.0


class Denied(Exception):
    def __init__(self, code: int, answer: Message) -> None:
        super().__init__(code)
        self.code = code
        self.answer = answer


def connect(address: tuple[Any, ...], transport: str = 'udp') -> socket.socket:
    family = socket.AF_INET6 if ':' in address[0] else socket.AF_INET
    if transport == 'udp':
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.connect(address)
    else:
        made = socket.create_connection(address[:2], PATIENCE)
        if transport == 'tls':
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            made = context.wrap_socket(made)
    made.settimeout(PATIENCE)
    return made


class TurnClient:
    def __init__(
        self,
        address: tuple[Any, ...],
        *,
        transport: str = 'udp',
        secret: bytes = b'north',
        name: str | None = None,
        realm: str = 'chat.example',
    ) -> None:
        self.socket = connect(address, transport)
        self.datagrams = transport == 'udp'
        self.name = name or str(int(time.time()) + 3600)
        self.realm = realm
        self.key = long_term_key(self.name, realm, password(secret, self.name))
        self.nonce = b''
        self.waiting: list[bytes] = []  # what came while an answer was waited for
        self._input = bytearray()

    def __enter__(self) -> TurnClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    # -- octets

    def send(self, data: bytes) -> None:
        if not self.datagrams:
            data += bytes(-len(data) & 3)
        self.socket.sendall(data)

    def receive(self) -> bytes:
        """The next message or packet, without padding."""
        if self.waiting:
            return self.waiting.pop(0)
        return self._receive()

    def _receive(self) -> bytes:
        if self.datagrams:
            return self.socket.recv(65536)
        while True:
            if len(self._input) >= 4:
                length = int.from_bytes(self._input[2:4], 'big')
                size = length + (20 if self._input[0] < 4 else 4)
                whole = size + (-size & 3)
                if len(self._input) >= whole:
                    found = bytes(self._input[:size])
                    del self._input[:whole]
                    return found
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self._input += data

    def raw(self, size: int = 1 << 20) -> bytes:
        """Octets that are no messages, of a connection that was bound to a peer's."""
        if self._input:
            found = bytes(self._input)
            self._input.clear()
            return found
        return self.socket.recv(size)

    # -- requests

    def ask(
        self,
        method: int,
        attributes: Attributes,
        key: bytes | None = None,
        transaction: bytes = b'',
    ) -> Message:
        """One request and its answer, whatever it is."""
        transaction = transaction or os.urandom(12)
        self.send(build(REQUEST, method, transaction, attributes, key))
        while True:
            data = self._receive()
            if data[0] < 2 or data[0] < 4:
                answer = parse(data)
                if answer.transaction == transaction:
                    return answer
            self.waiting.append(data)

    def proof(self) -> Attributes:
        return [
            (message.USERNAME, self.name.encode()),
            (message.REALM, self.realm.encode()),
            (message.NONCE, self.nonce),
        ]

    def request(self, method: int, attributes: Attributes, transaction: bytes = b'') -> Message:
        """A proved request; its success.  Raises Denied.  The answer must be signed."""
        if not self.nonce:
            first = self.ask(method, attributes)
            self.nonce = first.get(message.NONCE) or b''
        answer = self.ask(method, [*attributes, *self.proof()], self.key, transaction)
        if answer.kind == message.ERROR:
            raise Denied(read_error_code(answer.get(message.ERROR_CODE) or b''), answer)
        assert answer.verifies(self.key)
        return answer

    def denied(self, method: int, attributes: Attributes) -> int:
        """The error that a proved request gets."""
        try:
            self.request(method, attributes)
        except Denied as denied:
            return denied.code
        return 0

    def allocate(self, *more: tuple[int, bytes], protocol: int = message.UDP) -> Address:
        attributes = [(message.REQUESTED_TRANSPORT, message.family(protocol)), *more]
        answer = self.request(message.ALLOCATE, attributes)
        return self.address(answer, message.XOR_RELAYED_ADDRESS)

    def address(self, answer: Message, number: int) -> Address:
        return read_xor_address(answer.get(number) or b'', answer.transaction)

    def _about(self, method: int, peers: list[Address], more: Attributes) -> Message:
        """A request with addresses, which are written with its transaction."""
        transaction = os.urandom(12)
        attributes = [(message.XOR_PEER_ADDRESS, xor_address(p, transaction)) for p in peers]
        return self.request(method, [*more, *attributes], transaction)

    def permit(self, *peers: Address) -> Message:
        return self._about(message.CREATE_PERMISSION, list(peers), [])

    def bind(self, number: int, peer: Address) -> Message:
        value = number.to_bytes(2, 'big') + b'\0\0'
        return self._about(message.CHANNEL_BIND, [peer], [(message.CHANNEL_NUMBER, value)])

    def connect_to(self, peer: Address) -> int:
        answer = self._about(message.CONNECT, [peer], [])
        return int.from_bytes(answer.get(message.CONNECTION_ID) or b'', 'big')

    def refresh(self, seconds: int) -> int:
        answer = self.request(message.REFRESH, [message.lifetime(seconds)])
        return int.from_bytes(answer.get(message.LIFETIME) or b'', 'big')

    # -- packets

    def channel_data(self, number: int, payload: bytes) -> None:
        self.send(number.to_bytes(2, 'big') + len(payload).to_bytes(2, 'big') + payload)

    def indicate(self, peer: Address, payload: bytes, *more: tuple[int, bytes]) -> None:
        transaction = os.urandom(12)
        attributes = [
            (message.XOR_PEER_ADDRESS, xor_address(peer, transaction)),
            (message.DATA, payload),
            *more,
        ]
        self.send(
            build(message.INDICATION, message.SEND, transaction, attributes, fingerprint=False)
        )
