"""From where the proxy's clients appear to the other processes of the relay.

They connect to the relay's own listeners over the loopback interface, each from an address of
`NETWORK` that stands for its real one while the process lives: so whoever counts by address or by
network counts them apart, and nobody but the proxy learns where they are.  Clients of one network
(IPv4 /24, IPv6 /48) share one of ours (a /24).

An address in NETWORK is a stranger's: what this host itself is trusted with, it is not.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from ipaddress import IPv4Network

from madmail.account.flood import packed

NETWORK = IPv4Network('127.128.0.0/10')
_FIRST = int(NETWORK.network_address) >> 8
_NETWORKS = NETWORK.num_addresses >> 8


class Pseudonyms:
    def __init__(self, key: bytes = b'') -> None:
        self._key = key or os.urandom(16)

    def of(self, host: str) -> str:
        """The address that stands for the one that `socket.accept` gave."""
        address = packed(host)
        if len(address) == 4:
            network, last = address[:3], address[3]
        else:
            network, last = address[:6], self._number(address[:8])
        number = self._number(network)
        place = _FIRST + number % _NETWORKS << 8 | (last + (number >> 32)) % 256
        return '.'.join(map(str, place.to_bytes(4)))

    def _number(self, octets: bytes) -> int:
        return int.from_bytes(blake2b(octets, key=self._key, digest_size=8).digest())
