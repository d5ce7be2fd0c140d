"""/admin/blocklist: names that can neither log in nor be created."""

from __future__ import annotations

from typing import Any

from madmail.admin import blocklist
from madmail.admin.relay import Relay
from madmail.web.admin import fields, times
from madmail.web.admin.answer import Answer, Handler


def get(relay: Relay, body: dict[str, Any]) -> Answer:
    """All entries, newest first: `{"blocked": [{username, reason, blocked_at}], "total"}`.

    `blocked_at` is a text in RFC 3339.
    """
    entries = sorted(blocklist.entries(relay), key=lambda one: -one['blocked_at'])
    shown = [{**one, 'blocked_at': times.text(one['blocked_at'])} for one in entries]
    return Answer(body={'blocked': shown, 'total': len(shown)})


def post(relay: Relay, body: dict[str, Any]) -> Answer:
    """Block `username` (`reason`) and end its sessions: `{"blocked"}`.  Mail and account stay."""
    address = relay.address(fields.text(body, 'username'))
    blocklist.block(relay, address, fields.text(body, 'reason', blocklist.REASON))
    return Answer(body={'blocked': address})


def delete(relay: Relay, body: dict[str, Any]) -> Answer:
    """Unblock `username`: `{"unblocked": username}`; 404 if it is not blocked."""
    address = relay.address(fields.text(body, 'username'))
    blocklist.unblock(relay, address)
    return Answer(body={'unblocked': address})


def patch(relay: Relay, body: dict[str, Any]) -> Answer:
    """`action` `delete_all`: unblock everybody, `{"unblocked": number}`."""
    fields.action(body, 'delete_all')
    return Answer(body={'unblocked': blocklist.clear(relay)})


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/blocklist': {'GET': get, 'POST': post, 'DELETE': delete, 'PATCH': patch},
}
