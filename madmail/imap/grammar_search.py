"""SEARCH, SORT, THREAD, CANCELUPDATE (RFC 3501 6.4.4; RFC 5256; RFC 4731 and 5267 RETURN;
RFC 5032 OLDER/YOUNGER, RFC 7162 MODSEQ)."""

from __future__ import annotations

import re
from collections.abc import Callable

from madmail.imap.search_keys import (
    And,
    Comparison,
    Day,
    EmailIs,
    Everything,
    FlagIs,
    Header,
    Keyword,
    ModseqIs,
    Not,
    Numbers,
    Or,
    Recent,
    SavedDay,
    SearchKey,
    Size,
    Text,
    Uids,
    Within,
)
from madmail.imap.syntax import (
    MAX_MODSEQ,
    MAX_NUMBER,
    Bad,
    CancelUpdate,
    Criterion,
    Search,
    Sort,
    Thread,
)
from madmail.imap.tokens import SYSTEM_FLAGS, Reader
from madmail.store.interface import Flag

MAX_DEPTH = 50  # parentheses, NOT and OR within each other
MAX_KEYS = 500
MAX_TEXT = 4096  # octets of one string

MAX_CRITERIA = 20
MAX_TAGS = 100

_RETURNS = frozenset(('MIN', 'MAX', 'ALL', 'COUNT', 'SAVE', 'PARTIAL', 'UPDATE', 'CONTEXT'))
_CRITERIA = frozenset(
    ('ARRIVAL', 'CC', 'DATE', 'FROM', 'SIZE', 'SUBJECT', 'TO', 'DISPLAYFROM', 'DISPLAYTO')
)
_ALGORITHMS = frozenset(('ORDEREDSUBJECT', 'REFERENCES', 'REFS'))
_OBJECT_ID = re.compile(rb'[A-Za-z0-9_\-]{1,255}\Z')  # RFC 8474 7
_PARTIAL = re.compile(rb'(-?)([0-9]{1,10}):(-?)([0-9]{1,10})(?=[ )])')


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

    def object_id(self) -> str:
        found = self.reader.astring()
        if not _OBJECT_ID.match(found):
            raise Bad('Invalid object id')
        return found.decode('ascii')

    def thread_id(self) -> SearchKey:
        self.object_id()
        return Not(Everything())  # RFC 8474 5.2: no message has one

    def keyword(self, present: bool) -> Keyword:
        return Keyword(self.reader.keyword(), present)


def search(reader: Reader) -> Search:
    """The arguments of SEARCH and UID SEARCH."""
    query = _Query(reader)
    reader.space()
    returns, partial = _return(reader)
    charset = _ahead(reader, b'CHARSET')
    if charset:
        reader.space()
        _charset(query)
        reader.space()
    return Search(query.keys_until_closed(0), returns, partial, charset)


def sort(reader: Reader) -> Sort:
    """RFC 5256 3, RFC 5267 3: [RETURN (…)] (criteria) charset keys."""
    reader.space()
    returns, partial = _return(reader)
    reader.expect(b'(')
    criteria: list[Criterion] = []
    while True:
        reader.blanks()
        name = reader.atom()
        reverse = name == 'REVERSE'
        if reverse:
            reader.space()
            name = reader.atom()
        if name not in _CRITERIA:
            raise Bad('Unknown sort criterion')
        criteria.append(Criterion(name, reverse))
        if len(criteria) > MAX_CRITERIA:
            raise Bad('Too many sort criteria')
        if not reader.blanks() or reader.peek() == 0x29:
            break
    reader.expect(b')')
    reader.space()
    return Sort(Search(_charset_and_keys(reader), returns, partial), tuple(criteria))


def thread(reader: Reader) -> Thread:
    """RFC 5256 3: algorithm charset keys."""
    reader.space()
    algorithm = reader.atom()
    if algorithm not in _ALGORITHMS:
        raise Bad('Unknown threading algorithm')
    reader.space()
    return Thread(algorithm, _charset_and_keys(reader))


def cancel_update(reader: Reader) -> CancelUpdate:
    """RFC 5267 4.3.5"""
    reader.space()
    tags = [reader.string()]
    while reader.more():
        tags.append(reader.string())
        if len(tags) > MAX_TAGS:
            raise Bad('Too many tags')
    return CancelUpdate(tuple(tags))


def _charset_and_keys(reader: Reader) -> SearchKey:
    query = _Query(reader)
    _charset(query)
    reader.space()
    return query.keys_until_closed(0)


def _charset(query: _Query) -> None:
    charset = query.reader.astring().upper()
    if charset not in (b'UTF-8', b'US-ASCII', b'ASCII'):
        raise Bad(
            'Unknown charset', status=b'NO', code=b'BADCHARSET (UTF-8 US-ASCII)'
        )  # RFC 3501 6.4.4
    query.charset = 'utf-8' if charset == b'UTF-8' else 'ascii'


def _return(reader: Reader) -> tuple[tuple[str, ...] | None, tuple[int, int] | None]:
    """RETURN and its options, if it is there (RFC 4731 3.1, RFC 4466 2.6.1)."""
    if not _ahead(reader, b'RETURN'):
        return None, None
    reader.space()
    options: dict[str, None] = {}
    partial: tuple[int, int] | None = None
    reader.expect(b'(')
    while True:
        reader.blanks()
        option = reader.option()
        if not option:
            break
        if option not in _RETURNS:
            raise Bad('Unknown SEARCH return option')
        if option == 'PARTIAL':
            if partial is not None:
                raise Bad('PARTIAL is given twice')
            reader.space()
            partial = partial_range(reader)
        options[option] = None
    reader.expect(b')')
    if partial is not None and 'ALL' in options:
        raise Bad('PARTIAL and ALL exclude each other')  # RFC 9394 3.1
    reader.space()
    return tuple(options), partial


def partial_range(reader: Reader) -> tuple[int, int]:
    """RFC 9394 5: 1:100, or -1:-100 from the end; the one nearer to its end comes first."""
    found = _PARTIAL.match(reader.line, reader.position)
    if found is None:
        raise Bad('Invalid PARTIAL range')
    first, last = int(found[2]), int(found[4])
    if found[1] != found[3] or not 0 < first <= MAX_NUMBER or not 0 < last <= MAX_NUMBER:
        raise Bad('Invalid PARTIAL range')
    reader.position = found.end()
    if first > last:
        first, last = last, first
    return (-first, -last) if found[1] else (first, last)


def _ahead(reader: Reader, word: bytes) -> bool:
    end = reader.position + len(word)
    if reader.line[reader.position : end].upper() != word or reader.line[end : end + 1] != b' ':
        return False
    reader.position = end
    return True


_PLAIN: dict[str, SearchKey] = {
    'ALL': Everything(),
    'RECENT': Recent(True),
    'OLD': Recent(False),
    'SAVEDATESUPPORTED': Everything(),  # RFC 8514 4.3: in every mailbox
    'NEW': And((Recent(True), FlagIs(Flag.SEEN.value, False))),
}
for _name, _bit in SYSTEM_FLAGS.items():
    _PLAIN[_name.decode()] = FlagIs(_bit, True)
    _PLAIN['UN' + _name.decode()] = FlagIs(_bit, False)


def _address_or_subject(field: str) -> Callable[[_Query], SearchKey]:
    return lambda query: Header(field, query.text())


def _saved(comparison: Comparison) -> Callable[[_Query], SearchKey]:
    return lambda query: SavedDay(comparison, query.reader.date())


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
    'EMAILID': lambda query: EmailIs(query.object_id()),
    'THREADID': _Query.thread_id,
    'HEADER': _Query.header,
    'TEXT': lambda query: Text(query.text(), body_only=False),
    'BODY': lambda query: Text(query.text(), body_only=True),
}
for _field in ('FROM', 'TO', 'CC', 'BCC', 'SUBJECT'):
    _WITH_ARGUMENT[_field] = _address_or_subject(_field.lower())
for _comparison in Comparison:
    _WITH_ARGUMENT[_comparison.name] = _day(_comparison, sent=False)
    _WITH_ARGUMENT['SENT' + _comparison.name] = _day(_comparison, sent=True)
    _WITH_ARGUMENT['SAVED' + _comparison.name] = _saved(_comparison)
