"""The JSON forms of mailboxes and messages, out of IMAP's."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from madmail.message.search_text import decode_words

# RFC 3501 6.4.5; the header is not fetched, ENVELOPE is made from it
SUMMARY = '(UID FLAGS RFC822.SIZE INTERNALDATE ENVELOPE)'
DETAIL = '(UID FLAGS RFC822.SIZE INTERNALDATE ENVELOPE BODY.PEEK[])'


def mailbox(listed: list[Any], counts: dict[str, int]) -> dict[str, Any]:
    """From `LIST (flags) "/" name` and its STATUS."""
    _, flags, _, name = listed
    attributes = [str(flag) for flag in flags if flag not in ('\\HasNoChildren', '\\HasChildren')]
    name = text(name)
    if name == 'INBOX':
        attributes.insert(0, '\\Inbox')
    said: dict[str, Any] = {
        'name': name,
        'messages': counts.get('MESSAGES', 0),
        'unseen': counts.get('UNSEEN', 0),
    }
    if attributes:
        said['attributes'] = attributes
    return said


def summary(items: dict[str, Any]) -> dict[str, Any]:
    """From the items of SUMMARY."""
    envelope = items.get('ENVELOPE')
    envelope = envelope if isinstance(envelope, list) and len(envelope) == 10 else [None] * 10
    date, subject, author, _, _, to, cc, _, reply, message_id = envelope
    arrived = _internal(text(items.get('INTERNALDATE')))
    told: dict[str, Any] = {'date': _date(text(date)) or arrived, 'subject': words(subject)}
    for name, value in (('from', author), ('to', to), ('cc', cc)):
        if value:
            told[name] = [_address(one) for one in value if isinstance(one, list) and len(one) == 4]
    for name, value in (('message_id', message_id), ('in_reply_to', reply)):
        if value:
            told[name] = text(value).strip().strip('<>')
    return {
        'uid': items['UID'],
        'seq_num': items['NUMBER'],
        'flags': [str(flag) for flag in items.get('FLAGS') or [] if flag != '\\Recent'],
        'size': items.get('RFC822.SIZE', 0),
        'date': arrived,
        'envelope': told,
    }


def detail(items: dict[str, Any]) -> dict[str, Any]:
    """The summary and the whole message.

    JSON has no octets: what is not UTF-8 is taken as Latin-1, one character an octet, so
    that nothing is lost.
    """
    body = items.get('BODY[]') or b''
    try:
        said = body.decode()
    except UnicodeDecodeError:
        said = body.decode('latin-1')
    return {**summary(items), 'body': said}


def text(value: Any) -> str:
    """A string or atom as text."""
    if isinstance(value, bytes):
        return value.decode('utf-8', 'replace')
    return '' if value is None else str(value)


def words(value: Any) -> str:
    """Text with encoded words (RFC 2047) decoded."""
    return decode_words(value) if isinstance(value, bytes) else text(value)


def _address(one: list[Any]) -> dict[str, str]:
    name, _, local, domain = one
    said = {'mailbox': text(local), 'host': text(domain)}
    if name:
        said['name'] = words(name)
    return said


def _date(value: str) -> str:
    """RFC 5322 → RFC 3339, '' when it cannot be read."""
    try:
        found = parsedate_to_datetime(value)
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        return found.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')
    except (ValueError, TypeError, OverflowError, IndexError):
        return ''


def _internal(value: str) -> str:
    """IMAP's date-time → RFC 3339."""
    try:
        found = datetime.strptime(value.strip(), '%d-%b-%Y %H:%M:%S %z')
    except ValueError:
        return ''
    return found.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')
