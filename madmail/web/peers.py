"""How much each client address uses, in one worker.

Addresses are keys of bounded tables in memory and go nowhere else.  IPv6
counts by /64, because that is what one client is given.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address


@lru_cache(10_000)
def peer(host: str) -> str:
    """What an address counts as; '' for the relay itself."""
    try:
        address = ip_address(host.partition('%')[0])
    except ValueError:
        return ''
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> 64 << 64))
    return str(address)


class Connections:
    """Open connections by peer; bounded by the connections of the worker."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def enter(self, peer: str, limit: int) -> bool:
        """Count one more; False, and nothing is counted, when `limit` are open (0 = any)."""
        count = self._open.get(peer, 0)
        if limit and count >= limit and peer:
            return False
        self._open[peer] = count + 1
        return True

    def leave(self, peer: str) -> None:
        count = self._open.get(peer, 0) - 1
        if count > 0:
            self._open[peer] = count
        else:
            self._open.pop(peer, None)
