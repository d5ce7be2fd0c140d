"""Large answers in pieces: a slow peer gets all of it, one that stands still nothing more."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

PIECE = 64 * 1024  # octets; each has the time-out of the socket for itself
LOWEST_RATE = 8 * 1024  # octets a second over a whole answer, after FIRST_TIME
FIRST_TIME = 60.0  # seconds

Application = Callable[..., Iterable[bytes]]


def cut(data: bytes, monotonic: Callable[[], float] = time.monotonic) -> Iterator[memoryview]:
    """The pieces, one after the other.  Raises TimeoutError when the last ones took too long."""
    began = monotonic()
    for at in range(0, len(data), PIECE):
        if monotonic() - began > FIRST_TIME + at / LOWEST_RATE:
            raise TimeoutError
        yield memoryview(data)[at : at + PIECE]


def send_all(stream: Any, data: bytes) -> None:
    """Raises OSError; nobody knows then how much was sent."""
    for piece in cut(data):
        stream.sendall(piece)


def in_pieces(application: Application) -> Application:
    """A WSGI application whose large answers are sent piece by piece."""

    def call(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = application(environ, start_response)
        if isinstance(body, list) and any(len(data) > PIECE for data in body):
            return (bytes(piece) for data in body for piece in cut(data))
        return body

    return call


def stop_reading(stream: Any) -> None:
    """What the peer has sent already is still read, then comes the end of the stream.

    Through a second descriptor: shutdown() of a TLS socket would go on in the clear.
    """
    try:
        with socket.socket(fileno=os.dup(stream.fileno())) as double:
            double.shutdown(socket.SHUT_RD)
    except OSError:
        pass  # it is gone already
