"""What the other TURN processes of the relay hold, so that limits are those of all together.

A client stays with the process that the kernel gave it to, and the relays of one account may
be spread over several.  Each process tells the others on the bus, topic 'turn.held':

    {by, accounts: {user name: relays}, networks: {place: relays}, ports: {port: relays},
     total, whole, asks}

with what has changed, or with `whole` all that it has; one that `asks` has just begun.  So
limits hold but for those who come to two processes within the same millisecond.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Neighbours:
    """By number of process."""

    def __init__(self) -> None:
        self._accounts: dict[int, dict[str, int]] = {}
        self._networks: dict[int, dict[str, int]] = {}
        self._ports: dict[int, dict[str, int]] = {}
        self._totals: dict[int, int] = {}

    def account(self, name: str) -> int:
        """Relays of this user name."""
        return sum(held.get(name, 0) for held in self._accounts.values())

    def network(self, place: str) -> int:
        """Relays of clients at this address or network."""
        return sum(held.get(place, 0) for held in self._networks.values())

    def has(self, port: str) -> bool:
        """Whether one of them relays there; `port` as in `Allocation.port`."""
        return any(port in held for held in self._ports.values())

    def total(self) -> int:
        return sum(self._totals.values())

    def learn(self, told: Mapping[str, Any]) -> None:
        by = int(told['by'])
        for held, news in (
            (self._accounts.setdefault(by, {}), told['accounts']),
            (self._networks.setdefault(by, {}), told['networks']),
            (self._ports.setdefault(by, {}), told['ports']),
        ):
            if told['whole']:
                held.clear()
            for name, count in news.items():
                if count:
                    held[name] = count
                else:
                    held.pop(name, None)
        self._totals[by] = int(told['total'])

    def forget(self) -> None:
        """There are no others."""
        self._accounts.clear()
        self._networks.clear()
        self._ports.clear()
        self._totals.clear()
