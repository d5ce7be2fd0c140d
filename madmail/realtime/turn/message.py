"""STUN messages as octets (RFC 8489 5, 14; attributes of RFC 8656 18 and RFC 6062 6.2).

Nothing here does I/O or keeps state.  What is not a well-formed message raises
`Malformed`; who reads from the network drops it.
"""

from __future__ import annotations

import hmac
import struct
import zlib
from collections.abc import Iterable
from hashlib import md5
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

COOKIE = 0x2112A442
HEADER = 20  # octets
_HEADER = struct.Struct('>HHI12s')
_ATTRIBUTE = struct.Struct('>HH')
_COOKIE = COOKIE.to_bytes(4, 'big')

REQUEST, INDICATION, SUCCESS, ERROR = 0x000, 0x010, 0x100, 0x110
_CLASS = 0x110

BINDING = 0x001
ALLOCATE = 0x003
REFRESH = 0x004
SEND = 0x006
DATA_METHOD = 0x007
CREATE_PERMISSION = 0x008
CHANNEL_BIND = 0x009
CONNECT = 0x00A
CONNECTION_BIND = 0x00B
CONNECTION_ATTEMPT = 0x00C

USERNAME = 0x0006
MESSAGE_INTEGRITY = 0x0008
ERROR_CODE = 0x0009
UNKNOWN_ATTRIBUTES = 0x000A
CHANNEL_NUMBER = 0x000C
LIFETIME = 0x000D
XOR_PEER_ADDRESS = 0x0012
DATA = 0x0013
REALM = 0x0014
NONCE = 0x0015
XOR_RELAYED_ADDRESS = 0x0016
REQUESTED_ADDRESS_FAMILY = 0x0017
EVEN_PORT = 0x0018
REQUESTED_TRANSPORT = 0x0019
DONT_FRAGMENT = 0x001A
XOR_MAPPED_ADDRESS = 0x0020
RESERVATION_TOKEN = 0x0022
PRIORITY = 0x0024
USE_CANDIDATE = 0x0025
CONNECTION_ID = 0x002A
ADDITIONAL_ADDRESS_FAMILY = 0x8000
FINGERPRINT = 0x8028

# Comprehension-required attributes that a request may carry; the two of ICE are strays.
KNOWN = frozenset(
    (
        USERNAME,
        MESSAGE_INTEGRITY,
        CHANNEL_NUMBER,
        LIFETIME,
        XOR_PEER_ADDRESS,
        DATA,
        REALM,
        NONCE,
        REQUESTED_ADDRESS_FAMILY,
        EVEN_PORT,
        REQUESTED_TRANSPORT,
        DONT_FRAGMENT,
        RESERVATION_TOKEN,
        PRIORITY,
        USE_CANDIDATE,
        CONNECTION_ID,
    )
)
IPV4, IPV6 = 1, 2  # as the address families are numbered here
UDP, TCP = 17, 6
_FINGERPRINT_XOR = 0x5354554E
_INTEGRITY_SIZE = 20
ATTRIBUTES_LIMIT = 128  # a message


class Malformed(Exception):
    """Not a STUN message."""


class Address(NamedTuple):
    """A transport address; `host` as inet_ntop writes it."""

    host: str
    port: int

    @property
    def family(self) -> int:
        return IPV6 if ':' in self.host else IPV4


class Message:
    """A message that was received.

    `attributes` are in order, without what stands behind MESSAGE-INTEGRITY.
    """

    __slots__ = ('_data', '_integrity', 'attributes', 'kind', 'method', 'transaction')

    def __init__(
        self,
        data: bytes,
        kind: int,
        method: int,
        transaction: bytes,
        attributes: list[tuple[int, bytes]],
        integrity: int,
    ) -> None:
        self._data = data
        self._integrity = integrity  # where MESSAGE-INTEGRITY begins, 0 = nowhere
        self.kind = kind
        self.method = method
        self.transaction = transaction
        self.attributes = attributes

    def get(self, number: int) -> bytes | None:
        """The value of the first such attribute."""
        for found, value in self.attributes:
            if found == number:
                return value
        return None

    def all(self, number: int) -> list[bytes]:
        return [value for found, value in self.attributes if found == number]

    def unknown(self) -> list[int]:
        """The attributes that must be understood and are not."""
        return [n for n, _ in self.attributes if n < 0x8000 and n not in KNOWN]

    @property
    def signed(self) -> bool:
        return self._integrity > 0

    def verifies(self, key: bytes) -> bool:
        """Whether MESSAGE-INTEGRITY was made with this key (RFC 8489 14.5)."""
        end = self._integrity
        if not end:
            return False
        covered = bytearray(self._data[:end])
        covered[2:4] = (end - HEADER + 4 + _INTEGRITY_SIZE).to_bytes(2, 'big')
        digest = hmac.digest(key, covered, 'sha1')
        return hmac.compare_digest(digest, self._data[end + 4 : end + 4 + _INTEGRITY_SIZE])


def parse(data: bytes) -> Message:
    """Read one whole message.  Raises Malformed."""
    size = len(data)
    if size < HEADER:
        raise Malformed('too short')
    first, length, cookie, transaction = _HEADER.unpack_from(data)
    if first & 0xC000 or cookie != COOKIE or length != size - HEADER or length & 3:
        raise Malformed('header')
    attributes: list[tuple[int, bytes]] = []
    integrity = 0
    at = HEADER
    while at < size:
        number, length = _ATTRIBUTE.unpack_from(data, at)
        start = at + 4
        end = start + length
        if end > size:
            raise Malformed('attribute')
        if number == FINGERPRINT:
            # RFC 8489 14.7
            if (
                length != 4
                or end != size
                or int.from_bytes(data[start:end], 'big') != _crc(data[:at])
            ):
                raise Malformed('fingerprint')
        elif not integrity:
            if number == MESSAGE_INTEGRITY:
                if length != _INTEGRITY_SIZE:
                    raise Malformed('integrity')
                integrity = at
            if len(attributes) >= ATTRIBUTES_LIMIT:
                raise Malformed('attributes')
            attributes.append((number, data[start:end]))
        at = end + (-length & 3)
    if at != size:
        raise Malformed('padding')
    method = first & 0x000F | (first & 0x00E0) >> 1 | (first & 0x3E00) >> 2
    return Message(data, first & _CLASS, method, transaction, attributes, integrity)


def build(
    kind: int,
    method: int,
    transaction: bytes,
    attributes: Iterable[tuple[int, bytes]] = (),
    key: bytes | None = None,
    *,
    fingerprint: bool = True,
) -> bytes:
    """A message, signed with `key` if there is one."""
    body = bytearray()
    for number, value in attributes:
        body += _ATTRIBUTE.pack(number, len(value))
        body += value
        body += bytes(-len(value) & 3)
    first = method & 0x000F | (method & 0x0070) << 1 | (method & 0x0F80) << 2 | kind
    if key is not None:
        covered = _HEADER.pack(first, len(body) + 24, COOKIE, transaction) + body
        body += _ATTRIBUTE.pack(MESSAGE_INTEGRITY, _INTEGRITY_SIZE)
        body += hmac.digest(key, covered, 'sha1')
    if fingerprint:
        covered = _HEADER.pack(first, len(body) + 8, COOKIE, transaction) + body
        body += _ATTRIBUTE.pack(FINGERPRINT, 4)
        body += _crc(covered).to_bytes(4, 'big')
    return _HEADER.pack(first, len(body), COOKIE, transaction) + body


def _crc(data: bytes | bytearray) -> int:
    return zlib.crc32(data) ^ _FINGERPRINT_XOR


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """RFC 8489 9.2.2, for ASCII, of which SASLprep is the identity."""
    text = f'{username}:{realm}:{password}'.encode()
    return md5(text, usedforsecurity=False).digest()


# -- values of attributes


def xor_address(address: Address, transaction: bytes) -> bytes:
    """RFC 8489 14.2."""
    packed = ip_address(address.host).packed
    mask = _COOKIE + transaction
    covered = bytes(a ^ b for a, b in zip(packed, mask, strict=False))
    return struct.pack('>BBH', 0, address.family, address.port ^ COOKIE >> 16) + covered


def read_xor_address(value: bytes, transaction: bytes) -> Address:
    """Raises Malformed."""
    size = len(value) - 4
    if size not in (4, 16) or value[1] != (IPV4 if size == 4 else IPV6):
        raise Malformed('address')
    port = int.from_bytes(value[2:4], 'big') ^ COOKIE >> 16
    mask = _COOKIE + transaction
    packed = bytes(a ^ b for a, b in zip(value[4:], mask, strict=False))
    return Address(str(IPv4Address(packed)) if size == 4 else _six(packed), port)


def _six(packed: bytes) -> str:
    address = IPv6Address(packed)
    if address.ipv4_mapped is not None:
        # Another spelling of an IPv4 address, to get around rules for those.
        raise Malformed('mapped address')
    return str(address)


def error_code(code: int, reason: str) -> tuple[int, bytes]:
    """RFC 8489 14.8."""
    return ERROR_CODE, bytes((0, 0, code // 100, code % 100)) + reason.encode()


def read_error_code(value: bytes) -> int:
    """Raises Malformed."""
    if len(value) < 4:
        raise Malformed('error code')
    return (value[2] & 7) * 100 + value[3]


def family(number: int) -> bytes:
    return bytes((number, 0, 0, 0))


def lifetime(seconds: int) -> tuple[int, bytes]:
    return LIFETIME, seconds.to_bytes(4, 'big')
