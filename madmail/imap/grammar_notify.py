"""NOTIFY (RFC 5465 8)."""

from __future__ import annotations

from madmail.imap.grammar_fetch import fetch_items
from madmail.imap.syntax import Bad, EventGroup, FetchItem, Notify
from madmail.imap.tokens import Reader

MAX_GROUPS = 32
MAX_MAILBOXES = 1000  # named in one command

_MESSAGE = frozenset(('MESSAGENEW', 'MESSAGEEXPUNGE', 'FLAGCHANGE'))
EVENTS = {
    'MESSAGENEW': 'MessageNew',
    'MESSAGEEXPUNGE': 'MessageExpunge',
    'FLAGCHANGE': 'FlagChange',
    'MAILBOXNAME': 'MailboxName',
    'SUBSCRIPTIONCHANGE': 'SubscriptionChange',
    'MAILBOXMETADATACHANGE': 'MailboxMetadataChange',
    'SERVERMETADATACHANGE': 'ServerMetadataChange',
}
_BAD_EVENT = b'BADEVENT (%s)' % ' '.join(EVENTS.values()).encode()
_SELECTED = frozenset(('SELECTED', 'SELECTED-DELAYED'))
_FILTERS = _SELECTED | {'INBOXES', 'PERSONAL', 'SUBSCRIBED', 'SUBTREE', 'MAILBOXES'}


def notify(reader: Reader) -> Notify:
    reader.space()
    word = reader.atom()
    if word == 'NONE':
        return Notify(())
    if word != 'SET':
        raise Bad('Expected SET or NONE')
    reader.space()
    status = False
    if reader.peek() != 0x28:
        if reader.atom() != 'STATUS':
            raise Bad('Expected STATUS or an event group')
        status = True
        reader.space()
    groups = [_group(reader)]
    while reader.more():
        groups.append(_group(reader))
        if len(groups) > MAX_GROUPS or sum(len(group.names) for group in groups) > MAX_MAILBOXES:
            raise Bad('Too many event groups', status=b'NO', code=b'NOTIFICATIONOVERFLOW')
    if sum(group.mailboxes in _SELECTED for group in groups) > 1:
        raise Bad('The selected mailbox is specified twice')  # RFC 5465 6.1
    return Notify(tuple(groups), status)


def _group(reader: Reader) -> EventGroup:
    reader.expect(b'(')
    mailboxes = reader.atom()
    if mailboxes not in _FILTERS:
        raise Bad('Unknown mailbox filter')
    reader.space()
    names: tuple[str, ...] = ()
    if mailboxes in ('SUBTREE', 'MAILBOXES'):
        names = _mailboxes(reader)
        reader.space()
    events: set[str] = set()
    items: tuple[FetchItem, ...] = ()
    needs_body = False
    if not reader.at(b'('):
        if reader.atom() != 'NONE':
            raise Bad('Expected events or NONE')
        reader.expect(b')')
        return EventGroup(mailboxes, names, frozenset())
    while True:
        reader.blanks()
        event = reader.option()
        if not event:
            break
        if event not in EVENTS:
            # RFC 5465 5: the code lists what is supported
            raise Bad('Event is not supported', status=b'NO', code=_BAD_EVENT)
        events.add(event)
        if event == 'MESSAGENEW' and reader.blanks() and reader.peek() == 0x28:
            if mailboxes not in _SELECTED:
                raise Bad('Only new messages of the selected mailbox can be fetched')
            items, needs_body = fetch_items(reader)
    reader.expect(b')')
    reader.expect(b')')
    if not events:
        raise Bad('Expected an event')
    # RFC 5465 5 wants MessageNew and MessageExpunge together, and FlagChange only with
    # them; each of them alone is clear as well, and there are clients that ask for it.
    if mailboxes in _SELECTED and not events <= _MESSAGE:
        raise Bad('Only message events can be asked for the selected mailbox')
    return EventGroup(mailboxes, names, frozenset(events), items, needs_body)


def _mailboxes(reader: Reader) -> tuple[str, ...]:
    if not reader.at(b'('):
        return (reader.mailbox(),)
    names = []
    while True:
        reader.blanks()
        names.append(reader.mailbox())
        if len(names) > MAX_MAILBOXES:
            raise Bad('Too many mailboxes', status=b'NO', code=b'NOTIFICATIONOVERFLOW')
        if not reader.blanks() or reader.peek() == 0x29:
            break
    reader.expect(b')')
    return tuple(names)
