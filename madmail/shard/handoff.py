"""Parked sessions that move to the shard's next process at a reload.

The old process stops accepting, lets running commands end, and sends each
session that stands at a command boundary to its successor: the descriptor of
its Unix socket and a small map of what the session knows (its `freeze`).  The
gate at the other end of the socket notices nothing, nor does the client.  The
successor opens the store only when the old process has closed it and hung up.

    run/shard-N.handoff    the successor listens, the old process connects
    frame {"session": {…}} with one descriptor, repeated; then end of stream
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from madmail.shard.address import bind, connect

_LENGTH = struct.Struct('>I')
STATE_LIMIT = 8 * 1024 * 1024  # octets of one frozen session
TIME = 60.0  # seconds the successor waits for the old process


def name(index: int) -> str:
    """The name of the socket under `run/`."""
    return f'shard-{index}.handoff'


class Inheritance:
    """The successor's end; blocks the process, which serves nobody yet."""

    def __init__(self, state_dir: Path, index: int) -> None:
        self._listener = bind(state_dir, name(index))
        self._listener.setblocking(True)
        self._listener.settimeout(TIME)

    def receive(self) -> Iterator[tuple[dict[str, Any], socket.socket]]:
        """Every session that the old process passes on, until it hangs up.

        Ends without any when nobody connects in time (the old process died).
        """
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            return
        finally:
            self._listener.close()
        with connection:
            connection.settimeout(TIME)
            while (item := _receive_one(connection)) is not None:
                yield item


def _receive_one(connection: socket.socket) -> tuple[dict[str, Any], socket.socket] | None:
    head, descriptors, _, _ = socket.recv_fds(connection, _LENGTH.size, 1)
    stream = socket.socket(fileno=descriptors[0]) if descriptors else None
    while head and len(head) < _LENGTH.size:
        more = connection.recv(_LENGTH.size - len(head))
        if not more:
            head = b''
        head += more
    if not head or stream is None:
        if stream is not None:
            stream.close()
        return None
    (size,) = _LENGTH.unpack(head)
    data = bytearray()
    while len(data) < size:
        more = connection.recv(min(size - len(data), 1 << 20))
        if not more:
            stream.close()
            return None
        data += more
    state: dict[str, Any] = msgpack.unpackb(bytes(data), raw=False, strict_map_key=False)
    return state, stream


class Bequest:
    """The old process's end."""

    def __init__(self, state_dir: Path, index: int) -> None:
        self._connection = connect(state_dir, name(index))
        self._connection.setblocking(True)
        self._connection.settimeout(TIME)

    def send(self, state: dict[str, Any], stream: socket.socket) -> None:
        """Pass one session on and close our copy of its socket."""
        data = msgpack.packb(state, use_bin_type=True)
        socket.send_fds(self._connection, [_LENGTH.pack(len(data))], [stream.fileno()])
        self._connection.sendall(data)
        stream.close()

    def close(self) -> None:
        """Hang up: the store is closed, the successor may open it."""
        self._connection.close()
