"""Address lists of header fields (RFC 5322 3.4) on octets.

Quoted strings, nested comments, folding and groups are understood, so a `<`
inside a quoted display name is never taken for an address.  Refused are
obsolete routes, quoted local parts, and comments within an addr-spec.
"""

from __future__ import annotations

import re
from typing import NamedTuple

VALUE_LIMIT = 64 * 1024  # octets of one value; a header block has no more

_ATEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_LOCAL = _ATEXT + rb'++(?:\.' + _ATEXT + rb'++)*+'
_DOMAIN = (
    rb'(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62}))*+'
    rb'|\[(?:[0-9]{1,3}\.){3}[0-9]{1,3}\]|\[IPv6:[0-9A-Fa-f:.]{2,45}\])'
)
_ADDRESS = re.compile(_LOCAL + rb'@' + _DOMAIN, re.IGNORECASE)
_SIMPLE = re.compile(
    rb'[ \t]*(?:\r\n[ \t]+)?<?(' + _LOCAL + rb'@' + _DOMAIN + rb')>?[ \t]*', re.IGNORECASE
)
_PLAIN = rb'(?:<' + _LOCAL + rb'@' + _DOMAIN + rb'>|' + _LOCAL + rb'@' + _DOMAIN + rb')'
# ` <a@x>, <b@y>`: what chat programs write, and nothing but addresses.
PLAIN_LIST = re.compile(rb' ' + _PLAIN + rb'(?:,(?:\r\n)? ' + _PLAIN + rb')*+', re.IGNORECASE)
# Display names may carry raw 8-bit octets (RFC 6532); addresses may not.
_TOKEN = re.compile(
    rb'[ \t]+'
    rb"|(?P<atom>[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-]+)"
    rb'|(?P<quoted>"(?:[^"\\\r\n\0]|\\[^\r\n\0])*")'
    rb'|(?P<literal>\[[^][\\\r\n\0]*\])'
    rb'|(?P<special>[<>@,;:])'
)
_COMMENT = re.compile(rb'(?:[^()\\\r\n\0]|\\[^\r\n\0])*')
_COMMENT_DEPTH = 20


class Mailbox(NamedTuple):
    address: str  # local part and domain in the case as written
    bare: bool  # nothing stood beside the address but brackets and outer blanks


class AddressList(NamedTuple):
    mailboxes: list[Mailbox]
    groups: list[tuple[bytes, int]]  # name, number of members


def comparable(address: str) -> str:
    """For equality: lower case, `user@[1.2.3.4]` as `user@1.2.3.4`."""
    address = address.lower()
    if address.endswith(']'):
        local, _, domain = address.rpartition('@')
        return f'{local}@{domain[1:-1]}'
    return address


def sole(value: bytes) -> Mailbox | None:
    """The one mailbox of a From field; None for a list, a group or anything else (G6)."""
    simple = _SIMPLE.fullmatch(value)
    if simple is not None:
        # PERF: the form of nearly every chat message, without the tokenizer.
        opened = value[simple.start(1) - 1 : simple.start(1)] == b'<'
        closed = value[simple.end(1) : simple.end(1) + 1] == b'>'
        if opened is not closed or len(simple[1]) > 320:
            return None
        return Mailbox(simple[1].decode('ascii'), True)
    found = parse(value)
    if found is None or found.groups or len(found.mailboxes) != 1:
        return None
    return Mailbox(found.mailboxes[0].address, False)


def parse(value: bytes) -> AddressList | None:
    """All mailboxes and groups, or None when the value is no address list."""
    tokens = _tokens(value)
    if tokens is None:
        return None
    mailboxes: list[Mailbox] = []
    groups: list[tuple[bytes, int]] = []
    at, end = 0, len(tokens)
    group: tuple[bytes, int] | None = None
    expect = True  # at the start of an address, not behind one
    while at < end:
        kind, text = tokens[at]
        if text == b',' and kind == 'special':
            at, expect = at + 1, True
            continue
        if text == b';' and kind == 'special':
            if group is None:
                return None
            groups.append((group[0], len(mailboxes) - group[1]))
            group, expect, at = None, False, at + 1
            continue
        if kind == 'comment':
            at += 1
            continue
        if not expect:
            return None
        # A phrase runs to '<' (a mailbox follows) or ':' (a group opens); without
        # one of them the words are an addr-spec.
        phrase = at
        while at < end and tokens[at][0] in ('atom', 'quoted', 'comment'):
            at += 1
        stop = tokens[at][1] if at < end and tokens[at][0] == 'special' else b''
        if stop == b':' and group is None and at > phrase:
            name = b' '.join(word for kind, word in tokens[phrase:at] if kind != 'comment')
            group, at = (name, len(mailboxes)), at + 1
            continue
        if stop == b'<':
            close = at + 4
            if close >= end or tokens[close] != ('special', b'>'):
                return None
            address = _addr_spec(tokens[at + 1 : close])
            bare = at == phrase
            at = close + 1
        else:
            words = [token for token in tokens[phrase:at] if token[0] != 'comment']
            if stop != b'@' or len(words) != 1 or at + 1 >= end:
                return None
            address = _addr_spec([words[0], tokens[at], tokens[at + 1]])
            bare = at - phrase == 1
            at += 2
        if address is None:
            return None
        if at < end and tokens[at][0] == 'comment':
            bare = False
        mailboxes.append(Mailbox(address, bare))
        expect = False
    if group is not None or (not mailboxes and not groups):
        return None
    return AddressList(mailboxes, groups)


def _addr_spec(tokens: list[tuple[str, bytes]]) -> str | None:
    if len(tokens) != 3 or tokens[1] != ('special', b'@'):
        return None
    if tokens[0][0] != 'atom' or tokens[2][0] not in ('atom', 'literal'):
        return None
    text = tokens[0][1] + b'@' + tokens[2][1]
    if len(text) > 320 or not _ADDRESS.fullmatch(text):
        return None
    return text.decode('ascii')


def _tokens(value: bytes) -> list[tuple[str, bytes]] | None:
    value = value.replace(b'\r\n', b'')
    if len(value) > VALUE_LIMIT:
        return None
    tokens: list[tuple[str, bytes]] = []
    at, end = 0, len(value)
    while at < end:
        if value[at] == 0x28:
            at = _skip_comment(value, at)
            if not at:
                return None
            tokens.append(('comment', b''))
            continue
        found = _TOKEN.match(value, at)
        if found is None:
            return None
        at = found.end()
        if found.lastgroup is not None:
            tokens.append((found.lastgroup, found[0]))
    return tokens


def _skip_comment(value: bytes, at: int) -> int:
    """The position behind the comment that opens at `at`; 0 when it never closes."""
    depth = 0
    while at < len(value):
        octet = value[at]
        if octet == 0x28:
            depth += 1
            if depth > _COMMENT_DEPTH:
                return 0
            at += 1
        elif octet == 0x29:
            depth -= 1
            at += 1
            if not depth:
                return at
        else:
            text = _COMMENT.match(value, at)
            if text is None or text.end() == at:
                return 0
            at = text.end()
    return 0
