"""Which messages of a view match a search key (RFC 3501 6.4.4).

The key becomes one function of a candidate message.  Keys that name UIDs or
message numbers first narrow what is read at all; within AND and OR the cheap
keys are asked first, so that a body is read only when nothing else decides.

Message numbers are resolved when the plan is made, and stand for the same
messages from then on, however long the plan is kept (RFC 5267 4.3).
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from madmail.imap import object_id
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
from madmail.imap.sequence_set import SequenceSet
from madmail.imap.syntax import (
    MAX_NUMBER,
)
from madmail.imap.view import Ranges, inside
from madmail.message import search_text
from madmail.message.structure import Structure
from madmail.store.interface import Message

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession
    from madmail.imap.view import View

ROWS = 500  # messages read at once
THREAD_SIZE = 128 * 1024  # octets above which a message is searched in a thread
DAY = 86400  # seconds

_FREE, _HEADER, _TEXT = 0, 1, 2  # what a test needs to read


class Unreadable(Exception):
    """A message that exists cannot be read."""


class Found(NamedTuple):
    """UIDs ascending; their mod-sequences if the key asked for one (RFC 7162 3.1.5)."""

    uids: array[int]
    modseqs: array[int] | None = None


def search(session: ImapSession, view: View, plan: Plan) -> Found:
    """The messages of the view that match; may switch."""
    ranges = plan.ranges
    if plan.exact:
        return Found(view.uids(ranges))
    test = plan.test
    found = array('I')
    modseqs = array('Q') if plan.wants_modseq else None
    for low, high in ranges:
        while low <= high:
            rows = session.shard.store.messages(view.box.id, low, high, ROWS)
            for row in rows:
                if test(Candidate(session, view, row)):
                    found.append(row.uid)
                    if modseqs is not None:
                        modseqs.append(row.modseq)
                session.pause()
            low = rows[-1].uid + 1 if len(rows) == ROWS else high + 1
            session.check()
            session.progress(low, view.uid_end)
    return Found(found, modseqs)


class Candidate:
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


Test = Callable[[Candidate], bool]


class Plan:
    """A search key as ranges and a test.

    `ranges` bound what can match, `exact` says that they are all there is to
    it.  `volatile`: flags or mod-sequences count, so a message can begin to
    match, or cease; `ages`: it can by the mere passing of time.
    """

    def __init__(self, session: ImapSession, view: View, key: SearchKey) -> None:
        self._session = session
        self._view = view
        self._resolved: dict[tuple[SequenceSet, bool], Ranges] = {}
        self.wants_modseq = _holds(key, ModseqIs)
        self.volatile = _holds(key, FlagIs, Keyword, ModseqIs)
        self.ages = _holds(key, Within)
        within = self._within(key)
        if within is None:
            within = [(1, MAX_NUMBER)]
        # The test may hold for messages to come; a search is about those the client knows.
        self.ranges = _intersection(within, [(1, view.uid_end - 1)])
        self.exact = self._exact(key)
        self.test, self.cost = self._test(key)

    def _named(self, numbers: SequenceSet, by_uid: bool) -> Ranges:
        key = (numbers, by_uid)
        if key not in self._resolved:
            if by_uid and not numbers.saved:
                self._resolved[key] = self._by_uid(numbers)
            else:
                self._resolved[key] = self._view.ranges(
                    numbers, by_uid=by_uid, saved=self._session.saved, lenient=True
                )
        return self._resolved[key]

    def _by_uid(self, numbers: SequenceSet) -> Ranges:
        """7:* goes on to whatever will come."""
        last = self._view.last_uid() if numbers.has_star else 0
        pairs = []
        for low, high in numbers.ranges:
            if high:
                pairs.append((low, high))
                continue
            # RFC 3501 9: whatever stands before `*`, it holds the last message
            if last:
                pairs.append((last, last))
            if low:
                pairs.append((low, MAX_NUMBER))
        return SequenceSet(tuple(pairs)).resolve(0)

    def _within(self, key: SearchKey) -> Ranges | None:
        """UID ranges outside of which nothing can match; None = no such bound."""
        if isinstance(key, Numbers | Uids):
            return self._named(key.set, isinstance(key, Uids))
        if isinstance(key, And):
            bound: Ranges | None = None
            for each in key.keys:
                more = self._within(each)
                if more is not None:
                    bound = more if bound is None else _intersection(bound, more)
            return bound
        return None

    def _exact(self, key: SearchKey) -> bool:
        """Whether `within` says it all, so that no message has to be read."""
        if isinstance(key, And):
            return all(map(self._exact, key.keys))
        return isinstance(key, Everything | Numbers | Uids)

    def _test(self, key: SearchKey) -> tuple[Test, int]:
        """The function and what it costs."""
        if isinstance(key, And | Or):
            keys = key.keys if isinstance(key, And) else (key.left, key.right)
            tests = sorted(map(self._test, keys), key=lambda pair: pair[1])
            functions = [function for function, _ in tests]
            cost = tests[-1][1]
            if isinstance(key, And):
                return (lambda m: all(function(m) for function in functions)), cost
            return (lambda m: any(function(m) for function in functions)), cost
        if isinstance(key, Not):
            inner, cost = self._test(key.key)
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
            ranges = self._named(key.set, isinstance(key, Uids))
            return lambda m: inside(ranges, m.row.uid)
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
        if isinstance(key, SavedDay):
            compare, day = _COMPARE[key.comparison], key.day
            return lambda message: compare(message.row.saved // DAY, day)
        if isinstance(key, EmailIs):
            session = self._session
            salt, email = session.shard.store.salt(session.account.id), key.id
            return lambda message: object_id.email_id(salt, message.row) == email
        if isinstance(key, ModseqIs):
            modseq = key.value
            return lambda m: m.row.modseq >= modseq
        return lambda m: True


_COMPARE: dict[Comparison, Callable[[int, int], bool]] = {
    Comparison.BEFORE: lambda day, other: day < other,
    Comparison.ON: lambda day, other: day == other,
    Comparison.SINCE: lambda day, other: day >= other,
}


def _header_test(key: Header) -> Test:
    field, needle = key.field, search_text.fold(key.text)

    def test(message: Candidate) -> bool:
        block = message.header()
        return block is not None and search_text.header_contains(block, field, needle)

    return test


def _sent_test(key: Day) -> Test:
    compare, day = _COMPARE[key.comparison], key.day

    def test(message: Candidate) -> bool:
        block = message.header()
        sent = None if block is None else search_text.sent_day(block)
        return sent is not None and compare(sent, day)

    return test


def _holds(key: SearchKey, *kinds: type) -> bool:
    """Whether a key of these kinds occurs in `key`."""
    if isinstance(key, And):
        return any(_holds(each, *kinds) for each in key.keys)
    if isinstance(key, Or):
        return _holds(key.left, *kinds) or _holds(key.right, *kinds)
    if isinstance(key, Not):
        return _holds(key.key, *kinds)
    return isinstance(key, kinds)


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
