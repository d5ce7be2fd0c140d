"""What the tunnels of the process share: key, salts, limits, buffers, counts.

Nobody learns anything by knocking.  Until a peer has shown that it knows the password it is
`silent`: nothing is ever sent to it, whatever it sends is read, and at a time that was drawn
when it came it is closed, whatever it did.  Where that takes too much room, those who have
waited longest go first; where everything is in use, nobody is accepted for a while, and who
connects meanwhile hears nothing, as always.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from madmail import log
from madmail.account import flood
from madmail.gate.deadlines import Deadlines
from madmail.realtime.shadowsocks.methods import METHODS, Method
from madmail.realtime.shadowsocks.pseudonym import Pseudonyms
from madmail.realtime.shadowsocks.salts import Salts
from madmail.realtime.shadowsocks.services import Services
from madmail.settings import Settings

if TYPE_CHECKING:
    from madmail.realtime.shadowsocks.tunnel import Tunnel

SCRATCH = 4 * 0x3FFF  # octets; the most one callback reads: whole chunks of every method
SHORTEST, LONGEST = 30.0, 120.0  # seconds until who says nothing right is closed
SWEEP = 30.0  # seconds between two looks at idle tunnels
IDLE_MARGIN = 60.0  # seconds that a tunnel may be idle longer than what it carries
IDLE_LONGEST = 86400.0  # seconds, where sessions have no limit

_log = log.get('shadowsocks')


class Counts:
    """What has happened since the process began."""

    __slots__ = (
        'accept_pauses',
        'accepted',
        'crashes',
        'late',
        'opened',
        'rejected',
        'replayed',
        'shed',
        'unreachable',
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    accepted: int  # connections
    opened: int  # tunnels to a service
    rejected: int  # not sealed with the password, replayed, late: heard nothing
    replayed: int
    late: int  # a clock that differs by more than 30 seconds
    unreachable: int  # wanted what is not ours, or what did not answer
    shed: int  # closed early for want of room
    accept_pauses: int
    crashes: int

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


class Peer:
    """The connections from one address."""

    __slots__ = ('count', 'opened', 'silent')

    def __init__(self) -> None:
        self.count = 0
        self.opened = 0
        self.silent: dict[Tunnel, None] = {}  # oldest first


class Proxy:
    """Lives as long as the process."""

    def __init__(self, loop: Any, settings: Settings, salts: Salts) -> None:
        self.loop = loop
        self.settings = settings
        self.salts = salts
        self.pseudonyms = Pseudonyms()
        self.counts = Counts()
        self.received = 0  # octets on the wire, from clients
        self.sent = 0
        self.deadlines = Deadlines(loop, self.crashed)
        self.scratch = memoryview(bytearray(SCRATCH))
        self.silent: dict[Tunnel, None] = {}  # oldest first
        self.opened: set[Tunnel] = set()
        self.peers: dict[int, Peer] = {}
        self.count = 0  # connections
        self._key = random.SystemRandom()
        self._hash_key = self._key.randbytes(flood.KEY_SIZE)
        self.method: Method = METHODS['chacha20-ietf-poly1305']
        self.key = b''
        self.services = Services(settings)
        self._sweeper = loop.timer(SWEEP, SWEEP)
        self._sweeper.start(self._sweep)

    def configure(self) -> None:
        """Follow the settings.  Tunnels that are open go on with the key they have.

        Raises ValueError when there is no password that fits.
        """
        method = METHODS[str(self.settings['shadowsocks.cipher'])]
        key = method.key(str(self.settings['shadowsocks.password']))
        self.services = Services(self.settings)
        self.method, self.key = method, key

    def number(self, host: str) -> int:
        """Stands for a peer's address while the process lives."""
        return flood.origin(host, self._hash_key)[0]

    def patience(self) -> float:
        """The time, on the monotonic clock, at which somebody new is closed unless it opens."""
        return time.monotonic() + self._key.uniform(SHORTEST, LONGEST)

    # -- room

    @property
    def full(self) -> bool:
        limit: int = self.settings['shadowsocks.connections']
        return bool(limit) and self.count >= limit

    def make_room(self, number: int) -> bool:
        """Before one more is taken from this peer: whether there is room, made if need be."""
        peer = self.peers.get(number)
        limit: int = self.settings['limits.connections_per_ip']
        if limit and peer is not None and peer.count >= limit and peer.silent:
            self._shed(next(iter(peer.silent)))
        if self.full and self.silent:
            self._shed(next(iter(self.silent)))
        return not self.full

    def crowded(self, number: int) -> bool:
        """Whether this peer has as many connections as it may, all of them in use."""
        limit: int = self.settings['limits.connections_per_ip']
        peer = self.peers.get(number)
        return bool(limit) and peer is not None and peer.count >= limit

    def _shed(self, tunnel: Tunnel) -> None:
        self.counts.shed += 1
        tunnel.end()

    # -- told by the tunnels

    def began(self, tunnel: Tunnel, number: int) -> None:
        self.count += 1
        self.counts.accepted += 1
        peer = self.peers.get(number)
        if peer is None:
            peer = self.peers[number] = Peer()
        peer.count += 1
        peer.silent[tunnel] = self.silent[tunnel] = None

    def recognised(self, tunnel: Tunnel, number: int) -> None:
        """It knows the password."""
        peer = self.peers[number]
        peer.silent.pop(tunnel, None)
        self.silent.pop(tunnel, None)
        peer.opened += 1
        self.opened.add(tunnel)

    def fell_silent(self, tunnel: Tunnel, number: int) -> None:
        """Somebody has interfered with an open tunnel."""
        peer = self.peers[number]
        self.opened.discard(tunnel)
        peer.opened -= 1
        peer.silent[tunnel] = self.silent[tunnel] = None

    def ended(self, tunnel: Tunnel, number: int) -> None:
        self.count -= 1
        peer = self.peers[number]
        peer.count -= 1
        if tunnel in self.opened:
            self.opened.discard(tunnel)
            peer.opened -= 1
        peer.silent.pop(tunnel, None)
        self.silent.pop(tunnel, None)
        if not peer.count:
            del self.peers[number]

    def crashed(self, error: BaseException) -> None:
        """An exception that nobody expected ended one connection."""
        self.counts.crashes += 1
        _log.exception('tunnel crashed', error)

    def paused(self) -> None:
        """Nobody is accepted for a moment, for want of descriptors or of room."""
        self.counts.accept_pauses += 1

    def close(self) -> None:
        """End all connections."""
        self._sweeper.stop()
        self._sweeper.close()
        for tunnel in [*self.silent, *self.opened]:
            tunnel.end()
        self.deadlines.close()

    def _sweep(self) -> None:
        sessions = [self.settings[f'limits.{name}'] for name in ('imap_idle', 'smtp_idle')]
        longest = max(sessions) + IDLE_MARGIN if all(sessions) else IDLE_LONGEST
        before = time.monotonic() - longest
        for tunnel in [tunnel for tunnel in self.opened if tunnel.active < before]:
            tunnel.end()
