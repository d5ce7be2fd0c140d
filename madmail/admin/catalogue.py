"""The names that panels know settings by, and which of ours they mean.

A `Name` without a setting is one of a service that this relay does not have: it
is shown, so that a panel finds all that it looks for, and cannot be set.  Who
adds the service fills in its setting here, and `services` if it has a switch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from madmail.admin import sizes
from madmail.settings.kinds import Wrong

DAY = 86400  # seconds

NO_TURN = 'this relay has no TURN service'
NO_IROH = 'this relay has no Iroh relay'
NO_SHADOWSOCKS = 'Shadowsocks is not configured on this relay'
NO_PROXY = 'this relay has no HTTP proxy'
NO_SASL = 'this relay has no SASL service for other programs'
NO_PANEL = 'this relay serves no panel of its own'
IN_FILE = 'this is set in the configuration file ({}); a reload applies it'
AT_START = 'this is set in the configuration file ({}) and counts from the next start on'


@dataclass(frozen=True, slots=True)
class Name:
    """One setting as panels see it.

    `setting` is ours, which is live if `refusal` is empty; otherwise it is only shown,
    and the refusal says why it cannot be set.
    """

    name: str  # of the resource, /admin/settings/<name>
    setting: str = ''
    refusal: str = ''
    default: str = ''  # what is shown when there is nothing of ours to show
    secret: bool = False
    show: Callable[[object], str] = str
    parse: Callable[[str], str] = str  # their spelling → ours; raises Refused or Wrong

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


# listen.<ours> of the ports; the others have no listener here
PORTS = {
    'smtp': 'smtp',
    'submission': 'submission',
    'submission_tls': 'submissions',
    'imap': 'imap',
    'imap_tls': 'imaps',
    'http': 'http',
    'https': 'https',
}
OTHER_PORTS = {'turn': NO_TURN, 'sasl': NO_SASL, 'iroh': NO_IROH}

_VALUES = (
    *(
        Name(f'{name}_port', f'listen.{ours}', IN_FILE.format(f'listen.{ours}'))
        for name, ours in PORTS.items()
    ),
    *(Name(f'{name}_port', refusal=refusal) for name, refusal in OTHER_PORTS.items()),
    Name('smtp_hostname', 'domain', AT_START.format('domain')),
    Name('admin_path', 'admin.path', parse=_path),
    Name('admin_web_path', refusal=NO_PANEL, default='/admin'),
    Name('turn_realm', refusal=NO_TURN),
    Name('turn_secret', refusal=NO_TURN, secret=True),
    Name('turn_relay_ip', refusal=NO_TURN),
    Name('turn_relay_port_min', refusal=NO_TURN, default='49152'),
    Name('turn_relay_port_max', refusal=NO_TURN, default='65535'),
    Name('turn_ttl', refusal=NO_TURN),
    Name('iroh_relay_url', refusal=NO_IROH),
    Name('ss_port', refusal=NO_SHADOWSOCKS),
    Name('ss_ws_port', refusal=NO_SHADOWSOCKS),
    Name('ss_grpc_port', refusal=NO_SHADOWSOCKS),
    Name('ss_cipher', refusal=NO_SHADOWSOCKS),
    Name('ss_password', refusal=NO_SHADOWSOCKS, secret=True),
    Name('http_proxy_port', refusal=NO_PROXY),
    Name('http_proxy_path', refusal=NO_PROXY),
    Name('http_proxy_username', refusal=NO_PROXY),
    Name('http_proxy_password', refusal=NO_PROXY, secret=True),
    Name('dclogin_imap_security', refusal='links name what listens', default='ssl'),
    Name('dclogin_smtp_security', refusal='links name what listens', default='ssl'),
    Name('language', 'site.language'),
    Name('webmail_cors_origins', 'webimap.cors_origins', show=_joined),
    Name('appendlimit', sizes.MESSAGE, show=_size, parse=_octets),
    Name('max_message_size', sizes.MESSAGE, show=_size, parse=_octets),
    Name('max_federation_size', sizes.FEDERATION, show=_size, parse=_octets),
    Name('message_retention', 'retention.messages', show=_days, parse=_age),
)

VALUES: dict[str, Name] = {one.name: one for one in _VALUES}

# Whether only this host may connect; told by where the listeners are.
LOCAL_ONLY: dict[str, Name] = {
    f'{name}_local_only': Name(
        f'{name}_local_only',
        f'listen.{PORTS[name]}' if name in PORTS else '',
        IN_FILE.format(f'listen.{PORTS[name]}') if name in PORTS else OTHER_PORTS[name],
    )
    for name in (*PORTS, *OTHER_PORTS)
}


@dataclass(frozen=True, slots=True)
class Switch:
    """A service that can be switched on and off.

    It is on when `setting` is neither false nor 0.  `on` is what is written to switch it on
    where its configuration has it off, `off` to switch it off.  With a refusal it is off,
    and the refusal says why it cannot be switched on.
    """

    setting: str = ''
    refusal: str = ''
    on: str = 'true'
    off: str = 'false'


# by the last part of /admin/services/<name>
SERVICES: dict[str, Switch] = {
    'turn': Switch(refusal=NO_TURN),
    'iroh': Switch(refusal=NO_IROH),
    'admin_web': Switch(refusal=NO_PANEL),
    'auto_purge_seen': Switch('retention.read', on='1d', off='off'),
    'message_retention': Switch('retention.messages', on='30d', off='off'),
    'webimap': Switch('webimap.enabled'),
    'websmtp': Switch('websmtp.enabled'),
    'shadowsocks': Switch(refusal=NO_SHADOWSOCKS),
    'ss_ws': Switch(refusal=NO_SHADOWSOCKS),
    'ss_grpc': Switch(refusal=NO_SHADOWSOCKS),
    'http_proxy': Switch(refusal=NO_PROXY),
}
