"""A store kept in dictionaries, for tests of what stands above the store."""

from collections.abc import Sequence
from dataclasses import replace

from madmail.store.interface import Body, OutboxEntry, Outcome, StoreFull


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

    def deliver(
        self,
        body: Body | None,
        addresses: Sequence[str],
        *,
        delivery_id: bytes,
        outbox: Sequence[OutboxEntry] = (),
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

    def outbox_due(self, now: int, limit: int = 100) -> list[OutboxEntry]:
        return [entry for entry in self.outbox if entry.next_try <= now][:limit]

    def outbox_remove(self, entry_id: int, bounce: Body | None = None, sender: str = '') -> None:
        self.outbox = [entry for entry in self.outbox if entry.id != entry_id]
        if bounce is not None and sender in self.boxes:
            self.boxes[sender].append(bounce.read())

    def outbox_retry(self, entry_id: int, next_try: int, error: str) -> None:
        self.outbox = [
            replace(e, tries=e.tries + 1, next_try=next_try, last_error=error)
            if e.id == entry_id
            else e
            for e in self.outbox
        ]
