"""/admin/dns: where mail for a domain goes instead of where DNS says."""

from __future__ import annotations

from typing import Any

from madmail.admin import endpoints
from madmail.admin.relay import Relay
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer, Handler


def get(relay: Relay, body: dict[str, Any]) -> Answer:
    """All of them by `lookup_key`: `{"overrides": [entry], "total"}`.

    An entry has `lookup_key`, `target_host`, `comment`, `verify` (whether the certificate
    must be right), and `created_at` and `updated_at` in Unix seconds.
    """
    entries = endpoints.entries(relay)
    return Answer(body={'overrides': entries, 'total': len(entries)})


def post(relay: Relay, body: dict[str, Any]) -> Answer:
    """201 and the entry: mail for `lookup_key` goes to `target_host` (`comment`, `verify`).

    The key is a domain, `*.domain`, an IP address or `*`; the target a host or a URL of
    https, http or smtp.
    """
    verify = None if body.get('verify') is None else fields.boolean(body, 'verify')
    entry = endpoints.set_(
        relay,
        fields.text(body, 'lookup_key'),
        fields.text(body, 'target_host'),
        fields.text(body, 'comment', ''),
        verify,
    )
    return Answer(201, entry)


def delete(relay: Relay, body: dict[str, Any]) -> Answer:
    """Ask DNS again for `lookup_key`: `{"deleted"}`; 404 if it has no entry."""
    return Answer(body={'deleted': endpoints.remove(relay, fields.text(body, 'lookup_key'))})


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/dns': {'GET': get, 'POST': post, 'DELETE': delete},
}
