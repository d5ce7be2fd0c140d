"""NOTIFY (RFC 5465): sessions that want to know what happens in other mailboxes.

`Notices` is what one session asked for and has not been told yet.  Messages that
come, change or go only mark their mailbox, so a busy mailbox costs one STATUS
when the client is told, and what waits is bounded by the number of mailboxes.

The selected mailbox is told about as ever, by `madmail.imap.news`; NOTIFY only
says which kinds of news, and whether they may come while no command runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from madmail.imap import responses
from madmail.imap.commands.registry import Tell
from madmail.imap.mailbox_name import DELIMITER
from madmail.imap.sequence_set import SequenceSet
from madmail.imap.syntax import (
    EventGroup,
    Fetch,
    FetchItem,
    Section,
)
from madmail.shard.wire import OUTPUT_LIMIT
from madmail.store.interface import MailboxNamed, MetadataChanged, SubscriptionChanged

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

MAX_LINES = 500  # LIST and METADATA responses that wait
MAX_KNOWN = 1000  # mailbox names whose events are remembered

_KINDS = {
    'MESSAGENEW': Tell.EXISTS,
    'MESSAGEEXPUNGE': Tell.EXPUNGE,
    'FLAGCHANGE': Tell.FLAGS,
}
_NO_EVENTS: frozenset[str] = frozenset()


class Notices:
    """One session's NOTIFY."""

    __slots__ = (
        '_dirty',
        '_known',
        '_lines',
        '_selected',
        '_session',
        '_subscribed',
        'at_once',
        'groups',
        'kinds',
        'shown',
    )

    def __init__(self, session: ImapSession, groups: tuple[EventGroup, ...]) -> None:
        self.groups = groups  # () for NOTIFY NONE
        self.kinds = Tell.NOTHING  # news of the selected mailbox that may be told at all
        self.at_once = Tell.NOTHING  # and while no command runs
        self.shown: Fetch | None = None  # what is fetched of new messages there
        self._session = session
        self._selected = 0
        self._known: dict[str, frozenset[str]] = {}
        self._dirty: dict[int, None] = {}  # mailboxes to tell about, in order
        self._lines: list[bytes] = []
        self._subscribed: set[str] | None = None
        if any(group.mailboxes == 'SUBSCRIBED' for group in groups):
            self._subscribed = set(session.shard.store.subscriptions(session.account.id))
        if groups:
            session.shard.boxes.subscribers.add(self)

    @property
    def account_id(self) -> int:
        return self._session.account.id

    def leave(self) -> None:
        self._session.shard.boxes.subscribers.remove(self)

    # -- what is wanted

    def events(self, name: str) -> frozenset[str]:
        """The events wanted of a mailbox that is not selected."""
        found = self._known.get(name)
        if found is None:
            found = _NO_EVENTS
            for group in self.groups:
                # RFC 5465 6: the first specification that fits counts
                if self._covers(group, name):
                    found = group.events
                    break
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[name] = found
        return found

    def _covers(self, group: EventGroup, name: str) -> bool:
        mailboxes = group.mailboxes
        if mailboxes == 'PERSONAL':
            return True
        if mailboxes == 'INBOXES':
            return name == 'INBOX'  # the only one that mail is delivered to
        if mailboxes == 'SUBSCRIBED':
            return self._subscribed is not None and name in self._subscribed
        if mailboxes == 'MAILBOXES':
            return name in group.names
        if mailboxes == 'SUBTREE':
            return any(
                name == root or name.startswith(root + DELIMITER) or not root
                for root in group.names
            )
        return False

    def selected(self, mailbox_id: int, name: str) -> None:
        """The session has selected this mailbox; 0 for none."""
        self._selected = mailbox_id
        self._dirty.pop(mailbox_id, None)
        self.kinds = self.at_once = Tell.NOTHING
        self.shown = None
        if not mailbox_id:
            return
        events = self.events(name)
        delayed = True
        for group in self.groups:
            if group.mailboxes in ('SELECTED', 'SELECTED-DELAYED'):
                events = group.events
                delayed = group.mailboxes == 'SELECTED-DELAYED'
                if group.items:
                    self.shown = Fetch(SequenceSet(()), group.items, needs_body=group.needs_body)
        for event, kind in _KINDS.items():
            if event in events:
                self.kinds |= kind
        self.at_once = self.kinds
        if delayed:
            # RFC 5465 6.1: not before a command that allows it
            self.at_once &= ~Tell.EXPUNGE

    def allowed(self, tell: Tell) -> Tell:
        """Of the news a command allows, those that the client wants."""
        return tell if tell & Tell.OWN else tell & self.kinds

    # -- what happens; True if there is something to tell

    def message_event(self, event: str, mailbox_id: int, name: str) -> bool:
        if mailbox_id == self._selected or event not in self.events(name):
            return False
        self._dirty[mailbox_id] = None
        return True

    def named(self, event: MailboxNamed, attributes: Sequence[str]) -> bool:
        """A mailbox was made, renamed or deleted (RFC 5465 5.4)."""
        if not any('MAILBOXNAME' in self.events(name) for name in (event.old, event.new) if name):
            return False
        return self._queue(
            responses.list_(
                attributes if event.new else ('\\NonExistent',),
                event.new or event.old,
                utf8=self._session.utf8,
                old_name=event.old if event.new else '',
            )
        )

    def subscription(self, event: SubscriptionChanged) -> bool:
        if self._subscribed is not None:
            self._known.clear()
            (self._subscribed.add if event.subscribed else self._subscribed.discard)(event.name)
        if 'SUBSCRIPTIONCHANGE' not in self.events(event.name):
            return False
        attributes = ('\\Subscribed',) if event.subscribed else ()
        return self._queue(responses.list_(attributes, event.name, utf8=self._session.utf8))

    def metadata(self, event: MetadataChanged, name: str) -> bool:
        if event.mailbox_id:
            wanted = 'MAILBOXMETADATACHANGE' in self.events(name)
        else:
            wanted = any('SERVERMETADATACHANGE' in group.events for group in self.groups)
        if not wanted:
            return False
        return self._queue(responses.metadata_names(name, event.entries, self._session.utf8))

    def mailbox_gone(self, mailbox_id: int) -> None:
        self._dirty.pop(mailbox_id, None)

    def stirred(self) -> None:
        self._session.stirred()

    def _queue(self, line: bytes) -> bool:
        self._lines.append(line)
        return True

    # -- telling

    @property
    def waiting(self) -> bool:
        return bool(self._lines or self._dirty)

    def tell(self) -> None:
        """Write what waits; never switches."""
        wire = self._session.wire
        if wire.unsent > OUTPUT_LIMIT or len(self._lines) > MAX_LINES:
            self._overflow()
            return
        lines, self._lines = self._lines, []
        dirty, self._dirty = self._dirty, {}
        wire.write(b''.join(lines))
        for mailbox_id in dirty:
            self.status(mailbox_id)

    def status(self, mailbox_id: int) -> None:
        """STATUS of a mailbox with what may have changed (RFC 5465 5.1 to 5.3)."""
        session = self._session
        row = session.shard.store.mailbox_by_id(mailbox_id)
        if row is None:
            return
        items: list[tuple[str, int | str]] = [
            ('MESSAGES', row.messages),
            ('UIDNEXT', row.uid_next),
            ('UIDVALIDITY', row.uid_validity),
        ]
        if 'FLAGCHANGE' in self.events(row.name):
            items.append(('HIGHESTMODSEQ', row.highest_modseq))
        session.wire.write(responses.status(row.name, items, session.utf8))

    def first_status(self) -> None:
        """STATUS of every mailbox whose messages are watched (RFC 5465 4: STATUS)."""
        session = self._session
        for row in session.shard.store.mailboxes(session.account.id):
            if row.id != self._selected and not self.events(row.name).isdisjoint(_KINDS):
                self.status(row.id)

    def _overflow(self) -> None:
        """The client does not keep up: from now on as after NOTIFY NONE (RFC 5465 5.8)."""
        self.leave()
        self.groups = ()
        self._known.clear()
        self._dirty.clear()
        self._lines.clear()
        self.kinds = self.at_once = Tell.NOTHING
        self.shown = None
        self._session.wire.write(b'* OK [NOTIFICATIONOVERFLOW] Too much happens\r\n')

    # -- moving to another process

    def freeze(self) -> list[Any]:
        return [
            [
                group.mailboxes,
                list(group.names),
                sorted(group.events),
                [[*item] for item in group.items],
                group.needs_body,
            ]
            for group in self.groups
        ]

    @classmethod
    def thaw(cls, session: ImapSession, state: list[Any]) -> Notices:
        """As it was; what happened meanwhile is not known, so all mailboxes are told."""
        notices = cls(
            session,
            tuple(
                EventGroup(kind, tuple(names), frozenset(events), tuple(map(_item, items)), body)
                for kind, names, events, items, body in state
            ),
        )
        view = session.view
        if view is not None:
            notices.selected(view.box.id, view.box.name)
        for row in session.shard.store.mailboxes(session.account.id):
            for event in _KINDS:
                notices.message_event(event, row.id, row.name)
        return notices


def _item(state: list[Any]) -> FetchItem:
    kind, name, section, peek, partial = state
    if section is not None:
        part, text, fields = section
        section = Section(tuple(part), text, tuple(fields))
    return FetchItem(kind, name, section, peek, None if partial is None else tuple(partial))
