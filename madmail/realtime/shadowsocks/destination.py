"""Where a client wants to go, as SOCKS5 writes it (RFC 1928 5): kind, address, port."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import NamedTuple

IPV4, NAME, IPV6 = 1, 3, 4
LONGEST = 1 + 1 + 255 + 2  # octets


class Malformed(Exception):
    """No peer that knows the password and the protocol says this."""


class Destination(NamedTuple):
    host: str  # a name in lower case as it was given, or an IP address
    port: int


def parse(data: bytes) -> tuple[Destination, int] | None:
    """The destination at the front and its size; None while it is not complete.

    Raises Malformed.
    """
    if not data:
        return None
    kind = data[0]
    if kind == NAME:
        if len(data) < 2:
            return None
        begin, size = 2, data[1]
        if not size:
            raise Malformed
    elif kind in (IPV4, IPV6):
        begin, size = 1, 4 if kind == IPV4 else 16
    else:
        raise Malformed
    end = begin + size + 2
    if len(data) < end:
        return None
    octets = data[begin : begin + size]
    if kind == IPV4:
        host = socket.inet_ntop(socket.AF_INET, octets)
    elif kind == IPV6:
        host = str(ipaddress.IPv6Address(octets))  # inet_ntop may write it in another way
    else:
        try:
            host = octets.decode('ascii').lower()
        except UnicodeDecodeError:
            raise Malformed from None
    return Destination(host, int.from_bytes(data[end - 2 : end])), end


def pack(destination: Destination) -> bytes:
    """The other way round.  Raises ValueError."""
    host, port = destination
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode('ascii')
        if not 0 < len(name) < 256:
            raise ValueError('a name has 1 to 255 octets') from None
        return bytes((NAME, len(name))) + name + struct.pack('>H', port)
    kind = IPV4 if address.version == 4 else IPV6
    return bytes((kind,)) + address.packed + struct.pack('>H', port)
