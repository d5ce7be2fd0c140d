"""Salts that were used before: those of clients, and our own, which could be sent back to us.

Two Bloom filters of a fixed size.  When one has taken `CAPACITY` salts, the other is emptied
and takes the next ones, so the last CAPACITY at least are known; a new salt is taken for an old
one once in some millions, and its client connects again.

<state_dir>/shadowsocks/salts    header, filter, filter; mapped into memory, so that what was
                                 recorded before a restart is refused after it

The file holds no salts, only bits at places that a key of its own chooses.
"""

from __future__ import annotations

import mmap
import os
import struct
from hashlib import blake2b
from pathlib import Path

CAPACITY = 1_000_000  # salts in one filter
FILTER = 4 * 1024 * 1024  # octets of a filter: 33 bits a salt
_HEADER = 64
_PLACES = struct.Struct('<16I')  # where a salt's bits are
_STATE = struct.Struct('<8s16sII')  # magic, key, the filter in use, salts in it
_MAGIC = b'salts 1\n'
_MASK = FILTER * 8 - 1
SIZE = _HEADER + 2 * FILTER


class Salts:
    """`directory` is made where it is missing; None keeps them in memory only."""

    __slots__ = ('_bits', '_capacity', '_count', '_current', '_key')

    def __init__(self, directory: Path | None, capacity: int = CAPACITY) -> None:
        """Raises OSError."""
        self._capacity = capacity
        if directory is None:
            self._bits = mmap.mmap(-1, SIZE)
        else:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(directory / 'salts', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(descriptor).st_size != SIZE:
                    os.ftruncate(descriptor, 0)
                    os.posix_fallocate(descriptor, 0, SIZE)
                self._bits = mmap.mmap(descriptor, SIZE)
            finally:
                os.close(descriptor)
        magic, self._key, self._current, self._count = _STATE.unpack_from(self._bits)
        if magic != _MAGIC or self._current > 1:
            self._bits[_HEADER:] = bytes(2 * FILTER)
            self._key, self._current, self._count = os.urandom(16), 0, 0
            self._write_state()

    def add(self, salt: bytes) -> bool:
        """Remember a salt; whether it is new."""
        # PERF: 6 us.
        bits = self._bits
        places = _PLACES.unpack(blake2b(salt, key=self._key, digest_size=64).digest())
        for start in (_HEADER, _HEADER + FILTER):
            for place in places:
                place &= _MASK
                if not bits[start + (place >> 3)] & 1 << (place & 7):
                    break
            else:
                return False
        if self._count >= self._capacity:
            self._turn_over()
        start = _HEADER + self._current * FILTER
        for place in places:
            place &= _MASK
            bits[start + (place >> 3)] |= 1 << (place & 7)
        self._count += 1
        self._write_state()
        return True

    def close(self) -> None:
        self._bits.close()

    def _turn_over(self) -> None:
        self._current, self._count = 1 - self._current, 0
        start = _HEADER + self._current * FILTER
        self._bits[start : start + FILTER] = bytes(FILTER)

    def _write_state(self) -> None:
        _STATE.pack_into(self._bits, 0, _MAGIC, self._key, self._current, self._count)
