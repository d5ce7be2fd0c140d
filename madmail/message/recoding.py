"""Binary parts of a message in base64 (RFC 3516 4.3, RFC 2045 6).

Nothing that is stored may hold NUL, for clients fail on it; a message that
comes as literal8 may.  Its parts of Content-Transfer-Encoding binary, which is
where RFC 2045 allows NUL, are therefore stored in base64, and what contains
them is declared 8bit.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator

from madmail.message.octets import Octets
from madmail.message.parts import Part, tree
from madmail.store.interface import Body

LINE = 57  # octets that give a line of 76
PIECE = LINE * 1024

_FIELD = re.compile(
    rb'^content-transfer-encoding[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*', re.IGNORECASE | re.MULTILINE
)


def without_binary(body: Body) -> Iterator[bytes]:
    """The message, in pieces of at most some 80 KiB besides its headers."""
    octets = Octets(body)
    at = 0
    for part in _binary(tree(octets)):
        yield from _copied(octets, at, part.header_start)
        container = part.multipart or part.message is not None
        encoding = b'8bit' if container else b'base64'
        header = octets.read(part.header_start, part.body_start)
        field = b'Content-Transfer-Encoding: %s\r\n' % encoding
        yield _FIELD.sub(field, header, count=1)
        at = part.body_start
        if container:
            continue
        while at < part.end:
            piece = octets.read(at, min(at + PIECE, part.end))
            if not piece:
                break
            yield _lines(piece)
            at += len(piece)
        at = part.end
    yield from _copied(octets, at, octets.size)


def _binary(part: Part) -> Iterator[Part]:
    """In the order of the message."""
    if part.encoding.lower() == b'binary':
        yield part
    for child in part.children:
        yield from _binary(child)
    if part.message is not None:
        yield from _binary(part.message)


def _copied(octets: Octets, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        piece = octets.read(start, min(start + PIECE, end))
        if not piece:
            return
        yield piece
        start += len(piece)


def _lines(piece: bytes) -> bytes:
    text = b64encode(piece)
    return b''.join([text[i : i + 76] + b'\r\n' for i in range(0, len(text), 76)])
