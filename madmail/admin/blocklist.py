"""The blocklist: names that can neither log in nor be created."""

from __future__ import annotations

import time
from typing import Any

from madmail.admin.refused import Refused
from madmail.admin.relay import Relay

REASON = 'manually blocked'
REASON_LIMIT = 500  # characters


def entries(relay: Relay) -> list[dict[str, Any]]:
    """In order of address; `blocked_at` in Unix seconds."""
    return [
        {'username': one.address, 'reason': one.reason, 'blocked_at': one.since}
        for one in relay.control.blocklist()
    ]


def block(relay: Relay, address: str, reason: str = REASON) -> bool:
    """Block a canonical address and end its sessions; False if it was blocked already."""
    if len(reason) > REASON_LIMIT or not reason.isprintable():
        raise Refused('invalid', f'a reason is one line of at most {REASON_LIMIT} characters')
    fresh = relay.control.block(address, reason, int(time.time()))
    tell(relay, address)
    return fresh


def unblock(relay: Relay, address: str) -> None:
    """Refused: missing."""
    if not relay.control.unblock(address):
        raise Refused('missing', f'{address} is not on the blocklist')
    tell(relay, address)


def clear(relay: Relay) -> int:
    """Unblock everybody; how many that were."""
    count = relay.control.flush_blocklist()
    relay.publish('blocklist', {})
    return count


def tell(relay: Relay, address: str) -> None:
    """Have the list read anew, at once where the account lives, and its sessions ended."""
    relay.publish('blocklist', {})
    relay.call(address, 'account_dismiss')
