"""How a connection begins.

    AEAD     request   salt | chunks: destination, data
             response  salt | chunks: data
    2022     request   salt | sealed(0, u64 time, u16 size) | sealed(destination, u16 size,
                       padding, data) | chunks
             response  salt | sealed(1, u64 time, the request's salt, u16 size) | sealed(data)
                       | chunks

Whether a salt was used before is asked only when something was opened with it, so that
nobody without the password can fill the memory of them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import NamedTuple

from madmail.realtime.shadowsocks import destination
from madmail.realtime.shadowsocks.destination import LONGEST, Destination, Malformed
from madmail.realtime.shadowsocks.methods import TAG, Method
from madmail.realtime.shadowsocks.stream import SIZE, Broken, Opener, Sealer

CLOCK = 30  # seconds that the clocks of both sides may differ
PADDING = 900  # octets at most that we send
_REQUEST = struct.Struct('>BQH')
_FROM_CLIENT, _FROM_SERVER = 0, 1


class Replayed(Broken):
    """The salt was used before."""


class Late(Broken):
    """The peer's clock says another time; or it is a recording."""


class Request(NamedTuple):
    """What a client has asked for."""

    destination: Destination
    data: bytes  # sent along
    opener: Opener  # opens what follows
    salt: bytes


class Reception:
    """The server's side, until it is known what is wanted.

    Holds at most a salt and one chunk.  After it has raised it must not be fed again.
    """

    __slots__ = ('_fresh', '_input', '_key', '_method', '_now', '_opener', '_plain', '_salt')

    def __init__(
        self, method: Method, key: bytes, fresh: Callable[[bytes], bool], now: Callable[[], float]
    ) -> None:
        """`fresh` remembers a salt and says whether it is new, `now` is Unix time."""
        self._method = method
        self._key = key
        self._fresh = fresh
        self._now = now
        self._input = bytearray()
        self._opener: Opener | None = None
        self._salt = b''
        self._plain = b''

    @property
    def held(self) -> int:
        """Octets kept."""
        return len(self._input) + len(self._plain) + (self._opener.held if self._opener else 0)

    def feed(self, data: bytes | memoryview) -> Request | None:
        """None while it is incomplete.  Raises Broken, Replayed, Late."""
        try:
            return self._modern(data) if self._method.modern else self._plain_aead(data)
        except Malformed:
            raise Broken from None

    def _begin(self, first: int) -> bytes | None:
        """The first thing that was sealed, of `first` octets, once it is there."""
        size = self._method.size
        if len(self._input) < size + first:
            return None
        self._salt = bytes(self._input[:size])
        opener = Opener(self._method, self._key, self._salt)
        opened = opener.unbox(bytes(self._input[size : size + first]))
        self._opener = opener
        return opened

    # -- AEAD

    def _plain_aead(self, data: bytes | memoryview) -> Request | None:
        if self._opener is None:
            self._input += data
            if self._begin(SIZE) is None:
                return None
            if not self._fresh(self._salt):
                raise Replayed
            # The chain is opened from its beginning by the opener that goes on with it.
            self._opener = Opener(self._method, self._key, self._salt)
            data = bytes(self._input[self._method.size :])
            self._input.clear()
        assert self._opener is not None
        self._plain += self._opener.feed(data)
        found = destination.parse(self._plain[:LONGEST])
        if found is None:
            return None
        wanted, end = found
        return Request(wanted, self._plain[end:], self._opener, self._salt)

    # -- 2022

    def _modern(self, data: bytes | memoryview) -> Request | None:
        self._input += data
        front = self._method.size + _REQUEST.size + TAG
        if self._opener is None:
            header = self._begin(_REQUEST.size + TAG)
            if header is None:
                return None
            kind, sent, size = _REQUEST.unpack(header)
            if kind != _FROM_CLIENT:
                raise Broken
            if abs(self._now() - sent) > CLOCK:
                raise Late
            if not self._fresh(self._salt):
                raise Replayed
            self._plain = header
        assert self._opener is not None
        (_, _, size) = _REQUEST.unpack(self._plain)
        end = front + size + TAG
        if len(self._input) < end:
            return None
        with memoryview(self._input) as view:
            wanted, first = _opening(self._opener.unbox(view[front:end]))
            first += self._opener.feed(view[end:])
        return Request(wanted, first, self._opener, self._salt)


def _opening(opened: bytes) -> tuple[Destination, bytes]:
    """Destination and data of a 2022 request's second box."""
    found = destination.parse(opened)
    if found is None or len(opened) < found[1] + 2:
        raise Broken
    wanted, at = found
    padding = int.from_bytes(opened[at : at + 2])
    first = opened[at + 2 + padding :]
    if len(opened) < at + 2 + padding or not (padding or first):
        raise Broken
    return wanted, first


class Response:
    """The server's side of the answers; the first one begins with our salt."""

    __slots__ = ('_front', '_method', '_request_salt', '_sealer', 'salt')

    def __init__(self, method: Method, key: bytes, request_salt: bytes) -> None:
        self.salt = os.urandom(method.size)
        self._method = method
        self._request_salt = request_salt
        self._sealer = Sealer(method, key, self.salt)
        self._front = True

    def seal(self, data: bytes | memoryview, now: float) -> bytes:
        """What is to be sent for `data`, which is not empty: in one piece the first time,
        because some clients read no more than once for salt and header.
        """
        if not self._front:
            return self._sealer.chunks(data)
        self._front = False
        if not self._method.modern:
            return self.salt + self._sealer.chunks(data)
        box, largest = self._sealer.box, self._method.largest
        first = data[:largest]
        header = (
            bytes((_FROM_SERVER,))
            + int(now).to_bytes(8)
            + self._request_salt
            + len(first).to_bytes(2)
        )
        return self.salt + box(header) + box(first) + self._sealer.chunks(data[largest:])


class Call:
    """The client's side of one connection."""

    __slots__ = ('_answer', '_input', '_key', '_method', '_opener', '_sealer', 'salt')

    def __init__(self, method: Method, password: str) -> None:
        """Raises ValueError when the password is none of this method."""
        self._method = method
        self._key = method.key(password)
        self.salt = os.urandom(method.size)
        self._sealer = Sealer(method, self._key, self.salt)
        self._opener: Opener | None = None
        self._input = bytearray()
        self._answer = 0  # octets of the first payload of a 2022 response

    def request(self, wanted: Destination, data: bytes, now: float) -> bytes:
        """The first octets to send."""
        address = destination.pack(wanted)
        if not self._method.modern:
            return self.salt + self._sealer.chunks(address + data)
        room = self._method.largest - len(address) - 2 - PADDING
        padding = b'' if data else bytes(1 + os.urandom(1)[0])
        first = address + len(padding).to_bytes(2) + padding + data[:room]
        header = _REQUEST.pack(_FROM_CLIENT, int(now), len(first))
        box = self._sealer.box
        return self.salt + box(header) + box(first) + self._sealer.chunks(data[room:])

    def seal(self, data: bytes) -> bytes:
        return self._sealer.chunks(data)

    def feed(self, data: bytes, now: float) -> bytes:
        """What the server says.  Raises Broken."""
        if self._opener is not None and not self._answer:
            return self._opener.feed(data)
        self._input += data
        size = self._method.size
        header = 1 + 8 + size + 2 + TAG if self._method.modern else 0
        if self._opener is None:
            if len(self._input) < size + header:
                return b''
            self._opener = Opener(self._method, self._key, bytes(self._input[:size]))
            sealed = bytes(self._input[size : size + header])
            del self._input[: size + header]
            if not self._method.modern:
                return self._opener.feed(self._rest())
            opened = self._opener.unbox(sealed)
            sent = int.from_bytes(opened[1:9])
            if opened[0] != _FROM_SERVER or opened[9:-2] != self.salt or abs(now - sent) > CLOCK:
                raise Broken
            self._answer = int.from_bytes(opened[-2:])
        if len(self._input) < self._answer + TAG:
            return b''
        first = self._opener.unbox(bytes(self._input[: self._answer + TAG]))
        del self._input[: self._answer + TAG]
        self._answer = 0
        return first + self._opener.feed(self._rest())

    def _rest(self) -> bytes:
        rest = bytes(self._input)
        self._input.clear()
        return rest
