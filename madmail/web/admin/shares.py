"""/admin/shares: contact pages."""

from __future__ import annotations

from typing import Any

from madmail.admin import shares
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer, Handler


def get(relay: Relay, body: dict[str, Any]) -> Answer:
    """All of them: `{"shares": [{"slug", "url", "name", "created"}], "total"}`."""
    found = shares.all_(relay)
    return Answer(body={'shares': found, 'total': len(found)})


def post(relay: Relay, body: dict[str, Any]) -> Answer:
    """201 and the entry: `/slug` leads to the invitation `url` of `name`."""
    _on(relay)
    slug, url = fields.text(body, 'slug'), fields.text(body, 'url')
    entry, _ = shares.create(relay, slug, url, fields.text(body, 'name', ''))
    return Answer(201, entry)


def put(relay: Relay, body: dict[str, Any]) -> Answer:
    """Change `url` and `name` of `slug`: `{"updated"}`; 404 if there is none."""
    _on(relay)
    slug, url = fields.text(body, 'slug'), fields.text(body, 'url')
    shares.edit(relay, slug, url, fields.text(body, 'name', ''))
    return Answer(body={'updated': slug})


def delete(relay: Relay, body: dict[str, Any]) -> Answer:
    """Remove `slug`: `{"deleted"}`; 404 if there is none."""
    slug = fields.text(body, 'slug')
    shares.remove(relay, slug)
    return Answer(body={'deleted': slug})


def _on(relay: Relay) -> None:
    if not relay.settings['site.sharing']:
        raise Refused('unavailable', 'contact pages are switched off (site.sharing)')


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/shares': {'GET': get, 'POST': post, 'PUT': put, 'DELETE': delete},
}
