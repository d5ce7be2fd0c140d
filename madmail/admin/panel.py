"""Settings and switches by the names that panels know, see `catalogue`."""

from __future__ import annotations

from functools import partial
from typing import Any

from madmail.admin import ports, proxy
from madmail.admin.catalogue import LAST_WEB, Name, Switch
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.admin.settings import MASK, write
from madmail.settings.declarations import SETTINGS
from madmail.settings.kinds import Wrong

TEXT_LIMIT = 4096  # characters
TRUE = ('1', 'true', 't', 'yes', 'y', 'on', 'enable', 'enabled')


def value(relay: Relay, one: Name, *, secrets: bool = False) -> dict[str, Any]:
    """`key`, `value` (what is in force), `is_set` and `restart_required`.

    `is_set` is true only for what was changed while the relay runs, and that is in
    force: a panel changes its own address to it.  Nothing needs a restart: what
    applies on reload was reloaded when it was set.
    """
    text, is_set = one.default, False
    if one.part:
        text, is_set = _listener(relay, one)
    elif one.setting:
        is_set = relay.settings.source(one.setting) == 'live'
        found = relay.settings[one.setting] or relay.settings[one.fallback or one.setting]
        text = one.show(found) if one.show else SETTINGS[one.setting].kind.plain(found)
    if one.secret and text and not secrets:
        text = MASK
    return {'key': one.key, 'value': text, 'is_set': is_set, 'restart_required': False}


def _listener(relay: Relay, one: Name) -> tuple[str, bool]:
    service = ports.BY_LISTENER[one.setting.rpartition('.')[2]]
    state = ports.state(relay, service)
    moved, restricted = ports.changed(relay, service)
    if one.part == 'local':
        return 'true' if state['mode'] == 'local' else 'false', restricted
    # Panels make links for mail programs of it, with TLS, and take the usual port
    # of that for an empty one.
    return str(state['port']) if moved else '', moved


def set_(relay: Relay, one: Name, text: str) -> None:
    """In force on return.  Refused: invalid, failed, busy."""
    if one.refusal:
        raise Refused('invalid', one.refusal)
    if len(text) > TEXT_LIMIT or any(sign in text for sign in '\0\r\n'):
        raise Refused('invalid', f'{one.name} is one line of text')
    if one.secret and text == MASK:
        raise Refused('invalid', f'{one.name} is shown masked; give a new one')
    if one.part == 'port':
        if not (text.isascii() and text.isdigit()):
            raise Refused('invalid', f'{one.name} is a number from 1 to 65535')
        ports.move(relay, _service(one), int(text))
    elif one.part == 'local':
        ports.restrict(relay, _service(one), text.strip().lower() in TRUE)
    else:
        try:
            text = one.parse(text)
        except Wrong as wrong:
            raise Refused('invalid', f'{one.name}: expected {wrong}') from None
        proxy.WRITERS.get(one.setting, partial(write, setting=one.setting))(relay, text=text)
        if one.setting == 'panel.path' and not relay.settings['panel.enabled']:
            write(relay, 'panel.enabled', 'true')  # as panels expect


def reset(relay: Relay, one: Name) -> None:
    """Back to what the configuration file says.  Refused: invalid, failed, busy."""
    if one.refusal:
        raise Refused('invalid', one.refusal)
    if one.part == 'port':
        ports.move_back(relay, _service(one))
    elif one.part == 'local':
        ports.restrict_as_told(relay, _service(one))
    else:
        proxy.WRITERS.get(one.setting, partial(write, setting=one.setting))(relay, text=None)


def is_on(relay: Relay, switch: Switch) -> bool:
    return bool(
        switch.setting
        and not switch.refusal
        and relay.settings[switch.setting] != SETTINGS[switch.setting].kind.parse(switch.off)
    )


def turn(relay: Relay, switch: Switch, on: bool) -> None:
    """Switch a service; it is so on return.

    Refused: invalid, failed, busy, forbidden (it would shut the caller out).
    """
    if switch.refusal:
        if on:
            raise Refused('invalid', switch.refusal)
        return  # it is off
    if on == is_on(relay, switch):
        return
    if not on and switch.setting in LAST_WEB:
        others = [name for name in LAST_WEB if name != switch.setting]
        if not any(relay.settings[name] for name in others):
            raise Refused('forbidden', 'the admin API itself is served by nothing else')
    kind = SETTINGS[switch.setting].kind
    configured = relay.settings.configured(switch.setting) != kind.parse(switch.off)
    write(relay, switch.setting, None if configured == on else switch.on if on else switch.off)


def _service(one: Name) -> str:
    return ports.BY_LISTENER[one.setting.rpartition('.')[2]]
