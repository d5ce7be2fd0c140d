"""ENVELOPE: the addresses and identifiers of a header block (RFC 3501 7.4.2).

Addresses are read the way old mail needs it: RFC 5322 with its obsolete forms,
groups, source routes, and comments that serve as display names.  Nothing is
refused; what makes no sense gets a stand-in, because a NIL host or mailbox
would read as the mark of a group.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from madmail.message.header_fields import first_values

MAX_ADDRESSES = 2000  # in one field
MAX_FIELD = 64 * 1024  # octets of one field looked at
MAX_TOKENS = 20000  # words and marks in one field
MISSING_HOST = b'MISSING_DOMAIN'
MISSING_MAILBOX = b'MISSING_MAILBOX'


class Address(NamedTuple):
    """One address; host None begins (mailbox = its name) or ends (None) a group."""

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


class Envelope(NamedTuple):
    """Header values as they stand, unfolded; None where the field is absent."""

    date: bytes | None
    subject: bytes | None
    from_: tuple[Address, ...]
    sender: tuple[Address, ...]
    reply_to: tuple[Address, ...]
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    in_reply_to: bytes | None
    message_id: bytes | None


def envelope(block: bytes) -> Envelope:
    """The envelope of a header block."""
    values = first_values(block)
    from_ = addresses(values.get(b'from', b''))
    return Envelope(
        values.get(b'date'),
        values.get(b'subject'),
        from_,
        # RFC 3501 7.4.2: absent or empty Sender and Reply-To are From
        addresses(values.get(b'sender', b'')) or from_,
        addresses(values.get(b'reply-to', b'')) or from_,
        addresses(values.get(b'to', b'')),
        addresses(values.get(b'cc', b'')),
        addresses(values.get(b'bcc', b'')),
        values.get(b'in-reply-to'),
        values.get(b'message-id'),
    )


_TOKEN = re.compile(
    rb'(?P<space>[ \t\r\n]+)'
    rb'|"(?P<quoted>[^"\\]*(?:\\.[^"\\]*)*)(?:"|\\?\Z)'
    rb'|(?P<literal>\[[^\[\]\\]*(?:\\.[^\[\]\\]*)*\])'
    rb'|(?P<special>[<>@,;:(])'
    rb'|(?P<word>[^ \t\r\n"<>@,;:(\[]+|\[)',
    re.DOTALL,
)
_COMMENT = re.compile(rb'\\.|[()]', re.DOTALL)
_ESCAPE = re.compile(rb'\\(.)', re.DOTALL)


class _Reading:
    """The address being read and the list so far."""

    __slots__ = ('angle', 'closed', 'comment', 'found', 'group', 'host', 'local', 'route', 'words')

    def __init__(self) -> None:
        self.found: list[Address] = []
        self.group = False
        self.clear()

    def clear(self) -> None:
        self.words: list[tuple[bytes, bool]] = []  # text, and whether a blank stood before it
        self.local: list[bytes] | None = None  # words of the addr-spec before `@`
        self.host: list[bytes] | None = None  # words behind `@`
        self.route: list[bytes] = []
        self.angle = False  # `<` was there
        self.closed = False  # `>` was there; more words belong to nothing
        self.comment = b''

    def word(self, text: bytes, spaced: bool) -> None:
        if self.closed:
            return
        if self.host is not None:
            self.host.append(text)
        elif self.local is not None:
            self.local.append(text)
        else:
            self.words.append((text, spaced))

    def phrase(self) -> bytes:
        return b''.join(
            b' ' + text if spaced and index else text
            for index, (text, spaced) in enumerate(self.words)
        )

    def special(self, octet: bytes) -> None:
        if octet == b',' and not self._route_ends(b','):
            self.finish()
        elif octet == b':' and not self._route_ends(b'') and not self.angle and not self.group:
            self.found.append(Address(None, None, self.phrase(), None))
            self.group = True
            self.clear()
        elif octet == b';':
            self.finish()
            if self.group:
                self.found.append(Address(None, None, None, None))
                self.group = False
        elif octet == b'<' and not self.angle:
            if self.host is not None:  # a@b <c@d>: what stood before is the name
                self.words = [(b''.join([*(self.local or ()), b'@', *self.host]), False)]
                self.host = None
            self.angle = True
            self.local = []
        elif octet == b'>' and self.angle:
            self.closed = True
        elif octet == b'@' and not self.closed:
            if self.host is not None:
                self.host.append(b'@')
                return
            if self.local is None:  # no `<`: the words so far are the local part
                self.local = [text for text, _ in self.words]
                self.words = []
            self.host = []

    def _route_ends(self, separator: bytes) -> bool:
        """RFC 5322 4.4: a hop of <@one,@two:local@host> was read."""
        if not self.angle or self.closed or self.host is None or self.local:
            return False
        self.route += [b'@', *self.host, separator]
        self.host = None
        return True

    def finish(self) -> None:
        """`,` `;` or the end: the address is complete, if there is one."""
        phrase = self.phrase()
        if self.local is None and phrase:  # a word that is no address
            self.found.append(Address(None, None, phrase, MISSING_HOST))
        elif self.local is not None:
            self.found.append(
                Address(
                    phrase or self.comment or None,
                    b''.join(self.route) or None,
                    b''.join(self.local) or MISSING_MAILBOX,
                    b''.join(self.host or ()) or MISSING_HOST,
                )
            )
        self.clear()


def addresses(value: bytes) -> tuple[Address, ...]:
    """An address list, unfolded; groups stand between their marks."""
    value = value[:MAX_FIELD]
    reading = _Reading()
    position = tokens = 0
    spaced = False
    while position < len(value) and len(reading.found) < MAX_ADDRESSES and tokens < MAX_TOKENS:
        tokens += 1
        token = _TOKEN.match(value, position)
        if token is None:
            position += 1
            continue
        position = token.end()
        kind = token.lastgroup
        text = token[kind] if kind else b''
        if kind == 'space':
            spaced = True
            continue
        if kind == 'special':
            if text == b'(':
                position, comment = _comment(value, position)
                reading.comment = reading.comment or comment
                spaced = True
                continue
            reading.special(text)
        else:
            if kind == 'quoted' and b'\\' in text:
                text = _ESCAPE.sub(rb'\1', text)
            reading.word(text, spaced)
        spaced = False
    reading.finish()
    if reading.group:
        reading.found.append(Address(None, None, None, None))
    return tuple(reading.found)


def _comment(value: bytes, position: int) -> tuple[int, bytes]:
    """Behind the comment that begins before `position`, and its text."""
    depth = 1
    start = position
    for mark in _COMMENT.finditer(value, position):
        if mark[0] == b'(':
            depth += 1
        elif mark[0] == b')':
            depth -= 1
            if depth == 0:
                text = value[start : mark.start()]
                return mark.end(), _ESCAPE.sub(rb'\1', text).strip()
    return len(value), value[start:].strip()
