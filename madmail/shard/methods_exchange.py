"""The calls about mail that goes on to other relays or is fetched by them.

`outbox_hold` takes judged mail from elsewhere for domains for which this relay
is an exchanger.  `outbox_wait` returns when there is something an exchanger may
fetch, `outbox_lease` gives it out, `outbox_acknowledge` removes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevent.event import Event

from madmail.delivery.exchanger import EVERY
from madmail.shard.calls import CallRefused, body_from
from madmail.smtp.reply import Fault, Reply
from madmail.store.interface import OutboxEntry

if TYPE_CHECKING:
    from madmail.shard.process import Shard

LOOK = 1.0  # seconds after which a waiting call looks for leases that have ended
WAIT_LIMIT = 60.0  # seconds a call waits at most

HELD = Reply(250, '2.0.0', 'Ok: queued')
TOO_MUCH = Reply(452, '4.3.1', 'Too much mail waits for this domain', 'held_messages', Fault.POLICY)


class News:
    """Tells who waits that the outbox has something new."""

    def __init__(self) -> None:
        self._event = Event()
        self.closed = False

    def tell(self) -> None:
        """Wake all who wait now."""
        event, self._event = self._event, Event()
        event.set()

    def close(self) -> None:
        """Nobody waits any more."""
        self.closed = True
        self.tell()

    def wait(self, timeout: float) -> None:
        if not self.closed:
            self._event.wait(timeout)


class ExchangeMethods:
    """The calls of one shard; `methods` by name."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.methods: dict[str, Callable[..., Any]] = {
            'outbox_hold': self.hold,
            'outbox_wait': self.wait,
            'outbox_lease': self.lease,
            'outbox_claim': self.claim,
            'outbox_acknowledge': self.acknowledge,
            'outbox_hasten': self.hasten,
        }

    def hold(self, sender: str, recipients: list[str], message_id: bytes, **body: Any) -> list[Any]:
        """Put it into the outbox; a Reply's fields.  May be repeated with the same id."""
        shard, now = self._shard, int(time.time())
        message = body_from(body)
        if message is None:
            raise CallRefused('bad-request')
        domains: dict[str, list[str]] = {}
        for recipient in recipients:
            domains.setdefault(recipient.rpartition('@')[2], []).append(recipient)
        limit = shard.settings['exchanger.held_messages']
        if limit and any(shard.store.outbox_held(one, limit) >= limit for one in domains):
            code, enhanced, text, cause, fault = TOO_MUCH
        else:
            entries = [
                OutboxEntry(0, sender, domain, tuple(names), now, next_try=now)
                for domain, names in domains.items()
            ]
            # As a delivery id it must differ from that of the part for local accounts.
            shard.store.deliver(message, (), delivery_id=message_id + b'->', outbox=entries)
            shard.announce()
            code, enhanced, text, cause, fault = HELD
        return [code, enhanced, text, cause, fault.value]

    def wait(self, exchanger: str, domain: str, seconds: float) -> bool:
        """Whether there is something for an exchanger, as soon as there is or time is over."""
        shard = self._shard
        deadline = time.monotonic() + min(seconds, WAIT_LIMIT)
        while not shard.news.closed:
            if shard.store.outbox_free(self._domains(exchanger, domain), int(time.time())):
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                break
            shard.news.wait(min(left, LOOK))
        return False

    def lease(
        self, exchanger: str, domain: str, seconds: int, limit: int, octets: int, single: bool
    ) -> list[dict[str, Any]]:
        """Entries of `domain`, `*` = of all that an exchanger may fetch, for some seconds."""
        now = int(time.time())
        leased = self._shard.store.outbox_lease(
            self._domains(exchanger, domain), now, now + seconds, limit, octets, single
        )
        return [
            {
                'id': one.id,
                'sender': one.sender,
                'domain': one.domain,
                'recipients': list(one.recipients),
                'created': one.created,
                'body_id': one.body_id,
                'size': one.size,
            }
            for one in leased
        ]

    def claim(self, entry_id: int, seconds: int) -> bool:
        """Keep an entry from being fetched for some seconds; False if it is being."""
        now = int(time.time())
        return self._shard.store.outbox_claim(entry_id, now, now + seconds)

    def acknowledge(self, exchanger: str, entry_ids: list[int]) -> int:
        """Entries are safe with the exchanger; how many there were."""
        store, exchangers = self._shard.store, self._shard.federation.exchangers
        # Whatever the policy says by now: it has them.
        domains = exchangers.fetched_by(exchanger, EVERY, list(store.outbox_count()))
        return store.outbox_acknowledge(entry_ids, domains)

    def hasten(self, domain: str) -> int:
        """Make everything for a domain due, '' = for all; how many entries were not."""
        store, now = self._shard.store, int(time.time())
        domains = [domain] if domain else list(store.outbox_count())
        return sum(store.outbox_hasten(one, now) for one in domains)

    def _domains(self, exchanger: str, domain: str) -> list[str]:
        """Those with mail that an exchanger may fetch, but not if the policy forbids it."""
        federation = self._shard.federation
        present = list(self._shard.store.outbox_count()) if domain == EVERY else [domain]
        return [
            one
            for one in federation.exchangers.fetched_by(exchanger, domain, present)
            if federation.outbound(one) is None
        ]
