"""How much each client address uses, counted together by all gates without a lock.

The counts live in a shared memory map, `SIZE` octets of zeros that the master
makes and `prepare`s before it forks anybody:

    flood        what the shards count, and the key of the address hash; see account.flood
    totals       SLOTS × u32                 open connections of each gate
    connections  ROWS × WIDTH × SLOTS × u32  open connections
    logins       ROWS × WIDTH × SLOTS × u64  attempts in this minute and the last

A cell has one column for each gate (slot), and a gate writes only its own, so
there is one writer to every word and nothing to lock; the count is the sum of
the columns.  An address selects one cell in each row by a keyed hash and its
count is the smaller of the two (a count-min sketch): exact unless it collides
with others in both rows, and then too high, never too low.  IPv4 counts by
address, IPv6 by /64, because that is what one client is given.

A word of `logins` is minute << 32 | count << 16 | count of the
minute before.  The rate is the sliding sum: this minute's count plus the share
of the last minute's that still lies within 60 seconds.

No address is stored, and the key is gone when the relay stops.
"""

from __future__ import annotations

import time
from mmap import mmap

from madmail.account import flood

SLOTS = 64  # as many as the master has for gates that live at once
ROWS = 2
WIDTH = 4096  # a power of two

_CELLS = ROWS * WIDTH * SLOTS
_TOTALS = flood.SIZE
_CONNECTIONS = _TOTALS + SLOTS * 4
_LOGINS = _CONNECTIONS + _CELLS * 4
SIZE = _LOGINS + _CELLS * 8  # octets; pages never touched cost no memory

_MASK = WIDTH - 1
_FULL = 0xFFFF


def prepare(shared: mmap) -> None:
    """Set the hash key.  The master calls it once, before the first fork."""
    flood.prepare(shared)


def forget(shared: mmap, slot: int) -> None:
    """Zero the counts of open connections of a gate that died or gives up its slot.

    What it counted for the running minute stays true and stays.
    """
    with memoryview(shared) as view:
        for start, end in ((_TOTALS, _CONNECTIONS), (_CONNECTIONS, _LOGINS)):
            with view[start:end].cast('I') as words:
                for at in range(slot, len(words), SLOTS):
                    if words[at]:
                        words[at] = 0


class Peers:
    """One gate's view of the counts.  `peer` arguments are the first number of an `origin`."""

    __slots__ = ('_connections', '_key', '_logins', '_slot', '_totals')

    def __init__(self, shared: mmap, slot: int) -> None:
        """Raises ValueError when the map is too small or there are more gates than slots."""
        if not 0 <= slot < SLOTS:
            raise ValueError(f'at most {SLOTS} gates can count together')
        if len(shared) < SIZE:
            raise ValueError(f'the shared map has {len(shared)} octets, {SIZE} are needed')
        prepare(shared)
        view = memoryview(shared)
        self._key = flood.hash_key(shared)
        self._slot = slot
        self._totals = view[_TOTALS:_CONNECTIONS].cast('I')
        self._connections = view[_CONNECTIONS:_LOGINS].cast('I')
        self._logins = view[_LOGINS:SIZE].cast('Q')

    def origin(self, host: str) -> tuple[int, int]:
        """The numbers of a peer and of its network for the address that `socket.accept` gives."""
        return flood.origin(host, self._key)

    # -- open connections

    def opened(self, peer: int) -> None:
        slot, words = self._slot, self._connections
        first, second = _cells(peer)
        words[first + slot] += 1
        words[second + slot] += 1
        self._totals[slot] += 1

    def closed(self, peer: int) -> None:
        slot, words = self._slot, self._connections
        first, second = _cells(peer)
        # Zero only after `forget` for a gate that was alive; better too few than dead.
        words[first + slot] = max(words[first + slot] - 1, 0)
        words[second + slot] = max(words[second + slot] - 1, 0)
        self._totals[slot] = max(self._totals[slot] - 1, 0)

    def connections(self, peer: int) -> int:
        """Open connections of this peer at all gates."""
        words = self._connections
        first, second = _cells(peer)
        return min(
            sum(words[first : first + SLOTS].tolist()), sum(words[second : second + SLOTS].tolist())
        )

    def total(self) -> int:
        """Open connections of all peers at all gates."""
        return sum(self._totals.tolist())

    # -- events a minute

    def count_login(self, peer: int) -> None:
        _count(self._logins, peer, self._slot, time.monotonic())

    def logins(self, peer: int) -> float:
        """Login attempts of this peer at all gates within the last 60 s."""
        return _rate(self._logins, peer, time.monotonic())


def _cells(peer: int) -> tuple[int, int]:
    """Where the peer's cell begins in each row."""
    return (peer & _MASK) * SLOTS, (WIDTH + (peer >> 32 & _MASK)) * SLOTS


def _count(words: memoryview, peer: int, slot: int, now: float) -> None:
    minute = int(now // 60) & 0xFFFFFFFF
    for cell in _cells(peer):
        word = words[cell + slot]
        age = minute - (word >> 32)
        if age == 0:
            current, previous = word >> 16 & _FULL, word & _FULL
        else:
            current, previous = 0, word >> 16 & _FULL if age == 1 else 0
        words[cell + slot] = minute << 32 | min(current + 1, _FULL) << 16 | previous


def _rate(words: memoryview, peer: int, now: float) -> float:
    minute, passed = divmod(now, 60)
    minute = int(minute) & 0xFFFFFFFF
    left = 1 - passed / 60  # of the last minute, still within 60 s
    rates = []
    for cell in _cells(peer):
        rate = 0.0
        for word in words[cell : cell + SLOTS].tolist():
            if word:
                age = minute - (word >> 32)
                if age == 0:
                    rate += (word >> 16 & _FULL) + (word & _FULL) * left
                elif age == 1:
                    rate += (word >> 16 & _FULL) * left
        rates.append(rate)
    return min(rates)
