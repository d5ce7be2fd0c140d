"""Random access to a message's octets, in memory or in a file, a window at a time.

What looks at a message's structure goes through `Octets`, so that a message of
30 MB costs one window of memory, and one pass costs each octet one look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from madmail.store.interface import Body

WINDOW = 256 * 1024  # octets held; a message up to this size is held whole
HEADER_LIMIT = 1024 * 1024  # octets of one header block that are ever looked into
_FIRST = 16 * 1024  # octets read to find the end of the header of a large message

# The empty line that ends a header block, with the end of the line before it.
_EMPTY_LINE = re.compile(rb'\n\r?\n')


class Octets:
    """A message; `size` is its length."""

    __slots__ = ('_body', '_offset', '_window', 'size')

    def __init__(self, body: Body | bytes) -> None:
        self._body: Body | None
        if isinstance(body, bytes):
            self._body, self._window = None, body
            self.size = len(body)
        else:
            self.size = body.size
            self._body = body
            # The whole message where it is small; then nothing else is ever read.
            self._window = body.read() if body.size <= WINDOW else body.read(0, _FIRST)
        self._offset = 0  # where the window begins

    def read(self, start: int, end: int) -> bytes:
        """The octets from `start` up to `end`."""
        end = min(end, self.size)
        if end <= start:
            return b''
        first = start - self._offset
        if first >= 0 and end - self._offset <= len(self._window):
            return self._window[first : end - self._offset]
        if self._body is None or len(self._window) == self.size:
            return self._window[start:end]
        if end - start >= WINDOW:
            return self._body.read(start, end - start)
        self._window = self._body.read(start, WINDOW)
        self._offset = start
        return self._window[: end - start]

    def windows(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """(offset, octets) pieces that cover the range.

        A piece ends with a line end and the next begins with that very line
        feed, so that a pattern which begins with LF and stays in one line of
        less than a window is always found whole.  The pattern must not need
        the octet behind the line feed that ends its line.
        """
        end = min(end, self.size)
        while start < end:
            piece = self.read(start, min(start + WINDOW, end))
            if not piece:
                return  # the file is shorter than it was
            if start + len(piece) >= end:
                yield start, piece
                return
            cut = piece.rfind(b'\n')
            if cut > 0:
                yield start, piece[: cut + 1]
                start += cut
            else:
                yield start, piece
                start += len(piece)

    def lines(self, start: int, end: int) -> int:
        """Line feeds within the range."""
        end = min(end, self.size)
        count = 0
        while start < end:
            piece = self.read(start, min(start + WINDOW, end))
            if not piece:
                break
            count += piece.count(b'\n')
            start += len(piece)
        return count

    def header_end(self, start: int, end: int) -> int:
        """Where the body begins: behind the empty line, or `end` if there is none."""
        first = self.read(start, min(start + 2, end))
        if first[:1] == b'\n':
            return start + 1
        if first == b'\r\n':
            return start + 2
        at = start
        length = _FIRST
        while at < end:
            piece = self.read(at, min(at + length, end))
            found = _EMPTY_LINE.search(piece)
            if found is not None:
                return at + found.end()
            if at + len(piece) >= end or not piece:
                break
            at += max(1, len(piece) - 2)  # the empty line may lie across the edge
            length = WINDOW
        return end

    def header(self, start: int, end: int) -> bytes:
        """A header block for looking at, cut at `HEADER_LIMIT`."""
        return self.read(start, min(end, start + HEADER_LIMIT))
