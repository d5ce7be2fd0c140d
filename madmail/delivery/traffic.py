"""How many messages went through the relay since it exists.

A shard counts in memory and adds what is new to the control database now and
then, so a crash forgets PERIOD at most.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import gevent.event

from madmail import log
from madmail.store.control import Control

PERIOD = 30.0  # seconds

_log = log.get('delivery')


class Traffic:
    """Transactions that were accepted and are not written yet."""

    __slots__ = ('received', 'sent')

    def __init__(self) -> None:
        self.sent = 0  # from accounts of this relay
        self.received = 0  # from elsewhere, over SMTP and HTTP

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
        if not any(taken.values()):
            return
        try:
            self._offload(_add, self._state_dir, taken)
        except Exception as error:
            _log.exception('counts not written', error)  # they stay and are written later
            return
        self._traffic.sent -= taken['sent']
        self._traffic.received -= taken['received']

    def _run(self) -> None:
        while not self._ending.wait(PERIOD):
            self.write()


def _add(state_dir: Path, counts: dict[str, int]) -> None:
    control = Control(state_dir)
    try:
        control.add_traffic(counts)
    finally:
        control.close()
