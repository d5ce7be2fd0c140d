"""Registrations of the last minute, counted together by all shards without a lock.

The shard that is about to create an account asks here, and counts, at that one
moment; who logs in to an account that exists is never counted nor refused.
Counted is by address (IPv6: the /64 that one client is given), by network
(IPv4 /24, IPv6 /48, for those who have many addresses), and in all.  Accounts
made at a first login and accounts made on the web page count alike.

The counts live in a shared memory map, `SIZE` octets of zeros at its beginning
that the master makes and `prepare`s before it forks anybody:

    header    magic, the key of the address hash, 64 octets
    accounts  SLOTS × u64                 accounts that each shard has
    total     SLOTS × u64                 registrations
    origins   ROWS × WIDTH × SLOTS × u64  registrations of an address or network

A shard writes only the words of its own slot, so there is one writer to every
word; a number is the sum over the slots.  An address or network selects one
cell in each row by a keyed hash and counts as the smaller of the two (a
count-min sketch): exact unless it collides with others in both rows, and then
too high, never too low.  A word of registrations is minute << 32 | count <<
16 | count of the minute before, and the rate is the sliding sum.

No address is stored or passed on, and the key is gone when the relay stops.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from mmap import mmap
from typing import NamedTuple

SLOTS = 64  # as many as there may be shards
ROWS = 2
WIDTH = 4096  # a power of two
KEY_SIZE = 16

_MAGIC = b'flood 1\n'
_KEY = slice(8, 8 + KEY_SIZE)
_HEADER = 64
_ACCOUNTS = _HEADER
_TOTAL = _ACCOUNTS + SLOTS * 8
_ORIGINS = _TOTAL + SLOTS * 8
SIZE = _ORIGINS + ROWS * WIDTH * SLOTS * 8  # octets; pages never touched cost no memory

_MASK = WIDTH - 1
_FULL = 0xFFFF
_NOBODY = bytes(SLOTS * 8)

Origin = Sequence[int]  # of a registration, see `origin`; empty for the operator's


class Limits(NamedTuple):
    """Registrations a minute; 0 = no limit."""

    address: int
    network: int
    total: int


def prepare(shared: mmap) -> None:
    """Set the hash key.  The master calls it once, before the first fork."""
    if shared[: len(_MAGIC)] != _MAGIC:
        shared[_KEY] = os.urandom(KEY_SIZE)
        shared[: len(_MAGIC)] = _MAGIC


def hash_key(shared: mmap) -> bytes:
    """The key for `origin` and `number`; KEY_SIZE octets."""
    return bytes(shared[_KEY])


def packed(host: str) -> bytes:
    """The octets of an address as `socket.accept` gives it; IPv4 in either spelling is 4.

    Raises OSError when it is none.
    """
    if ':' not in host:
        return socket.inet_pton(socket.AF_INET, host)
    address = socket.inet_pton(socket.AF_INET6, host.partition('%')[0])
    # IPv4 on a socket that takes both families
    mapped = address.startswith(b'\0\0\0\0\0\0\0\0\0\0\xff\xff')
    return address[12:] if mapped else address


def number(octets: bytes, key: bytes) -> int:
    """A keyed hash of the octets of an address or network."""
    return int.from_bytes(blake2b(octets, key=key, digest_size=8).digest(), 'little')


def origin(host: str, key: bytes) -> tuple[int, int]:
    """Where a registration comes from: the numbers of its address and of its network."""
    address = packed(host)
    if len(address) == 4:
        return number(address, key), number(address[:3], key)
    return number(address[:8], key), number(address[:6], key)


class Flood:
    """One shard's view of the counts."""

    __slots__ = ('_accounts', '_now', '_origins', '_slot', '_total')

    def __init__(
        self, shared: mmap, slot: int = 0, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises ValueError when the map is too small or there is no such slot."""
        if not 0 <= slot < SLOTS:
            raise ValueError(f'at most {SLOTS} shards can count together')
        if len(shared) < SIZE:
            raise ValueError(f'the shared map has {len(shared)} octets, {SIZE} are needed')
        prepare(shared)
        view = memoryview(shared)
        self._slot = slot
        self._now = now
        self._accounts = view[_ACCOUNTS:_TOTAL].cast('Q')
        self._total = view[_TOTAL:_ORIGINS].cast('Q')
        self._origins = view[_ORIGINS:SIZE].cast('Q')

    def accounts(self, own: int) -> int:
        """Tell how many accounts this shard has; how many all of them have."""
        self._accounts[self._slot] = own
        return sum(self._accounts.tolist())

    def take(self, origin: Origin, limits: Limits) -> bool:
        """Count one registration; False, and nothing is counted, when there were too many."""
        now = self._now()
        if limits.total and _rate(self._total, 0, now) >= limits.total:
            return False
        for who, limit in zip(origin, limits, strict=False):
            if limit and self._registrations(who, now) >= limit:
                return False
        _count(self._total, self._slot, now)
        for who in origin:
            for cell in _cells(who):
                _count(self._origins, cell + self._slot, now)
        return True

    def _registrations(self, who: int, now: float) -> float:
        return min(_rate(self._origins, cell, now) for cell in _cells(who))


def _cells(who: int) -> tuple[int, int]:
    """Where the cell begins in each row."""
    return (who & _MASK) * SLOTS, (WIDTH + (who >> 32 & _MASK)) * SLOTS


def _count(words: memoryview, at: int, now: float) -> None:
    minute = int(now // 60) & 0xFFFFFFFF
    word = words[at]
    age = minute - (word >> 32)
    if age == 0:
        current, previous = word >> 16 & _FULL, word & _FULL
    else:
        current, previous = 0, word >> 16 & _FULL if age == 1 else 0
    words[at] = minute << 32 | min(current + 1, _FULL) << 16 | previous


def _rate(words: memoryview, cell: int, now: float) -> float:
    """What was counted in the last 60 s in the cell that begins there."""
    taken = words[cell : cell + SLOTS]
    if taken.tobytes() == _NOBODY:
        return 0.0
    minute, passed = divmod(now, 60)
    minute = int(minute) & 0xFFFFFFFF
    left = 1 - passed / 60  # of the last minute, still within 60 s
    rate = 0.0
    for word in taken.tolist():
        if word:
            age = minute - (word >> 32)
            if age == 0:
                rate += (word >> 16 & _FULL) + (word & _FULL) * left
            elif age == 1:
                rate += (word >> 16 & _FULL) * left
    return rate
