"""What a setting is, and the register of all of them; see `declarations`.

`live` settings apply while the relay runs; the others are read at start and on reload
(SIGHUP), unless marked `restart`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from madmail.settings.kinds import Kind


class Applies(Enum):
    """When a changed value takes effect."""

    LIVE = 'at once'
    RELOAD = 'on reload'
    RESTART = 'at the next start'


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    kind: Kind
    default: object
    doc: str
    applies: Applies
    unit: str  # of the effective value, '' where there is none

    @property
    def section(self) -> str:
        """The part before the dot; '' for the settings at the top of the file."""
        return self.name.rpartition('.')[0]

    @property
    def live(self) -> bool:
        return self.applies is Applies.LIVE

    @property
    def storable(self) -> bool:
        """Whether it may be a row of the control database, which is laid over the file."""
        return self.applies is not Applies.RESTART


SETTINGS: dict[str, Setting] = {}

SECTIONS: dict[str, str] = {
    '': 'The relay',
    'listen': (
        'Listeners. Each is host:port or a list of them; IPv6 goes in quotes and brackets. '
        'When any is given, those left out do not listen.'
    ),
    'tls': 'Certificates',
    'processes': 'Processes',
    'master': 'Supervision of the processes',
    'policy': 'What mail passes',
    'accounts': 'Accounts',
    'imap': 'IMAP',
    'limits': 'Limits; 0 means no limit',
    'retention': 'How long things are kept; off means for ever',
    'federation': 'Exchange of mail with other relays',
    'dkim': 'Signatures under mail to other relays',
    'dns': 'Name servers',
    'queue': 'Mail to other relays',
    'exchanger': 'Mail that other relays fetch, or that goes on from here',
    'relay': 'What clients are told about the relay',
    'site': 'Public pages',
    'webimap': 'Reading mail over HTTP (WebIMAP)',
    'websmtp': 'Sending mail over HTTP (WebSMTP)',
    'turn': 'Calls (TURN and STUN)',
    'iroh': 'The relay of WebXDC channels',
    'shadowsocks': 'The Shadowsocks proxy',
    'web': 'The web server',
    'admin': 'Administration over HTTP',
    'panel': 'The dashboard, pages for administration',
    'push': 'Push notifications: waking phones when there is mail',
}

LIVE, RELOAD, RESTART = Applies.LIVE, Applies.RELOAD, Applies.RESTART


def declare(
    name: str, kind: Kind, default: object, doc: str, *, applies: Applies, unit: str = ''
) -> None:
    assert name not in SETTINGS
    SETTINGS[name] = Setting(name, kind, kind.check(default), doc, applies, unit)
