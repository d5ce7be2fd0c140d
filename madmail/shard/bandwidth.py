"""Octets of each account by month, where the operator wants to know (`accounts.bandwidth`).

Wires count what they carry; what an account's wires have counted is taken when they
end and every few minutes, and written in one go.  Nothing is kept while the setting
is off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

import gevent

from madmail import log
from madmail.settings import Settings
from madmail.store.interface import StoreFull

PERIOD = 300.0  # seconds between two writings

_log = log.get('bandwidth')


class Counting(Protocol):
    """A wire, as far as it is looked at here."""

    received: int
    sent: int


class Store(Protocol):
    def add_bandwidth(self, month: str, octets: dict[int, tuple[int, int]]) -> None: ...


class Bandwidth:
    """Of one shard."""

    def __init__(
        self,
        store: Callable[[], Store],
        settings: Settings,
        wires: Callable[[], Iterable[tuple[Counting, int]]],
    ) -> None:
        """`wires` are those of accounts, with the account's id."""
        self._store = store
        self._settings = settings
        self._wires = wires
        self._taken: dict[int, tuple[int, int]] = {}
        self._writer: gevent.Greenlet | None = None

    def start(self) -> None:
        self._writer = gevent.spawn(self._run)

    def stop(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.kill()
        self.write()

    def take(self, wire: Counting, account_id: int) -> None:
        """What a wire has counted since the last time."""
        received, sent = wire.received, wire.sent
        wire.received = wire.sent = 0
        self.carried(account_id, received, sent)

    def carried(self, account_id: int, received: int, sent: int) -> None:
        """Octets of an account, from and to its client."""
        if self._settings['accounts.bandwidth']:
            before = self._taken.get(account_id, (0, 0))
            self._taken[account_id] = (before[0] + received, before[1] + sent)

    def write(self) -> None:
        """Blocks the greenlet."""
        for wire, account_id in list(self._wires()):
            self.take(wire, account_id)
        taken, self._taken = self._taken, {}
        if taken:
            try:
                self._store().add_bandwidth(time.strftime('%Y-%m', time.gmtime()), taken)
            except StoreFull:
                _log.warning('octets of accounts not written', accounts=len(taken))

    def _run(self) -> None:
        while True:
            gevent.sleep(PERIOD)
            try:
                self.write()
            except Exception as error:
                _log.exception('octets of accounts not written', error)
