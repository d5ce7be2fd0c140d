"""/admin/invitation and /admin/code: links that make accounts, and texts as codes to scan."""

from __future__ import annotations

from typing import Any

import segno

from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer, Handler
from madmail.web.site import pages

CODE_LIMIT = 1200  # characters; larger codes are hard to scan


def get_invitation(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"link", "page"}`: what a new user scans or opens, with the registration `token` if given.

    Either is empty where there is no such thing: a link alone makes an account only where
    registration is open or the token says so.
    """
    token = fields.text(body, 'token', '')
    settings = relay.settings
    page = ''
    if settings['site.enabled'] and settings['listen.https']:
        page = f'{pages.origin(settings)}/{f"inv/{token}" if token else ""}'
    return Answer(body={'link': pages.join_link(settings, token), 'page': page})


def get_code(relay: Relay, body: dict[str, Any]) -> Answer:
    """`text` as a QR code: `{"size", "rows"}`, each row a text of 0 (light) and 1 (dark)."""
    text = fields.text(body, 'text', limit=CODE_LIMIT)
    try:
        code = segno.make(text, error='l', micro=False)
    except (ValueError, UnicodeError):
        raise Refused('invalid', 'text does not fit into a code') from None
    rows = [''.join('1' if dark else '0' for dark in row) for row in code.matrix]
    return Answer(body={'size': len(rows), 'rows': rows})


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/invitation': {'GET': get_invitation},
    '/admin/code': {'GET': get_code},
}
