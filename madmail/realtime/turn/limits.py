"""What a stranger, an account and all of them together may use.

Bytes are counted in grants: an allocation takes some at a time out of its own bucket,
its account's and that of all, and pays its packets from them.  So a packet costs one
subtraction, and what is over a limit is dropped, as RFC 8656 5 has it.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import NamedTuple

GRANT = 16384  # octets taken at a time
BOTTOMLESS = 1 << 40
BURST = 0.7  # seconds of its rate that a bucket holds
LEAST_BURST = 131072  # octets, or whole pictures of a video would not pass


class Limits(NamedTuple):
    """0 is no limit."""

    per_account: int = 16  # allocations
    per_address: int = 64  # allocations of an IP address, or an IPv6 network of 64 bits
    per_minute: int = 120  # new ones, of the same
    total: int = 10_000  # allocations
    rate: int = 750_000  # octets a second, of an allocation, in each direction
    account_rate: int = 0  # octets a second, of an account, both directions
    total_rate: int = 0  # octets a second, of all, both directions
    permissions: int = 64  # of an allocation
    channels: int = 64  # of an allocation


class Bucket:
    """A token bucket of octets; a rate of 0 is bottomless."""

    __slots__ = ('at', 'depth', 'level', 'rate')

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self.depth = max(rate * BURST, LEAST_BURST)
        self.level: float = self.depth
        self.at = now

    def change(self, rate: int, now: float) -> None:
        """Another rate from now on."""
        if rate == self.rate:
            return
        level = self.look(now) if self.rate else BOTTOMLESS
        self.rate = rate
        self.depth = max(rate * BURST, LEAST_BURST)
        self.level = min(level, self.depth)
        self.at = now

    def look(self, now: float) -> float:
        """Octets there are."""
        if not self.rate:
            return BOTTOMLESS
        self.level = min(self.depth, self.level + (now - self.at) * self.rate)
        self.at = now
        return self.level


class Account:
    """What a user has: allocations, a bucket, and what was carried."""

    __slots__ = ('allocations', 'bucket', 'name')

    def __init__(self, name: str, rate: int, now: float) -> None:
        self.name = name
        self.allocations = 0
        self.bucket = Bucket(rate, now)


def take(now: float, wanted: int, buckets: tuple[Bucket, ...]) -> int:
    """A grant of at most `wanted` octets out of all of these; 0 when one is empty."""
    for bucket in buckets:
        wanted = min(wanted, int(bucket.look(now)))
    if wanted <= 0:
        return 0
    for bucket in buckets:
        bucket.level -= wanted
    return wanted


def network(ip: str) -> str:
    """Whose address it is: of IPv6 the network of 64 bits."""
    return ip if ':' not in ip else str(IPv6Address(ip.partition('%')[0]).exploded[:19])
