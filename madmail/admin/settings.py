"""Settings by the names that panels know, see `catalogue`."""

from __future__ import annotations

import ipaddress
from typing import Any

from madmail.admin.catalogue import Name, Switch
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.settings import Address, SettingError
from madmail.settings.declarations import SETTINGS, Applies
from madmail.settings.effective import Settings, unknown
from madmail.settings.kinds import Wrong

MASK = '********'  # stands for a secret that is there
TEXT_LIMIT = 4096  # characters
RELOAD_TIME = 120.0  # seconds


def value(relay: Relay, one: Name, *, secrets: bool = False) -> dict[str, Any]:
    """`key`, `value` (what is in force), `is_set` and `restart_required`.

    `is_set` is true only for what was changed while the relay runs, and that is in
    force: a panel changes its own address to it.
    """
    text = one.default
    if one.setting:
        text = _shown(relay.settings, one)
    if one.secret and text and not secrets:
        text = MASK
    return {
        'key': one.key,
        'value': text,
        'is_set': bool(one.setting) and relay.settings.source(one.setting) == 'live',
        'restart_required': False,
    }


def set_(relay: Relay, one: Name, text: str) -> None:
    """In force at once.  Refused: invalid."""
    if one.refusal:
        raise Refused('invalid', one.refusal)
    if len(text) > TEXT_LIMIT or any(sign in text for sign in '\0\r\n'):
        raise Refused('invalid', f'{one.name} is one line of text')
    if one.secret and text == MASK:
        raise Refused('invalid', f'{one.name} is shown masked; give a new one')
    try:
        write(relay, one.setting, one.parse(text))
    except Wrong as wrong:
        raise Refused('invalid', f'{one.name}: expected {wrong}') from None


def reset(relay: Relay, one: Name) -> None:
    """Back to what the configuration file says.  Refused: invalid."""
    if one.refusal:
        raise Refused('invalid', one.refusal)
    write(relay, one.setting, None)


def write(relay: Relay, setting: str, text: str | None) -> None:
    """Store the row of one of our settings, None = remove it.

    What applies on reload is reloaded; if the relay cannot serve with it (a port
    that is taken), the row is put back as it was.  Refused: invalid, failed, busy.
    """
    trial = Settings(relay.settings.given, relay.settings.origin)
    rows = relay.control.settings()
    try:
        for name, row in rows.items():
            if name in SETTINGS and name != setting:
                try:
                    trial.store(name, row)
                except SettingError:
                    continue  # not in force either
        trial.store(setting, text)
    except SettingError as error:
        raise Refused('invalid', str(error)) from None
    _put(relay, setting, text)
    if SETTINGS[setting].applies is Applies.RELOAD and relay.running:
        try:
            relay.ask_master({'command': 'reload'}, timeout=RELOAD_TIME)
        except Refused as refused:
            _put(relay, setting, rows.get(setting))
            raise Refused(refused.word, f'the old value is kept: {refused.text}') from None
    relay.publish('settings', {})


def _put(relay: Relay, setting: str, text: str | None) -> None:
    if text is None:
        relay.control.remove_setting(setting)
    else:
        relay.control.set_setting(setting, text)


def everything(relay: Relay) -> list[dict[str, Any]]:
    """Every setting: name, value and default as text, source, when it applies, what it is."""
    return [_told(relay, name) for name in SETTINGS]


def one(relay: Relay, name: str) -> dict[str, Any]:
    """One of `everything`.  Refused: missing."""
    if name not in SETTINGS:
        raise Refused('missing', unknown(name))
    return _told(relay, name)


def change(relay: Relay, name: str, text: str | None) -> dict[str, Any]:
    """Set one of ours, None = back to what the file or default says; as `one` tells it.

    Refused: missing, invalid, forbidden, failed, busy.
    """
    if name not in SETTINGS:
        raise Refused('missing', unknown(name))
    if not SETTINGS[name].storable:
        raise Refused('forbidden', f'{name} is set in the configuration file only')
    write(relay, name, text)
    return _told(relay, name)


def _told(relay: Relay, name: str) -> dict[str, Any]:
    setting = SETTINGS[name]
    return {
        'name': name,
        'value': setting.kind.plain(relay.settings[name]),
        'default': setting.kind.plain(setting.default),
        'source': relay.settings.source(name),
        'applies': setting.applies.value,
        'unit': setting.unit,
        'doc': setting.doc,
    }


def is_on(relay: Relay, switch: Switch) -> bool:
    return bool(switch.setting and not switch.refusal and relay.settings[switch.setting])


def turn(relay: Relay, switch: Switch, on: bool) -> bool:
    """Switch a service; whether that needs a reload.  Refused: invalid."""
    if switch.refusal:
        if on:
            raise Refused('invalid', switch.refusal)
        return False  # it is off
    if on != is_on(relay, switch):
        write(relay, switch.setting, None)
        if on != is_on(relay, switch):
            write(relay, switch.setting, switch.on if on else switch.off)
    return SETTINGS[switch.setting].applies is not Applies.LIVE


def local_only(addresses: tuple[Address, ...]) -> bool:
    """Whether only this host can connect."""
    return bool(addresses) and all(
        one.host == 'localhost' or ipaddress.ip_address(one.host).is_loopback for one in addresses
    )


def _shown(settings: Settings, one: Name) -> str:
    value = settings[one.setting]
    if one.name.endswith('_port') and settings.source(one.setting) != 'live':
        # Panels make links for mail programs of it, with TLS, and take the usual port
        # of that for an empty one.
        return ''
    if one.setting.startswith('listen.'):
        if one.name.endswith('_local_only'):
            return 'true' if local_only(value) else 'false'
        return str(value[0].port) if value else ''
    return one.show(value)
