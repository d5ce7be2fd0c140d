"""The body of a request, read in bounded pieces and bounded time.

A peer gets READ_TIME (or less) for each piece and must keep up LOWEST_RATE over
the whole body, so a slow one costs its connection and no more.  What is refused
before it is read is answered at once; then the rest is thrown away for a
while, so that the peer comes to reading the answer, and the connection ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gunicorn.http.errors import ParseException

PIECE = 64 * 1024  # octets
READ_TIME = 30.0  # seconds for a piece
LOWEST_RATE = 16 * 1024  # octets a second over the whole body, after FIRST_TIME
FIRST_TIME = 60.0  # seconds
SWALLOW = 256 * 1024  # octets nobody wants that are read to keep a connection
LINGER_SIZE = 64 * 1024 * 1024  # octets read only so that the peer reads our answer
LINGER_TIME = 10.0  # seconds


class TooSlow(Exception):
    """The peer did not keep up."""


class Cut(Exception):
    """The body ended before its end, or its framing is wrong."""


class Upload:
    """The body of one request, from its WSGI environment."""

    def __init__(
        self,
        environ: dict[str, Any],
        monotonic: Callable[[], float] = time.monotonic,
        *,
        piece_time: float | None = None,
        first_time: float | None = None,
    ) -> None:
        declared = environ.get('CONTENT_LENGTH')
        self.chunked = 'HTTP_TRANSFER_ENCODING' in environ
        self.declared = int(declared) if declared else 0  # octets; gunicorn has checked it
        self.received = 0
        self._piece_time = READ_TIME if piece_time is None else piece_time
        self._first_time = FIRST_TIME if first_time is None else first_time
        self._stream = environ['wsgi.input']
        self._monotonic = monotonic
        self._began = monotonic()
        self._ended = False

    def pieces(self) -> Iterator[bytes]:
        """All of it.  Raises TooSlow, Cut."""
        while True:
            piece = self._read(self._piece_time)
            if not piece:
                break
            self.received += len(piece)
            spent = self._monotonic() - self._began
            if spent > self._first_time + self.received / LOWEST_RATE:
                self.part()
                raise TooSlow
            yield piece
        if not self.chunked and self.received < self.declared:
            self.part()
            raise Cut
        self._ended = True

    def abandon(self) -> bool:
        """Read no more of it; whether the connection must end therefore."""
        left = self.declared - self.received
        if self._ended or (not self.chunked and left <= SWALLOW):
            return False  # what is left is read before the next request
        self.part()
        return True

    def part(self) -> None:
        """This is the last request of its connection."""
        close = getattr(self._stream, 'close_connection', None)
        if close is not None:
            close()

    def linger(self) -> Iterator[bytes]:
        """Throw the rest away, as the end of an answer that is on its way already."""
        deadline = self._monotonic() + LINGER_TIME
        size = 0
        while size < LINGER_SIZE:
            left = deadline - self._monotonic()
            if left <= 0:
                return
            try:
                piece = self._read(left)
            except (TooSlow, Cut):
                return
            if not piece:
                return
            size += len(piece)
            yield b''

    def _read(self, seconds: float) -> bytes:
        try:
            with gevent.Timeout(seconds, TooSlow):
                piece: bytes = self._stream.read(PIECE)
            return piece
        except TooSlow:
            self.part()
            raise
        except (OSError, ParseException):
            self.part()
            raise Cut from None
