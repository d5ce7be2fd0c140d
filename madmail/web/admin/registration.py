"""/admin/registration, /admin/registration/jit, /admin/registration-token: who gets an account."""

from __future__ import annotations

from typing import Any

from madmail.admin import registration, tokens
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.web.admin import fields, times
from madmail.web.admin.answer import Answer, Handler


def get(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"status": "open" or "closed", "token_required"}`: open, but with a token, is open, too."""
    return _switches(registration.status(relay))


def post(relay: Relay, body: dict[str, Any]) -> Answer:
    """`action` is `open`, `close`, or `token` for accounts by registration token only.

    `open` leaves it at that if tokens are required already.
    """
    word = fields.action(body, 'open', 'close', 'closed', 'token')
    found = registration.status(relay)
    if word == 'open' and found['token_required']:
        return _switches(found)
    return _switches(registration.set_registration(relay, 'closed' if word == 'close' else word))


def get_jit(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"status": "enabled" or "disabled"}`: whether first logins make accounts."""
    return _jit(registration.status(relay))


def post_jit(relay: Relay, body: dict[str, Any]) -> Answer:
    """`action` is `enable`, `disable`, or `auto`: while registration is open."""
    word = fields.action(body, 'enable', 'disable', 'auto')
    value = None if word == 'auto' else word == 'enable'
    return _jit(registration.set_jit(relay, value))


def list_tokens(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"tokens": [entry], "total"}`, newest first.

    An entry has `token`, `max_uses`, `used_count`, `pending_reservations` (accounts that
    nobody has logged in to yet), `comment`, `created_at`, `expires_at` or null, and
    `status`: active, exhausted or expired.
    """
    found = [_entry(one) for one in tokens.entries(relay)]
    return Answer(body={'tokens': found, 'total': len(found)})


def post_token(relay: Relay, body: dict[str, Any]) -> Answer:
    """Make a token (201), or change the terms of one that exists (200): the entry.

    `token` (else made up), `max_uses` (1), `comment`, and `expires_at` (RFC 3339) or
    `expires_in` (72h, 30d, or seconds).
    """
    token = fields.text(body, 'token', '')
    uses = fields.integer(body, 'max_uses', 1)
    uses = uses if uses > 0 else 1
    comment = fields.text(body, 'comment', '')
    expires = tokens.expiry(fields.text(body, 'expires_at', '') or _length(body))
    if token and relay.control.token(token) is not None:
        changed = tokens.change(relay, token, max_uses=uses, comment=comment, expires=expires)
        return Answer(200, _entry(changed))
    return Answer(
        201, _entry(tokens.create(relay, token, max_uses=uses, comment=comment, expires=expires))
    )


def delete_token(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"deleted"}`; accounts made with it stay."""
    token = fields.text(body, 'token')
    tokens.remove(relay, token)
    return Answer(body={'deleted': token})


def _switches(found: dict[str, Any]) -> Answer:
    status = 'closed' if found['registration'] == 'closed' else 'open'
    return Answer(body={'status': status, 'token_required': found['token_required']})


def _jit(found: dict[str, Any]) -> Answer:
    return Answer(body={'status': 'enabled' if found['jit_enabled'] else 'disabled'})


def _length(body: dict[str, Any]) -> str:
    """`expires_in`, a text or a number of seconds."""
    value = body.get('expires_in')
    if type(value) is int:
        if value < 0:
            raise Refused('invalid', 'expires_in must not be negative')
        return str(value) if value else ''
    return fields.text(body, 'expires_in', '')


def _entry(token: dict[str, Any]) -> dict[str, Any]:
    ends = token['expires_at']
    return {
        'token': token['token'],
        'max_uses': token['max_uses'],
        'used_count': token['used_count'],
        'pending_reservations': token['pending'],
        'comment': token['comment'],
        'created_at': times.text(token['created_at']),
        'expires_at': None if ends is None else times.text(ends),
        'status': token['status'],
    }


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/registration': {'GET': get, 'POST': post},
    '/admin/registration/jit': {'GET': get_jit, 'POST': post_jit},
    '/admin/registration-token': {
        'GET': list_tokens,
        'POST': post_token,
        'DELETE': delete_token,
    },
}
