"""How many messages went through the relay since it exists, and from which relays they came.

Domains are named by strangers: one counts when mail has passed the check of its origin, and
no more than ORIGINS_LIMIT between two writings.

A shard counts in memory and adds what is new to the control database now and
then, so a crash forgets PERIOD at most.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import gevent.event

from madmail import log
from madmail.account.address import canonical_domain
from madmail.store.control import Control

PERIOD = 30.0  # seconds
ORIGINS_LIMIT = 1000  # domains counted between two writings
DOMAINS_LIMIT = 10_000  # domains that are kept
KEEP_TIME = 90 * 86_400  # seconds a domain is kept that sends nothing

_log = log.get('delivery')


class Traffic:
    """Transactions that were accepted and are not written yet."""

    __slots__ = ('origins', 'received', 'sent')

    def __init__(self) -> None:
        self.sent = 0  # from accounts of this relay
        self.received = 0  # from elsewhere, over SMTP and HTTP
        self.origins: Counter[str] = Counter()  # the same by domain of the author

    def arrived(self, origin: str) -> None:
        """One message from elsewhere; `origin` is the domain that was proved, or ''."""
        self.received += 1
        domain = canonical_domain(origin)
        if domain and (domain in self.origins or len(self.origins) < ORIGINS_LIMIT):
            self.origins[domain] += 1

    def as_dict(self) -> dict[str, int]:
        return {'sent': self.sent, 'received': self.received}


class Ledger:
    """Writes the counts of one shard."""

    def __init__(self, state_dir: Path, traffic: Traffic, offload: Callable[..., Any]) -> None:
        """`offload` runs a function in a native thread."""
        self._state_dir = state_dir
        self._traffic = traffic
        self._offload = offload
        self._ending = gevent.event.Event()
        self._writer: gevent.Greenlet | None = None

    def start(self) -> None:
        self._writer = gevent.spawn(self._run)

    def stop(self) -> None:
        """Write what is left."""
        self._ending.set()
        if self._writer is not None:
            self._writer.join()
        self.write()

    def write(self) -> None:
        """May block the greenlet."""
        taken = self._traffic.as_dict()
        origins = dict(self._traffic.origins)
        if not any(taken.values()):
            return
        try:
            self._offload(_add, self._state_dir, taken, origins)
        except Exception as error:
            _log.exception('counts not written', error)  # they stay and are written later
            return
        self._traffic.sent -= taken['sent']
        self._traffic.received -= taken['received']
        # Without those that are at nothing, which would take up the room for others.
        self._traffic.origins = +(self._traffic.origins - Counter(origins))

    def _run(self) -> None:
        while not self._ending.wait(PERIOD):
            self.write()


def _add(state_dir: Path, counts: dict[str, int], origins: dict[str, int]) -> None:
    control = Control(state_dir)
    try:
        now = int(time.time())
        if origins:
            control.add_inbound(origins, now, DOMAINS_LIMIT, now - KEEP_TIME)
        control.add_traffic(counts)
    finally:
        control.close()
