"""Which peers may be reached, and which addresses are ours.

Whoever can use the relay could otherwise talk to what only this host, or its network,
can reach.  Denied are all addresses that are not of the public internet, and those of
this host; with one exception: relayed addresses of our own, because two phones may both
talk through us.  What is spelt as an IPv6 address and means an IPv4 one is judged as that.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from pathlib import Path

Network = IPv4Network | IPv6Network
CACHE_LIMIT = 10_000  # verdicts kept

DENIED = tuple(
    ip_network(text)
    for text in (
        '0.0.0.0/8',
        '10.0.0.0/8',
        '100.64.0.0/10',
        '127.0.0.0/8',
        '169.254.0.0/16',
        '172.16.0.0/12',
        '192.0.0.0/24',
        '192.0.2.0/24',
        '192.88.99.0/24',
        '192.168.0.0/16',
        '198.18.0.0/15',
        '198.51.100.0/24',
        '203.0.113.0/24',
        '224.0.0.0/4',
        '240.0.0.0/4',
        '::/127',
        '64:ff9b:1::/48',
        '100::/64',
        '2001::/23',
        '2001:db8::/32',
        'fc00::/7',
        'fe80::/10',
        'fec0::/10',
        'ff00::/8',
    )
)
_NAT64 = IPv6Network('64:ff9b::/96')
_SIX_TO_FOUR = IPv6Network('2002::/16')
_COMPATIBLE = IPv6Network('::/96')


class Policy:
    """The rule about peers.

    `relays` are the relayed addresses we tell, `own` those of this host; `allowed` are
    networks of the operator that may be reached all the same.
    """

    def __init__(
        self,
        relays: Iterable[str],
        own: Iterable[str] = (),
        allowed: Iterable[Network] = (),
        ports: range = range(0),
    ) -> None:
        self.relays = frozenset(relays)
        self._own = frozenset(own)
        self._allowed = tuple(allowed)
        self._ports = ports
        self._verdicts: dict[str, bool] = {}

    def allows(self, host: str) -> bool:
        """Whether there may be a permission for this host.

        PERF: 0.1 us for one that was asked for before, 10 us else.
        """
        verdict = self._verdicts.get(host)
        if verdict is None:
            verdict = host in self.relays or self._judge(ip_address(host))
            if len(self._verdicts) >= CACHE_LIMIT:
                self._verdicts.clear()
            self._verdicts[host] = verdict
        return verdict

    def reaches(self, host: str, port: int) -> bool:
        """Whether something may be sent there."""
        if host in self.relays:
            return port in self._ports
        return port > 0 and self.allows(host)

    def _judge(self, ip: IPv4Address | IPv6Address) -> bool:
        if str(ip) in self._own:
            return False
        for network in self._allowed:
            if ip in network:
                return True
        if isinstance(ip, IPv6Address):
            four = _meant(ip)
            if four is not None:
                return str(four) not in self.relays and self._judge(four)
        return not any(ip in network for network in DENIED)


def _meant(ip: IPv6Address) -> IPv4Address | None:
    """The IPv4 address to which packets for it go in the end."""
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip in _NAT64 or (ip in _COMPATIBLE and int(ip) > 1):
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip in _SIX_TO_FOUR:
        return IPv4Address(int(ip) >> 80 & 0xFFFFFFFF)
    return None


def own_addresses() -> frozenset[str]:
    """All addresses of this host's interfaces, without asking another program.

    PERF: 0.2 ms with two interfaces.
    """
    found: set[str] = set()
    previous = ''
    try:
        for line in Path('/proc/net/fib_trie').read_text().splitlines():
            if '/32 host LOCAL' in line:
                found.add(previous.split()[-1])
            previous = line
    except (OSError, IndexError):
        pass
    try:
        for line in Path('/proc/net/if_inet6').read_text().splitlines():
            found.add(str(IPv6Address(bytes.fromhex(line.split()[0]))))
    except (OSError, ValueError, IndexError):
        pass
    return frozenset(found)


def routed_address(family: socket.AddressFamily) -> str:
    """Our address on the way to the internet; '' where there is no such way."""
    far = '2001:4860:4860::8888' if family == socket.AF_INET6 else '192.88.99.1'
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))  # sends nothing
            host: str = probe.getsockname()[0]
    except OSError:
        return ''
    return host


def is_public(host: str) -> bool:
    """Whether others can reach it, as far as the address tells."""
    return not any(ip_address(host) in network for network in DENIED)


def is_own(host: str) -> bool:
    """Whether a socket of this host can be bound to it."""
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
