"""Accounts: who there is, new ones, and the end of old ones."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterator
from typing import Any

from madmail.admin import blocklist
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay

NAME_LENGTH = 12
PASSWORD_LENGTH = 24
TRIES = 5  # names drawn before we give up
PAGE = 500

_NAME = string.ascii_lowercase + string.digits
_PASSWORD = string.ascii_letters + string.digits + '!#$()*+,-./:;<=>?@[]^_{|}~'


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
                        'first_login_at': account.get('first_login', account['created']),
                        'last_login_at': account['last_login'],
                    }
            after = page[-1]['address']


def create_random(relay: Relay) -> dict[str, str]:
    """`email` and `password` of a new account.  Refused: failed, unavailable."""
    password = ''.join(secrets.choice(_PASSWORD) for _ in range(PASSWORD_LENGTH))
    for _ in range(TRIES):
        name = ''.join(secrets.choice(_NAME) for _ in range(NAME_LENGTH))
        address = relay.address(name)
        if relay.control.blocked(address) is not None:
            continue
        try:
            relay.call(address, 'account_create', password=password.encode())
        except Refused as refused:
            if refused.word not in ('exists', 'invalid'):
                raise
        else:
            return {'email': address, 'password': password}
    raise Refused('failed', 'no free name was found')


def delete(relay: Relay, address: str, reason: str, *, block: bool = True) -> bool:
    """With all its mail; unless told otherwise nobody gets the name again.

    Whether there was such an account; it is blocked all the same.
    """
    if block:
        blocklist.block(relay, address, reason)
    try:
        relay.call(address, 'account_delete')
    except Refused as refused:
        if refused.word != 'missing':
            raise
        return False
    return True
