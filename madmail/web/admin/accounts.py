"""/admin/accounts: who there is, new ones, and the end of old ones."""

from __future__ import annotations

from typing import Any

from madmail.admin import accounts, registration, transfer
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer, Handler

REASON = 'deleted via admin panel'
ALL_REASON = 'bulk delete via admin'


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
    """Make an account: 201 `{"email", "password", "dclogin_url"}`.

    Name and password are made up unless `username` and `password` say otherwise.
    """
    username, password = fields.text(body, 'username', ''), body.get('password')
    if password is not None and not isinstance(password, str):
        raise Refused('invalid', 'password must be a text')
    if username:
        made = registration.create_named(relay, relay.address(username), password or '')
        return Answer(201, made)
    if password:
        raise Refused('invalid', 'a password needs a username')
    return Answer(201, registration.create_account(relay, operator=True))


def delete(relay: Relay, body: dict[str, Any]) -> Answer:
    """Delete `username` with all its mail, block the name: `{"deleted", "blocked", "reason"}`."""
    address = relay.address(fields.text(body, 'username'))
    accounts.delete(relay, address, REASON)
    return Answer(body={'deleted': address, 'blocked': address, 'reason': REASON})


def patch(relay: Relay, body: dict[str, Any]) -> Answer:
    """By `action`: `export`, `import`, `delete_all` or `set_password`.

    `export` answers `{"users": [{"username", "hash"}], "total"}`, `import` takes `users`, a
    list of `{"username", "hash" or "password"}`, and answers `{"imported", "skipped",
    "errors"}`; what exists stays as it is.  `delete_all` answers `{"deleted"}` and blocks
    the names.  `set_password` takes `username` and `password` and ends the sessions.
    """
    word = fields.action(body, 'export', 'import', 'delete_all', 'set_password')
    if word == 'export':
        if not relay.settings['accounts.export_by_api']:
            raise Refused('forbidden', 'accounts.export_by_api is off')
        users = list(transfer.export(relay))
        return Answer(body={'users': users, 'total': len(users)})
    if word == 'import':
        return Answer(body=transfer.import_(relay, body.get('users')))
    if word == 'delete_all':
        return Answer(body={'deleted': accounts.delete_all(relay, ALL_REASON)})
    address = relay.address(fields.text(body, 'username'))
    password = body.get('password')
    if not isinstance(password, str) or not password:
        raise Refused('invalid', 'password is required')
    accounts.set_password(relay, address, password.encode())
    return Answer(body={'username': address})


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/accounts': {'GET': get, 'POST': post, 'PATCH': patch, 'DELETE': delete},
}
