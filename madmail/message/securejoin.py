"""The one plaintext that passes: the legacy Secure-Join request (rules J1 to J5).

Nobody has the other's key yet at this step.  The message is a fixed form with a
token in it, so it has no room for anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from . import header, mime
from .header import Field
from .openpgp import Fault

BODY_LIMIT = 4 * 1024  # octets held; delimiters, part header and text
TEXT_LIMIT = 128  # octets
# One contact has at most five relay addresses; the sender's own is not counted.
RECIPIENT_LIMIT = 5

_REQUESTS = (b'vc-request', b'vg-request')
_TOKEN = re.compile(rb'[A-Za-z0-9_-]{1,64}')
_MESSAGE_ID = re.compile(rb'<[!-;=?-~]{1,250}>')


def request(fields: Iterable[Field]) -> bytes:
    """The request named in the header, or b'' when this is none (J1)."""
    kind = token = b''
    for name, value, _ in fields:
        if name == b'secure-join':
            kind = header.unfold(value)
        elif name == b'secure-join-invitenumber':
            token = header.unfold(value)
    return kind if kind in _REQUESTS and _TOKEN.fullmatch(token) else b''


def valid_token(value: bytes) -> bool:
    return _TOKEN.fullmatch(header.unfold(value)) is not None


class SecurejoinBody:
    """The body of a request, held whole."""

    __slots__ = ('_body', '_boundary', '_kind', 'cause', 'fault')

    def __init__(self, boundary: bytes, kind: bytes) -> None:
        self.fault: Fault | None = None
        self.cause = 'securejoin'
        self._body = b''
        self._boundary = boundary
        self._kind = kind

    def feed(self, data: bytes) -> bytes:
        if self.fault is None and len(self._body) + len(data) > BODY_LIMIT:
            self.fault = Fault.FORM
        if self.fault is not None:
            return b''
        self._body += data
        return data

    def finish(self) -> None:
        if self.fault is not None:
            return
        if not header.clean(self._body):
            self.fault = Fault.OCTETS
        elif not valid_body(self._body, self._boundary, self._kind):
            self.fault = Fault.FORM


def valid_body(body: bytes, boundary: bytes, kind: bytes) -> bool:
    """Whether the body is the request and nothing else (J2, J3)."""
    pieces = mime.split(body, boundary)
    if pieces is None or len(pieces) != 3:
        return False
    preamble, part, epilogue = pieces
    if preamble.strip(mime.BLANKS) or epilogue.strip(mime.BLANKS):
        return False
    end = part.find(b'\r\n\r\n')
    if end < 0:
        return False
    fields = header.parse(part[: end + 4])
    text = part[end + 4 :]
    if fields is None or len(text) > TEXT_LIMIT:
        return False
    names = [field.name for field in fields]
    if b'content-type' not in names or len(set(names)) != len(names):
        return False
    for name, value, _ in fields:
        if name == b'content-type':
            if not _plain_text(value):
                return False
        elif name == b'content-transfer-encoding':
            if header.unfold(value).lower() != b'7bit':
                return False
        elif name != b'message-id' or not _MESSAGE_ID.fullmatch(header.unfold(value)):
            return False
    return text.strip(mime.BLANKS).lower() == b'secure-join: ' + kind


def _plain_text(value: bytes) -> bool:
    found = mime.content_type(value)
    if found is None or found.kind != b'text/plain':
        return False
    allowed = {
        b'charset': (b'utf-8', b'us-ascii'),
        b'format': (b'flowed',),
        b'delsp': (b'no',),
    }
    return all(value.lower() in allowed.get(name, ()) for name, value in found.parameters.items())
