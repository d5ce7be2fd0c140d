"""/admin/exchangers: relays that pass mail on where two cannot reach each other."""

from __future__ import annotations

from typing import Any

from madmail.admin import exchangers
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.web.admin import fields, times
from madmail.web.admin.answer import Answer, Handler

TEXTS = ('url', 'protocol', 'token', 'mode', 'pull_token', 'verify')
LISTS = ('fetches', 'domains')
SWITCHES = ('enabled', 'polls', 'carries')


def get(relay: Relay, body: dict[str, Any]) -> Answer:
    """All of them: `{"exchangers": [entry], "total"}`.

    An entry has `name`, `url`, `enabled`, `poll_interval` in seconds and `last_poll_at`, and
    what else the relay knows of it.
    """
    found = [_shown(one) for one in exchangers.entries(relay)]
    return Answer(body={'exchangers': found, 'total': len(found)})


def post(relay: Relay, body: dict[str, Any]) -> Answer:
    """201 and the entry: `name`, `url`, `poll_interval`; one that is there is changed.

    With members of PUT beside these it is made anew, and 409 if it is there.
    """
    name = fields.text(body, 'name')
    options = _options(body)
    if options.keys() - {'url', 'poll_interval'}:
        return Answer(201, _shown(exchangers.add(relay, name, **options)))
    entry = exchangers.set_(
        relay,
        name,
        fields.text(body, 'url', ''),
        fields.integer(body, 'poll_interval', exchangers.INTERVAL, least=1),
    )
    return Answer(201, _shown(entry))


def put(relay: Relay, body: dict[str, Any]) -> Answer:
    """Change `enabled`, `url`, `poll_interval`, `polls`, `protocol`, `token`, `fetches`, `domains`,
    `mode`, `carries`, `pull_token` or `verify` of `name`: `{"updated"}` and the entry.

    An empty `pull_token` makes a new one, which only this answer has.
    """
    name = fields.text(body, 'name')
    entry = exchangers.update(relay, name, **_options(body))
    return Answer(body={'updated': name, **_shown(entry)})


def delete(relay: Relay, body: dict[str, Any]) -> Answer:
    """Mail goes other ways from now on: `{"deleted"}`; 404 if there is no `name`."""
    return Answer(body={'deleted': exchangers.remove(relay, fields.text(body, 'name'))})


def _options(body: dict[str, Any]) -> dict[str, Any]:
    """The members that are there; an empty text means something for a token."""
    found: dict[str, Any] = {}
    for name in TEXTS:
        if body.get(name) is not None:
            found[name] = fields.text(body, name, '')
    for name in SWITCHES:
        if body.get(name) is not None:
            found[name] = fields.boolean(body, name)
    for name in LISTS:
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise Refused('invalid', f'{name} must be a list of domains')
        found[name] = value
    if body.get('poll_interval') is not None:
        found['poll_interval'] = fields.integer(body, 'poll_interval', least=1)
    return found


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    """With times as text, and what it is fetched with as whether there is one."""
    said = dict(entry)
    for name in [name for name in said if name.endswith('_at')]:
        said[name] = times.text(said[name]) if said[name] else None
    return said


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/exchangers': {'GET': get, 'POST': post, 'PUT': put, 'DELETE': delete},
}
