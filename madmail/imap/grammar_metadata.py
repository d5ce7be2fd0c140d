"""GETMETADATA, SETMETADATA (RFC 5464) and GETQUOTA, SETQUOTA (RFC 9208)."""

from __future__ import annotations

import re

from madmail.imap.syntax import Bad, GetMetadata, GetQuota, SetMetadata, SetQuota
from madmail.imap.tokens import Reader

MAX_ENTRIES = 100  # in one command
MAX_ENTRY = 1024  # octets
_MAX_QUOTA = 0x7FFFFFFFFFFFFFFF  # RFC 9208 7: number64

_OPTION_LETTERS = frozenset(b'DdMm')
# RFC 5464 3.1: no `*`, `%`, NUL, 8-bit or control octets, no `//`, no trailing `/`
_ENTRY = re.compile(rb'(?:/[\x20-\x24\x26-\x29\x2b-\x2e\x30-\x7e]+)+\Z')


def get_metadata(reader: Reader) -> GetMetadata:
    reader.space()
    max_size: int | None = None
    depth = 0
    if reader.at(b'('):
        max_size, depth = _options(reader)
        reader.space()
    mailbox = reader.mailbox()
    reader.space()
    if not reader.at(b'('):
        return GetMetadata(mailbox, (_entry(reader),), max_size, depth)
    reader.blanks()
    # The examples of RFC 5464 4.2 have the options behind the mailbox, its grammar before it.
    if reader.peek() in _OPTION_LETTERS:
        max_size, depth = _options(reader)
        reader.space()
        if not reader.at(b'('):
            return GetMetadata(mailbox, (_entry(reader),), max_size, depth)
        reader.blanks()
    entries: dict[str, None] = {}
    while True:
        entries[_entry(reader)] = None
        if len(entries) > MAX_ENTRIES:
            raise Bad('Too many entries')
        if not reader.blanks() or reader.peek() == 0x29:
            break
    reader.expect(b')')
    return GetMetadata(mailbox, tuple(entries), max_size, depth)


def _options(reader: Reader) -> tuple[int | None, int]:
    """RFC 5464 4.2.1, 4.2.2, behind the parenthesis."""
    max_size: int | None = None
    depth = 0
    while True:
        reader.blanks()
        option = reader.option()
        if not option:
            break
        reader.space()
        if option == 'MAXSIZE':
            max_size = reader.number()
        elif option == 'DEPTH':
            value = reader.atom()
            if value not in ('0', '1', 'INFINITY'):
                raise Bad('Invalid DEPTH')
            depth = -1 if value == 'INFINITY' else int(value)
        else:
            raise Bad('Unknown GETMETADATA option')
    reader.expect(b')')
    return max_size, depth


def _entry(reader: Reader) -> str:
    octets = reader.astring()
    if len(octets) > MAX_ENTRY or not _ENTRY.match(octets):
        raise Bad('Invalid metadata entry name')
    return octets.decode('ascii').lower()  # RFC 5464 3.1: case-insensitive


def set_metadata(reader: Reader) -> SetMetadata:
    reader.space()
    mailbox = reader.mailbox()
    reader.space()
    reader.expect(b'(')
    reader.blanks()
    values: dict[str, bytes | None] = {}
    while True:
        entry = _entry(reader)
        reader.space()
        values[entry] = reader.nstring()
        if len(values) > MAX_ENTRIES:
            raise Bad('Too many entries')
        # The online tests of the original stack send a blank before `)`.
        if not reader.blanks() or reader.peek() == 0x29:
            break
    reader.expect(b')')
    return SetMetadata(mailbox, tuple(values.items()))


def get_quota(reader: Reader) -> GetQuota:
    reader.space()
    return GetQuota(_root(reader))


def set_quota(reader: Reader) -> SetQuota:
    reader.space()
    root = _root(reader)
    reader.space()
    reader.expect(b'(')
    resources: dict[str, int] = {}
    while True:
        reader.blanks()
        resource = reader.option()
        if not resource:
            break
        reader.space()
        resources[resource] = reader.number(_MAX_QUOTA)
        if len(resources) > 16:
            raise Bad('Too many quota resources')
    reader.expect(b')')
    return SetQuota(root, tuple(resources.items()))


def _root(reader: Reader) -> str:
    return reader.astring().decode('utf-8', 'replace')
