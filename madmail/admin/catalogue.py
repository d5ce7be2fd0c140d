"""The names that panels know settings by, and which of ours they mean.

`Name` and `Switch` say which setting of ours a name means and how it is spelt there.
Where that setting is not declared, the relay does not have the service: the name is
shown, so that a panel finds all that it looks for, and cannot be set.  So whoever
declares the setting makes the name work.

What is done with them is in `panel`:

    value(relay, name, secrets=False) -> {key, value, is_set, restart_required}
    set_(relay, name, text), reset(relay, name)
    is_on(relay, switch), turn(relay, switch, on)

All raise Refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from madmail.admin import sizes
from madmail.settings.declarations import SETTINGS
from madmail.settings.kinds import Wrong

DAY = 86400  # seconds

NO_TURN = 'this relay has no TURN service'
NO_IROH = 'this relay has no Iroh relay'
NO_SHADOWSOCKS = 'this relay has no Shadowsocks proxy of that kind'
NO_PROXY = 'this relay has no HTTP proxy'
NO_SASL = 'this relay has no SASL service for other programs'
NO_PANEL = 'this relay serves no panel of its own'
NO_WEBMAIL = 'this relay has no mail access over HTTP'
NO_LISTENER = 'this relay does not have that service'


@dataclass(frozen=True, slots=True)
class Name:
    """One setting as panels see it.

    With a `refusal` it is only shown, and the refusal says why it cannot be set.
    `part` is what of a listener it means: its port, or whether only this host can connect.
    """

    name: str  # of the resource, /admin/settings/<name>
    setting: str = ''  # ours
    refusal: str = ''
    default: str = ''  # what is shown when there is nothing of ours to show
    fallback: str = ''  # ours, whose value counts where that of `setting` is empty
    secret: bool = False
    show: Callable[[object], str] | None = None  # None: as we write it
    parse: Callable[[str], str] = str  # their spelling → ours; raises Refused or Wrong
    part: Literal['', 'port', 'local'] = ''

    @property
    def key(self) -> str:
        """As panels and old databases call it."""
        return f'__{self.name.upper()}__'


def _size(value: object) -> str:
    assert isinstance(value, int)
    return sizes.show(value)


def _joined(value: object) -> str:
    assert isinstance(value, tuple)
    return ','.join(value)


def _octets(text: str) -> str:
    return str(sizes.parse(text))


def _path(text: str) -> str:
    return f'/{text.strip("/")}'


def _days(value: object) -> str:
    assert isinstance(value, int)
    return f'{max(value // DAY, 1)}d' if value else '30d'


def _age(text: str) -> str:
    if text.strip().rstrip('dhms') in ('', '0'):
        raise Wrong('a time such as 30d; the switch of the service turns it off')
    return text


def _list(value: object) -> str:
    assert isinstance(value, tuple)
    return ','.join(value)


def _declared(name: str, setting: str, absent: str, **more: Any) -> Name:
    """A name of a setting that this relay may not have; then `absent` says so."""
    if setting not in SETTINGS:
        return Name(name, refusal=absent, default=more.get('default', ''))
    return Name(name, setting, **more)


# their names of listeners → ours, and what is said where there is none
LISTENERS = {
    'smtp': ('smtp', NO_LISTENER),
    'submission': ('submission', NO_LISTENER),
    'submission_tls': ('submissions', NO_LISTENER),
    'imap': ('imap', NO_LISTENER),
    'imap_tls': ('imaps', NO_LISTENER),
    'http': ('http', NO_LISTENER),
    'https': ('https', NO_LISTENER),
    'turn': ('turn', NO_TURN),
    'sasl': ('sasl', NO_SASL),
    'iroh': ('iroh', NO_IROH),
}

_VALUES = (
    *(
        _declared(f'{name}_port', f'listen.{ours}', absent, part='port')
        for name, (ours, absent) in {**LISTENERS, 'ss': ('shadowsocks', NO_SHADOWSOCKS)}.items()
    ),
    Name('smtp_hostname', 'relay.hostname', fallback='domain'),
    Name('admin_path', 'admin.path', parse=_path),
    _declared('admin_web_path', 'panel.path', NO_PANEL, default='/admin', parse=_path),
    _declared('turn_realm', 'turn.realm', NO_TURN),
    _declared('turn_secret', 'turn.secret', NO_TURN, secret=True),
    _declared('turn_relay_ip', 'turn.relay_ip', NO_TURN),
    _declared('turn_relay_port_min', 'turn.relay_port_min', NO_TURN, default='49152'),
    _declared('turn_relay_port_max', 'turn.relay_port_max', NO_TURN, default='65535'),
    _declared('turn_ttl', 'turn.ttl', NO_TURN, show=str),
    _declared('iroh_relay_url', 'iroh.relay_url', NO_IROH),
    _declared('ss_cipher', 'shadowsocks.cipher', NO_SHADOWSOCKS),
    _declared('ss_password', 'shadowsocks.password', NO_SHADOWSOCKS, secret=True),
    Name('ss_ws_port', refusal=NO_SHADOWSOCKS),
    Name('ss_grpc_port', refusal=NO_SHADOWSOCKS),
    Name('http_proxy_port', refusal=NO_PROXY),
    Name('http_proxy_path', refusal=NO_PROXY),
    Name('http_proxy_username', refusal=NO_PROXY),
    Name('http_proxy_password', refusal=NO_PROXY, secret=True),
    Name('dclogin_imap_security', refusal='links name what listens', default='ssl'),
    Name('dclogin_smtp_security', refusal='links name what listens', default='ssl'),
    _declared('language', 'site.language', 'this relay has no web pages', default='en'),
    _declared('webmail_cors_origins', 'webimap.cors_origins', NO_WEBMAIL, show=_list),
    Name('appendlimit', sizes.MESSAGE, show=_size, parse=_octets),
    Name('max_message_size', sizes.MESSAGE, show=_size, parse=_octets),
    Name('max_federation_size', sizes.FEDERATION, show=_size, parse=_octets),
    Name('message_retention', 'retention.messages', show=_days, parse=_age),
)

VALUES: dict[str, Name] = {one.name: one for one in _VALUES}

# Whether only this host may connect; told by where the listeners are.
LOCAL_ONLY: dict[str, Name] = {
    f'{name}_local_only': _declared(f'{name}_local_only', f'listen.{ours}', absent, part='local')
    for name, (ours, absent) in LISTENERS.items()
}

# What carries the admin API: the last of these is not switched off through it.
LAST_WEB = ('listen.http', 'listen.https')


@dataclass(frozen=True, slots=True)
class Switch:
    """A service that can be switched on and off.

    It is on when `setting` is anything but `off`.  `on` is what is written to switch it on
    where its configuration has it off, `off` to switch it off.  With a refusal it is off,
    and the refusal says why it cannot be switched on.
    """

    setting: str = ''
    refusal: str = ''
    on: str = 'true'
    off: str = 'false'


def _switch(setting: str, absent: str, on: str = 'true', off: str = 'false') -> Switch:
    return Switch(setting, on=on, off=off) if setting in SETTINGS else Switch(refusal=absent)


# by the last part of /admin/services/<name>
SERVICES: dict[str, Switch] = {
    'turn': _switch('turn.enabled', NO_TURN),
    'iroh': _switch('iroh.enabled', NO_IROH),
    'admin_web': _switch('panel.enabled', NO_PANEL),
    'auto_purge_seen': Switch('retention.read', on='1d', off='off'),
    'message_retention': Switch('retention.messages', on='30d', off='off'),
    'webimap': _switch('webimap.enabled', NO_WEBMAIL),
    'websmtp': _switch('websmtp.enabled', NO_WEBMAIL),
    'shadowsocks': _switch('shadowsocks.enabled', NO_SHADOWSOCKS),
    'ss_ws': Switch(refusal=NO_SHADOWSOCKS),
    'ss_grpc': Switch(refusal=NO_SHADOWSOCKS),
    'http_proxy': Switch(refusal=NO_PROXY),
    'http': Switch('listen.http', on='0.0.0.0:80', off=''),
    'https': Switch('listen.https', on='0.0.0.0:443', off=''),
    'log': Switch('log', on='stderr', off='off'),
}
