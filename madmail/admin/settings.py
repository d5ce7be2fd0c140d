"""All settings of the relay, and changing them for good, also while it runs.

A change is a row of the control database, which is laid over what the file says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.settings import SettingError, Settings, overlay
from madmail.settings.declarations import SETTINGS, Applies
from madmail.settings.effective import unknown

RELOAD_TIME = 120.0  # seconds
# Last parts of names whose values are masked.
SECRETS = ('secret', 'former_secret', 'password', 'acme_eab_secret')
MASK = '********'  # stands for a secret that is there


def write(relay: Relay, setting: str, text: str | None) -> None:
    """Store the row of one of our settings, None = remove it; in force on return.

    What applies on reload is reloaded; if the relay cannot serve with it (a port
    that is taken, for a service too, or a log that cannot be opened), the row is put
    back as it was.
    Refused: invalid, failed, busy.
    """
    rows = relay.control.settings()
    if text is None and setting not in rows:
        return
    trial = Settings(relay.settings.given, relay.settings.origin)
    try:
        others = {name: row for name, row in rows.items() if name != setting}
        overlay(trial, others, generation=True)
        trial.store(setting, text)
    except SettingError as error:
        raise Refused('invalid', str(error)) from None
    if setting == 'panel.path':
        _check_hidden(relay, trial)
    _put(relay, setting, text)
    if SETTINGS[setting].applies is Applies.RELOAD and relay.running:
        try:
            relay.ask_master({'command': 'reload'}, timeout=RELOAD_TIME)
        except Refused as refused:
            _put(relay, setting, rows.get(setting))
            raise Refused(refused.word, f'the old value is kept: {refused.text}') from None
        # The process that speaks for us may be one of the former generation.
        relay.settings.store(setting, text)
    relay.publish('settings', {})
    if relay.running and (setting == 'log' or setting.endswith('.enabled')):
        trouble = relay.ask_master({'command': 'trouble'})
        service = setting.removesuffix('.enabled')
        why = trouble.get(setting) or (relay.settings[setting] and trouble.get(service))
        if why:
            _put(relay, setting, rows.get(setting))
            relay.publish('settings', {})
            raise Refused('failed', f'the old value is kept: {why}')


def write_together(relay: Relay, changes: Mapping[str, str | None]) -> None:
    """Store rows of live settings that may fit only jointly; in force on return.

    Refused: invalid.
    """
    rows: dict[str, str] = {**relay.control.settings()}
    for name, text in changes.items():
        if text is None:
            rows.pop(name, None)
        else:
            rows[name] = text
    trial = Settings(relay.settings.given, relay.settings.origin)
    unusable = overlay(trial, rows, generation=True)
    for name in changes:
        if name in unusable:
            raise Refused('invalid', unusable[name])
    for name, text in changes.items():
        _put(relay, name, text)
    relay.publish('settings', {})


def _check_hidden(relay: Relay, trial: Settings) -> None:
    """The dashboard must not stand before a page that is there.  Refused: invalid."""
    path = trial['panel.path']
    if path == trial['admin.path']:
        raise Refused('invalid', 'panel.path: expected another path than admin.path')
    name = path.lstrip('/')
    own = trial['site.www_dir']
    there = own and ((own / name).exists() or (own / f'{name}.html').exists())
    if there or ('/' not in name and relay.control.share(name) is not None):
        raise Refused('invalid', f'panel.path: there is a page at {path} already')


def _put(relay: Relay, setting: str, text: str | None) -> None:
    if text is None:
        relay.control.remove_setting(setting)
    else:
        relay.control.set_setting(setting, text)


def everything(relay: Relay) -> list[dict[str, Any]]:
    """Every setting: name, value and default as text, source, when it applies, what it is.

    Secrets are masked.
    """
    return [_told(relay, name, secrets=False) for name in SETTINGS]


def one(relay: Relay, name: str) -> dict[str, Any]:
    """One of `everything`, a secret in clear.  Refused: missing."""
    if name not in SETTINGS:
        raise Refused('missing', unknown(name))
    return _told(relay, name)


def described(relay: Relay) -> list[dict[str, Any]]:
    """`everything`, and how to ask for each: see `describe`."""
    return [describe(relay, name) for name in SETTINGS]


def describe(relay: Relay, name: str) -> dict[str, Any]:
    """One of `everything`, a secret masked, with `section`, `kind`, `expected` (a text that
    completes "expected …"), `choices` (the words it may be, empty if others may be, too),
    `secret` and `changeable` (False: in the configuration file only).
    """
    setting = SETTINGS[name]
    return {
        **_told(relay, name, secrets=False),
        'section': setting.section,
        'kind': setting.kind.name,
        'expected': setting.kind.expected,
        'choices': list(getattr(setting.kind, 'words', ())),
        'secret': name.rpartition('.')[2] in SECRETS,
        'changeable': setting.storable,
    }


def change(relay: Relay, name: str, text: str | None) -> dict[str, Any]:
    """Set one of ours, None = back to what the file or default says; as `one` tells it.

    Refused: missing, invalid, forbidden, failed, busy.  A row that can never count
    (of another version, or of what only the file says) can be removed.
    """
    known = SETTINGS.get(name)
    countless = known is None or not known.storable
    if text is None and countless and relay.control.remove_setting(name):
        relay.publish('settings', {})
        return {'name': name, 'value': '', 'source': 'none', 'applies': 'never'}
    if known is None:
        raise Refused('missing', unknown(name))
    if not known.storable:
        raise Refused('forbidden', f'{name} is set in the configuration file only')
    write(relay, name, text)
    return _told(relay, name)


def _told(relay: Relay, name: str, *, secrets: bool = True) -> dict[str, Any]:
    setting = SETTINGS[name]
    value = setting.kind.plain(relay.settings[name])
    if value and not secrets and name.rpartition('.')[2] in SECRETS:
        value = MASK
    return {
        'name': name,
        'value': value,
        'default': setting.kind.plain(setting.default),
        'source': relay.settings.source(name),
        'applies': setting.applies.value,
        'unit': setting.unit,
        'doc': setting.doc,
    }
