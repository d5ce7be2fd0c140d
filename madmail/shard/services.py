"""What a shard offers to the sessions that run in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from madmail.account.registry import Accounts
    from madmail.delivery.origin import Origins
    from madmail.delivery.router import Router
    from madmail.imap.mailbox import OpenMailboxes
    from madmail.realtime.presence import Presence
    from madmail.realtime.turn.offer import Offer
    from madmail.settings import Settings
    from madmail.store.interface import Store
    from madmail.store.spool import Spool

Result = TypeVar('Result')


class ShardServices(Protocol):
    """Everything is called on the shard's loop."""

    settings: Settings
    store: Store
    domain: str  # the mail domain as it stands in addresses
    router: Router
    origin: Origins  # makes the check of where a message comes from
    accounts: Accounts
    boxes: OpenMailboxes
    presence: Presence  # of the services beside the mail
    turn: Offer  # credentials for calls

    def spool(self) -> Spool:
        """A new, empty spool in this shard's directory."""

    def offload(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run in a native thread; blocks the greenlet, not the loop."""

    @property
    def hostname(self) -> str:
        """The name for greetings and EHLO."""
