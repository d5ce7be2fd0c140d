"""A stored message seen through IMAP: sections, envelope and part tree.

`Structure` reads only what a question needs: a header question reads the
beginning of the message, a question about parts goes over it once.  Large
answers are given as `Span`, an offset and a length to stream from the body.
"""

from __future__ import annotations

from typing import NamedTuple

from madmail.message import header_fields
from madmail.message.envelope import Envelope, envelope
from madmail.message.octets import Octets
from madmail.message.parts import Part, tree
from madmail.store.interface import Body


class Span(NamedTuple):
    """Octets of the message, to be read from its body."""

    offset: int
    length: int


class Structure:
    """One message under a FETCH or SEARCH."""

    __slots__ = ('_body_start', '_root', 'octets')

    def __init__(self, body: Body | bytes) -> None:
        self.octets = Octets(body)
        self._body_start = -1
        self._root: Part | None = None

    @property
    def body_start(self) -> int:
        """Where the message's own header, with its empty line, ends."""
        if self._body_start < 0:
            self._body_start = self.octets.header_end(0, self.octets.size)
        return self._body_start

    @property
    def root(self) -> Part:
        """The part tree; the whole message is gone over the first time."""
        if self._root is None:
            self._root = tree(self.octets)
        return self._root

    def header(self) -> bytes:
        """The header block with its empty line."""
        return self.octets.header(0, self.body_start)

    def envelope(self) -> Envelope:
        return envelope(self.header())

    def part(self, numbers: tuple[int, ...]) -> Part | None:
        """The part of these numbers (RFC 3501 6.4.5), None if there is none."""
        container: Part | None = self.root
        part: Part | None = None
        for number in numbers:
            if container is None:
                return None
            if container.multipart:
                if number > len(container.children):
                    return None
                part = container.children[number - 1]
            elif number == 1:  # the only part of a message that is no multipart
                part = container
            else:
                return None
            container = part if part.multipart else part.message
        return part

    def section(
        self,
        part: tuple[int, ...],
        text: str,
        fields: tuple[bytes, ...] = (),
        partial: tuple[int, int] | None = None,
    ) -> Span | bytes | None:
        """What BODY[…]<…> holds; arguments are those of `imap.syntax.Section`.

        None if there is no such part, else a Span of the message or, for
        HEADER.FIELDS, the octets.  `partial` is (origin, length); an origin
        behind the end gives no octets (RFC 3501 6.4.5).
        """
        if not part:
            if text == '':
                return _cut(0, self.octets.size, partial)
            if text == 'TEXT':
                return _cut(self.body_start, self.octets.size, partial)
            start, end = 0, self.body_start
        else:
            found = self.part(part)
            if found is None:
                return None
            if text == '':
                return _cut(found.body_start, found.end, partial)
            if text == 'MIME':
                return _cut(found.header_start, found.body_start, partial)
            # RFC 3501 6.4.5: HEADER and TEXT refer to the message the part holds
            message = found.message
            if message is None:
                return None
            if text == 'TEXT':
                return _cut(message.body_start, message.end, partial)
            start, end = message.header_start, message.body_start
        if text == 'HEADER':
            return _cut(start, end, partial)
        block = self.octets.header(start, end)
        octets = header_fields.select(block, fields, inverted=text == 'HEADER.FIELDS.NOT')
        return octets if partial is None else octets[partial[0] : partial[0] + partial[1]]


def _cut(start: int, end: int, partial: tuple[int, int] | None) -> Span:
    return cut(Span(start, end - start), partial)


def cut(span: Span, partial: tuple[int, int] | None) -> Span:
    """The octets of `partial` (origin, length); none behind the end (RFC 3501 6.4.5)."""
    if partial is None:
        return span
    origin = min(partial[0], span.length)
    return Span(span.offset + origin, min(partial[1], span.length - origin))
