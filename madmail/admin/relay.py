"""The relay as an operation sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from madmail.settings import Settings
from madmail.store.control import Control


class Relay(Protocol):
    """Fulfilled by `madmail.cli.access.Access`, which works on a stopped relay too, and by
    `madmail.web.access.WebAccess`, which never blocks the loop of its worker.

    Whatever cannot be done is raised as Refused.
    """

    @property
    def settings(self) -> Settings:
        """The values in force; rows of the control database are laid over them."""

    @property
    def control(self) -> Control: ...

    @property
    def state_dir(self) -> Path: ...

    @property
    def domain(self) -> str:
        """The mail domain, an IP address in brackets."""

    @property
    def shards(self) -> int: ...

    @property
    def running(self) -> bool:
        """Whether its processes run; if not, what is written counts at the next start."""

    def call(self, address: str, method: str, **params: Any) -> Any:
        """Call a method of the shard that owns the canonical `address`, which is passed on."""

    def call_shard(self, shard: int, method: str, **params: Any) -> Any:
        """Call a method of a shard."""

    def accounts(self) -> Iterator[dict[str, Any]]:
        """All accounts, shard by shard: address, created, last_login (Unix seconds) and so on."""

    def publish(self, topic: str, data: dict[str, Any]) -> None:
        """Tell the processes of the relay, if it runs.

        After 'settings' the caller's own `settings` hold what was written, too.
        """

    def ask_master(self, request: dict[str, Any], *, timeout: float = 30.0) -> dict[str, Any]:
        """One request on the control socket (`madmail.master.control`); its data.

        Refused: unavailable (it does not run or answer), busy, failed (it says no).
        """

    def address(self, text: str) -> str:
        """The canonical address of `text`, which may lack the domain.  Refused: invalid."""
