"""/admin/message-size and /admin/federation-size: how large messages may be."""

from __future__ import annotations

from typing import Any

from madmail.admin import quota, sizes
from madmail.admin.relay import Relay
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer, Handler


def get_message(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"effective_bytes", "effective", "appendlimit", "max_message_size", "config_bytes",
    "config"}`; the third and fourth are null unless set here.

    With `username` `{"username", "append_limit", "is_default"}` of that account, in octets.
    """
    username = fields.text(body, 'username', '')
    if username:
        return Answer(body=quota.message_size(relay, username))
    return Answer(body=_message(relay))


def put_message(relay: Relay, body: dict[str, Any]) -> Answer:
    """Set the limit to `size` (`64M`), or that of `username`; members of GET and `size`."""
    size = fields.text(body, 'size')
    username = fields.text(body, 'username', '')
    if username:
        limit = quota.set_message_size(relay, username, sizes.parse(size))
        return Answer(body={'size': size, **limit})
    sizes.set_(relay, sizes.MESSAGE, size)
    return Answer(body={'size': size, **_message(relay)})


def delete_message(relay: Relay, body: dict[str, Any]) -> Answer:
    """Back to the configured limit, or for `username` to the common one: `{"reset": true, …}`."""
    username = fields.text(body, 'username', '')
    if username:
        return Answer(body={'reset': True, **quota.set_message_size(relay, username, 0)})
    sizes.reset(relay, sizes.MESSAGE)
    return Answer(body={'reset': True, **_message(relay)})


def get_federation(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"effective_bytes", "effective", "max_federation_size", "config_bytes", "config"}`."""
    return Answer(body=_federation(relay))


def put_federation(relay: Relay, body: dict[str, Any]) -> Answer:
    """Set what other relays may deliver over HTTP to `size`; members of GET and `size`."""
    size = fields.text(body, 'size')
    sizes.set_(relay, sizes.FEDERATION, size)
    return Answer(body={'size': size, **_federation(relay)})


def delete_federation(relay: Relay, body: dict[str, Any]) -> Answer:
    """Back to the configured limit: `{"reset": true, …}`."""
    sizes.reset(relay, sizes.FEDERATION)
    return Answer(body={'reset': True, **_federation(relay)})


def federation_members(relay: Relay) -> dict[str, Any]:
    """As /admin/settings/federation has them."""
    state = sizes.state(relay, sizes.FEDERATION)
    return {
        'max_federation_size': state['row'],
        'federation_size_effective': state['effective'],
        'federation_size_effective_bytes': state['effective_bytes'],
    }


def _message(relay: Relay) -> dict[str, Any]:
    state = sizes.state(relay, sizes.MESSAGE)
    row = state.pop('row')
    return {**state, 'appendlimit': row, 'max_message_size': row}


def _federation(relay: Relay) -> dict[str, Any]:
    state = sizes.state(relay, sizes.FEDERATION)
    return {**state, 'max_federation_size': state.pop('row')}


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/message-size': {'GET': get_message, 'PUT': put_message, 'DELETE': delete_message},
    '/admin/federation-size': {
        'GET': get_federation,
        'PUT': put_federation,
        'DELETE': delete_federation,
    },
}
