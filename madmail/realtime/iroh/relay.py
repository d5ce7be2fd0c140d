"""What the connections of the process share: loop, limits, buffer, counts, the watch over all.

All memory that peers can make us hold is counted in `held` and bounded by `iroh.memory`:
packets that wait for slow readers, and frames that have not arrived as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from madmail import log
from madmail.account.rates import Gcra
from madmail.gate.turns import Turns
from madmail.realtime.iroh.switchboard import Switchboard
from madmail.settings import Settings

if TYPE_CHECKING:
    from madmail.realtime.iroh.connection import Connection

READ, WRITE = 1, 2  # libev's EV_READ and EV_WRITE
RECEIVE = 131072  # octets; the most one callback reads
# The same where each frame costs 4 us, however small: 10 ms of the smallest ones.
RECEIVE_SLOW = 16384
# What one callback looks at: the beginning of a frame from before, and what came now.
SCRATCH = RECEIVE + 73728
# Octets a second.  With less a ping would wait too long behind what one read has taken.
LEAST_RATE = 65536
ROUND = 2.0  # seconds in which every connection is looked at once
SLICES = 8  # of a round
PAUSE = 0.05  # seconds between two looks at those that send too fast

_log = log.get('iroh')


class Counts:
    """What has happened since the process began."""

    __slots__ = (
        'accept_pauses',
        'bad_requests',
        'connections',
        'crashes',
        'denied',
        'dropped',
        'evicted',
        'forwarded',
        'malformed',
        'muted',
        'refused_connections',
        'silent',
        'unreachable',
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    connections: int
    refused_connections: int  # over a limit
    accept_pauses: int  # out of file descriptors or memory
    bad_requests: int  # no HTTP
    denied: int  # no node, or not the one it says
    malformed: int  # ended because of what they sent
    evicted: int  # a newer connection of the node came
    muted: int  # a newer connection that did not get the place
    silent: int  # ended because they did not answer or read
    forwarded: int  # packets
    unreachable: int  # packets to nobody
    dropped: int  # packets that did not fit
    crashes: int

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


class IrohRelay:
    """Shared by all connections of the process; lives as long as it."""

    __slots__ = (
        '_pause',
        '_peers',
        '_rate',
        '_round',
        '_serial',
        '_slice',
        '_slices',
        '_throttled',
        'counts',
        'held',
        'loop',
        'new',
        'old',
        'open',
        'received',
        'scratch',
        'sent',
        'settings',
        'turns',
    )

    def __init__(self, loop: Any, settings: Settings) -> None:
        self.loop = loop
        self.settings = settings
        self.counts = Counts()
        self.old = Switchboard()  # iroh 0.35
        self.new = Switchboard()  # iroh 1.x
        self.open = 0  # connections
        self.held = 0  # octets
        self.received = 0  # octets of the relay protocol
        self.sent = 0
        # PERF: everything is read into this one buffer and, where possible, sent from it.
        self.scratch = memoryview(bytearray(SCRATCH))
        self._peers: dict[int, int] = {}  # open connections by the number of a peer
        self._rate = Gcra(0, 1)
        self._serial = 0
        # PERF: a set a slice instead of a timer a connection, which would cost memory for
        # each and a heap operation a frame; 5,000 idle clients and their pings cost 5 ms a second.
        self._slices: list[set[Connection]] = [set() for _ in range(SLICES)]
        self._slice = 0
        self._round = loop.timer(ROUND / SLICES, ROUND / SLICES)
        self._throttled: set[Connection] = set()
        self.turns = Turns(loop, self.crashed)  # of those who say who they are
        self._pause = loop.timer(PAUSE, PAUSE)

    # -- connections

    def full(self) -> bool:
        limit = self.settings['iroh.connections']
        return bool(limit) and self.open >= limit

    def admit(self, peer: int) -> bool:
        """Count one more connection of a peer; False, and nothing is counted, over a limit.

        0 is a peer that is not limited.
        """
        if not peer:
            return True
        limit = self.settings['iroh.connections_per_ip']
        count = self._peers.get(peer, 0)
        if limit and count >= limit:
            return False
        rate = self.settings['iroh.connects_per_minute_per_ip']
        if rate != self._rate.per_minute:
            self._rate.set(rate, max(rate // 2, 1))
        if self._rate.allow(peer, time.monotonic()):
            return False
        self._peers[peer] = count + 1
        return True

    def release(self, peer: int) -> None:
        if peer:
            count = self._peers.get(peer, 0) - 1
            if count > 0:
                self._peers[peer] = count
            else:
                self._peers.pop(peer, None)

    def opened(self, connection: Connection) -> int:
        """Watch over it from now on; the slice it is in."""
        self.open += 1
        self._serial += 1
        place = self._serial % SLICES
        self._slices[place].add(connection)
        if not self._round.active:
            self._round.start(self._look)
        return place

    def closed(self, connection: Connection, place: int) -> None:
        self.open -= 1
        self._slices[place].discard(connection)
        self._throttled.discard(connection)

    def all(self) -> list[Connection]:
        return [connection for each in self._slices for connection in each]

    def _look(self) -> None:
        self._slice = (self._slice + 1) % SLICES
        now = time.monotonic()
        for connection in list(self._slices[self._slice]):
            connection.guard(connection.look, now)
        if not self.open:
            self._round.stop()

    # -- limits

    def room(self, octets: int) -> bool:
        """Whether so much more unfinished input may be held."""
        limit = self.settings['iroh.memory']
        return not limit or self.held + octets <= limit

    def room_to_wait(self, octets: int) -> bool:
        """Whether so much more may wait to be sent.

        A quarter is left for input: who does not read must not cost others what they say.
        """
        limit = self.settings['iroh.memory']
        return not limit or self.held + octets <= limit - limit // 4

    def rate(self) -> int:
        """Octets a second of a connection, 0 = any."""
        rate: int = self.settings['iroh.rate']
        return max(rate, LEAST_RATE) if rate else 0

    def throttle(self, connection: Connection) -> None:
        """Look again and again whether it may send."""
        self._throttled.add(connection)
        if not self._pause.active:
            self._pause.start(self._resume)

    def _resume(self) -> None:
        now = time.monotonic()
        for connection in list(self._throttled):
            if connection.may_send(now):
                self._throttled.discard(connection)
                connection.guard(connection.resume)
        if not self._throttled:
            self._pause.stop()

    # -- life

    def guarded(self, step: Callable[..., None], *arguments: Any) -> bool:
        """Do it; False if an exception that nobody expected came out."""
        try:
            step(*arguments)
        except Exception as error:
            self.crashed(error)
            return False
        return True

    def crashed(self, error: BaseException) -> None:
        """An exception that nobody expected ended one connection."""
        self.counts.crashes += 1
        _log.exception('connection crashed', error)

    def paused(self) -> None:
        """Nobody is accepted for a moment, for want of descriptors or memory."""
        self.counts.accept_pauses += 1

    def close(self) -> None:
        for connection in self.all():
            connection.close()
        self.turns.close()
        self._round.stop()
        self._round.close()
        self._pause.stop()
        self._pause.close()

    def statistics(self) -> dict[str, Any]:
        return {
            **self.counts.as_dict(),
            'open': self.open,
            'clients': len(self.old.nodes) + len(self.new.nodes),
            'held': self.held,
            'octets': {'iroh': {'received': self.received, 'sent': self.sent}},
        }
