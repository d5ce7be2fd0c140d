"""Autocrypt header fields (Autocrypt 1.1, rule J4): kept only when they are one.

An Autocrypt field is kilobytes of base64 in clear, so it is checked to be an
OpenPGP public key of the sender and dropped otherwise.
"""

from __future__ import annotations

import binascii
import re

from . import addresses

LIMIT = 16 * 1024  # octets of the value
_ATTRIBUTE = re.compile(rb'[ \t]*([a-z-]{1,20}+)=([^;]*+)(?:;|$)')
_PREFERENCES = (b'mutual', b'nopreference')
_KEY, _SIGNATURE, _USER_ID, _SUBKEY = 6, 2, 13, 14
_USER_ID_LIMIT = 320  # octets; an address and brackets


def valid(value: bytes, sender: str) -> bool:
    """Whether the value is a key of `sender`, and nothing beside it."""
    if len(value) > LIMIT:
        return False
    value = value.replace(b'\r\n', b'').strip(b' \t')
    attributes: dict[bytes, bytes] = {}
    at = 0
    while at < len(value):
        found = _ATTRIBUTE.match(value, at)
        if found is None or found[1] in attributes:
            return False
        attributes[found[1]] = found[2]
        at = found.end()
    if attributes.keys() - {b'addr', b'prefer-encrypt', b'keydata'}:
        return False
    if attributes.get(b'prefer-encrypt', b'mutual').strip() not in _PREFERENCES:
        return False
    address = attributes.get(b'addr', b'').strip(b' \t')
    if not address.isascii():
        return False
    if addresses.comparable(address.decode('ascii')) != addresses.comparable(sender):
        return False
    try:
        data = attributes[b'keydata'].translate(None, b' \t')
        return public_key(binascii.a2b_base64(data, strict_mode=True))
    except (KeyError, binascii.Error):
        return False


def public_key(data: bytes) -> bool:
    """Whether `data` is a transferable public key: packets 6, then 2, 13 and 14 (RFC 9580 10.1)."""
    at, first = 0, True
    end = len(data)
    while at < end:
        octet = data[at]
        if octet & 0xC0 == 0xC0:
            tag = octet & 0x3F
            size = data[at + 1] if at + 1 < end else 255
            if size < 192:
                at += 2
            elif size < 224 and at + 2 < end:
                size = (size - 192 << 8) + data[at + 2] + 192
                at += 3
            elif size == 255 and at + 6 <= end:
                size = int.from_bytes(data[at + 2 : at + 6], 'big')
                at += 6
            else:
                return False
        else:
            kind = octet & 3
            if not octet & 0x80 or kind == 3:
                return False
            tag = octet >> 2 & 15
            start = at + 1 + (1 << kind)
            size = int.from_bytes(data[at + 1 : start], 'big')
            at = start
        if (tag == _KEY) is not first or tag not in (_KEY, _SIGNATURE, _USER_ID, _SUBKEY):
            return False
        body = data[at : at + size]
        if len(body) != size or size < 4:
            return False
        if tag == _USER_ID:
            if size > _USER_ID_LIMIT:
                return False
        elif body[0] not in (3, 4, 6) or body.isascii():
            return False
        at += size
        first = False
    return not first
