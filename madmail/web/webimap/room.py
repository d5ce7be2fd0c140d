"""How much of the memory of a worker large requests may take."""

from __future__ import annotations

from types import TracebackType

FREE = 64 * 1024  # octets of a request that are not counted
LIMIT = 256 * 1024 * 1024  # octets of all requests under way together
SHARE = 96 * 1024 * 1024  # octets of those of one account


class Room:
    """One a worker."""

    def __init__(self, limit: int = LIMIT, share: int = SHARE) -> None:
        self._limit = limit
        self._share = share
        self._used: dict[str, int] = {}
        self.used = 0  # octets

    def place(self, owner: str) -> Place:
        return Place(self, owner)

    def change(self, owner: str, octets: int) -> bool:
        """`octets` more, or less, for `owner`; False, and nothing is changed, if it is too much."""
        has = self._used.get(owner, 0) + octets
        if octets > 0 and (has > self._share or self.used + octets > self._limit):
            return False
        self.used += octets
        if has:
            self._used[owner] = has
        else:
            self._used.pop(owner, None)
        return True


class Place:
    """What one request or one connection takes; empty after the context."""

    def __init__(self, room: Room, owner: str) -> None:
        self._room = room
        self._owner = owner
        self._taken = 0

    def holds(self, octets: int) -> bool:
        """That many octets are held now; False if there is no room for them."""
        wanted = octets if octets > FREE else 0
        if wanted == self._taken:
            return True
        if not self._room.change(self._owner, wanted - self._taken):
            return False
        self._taken = wanted
        return True

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.holds(0)
