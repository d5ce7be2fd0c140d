"""The content of one part of a stored message, without its transfer encoding (RFC 3516).

Read in pieces, so that a part of 30 MB holds one of them; who needs to know the
length first goes over it twice.
"""

from __future__ import annotations

from collections.abc import Iterator

from madmail.message import transfer_encoding
from madmail.message.parts import Part
from madmail.message.structure import Span, Structure
from madmail.store.interface import Body

PIECE = 65536  # octets of the body read at once


class Content:
    """Some octets of a body and what encodes them."""

    __slots__ = ('_body', '_encoding', 'span')

    def __init__(self, body: Body, span: Span, encoding: bytes) -> None:
        """Raises transfer_encoding.Unknown."""
        self._body = body
        self._encoding = encoding
        self.span = span
        transfer_encoding.decoder(encoding)

    @property
    def encoded(self) -> bool:
        """False: the content is the octets of `span` as they stand."""
        return transfer_encoding.decoder(self._encoding) is not None

    def pieces(self, partial: tuple[int, int] | None = None) -> Iterator[bytes]:
        """The decoded octets, or those within `partial` (origin, length); some may be b''.

        Raises EOFError if the body is shorter than it says.
        """
        decoder = transfer_encoding.decoder(self._encoding)
        skip, left = partial if partial is not None else (0, -1)
        at, end = self.span.offset, self.span.offset + self.span.length
        while left and at < end:
            octets = self._body.read(at, min(PIECE, end - at))
            if not octets:
                raise EOFError
            at += len(octets)
            if decoder is not None:
                octets = decoder.feed(octets)
                if at >= end:
                    octets += decoder.finish()
            if skip:
                gone = min(skip, len(octets))
                skip -= gone
                octets = octets[gone:]
            if left > 0:
                octets = octets[:left]
                left -= len(octets)
            yield octets


def content(structure: Structure, body: Body, numbers: tuple[int, ...]) -> Content | None:
    """Of the part with these numbers, () for the whole message; None if there is none.

    Raises transfer_encoding.Unknown.
    """
    if not numbers:
        return Content(body, Span(0, body.size), b'7bit')
    part = structure.part(numbers)
    if part is None:
        return None
    # What holds parts has no encoding of its own (RFC 2045 6.4).
    encoding = b'7bit' if _holds_parts(part) else part.encoding
    return Content(body, Span(part.body_start, part.size), encoding)


def _holds_parts(part: Part) -> bool:
    return part.multipart or part.message is not None
