"""FETCH and STORE (RFC 3501 6.4.5, 6.4.6; RFC 7162, RFC 3516, RFC 8474, RFC 8514)."""

from __future__ import annotations

import re
from typing import NamedTuple

from madmail.imap.grammar_search import partial_range
from madmail.imap.syntax import (
    MAX_MODSEQ,
    Bad,
    Fetch,
    FetchItem,
    Frame,
    Section,
    Store,
)
from madmail.imap.tokens import Reader

MAX_ITEMS = 100  # in one FETCH
MAX_FIELDS = 200  # names in one HEADER.FIELDS
MAX_PART_DEPTH = 100

_ITEM = re.compile(rb'[A-Za-z0-9.]+')
_SECTION = re.compile(
    rb'\[((?:[1-9][0-9]{0,9}(?:\.[1-9][0-9]{0,9})*)?)'
    rb'(?:(\.?)(HEADER\.FIELDS\.NOT|HEADER\.FIELDS|HEADER|TEXT|MIME))?',
    re.IGNORECASE,
)
_PARTIAL = re.compile(rb'<([0-9]{1,10})\.([0-9]{1,10})>')
_FIELD_NAME = re.compile(rb'[\x20-\x39\x3b-\x7e]+\Z')  # RFC 5322 2.2, and blank
_FIELD_ATOM = re.compile(rb'[^\x00-\x20(){%*"\\\x7f-\xff]+\Z')


class _Items(NamedTuple):
    """Parsed items and what they add up to."""

    items: tuple[FetchItem, ...]
    sets_seen: bool
    needs_body: bool


_SIMPLE = {
    name: FetchItem(name, name.encode())
    for name in [
        'FLAGS',
        'UID',
        'INTERNALDATE',
        'RFC822.SIZE',
        'ENVELOPE',
        'BODY',
        'BODYSTRUCTURE',
        'MODSEQ',
        'EMAILID',
        'THREADID',
        'SAVEDATE',
    ]
}
_SIMPLE['RFC822'] = FetchItem('SECTION', b'RFC822', Section(), peek=False)
_SIMPLE['RFC822.HEADER'] = FetchItem('SECTION', b'RFC822.HEADER', Section(text='HEADER'))
_SIMPLE['RFC822.TEXT'] = FetchItem('SECTION', b'RFC822.TEXT', Section(text='TEXT'), peek=False)
_FAST = ('FLAGS', 'INTERNALDATE', 'RFC822.SIZE')
_MACROS = {  # RFC 3501 6.4.5
    'FAST': _FAST,
    'ALL': (*_FAST, 'ENVELOPE'),
    'FULL': (*_FAST, 'ENVELOPE', 'BODY'),
}
_NEEDS_BODY = frozenset(('ENVELOPE', 'BODY', 'BODYSTRUCTURE', 'SECTION', 'BINARY', 'BINARY.SIZE'))
_UID = _SIMPLE['UID']

# PERF: a client sends the same items each time; the prefetch list of Delta Chat
# takes 30 µs to parse and under 1 µs to find here.  Keys are what clients wrote, so
# both count and length are bounded.
_known: dict[tuple[bool, bytes], _Items] = {}
_KNOWN_LISTS = 256
_KNOWN_OCTETS = 1024


def fetch(reader: Reader) -> Fetch:
    return _fetch(reader, uid=False)


def uid_fetch(reader: Reader) -> Fetch:
    return _fetch(reader, uid=True)


def _fetch(reader: Reader, uid: bool) -> Fetch:
    reader.space()
    numbers = reader.sequence_set()
    reader.space()
    rest = reader.line[reader.position :]
    known = _known.get((uid, rest))
    if known is not None:
        reader.position = len(reader.line)
        return Fetch(numbers, *known)
    items = _items(reader, uid)
    changed_since, vanished, partial = None, False, None
    if reader.more():
        changed_since, vanished, partial = _modifiers(reader)
        if partial is not None and not uid:
            raise Bad('PARTIAL needs UID FETCH')  # RFC 9394 3.3
        if vanished and not (uid and changed_since is not None):
            raise Bad('VANISHED needs UID FETCH with CHANGEDSINCE')  # RFC 7162 3.2.6
    elif reader.position == len(reader.line) and b'\0' not in rest and len(rest) <= _KNOWN_OCTETS:
        if len(_known) >= _KNOWN_LISTS:
            _known.clear()
        _known[uid, rest] = items
    return Fetch(numbers, *items, changed_since, vanished, partial)


def _items(reader: Reader, uid: bool) -> _Items:
    items: dict[FetchItem, None] = {}
    if uid:
        items[_UID] = None  # RFC 3501 6.4.8: always part of the response
    if reader.at(b'('):
        reader.blanks()
        while True:
            items[_item(reader)] = None
            if len(items) > MAX_ITEMS:
                raise Bad('Too many FETCH items')
            if not reader.blanks() or reader.peek() == 0x29:
                break
        reader.expect(b')')
    else:
        word = _ITEM.match(reader.line, reader.position)
        macro = _MACROS.get(word[0].decode('ascii').upper()) if word else None
        if word and macro:
            reader.position = word.end()
            items.update((_SIMPLE[name], None) for name in macro)
        else:
            items[_item(reader)] = None
    return _Items(
        tuple(items),
        any(not item.peek for item in items),
        any(item.kind in _NEEDS_BODY for item in items),
    )


def fetch_items(reader: Reader) -> tuple[tuple[FetchItem, ...], bool]:
    """The list in parentheses of NOTIFY (RFC 5465 5.1), and whether it needs octets."""
    items = _items(reader, uid=False)
    return items.items, items.needs_body


def _item(reader: Reader) -> FetchItem:
    word = _ITEM.match(reader.line, reader.position)
    if word is None:
        raise Bad('Expected a FETCH item')
    name = word[0].decode('ascii').upper()
    reader.position = word.end()
    if reader.peek() == 0x5B:
        if name in ('BODY', 'BODY.PEEK'):
            return _body(reader, peek=name == 'BODY.PEEK')
        if name in ('BINARY', 'BINARY.PEEK', 'BINARY.SIZE'):
            return _binary(reader, name)
    item = _SIMPLE.get(name)
    if item is None:
        raise Bad('Unknown FETCH item')
    return item


def _body(reader: Reader, peek: bool) -> FetchItem:
    """BODY[section]<partial>; the response echoes it without PEEK and length."""
    section, spelled = _whole_section(reader)
    partial, origin = _partial(reader)
    return FetchItem('SECTION', b'BODY[%s]%s' % (spelled, origin), section, peek, partial)


def _whole_section(reader: Reader) -> tuple[Section, bytes]:
    """Behind `[` up to and with `]`: the section and its spelling."""
    part, text, spelled = _section(reader)
    fields: tuple[bytes, ...] = ()
    if text.startswith('HEADER.FIELDS'):
        reader.space()
        names = _field_names(reader)
        spelled += b' (%s)' % b' '.join(map(_spell, names))
        fields = tuple(name.lower() for name in names)
    reader.expect(b']')
    return Section(part, text, fields), spelled


def section_text(octets: bytes) -> Section:
    """A section as it stands outside of brackets, in a URL (RFC 5092 11)."""
    reader = Reader(Frame(b'[%s]' % octets))
    section, _ = _whole_section(reader)
    if reader.peek() >= 0:
        raise Bad('Invalid section')
    return section


def _binary(reader: Reader, name: str) -> FetchItem:
    """RFC 3516 4.2"""
    part, text, spelled = _section(reader)
    if text:
        raise Bad('BINARY takes a part number only')
    reader.expect(b']')
    if name == 'BINARY.SIZE':
        return FetchItem('BINARY.SIZE', b'BINARY.SIZE[%s]' % spelled, Section(part))
    partial, origin = _partial(reader)
    return FetchItem(
        'BINARY',
        b'BINARY[%s]%s' % (spelled, origin),
        Section(part),
        name == 'BINARY.PEEK',
        partial,
    )


def _section(reader: Reader) -> tuple[tuple[int, ...], str, bytes]:
    """Part numbers, text and the spelling of both, up to a field list or `]`."""
    found = _SECTION.match(reader.line, reader.position)
    if found is None:
        raise Bad('Invalid section')
    numbers, dot, text = found.groups()
    if text is not None and bool(numbers) != bool(dot):
        raise Bad('Invalid section')
    reader.position = found.end()
    text = (text or b'').upper()
    if text == b'MIME' and not numbers:
        raise Bad('MIME needs a part number')  # RFC 3501 6.4.5
    part = tuple(map(int, numbers.split(b'.'))) if numbers else ()
    if len(part) > MAX_PART_DEPTH:
        raise Bad('Section is nested too deep')
    return part, text.decode('ascii'), numbers + (dot or b'') + text


def _partial(reader: Reader) -> tuple[tuple[int, int] | None, bytes]:
    if reader.peek() != 0x3C:
        return None, b''
    found = _PARTIAL.match(reader.line, reader.position)
    if found is None or int(found[2]) == 0:
        raise Bad('Invalid partial range')
    reader.position = found.end()
    return (int(found[1]), int(found[2])), b'<%d>' % int(found[1])


def _field_names(reader: Reader) -> list[bytes]:
    reader.expect(b'(')
    reader.blanks()
    names: list[bytes] = []
    while True:
        name = reader.astring()
        if not _FIELD_NAME.match(name):
            raise Bad('Invalid header field name')
        names.append(name)
        if len(names) > MAX_FIELDS:
            raise Bad('Too many header field names')
        if not reader.blanks() or reader.peek() == 0x29:
            break
    reader.expect(b')')
    return names


def _spell(name: bytes) -> bytes:
    if _FIELD_ATOM.match(name):
        return name
    return b'"%s"' % name.replace(b'\\', b'\\\\').replace(b'"', b'\\"')


def _modifiers(reader: Reader) -> tuple[int | None, bool, tuple[int, int] | None]:
    """RFC 7162 3.1.4.1, 3.2.6: (CHANGEDSINCE n [VANISHED]); RFC 9394 3.3: (PARTIAL range)."""
    changed_since = partial = None
    vanished = False
    reader.expect(b'(')
    while True:
        reader.blanks()
        modifier = reader.option()
        if not modifier:
            break
        if modifier == 'CHANGEDSINCE':
            reader.space()
            changed_since = reader.number(MAX_MODSEQ)
        elif modifier == 'VANISHED':
            vanished = True
        elif modifier == 'PARTIAL':
            reader.space()
            partial = partial_range(reader)
        else:
            raise Bad('Unknown FETCH modifier')
    reader.expect(b')')
    if changed_since is None and not vanished and partial is None:
        raise Bad('Empty FETCH modifiers')
    return changed_since, vanished, partial


def store(reader: Reader) -> Store:
    reader.space()
    numbers = reader.sequence_set()
    reader.space()
    unchanged_since = None
    if reader.at(b'('):
        reader.blanks()
        if reader.atom() != 'UNCHANGEDSINCE':  # RFC 7162 3.1.3
            raise Bad('Unknown STORE modifier')
        reader.space()
        unchanged_since = reader.number(MAX_MODSEQ)
        reader.blanks()
        reader.expect(b')')
        reader.space()
    mode = 'replace'
    if reader.at(b'+'):
        mode = 'add'
    elif reader.at(b'-'):
        mode = 'remove'
    item = reader.atom()
    if item not in ('FLAGS', 'FLAGS.SILENT'):
        raise Bad('Unknown STORE item')
    reader.space()
    flags = reader.flags()
    return Store(numbers, mode, flags, item == 'FLAGS.SILENT', unchanged_since)
