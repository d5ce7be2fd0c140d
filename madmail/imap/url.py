"""IMAP URLs of messages (RFC 5092), as CATENATE takes them (RFC 4469 4.1).

Read are `/mailbox;UIDVALIDITY=n/;UID=n/;SECTION=s/;PARTIAL=o.l`, and the same behind
`imap://user@host` or `imap://host`.  Mailbox names are UTF-8 in percent-encoding.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from madmail.imap import grammar_fetch
from madmail.imap.mailbox_name import fold_inbox
from madmail.imap.syntax import MAX_NUMBER, Bad, Section

# RFC 5092 11: `bchar` without `;`, which the parameters begin with.
_URL = re.compile(
    rb"(?:imap://(?:([A-Za-z0-9%\-._~!$'()*+,&=]*)(?:;AUTH=[^@/]*)?@)?"
    rb'([A-Za-z0-9\-._~:\[\]]+))?'
    rb"/([A-Za-z0-9%\-._~!$'()*+,&=:@/]+?)"
    rb'(?:;UIDVALIDITY=([0-9]{1,10}))?'
    rb'/?;UID=([0-9]{1,10})'
    rb"(?:/?;SECTION=([A-Za-z0-9%\-._~!$'()*+,&=:@/]+?))?"
    rb'(?:/?;PARTIAL=([0-9]{1,10})(?:\.([0-9]{1,10}))?)?/?\Z',
    re.IGNORECASE,
)
_HEX = re.compile(rb'%([0-9A-Fa-f]{2})?')


class MessageUrl(NamedTuple):
    """One message of a mailbox, or a section of it.

    `user` and `host` are '' where the URL names none; `uid_validity` 0 for any.
    `partial` is (first octet, length), length 0 for the rest.
    """

    user: str
    host: str
    mailbox: str
    uid_validity: int
    uid: int
    section: Section
    partial: tuple[int, int] | None


def parse(url: bytes) -> MessageUrl | None:
    """None if it is none of a message."""
    found = _URL.match(url)
    if found is None:
        return None
    user, host, mailbox, validity, uid, section, origin, length = found.groups()
    try:
        name = _decode(mailbox)
        owner = _decode(user or b'')
        what = grammar_fetch.section_text(_decode(section).encode()) if section else Section()
    except (ValueError, Bad):
        return None
    numbers = [int(uid), int(validity or b'1'), int(origin or b'1'), int(length or b'1')]
    if max(numbers) > MAX_NUMBER or 0 in (numbers[0], numbers[1], numbers[3]):
        return None
    if not name or '\0' in name:
        return None
    return MessageUrl(
        owner,
        (host or b'').decode('ascii').lower(),
        fold_inbox(name),
        int(validity or b'0'),
        int(uid),
        what,
        None if origin is None else (int(origin), int(length or b'0')),
    )


def _decode(octets: bytes) -> str:
    """Percent-encoding undone; raises ValueError."""

    def octet(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise ValueError
        return bytes((int(match[1], 16),))

    return (_HEX.sub(octet, octets) if b'%' in octets else octets).decode()
