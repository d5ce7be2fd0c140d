"""Searches whose results a session keeps up to date (RFC 5267 4.3: UPDATE).

A context holds the UIDs of its result as the client has them: ascending for
SEARCH, in their order for SORT.  Changes of flags and arrivals are only noted
as they happen; when the session tells its news, the messages concerned are
tested again, and what differs from the client's list is told as ADDTO and
REMOVEFROM.  Testing a message twice does no harm, so whatever may have changed
is noted generously.

Expunged messages leave the lists right before the client is told of them, so
that message numbers mean what they meant (RFC 5267 4.3.4).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from madmail.imap import responses
from madmail.imap.matching import Candidate, Plan
from madmail.imap.order import keys_of, precedes
from madmail.imap.syntax import Criterion
from madmail.store.interface import Message

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession
    from madmail.imap.view import Change, View

MAX_CONTEXTS = 10  # a session
MAX_NOTED = 5000  # changed messages noted; above, all are tested
BATCH = 200  # messages tested between two responses

Runs = list[tuple[int, list[int]]]  # position, UIDs from there on


class Context:
    """One search."""

    __slots__ = ('criteria', 'members', 'names', 'plan', 'tag', 'uid')

    def __init__(
        self, tag: bytes, uid: bool, plan: Plan, criteria: Sequence[Criterion], found: array[int]
    ) -> None:
        self.tag = tag
        self.uid = uid  # it answers with UIDs
        self.plan = plan
        self.criteria = criteria
        self.names = tuple(criterion.name for criterion in criteria)
        self.members = array('I', found)

    def place(self, session: ImapSession, view: View, row: Message) -> int | None:
        """Where a message is among the members, or would be; None: that cannot be said now."""
        members = self.members
        if not self.criteria:
            return bisect_left(members, row.uid)
        keys = keys_of(session, view, row, self.names)
        if keys is None:
            return None
        low, high = 0, len(members)
        while low < high:
            middle = (low + high) // 2
            uid = members[middle]
            if uid == row.uid:
                return middle
            other = session.shard.store.message(view.box.id, uid)
            its = None if other is None else keys_of(session, view, other, self.names)
            if its is None:
                return None  # expunged; the client has to be told of that first
            if precedes(self.criteria, (its, uid), (keys, row.uid)):
                low = middle + 1
            else:
                high = middle
        return low

    def remove(self, gone: Iterable[int]) -> Runs:
        """Take UIDs out; what to tell, in the order in which the client is to do it."""
        members = self.members
        wanted = set(gone)
        if self.criteria:
            positions = [index for index, uid in enumerate(members) if uid in wanted]
        else:
            positions = []
            for uid in sorted(wanted):
                index = bisect_left(members, uid)
                if index < len(members) and members[index] == uid:
                    positions.append(index)
        runs: Runs = []
        kept = array('I')
        start = 0
        for index in positions:
            kept.extend(members[start:index])
            if runs and index == start:
                runs[-1][1].append(members[index])
            else:
                runs.append((index + 1, [members[index]]))
            start = index + 1
        if positions:
            kept.extend(members[start:])
            self.members = kept
        runs.reverse()  # from the end, so that no position depends on another
        return runs

    def items(self, view: View, runs: Runs) -> bytes:
        """`(position set …)`; position 0 for what is in mailbox order anyway."""
        if not self.criteria:
            runs = [(0, sorted(uid for _, uids in runs for uid in uids))]
        pairs = []
        for position, uids in runs:
            numbers = uids if self.uid else [view.sequence(uid) for uid in uids]
            pairs.append(b'%d %s' % (position, responses.number_set(numbers)))
        return b'(%s)' % b' '.join(pairs)


class Contexts:
    """All contexts of one view, and what may have changed for them."""

    __slots__ = ('_deferred', '_next', '_noted', '_view', 'by_tag')

    def __init__(self, view: View) -> None:
        self._view = view
        self._next = view.uid_end  # messages from here on have not been tested
        self._noted: set[int] = set()  # below `_next`, to be tested again
        self.by_tag: dict[bytes, Context] = {}
        self._deferred = False  # nothing can be said before the client is told of expunges

    def add(
        self,
        tag: bytes,
        uid: bool,
        plan: Plan,
        criteria: Sequence[Criterion],
        found: array[int],
    ) -> bool:
        """Keep a search; False if there are too many."""
        if len(self.by_tag) >= MAX_CONTEXTS:
            return False
        self.by_tag[tag] = Context(tag, uid, plan, criteria, found)
        return True

    def note(self, changes: Iterable[Change]) -> None:
        """Flags were changed, by whomever; on the loop."""
        self._deferred = False
        noted = self._noted
        noted.update(change[0] for change in changes)
        if len(noted) > MAX_NOTED:
            noted.clear()
            self._next = 1

    @property
    def stale(self) -> bool:
        """Something may have to be told."""
        return bool(self._noted) or self._next < self._view.uid_end

    @property
    def due(self) -> bool:
        """And it can be told now."""
        return self.stale and not self._deferred

    def removed(self, gone: Sequence[int]) -> bytes:
        """REMOVEFROM for messages of whose expunge the client is told next; loaded.

        Never switches.
        """
        view = self._view
        self._deferred = False
        lines = []
        for context in self.by_tag.values():
            runs = context.remove(gone)
            if runs:
                items = context.items(view, runs)
                lines.append(responses.esearch(context.tag, context.uid, [('REMOVEFROM', items)]))
        return b''.join(lines)

    def refresh(self, session: ImapSession) -> None:
        """Test what may have changed and tell the differences; may switch."""
        while self.stale and session.view is self._view and self.by_tag:
            uids = self._take()
            if not self._retest(session, uids):
                self._noted.update(uids)
                self._deferred = True
                return
            session.check()

    def _take(self) -> array[int]:
        """The next messages to test."""
        view = self._view
        if self._next < view.uid_end:
            first = self._next
            view.box.load(first)
            uids = view.live(first, view.uid_end - 1)[:BATCH]
            self._next = uids[-1] + 1 if len(uids) == BATCH else view.uid_end
            return uids
        noted = sorted(self._noted)[:BATCH]
        self._noted.difference_update(noted)
        return array('I', [uid for uid in noted if uid < view.uid_end])

    def _retest(self, session: ImapSession, uids: array[int]) -> bool:
        """False if it has to be done again, later."""
        view = self._view
        store = session.shard.store
        rows = [row for uid in uids if (row := store.message(view.box.id, uid)) is not None]
        verdicts = [
            (context, [context.plan.test(Candidate(session, view, row)) for row in rows])
            for context in list(self.by_tag.values())
        ]
        if rows:
            view.box.load(rows[0].uid)
        # All that may have switched; from here on nothing does.
        settled = True
        for context, matches in verdicts:
            gone: list[int] = []
            come: list[Message] = []
            for row, match in zip(rows, matches, strict=True):
                place = context.place(session, view, row)
                if place is None:
                    settled = False
                    continue
                members = context.members
                member = place < len(members) and members[place] == row.uid
                if match and not member:
                    come.append(row)
                elif member and not match:
                    gone.append(row.uid)
            results: list[tuple[str, int | bytes]] = []
            runs = context.remove(gone) if gone else []
            if runs:
                results.append(('REMOVEFROM', context.items(view, runs)))
            runs = []
            for row in come:
                place = context.place(session, view, row)
                if place is None:
                    settled = False
                    continue
                context.members.insert(place, row.uid)
                if runs and runs[-1][0] + len(runs[-1][1]) == place + 1:
                    runs[-1][1].append(row.uid)
                else:
                    runs.append((place + 1, [row.uid]))
            if runs:
                results.append(('ADDTO', context.items(view, runs)))
            if results:
                session.wire.write(responses.esearch(context.tag, context.uid, results))
        return settled
