"""The outboxes of the shards, as the courier sees them, and mail parked for a shard.

Entries live in the store of the shard that accepted the message; each of them
leaves it by exactly one call of that shard.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gevent.lock import BoundedSemaphore

from madmail.delivery.destination import parked
from madmail.delivery.router import REASONS
from madmail.shard.calls import (
    CallRefused,
    ShardClient,
    ShardUnavailable,
    body_fields,
    body_from,
)
from madmail.smtp.reply import Fault, Reply
from madmail.store.interface import Body, OutboxEntry, Outcome
from madmail.store.spool import MemoryBody

AT_ONCE = 8  # parked entries on their way to one shard
AWAY_TIME = 1.0  # seconds a shard that did not answer is left alone

DELIVERED = Reply(250, '2.0.0', 'Ok')
AWAY = Reply(451, '4.3.0', 'Part of this relay is not available', 'shard', Fault.OURS)


class Outbox(Protocol):
    """The outbox of one shard.  Every method may raise ShardUnavailable."""

    shard: int

    def due(self, now: int, limit: int, skip: Sequence[str] = ()) -> list[OutboxEntry]: ...
    def older(self, created: int, limit: int) -> list[OutboxEntry]: ...
    def body(self, entry: OutboxEntry) -> Body | None: ...
    def remove(self, entry: OutboxEntry, report: bytes | None) -> None:
        """Remove; with `report`, put it into the sender's INBOX in the same transaction."""

    def retry(
        self,
        entry: OutboxEntry,
        next_try: int,
        error: str,
        recipients: Sequence[str] | None = None,
        report: bytes | None = None,
    ) -> None:
        """Try again later; with `recipients` only for these, with `report` about the others."""

    def postpone(self, domain: str, next_try: int, error: str) -> None:
        """Put off everything for a destination that cannot be reached."""

    def hasten(self, domain: str) -> None:
        """Make everything for a destination due; '' = for all."""

    def claim(self, entry: OutboxEntry, seconds: int) -> bool:
        """Keep it from being fetched for a while; False if it is being fetched now."""

    def deliver(self, body: Body, addresses: Sequence[str], delivery_id: bytes) -> list[Outcome]:
        """To accounts of this shard; the same id twice stores once."""


class ShardOutbox:
    """An Outbox by way of shard calls."""

    def __init__(self, client: ShardClient) -> None:
        self.shard = client.index
        self._client = client

    def due(self, now: int, limit: int, skip: Sequence[str] = ()) -> list[OutboxEntry]:
        return _entries(self._call('outbox_due', now=now, limit=limit, skip=list(skip)))

    def older(self, created: int, limit: int) -> list[OutboxEntry]:
        return _entries(self._call('outbox_older', created=created, limit=limit))

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

    def retry(
        self,
        entry: OutboxEntry,
        next_try: int,
        error: str,
        recipients: Sequence[str] | None = None,
        report: bytes | None = None,
    ) -> None:
        more: dict[str, Any] = {}
        if recipients is not None:
            more['recipients'] = list(recipients)
        if report is not None:
            more.update(sender=entry.sender, **body_fields(MemoryBody(report)))
        self._call('outbox_retry', entry_id=entry.id, next_try=next_try, error=error, **more)

    def postpone(self, domain: str, next_try: int, error: str) -> None:
        self._call('outbox_postpone', domain=domain, next_try=next_try, error=error)

    def hasten(self, domain: str) -> None:
        self._call('outbox_hasten', domain=domain)

    def claim(self, entry: OutboxEntry, seconds: int) -> bool:
        return bool(self._call('outbox_claim', entry_id=entry.id, seconds=seconds))

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


def _entries(rows: Sequence[dict[str, Any]]) -> list[OutboxEntry]:
    return [OutboxEntry(**{**row, 'recipients': tuple(row['recipients'])}) for row in rows]
