"""Reading the tokens of RFC 3501 section 9 from one frame.

A `Reader` stands at a position of the line and moves on with every token read.
A NUL octet of the line stands for the next literal.  Whatever does not fit
raises `Bad`.  Method names are those of the formal syntax.
"""

from __future__ import annotations

import calendar
import re
from datetime import date

from madmail.imap import mailbox_name
from madmail.imap.sequence_set import SequenceSet
from madmail.imap.syntax import (
    MAX_NUMBER,
    Bad,
    Flags,
    Frame,
)
from madmail.store.interface import Flag

MAX_KEYWORDS = 64  # in one command
MAX_KEYWORD = 128  # octets

ATOM = re.compile(rb'[^\x00-\x20(){%*"\\\]\x7f-\xff]+')
# `]` belongs to an astring (RFC 3501 9: ASTRING-CHAR); `@` and `[` are atom characters anyway.
_ASTRING = re.compile(rb'[^\x00-\x20(){%*"\\\x7f-\xff]+')
_LIST = re.compile(rb'[^\x00-\x20(){"\\\x7f-\xff]+')
_QUOTED = re.compile(rb'"([^"\\\r\n\x00]*(?:\\["\\][^"\\\r\n\x00]*)*)"')
_ESCAPED = re.compile(rb'\\(.)')
_NUMBER = re.compile(rb'[0-9]{1,20}(?![0-9])')
_SET = re.compile(rb'[0-9*:,]+')
_FLAG = re.compile(rb'(\\?)([^\x00-\x20(){%*"\\\]\x7f-\xff]+)')
_FLAG_LIST = re.compile(rb'\([^()"\x00]{0,200}\)')
_DATE = re.compile(rb'("?)([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})\1(?![^ )])')
_DATE_TIME = re.compile(
    rb'"( [0-9]|[0-9]{1,2})-([A-Za-z]{3})-([0-9]{4}) '
    rb'([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"'
)
_MONTHS = {
    month: number
    for number, month in enumerate(
        b'JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC'.split(), start=1
    )
}
_EPOCH = date(1970, 1, 1).toordinal()

SYSTEM_FLAGS = {
    b'SEEN': Flag.SEEN.value,
    b'ANSWERED': Flag.ANSWERED.value,
    b'FLAGGED': Flag.FLAGGED.value,
    b'DELETED': Flag.DELETED.value,
    b'DRAFT': Flag.DRAFT.value,
}

# PERF: `(\Seen)` and `(\Deleted)` are nearly all flag lists there are; found, not parsed.
_flag_lists: dict[bytes, Flags] = {}
_FLAG_LISTS = 256  # entries kept


class Reader:
    """A position in a frame."""

    __slots__ = ('line', 'literals', 'position', 'used', 'utf8')

    def __init__(self, frame: Frame, position: int = 0, utf8: bool = False) -> None:
        self.line = frame.line
        self.literals = frame.literals
        self.position = position
        self.used = 0  # literals taken
        self.utf8 = utf8

    # -- where it stands

    def peek(self) -> int:
        """The next octet, -1 at the end."""
        return self.line[self.position] if self.position < len(self.line) else -1

    def at(self, octet: bytes) -> bool:
        """Take `octet` if it comes next."""
        if self.line.startswith(octet, self.position):
            self.position += len(octet)
            return True
        return False

    def expect(self, octet: bytes) -> None:
        if not self.at(octet):
            raise Bad(f'Missing {octet.decode()!r}')

    def space(self) -> None:
        """SP; several are taken as one."""
        start = self.position
        while self.line.startswith(b' ', self.position):
            self.position += 1
        if self.position == start:
            raise Bad('Missing space' if start < len(self.line) else 'Missing argument')

    def blanks(self) -> bool:
        """Spaces that may be there, before `)` or at the end; True if there were any."""
        start = self.position
        while self.line.startswith(b' ', self.position):
            self.position += 1
        return self.position > start

    def more(self) -> bool:
        """Another argument follows; its leading spaces are taken."""
        return self.blanks() and self.position < len(self.line)

    def end(self) -> None:
        self.blanks()
        if self.position < len(self.line):
            raise Bad('Unexpected text behind the last argument')

    # -- strings

    def atom(self) -> str:
        """An atom in upper case."""
        found = ATOM.match(self.line, self.position)
        if found is None:
            raise Bad('Expected an atom')
        self.position = found.end()
        return found[0].decode('ascii').upper()

    def option(self) -> str:
        """Like `atom`, for a list that may be empty or ended: '' if none comes next."""
        found = ATOM.match(self.line, self.position)
        if found is None:
            return ''
        self.position = found.end()
        return found[0].decode('ascii').upper()

    def string(self) -> bytes:
        """A quoted string, its escapes undone, or a literal."""
        found = _QUOTED.match(self.line, self.position)
        if found is not None:
            self.position = found.end()
            text = found[1]
            return _ESCAPED.sub(rb'\1', text) if b'\\' in text else text
        if not self.at(b'\0') and not self.at(b'~\0'):
            raise Bad('Expected a string')
        if self.used >= len(self.literals):
            raise Bad('NUL in the command line')
        literal = self.literals[self.used]
        self.used += 1
        # RFC 3501 9: CHAR8.  A literal8 might hold NUL (RFC 5464 5), but what it
        # sets is later sent in literals, which may not.
        if b'\0' in literal:
            raise Bad('NUL in a string')
        return literal

    def astring(self) -> bytes:
        found = _ASTRING.match(self.line, self.position)
        if found is not None:
            self.position = found.end()
            return found[0]
        return self.string()

    def nstring(self) -> bytes | None:
        """A string, or None for NIL."""
        found = ATOM.match(self.line, self.position)
        if found is not None and found[0].upper() == b'NIL':
            self.position = found.end()
            return None
        return self.string()

    def mailbox(self) -> str:
        octets = self.astring()
        if octets == b'INBOX':
            return 'INBOX'
        return mailbox_name.decode(octets, utf8=self.utf8)

    def list_mailbox(self) -> str:
        """A LIST pattern."""
        found = _LIST.match(self.line, self.position)
        if found is not None:
            self.position = found.end()
            octets = found[0]
        else:
            octets = self.string()
        try:
            return mailbox_name.decode(octets, utf8=self.utf8)
        except Bad:
            # Wildcards may cut an encoded word apart; such a pattern matches ASCII only.
            return octets.decode('ascii', 'replace')

    # -- numbers

    def number(self, largest: int = MAX_NUMBER) -> int:
        found = _NUMBER.match(self.line, self.position)
        if found is None:
            raise Bad('Expected a number')
        value = int(found[0])
        if value > largest:
            raise Bad('Number is too large')
        self.position = found.end()
        return value

    def nz_number(self, largest: int = MAX_NUMBER) -> int:
        value = self.number(largest)
        if value == 0:
            raise Bad('Number must not be zero')
        return value

    def sequence_set(self) -> SequenceSet:
        found = _SET.match(self.line, self.position)
        if found is None:
            if self.at(b'$'):
                return SequenceSet((), saved=True)  # RFC 5182 2.1
            raise Bad('Expected a sequence set')
        self.position = found.end()
        return sequence_set(found[0])

    # -- flags

    def flag_list(self) -> Flags:
        """A parenthesized list of flags."""
        found = _FLAG_LIST.match(self.line, self.position)
        if found is not None:
            known = _flag_lists.get(found[0])
            if known is not None:
                self.position = found.end()
                return known
        self.expect(b'(')
        flags = self._flags(parenthesized=True)
        if found is not None and self.position == found.end():
            if len(_flag_lists) >= _FLAG_LISTS:
                _flag_lists.clear()
            _flag_lists[found[0]] = flags
        return flags

    def flags(self) -> Flags:
        """STORE takes a list or bare flags (RFC 3501 9: store-att-flags)."""
        if self.peek() == 0x28:
            return self.flag_list()
        flags = self._flags(parenthesized=False)
        if not flags.bits and not flags.keywords:
            raise Bad('Expected a flag')
        return flags

    def _flags(self, parenthesized: bool) -> Flags:
        bits = 0
        keywords: dict[str, str] = {}
        self.blanks()
        while True:
            found = _FLAG.match(self.line, self.position)
            if found is None:
                break
            self.position = found.end()
            if found[1]:
                bit = SYSTEM_FLAGS.get(found[2].upper())
                if bit is None:  # \Recent too: the client cannot alter it (RFC 3501 2.3.2)
                    raise Bad('Invalid system flag')
                bits |= bit
            else:
                if len(found[2]) > MAX_KEYWORD:
                    raise Bad('Keyword is too long')
                name = found[2].decode('ascii')
                keywords.setdefault(name.lower(), name)
                if len(keywords) > MAX_KEYWORDS:
                    raise Bad('Too many keywords')
            if not self.blanks():
                break
        if parenthesized:
            self.expect(b')')
        return Flags(bits, tuple(keywords.values()))

    def keyword(self) -> str:
        """One keyword, as written."""
        found = ATOM.match(self.line, self.position)
        if found is None:
            raise Bad('Expected a keyword')
        if len(found[0]) > MAX_KEYWORD:
            raise Bad('Keyword is too long')
        self.position = found.end()
        return found[0].decode('ascii')

    # -- dates

    def date(self) -> int:
        """A SEARCH date as days since 1970-01-01."""
        found = _DATE.match(self.line, self.position)
        month = _MONTHS.get(found[3].upper()) if found else None
        if found is None or month is None:
            raise Bad('Invalid date')
        try:
            day = date(int(found[4]), month, int(found[2])).toordinal() - _EPOCH
        except ValueError:
            raise Bad('Invalid date') from None
        self.position = found.end()
        return day

    def date_time(self) -> int:
        """An internal date (RFC 3501 9: date-time) as Unix seconds."""
        found = _DATE_TIME.match(self.line, self.position)
        month = _MONTHS.get(found[2].upper()) if found else None
        if found is None or month is None:
            raise Bad('Invalid internal date')
        day, year = int(found[1]), int(found[3])
        hour, minute, second = int(found[4]), int(found[5]), int(found[6])
        east, south = int(found[8]), int(found[9])
        try:
            date(year, month, day)
        except ValueError:
            raise Bad('Invalid internal date') from None
        if hour > 23 or minute > 59 or second > 60 or east > 23 or south > 59:
            raise Bad('Invalid internal date')
        self.position = found.end()
        offset = (east * 60 + south) * 60
        unix = calendar.timegm((year, month, day, hour, minute, second))
        return unix + offset if found[7] == b'-' else unix - offset


def sequence_set(text: bytes) -> SequenceSet:
    """The set written as `text`, which holds nothing but digits, `*`, `:` and `,`."""
    ranges = []
    try:
        for part in text.split(b','):
            low_text, colon, high_text = part.partition(b':')
            low = _set_number(low_text)
            high = _set_number(high_text) if colon else low
            if high and (low > high or low == 0):
                low, high = high, low  # RFC 3501 9: 4:2 is 2:4, and *:2 is 2:*
            ranges.append((low, high))
    except ValueError:
        raise Bad('Invalid sequence set') from None
    return SequenceSet(tuple(ranges))


def _set_number(text: bytes) -> int:
    if text == b'*':
        return 0
    number = int(text)
    if not 0 < number <= MAX_NUMBER:
        raise ValueError
    return number
