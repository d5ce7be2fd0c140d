"""Frames on internal Unix sockets: four octets of length, big-endian, then one msgpack map.

Shard calls, hand-overs, the control channels of the children and the CLI's
control socket all speak this.  Text and octets stay apart (msgpack str and
bin), so a password or a message body travels as `bytes`.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgpack

LIMIT = 64 * 1024 * 1024  # octets of one frame's map

_LENGTH = struct.Struct('>I')


class FrameError(Exception):
    """The peer does not speak this protocol; the stream cannot be continued."""


def pack(obj: dict[str, Any]) -> bytes:
    """One frame.  Raises FrameError when the map is larger than LIMIT."""
    data: bytes = msgpack.packb(obj, use_bin_type=True)
    if len(data) > LIMIT:
        raise FrameError(f'frame of {len(data)} octets, the limit is {LIMIT}')
    return _LENGTH.pack(len(data)) + data


class Unframer:
    """Cuts a byte stream into frames, however it was chunked.

    `rest()` gives the octets behind the last complete frame, for connections
    that turn into something else after their first frame.
    """

    __slots__ = ('_buffer',)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[dict[str, Any]]:
        """All frames completed by `data`.  Raises FrameError; the stream is dead then."""
        buffer = self._buffer
        buffer += data
        frames: list[dict[str, Any]] = []
        start, end = 0, len(buffer)
        view = memoryview(buffer)
        try:
            while end - start >= 4:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > LIMIT:
                    raise FrameError(f'frame of {length} octets, the limit is {LIMIT}')
                stop = start + 4 + length
                if stop > end:
                    break
                with view[start + 4 : stop] as body:
                    frames.append(_unpack(body))
                start = stop
        finally:
            view.release()
        if start:
            del buffer[:start]
        return frames

    def next(self, data: bytes | bytearray | memoryview = b'') -> dict[str, Any] | None:
        """At most one frame; what follows it stays buffered.  Raises FrameError."""
        buffer = self._buffer
        buffer += data
        if len(buffer) < 4:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        if length > LIMIT:
            raise FrameError(f'frame of {length} octets, the limit is {LIMIT}')
        if len(buffer) < 4 + length:
            return None
        with memoryview(buffer) as view, view[4 : 4 + length] as body:
            frame = _unpack(body)
        del buffer[: 4 + length]
        return frame

    def rest(self) -> bytes:
        """Octets not yet consumed; they are forgotten here."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data


def _unpack(body: memoryview) -> dict[str, Any]:
    try:
        frame = msgpack.unpackb(body, raw=False, strict_map_key=False)
    except Exception as error:  # msgpack raises several unrelated classes for bad input
        raise FrameError(f'not msgpack: {type(error).__name__}') from None
    if not isinstance(frame, dict):
        raise FrameError('a frame is a map')
    return frame


def send(connection: socket.socket, obj: dict[str, Any]) -> None:
    """Write one frame to a blocking socket."""
    connection.sendall(pack(obj))


def receive(connection: socket.socket, unframer: Unframer | None = None) -> dict[str, Any] | None:
    """The next frame from a blocking socket; None when the peer closed before one was complete.

    Pass the same `unframer` again when the peer may send several frames.
    """
    unframer = unframer or Unframer()
    frame = unframer.next()
    while frame is None:
        data = connection.recv(65536)
        if not data:
            return None
        frame = unframer.next(data)
    return frame
