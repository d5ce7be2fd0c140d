"""All connections of a shard: who is logged in, and the clock that visits them.

The clock visits a tenth of the wires every half second, so that ten thousand
parked sessions never cost one long turn of the loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from gevent import get_hub

from madmail.shard.wire import Wire

SLICES = 10
PERIOD = 5.0  # seconds between two ticks of one wire


class Sessions:
    """Every wire of the shard; those of an account also by its id."""

    def __init__(self, per_account: Callable[[], int]) -> None:
        self._per_account = per_account
        self.weigh: Callable[[Wire, int], None] = lambda wire, account_id: None
        self._slices: list[set[Wire]] = [set() for _ in range(SLICES)]
        self._turn = 0
        self._accounts: dict[int, set[Wire]] = {}
        self._owner: dict[Wire, int] = {}
        self._timer: Any = None
        self.accepted = 0

    def __len__(self) -> int:
        return sum(map(len, self._slices))

    def __iter__(self) -> Iterator[Wire]:
        for part in self._slices:
            yield from tuple(part)

    @property
    def logged_in(self) -> int:
        return len(self._owner)

    def start(self) -> None:
        """Begin to tick."""
        self._timer = get_hub().loop.timer(PERIOD / SLICES, PERIOD / SLICES)
        self._timer.start(self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def enter(self, wire: Wire) -> None:
        """A wire was accepted; it leaves by itself when it ends."""
        self.accepted += 1
        part = self._slices[self.accepted % SLICES]
        part.add(wire)
        wire.on_end = self._leave

    def room_for(self, account_id: int) -> bool:
        """Whether the account may have one more session."""
        limit = self._per_account()
        return not limit or len(self._accounts.get(account_id, ())) < limit

    def count(self, account_id: int) -> int:
        """Sessions of the account now."""
        return len(self._accounts.get(account_id, ()))

    def add(self, account_id: int, wire: Wire) -> None:
        """The wire has logged in."""
        self._accounts.setdefault(account_id, set()).add(wire)
        self._owner[wire] = account_id

    def owned(self) -> list[tuple[Wire, int]]:
        """The wires of accounts, each with the account's id."""
        return list(self._owner.items())

    def account_of(self, wire: Wire) -> int | None:
        return self._owner.get(wire)

    def dismiss(self, account_id: int) -> None:
        """End every session of an account that is gone or banned."""
        for wire in tuple(self._accounts.get(account_id, ())):
            if wire.session is not None:
                wire.session.retire()
            wire.close()

    def forget(self, wire: Wire) -> None:
        """The wire moved to another process."""
        self._leave(wire)

    def _leave(self, wire: Wire) -> None:
        for part in self._slices:
            part.discard(wire)
        account_id = self._owner.pop(wire, None)
        if account_id is not None:
            self.weigh(wire, account_id)
            wires = self._accounts[account_id]
            wires.discard(wire)
            if not wires:
                del self._accounts[account_id]

    def _tick(self) -> None:
        self._turn = (self._turn + 1) % SLICES
        now = time.monotonic()
        for wire in tuple(self._slices[self._turn]):
            wire.tick(now)
