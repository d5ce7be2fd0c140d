"""The calls about how the relay is doing: figures, never contents."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from madmail.shard.process import Shard


class StatusMethods:
    """Those of one shard."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.methods: dict[str, Callable[..., Any]] = {'outbox_count': self.outbox_count}

    def outbox_count(self) -> dict[str, int]:
        return self._shard.store.outbox_count()
