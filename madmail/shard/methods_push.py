"""The calls of who sends push notifications: what is due in this shard, and what became of it.

Who sends is told over the bus when something is due (topic `push`), once until it asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from madmail.store.interface import Settled

if TYPE_CHECKING:
    from madmail.shard.process import Shard

PAGE = 200  # tokens of one answer
SLICES = 50  # of old tokens forgotten in one call


class Due:
    """Tells that something is due, once until it was asked for."""

    def __init__(self, publish: Callable[[], object]) -> None:
        self._publish = publish
        self._told = False

    def tell(self) -> None:
        """On the loop; does not block."""
        if not self._told:
            self._told = True
            self._publish()

    def asked(self) -> None:
        self._told = False


class PushMethods:
    """Those of one shard."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.methods: dict[str, Callable[..., Any]] = {
            'push_due': self.due,
            'push_settle': self.settle,
            'push_forget': self.forget,
        }

    def due(self, now: int, limit: int, skip: Sequence[int] = ()) -> dict[str, Any]:
        """`due`: rows of DueToken, but for the ids `skip`; `next`: when more may be, 0 = never."""
        self._shard.due.asked()
        store = self._shard.store
        return {
            'due': [list(one) for one in store.push_due(now, min(limit, PAGE), skip)],
            'next': store.push_next(now),
        }

    def settle(self, outcomes: Sequence[Sequence[Any]]) -> int:
        """`outcomes`: rows of Settled; how many are due again.  May be repeated."""
        return self._shard.store.push_settle([Settled(*one) for one in outcomes])

    def forget(self) -> int:
        """Tokens that nobody renewed for too long; how many."""
        forgotten = 0
        for _ in range(SLICES):
            count = self._shard.store.forget_old_tokens()
            forgotten += count
            if not count:
                break
        return forgotten
