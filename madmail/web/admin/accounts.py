"""/admin/accounts: who there is, new ones, and the end of old ones."""

from __future__ import annotations

from typing import Any

from madmail.admin import accounts
from madmail.admin.relay import Relay
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer, Handler

REASON = 'deleted via admin panel'


def get(relay: Relay, body: dict[str, Any]) -> Answer:
    """All accounts by name: `{"accounts": [entry], "total"}`.

    An entry has `username`, `used_bytes`, `max_bytes` (0 = no limit), `is_default_quota`,
    and `created_at`, `first_login_at` and `last_login_at` in Unix seconds, of which 0 is
    never.  `q` selects the names that contain it, `offset` and `limit` a part; `total`
    counts all that were selected.
    """
    wanted = fields.text(body, 'q', '').lower()
    offset = fields.integer(body, 'offset', 0, least=0)
    limit = fields.integer(body, 'limit', 0, least=0)
    found = [one for one in accounts.entries(relay) if wanted in one['username']]
    found.sort(key=lambda one: one['username'])
    part = found[offset : offset + limit if limit else None]
    return Answer(body={'accounts': part, 'total': len(found)})


def post(relay: Relay, body: dict[str, Any]) -> Answer:
    """Make an account with a random name: 201 `{"email", "password"}`."""
    return Answer(201, accounts.create_random(relay))


def delete(relay: Relay, body: dict[str, Any]) -> Answer:
    """Delete `username` with all its mail, block the name: `{"deleted", "blocked", "reason"}`."""
    address = relay.address(fields.text(body, 'username'))
    accounts.delete(relay, address, REASON)
    return Answer(body={'deleted': address, 'blocked': address, 'reason': REASON})


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/accounts': {'GET': get, 'POST': post, 'DELETE': delete},
}
