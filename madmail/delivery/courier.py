"""The courier: the process that works off the outboxes of all shards.

It owns nothing on disk.  Entries live in the store of the shard that accepted
the message, and each of them leaves it by exactly one call of that shard:
removed, removed together with the bounce that reports it, or put off.  A
courier that is killed at any moment therefore loses nothing, and what it was
about to hand over is handed over again under the same delivery id.

A `Transport` takes entries by their domain.  The first that takes one is
asked; `ToShard` is first, `Relaying` last and takes everything.  A transport
that cannot reach a destination at all says so by raising, and then the whole
destination waits (see `schedule`).
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from gevent.pool import Pool

from madmail import log
from madmail.delivery.destination import parked
from madmail.delivery.federation import Federation
from madmail.delivery.outbox import AWAY, Outbox
from madmail.delivery.relaying import Unreachable
from madmail.delivery.router import header_block
from madmail.delivery.schedule import LONGEST, Schedule
from madmail.message.bounce import bounce
from madmail.settings import Settings
from madmail.shard.calls import ShardUnavailable
from madmail.smtp.reply import Fault, Reply
from madmail.store.interface import Body, OutboxEntry

if TYPE_CHECKING:
    pass

BATCH = 100  # entries of a shard taken up at once, beyond those under way
IN_LINES = 2000  # entries of all shards under way or lined up
WORKERS = 500  # greenlets that carry entries
STRANGERS = 400  # of them for destinations that did not answer the last time, or never yet
STRANGE_LINES = 1500  # entries lined up for such destinations
TURN_TIME = 30  # seconds that further ones of them wait
KNOWN_LIMIT = 10_000  # destinations that answered the last time
PER_DESTINATION = 8  # of them for one destination that has answered; until then it is one
LINE_LIMIT = 100  # entries lined up for one destination
SKIP_LIMIT = 200  # destinations named to a shard as those with full lines
REFILL = 25  # entries left in a line when more are asked for
UNSETTLED_LIMIT = 10_000  # entries whose outcome is kept until their shard takes it
SHARD_DELAY = 60.0  # seconds at most between two tries at a shard of this relay
WAITING_TIME = 3600  # seconds after which we look again whether mail is to be fetched
CLAIM_TIME = 900  # seconds that what is being carried cannot be fetched

EXPIRED = '4.4.7'  # RFC 3463 3.5: delivery time expired
WAITING = 'It waits to be fetched'
IN_TURN = 'It waits for its turn'
NOT_FEDERATED = Reply(550, '5.7.1', 'This relay sends no mail there', 'policy', Fault.POLICY)

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


class Forbidden:
    """Mail that was queued before the policy, or the switch, said no."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation

    def takes(self, domain: str) -> bool:
        return parked(domain) is None and self._federation.outbound(domain) is not None

    def send(self, entry: OutboxEntry, body: Body) -> Sequence[Reply]:
        reply = self._federation.outbound(entry.domain) or NOT_FEDERATED
        return [reply] * len(entry.recipients)


class Courier:
    """Takes due entries to their transports and settles what became of them.

    Entries of one destination wait in one line and are worked off by a few
    greenlets.  Lines are short, because what waits is safe where it is; a
    destination whose line is full, or that is down, is not asked for again.

    A destination has one greenlet until it has answered, and those that did not
    answer the last time have a part of all, so that those that are dead and not
    yet known as such never take the place of the living.
    """

    def __init__(
        self,
        outboxes: Mapping[int, Outbox],
        transports: Sequence[Transport],
        *,
        domain: str,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        on_room: Callable[[], None] = lambda: None,
        waits: Callable[[str], bool] = lambda domain: False,
        shared: Callable[[str], bool] = lambda domain: False,
        known: Iterable[str] = (),
    ) -> None:
        """`known` are destinations that have answered before, the last at the end.

        `on_room` is called when a visit that took less than there was is worth repeating.

        Mail for domains that `waits` says is not carried but fetched, mail for those
        that are `shared` may be (see `exchanger`).
        """
        self._waits = waits
        self._shared = shared
        self._outboxes = outboxes
        self._on_room = on_room
        self._transports = transports
        self._domain = domain
        self._settings = settings
        self._clock = clock
        self.schedule = Schedule(lambda: settings['queue.first_retry'], clock)
        self._pool = Pool(WORKERS)
        self._lines: dict[str, deque[tuple[int, OutboxEntry]]] = {}
        self._workers: dict[str, int] = {}
        # Lines without a greenlet, those of known destinations and of others.
        self._unattended: OrderedDict[str, None] = OrderedDict()
        self._unattended_strange: OrderedDict[str, None] = OrderedDict()
        self._answered: set[str] = set()  # of those with greenlets
        self._known = OrderedDict.fromkeys(known)  # answered the last time
        self._strange: set[str] = set()  # of those with greenlets, the others
        self._held: set[str] = set()  # whose line was full at a visit
        self._full = False  # all lines together were, at a visit
        self._under_way: dict[int, set[int]] = {shard: set() for shard in outboxes}
        # Handed over, but the shard could not be told: entries must not go twice.
        self._unsettled: OrderedDict[tuple[int, int], dict[str, Reply]] = OrderedDict()
        self.delivered = 0
        self.bounced = 0
        self.deferred = 0

    @property
    def under_way(self) -> int:
        return sum(map(len, self._under_way.values()))

    def visit(self, shard: int) -> int:
        """Line up all due entries of a shard that are not under way; how many.

        Raises ShardUnavailable.
        """
        outbox, busy = self._outboxes[shard], self._under_way[shard]
        room = min(BATCH, IN_LINES - self.under_way)
        if room <= 0:
            self._full = True
            return 0
        skip = [domain for domain, line in self._lines.items() if len(line) >= LINE_LIMIT]
        self._held.update(skip)
        # Entries under way are still due: ask for so many more.
        entries = outbox.due(int(self._clock()), room + len(busy), skip[:SKIP_LIMIT])
        started = 0
        strange: int | None = None  # counted when it matters
        postponed: set[str] = set()
        for entry in entries:
            if entry.id in busy or entry.domain in postponed:
                continue
            until = self.schedule.down_until(entry.domain)
            if until:
                postponed.add(entry.domain)
                outbox.postpone(entry.domain, int(until) + 1, self.schedule.error(entry.domain))
                continue
            if self._waits(entry.domain):
                postponed.add(entry.domain)
                outbox.postpone(entry.domain, int(self._clock()) + WAITING_TIME, WAITING)
                continue
            if self._is_strange(entry.domain):
                if strange is None:
                    strange = self._strangers_lined_up()
                if strange >= STRANGE_LINES:
                    postponed.add(entry.domain)
                    turn = int(self._clock()) + TURN_TIME
                    outbox.postpone(entry.domain, turn, entry.last_error or IN_TURN)
                    continue
                strange += 1
            busy.add(entry.id)
            started += 1
            self._lines.setdefault(entry.domain, deque()).append((shard, entry))
            self._engage(entry.domain)
        return started + len(postponed)

    def expire(self, shard: int) -> int:
        """Give back what is too old, tried or not; how many.  Raises ShardUnavailable."""
        lifetime = self._settings['queue.lifetime']
        if not lifetime:
            return 0
        outbox, busy = self._outboxes[shard], self._under_way[shard]
        given_back = 0
        for entry in self._too_old(outbox, busy, int(self._clock() - lifetime)):
            if entry.id in busy:
                continue  # since we looked
            busy.add(entry.id)
            try:
                body = outbox.body(entry)
                last = Reply(451, EXPIRED, entry.last_error or 'It was never reached')
                known = self._unsettled.pop((shard, entry.id), None)
                if known is not None:
                    self._settle_known(outbox, entry, known)
                elif body is None:
                    outbox.remove(entry, None)
                else:
                    self._settle(outbox, entry, body, [last] * len(entry.recipients))
            finally:
                busy.discard(entry.id)
            given_back += 1
        return given_back

    def _too_old(self, outbox: Outbox, busy: set[int], created: int) -> list[OutboxEntry]:
        """At most BATCH; what cannot go now does not hide what is behind it."""
        found: list[OutboxEntry] = []
        for limit in (BATCH, BATCH * 10, BATCH * 100):
            entries = outbox.older(created, limit)
            found = [
                entry
                for entry in entries
                if entry.id not in busy
                and parked(entry.domain) is None
                and entry.leased_until <= self._clock()
            ]
            if found or len(entries) < limit:
                break
        return found[:BATCH]

    def retry(self, domain: str = '') -> None:
        """The operator wants a destination tried now; without one, all of them.

        What a visit has put off just before is made due again.
        """
        self.schedule.retry(domain)
        for outbox in self._outboxes.values():
            try:
                outbox.hasten(domain)
            except ShardUnavailable:
                continue

    def waiting(self) -> dict[str, int]:
        """Entries lined up, by domain."""
        return {domain: len(line) for domain, line in self._lines.items()}

    def finish(self, timeout: float | None = None) -> bool:
        """Wait for the entries under way; whether all have ended."""
        return bool(self._pool.join(timeout))

    # -- inside

    def _is_strange(self, domain: str) -> bool:
        """Whether nobody knows that a destination answers; this relay itself does."""
        return domain not in self._known and parked(domain) is None

    def _strangers_lined_up(self) -> int:
        """Entries that wait in lines of such destinations."""
        return sum(len(line) for domain, line in self._lines.items() if self._is_strange(domain))

    def _engage(self, domain: str) -> None:
        """One more greenlet for a destination, if it may have one."""
        working = self._workers.get(domain, 0)
        if working >= (PER_DESTINATION if domain in self._answered else 1):
            return
        strange = self._is_strange(domain)
        if self._pool.free_count() > 0 and not (strange and len(self._strange) >= STRANGERS):
            self._workers[domain] = working + 1
            if strange:
                self._strange.add(domain)
            self._pool.spawn(self._work, domain)
        elif not working:
            (self._unattended_strange if strange else self._unattended)[domain] = None

    def _work(self, domain: str) -> None:
        """Work off one line, then those that found no greenlet when they began."""
        while True:
            try:
                self._work_off(domain)
            finally:
                self._leave(domain)
            while lines := self._waiting_lines():
                domain, _ = lines.popitem(last=False)
                if domain in self._lines and domain not in self._workers:
                    break
            else:
                return
            self._workers[domain] = 1
            if self._is_strange(domain):
                self._strange.add(domain)

    def _waiting_lines(self) -> OrderedDict[str, None]:
        """Those that a greenlet without work may take from."""
        if self._unattended or len(self._strange) >= STRANGERS:
            return self._unattended
        return self._unattended_strange

    def _work_off(self, domain: str) -> None:
        while line := self._lines.get(domain):
            shard, entry = line.popleft()
            if len(line) == REFILL and domain in self._held:
                self._held.discard(domain)
                self._on_room()
            self._handle(shard, entry)
            if self._full and self.under_way <= IN_LINES - BATCH:
                self._full = False
                self._on_room()

    def _leave(self, domain: str) -> None:
        left = self._workers[domain] - 1
        if left:
            self._workers[domain] = left
            return
        del self._workers[domain]
        self._strange.discard(domain)
        self._answered.discard(domain)
        if not self._lines.get(domain):
            self._lines.pop(domain, None)
            if domain in self._held:  # its line was emptied at once
                self._held.discard(domain)
                self._on_room()

    def _handle(self, shard: int, entry: OutboxEntry) -> None:
        try:
            known = self._unsettled.pop((shard, entry.id), None)
            if known is not None:
                self._settle_known(self._outboxes[shard], entry, known)
            elif not self.schedule.down_until(entry.domain):
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
        if self._shared(entry.domain) and not outbox.claim(entry, CLAIM_TIME):
            return  # it is on its way already
        transport = next(t for t in self._transports if t.takes(entry.domain))
        try:
            replies = transport.send(entry, body)
        except Unreachable as unreachable:
            reply = unreachable.reply
            if unreachable.met and entry.tries and not self.schedule.failing(entry.domain):
                # It breaks off again and again, while others got through.
                self._settle(outbox, entry, body, [reply] * len(entry.recipients))
                return
            self._unreachable(outbox, entry, body, reply)
            return
        except Exception as error:
            _log.exception('transport failed', error)
            replies = [AWAY] * len(entry.recipients)
        else:
            self.schedule.succeeded(entry.domain)
            self._meet(entry.domain)
            self._answered.add(entry.domain)
            if self._lines.get(entry.domain):
                self._engage(entry.domain)
        self._settle(outbox, entry, body, replies)

    def _meet(self, domain: str) -> None:
        """A destination has answered."""
        self._strange.discard(domain)
        if parked(domain) is None:
            self._known[domain] = None
            self._known.move_to_end(domain)
            if len(self._known) > KNOWN_LIMIT:
                self._known.popitem(last=False)

    def _settle_known(self, outbox: Outbox, entry: OutboxEntry, known: dict[str, Reply]) -> None:
        """What was handed over when its shard did not answer; recipients may be fewer by now."""
        replies = [known.get(name, AWAY) for name in entry.recipients]
        try:
            body = outbox.body(entry)
        except ShardUnavailable:
            self._unsettled[outbox.shard, entry.id] = known
            raise
        if body is not None:
            self._settle(outbox, entry, body, replies)

    def _unreachable(self, outbox: Outbox, entry: OutboxEntry, body: Body, reply: Reply) -> None:
        """Put the whole destination off; only this entry has been tried."""
        until = self.schedule.failed(entry.domain, _words(reply))
        line = self._lines.get(entry.domain)
        if line:
            for shard, other in line:
                self._under_way[shard].discard(other.id)
            line.clear()
        self._answered.discard(entry.domain)
        self._known.pop(entry.domain, None)
        self._settle(outbox, entry, body, [reply] * len(entry.recipients), until)
        for one in self._outboxes.values():
            try:
                one.postpone(entry.domain, int(until) + 1, _words(reply))
            except ShardUnavailable:
                continue  # visit finds it down

    def _settle(
        self,
        outbox: Outbox,
        entry: OutboxEntry,
        body: Body,
        replies: Sequence[Reply],
        until: float = 0.0,
    ) -> None:
        """One call to the shard, whatever happened."""
        pairs = list(zip(entry.recipients, replies, strict=True))
        failed = [(name, reply) for name, reply in pairs if reply.code >= 500]
        later = [(name, reply) for name, reply in pairs if 400 <= reply.code < 500]
        now = self._clock()
        if later and self._is_over(entry, now):
            failed += [(name, _expired(reply)) for name, reply in later]
            later = []
        report = None
        if failed and entry.sender:
            report = bounce(
                self._domain, entry.sender, failed, header_block(body), now, entry.created
            )
        try:
            if later:
                next_try = int(now + self._delay(entry)) + 1
                if until:
                    # Behind all others: it may be what the destination stumbles over.
                    next_try = max(next_try, int(until) + 2)
                left = [name for name, _ in later] if len(later) < len(pairs) else None
                outbox.retry(entry, next_try, _words(later[0][1]), left, report)
                self.deferred += 1
            else:
                outbox.remove(entry, report)
        except ShardUnavailable:
            if any(reply.code < 400 for reply in replies):
                self._unsettled[outbox.shard, entry.id] = dict(pairs)
                if len(self._unsettled) > UNSETTLED_LIMIT:
                    self._unsettled.popitem(last=False)
            raise
        self.delivered += len(pairs) - len(failed) - len(later)
        self.bounced += len(failed)

    def _is_over(self, entry: OutboxEntry, now: float) -> bool:
        """Whether the try that has just failed was the last one."""
        lifetime, tries = self._settings['queue.lifetime'], self._settings['queue.tries']
        if lifetime and now - entry.created >= lifetime:
            return True
        return bool(tries and entry.tries + 1 >= tries and parked(entry.domain) is None)

    def _delay(self, entry: OutboxEntry) -> float:
        """Doubling, and spread so that a queue does not wake all at once."""
        if parked(entry.domain):
            base = min(2.0 * 2 ** min(entry.tries, 10), SHARD_DELAY)
        else:
            first = self._settings['queue.first_retry']
            base = min(first * 2 ** min(entry.tries, 10), LONGEST)
        spread: float = base * random.uniform(0.8, 1.2)
        return spread


def _words(reply: Reply) -> str:
    """A reply as it is kept with the entry, for the operator."""
    return f'{reply.code} {reply.enhanced} {reply.text}'


def _expired(last: Reply) -> Reply:
    return Reply(550, EXPIRED, f'Gave up, last answer: {_words(last)}', 'expired')
