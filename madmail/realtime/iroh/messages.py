"""Frames in WebSocket messages, one in each: of iroh 0.35, and of 1.x with its own numbers.

The type is one octet (1.x calls it a QUIC varint, of which it uses the short form), the
rest is the payload.  `Old` and `New` say the same things to clients of either.
"""

from __future__ import annotations

from typing import Protocol

from madmail.realtime.iroh import derp
from madmail.realtime.iroh.derp import KEY, PAYLOAD_LIMIT, PING_SIZE, Malformed
from madmail.web.webimap import websocket

# of 1.x
CHALLENGE, AUTHENTICATION, CONFIRMED, DENIED = 0, 1, 2, 3
DATAGRAM, BATCH = 4, 5  # from the client: key, ECN, segment size of a batch, content
OUTWARD = 2  # what is added to these types on the way to a client
NEW_GONE, NEW_PING, NEW_PONG, HEALTH, STATUS = 8, 9, 10, 11, 13

V1, V2 = 'iroh-relay-v1', 'iroh-relay-v2'
PROTOCOLS = (V2, V1)  # Sec-WebSocket-Protocol, the best first
NEW_LIMIT = 65536  # octets of a payload that clients of 1.x take
LIMIT = 1 + PAYLOAD_LIMIT  # octets of any message
SAME_NODE = 1  # a STATUS: another connection of the same node has taken over


def message(data: bytes) -> bytes:
    """As it goes to a client."""
    return websocket.frame(websocket.BINARY, data)


class Dialect(Protocol):
    """What is said to a client in WebSocket messages."""

    def ping(self, data: bytes) -> bytes: ...

    def pong(self, data: bytes) -> bytes: ...

    def gone(self, key: bytes) -> bytes: ...

    def packet(self, kind: int, source: bytes, body: bytes | memoryview) -> bytes:
        """`kind` is the type with which it came from `source`, `body` what followed the key."""

    def replaced(self) -> bytes:
        """Last words to a connection whose node has a newer one."""


class Old:
    """iroh 0.35."""

    def ping(self, data: bytes) -> bytes:
        return message(bytes((derp.PING,)) + data)

    def pong(self, data: bytes) -> bytes:
        return message(bytes((derp.PONG,)) + data)

    def gone(self, key: bytes) -> bytes:
        return message(bytes((derp.GONE,)) + key)

    def packet(self, kind: int, source: bytes, body: bytes | memoryview) -> bytes:
        return message(b''.join((bytes((derp.RECEIVE,)), source, body)))

    def replaced(self) -> bytes:
        return b''


class New:
    """iroh 1.x in one of the two forms of its protocol."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol

    def ping(self, data: bytes) -> bytes:
        return message(bytes((NEW_PING,)) + data)

    def pong(self, data: bytes) -> bytes:
        return message(bytes((NEW_PONG,)) + data)

    def gone(self, key: bytes) -> bytes:
        return message(bytes((NEW_GONE,)) + key)

    def packet(self, kind: int, source: bytes, body: bytes | memoryview) -> bytes:
        return message(b''.join((bytes((kind + OUTWARD,)), source, body)))

    def replaced(self) -> bytes:
        if self.protocol == V2:
            return message(bytes((STATUS, SAME_NODE)))
        return message(bytes((HEALTH,)) + b'another connection of this node has taken over')


OLD = Old()
NEW = {protocol: New(protocol) for protocol in PROTOCOLS}


def choose(offered: str) -> str:
    """The protocol of 1.x to speak, of what Sec-WebSocket-Protocol offers; '' for that of 0.35."""
    names = {name.strip() for name in offered.split(',')}
    return next((name for name in PROTOCOLS if name in names), '')


def check_old(data: bytes) -> int:
    """The type of a message of 0.35.  Raises Malformed."""
    if not data:
        raise Malformed
    kind = data[0]
    if kind == derp.SEND and len(data) < 1 + KEY:
        raise Malformed
    if kind in (derp.PING, derp.PONG) and len(data) != 1 + PING_SIZE:
        raise Malformed
    return kind


def check_new(data: bytes) -> int:
    """The type of a message of 1.x.  Raises Malformed."""
    if not data or len(data) > 1 + NEW_LIMIT:
        raise Malformed
    kind = data[0]
    least = {DATAGRAM: KEY + 1, BATCH: KEY + 3}.get(kind, 0)
    if len(data) < 1 + least:
        raise Malformed
    if kind in (NEW_PING, NEW_PONG) and len(data) != 1 + PING_SIZE:
        raise Malformed
    return kind
