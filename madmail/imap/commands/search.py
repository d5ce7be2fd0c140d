"""SEARCH and UID SEARCH (RFC 3501 6.4.4; RFC 4731 RETURN, RFC 5182 SAVE, RFC 5032 WITHIN).

The key becomes one function of a candidate message.  Keys that name UIDs or
message numbers first narrow what is read at all; within AND and OR the cheap
keys are asked first, so that a body is read only when nothing else decides.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from madmail.imap import responses
from madmail.imap.commands.registry import Tell, capability, command
from madmail.imap.syntax import (
    And,
    Bad,
    Command,
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
    SequenceSet,
    Size,
    Text,
    Uids,
    Within,
)
from madmail.imap.view import Ranges
from madmail.message import search_text
from madmail.message.structure import Structure
from madmail.store.interface import Message

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession
    from madmail.imap.view import View

capability('ESEARCH', 'SEARCHRES', 'WITHIN')

ROWS = 500  # messages read at once
THREAD_SIZE = 128 * 1024  # octets above which a message is searched in a thread
DAY = 86400  # seconds

_FREE, _HEADER, _TEXT = 0, 1, 2  # what a test needs to read


class Unreadable(Exception):
    """A message that exists cannot be read."""


@command('SEARCH', selected=True, tell=Tell.EXISTS | Tell.FLAGS)
def search(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Search)
    view = session.view
    assert view is not None
    returns = arguments.returns
    saves = returns is not None and 'SAVE' in returns
    try:
        found = _found(session, view, arguments.key)
    except Bad:
        if saves:
            session.saved = ()  # RFC 5182 2.1: a failed SAVE leaves nothing
        raise
    answers: Sequence[int] = found
    if found and not command.uid:
        view.box.load(found[0])
        answers = [view.sequence(uid) for uid in found]
    if returns is None:
        session.wire.write(responses.search(answers))
        return b'OK Search completed'
    wanted = set(returns) or {'ALL'}
    results: list[tuple[str, int | bytes]] = []
    if found and 'MIN' in wanted:
        results.append(('MIN', answers[0]))
    if found and 'MAX' in wanted:
        results.append(('MAX', answers[-1]))
    if found and 'ALL' in wanted:
        results.append(('ALL', responses.number_set(answers)))
    if 'COUNT' in wanted:
        results.append(('COUNT', len(found)))
    if saves:
        session.saved = _saved(found, wanted)
    if wanted != {'SAVE'}:
        session.wire.write(responses.esearch(command.tag, command.uid, results))
    return b'OK Search completed'


def _saved(found: array[int], wanted: set[str]) -> array[int]:
    """RFC 5182 2.4: MIN and MAX alone save only what they name."""
    if not found or wanted & {'ALL', 'COUNT'} or not wanted & {'MIN', 'MAX'}:
        return found
    ends = {found[0]} if 'MIN' in wanted else set()
    if 'MAX' in wanted:
        ends.add(found[-1])
    return array('I', sorted(ends))


def _found(session: ImapSession, view: View, key: SearchKey) -> array[int]:
    """The UIDs that match, ascending."""
    plan = _Plan(session, view)
    ranges = plan.within(key)
    if ranges is None:
        ranges = [(1, view.uid_end - 1)] if view.uid_end > 1 else []
    if plan.exact(key):
        return view.uids(ranges)
    test, _ = plan.test(key)
    found = array('I')
    for low, high in ranges:
        while low <= high:
            rows = session.shard.store.messages(view.box.id, low, high, ROWS)
            for row in rows:
                if test(_Candidate(session, view, row)):
                    found.append(row.uid)
                session.pause()
            low = rows[-1].uid + 1 if len(rows) == ROWS else high + 1
            session.check()
    return found


class _Candidate:
    """A message under test; its octets are read when a test asks for them."""

    __slots__ = ('_session', '_structure', '_view', 'row')

    def __init__(self, session: ImapSession, view: View, row: Message) -> None:
        self._session = session
        self._view = view
        self.row = row
        self._structure: Structure | None = None

    def structure(self) -> Structure | None:
        """None if the message has just been expunged."""
        if self._structure is None:
            store = self._session.shard.store
            body = store.body(self.row.body_id)
            if body is None:
                if store.message(self._view.box.id, self.row.uid) is None:
                    return None
                raise Unreadable
            self._structure = Structure(body)
        return self._structure

    def header(self) -> bytes | None:
        structure = self.structure()
        return None if structure is None else structure.header()

    def contains(self, needle: str, body_only: bool) -> bool:
        structure = self.structure()
        if structure is None:
            return False
        if self.row.size > THREAD_SIZE:
            return self._session.shard.offload(
                search_text.text_contains, structure, needle, body_only
            )
        return search_text.text_contains(structure, needle, body_only)


Test = Callable[[_Candidate], bool]


class _Plan:
    """From a search key to ranges and a test."""

    def __init__(self, session: ImapSession, view: View) -> None:
        self._session = session
        self._view = view
        self._resolved: dict[tuple[SequenceSet, bool], Ranges] = {}

    def ranges(self, numbers: SequenceSet, by_uid: bool) -> Ranges:
        key = (numbers, by_uid)
        if key not in self._resolved:
            self._resolved[key] = self._view.ranges(
                numbers, by_uid=by_uid, saved=self._session.saved
            )
        return self._resolved[key]

    def within(self, key: SearchKey) -> Ranges | None:
        """UID ranges outside of which nothing can match; None = no such bound."""
        if isinstance(key, Numbers | Uids):
            return self.ranges(key.set, isinstance(key, Uids))
        if isinstance(key, And):
            bound: Ranges | None = None
            for each in key.keys:
                more = self.within(each)
                if more is not None:
                    bound = more if bound is None else _intersection(bound, more)
            return bound
        return None

    def exact(self, key: SearchKey) -> bool:
        """Whether `within` says it all, so that no message has to be read."""
        if isinstance(key, And):
            return all(map(self.exact, key.keys))
        return isinstance(key, Everything | Numbers | Uids)

    def test(self, key: SearchKey) -> tuple[Test, int]:
        """The function and what it costs."""
        if isinstance(key, And | Or):
            keys = key.keys if isinstance(key, And) else (key.left, key.right)
            tests = sorted(map(self.test, keys), key=lambda pair: pair[1])
            functions = [function for function, _ in tests]
            cost = tests[-1][1]
            if isinstance(key, And):
                return (lambda m: all(function(m) for function in functions)), cost
            return (lambda m: any(function(m) for function in functions)), cost
        if isinstance(key, Not):
            inner, cost = self.test(key.key)
            return (lambda m: not inner(m)), cost
        if isinstance(key, Text):
            needle, body_only = search_text.fold(key.text), key.body_only
            return (lambda m: m.contains(needle, body_only)), _TEXT
        if isinstance(key, Header):
            return _header_test(key), _HEADER
        if isinstance(key, Day) and key.sent:
            return _sent_test(key), _HEADER
        return self._row_test(key), _FREE

    def _row_test(self, key: SearchKey) -> Test:
        """Tests of the row alone."""
        view = self._view
        if isinstance(key, Numbers | Uids):
            ranges = self.ranges(key.set, isinstance(key, Uids))
            return lambda m: _inside(ranges, m.row.uid)
        if isinstance(key, FlagIs):
            bit, wanted = key.bit, key.bit if key.present else 0
            return lambda m: m.row.flags & bit == wanted
        if isinstance(key, Keyword):
            name, present = key.name.lower(), key.present
            return lambda m: (name in map(str.lower, m.row.keywords)) == present
        if isinstance(key, Recent):
            recent = key.present
            return lambda m: view.is_recent(m.row.uid) == recent
        if isinstance(key, Size):
            octets = key.octets
            if key.larger:
                return lambda m: m.row.size > octets
            return lambda m: m.row.size < octets
        if isinstance(key, Day):
            compare, day = _COMPARE[key.comparison], key.day
            return lambda m: compare(m.row.internal_date // DAY, day)
        if isinstance(key, Within):
            # RFC 5032 3: YOUNGER is at most, OLDER at least so old
            limit = int(time.time()) - key.seconds
            if key.younger:
                return lambda m: m.row.internal_date >= limit
            return lambda m: m.row.internal_date <= limit
        if isinstance(key, ModseqIs):
            raise Bad('CONDSTORE is not supported')
        return lambda m: True


_COMPARE: dict[Comparison, Callable[[int, int], bool]] = {
    Comparison.BEFORE: lambda day, other: day < other,
    Comparison.ON: lambda day, other: day == other,
    Comparison.SINCE: lambda day, other: day >= other,
}


def _header_test(key: Header) -> Test:
    field, needle = key.field, search_text.fold(key.text)

    def test(message: _Candidate) -> bool:
        block = message.header()
        return block is not None and search_text.header_contains(block, field, needle)

    return test


def _sent_test(key: Day) -> Test:
    compare, day = _COMPARE[key.comparison], key.day

    def test(message: _Candidate) -> bool:
        block = message.header()
        sent = None if block is None else search_text.sent_day(block)
        return sent is not None and compare(sent, day)

    return test


def _inside(ranges: Ranges, uid: int) -> bool:
    low, high = 0, len(ranges)
    while low < high:
        middle = (low + high) // 2
        if ranges[middle][1] < uid:
            low = middle + 1
        else:
            high = middle
    return low < len(ranges) and ranges[low][0] <= uid


def _intersection(one: Ranges, other: Ranges) -> Ranges:
    found: Ranges = []
    i = j = 0
    while i < len(one) and j < len(other):
        low = max(one[i][0], other[j][0])
        high = min(one[i][1], other[j][1])
        if low <= high:
            found.append((low, high))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return found
