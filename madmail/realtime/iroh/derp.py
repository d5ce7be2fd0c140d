"""Frames of the relay protocol of iroh 0.35: type, u32 length, payload.

A packet on its way out differs from the one that came in by its type and by whose key
stands in it, so it is rewritten where it lies and never copied for that.
"""

from __future__ import annotations

import struct

CLIENT_INFO = 2  # from the client, first
SEND = 4  # from the client: key of the destination, packet
RECEIVE = 5  # to the client: key of the source, packet
GONE = 8  # to the client: key of a node that has left
PING = 12  # both ways, 8 octets
PONG = 13

HEADER = struct.Struct('>BI')
KEY = 32  # octets of an Ed25519 public key
PACKET_LIMIT = 65536  # octets of what one node says to another
PAYLOAD_LIMIT = KEY + PACKET_LIMIT
HELLO_LIMIT = 1024  # octets of the first frame's payload
PING_SIZE = 8


class Malformed(Exception):
    """The peer does not keep to the protocol."""


def frame(kind: int, payload: bytes) -> bytes:
    return HEADER.pack(kind, len(payload)) + payload


def packet(source: bytes, body: bytes | memoryview) -> bytes:
    """A packet as it goes out."""
    return b''.join((HEADER.pack(RECEIVE, KEY + len(body)), source, body))


def next_frame(view: memoryview, at: int, limit: int) -> tuple[int, int] | None:
    """Type and end of the frame that begins at `at`; None if it is not all here.

    Raises Malformed as soon as its length is known to be wrong.
    """
    if len(view) - at < HEADER.size:
        return None
    kind, length = HEADER.unpack_from(view, at)
    if length > limit or (kind == SEND and length < KEY):
        raise Malformed
    if kind in (PING, PONG) and length != PING_SIZE:
        raise Malformed
    end = at + HEADER.size + length
    return (kind, end) if end <= len(view) else None


def readdress(view: memoryview, at: int, source: bytes) -> bytes:
    """Make the SEND frame at `at` a RECEIVE from `source`, in place; the destination it had."""
    start = at + HEADER.size
    destination = bytes(view[start : start + KEY])
    view[at] = RECEIVE
    view[start : start + KEY] = source
    return destination
