"""What the apps of one web worker share.

A worker is outside the bus.  Before each request that asks for settings or rules
it looks at the control database's change counter instead, 4 µs, and reads them
anew when somebody has changed them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from gevent.event import Event

from madmail.account import flood
from madmail.account.address import mail_domain
from madmail.account.rates import Gcra
from madmail.admin.access_token import Watched
from madmail.delivery.arrival import Check
from madmail.delivery.dkim import Keys
from madmail.delivery.federation import Federation
from madmail.delivery.policy import Policy
from madmail.settings import Settings
from madmail.shard.calls import ShardClients
from madmail.smtp.reply import Reply
from madmail.store.control import Control, LiveSettings
from madmail.store.interface import Body
from madmail.store.spool import Spool
from madmail.web.counters import Counters
from madmail.web.webimap.room import Room

SHUT_OUT_LIMIT = 10_000  # peers that guessed passwords, remembered


class Services:
    """Made in the worker's process; `receive` is where mail goes."""

    def __init__(
        self,
        settings: Settings,
        state_dir: Path,
        *,
        shards: int,
        slot: int = 0,
        counters: Counters | None = None,
        peer_key: bytes = b'',
        origin: Callable[[], Check] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.state_dir = state_dir
        self.domain = mail_domain(settings['domain'])
        self.counters = counters or Counters()
        self.origin = origin
        self.federation = Federation(state_dir, settings, self.domain)
        self.policy = Policy(self.domain, settings, self.federation)
        self.clients = ShardClients(state_dir, shards)
        self.keys = Keys(state_dir, self.domain, settings)
        self.ending = Event()  # set when the worker takes no more requests
        self.room = Room()
        self.monotonic = monotonic
        self.shards = shards
        self.admin_token = Watched(state_dir)
        # Names of the listeners for metrics, as they are in SERVER_NAME and SERVER_PORT.
        self.metrics_at: set[tuple[str, str]] = set()
        self._spools = spools(state_dir, slot)
        self._control = Control(state_dir)
        self._live = LiveSettings(state_dir, settings)
        self._changes = self._control.changes()
        self._rates: dict[str, Gcra] = {}
        self._shut_out: dict[str, float] = {}
        self._peer_key = peer_key or os.urandom(flood.KEY_SIZE)

    def refresh(self) -> None:
        """Take over what was changed in the control database."""
        changes = self._control.changes()
        if changes != self._changes:
            self._changes = changes
            self._live.reload()
            self.federation.reload()

    def guest(self, host: str) -> flood.Origin:
        """Where somebody who wants an account is, as the shards count it; () without an address."""
        try:
            return flood.origin(host, self._peer_key)
        except OSError:
            return ()

    def rate(self, name: str, peer: str) -> float:
        """Count one event of `peer` under the limit `name` (a minute); seconds to wait, or 0."""
        limit = self.settings[name]
        if not limit or not peer:
            return 0.0
        rate = self._rates.setdefault(name, Gcra(limit, limit))
        if rate.per_minute != limit:
            rate.set(limit, limit)
        return rate.allow(peer, self.monotonic())

    def failed(self, limit: str, peer: str) -> None:
        """A wrong password from `peer`; over `limit` (a minute) it is shut out for a while."""
        wait = self.rate(limit, peer)
        if wait:
            if len(self._shut_out) >= SHUT_OUT_LIMIT:
                self._shut_out.clear()
            self._shut_out[peer] = self.monotonic() + wait

    def shut_out(self, peer: str) -> bool:
        """Whether `peer` has to wait before it may try another password."""
        return self._shut_out.get(peer, 0.0) > self.monotonic()

    def spool(self) -> Spool:
        return Spool(self._spools)

    def receive(
        self, body: Body, recipients: list[str], message_id: bytes, origin: str = ''
    ) -> Reply:
        """Judged mail from elsewhere to local recipients, by any shard that answers.

        Raises ShardUnavailable when none does.
        """
        return self.clients.receive_anywhere(body, recipients, message_id, origin)

    def hold(self, sender: str, body: Body, recipients: list[str], message_id: bytes) -> Reply:
        """Judged mail from elsewhere to other relays.  Raises ShardUnavailable."""
        return self.clients.hold(sender, body, recipients, message_id)


def spools(state_dir: Path, slot: int) -> Path:
    """Where the workers of one web process keep large messages while they come in."""
    return state_dir / 'web' / str(slot)
