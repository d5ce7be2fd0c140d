"""What clients are told in METADATA: `host:port:expiry:password`.

Delta Chat takes the first three colons as borders, the third field as expiry and as user
name, and asks for another when less than twelve hours are left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from madmail.account.address import hostname, ip_literal
from madmail.realtime.turn.credentials import Part, likely_names, password, usernames
from madmail.realtime.turn.credentials import derived_secret as derived
from madmail.realtime.turn.names import Names

if TYPE_CHECKING:
    from madmail.realtime.presence import Presence
    from madmail.settings import Settings
    from madmail.store.interface import Account

ENTRY = '/shared/vendor/deltachat/turn'
TLS_ENTRY = '/shared/vendor/deltachat/turns'


def secrets_of(settings: Settings, relay_secret: bytes) -> tuple[bytes, ...]:
    """The shared secrets that make passwords count, the present one first."""
    present = settings['turn.secret'] or derived(relay_secret)
    former = settings['turn.former_secret']
    return (present.encode(), former.encode()) if former else (present.encode(),)


def host(settings: Settings) -> str:
    """What clients connect to; '' where it cannot be told in this form."""
    name = str(settings['turn.host'] or hostname(settings))
    literal = ip_literal(name)
    if literal is not None and literal.version == 6:
        four = [str(one) for one in settings['turn.relay_ip'] if one.version == 4]
        return four[0] if four else ''
    return str(literal) if literal else name


class Offer:
    """What one shard tells its accounts, and whose user names they were; see `names`."""

    def __init__(
        self,
        settings: Settings,
        relay_secret: bytes,
        presence: Presence,
        part: Part = (0, 1),
        tell: Callable[[list[str]], None] = lambda names: None,
    ) -> None:
        """`tell` is called with names that count no more."""
        self._settings = settings
        self._relay_secret = relay_secret
        self._presence = presence
        self._part = part
        self._tell = tell
        self._names = Names()

    def value(self, account: Account, name: str = 'turn') -> bytes:
        """The value of the entry for the listener turn or turns; b'' for none."""
        settings = self._settings
        listeners = settings[f'listen.{name}']
        at = host(settings)
        if not listeners or not at or not settings['turn.enabled']:
            return b''
        self._presence.settle('turn')
        if not self._presence.has('turn'):
            return b''
        secret = secrets_of(settings, self._relay_secret)[0]
        now = time.time()
        choices = usernames(secret, account.address, settings['turn.ttl'], now, self._part)
        user = self._names.choose(account.id, choices, now)
        return f'{at}:{listeners[0].port}:{user}:{password(secret, user)}'.encode()

    def carried(
        self, octets: Mapping[str, Sequence[int]], add: Callable[[int, int, int], None]
    ) -> None:
        """Octets by user name, from and to it; `add` is called with those of our accounts."""
        for user, (received, sent) in octets.items():
            account_id = self._names.whose(user)
            if account_id is not None:
                add(account_id, received, sent)

    def ended(self, account_id: int | None, address: str = '') -> None:
        """What this account was told counts no more: it was deleted, blocked or locked.

        `account_id` is None for one that is no more; without an address only what it was told
        since this shard began is known.
        """
        self.all_ended([(account_id, address)])

    def all_ended(self, accounts: Iterable[tuple[int | None, str]]) -> None:
        """The same of several at once."""
        now, life = time.time(), self._settings['turn.ttl']
        secrets = secrets_of(self._settings, self._relay_secret)
        names: list[str] = []
        for account_id, address in accounts:
            likely = [
                name
                for secret in secrets
                if address
                for name in likely_names(secret, address, life, now, self._part)
            ]
            names += self._names.end(account_id, likely, now)
        if names:
            self._tell(names)

    def tell_ended(self) -> None:
        """Say it once more, to a process that has just begun."""
        names = self._names.ended(time.time())
        if names:
            self._tell(names)
