"""The MIME part tree of a stored message, by offsets (RFC 2045, RFC 2046).

Each multipart is searched for its own boundary within the limits its parent
gave it, so an outer boundary always ends an inner part and a message is gone
over once a level; depth and number of parts are bounded.  Garbage gives a
smaller tree, never an error.
"""

from __future__ import annotations

import re

from madmail.message.envelope import Envelope, envelope
from madmail.message.header_fields import first_values
from madmail.message.mime_fields import (
    MESSAGE_RFC822,
    OCTET_STREAM,
    TEXT_PLAIN,
    ContentType,
    Parameters,
    content_type,
    disposition,
    encoding,
    languages,
)
from madmail.message.octets import Octets

MAX_DEPTH = 30
MAX_PARTS = 1000
MAX_BOUNDARY = 255  # octets; RFC 2046 5.1.1 allows 70


class Part:
    """One part.  header_start <= body_start <= end are offsets into the message.

    The MIME header is [header_start, body_start) with its empty line, the body
    [body_start, end).  `lines` is counted for text and embedded messages only.
    """

    __slots__ = (
        'body_start',
        'children',
        'content_type',
        'description',
        'disposition',
        'encoding',
        'end',
        'envelope',
        'header_start',
        'id',
        'languages',
        'lines',
        'location',
        'message',
    )

    def __init__(self, header_start: int) -> None:
        self.header_start = header_start
        self.body_start = header_start
        self.end = header_start
        self.lines = 0
        self.content_type: ContentType = TEXT_PLAIN
        self.id: bytes | None = None
        self.description: bytes | None = None
        self.encoding = b'7bit'
        self.disposition: tuple[bytes, Parameters] | None = None
        self.languages: tuple[bytes, ...] = ()
        self.location: bytes | None = None
        self.children: list[Part] = []  # of a multipart
        self.message: Part | None = None  # what a message/rfc822 holds
        self.envelope: Envelope | None = None  # of `message`

    @property
    def multipart(self) -> bool:
        return self.content_type.kind.startswith(b'multipart/')

    @property
    def size(self) -> int:
        return self.end - self.body_start


def tree(octets: Octets) -> Part:
    """The message's root part.

    PERF: one pass at about 1 GB/s a level, so a session parses messages of many
    megabytes in a thread.
    """
    return _Reading(octets).part(0, octets.size, octets.size, TEXT_PLAIN, 0)


class _Reading:
    """One message being read: where from, and how many parts there are."""

    __slots__ = ('octets', 'parts')

    def __init__(self, octets: Octets) -> None:
        self.octets = octets
        self.parts = 0

    def part(
        self, start: int, header_limit: int, end: int, default: ContentType, depth: int
    ) -> Part:
        """The part within [start, end); its header may use the line end before a boundary."""
        self.parts += 1
        part = Part(start)
        part.body_start = self.octets.header_end(start, header_limit)
        part.end = max(part.body_start, end)
        fields = first_values(self.octets.header(start, part.body_start))
        kind = content_type(fields.get(b'content-type'), default)
        part.id = fields.get(b'content-id')
        part.description = fields.get(b'content-description')
        part.encoding = encoding(fields.get(b'content-transfer-encoding'))
        part.disposition = disposition(fields.get(b'content-disposition'))
        part.languages = languages(fields.get(b'content-language'))
        part.location = fields.get(b'content-location')
        container = kind.kind.startswith(b'multipart/') or kind.kind == b'message/rfc822'
        if container and (depth >= MAX_DEPTH or self.parts >= MAX_PARTS):
            kind = OCTET_STREAM  # too deep to look into: shown as opaque
        part.content_type = kind
        if kind.kind == b'message/rfc822':
            part.message = self.part(part.body_start, part.end, part.end, TEXT_PLAIN, depth + 1)
            part.envelope = envelope(
                self.octets.header(part.message.header_start, part.message.body_start)
            )
            part.lines = self.octets.lines(part.body_start, part.end)
        elif kind.kind.startswith(b'multipart/'):
            self.children(part, depth)
        elif kind.kind.startswith(b'text/'):
            part.lines = self.octets.lines(part.body_start, part.end)
        return part

    def children(self, part: Part, depth: int) -> None:
        boundary = part.content_type.parameter(b'boundary')
        if not 0 < len(boundary) <= MAX_BOUNDARY:
            return
        # RFC 2046 5.1.5: parts of a digest are messages unless they say otherwise
        digest = part.content_type.kind == b'multipart/digest'
        default = MESSAGE_RFC822 if digest else TEXT_PLAIN
        for start, header_limit, end in self.pieces(part, boundary):
            part.children.append(self.part(start, header_limit, end, default, depth + 1))

    def pieces(self, part: Part, boundary: bytes) -> list[tuple[int, int, int]]:
        """(start, begin of the boundary line behind, end without the line end before it)."""
        # RFC 2046 5.1.1: blanks may follow the boundary; another octet makes it another line
        pattern = re.compile(
            rb'\n--' + re.escape(boundary.rstrip(b' \t')) + rb'(--)?[ \t]*\r?(?=\n|\Z)'
        )
        pieces = []
        start = -1
        # The line feed of the header's empty line belongs to the first boundary.
        first = max(part.header_start, part.body_start - 1)
        for offset, window in self.octets.windows(first, part.end):
            for found in pattern.finditer(window):
                at = offset + found.start()
                if start >= 0:
                    # RFC 2046 5.1.1: the line end before a boundary is part of the boundary
                    before = window[found.start() - 1 : found.start()]
                    if not found.start():
                        before = self.octets.read(at - 1, at)
                    end = at - 1 if before == b'\r' else at
                    pieces.append((start, at + 1, max(start, end)))
                start = min(offset + found.end() + 1, part.end)
                if found[1]:
                    return pieces
                if self.parts + len(pieces) >= MAX_PARTS:
                    break  # the last part takes what is left
            else:
                continue
            break
        if start >= 0:
            pieces.append((start, part.end, part.end))  # no closing boundary
        return pieces
