"""The settings in force: defaults, under the configuration file, under live changes.

One `Settings` lives in each process.  Looking up a name is one dictionary
access and always gives the current, checked, typed value, so code reads a live
setting where it needs it and never keeps a copy.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from madmail.settings.declarations import SETTINGS, Setting
from madmail.settings.kinds import Address, SettingError, Wrong


class Settings:
    """All settings by dotted name; see `declarations` for names and types.

    `given` are the values of the file or caller, already checked; `origin` is
    the file they came from, None without one.
    """

    def __init__(self, given: Mapping[str, object] | None = None, origin: Path | None = None):
        self.given: dict[str, object] = dict(given or {})
        self.origin = origin
        self._live: dict[str, object] = {}
        self._defaults: dict[str, Any] = {name: s.default for name, s in SETTINGS.items()}
        if any(name.startswith('listen.') for name in self.given):
            self._defaults.update((name, ()) for name in SETTINGS if name.startswith('listen.'))
        self._values: dict[str, Any] = {**self._defaults, **self.given}
        check_together(self._values)

    @classmethod
    def defaults(cls, overrides: Mapping[str, object] | None = None, **more: object) -> Settings:
        """Defaults with `overrides` by dotted name; `limits__quota=5` sets limits.quota.

        Raises SettingError for unknown names and values that do not fit.
        """
        given = dict(overrides or {})
        given.update((name.replace('__', '.'), value) for name, value in more.items())
        checked = {}
        for name, value in given.items():
            setting = declared(name)
            try:
                checked[name] = setting.kind.check(value)
            except Wrong as wrong:
                raise SettingError(f'{name}: expected {wrong}, found {value!r}') from None
        return cls(checked)

    @classmethod
    def embedded(cls, state_dir: Path | None = None) -> Settings:
        """What a relay without a configuration file uses: localhost, unprivileged ports."""
        listen = {f'listen.{name}': (Address('127.0.0.1', p),) for name, p in LOCAL_PORTS.items()}
        return cls({**listen, **({'state_dir': state_dir} if state_dir else {})})

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def source(self, name: str) -> str:
        """Where the value comes from: 'live', 'file' or 'default'."""
        declared(name)
        return 'live' if name in self._live else 'file' if name in self.given else 'default'

    def configured(self, name: str) -> Any:
        """The value of file or default, whatever was changed since."""
        declared(name)
        return self.given.get(name, self._defaults[name])

    def stored(self) -> dict[str, object]:
        """The values of the rows that are in force, by name."""
        return dict(self._live)

    def replace(self, name: str, value: object) -> None:
        """Set a value as if the file had given it (command line flags)."""
        self.given[name] = self._values[name] = declared(name).kind.check(value)

    def change(self, name: str, text: str | None) -> None:
        """Apply a live change; None goes back to file or default.

        Raises SettingError if the setting is unknown, not live, or the text does not fit.
        """
        setting = declared(name)
        if not setting.live:
            raise SettingError(f'{name} does not apply live, but {setting.applies.value}')
        self.store(name, text)

    def store(self, name: str, text: str | None) -> None:
        """Apply a stored row, also of a setting that applies on reload; None as for `change`.

        For who is about to start with these settings, or shows them.
        """
        setting = declared(name)
        if not setting.storable:
            raise SettingError(f'{name} is set in the configuration file only')
        live = dict(self._live)
        live.pop(name, None)
        if text is not None:
            try:
                live[name] = setting.kind.parse(text)
            except Wrong as wrong:
                raise SettingError(f'{name}: expected {wrong}, found {text!r}') from None
        self._force(live)

    def lay(self, live: Mapping[str, object]) -> dict[str, str]:
        """Put all rows into force at once, in place of those that were; checked values by name.

        Where they do not fit together, as many as do.  Those left out, and why.
        """
        try:
            self._force(live)
            return {}
        except SettingError:
            pass
        waiting = {name: live[name] for name in SETTINGS if name in live}
        fitting: dict[str, object] = {}
        reasons: dict[str, str] = {}
        while waiting:  # one may fit only behind another
            reasons = {}
            for name, value in list(waiting.items()):
                try:
                    self._force({**fitting, name: value})
                except SettingError as error:
                    reasons[name] = str(error)
                else:
                    fitting[name] = waiting.pop(name)
            if len(reasons) == len(waiting):
                break
        self._force(fitting)
        return reasons

    def _force(self, live: Mapping[str, object]) -> None:
        """Raises SettingError, and leaves everything as it was, if they do not fit together."""
        values = {**self._defaults, **self.given, **live}
        check_together(values)
        self._values, self._live = values, dict(live)


# where a relay without a configuration file listens
LOCAL_PORTS = {
    'smtp': 1025,
    'submission': 1587,
    'submissions': 1465,
    'imap': 1143,
    'imaps': 1993,
    'http': 1080,
    'https': 1443,
    'iroh': 3340,
    'turn': 3478,
    'turns': 5349,
    'shadowsocks': 8388,
}


def declared(name: str) -> Setting:
    """The declaration of `name`.  Raises SettingError that names the nearest known one."""
    try:
        return SETTINGS[name]
    except KeyError:
        raise SettingError(unknown(name)) from None


def unknown(name: str) -> str:
    """Says that there is no setting `name`, and which one was probably meant."""
    last = name.rpartition('.')[2]
    near = difflib.get_close_matches(name, SETTINGS, 1, 0.7) or [
        known
        for known in SETTINGS
        if difflib.get_close_matches(last, [known.rpartition('.')[2]], 1, 0.85)
    ]
    return f'{name}: unknown setting' + (f'; did you mean {near[0]}?' if near else '')


def check_together(values: Mapping[str, Any]) -> None:
    """What no single value shows.  Raises SettingError beginning with the key at fault."""
    if values['tls.mode'] == 'file':
        for key in ('tls.cert_file', 'tls.key_file'):
            if values[key] is None:
                raise SettingError(f'{key}: expected a path, because tls.mode is file')
    if values['tls.mode'] == 'acme' and not values['listen.http']:
        raise SettingError(
            'listen.http: expected a listener, because tls.mode is acme: that is where the '
            'authority looks'
        )
    if bool(values['tls.acme_eab_id']) != bool(values['tls.acme_eab_secret']):
        raise SettingError('tls.acme_eab_secret: expected together with tls.acme_eab_id, or none')
    if values['accounts.username_min_length'] > values['accounts.username_max_length']:
        raise SettingError(
            'accounts.username_max_length: expected no less than accounts.username_min_length, '
            f'{values["accounts.username_min_length"]}'
        )
    if values['panel.enabled'] and values['panel.path'] == values['admin.path']:
        raise SettingError('panel.path: expected another path than admin.path')
    password = values['shadowsocks.password']
    if password and str(values['shadowsocks.cipher']).startswith('2022'):
        from madmail.realtime.shadowsocks.methods import METHODS  # most relays need no cipher here

        method = METHODS[values['shadowsocks.cipher']]
        if not method.fits(password):
            raise SettingError(
                f'shadowsocks.password: expected the base64 of {method.size} octets, because '
                f'shadowsocks.cipher is {method.name}'
            )
    first, last = values['turn.relay_port_min'], values['turn.relay_port_max']
    if first > last:
        raise SettingError(
            f'turn.relay_port_max: expected no less than turn.relay_port_min, {first}'
        )
    for name in ('listen.turn', 'listen.turns'):
        for address in values[name]:
            if first <= address.port <= last:
                raise SettingError(
                    f'{name}: port {address.port} is one of those of relays, '
                    'turn.relay_port_min to turn.relay_port_max'
                )
    seen: dict[object, str] = {}
    for name in SETTINGS:
        if name.startswith('listen.'):
            for address in values[name]:
                if address.port and seen.setdefault(address, name) != name:
                    raise SettingError(f'{name}: {address} is also in {seen[address]}')
