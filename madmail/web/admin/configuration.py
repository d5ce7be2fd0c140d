"""/admin/configuration: all settings by our own names, see `madmail.settings`."""

from __future__ import annotations

from typing import Any

from madmail.admin import settings
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.settings.declarations import SECTIONS, SETTINGS
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer, Handler

VALUE_LIMIT = 4096  # characters


def get(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"sections": [{"name", "title"}], "settings": [entry]}`, in the order of the file.

    An entry has `name`, `section`, `value` and `default` as texts, `source` (default, file
    or live), `applies` (when a change counts), `unit`, `doc`, `kind`, `expected` (what is
    accepted, in words), `choices`, `secret` (the value is masked then) and `changeable`;
    what is not stands in the configuration file only.
    """
    sections = [{'name': name, 'title': title} for name, title in SECTIONS.items()]
    return Answer(body={'sections': sections, 'settings': settings.described(relay)})


def post(relay: Relay, body: dict[str, Any]) -> Answer:
    """`action` `set` with `name` and the text `value`, or `reset`: the entry, in force.

    Listeners and processes are reloaded before the answer comes; what the relay cannot
    work with is refused, and the old value stays.
    """
    word = fields.action(body, 'set', 'reset')
    name = fields.text(body, 'name')
    text = _value(body) if word == 'set' else None
    settings.change(relay, name, text)
    if name not in SETTINGS:
        return Answer(body={'name': name})  # a row of another version, removed
    return Answer(body=settings.describe(relay, name))


def _value(body: dict[str, Any]) -> str:
    """Any text of one line, an empty one, too."""
    value = body.get('value')
    if not isinstance(value, str):
        raise Refused('invalid', 'value must be a text')
    if len(value) > VALUE_LIMIT or any(sign in value for sign in '\0\r\n'):
        raise Refused('invalid', 'value must be one line')
    return value.strip()


RESOURCES: dict[str, dict[str, Handler]] = {'/admin/configuration': {'GET': get, 'POST': post}}
