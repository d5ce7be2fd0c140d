"""What one session has been told of its mailbox, and what it has not.

The client of a session counts messages by what it was told: messages it does
not know yet are not there, and messages it was not told to be expunged still
have their numbers (RFC 3501 7.4.1).  Its list of messages is therefore

    the UIDs of the open mailbox below `uid_end`, and those in `pending`,

merged in order.  Neither list is copied: a number is found by bisection in both.

Everything here works on what is in memory and never switches to another
greenlet, except the methods that say so.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from madmail.imap.sequence_set import SequenceSet
from madmail.imap.syntax import (
    MAX_NUMBER,
    Bad,
)
from madmail.shard.turns import yield_to_others

if TYPE_CHECKING:
    from madmail.imap.context import Contexts
    from madmail.imap.mailbox import OpenMailbox

Change = tuple[int, int, tuple[str, ...], int]  # uid, flags, keywords, modseq
Ranges = list[tuple[int, int]]  # ascending and disjoint, both ends included

MANY = 200  # ranges of a set resolved before others get a turn
MAX_CHANGES = 1000  # flag changes kept for a session; above, they are read again when told


class Watcher(Protocol):
    """The session behind a view; both are called on the loop and must not block."""

    def stirred(self) -> None:
        """Something changed that the client has not been told."""

    def mailbox_gone(self) -> None:
        """The mailbox was deleted."""


class View:
    """A session's selected mailbox."""

    __slots__ = (
        '_changes',
        '_changes_since',
        '_expunged_at',
        '_grown_at',
        '_uid_only',
        '_without_recent',
        'box',
        'contexts',
        'exists',
        'keywords',
        'pending',
        'read_only',
        'recent',
        'recent_count',
        'told_modseq',
        'uid_end',
        'watcher',
    )

    def __init__(self, box: OpenMailbox, watcher: Watcher, *, read_only: bool) -> None:
        self.box = box
        self.watcher = watcher
        self.read_only = read_only
        self.exists = box.exists  # messages the client knows
        self.uid_end = box.uid_next  # the client knows no message from here on
        self.pending: array[int] = array('I')  # UIDs expunged, ascending, the client not told
        self.recent: Ranges = []  # this session's \Recent messages
        self.recent_count = 0
        self.keywords: set[str] = set()  # named in FLAGS to this client
        self.contexts: Contexts | None = None  # searches whose results are kept up to date
        self._changes: dict[int, Change] = {}
        self.told_modseq = 0  # what the client takes for the point up to which it knows all
        self._expunged_at = 0  # mod-sequence of the first expunge in `pending`
        self._grown_at = 0  # mod-sequence of the first arrival not told, if there is one
        self._uid_only = False  # RFC 9586: message numbers are refused
        self._without_recent = False  # RFC 9051: there is no \Recent
        self._changes_since = -1  # above MAX_CHANGES: all changes after this mod-sequence

    # -- numbers

    def sequence(self, uid: int) -> int:
        """The message number of a UID in the view; loaded from `uid` on."""
        box = self.box
        uids = box.uids
        number = box.exists - len(uids) + bisect_left(uids, uid) + 1
        return number + bisect_left(self.pending, uid) if self.pending else number

    def uid_at(self, number: int) -> int:
        """The UID of message `number` (1 to `exists`); may switch."""
        box = self.box
        while True:
            uids, pending = box.uids, self.pending
            low = bisect_left(pending, box.first_loaded) if pending else 0
            # What is below the loaded UIDs need not be known to be counted.
            index = number - 1 - (box.exists - len(uids)) - low
            if index >= 0 or box.first_loaded <= 1:
                break
            box.load_count(len(uids) - index)
        if index < 0:
            raise RuntimeError('mailbox holds fewer messages than it counts')
        if low == len(pending):
            return uids[index]
        before, end = low, len(pending)
        while before < end:
            middle = (before + end) // 2
            if bisect_left(uids, pending[middle]) + middle - low < index:
                before = middle + 1
            else:
                end = middle
        if before < len(pending) and (bisect_left(uids, pending[before]) + before - low == index):
            return pending[before]
        return uids[index - (before - low)]

    def last_uid(self) -> int:
        """The highest UID in the view, 0 if it is empty; may switch."""
        return self.uid_at(self.exists) if self.exists else 0

    def ranges(
        self,
        numbers: SequenceSet,
        *,
        by_uid: bool,
        saved: Sequence[int] = (),
        lenient: bool = False,
    ) -> Ranges:
        """UID ranges of the view that a set selects, loaded; may switch.

        Raises Bad for message numbers that do not exist, unless `lenient`:
        SEARCH finds nothing under them.  `saved` is what `$` stands for (RFC 5182).
        """
        if numbers.saved:
            found = runs(saved)
        elif by_uid:
            # The last UID is worth knowing only where it is named.
            last = self.last_uid() if numbers.has_star else self.uid_end - 1
            end = self.uid_end - 1
            found = [
                (max(low, 1), min(high, end))
                for low, high in numbers.resolve(last)
                if low <= end and high >= 1
            ]
        else:
            if self._uid_only:
                raise Bad('Message numbers cannot be used', code=b'UIDREQUIRED')
            if not lenient and any(high > self.exists for _, high in numbers.ranges):
                raise Bad('No message has such a number')
            # 7:* in a mailbox of 5 is its last message, as for UIDs.
            pairs = [
                (low, min(high, self.exists))
                for low, high in numbers.resolve(self.exists)
                if low <= self.exists
            ]
            if pairs:
                self.uid_at(pairs[0][0])  # load once, from the lowest
            found = []
            for low, high in pairs:
                first = self.uid_at(low)
                found.append((first, self.uid_at(high) if high != low else first))
                if len(found) % MANY == 0:
                    yield_to_others()
        if found:
            self.box.load(found[0][0])
        return found

    def live(self, low: int, high: int) -> array[int]:
        """UIDs of the view within the range that still exist; loaded from `low` on."""
        uids = self.box.uids
        first = bisect_left(uids, low)
        return uids[first : bisect_right(uids, min(high, self.uid_end - 1), first)]

    def uids(self, ranges: Ranges) -> array[int]:
        """The existing UIDs of some ranges; may switch."""
        found: array[int] = array('I')
        if ranges:
            self.box.load(ranges[0][0])
        for low, high in ranges:
            found += self.live(low, high)
        return found

    def count(self, low: int, high: int) -> int:
        """How many UIDs of the view within the range still exist; loaded from `low` on."""
        uids = self.box.uids
        first = bisect_left(uids, low)
        return bisect_right(uids, min(high, self.uid_end - 1), first) - first

    def awaits_expunge(self, ranges: Ranges) -> bool:
        """Whether a message in the ranges is gone and the client does not know."""
        pending = self.pending
        return bool(pending) and any(
            bisect_left(pending, low) < bisect_right(pending, high) for low, high in ranges
        )

    # -- \Recent

    def claim(self) -> None:
        """Take the messages as recent that no session has seen; on SELECT; may switch."""
        if self._without_recent:
            return
        box = self.box
        if 1 < box.recent_floor < self.uid_end:
            box.load(box.recent_floor)
        first = box.recent_floor  # another session may have been faster
        if first >= self.uid_end:
            return
        count = self.exists
        if first > 1:
            count = self.count(first, self.uid_end - 1)
            count += len(self.pending) - bisect_left(self.pending, first)
        self._claim(first, self.uid_end, count)

    def _claim(self, first: int, end: int, count: int) -> None:
        if self._without_recent:
            return
        if count and first < end:
            if self.recent and self.recent[-1][1] == first - 1:
                self.recent[-1] = (self.recent[-1][0], end - 1)
            else:
                self.recent.append((first, end - 1))
            self.recent_count += count
        if not self.read_only:
            self.box.recent_floor = max(self.box.recent_floor, end)

    def is_recent(self, uid: int) -> bool:
        return any(low <= uid <= high for low, high in self.recent)

    # -- what happens

    def appended(self, modseq: int) -> None:
        """Messages arrived that the client does not know; before `box` counts them."""
        if not self.grown:
            self._grown_at = modseq

    def expunged(self, gone: Sequence[int], modseq: int) -> None:
        """Messages were removed at `modseq`, or later if it is unknown; `gone` ascends."""
        known = gone[: bisect_left(gone, self.uid_end)]
        if not known:
            return
        if self._changes:
            for uid in known:
                self._changes.pop(uid, None)
        if not self.pending:
            self._expunged_at = modseq
        if not self.pending or known[0] > self.pending[-1]:
            self.pending.extend(known)
        else:
            self.pending = array('I', sorted([*self.pending, *known]))

    def flags_changed(self, changes: Sequence[Change]) -> None:
        if self._changes_since >= 0:
            return
        kept = self._changes
        end = self.uid_end
        for change in changes:
            if change[0] < end:
                kept[change[0]] = change
        if len(kept) > MAX_CHANGES:
            self._changes_since = min(change[3] for change in kept.values()) - 1
            kept.clear()

    # -- what the client is to be told; each answer counts as told

    @property
    def grown(self) -> bool:
        return self.uid_end < self.box.uid_next

    @property
    def changed(self) -> bool:
        return bool(self._changes) or self._changes_since >= 0

    def complete_modseq(self) -> int:
        """The mod-sequence up to which the client has been told everything."""
        modseq = self.box.modseq
        if self.pending:
            modseq = min(modseq, self._expunged_at - 1)
        if self.grown:
            modseq = min(modseq, self._grown_at - 1)
        if self._changes_since >= 0:
            modseq = min(modseq, self._changes_since)
        elif self._changes:
            modseq = min(modseq, min(change[3] for change in self._changes.values()) - 1)
        return modseq

    def saw(self, modseq: int) -> None:
        """The client is shown a message with this mod-sequence."""
        if modseq > self.told_modseq:
            self.told_modseq = modseq

    def at_hand(self, limit: int, *, expunges: bool = True, flags: bool = True) -> bool:
        """Whether the news can be told with one call each, without reading anything."""
        first = self.box.first_loaded
        pending = self.pending
        if expunges and pending and (len(pending) > limit or pending[0] < first):
            return False
        if not flags:
            return True
        if self._changes_since >= 0 or len(self._changes) > limit:
            return False
        return not self._changes or first <= 1 or min(self._changes) >= first

    def load_news(self, limit: int, *, expunges: bool = True, flags: bool = True) -> None:
        """Load what the next `expunges` and `changes` of `limit` need; may switch."""
        box = self.box
        # What happens while it loads may concern messages further down.
        while (first := self._first_news(limit, expunges, flags)) < box.first_loaded:
            box.load(first)

    def _first_news(self, limit: int, expunges: bool, flags: bool) -> int:
        """The lowest UID of the next news."""
        first = MAX_NUMBER
        if flags and self._changes_since >= 0:
            return 1
        if flags and self._changes:
            first = min(self._changes)
        if expunges and self.pending:
            first = min(first, self.pending[max(0, len(self.pending) - limit)])
        return first

    def expunges(self, limit: int) -> list[int]:
        """Message numbers for EXPUNGE in the order to send, at most `limit`.

        Loaded from the `limit`-th highest of `pending` on.
        """
        pending = self.pending
        box = self.box
        first = max(0, len(pending) - limit)
        below = box.exists - len(box.uids) + 1
        uids = box.uids
        # From the top, so that no number depends on those sent before it.
        numbers = [
            below + bisect_left(uids, pending[index]) + index
            for index in range(len(pending) - 1, first - 1, -1)
        ]
        if self.recent_count:
            self.recent_count -= sum(map(self.is_recent, pending[first:]))
        del pending[first:]
        self.exists -= len(numbers)
        return numbers

    def vanished(self, limit: int) -> array[int]:
        """UIDs for VANISHED, ascending; the highest of them, at most `limit`."""
        pending = self.pending
        first = max(0, len(pending) - limit)
        gone = pending[first:]
        if self.recent_count:
            self.recent_count -= sum(map(self.is_recent, gone))
        del pending[first:]
        self.exists -= len(gone)
        return gone

    def arrivals(self) -> tuple[int, int]:
        """What EXISTS and RECENT are now."""
        box = self.box
        first = max(box.recent_floor, self.uid_end)
        new = len(box.uids) - bisect_left(box.uids, self.uid_end)
        count = new if first <= self.uid_end else len(box.uids) - bisect_left(box.uids, first)
        self.exists += new
        self.uid_end = box.uid_next
        self._claim(first, self.uid_end, count)
        return self.exists, self.recent_count

    def changes(self, limit: int) -> list[Change]:
        """Flags for unsolicited FETCH, at most `limit`; may read the store."""
        kept = self._changes
        if not kept and self._changes_since >= 0:
            rows = self.box.store.changed_since(self.box.id, self._changes_since, limit)
            # Rows of one mod-sequence come together, so there may be more than were asked for.
            self._changes_since = rows[-1].modseq if len(rows) >= limit else -1
            pending = self.pending
            for row in rows:
                if row.uid < self.uid_end and not _holds(pending, row.uid):
                    kept[row.uid] = (row.uid, row.flags, row.keywords, row.modseq)
        if len(kept) <= limit:
            self._changes = {}
            return list(kept.values())
        return [kept.pop(uid) for uid in list(kept)[:limit]]

    def told(self, uid: int, modseq: int) -> None:
        """The client sees the flags that this message had at `modseq`."""
        # What is shown was read some time ago; another session may have been here since.
        change = self._changes.get(uid) if self._changes else None
        if change is not None and change[3] <= modseq:
            del self._changes[uid]

    def supersede(self, change: Change) -> None:
        """The session itself changed a message silently; older news of it are void."""
        known = self._changes.get(change[0])
        if known is not None and known[3] < change[3]:
            self._changes[change[0]] = change

    # -- what the client enabled

    def adapt(self, enabled: frozenset[str]) -> None:
        """Follow what ENABLE has changed."""
        self._uid_only = 'UIDONLY' in enabled
        if 'IMAP4REV2' in enabled:
            # RFC 9051 appendix E: \Recent is gone
            self._without_recent = True
            self.recent = []
            self.recent_count = 0

    # -- since a mod-sequence (RFC 7162)

    def vanished_since(self, modseq: int) -> list[int]:
        """Ascending UIDs removed after `modseq`, without those the client still counts; may switch.

        Those come as ordinary news.
        """
        box = self.box
        box.catch_up()
        gone = box.store.expunged_since(box.id, modseq)
        pending = self.pending
        return [uid for uid in gone if not _holds(pending, uid)] if pending else gone

    # -- moving to another process

    def freeze(self) -> dict[str, Any]:
        """All of it as plain values, for `thaw` in the process that takes over."""
        since = self._changes_since
        for change in self._changes.values():
            since = change[3] - 1 if since < 0 else min(since, change[3] - 1)
        return {
            'mailbox': self.box.id,
            'modseq': self.box.modseq,
            'since': since,
            'read_only': self.read_only,
            'exists': self.exists,
            'uid_end': self.uid_end,
            'pending': self.pending.tobytes(),
            'recent': self.recent,
            'recent_count': self.recent_count,
            'floor': self.box.recent_floor,
            'keywords': sorted(self.keywords),
            'told_modseq': self.told_modseq,
            'expunged_at': self._expunged_at,
            'grown_at': self._grown_at if self.grown else 0,
        }

    def thaw(self, state: dict[str, Any]) -> bool:
        """Take over what the client was told; the rest is a difference of versions; may switch.

        False if the difference cannot be told, because the log of expunges is too short.
        """
        box = self.box
        box.catch_up()  # a session that came before may be at work already
        self.exists = state['exists']
        self.uid_end = state['uid_end']
        self.pending = array('I', state['pending'])
        self.recent = [(low, high) for low, high in state['recent']]
        self.recent_count = state['recent_count']
        self.keywords = set(state['keywords'])
        box.recent_floor = max(box.recent_floor, state['floor'])
        self.told_modseq = state.get('told_modseq', 0)
        self._expunged_at = state.get('expunged_at', 0) or state['modseq'] + 1
        self._grown_at = state.get('grown_at', 0) or state['modseq'] + 1
        gone = sorted(box.store.expunged_since(box.id, state['modseq']))
        self.expunged(gone, state['modseq'] + 1)
        since = state['since'] if state['since'] >= 0 else state['modseq']
        if since < box.modseq:
            self._changes_since = since
        box.load(self.uid_end)
        arrived = len(box.uids) - bisect_left(box.uids, self.uid_end)
        return box.exists - arrived + len(self.pending) == self.exists


def _holds(uids: Sequence[int], uid: int) -> bool:
    position = bisect_left(uids, uid)
    return position < len(uids) and uids[position] == uid


def inside(ranges: Ranges, uid: int) -> bool:
    """Whether a UID is in one of the ranges."""
    position = bisect_right(ranges, (uid, MAX_NUMBER))
    return position > 0 and ranges[position - 1][1] >= uid


def part(partial: tuple[int, int], count: int) -> slice:
    """Which of `count` results PARTIAL selects; negative numbers count from the last (RFC 9394)."""
    first, last = partial
    if first < 0:
        return slice(max(0, count + last), max(0, count + first + 1))
    return slice(first - 1, last)


def runs(uids: Sequence[int]) -> Ranges:
    """Ascending UIDs as ranges."""
    found: Ranges = []
    for uid in uids:
        if found and found[-1][1] == uid - 1:
            found[-1] = (found[-1][0], uid)
        else:
            found.append((uid, uid))
    return found
