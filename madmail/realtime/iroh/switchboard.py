"""Who is connected: one place for each key, and the newest connection has it.

A node that loses its way comes back before the old connection is known to be dead.  But
somebody else who has its CLIENT_INFO can come as well (see `handshake`), and two who push
each other out would do so without end, because a client that is thrown out returns at once.
So a place that changes hands too often is kept by who has it for a while.
"""

from __future__ import annotations

from typing import Protocol

CHANGES = 5  # times that a place changes hands within WINDOW
WINDOW = 60.0  # seconds
SETTLED = 30.0  # seconds for which nobody else gets it then
KNOWN_LIMIT = 10_000  # places whose changes are remembered


class Node(Protocol):
    """A connection, as far as it is known here."""

    key: bytes

    def replaced(self) -> None:
        """Another connection has its place."""


class Switchboard:
    """The nodes of one protocol."""

    __slots__ = ('_changes', 'nodes')

    def __init__(self) -> None:
        self.nodes: dict[bytes, Node] = {}
        # key → changes, since when they are counted, until when nobody else gets the place
        self._changes: dict[bytes, tuple[int, float, float]] = {}

    def enter(self, node: Node, now: float) -> bool:
        """Give the place of its key to `node`; False if it must not have it now."""
        key = node.key
        present = self.nodes.get(key)
        if present is None:
            self.nodes[key] = node
            return True
        count, since, settled = self._changes.pop(key, (0, now, 0.0))
        if now < settled:
            self._changes[key] = (count, since, settled)
            return False
        if now - since > WINDOW:
            count, since = 0, now
        count += 1
        if count > CHANGES:
            self._changes[key] = (0, now, now + SETTLED)
            return False
        if len(self._changes) >= KNOWN_LIMIT:
            del self._changes[next(iter(self._changes))]  # the one that changed longest ago
        self._changes[key] = (count, since, 0.0)
        self.nodes[key] = node
        present.replaced()
        return True

    def leave(self, node: Node) -> bool:
        """False if it had no place, or another connection has it by now."""
        if self.nodes.get(node.key) is not node:
            return False
        del self.nodes[node.key]
        return True
