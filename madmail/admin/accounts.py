"""Accounts: who there is, new ones, and the end of old ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from madmail.admin import blocklist
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay

PAGE = 500


def entries(relay: Relay) -> Iterator[dict[str, Any]]:
    """All accounts with what they hold, shard by shard; times in Unix seconds, 0 = never."""
    for shard in range(relay.shards):
        after = ''
        while page := relay.call_shard(shard, 'account_list', after=after, limit=PAGE):
            usage = relay.call_shard(shard, 'quota_list', after=after, limit=PAGE)
            used = {one['address']: one for one in usage}
            for account in page:
                # Made or gone between the two questions: no figures.
                room = used.get(account['address'])
                if room is not None:
                    yield {
                        'username': account['address'],
                        'used_bytes': room['used'],
                        'max_bytes': room['quota'],
                        'is_default_quota': not room['own'],
                        'created_at': account['created'],
                        'first_login_at': account['first_login'],
                        'last_login_at': account['last_login'],
                    }
            after = page[-1]['address']


def create(relay: Relay, address: str, password: bytes) -> None:
    """Refused: exists, forbidden (blocked), invalid (name or password)."""
    if relay.control.blocked(address) is not None:
        raise Refused('forbidden', 'the name is on the blocklist')
    relay.call(address, 'account_create', password=password)


def set_password(relay: Relay, address: str, password: bytes) -> None:
    """Its sessions end.  Refused: missing, invalid."""
    relay.call(address, 'account_password', password=password)


def delete(relay: Relay, address: str, reason: str, *, block: bool = True) -> bool:
    """With all its mail; unless told otherwise nobody gets the name again.

    Whether there was such an account; it is blocked all the same.
    """
    if block:
        blocklist.block(relay, address, reason)
    return _deleted(relay, address)


def delete_all(
    relay: Relay, reason: str, progress: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Every account with all its mail; nobody gets the names again.  How many there were."""
    deleted = 0
    for shard in range(relay.shards):
        while page := relay.call_shard(shard, 'account_list', limit=PAGE):
            addresses = [one['address'] for one in page]
            relay.control.block_all(addresses, reason, int(time.time()))
            relay.publish('blocklist', {})
            # This shard must know before the first is gone, or a client would make it anew.
            relay.call(addresses[0], 'account_dismiss')
            for address in addresses:
                deleted += _deleted(relay, address)
                progress(deleted, 0)
    return deleted


def _deleted(relay: Relay, address: str) -> bool:
    try:
        relay.call(address, 'account_delete')
    except Refused as refused:
        if refused.word != 'missing':
            raise
        return False
    return True
