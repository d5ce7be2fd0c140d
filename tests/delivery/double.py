"""A store kept in dictionaries, for tests of what stands above the store."""

from collections.abc import Sequence
from dataclasses import replace

from madmail.store.interface import Account, Body, OutboxEntry, Outcome, StoreFull


class MemoryStore:
    """The delivery half of a Store; `boxes` are the INBOXes by address."""

    def __init__(self, *addresses: str) -> None:
        self.boxes: dict[str, list[bytes]] = {address: [] for address in addresses}
        self.full: set[str] = set()
        self.outbox: list[OutboxEntry] = []
        self.queued: dict[int, bytes] = {}
        self.seen: dict[bytes, list[Outcome]] = {}
        self.disk_full = False
        self.transactions = 0
        self.account: Account | None = None  # the one that is logged in, if that matters

    def account_by_id(self, account_id: int) -> Account | None:
        return self.account

    def deliver(
        self,
        body: Body | None,
        addresses: Sequence[str],
        *,
        delivery_id: bytes,
        outbox: Sequence[OutboxEntry] = (),
        quiet: str = '',
    ) -> list[Outcome]:
        assert len(delivery_id) == 16
        if self.disk_full:
            raise StoreFull
        if delivery_id in self.seen:
            return self.seen[delivery_id]
        self.transactions += 1
        assert body is not None
        text = body.read()
        outcomes = []
        for address in addresses:
            if address not in self.boxes:
                outcomes.append(Outcome.UNKNOWN)
            elif address in self.full:
                outcomes.append(Outcome.OVER_QUOTA)
            else:
                self.boxes[address].append(text)
                outcomes.append(Outcome.STORED)
        for entry in outbox:
            number = len(self.queued) + 1
            self.queued[number] = text
            self.outbox.append(replace(entry, id=number, body_id=number, size=len(text)))
        self.seen[delivery_id] = outcomes
        return outcomes

    def outbox_due(self, now: int, limit: int = 100, skip: Sequence[str] = ()) -> list[OutboxEntry]:
        due = (e for e in self.outbox if e.next_try <= now and e.domain not in skip)
        return sorted(due, key=lambda e: (e.next_try, e.id))[:limit]

    def outbox_older(self, created: int, limit: int = 100) -> list[OutboxEntry]:
        return [entry for entry in self.outbox if entry.created < created][:limit]

    def outbox_remove(self, entry_id: int, bounce: Body | None = None, sender: str = '') -> None:
        self.outbox = [entry for entry in self.outbox if entry.id != entry_id]
        if bounce is not None and sender in self.boxes:
            self.boxes[sender].append(bounce.read())

    def outbox_retry(
        self,
        entry_id: int,
        next_try: int,
        error: str,
        *,
        recipients: Sequence[str] | None = None,
        bounce: Body | None = None,
        sender: str = '',
    ) -> None:
        for place, e in enumerate(self.outbox):
            if e.id == entry_id:
                self.outbox[place] = replace(
                    e,
                    tries=e.tries + 1,
                    next_try=next_try,
                    last_error=error,
                    recipients=e.recipients if recipients is None else tuple(recipients),
                )
                if bounce is not None and sender in self.boxes:
                    self.boxes[sender].append(bounce.read())

    def outbox_postpone(self, domain: str, next_try: int, error: str) -> int:
        moved = 0
        for place, e in enumerate(self.outbox):
            if e.domain == domain and e.next_try < next_try:
                self.outbox[place] = replace(e, next_try=next_try, last_error=error)
                moved += 1
        return moved
