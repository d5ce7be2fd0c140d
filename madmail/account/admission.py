"""Whether one more account may be made, apart from who asks for it.

Asked at the moment of creation only, so logins cost nothing and never suffer:
the limits are for strangers, and every refusal is "come again later".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from madmail.account.flood import Flood, Limits, Origin
from madmail.settings import Settings


class Host(Protocol):
    """What the machine has left; see `shortage.Shortage`."""

    def what(self) -> str: ...


def by_login(settings: Settings) -> bool:
    """Whether the first login to an unknown name makes an account of it."""
    switch = settings['accounts.jit']
    if switch == 'auto':
        # Otherwise a registration by token would be one for everybody who knows how to log in.
        return bool(settings['accounts.registration'] == 'open')
    return bool(switch)


class Admission:
    """The gatekeeper of one shard.

    `accounts` tells how many this shard has.  Each `enter` that lets one in is
    followed by one `leave`, when the account is there or will not be.
    """

    def __init__(
        self, settings: Settings, host: Host, flood: Flood, accounts: Callable[[], int]
    ) -> None:
        self._settings = settings
        self._host = host
        self._flood = flood
        self._accounts = accounts
        self._under_way = 0
        self.refused: dict[str, int] = {}  # how often, by reason
        self.tell()

    def enter(self, origin: Origin) -> str:
        """'' = one account may be made, else what is in the way.

        'disk', 'memory', 'load', 'accounts' (too many) or 'flood' (too fast).
        """
        reason = self._reason(origin)
        if reason:
            self.refused[reason] = self.refused.get(reason, 0) + 1
        else:
            self._under_way += 1
            self.tell()
        return reason

    def leave(self) -> None:
        self._under_way -= 1
        self.tell()

    def tell(self) -> int:
        """Tell the other shards how many accounts there are here; how many there are in all."""
        return self._flood.accounts(self._accounts() + self._under_way)

    def _reason(self, origin: Origin) -> str:
        settings = self._settings
        short = self._host.what()
        if short:
            return short
        most = settings['limits.accounts']
        if most and self.tell() >= most:
            return 'accounts'
        limits = Limits(
            settings['limits.registrations_per_minute_per_ip'],
            settings['limits.registrations_per_minute_per_network'],
            settings['limits.registrations_per_minute'],
        )
        return '' if self._flood.take(origin, limits) else 'flood'
