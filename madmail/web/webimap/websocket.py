"""WebSocket framing for servers (RFC 6455), pure and bounded."""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
CONTINUATION = 0
CONTROL_LIMIT = 125  # RFC 6455 5.5
GUID = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

NORMAL, GOING_AWAY, PROTOCOL, NOT_TEXT, NO_TEXT, POLICY, TOO_BIG, TROUBLE, LATER = (
    1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1013,
)  # fmt: skip


class Broken(Exception):
    """The peer broke the protocol; `code` is what to close with (RFC 6455 7.4.1)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Event(NamedTuple):
    """A whole message, or a control frame."""

    kind: int  # TEXT, BINARY, CLOSE, PING, PONG
    data: bytes


def accept(key: str) -> str | None:
    """Sec-WebSocket-Accept for a key; None if it is none (RFC 6455 4.2.1)."""
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            return None
    except ValueError:
        return None
    digest = hashlib.sha1(key.encode() + GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def frame(kind: int, data: bytes) -> bytes:
    """One unmasked frame, as a server sends it (RFC 6455 5.2)."""
    size = len(data)
    if size < 126:
        return bytes((0x80 | kind, size)) + data
    if size < 65536:
        return bytes((0x80 | kind, 126)) + size.to_bytes(2, 'big') + data
    return bytes((0x80 | kind, 127)) + size.to_bytes(8, 'big') + data


def close(code: int) -> bytes:
    return frame(CLOSE, code.to_bytes(2, 'big'))


def closing(data: bytes) -> int:
    """What to answer a Close with this payload: its own code (RFC 6455 5.5.1).  Raises Broken."""
    if not data:
        return NORMAL
    code = int.from_bytes(data[:2], 'big')
    # RFC 6455 7.4: those that are sent, registered or private
    if len(data) < 2 or not (
        code in (*range(1000, 1004), *range(1007, 1015)) or 3000 <= code < 5000
    ):
        raise Broken(PROTOCOL)
    if not is_text(data[2:]):
        raise Broken(NO_TEXT)
    return code


def is_text(data: bytes) -> bool:
    """Whether it is UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def head_at(head: bytearray | memoryview, at: int, limit: int) -> tuple[int, bool, int, int] | None:
    """Opcode, whether it ends a message, size, and where the mask of a client's frame begins.

    None if it is not all here.  Raises Broken, also if it is no control frame and has more
    than `limit` octets.
    """
    if len(head) - at < 2:
        return None
    final, opcode = head[at] & 0x80, head[at] & 0x0F
    if head[at] & 0x70:
        raise Broken(PROTOCOL)  # no extension was agreed on
    if not head[at + 1] & 0x80:
        raise Broken(PROTOCOL)  # RFC 6455 5.1: clients mask
    size = head[at + 1] & 0x7F
    at += 2
    control = opcode >= CLOSE
    if control and (not final or size > CONTROL_LIMIT):
        raise Broken(PROTOCOL)
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        raise Broken(PROTOCOL)
    if size > 125:
        width = 2 if size == 126 else 8
        if len(head) - at < width:
            return None
        size = int.from_bytes(head[at : at + width], 'big')
        at += width
        if size < (126 if width == 2 else 65536):
            raise Broken(PROTOCOL)  # RFC 6455 5.2: the shortest form
    if not control and size > limit:
        raise Broken(TOO_BIG)
    return opcode, bool(final), size, at


def frame_at(
    head: bytearray | memoryview, at: int, limit: int
) -> tuple[int, bool, bytes, int] | None:
    """Opcode, whether it ends a message, payload and end of a client's frame that begins at `at`.

    None if it is not all here.  Raises Broken, see `head_at`.
    """
    found = head_at(head, at, limit)
    if found is None:
        return None
    opcode, final, size, at = found
    end = at + 4 + size
    if len(head) < end:
        return None
    payload = _unmask(bytes(head[at + 4 : end]), bytes(head[at : at + 4]))
    return opcode, final, payload, end


class Decoder:
    """Frames from a client.  `limit` bounds a message in octets, over all its frames.

    A large frame is unmasked as it comes in, so that no feed takes long.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._input = bytearray()
        self._message = bytearray()
        self._kind = 0  # of the message under way
        self._inside = False  # of a frame with data, of which these are left:
        self._left = 0
        self._mask = b''
        self._final = False

    @property
    def held(self) -> int:
        """Octets that wait for the rest of their message."""
        return len(self._input) + len(self._message)

    def feed(self, data: bytes) -> list[Event]:
        """What is complete.  Raises Broken."""
        self._input += data
        events = []
        while (event := self._next()) is not None:
            if event.kind:
                events.append(event)
        return events

    def _next(self) -> Event | None:
        """The next frame's event; of kind 0 if it completes nothing; None if it is not all here."""
        if self._inside:
            return self._more()
        found = head_at(self._input, 0, self._limit - len(self._message))
        if found is None:
            return None
        opcode, final, size, at = found
        if len(self._input) < at + 4:
            return None
        mask = bytes(self._input[at : at + 4])
        if opcode >= CLOSE:
            end = at + 4 + size
            if len(self._input) < end:
                return None
            payload = _unmask(bytes(self._input[at + 4 : end]), mask)
            del self._input[:end]
            return Event(opcode, payload)
        if (opcode == CONTINUATION) != bool(self._kind):
            raise Broken(PROTOCOL)  # RFC 6455 5.4: messages do not interleave
        del self._input[: at + 4]
        self._kind = self._kind or opcode
        self._inside, self._left, self._mask, self._final = True, size, mask, final
        return self._more()

    def _more(self) -> Event | None:
        part = bytes(self._input[: self._left])
        self._message += _unmask(part, self._mask)
        del self._input[: len(part)]
        self._left -= len(part)
        turn = len(part) % 4
        self._mask = self._mask[turn:] + self._mask[:turn]
        if self._left:
            return None
        self._inside = False
        if not self._final:
            return Event(0, b'')
        event = Event(self._kind, bytes(self._message))
        self._message = bytearray()
        self._kind = 0
        return event


def _unmask(data: bytes, mask: bytes) -> bytes:
    """PERF: as one large number, 1 GB/s; octet by octet in Python 10 MB/s."""
    size = len(data)
    if not size:
        return data
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, 'big') ^ int.from_bytes(key, 'big')).to_bytes(size, 'big')
