"""The sessions of a shard that asked for NOTIFY, by account.

Passes the store's events to their `Notices` (see madmail.imap.notices).  Without
any such session this is empty, and events cost one look at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from madmail.store.interface import (
    AccountGone,
    Appended,
    Event,
    Expunged,
    FlagsChanged,
    MailboxGone,
    MailboxNamed,
    MetadataChanged,
    Store,
    SubscriptionChanged,
)

if TYPE_CHECKING:
    from madmail.imap.notices import Notices

_MESSAGE_EVENTS = {Appended: 'MESSAGENEW', Expunged: 'MESSAGEEXPUNGE', FlagsChanged: 'FLAGCHANGE'}


class Subscribers:
    """The sessions of a shard with NOTIFY, by account."""

    __slots__ = ('_accounts', '_boxes', '_store')

    def __init__(self, store: Store) -> None:
        self._store = store
        self._accounts: dict[int, list[Notices]] = {}
        self._boxes: dict[int, tuple[int, str]] = {}  # account, name; of these accounts only

    def __bool__(self) -> bool:
        return bool(self._accounts)

    def add(self, notices: Notices) -> None:
        account_id = notices.account_id
        known = self._accounts.get(account_id)
        if known is None:
            self._accounts[account_id] = [notices]
            for row in self._store.mailboxes(account_id):
                self._boxes[row.id] = (account_id, row.name)
        else:
            known.append(notices)

    def remove(self, notices: Notices) -> None:
        known = self._accounts.get(notices.account_id, [])
        if notices not in known:
            return
        known.remove(notices)
        if not known:
            self._forget(notices.account_id)

    def _forget(self, account_id: int) -> None:
        self._accounts.pop(account_id, None)
        for mailbox_id in [box for box, (owner, _) in self._boxes.items() if owner == account_id]:
            del self._boxes[mailbox_id]

    def events(self, events: Sequence[Event]) -> None:
        """Pass on what a commit group did; never blocks."""
        touched: dict[Notices, None] = {}
        for event in events:
            if isinstance(event, AccountGone):
                self._forget(event.account_id)
            elif isinstance(event, MailboxNamed | SubscriptionChanged | MetadataChanged):
                known = self._accounts.get(event.account_id)
                if known:
                    touched.update((n, None) for n in self._account_event(event, known))
            else:
                box = self._boxes.get(event.mailbox_id)
                if box is None:
                    continue
                if isinstance(event, MailboxGone):
                    del self._boxes[event.mailbox_id]
                    for notices in self._accounts[box[0]]:
                        notices.mailbox_gone(event.mailbox_id)
                    continue
                kind = _MESSAGE_EVENTS[type(event)]
                for notices in self._accounts[box[0]]:
                    if notices.message_event(kind, event.mailbox_id, box[1]):
                        touched[notices] = None
        for notices in touched:
            notices.stirred()

    def _account_event(
        self, event: MailboxNamed | SubscriptionChanged | MetadataChanged, known: list[Notices]
    ) -> list[Notices]:
        if isinstance(event, SubscriptionChanged):
            return [notices for notices in known if notices.subscription(event)]
        if isinstance(event, MetadataChanged):
            name = self._boxes.get(event.mailbox_id, (0, ''))[1]
            if event.mailbox_id and not name:
                return []
            return [notices for notices in known if notices.metadata(event, name)]
        attributes: list[str] = []
        if event.new:
            self._boxes[event.mailbox_id] = (event.account_id, event.new)
            row = self._store.mailbox_by_id(event.mailbox_id)
            if row is not None:
                attributes = row.special_use.split()
        return [notices for notices in known if notices.named(event, attributes)]
