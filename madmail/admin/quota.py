"""Quota and message size of accounts: what they may hold and send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from madmail.admin.refused import Refused
from madmail.admin.relay import Relay

DEFAULT_NAME = '__GLOBAL_DEFAULT__'
MOST = 2**53  # bytes; what JavaScript can count to
PAGE = 500
SETTING = 'limits.quota'


def overview(relay: Relay) -> dict[str, Any]:
    """Of the whole relay."""
    total = accounts = 0
    for shard in range(relay.shards):
        last = 0
        while True:
            slice_ = relay.call_shard(shard, 'storage', after=last)
            total += slice_['bytes']
            last = slice_['last']
            if not last:
                accounts += slice_['accounts']
                break
    return {
        'total_storage_bytes': total,
        'accounts_count': accounts,
        'default_quota_bytes': relay.settings[SETTING],
    }


def get(relay: Relay, username: str) -> dict[str, Any]:
    """Of one account.  `max_bytes` 0 = no limit."""
    return _shown(_usage(relay, relay.address(username)))


def set_(relay: Relay, username: str, max_bytes: int) -> dict[str, Any]:
    """Give an account its own quota, or with 0 or less the default."""
    address = relay.address(username)
    quota = _checked(max_bytes)
    relay.call(address, 'quota_set', quota=quota if quota > 0 else -1)
    return {'username': address, 'max_bytes': max_bytes}


def reset(relay: Relay, username: str) -> dict[str, Any]:
    """Back to the default."""
    address = relay.address(username)
    relay.call(address, 'quota_set', quota=-1)
    return {'reset': address}


def set_default(relay: Relay, max_bytes: int) -> dict[str, Any]:
    """Of all accounts without their own; 0 or less takes what the configuration says."""
    quota = _checked(max_bytes)
    if quota > 0:
        relay.control.set_setting(SETTING, str(quota))
    else:
        relay.control.remove_setting(SETTING)
    relay.publish('settings', {})
    return {'username': DEFAULT_NAME, 'max_bytes': max_bytes}


def usage(relay: Relay) -> Iterator[dict[str, Any]]:
    """Every account with what it holds, shard by shard."""
    for shard in range(relay.shards):
        after = ''
        while page := relay.call_shard(shard, 'quota_list', after=after, limit=PAGE):
            for row in page:
                yield _shown(row) | {
                    'created_at': row['created'],
                    'messages': row['messages'],
                }
            after = page[-1]['address']


def message_size(relay: Relay, username: str) -> dict[str, Any]:
    """The largest message an account may send; 0 = no limit."""
    return _limit(relay, _usage(relay, relay.address(username)))


def set_message_size(relay: Relay, username: str, max_bytes: int) -> dict[str, Any]:
    """A limit below that of the relay for one account; 0 or less takes it away."""
    address = relay.address(username)
    limit = max(0, _checked(max_bytes))
    return _limit(relay, relay.call(address, 'message_size_set', limit=limit))


def _checked(number: object) -> int:
    if type(number) is not int or abs(number) > MOST:
        raise Refused('invalid', 'max_bytes must be a whole number of bytes')
    return number


def _usage(relay: Relay, address: str) -> dict[str, Any]:
    answer: dict[str, Any] = relay.call(address, 'quota_info')
    return answer


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        'username': row['address'],
        'used_bytes': row['used'],
        'max_bytes': row['quota'],
        'is_default': not row['own'],
    }


def _limit(relay: Relay, row: dict[str, Any]) -> dict[str, Any]:
    limits = [
        one for one in (relay.settings['limits.max_message_size'], row['message_size']) if one
    ]
    return {
        'username': row['address'],
        'append_limit': min(limits, default=0),
        'is_default': not row['message_size'],
    }
