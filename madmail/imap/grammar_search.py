"""SEARCH (RFC 3501 6.4.4; RFC 4731 RETURN, RFC 5032 OLDER/YOUNGER, RFC 7162 MODSEQ)."""

from __future__ import annotations

from collections.abc import Callable

from madmail.imap.syntax import (
    MAX_MODSEQ,
    And,
    Bad,
    Comparison,
    Day,
    Everything,
    FlagIs,
    Header,
    Keyword,
    ModseqIs,
    Not,
    Numbers,
    Or,
    Recent,
    Search,
    SearchKey,
    Size,
    Text,
    Uids,
    Within,
)
from madmail.imap.tokens import SYSTEM_FLAGS, Reader
from madmail.store.interface import Flag

MAX_DEPTH = 50  # parentheses, NOT and OR within each other
MAX_KEYS = 500
MAX_TEXT = 4096  # octets of one string

_RETURNS = frozenset(('MIN', 'MAX', 'ALL', 'COUNT', 'SAVE'))


class _Query:
    """One SEARCH while it is read: the charset and how many keys there were."""

    __slots__ = ('charset', 'keys', 'reader')

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.charset = 'utf-8'
        self.keys = 0

    def key(self, depth: int) -> SearchKey:
        self.keys += 1
        if depth > MAX_DEPTH:
            raise Bad('Search is nested too deep')
        if self.keys > MAX_KEYS:
            raise Bad('Too many search keys')
        reader = self.reader
        octet = reader.peek()
        if octet == 0x28:
            reader.position += 1
            inner = self.keys_until_closed(depth + 1)
            reader.expect(b')')
            return inner
        if octet == 0x2A or octet == 0x24 or 0x30 <= octet <= 0x39:
            return Numbers(reader.sequence_set())
        name = reader.atom()
        if name == 'NOT':
            reader.space()
            return Not(self.key(depth + 1))
        if name == 'OR':
            reader.space()
            left = self.key(depth + 1)
            reader.space()
            return Or(left, self.key(depth + 1))
        plain = _PLAIN.get(name)
        if plain is not None:
            return plain
        with_argument = _WITH_ARGUMENT.get(name)
        if with_argument is None:
            raise Bad('Unknown search key')
        reader.space()
        return with_argument(self)

    def keys_until_closed(self, depth: int) -> SearchKey:
        """One or more keys that all must match."""
        self.reader.blanks()
        keys = [self.key(depth)]
        while self.reader.blanks() and self.reader.peek() not in (-1, 0x29):
            keys.append(self.key(depth))
        return keys[0] if len(keys) == 1 else And(tuple(keys))

    def text(self) -> str:
        octets = self.reader.astring()
        if len(octets) > MAX_TEXT:
            raise Bad('Search text is too long')
        try:
            return octets.decode(self.charset)
        except UnicodeDecodeError:
            raise Bad('Search text is not in its charset') from None

    def header(self) -> Header:
        field = self.reader.astring()
        if len(field) > MAX_TEXT or not field.isascii():
            raise Bad('Invalid header field name')
        self.reader.space()
        return Header(field.decode('ascii').lower(), self.text())

    def modseq(self) -> ModseqIs:
        # RFC 7162 3.1.5: an entry name and type may stand first; all flags share one value.
        if self.reader.peek() == 0x22:
            self.reader.string()
            self.reader.space()
            if self.reader.atom() not in ('SHARED', 'PRIV', 'ALL'):
                raise Bad('Invalid MODSEQ entry type')
            self.reader.space()
        return ModseqIs(self.reader.number(MAX_MODSEQ))

    def keyword(self, present: bool) -> Keyword:
        return Keyword(self.reader.keyword(), present)


def search(reader: Reader) -> Search:
    """The arguments of SEARCH and UID SEARCH."""
    query = _Query(reader)
    returns: tuple[str, ...] | None = None
    reader.space()
    if _ahead(reader, b'RETURN'):  # RFC 4731 3.1, RFC 4466 2.6.1
        reader.space()
        returns = _returns(reader)
        reader.space()
    if _ahead(reader, b'CHARSET'):
        reader.space()
        charset = reader.astring().upper()
        if charset not in (b'UTF-8', b'US-ASCII', b'ASCII'):
            raise Bad(
                'Unknown charset', status=b'NO', code=b'BADCHARSET (UTF-8 US-ASCII)'
            )  # RFC 3501 6.4.4
        query.charset = 'utf-8' if charset == b'UTF-8' else 'ascii'
        reader.space()
    return Search(query.keys_until_closed(0), returns)


def _ahead(reader: Reader, word: bytes) -> bool:
    end = reader.position + len(word)
    if reader.line[reader.position : end].upper() != word or reader.line[end : end + 1] != b' ':
        return False
    reader.position = end
    return True


def _returns(reader: Reader) -> tuple[str, ...]:
    options: dict[str, None] = {}
    reader.expect(b'(')
    while True:
        reader.blanks()
        option = reader.option()
        if not option:
            break
        if option not in _RETURNS:
            raise Bad('Unknown SEARCH return option')
        options[option] = None
    reader.expect(b')')
    return tuple(options)


_PLAIN: dict[str, SearchKey] = {
    'ALL': Everything(),
    'RECENT': Recent(True),
    'OLD': Recent(False),
    'NEW': And((Recent(True), FlagIs(Flag.SEEN.value, False))),
}
for _name, _bit in SYSTEM_FLAGS.items():
    _PLAIN[_name.decode()] = FlagIs(_bit, True)
    _PLAIN['UN' + _name.decode()] = FlagIs(_bit, False)


def _address_or_subject(field: str) -> Callable[[_Query], SearchKey]:
    return lambda query: Header(field, query.text())


def _day(comparison: Comparison, sent: bool) -> Callable[[_Query], SearchKey]:
    return lambda query: Day(comparison, query.reader.date(), sent)


_WITH_ARGUMENT: dict[str, Callable[[_Query], SearchKey]] = {
    'UID': lambda query: Uids(query.reader.sequence_set()),
    'KEYWORD': lambda query: query.keyword(True),
    'UNKEYWORD': lambda query: query.keyword(False),
    'LARGER': lambda query: Size(True, query.reader.number()),
    'SMALLER': lambda query: Size(False, query.reader.number()),
    'OLDER': lambda query: Within(False, query.reader.nz_number()),
    'YOUNGER': lambda query: Within(True, query.reader.nz_number()),
    'MODSEQ': _Query.modseq,
    'HEADER': _Query.header,
    'TEXT': lambda query: Text(query.text(), body_only=False),
    'BODY': lambda query: Text(query.text(), body_only=True),
}
for _field in ('FROM', 'TO', 'CC', 'BCC', 'SUBJECT'):
    _WITH_ARGUMENT[_field] = _address_or_subject(_field.lower())
for _comparison in Comparison:
    _WITH_ARGUMENT[_comparison.name] = _day(_comparison, sent=False)
    _WITH_ARGUMENT['SENT' + _comparison.name] = _day(_comparison, sent=True)
