"""Mailbox names: modified UTF-7, the rules for new names, LIST patterns.

Inside the server a name is `str`, levels parted by '/', and INBOX is in upper
case wherever it is the first level.  On the wire it is modified UTF-7 (RFC 3501
5.1.3), or UTF-8 once the client enabled that.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable

from madmail.imap.syntax import Bad

DELIMITER = '/'
MAX_NAME = 255  # octets in UTF-8
MAX_LEVELS = 32

_PLAIN = re.compile(rb'[\x20-\x25\x27-\x7e]*\Z')  # printable ASCII without &
_SHIFTED = re.compile(rb'&([A-Za-z0-9+,]*)-')
_TO_SHIFT = re.compile(r'&|[^\x20-\x7e]+')
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff*%]')


def _unshift(match: re.Match[bytes]) -> bytes:
    text = match[1]
    if not text:
        return b'&'
    octets = b64decode(text.replace(b',', b'/') + b'=' * (-len(text) % 4), validate=True)
    return octets.decode('utf-16-be').encode()


def _shift(match: re.Match[str]) -> str:
    text = match[0]
    if text == '&':
        return '&-'
    octets = b64encode(text.encode('utf-16-be')).rstrip(b'=').replace(b'/', b',')
    return '&' + octets.decode() + '-'


def encode(name: str, *, utf8: bool = False) -> bytes:
    """The name as sent, not quoted."""
    if utf8:
        return name.encode('utf-8', 'replace')
    return _TO_SHIFT.sub(_shift, name).encode()


def decode(octets: bytes, *, utf8: bool = False) -> str:
    """The name for what a client sent; raises Bad (NO) if it is not well encoded.

    Octets above 0x7F are taken as UTF-8 in either case.  Only the one canonical
    form of modified UTF-7 is accepted, so that two spellings never name one
    mailbox.
    """
    if _PLAIN.match(octets):
        return fold_inbox(octets.decode('ascii'))
    try:
        if utf8 or not octets.isascii():
            name = octets.decode()
        else:
            name = _SHIFTED.sub(_unshift, octets).decode()
            if encode(name) != octets:
                raise ValueError
    except ValueError:
        raise Bad('Mailbox name is not well encoded', status=b'NO', code=b'CANNOT') from None
    return fold_inbox(name)


def fold_inbox(name: str) -> str:
    """INBOX as first level in upper case (RFC 3501 5.1)."""
    head = name[:5]
    if head != 'INBOX' and head.upper() == 'INBOX' and (len(name) == 5 or name[5] == DELIMITER):
        return 'INBOX' + name[5:]
    return name


def check(name: str) -> str:
    """The name for a new mailbox; raises Bad (NO) against the rules.

    One trailing delimiter only declares that inferiors will follow (RFC 3501
    6.3.3) and is dropped.
    """
    name = name.removesuffix(DELIMITER)
    if not name:
        problem = 'Mailbox name is empty'
    elif _FORBIDDEN.search(name):
        problem = 'Mailbox name holds a control character or wildcard'
    elif len(name.encode()) > MAX_NAME:
        problem = 'Mailbox name is too long'
    elif '' in (levels := name.split(DELIMITER)):
        problem = 'Mailbox name has an empty level'
    elif len(levels) > MAX_LEVELS:
        problem = 'Mailbox name has too many levels'
    else:
        return fold_inbox(name)
    raise Bad(problem, status=b'NO', code=b'CANNOT')


class Pattern:
    """The patterns of one LIST or LSUB, under one reference.

    `*` matches anything, `%` anything without the delimiter (RFC 3501 6.3.8).
    Each pattern is a bit-parallel automaton: bit i of the state says that i
    literal characters have been matched, so a name costs one step a character
    whatever the pattern, and nothing backtracks.
    """

    __slots__ = ('_all', '_automata', '_names')

    def __init__(self, reference: str, patterns: Iterable[str]) -> None:
        self._all = False
        self._names: set[str] = set()
        self._automata: list[tuple[dict[str, int], int, int, int]] = []
        for pattern in patterns:
            text = reference + pattern
            if text == '*':
                self._all = True
            elif '*' not in text and '%' not in text:
                self._names.add(fold_inbox(text))
            else:
                self._automata.append(_compile(text))

    def matches(self, name: str) -> bool:
        if self._all or name in self._names:
            return True
        if not self._automata or len(name) > MAX_NAME:
            return False
        folded = 5 if name[:5] == 'INBOX' and name[5:6] in ('', DELIMITER) else 0
        return any(_run(automaton, name, folded) for automaton in self._automata)


def _compile(text: str) -> tuple[dict[str, int], int, int, int]:
    """(steps by character, states that stay on any, on any but the delimiter, accepting)."""
    steps: dict[str, int] = {}
    anything = level = 0
    bit = 1
    for character in text:
        if character == '*':
            anything |= bit
        elif character == '%':
            level |= bit
        else:
            steps[character] = steps.get(character, 0) | bit
            bit <<= 1
    return steps, anything, level | anything, bit


def _run(automaton: tuple[dict[str, int], int, int, int], name: str, folded: int) -> bool:
    steps, anything, level, accepting = automaton
    state = 1
    for position, character in enumerate(name):
        step = steps.get(character, 0)
        if position < folded:
            step |= steps.get(character.lower(), 0)
        stay = anything if character == DELIMITER else level
        state = (state & step) << 1 | state & stay
        if not state:
            return False
    return bool(state & accepting)
