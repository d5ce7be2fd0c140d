"""Undoing Content-Transfer-Encoding (RFC 2045 6), tolerantly."""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, a2b_qp

_NO_BASE64 = re.compile(rb'[^A-Za-z0-9+/]+')
_IDENTITY = frozenset((b'7bit', b'8bit', b'binary'))


class Unknown(Exception):
    """The encoding is none of RFC 2045."""


def decode(octets: bytes, encoding: bytes) -> bytes:
    """The content; what is not well encoded is passed over."""
    name = encoding.lower()
    if name in _IDENTITY:
        return octets
    if name == b'base64':
        return base64(octets)
    if name == b'quoted-printable':
        return a2b_qp(octets)
    raise Unknown


def base64(octets: bytes) -> bytes:
    """Up to the first padding; other octets are skipped (RFC 2045 6.8)."""
    text = _NO_BASE64.sub(b'', octets.partition(b'=')[0])
    if len(text) % 4 == 1:
        text = text[:-1]
    try:
        return a2b_base64(text + b'=' * (-len(text) % 4))
    except Error:  # cannot be, the text is clean; but this never raises
        return b''
