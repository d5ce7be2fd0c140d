"""The courier: the process that works off the outboxes of all shards.

It owns nothing on disk.  Entries live in the store of the shard that accepted
the message, and each of them leaves it by exactly one call of that shard:
removed, removed together with the bounce that reports it, or put off.  A
courier that is killed at any moment therefore loses nothing, and what it was
about to hand over is handed over again under the same delivery id.

A `Transport` takes entries by their domain.  The first that takes one is
asked; `ToShard` is first, `Undeliverable` last and takes everything.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool

from madmail import log
from madmail.account.address import mail_domain
from madmail.delivery.destination import parked
from madmail.delivery.router import REASONS, header_block
from madmail.message.bounce import bounce
from madmail.settings import Settings
from madmail.shard.calls import (
    CallRefused,
    ShardClient,
    ShardUnavailable,
    body_fields,
    body_from,
)
from madmail.smtp.grammar import mailbox
from madmail.smtp.reply import Fault, Reply
from madmail.store.interface import Body, OutboxEntry, Outcome
from madmail.store.spool import MemoryBody

if TYPE_CHECKING:
    from madmail.master.child import ChildContext

POLL = 5.0  # seconds between two looks at an outbox that announced nothing
BATCH = 100  # entries of a shard taken up at once, beyond those under way
UNDER_WAY = 500  # entries of all shards under way
STUCK = 120.0  # seconds without a turn after which the courier counts as stuck
RETIRE_TIME = 10.0  # seconds that entries under way get to end
FIRST_DELAY = 60.0  # seconds before the second try at another relay, doubled each time
LAST_DELAY = 3600.0
AT_ONCE = 8  # parked entries on their way to one shard
AWAY_TIME = 1.0  # seconds a shard that did not answer is left alone
SHARD_DELAY = 60.0  # seconds at most between two tries at a shard of this relay

DELIVERED = Reply(250, '2.0.0', 'Ok')
AWAY = Reply(451, '4.3.0', 'Part of this relay is not available', 'shard', Fault.OURS)
EXPIRED = '4.4.7'  # RFC 3463 3.5: delivery time expired
NO_EXCHANGE = Reply(
    550, '5.4.4', 'This relay does not exchange mail with other servers yet', 'no_transport'
)
BAD_DOMAIN = Reply(550, '5.1.2', 'There can be no such mail domain', 'domain')

_log = log.get('courier')


class Transport(Protocol):
    """A way to get an entry to its destination."""

    def takes(self, domain: str) -> bool:
        """Whether entries for `domain` go this way."""

    def send(self, entry: OutboxEntry, body: Body) -> Sequence[Reply]:
        """One reply a recipient, in their order: 2xx done, 4xx try later, 5xx never.

        Blocks its greenlet, as long as a remote peer may take.  Raising is for
        breakage and counts as 4xx for all.
        """


class Outbox(Protocol):
    """The outbox of one shard.  Every method may raise ShardUnavailable."""

    shard: int

    def due(self, now: int, limit: int) -> list[OutboxEntry]: ...
    def body(self, entry: OutboxEntry) -> Body | None: ...
    def remove(self, entry: OutboxEntry, report: bytes | None) -> None:
        """Remove; with `report`, put it into the sender's INBOX in the same transaction."""

    def retry(self, entry: OutboxEntry, next_try: int, error: str) -> None: ...
    def deliver(self, body: Body, addresses: Sequence[str], delivery_id: bytes) -> list[Outcome]:
        """To accounts of this shard; the same id twice stores once."""


class ShardOutbox:
    """An Outbox by way of shard calls."""

    def __init__(self, client: ShardClient) -> None:
        self.shard = client.index
        self._client = client

    def due(self, now: int, limit: int) -> list[OutboxEntry]:
        rows = self._call('outbox_due', now=now, limit=limit)
        return [OutboxEntry(**{**row, 'recipients': tuple(row['recipients'])}) for row in rows]

    def body(self, entry: OutboxEntry) -> Body | None:
        try:
            return body_from(self._client.call('body', body_id=entry.body_id))
        except CallRefused as refused:
            if refused.word == 'missing':
                return None
            raise ShardUnavailable(refused.word) from None

    def remove(self, entry: OutboxEntry, report: bytes | None) -> None:
        if report is None:
            self._call('outbox_remove', entry_id=entry.id)
        else:
            self._call(
                'outbox_remove',
                entry_id=entry.id,
                sender=entry.sender,
                **body_fields(MemoryBody(report)),
            )

    def retry(self, entry: OutboxEntry, next_try: int, error: str) -> None:
        self._call('outbox_retry', entry_id=entry.id, next_try=next_try, error=error)

    def deliver(self, body: Body, addresses: Sequence[str], delivery_id: bytes) -> list[Outcome]:
        words = self._call(
            'deliver', addresses=list(addresses), delivery_id=delivery_id, **body_fields(body)
        )
        return [Outcome(word) for word in words]

    def _call(self, method: str, **params: Any) -> Any:
        try:
            return self._client.call(method, **params)
        except CallRefused as refused:
            raise ShardUnavailable(refused.word) from None


class ToShard:
    """Mail that was parked because a shard of this relay did not answer."""

    def __init__(
        self, outboxes: Mapping[int, Outbox], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._outboxes = outboxes
        self._monotonic = monotonic
        self._turns = {shard: BoundedSemaphore(AT_ONCE) for shard in outboxes}
        self._away_until = dict.fromkeys(outboxes, 0.0)

    def takes(self, domain: str) -> bool:
        return parked(domain) is not None

    def send(self, entry: OutboxEntry, body: Body) -> Sequence[Reply]:
        place = parked(entry.domain)
        assert place is not None
        away = [AWAY] * len(entry.recipients)
        outbox = self._outboxes.get(place.shard)
        if outbox is None:
            return away
        with self._turns[place.shard]:
            # One entry finds out for all, so that a dead shard costs no storm of calls.
            if self._monotonic() < self._away_until[place.shard]:
                return away
            try:
                outcomes = outbox.deliver(body, entry.recipients, place.delivery_id)
            except ShardUnavailable:
                self._away_until[place.shard] = self._monotonic() + AWAY_TIME
                return away
        return [REASONS.get(outcome, DELIVERED) for outcome in outcomes]


class Undeliverable:
    """The end of the list: no way leads there, and the sender is told so at once."""

    def takes(self, domain: str) -> bool:
        return True

    def send(self, entry: OutboxEntry, body: Body) -> Sequence[Reply]:
        reply = NO_EXCHANGE if mailbox(f'x@{entry.domain}') else BAD_DOMAIN
        return [reply] * len(entry.recipients)


class Courier:
    """Takes due entries to their transports and settles what became of them."""

    def __init__(
        self,
        outboxes: Mapping[int, Outbox],
        transports: Sequence[Transport],
        *,
        domain: str,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._outboxes = outboxes
        self._transports = transports
        self._domain = domain
        self._settings = settings
        self._clock = clock
        self._pool = Pool(UNDER_WAY)
        self._under_way: dict[int, set[int]] = {shard: set() for shard in outboxes}
        self.delivered = 0
        self.bounced = 0
        self.deferred = 0

    @property
    def under_way(self) -> int:
        return sum(map(len, self._under_way.values()))

    def visit(self, shard: int) -> int:
        """Start all due entries of a shard that are not under way; how many.

        Raises ShardUnavailable.
        """
        busy = self._under_way[shard]
        room = min(BATCH, UNDER_WAY - self.under_way)
        if room <= 0:
            return 0
        # Entries under way are still due: ask for so many more.
        entries = self._outboxes[shard].due(int(self._clock()), room + len(busy))
        started = 0
        for entry in entries:
            if entry.id not in busy:
                busy.add(entry.id)
                started += 1
                self._pool.spawn(self._handle, shard, entry)
        return started

    def finish(self, timeout: float | None = None) -> bool:
        """Wait for the entries under way; whether all have ended."""
        return bool(self._pool.join(timeout))

    # -- inside

    def _handle(self, shard: int, entry: OutboxEntry) -> None:
        try:
            self._carry(self._outboxes[shard], entry)
        except ShardUnavailable:
            pass  # still in its outbox and still due
        except Exception as error:
            _log.exception('entry failed', error)
        finally:
            self._under_way[shard].discard(entry.id)

    def _carry(self, outbox: Outbox, entry: OutboxEntry) -> None:
        body = outbox.body(entry)
        if body is None:
            _log.error('outbox entry without a body')
            outbox.remove(entry, None)
            return
        transport = next(t for t in self._transports if t.takes(entry.domain))
        try:
            replies = transport.send(entry, body)
        except Exception as error:
            _log.exception('transport failed', error)
            replies = [AWAY] * len(entry.recipients)
        self._settle(outbox, entry, body, replies)

    def _settle(
        self, outbox: Outbox, entry: OutboxEntry, body: Body, replies: Sequence[Reply]
    ) -> None:
        """One call to the shard, whatever happened."""
        pairs = list(zip(entry.recipients, replies, strict=True))
        failed = [(name, reply) for name, reply in pairs if reply.code >= 500]
        later = [(name, reply) for name, reply in pairs if 400 <= reply.code < 500]
        now = self._clock()
        if later:
            lifetime = self._settings['queue.lifetime']
            if len(later) == len(pairs) and (not lifetime or now - entry.created < lifetime):
                delay = self._delay(entry)
                outbox.retry(entry, int(now + delay) + 1, _words(later[0][1]))
                self.deferred += 1
                return
            # Too old; or others of the entry are settled, and asking again for
            # all would give those the message twice.
            failed += [(name, _expired(reply)) for name, reply in later]
        report = None
        if failed and entry.sender:
            report = bounce(self._domain, entry.sender, failed, header_block(body), now)
        outbox.remove(entry, report)
        self.delivered += len(pairs) - len(failed)
        self.bounced += len(failed)

    def _delay(self, entry: OutboxEntry) -> float:
        """Doubling, and spread so that a queue does not wake all at once."""
        if parked(entry.domain):
            base = min(2.0 * 2 ** min(entry.tries, 10), SHARD_DELAY)
        else:
            base = min(FIRST_DELAY * 2 ** min(entry.tries, 10), LAST_DELAY)
        spread: float = base * random.uniform(0.8, 1.2)
        return spread


def _words(reply: Reply) -> str:
    """A reply as it is kept with the entry, for the operator."""
    return f'{reply.code} {reply.enhanced} {reply.text}'


def _expired(last: Reply) -> Reply:
    return Reply(550, EXPIRED, f'Gave up, last answer: {_words(last)}', 'expired')


class CourierRole:
    """The courier as a child of the master."""

    def __init__(self, context: ChildContext) -> None:
        self._context = context
        self._clients = [ShardClient(context.state_dir, n) for n in range(context.shards)]
        self._outboxes: dict[int, Outbox] = {c.index: ShardOutbox(c) for c in self._clients}
        self.courier = Courier(
            self._outboxes,
            self.transports(),
            domain=mail_domain(context.settings['domain']),
            settings=context.settings,
        )
        self._wake = {shard: Event() for shard in self._outboxes}
        self._turned = dict.fromkeys(self._outboxes, time.monotonic())
        self._loops: list[gevent.Greenlet] = []
        self._retiring = False

    def transports(self) -> Sequence[Transport]:
        """In the order in which they are asked."""
        return (ToShard(self._outboxes), Undeliverable())

    # -- Role

    def start(self) -> None:
        self._context.bus.subscribe('outbox', self._announced)
        self._loops = [gevent.spawn(self._work, shard) for shard in self._outboxes]

    def check(self) -> bool:
        """Whether every shard's loop has come round; a shard that is away does not stop it."""
        now = time.monotonic()
        return all(not loop.dead for loop in self._loops) and all(
            now - turned < STUCK for turned in self._turned.values()
        )

    def retire(self) -> None:
        self._retiring = True
        self._rouse(self._wake)
        self.courier.finish(RETIRE_TIME)
        gevent.killall(self._loops)
        for client in self._clients:
            client.close()

    def statistics(self) -> dict[str, Any]:
        courier = self.courier
        return {
            'delivered': courier.delivered,
            'bounced': courier.bounced,
            'deferred': courier.deferred,
            'under_way': courier.under_way,
        }

    # -- inside

    def _announced(self, event: Any) -> None:
        """A shard says that its outbox has something new; without a shard, all are meant."""
        shard = event.get('shard') if isinstance(event, dict) else None
        self._rouse([shard] if shard in self._wake else self._wake)

    def _rouse(self, shards: Iterable[int]) -> None:
        for shard in shards:
            self._wake[shard].set()

    def _work(self, shard: int) -> None:
        wake = self._wake[shard]
        while not self._retiring:
            self._turned[shard] = time.monotonic()
            wake.clear()
            try:
                if self.courier.visit(shard) >= BATCH:
                    continue
            except ShardUnavailable:
                pass
            except Exception as error:
                _log.exception('visit failed', error)
            wake.wait(POLL)
