"""What clients are told in METADATA: `host:port:expiry:password`.

Delta Chat takes the first three colons as borders, the third field as expiry and as user
name, and asks for another when less than twelve hours are left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from madmail.account.address import hostname, ip_literal
from madmail.realtime.turn.credentials import derived_secret as derived
from madmail.realtime.turn.credentials import password, username

if TYPE_CHECKING:
    from madmail.realtime.presence import Presence
    from madmail.settings import Settings
    from madmail.store.interface import Account

NAMES_LIMIT = 100_000  # remembered
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
    """What one shard tells its accounts, and whose user names they were.

    A name says nothing of whose it is, so the shard remembers those that it gave out, and
    adds what they carried to their accounts.  After a restart it knows them again when
    clients ask anew; what is carried until then is in no account's figures.
    """

    def __init__(self, settings: Settings, relay_secret: bytes, presence: Presence) -> None:
        self._settings = settings
        self._relay_secret = relay_secret
        self._presence = presence
        self._given: dict[str, int] = {}

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
        user = username(secret, account.address, settings['turn.ttl'])
        if settings['accounts.bandwidth']:
            self._remember(user, account.id)
        return f'{at}:{listeners[0].port}:{user}:{password(secret, user)}'.encode()

    def carried(
        self, octets: Mapping[str, Sequence[int]], add: Callable[[int, int, int], None]
    ) -> None:
        """Octets by user name, from and to it; `add` is called with those of our accounts."""
        for user, (received, sent) in octets.items():
            account_id = self._given.get(user)
            if account_id is not None:
                add(account_id, received, sent)

    def _remember(self, user: str, account_id: int) -> None:
        if user not in self._given and len(self._given) >= NAMES_LIMIT:
            now = time.time()
            self._given = {name: one for name, one in self._given.items() if int(name) > now}
            while len(self._given) >= NAMES_LIMIT:
                del self._given[next(iter(self._given))]
        self._given[user] = account_id
