"""Which header fields leave this relay or enter a mailbox (section "Headers Out").

Outgoing mail keeps a short list of fields in forms that leave no room for text;
the rest is dropped, not refused, because old clients write more than they need.
Nothing a client's connection or program reveals about itself survives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from . import addresses, autocrypt, header, securejoin
from .addresses import Mailbox
from .header import Field

# Removed from mail as it enters a mailbox: traces of its way, and what could be
# mistaken for our own.
TRACE = frozenset(
    (
        b'arc-authentication-results',
        b'arc-message-signature',
        b'arc-seal',
        b'authentication-results',
        b'bcc',
        b'delivered-to',
        b'dkim-signature',
        b'domainkey-signature',
        b'envelope-to',
        b'received',
        b'received-spf',
        b'return-path',
        b'x-authentication-results',
        b'x-client-ip',
        b'x-envelope-from',
        b'x-envelope-to',
        b'x-forwarded-for',
        b'x-google-dkim-signature',
        b'x-original-to',
        b'x-originating-ip',
        b'x-real-ip',
        b'x-received',
        b'x-sender-ip',
        b'x-source-ip',
    )
)
DESCRIBING = frozenset((b'content-description', b'content-disposition'))
INCOMING = TRACE | DESCRIBING
# Removed from outgoing mail even where encryption is not required.
REVEALING = TRACE - {b'dkim-signature', b'domainkey-signature'} | {b'user-agent', b'x-mailer'}

SUBJECT = b'Subject: [...]\r\n'
NOBODY = b'"hidden-recipients": ;'

_ANGLE = rb'<[!-;=?-~]{1,320}>'
_MESSAGE_ID = re.compile(rb'[ \t]*(?:\r\n[ \t]+)?' + _ANGLE + rb'[ \t]*')
_MESSAGE_IDS = re.compile(rb'(?:(?:\r\n)?[ \t]*' + _ANGLE + rb')++(?:(?:\r\n)?[ \t]+)?')
# RFC 5322 3.3 with the obsolete zones; a comment may name the zone.
_DATE = re.compile(
    rb'(?:[A-Za-z]{3}, ?)?[ \t]*[0-9]{1,2} [A-Za-z]{3} [0-9]{4} [0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?'
    rb' (?:[+-][0-9]{4}|[A-Z]{1,4})(?: \([A-Za-z]{1,5}\))?'
)
_AUTO_SUBMITTED = re.compile(rb'no|auto-generated|auto-replied|auto-notified', re.IGNORECASE)
_CHAT_VERSION = re.compile(rb'[0-9]{1,4}(?:\.[0-9]{1,4}){0,3}')


def message_id(value: bytes) -> str:
    """The Message-ID with its brackets, '' when it is not of the usual form."""
    return header.unfold(value).decode('ascii') if _MESSAGE_ID.fullmatch(value) else ''


def date(value: bytes) -> bool:
    return _DATE.fullmatch(header.unfold(value)) is not None


def recipients(value: bytes) -> bytes:
    """A To value: addresses without display names, or the empty group."""
    if value == b' ' + NOBODY or addresses.PLAIN_LIST.fullmatch(value):
        return value
    found = addresses.parse(value)
    if found is None or not found.mailboxes:
        return b' ' + NOBODY
    return b' ' + b',\r\n '.join(b'<%b>' % box.address.encode() for box in found.mailboxes)


def _own_address(value: bytes, sender: str) -> bool:
    found = addresses.sole(value)
    return found is not None and addresses.comparable(found.address) == sender


_Check = Callable[[bytes, str], bool]
# Kept as they stand when the check agrees, otherwise dropped.
_KEPT: dict[bytes, _Check | None] = {
    b'date': None,  # these were checked by the gate
    b'message-id': None,
    b'mime-version': None,
    b'content-type': None,
    b'chat-version': lambda value, _: _CHAT_VERSION.fullmatch(header.unfold(value)) is not None,
    b'chat-is-post-message': lambda value, _: header.unfold(value) == b'1',
    b'references': lambda value, _: _MESSAGE_IDS.fullmatch(value) is not None,
    b'in-reply-to': lambda value, _: _MESSAGE_IDS.fullmatch(value) is not None,
    b'auto-submitted': lambda value, _: _AUTO_SUBMITTED.fullmatch(header.unfold(value)) is not None,
    b'autocrypt': autocrypt.valid,
    b'chat-disposition-notification-to': _own_address,
    b'secure-join': lambda value, _: securejoin.valid_token(value),
    b'secure-join-invitenumber': lambda value, _: securejoin.valid_token(value),
}


def reduced(fields: Sequence[Field], sender: Mailbox, group: bool = False) -> bytes:
    """The header block in its reduced form; `group` keeps Secure-Join-Group as well."""
    block: list[bytes] = []
    own = addresses.comparable(sender.address)
    keyed = False
    for name, value, raw in fields:
        if name in _KEPT:
            check = _KEPT[name]
        elif name == b'subject':
            block.append(SUBJECT)
            continue
        elif name == b'from':
            block.append(raw if sender.bare else b'From: <%b>\r\n' % sender.address.encode())
            continue
        elif name == b'to':
            kept = recipients(value)
            block.append(raw if kept is value else b'To:%b\r\n' % kept)
            continue
        elif group and name == b'secure-join-group' and securejoin.valid_token(value):
            check = None
        else:
            continue
        if check is not None and not check(value, own):
            continue
        if name == b'autocrypt':
            if keyed:
                continue
            keyed = True
        block.append(raw)
    block.append(b'\r\n')
    return b''.join(block)


def without(fields: Sequence[Field], dropped: frozenset[bytes]) -> bytes:
    """All fields but the named ones; the empty line is the caller's."""
    return b''.join([raw for name, _, raw in fields if name not in dropped])
