"""Relay ports: which are taken, which rest, which are kept for somebody.

A port that was given back rests for a while, so that what is still under way to its
former owner does not reach the next one.  Other programs may hold ports of the range:
the kernel's usual range for outgoing connections overlaps it.
"""

from __future__ import annotations

import errno
import random
import socket
from collections import deque
from collections.abc import Callable

from madmail.realtime.turn.message import IPV6

REST = 60.0  # seconds
RESERVED_FOR = 30.0  # seconds (RFC 8656 7.2)
TRIES = 64  # random ports, before all are looked at in turn
RESERVATIONS_LIMIT = 1000
BUFFER = 262144  # octets, of a relay socket in each direction

_chance = random.SystemRandom()


class NoPort(Exception):
    """None is free."""


class Ports:
    """The relay ports of one process.

    `bound` says to which local address a relay socket of a family is bound.
    """

    def __init__(self, ports: range, bound: dict[int, str], clock: Callable[[], float]) -> None:
        self.range = ports
        self._bound = bound
        self._clock = clock
        self._resting: dict[tuple[int, int], float] = {}
        self._order: deque[tuple[float, tuple[int, int]]] = deque()
        self._reserved: dict[bytes, tuple[socket.socket, float]] = {}

    def families(self) -> set[int]:
        return set(self._bound)

    def host(self, family: int) -> str:
        return self._bound[family]

    def open(self, family: int, *, even: bool = False, stream: bool = False) -> socket.socket:
        """A bound socket.  Raises NoPort."""
        for port in self._candidates(2 if even else 1):
            found = self._bind(family, port, stream)
            if found is not None:
                return found
        raise NoPort

    def open_pair(self, family: int, token: bytes) -> socket.socket:
        """An even port, with the next one kept under `token` for a while.  Raises NoPort."""
        self.expire()
        if len(self._reserved) >= RESERVATIONS_LIMIT:
            raise NoPort
        for port in self._candidates(2):
            if port + 1 not in self.range:
                continue
            first = self._bind(family, port, stream=False)
            if first is None:
                continue
            second = self._bind(family, port + 1, stream=False)
            if second is None:
                first.close()
                continue
            self._reserved[token] = (second, self._clock() + RESERVED_FOR)
            return first
        raise NoPort

    def redeem(self, token: bytes) -> socket.socket | None:
        """The socket that was kept, to whoever has the token."""
        self.expire()
        kept = self._reserved.pop(token, None)
        return kept[0] if kept else None

    def keep(self, token: bytes, kept: socket.socket) -> None:
        """Put a redeemed socket back: it could not be used."""
        self._reserved[token] = (kept, self._clock() + RESERVED_FOR)

    def rest(self, used: socket.socket) -> None:
        """Close it; its port is not given out again for a while."""
        try:
            family = 2 if used.family == socket.AF_INET6 else 1
            key = (family, used.getsockname()[1])
        except OSError:
            used.close()
            return
        used.close()
        until = self._clock() + REST
        self._resting[key] = until
        self._order.append((until, key))

    def expire(self) -> None:
        """Let go of what has rested or was kept for long enough."""
        now = self._clock()
        while self._order and self._order[0][0] <= now:
            until, key = self._order.popleft()
            if self._resting.get(key) == until:
                del self._resting[key]
        for token in [token for token, (_, until) in self._reserved.items() if until <= now]:
            self._reserved.pop(token)[0].close()

    def close(self) -> None:
        for kept, _ in self._reserved.values():
            kept.close()
        self._reserved.clear()

    def _candidates(self, step: int) -> list[int]:
        """Some by chance, then all, from somewhere on."""
        self.expire()
        ports = self.range
        if step == 2:
            ports = range(ports.start + ports.start % 2, ports.stop, 2)
        if not ports:
            return []
        some = [_chance.choice(ports) for _ in range(min(TRIES, len(ports)))]
        if len(ports) > 1024:
            return some  # of so many, TRIES taken ones in a row mean that few are free
        begin = _chance.randrange(len(ports))
        return [*some, *ports[begin:], *ports[:begin]]

    def _bind(self, family: int, port: int, stream: bool) -> socket.socket | None:
        """None when it rests or is taken.  Raises NoPort when there is nothing to try."""
        if (family, port) in self._resting:
            return None
        host = self._bound[family]
        try:
            found = socket.socket(
                socket.AF_INET6 if family == IPV6 else socket.AF_INET,
                socket.SOCK_STREAM if stream else socket.SOCK_DGRAM,
            )
        except OSError:
            raise NoPort from None  # out of descriptors or memory
        try:
            found.setblocking(False)
            if family == IPV6:
                found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if not stream:
                for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                    found.setsockopt(socket.SOL_SOCKET, option, BUFFER)
            found.bind((host, port))
        except OSError as error:
            found.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return None
            raise NoPort from None
        return found
