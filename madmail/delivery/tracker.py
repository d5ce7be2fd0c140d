"""How exchange with each relay goes: counts and latency by destination and transport.

Kept in memory and written to the control database now and then, so a restart
forgets half a minute at most.  Domains come from outside; only the
DOMAINS_LIMIT that were seen last are kept.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

from madmail.store.control import Control

DOMAINS_LIMIT = 10_000
TRANSPORTS = ('https', 'http', 'smtp')


@dataclass(slots=True)
class Peer:
    """One destination.  Counts are messages, `latency_ms` is a sum over the successes."""

    success_https: int = 0
    success_http: int = 0
    success_smtp: int = 0
    failed_https: int = 0
    failed_http: int = 0
    failed_smtp: int = 0
    latency_ms: int = 0
    last_seen: int = 0  # Unix seconds

    @property
    def successes(self) -> int:
        return self.success_https + self.success_http + self.success_smtp


COLUMNS = tuple(field.name for field in fields(Peer))


class Tracker:
    """Fulfils relaying.Watcher."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._peers: OrderedDict[str, Peer] = OrderedDict()
        self._changed: set[str] = set()

    def succeeded(self, domain: str, transport: str, seconds: float) -> None:
        peer = self._touch(domain)
        name = f'success_{transport}'
        setattr(peer, name, getattr(peer, name) + 1)
        peer.latency_ms += round(seconds * 1000)

    def failed(self, domain: str, transport: str) -> None:
        name = f'failed_{transport}'
        peer = self._touch(domain)
        setattr(peer, name, getattr(peer, name) + 1)

    def peers(self) -> dict[str, Peer]:
        """By domain, seen last at the end."""
        return dict(self._peers)

    def load(self, control: Control) -> None:
        """Go on with what was written before."""
        for domain, values in control.peers():
            self._peers[domain] = Peer(**values)

    def flush(self, control: Control) -> None:
        """Write what has changed."""
        if self._changed:
            changed = [d for d in self._changed if d in self._peers]
            self._changed.clear()
            control.set_peers(
                [(domain, asdict(self._peers[domain])) for domain in changed], DOMAINS_LIMIT
            )

    def _touch(self, domain: str) -> Peer:
        peer = self._peers.get(domain)
        if peer is None:
            peer = self._peers[domain] = Peer()
            if len(self._peers) > DOMAINS_LIMIT:
                self._peers.popitem(last=False)
        peer.last_seen = int(self._clock())
        self._peers.move_to_end(domain)
        self._changed.add(domain)
        return peer
