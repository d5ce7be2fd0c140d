"""The way of an accepted message to its mailboxes and queues.

One message goes, at the same time, to the shard that accepted it, to every
other shard that owns a recipient, and into the outbox, one entry a remote
domain.  The outbox rows are written in the same transaction as the deliveries
of the own shard.  250 is answered only when all of it is durable.

A shard that cannot be asked is asked again for a few seconds under the same
delivery id, so it stores the message once however often it hears of it.  After
that its part is parked in the outbox (see `destination`).

Local names that do not exist are never refused: a submitter gets a bounce, a
sending server gets the same answer as for any other name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import gevent

from madmail import log
from madmail.delivery.destination import Parked
from madmail.delivery.policy import Policy
from madmail.delivery.traffic import Traffic
from madmail.message.bounce import bounce
from madmail.metrics.histogram import Histogram
from madmail.settings import Settings
from madmail.smtp.reply import Fault, Reply
from madmail.store.interface import Body, OutboxEntry, Outcome, Store, StoreFull
from madmail.store.spool import MemoryBody

if TYPE_CHECKING:
    from madmail.delivery.federation import Federation

ID_LENGTH = 14  # octets of a message's id; with the shard's index it is a delivery id
ELSEWHERE_TIME = 5.0  # seconds for other shards, retries included
FIRST_PAUSE = 0.05  # seconds before the second attempt, doubled each time
HEADERS_LIMIT = 64 * 1024  # octets of a header block, as inspection allows

QUEUED = Reply(250, '2.0.0', 'Ok: queued')
TROUBLE = Reply(451, '4.3.0', 'Temporary trouble, try again later', 'trouble', Fault.OURS)
FULL = Reply(452, '4.2.2', 'Mailbox is full', 'over_quota', Fault.POLICY)
# What a bounce says of one recipient.
REASONS = {
    Outcome.UNKNOWN: Reply(550, '5.1.1', 'There is no such address at this relay', 'unknown'),
    Outcome.OVER_QUOTA: Reply(552, '5.2.2', 'The mailbox of this address is full', 'over_quota'),
}

# (shard, body, addresses, delivery id) → one outcome an address.  Any exception means
# that the shard may or may not have stored it.
Elsewhere = Callable[[int, Body, Sequence[str], bytes], Sequence[Outcome]]

_log = log.get('delivery')


class Split(NamedTuple):
    shards: dict[int, list[str]]  # local addresses by the shard that owns them
    remote: dict[str, list[str]]  # by domain
    nowhere: list[str]  # local names that no account can have


class Fate(NamedTuple):
    """Local recipients by what became of them; parked ones count as stored."""

    stored: int
    failed: list[tuple[str, Outcome]]


def header_block(body: Body) -> bytes:
    """The header lines of a stored message, with the CRLF of the last one."""
    start = body.read(0, HEADERS_LIMIT)
    end = start.find(b'\r\n\r\n')
    return start if end < 0 else start[: end + 2]


def fingerprint(recipients: Sequence[str]) -> blake2b:
    """To be fed with what is kept of a message from elsewhere; its digest is a `message_id`.

    What is kept has neither trace fields nor signatures, so a sender that comes
    again, another way even, gives the same.
    """
    return blake2b('\n'.join(recipients).encode(), digest_size=ID_LENGTH)


class Router:
    """One a shard; every call may block its greenlet for a few seconds."""

    def __init__(
        self,
        store: Store,
        deliver_elsewhere: Elsewhere,
        *,
        own_shard: int,
        shard_of: Callable[[str], int],
        settings: Settings,
        domain: str,
        federation: Federation | None = None,
        announce: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`announce` is called when the outbox has something new."""
        self.policy = Policy(domain, settings, federation)
        self._store = store
        self._elsewhere = deliver_elsewhere
        self._own = own_shard
        self._shard_of = shard_of
        self._domain = domain
        self._announce = announce
        self._clock = clock
        self.traffic = Traffic()
        self.durable = Histogram()  # from the end of data until it is on disk, everywhere

    def submit(self, sender: str, recipients: Sequence[str], body: Body) -> Reply:
        """Mail of a local account to anywhere; recipients as `Policy.recipient` spells them."""
        began = perf_counter()
        split = self._split(recipients)
        for domain in [domain for domain in split.remote if self.policy.dismissed(domain)]:
            del split.remote[domain]
        try:
            fate = self._distribute(sender, split, body)
        except StoreFull:
            return TROUBLE
        failed = [*fate.failed, *((name, Outcome.UNKNOWN) for name in split.nowhere)]
        if failed and sender:
            self._bounce(sender, failed, body)
        self.traffic.sent += 1
        self.durable.observe(perf_counter() - began)
        return QUEUED

    def receive(
        self,
        recipients: Sequence[str],
        body: Body,
        message_id: bytes | None = None,
        origin: str = '',
    ) -> Reply:
        """Mail from elsewhere to local accounts; `origin` is its author's domain, if proved.

        With a `message_id` of ID_LENGTH octets, the same message for the same
        recipients may be given to any shard of the relay once more, within a
        day, and is stored once.

        Unknown names are answered like known ones.  A full mailbox is
        admitted only when nobody could be served, because a sender that is
        told nothing would take the message for delivered; in a mixed
        transaction a refusal would make those who have it get it again.
        """
        began = perf_counter()
        split = self._split(recipients)
        if split.remote:
            raise ValueError('remote recipient on the inbound path')
        try:
            # No reverse-path is kept: whoever wrote it has proved nothing, and
            # a late failure must not make us send mail to it.
            fate = self._distribute('', split, body, message_id)
        except StoreFull:
            return TROUBLE
        if not fate.stored and any(outcome is Outcome.OVER_QUOTA for _, outcome in fate.failed):
            return FULL
        self.traffic.arrived(origin)
        self.durable.observe(perf_counter() - began)
        return QUEUED

    # -- inside

    def _split(self, recipients: Sequence[str]) -> Split:
        split = Split({}, {}, [])
        policy = self.policy
        for recipient in dict.fromkeys(recipients):  # one copy each, however often named
            domain = recipient.rpartition('@')[2]
            if domain != self._domain:
                split.remote.setdefault(domain, []).append(recipient)
            elif policy.ownable(recipient):
                split.shards.setdefault(self._shard_of(recipient), []).append(recipient)
            else:
                split.nowhere.append(recipient)
        return split

    def _distribute(
        self, sender: str, split: Split, body: Body, message_id: bytes | None = None
    ) -> Fate:
        """Raises StoreFull; parts that other shards have taken by then stay with them."""
        now = int(self._clock())
        # With the shard's index: ids differ even in a shared database.
        base = message_id or os.urandom(ID_LENGTH)
        outbox = [
            OutboxEntry(0, sender, domain, tuple(names), now, next_try=now)
            for domain, names in split.remote.items()
        ]
        calls = [
            (shard, body, names, base + shard.to_bytes(2, 'big'))
            for shard, names in split.shards.items()
            if shard != self._own
        ]
        own = split.shards.get(self._own, [])
        results: list[tuple[Sequence[str], Sequence[Outcome]]] = []
        # PERF: most messages have one recipient; with no other part to wait for beside it,
        # its shard is called from this greenlet, which saves 40 us.
        inline = calls.pop() if len(calls) == 1 and not own and not outbox else None
        others = [gevent.spawn(self._deliver_to, *call) for call in calls]
        try:
            if own or outbox:
                own_id = base + self._own.to_bytes(2, 'big')
                results.append(
                    (
                        own,
                        self._store.deliver(
                            body, own, delivery_id=own_id, outbox=outbox, quiet=sender
                        ),
                    )
                )
        finally:
            # In any case: the others still read the body.
            if others:
                gevent.joinall(others)
        answers = [self._deliver_to(*inline)] if inline else [other.get() for other in others]
        waiting: list[OutboxEntry] = []
        stored = 0
        for shard, names, delivery_id, outcomes in answers:
            if outcomes is None:
                domain = Parked(shard, delivery_id).domain
                waiting.append(OutboxEntry(0, sender, domain, tuple(names), now, next_try=now))
                stored += len(names)
            else:
                results.append((names, outcomes))
        if waiting:
            self._store.deliver(body, (), delivery_id=os.urandom(16), outbox=waiting)
            _log.warning('shard unavailable, mail parked', parts=len(waiting))
        if outbox or waiting:
            self._announce()
        failed: list[tuple[str, Outcome]] = []
        for names, outcomes in results:
            for name, outcome in zip(names, outcomes, strict=True):
                if outcome is Outcome.STORED:
                    stored += 1
                else:
                    failed.append((name, outcome))
        return Fate(stored, failed)

    def _deliver_to(
        self, shard: int, body: Body, names: Sequence[str], delivery_id: bytes
    ) -> tuple[int, Sequence[str], bytes, Sequence[Outcome] | None]:
        """Outcomes of another shard, None when it could not be asked in time."""
        pause = FIRST_PAUSE
        deadline = time.monotonic() + ELSEWHERE_TIME
        while True:
            left = deadline - time.monotonic()
            try:
                with gevent.Timeout(max(left, 0.001)):
                    outcomes = self._elsewhere(shard, body, names, delivery_id)
                return shard, names, delivery_id, outcomes
            except gevent.Timeout:
                break
            except Exception as error:
                _log.info('shard did not take mail', shard=shard, error=type(error).__name__)
            if time.monotonic() + pause > deadline:
                break
            gevent.sleep(pause)
            pause *= 2
        return shard, names, delivery_id, None

    def _bounce(self, sender: str, failed: Sequence[tuple[str, Outcome]], body: Body) -> None:
        """One report about all of `failed` to the sender; there is none about a report."""
        text = bounce(
            self._domain,
            sender,
            [(name, REASONS[outcome]) for name, outcome in failed],
            header_block(body),
            self._clock(),
        )
        try:
            self._distribute('', self._split([sender]), MemoryBody(text))
        except StoreFull:
            # The message is with all who could get it; refusing it now would double it.
            _log.error('no room for a bounce')
