"""The mailboxes that sessions of this shard have selected, one object each.

An `OpenMailbox` holds what all its sessions share: the counters and the UIDs,
as they stood after the last event the store told us.  Reads of the store may
run ahead of those events, so whatever is read later is reconciled with them by
mod-sequence: the UIDs here are always those of version `modseq`.

SELECT costs the same in any mailbox: only counters are read.  UIDs come in
from the top, as far down as somebody asks; a message number is counted from the
end (`exists` minus the larger UIDs).  What one session knows and has not been
told yet is its `View` (see madmail.imap.view).

\\Recent lives in memory only (RFC 3501 2.3.2): `_floors` remembers, for a
bounded number of mailboxes, from which UID on no session has seen a message.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import gevent

from madmail.imap.subscribers import Subscribers
from madmail.imap.view import View, Watcher
from madmail.shard.turns import yield_to_others
from madmail.store.interface import (
    AccountGone,
    Appended,
    Event,
    Expunged,
    FlagsChanged,
    Mailbox,
    MailboxNamed,
    MetadataChanged,
    Store,
    SubscriptionChanged,
)

AHEAD = 0.0005  # seconds to wait for the events of a commit that reads see already
AHEAD_TIMES = 10_000  # waits before the events are taken for lost
FIRST_WINDOW = 512  # UIDs of range asked for in the first read; most clients need no more
WINDOW = 8192  # and in later ones
SPARE_UIDS = 1 << 20  # UIDs kept over all mailboxes before old ones are dropped again
PARKED_FROM = 1024  # UIDs that are worth keeping when the last session leaves
FLOORS = 1 << 16  # mailboxes whose \Recent floor is remembered
MAX_KEYWORDS = 128  # different keywords known in a mailbox; a new one is refused above it


class OpenMailbox:
    """One mailbox at version `modseq`, shared by the views of its sessions."""

    __slots__ = (
        'account_id',
        'exists',
        'first_loaded',
        'gone',
        'id',
        'keywords',
        'loading',
        'modseq',
        'name',
        'opened_at',
        'recent_floor',
        'shared',
        'store',
        'uid_next',
        'uid_validity',
        'uids',
        'views',
    )

    def __init__(self, boxes: OpenMailboxes, row: Mailbox, recent_floor: int) -> None:
        self.shared = boxes
        self.store = boxes.store
        self.id = row.id
        self.account_id = row.account_id
        self.name = row.name
        self.uid_validity = row.uid_validity
        self.uid_next = row.uid_next
        self.exists = row.messages
        self.opened_at = row.highest_modseq  # events up to here are in the row already
        self.modseq = row.highest_modseq
        self.uids: array[int] = array('I')  # every UID from first_loaded on, ascending
        self.first_loaded = row.uid_next if row.messages else 1
        self.loading = 0  # greenlets in load or load_count
        self.recent_floor = recent_floor
        self.keywords: dict[str, str] = {}  # lower case: as first written
        self.views: list[View] = []
        self.gone = False  # the mailbox was deleted

    # -- UIDs

    def load(self, first: int) -> None:
        """Have every UID from `first` on; may switch to other greenlets."""
        if self.first_loaded > first:
            self._load(lambda: self.first_loaded <= first)

    def load_count(self, count: int) -> None:
        """Have at least the `count` highest UIDs, or all; may switch."""
        if len(self.uids) < count and self.first_loaded > 1:
            self._load(lambda: len(self.uids) >= count or self.first_loaded <= 1)

    def _load(self, enough: Callable[[], bool]) -> None:
        width = min(FIRST_WINDOW, WINDOW)
        waits = 0
        self.loading += 1
        try:
            while True:
                before = len(self.uids)
                if not self._extend(max(1, self.first_loaded - width)):
                    waits += 1
                    if waits > AHEAD_TIMES:
                        raise RuntimeError('events of the store are missing')
                    gevent.sleep(AHEAD)
                    continue
                if enough():
                    return
                if width < WINDOW or len(self.uids) - before < width // 4:
                    width *= 4  # a sparse range is mostly deleted mail
                yield_to_others()
        finally:
            self.loading -= 1

    def _extend(self, first: int) -> bool:
        """Read the UIDs from `first` up to the loaded ones, as of version `modseq`.

        False if the store is ahead of its events: then UIDs are missing that the
        sessions still count, and the events have to come first.
        """
        last = self.first_loaded - 1
        found = self.store.uids(self.id, first, last)
        if self.store.expunged_since(self.id, self.modseq):
            return False
        self.uids = found + self.uids if self.uids else found
        self.first_loaded = 1 if len(self.uids) >= self.exists else first
        self.shared.loaded(self, len(found))
        return True

    def catch_up(self) -> None:
        """Wait until no expunge that reads see is still to come as event; may switch."""
        for _ in range(AHEAD_TIMES):
            if not self.store.expunged_since(self.id, self.modseq):
                return
            gevent.sleep(AHEAD)
        raise RuntimeError('events of the store are missing')

    def drop_spare(self) -> int:
        """Forget UIDs that can be read again; how many."""
        if self.loading:
            return 0
        # Views count arrivals without reading, so what they were not told stays.
        keep = min((view.uid_end for view in self.views), default=self.uid_next)
        position = min(bisect_left(self.uids, keep), max(0, len(self.uids) - WINDOW))
        if position <= 0:
            return 0
        self.first_loaded = self.uids[position]
        del self.uids[:position]
        return position

    # -- events

    def appended(self, event: Appended) -> bool:
        if event.modseq <= self.opened_at:
            return False
        self.modseq = event.modseq
        for view in self.views:
            view.appended(event.modseq)
        self.uids.extend(event.uids)
        self.exists += len(event.uids)
        self.uid_next = event.uids[-1] + 1
        self.shared.loaded(self, len(event.uids))
        return True

    def expunged(self, event: Expunged) -> bool:
        if event.modseq <= self.opened_at:
            return False
        self.modseq = event.modseq
        gone = sorted(event.uids)
        self.exists -= len(gone)
        self._remove(gone)
        for view in self.views:
            view.expunged(gone, event.modseq)
        return True

    def _remove(self, gone: Sequence[int]) -> None:
        uids = self.uids
        if len(gone) == 1:
            position = bisect_left(uids, gone[0])
            if position < len(uids) and uids[position] == gone[0]:
                del uids[position]
                self.shared.loaded(self, -1)
            return
        # PERF: one pass of block copies; 50,000 of 100,000 take about 20 ms, one by one 1 s.
        kept: array[int] = array('I')
        start = 0
        for uid in gone:
            position = bisect_left(uids, uid, start)
            if position < len(uids) and uids[position] == uid:
                kept.extend(uids[start:position])
                start = position + 1
        kept.extend(uids[start:])
        self.shared.loaded(self, len(kept) - len(uids))
        self.uids = kept

    def flags_changed(self, event: FlagsChanged) -> bool:
        changes = event.changes
        if not changes or changes[-1][3] <= self.opened_at:
            return False
        self.modseq = max(self.modseq, changes[-1][3])
        for _, _, keywords, _ in changes:
            if keywords:
                self.learn(keywords)
        for view in self.views:
            if view.contexts is not None:
                view.contexts.note(changes)
            if view.watcher is not event.origin:
                view.flags_changed(changes)
        return True

    # -- keywords

    def learn(self, keywords: Iterable[str]) -> None:
        """Keywords that messages of this mailbox carry."""
        for keyword in keywords:
            self.keywords.setdefault(keyword.lower(), keyword)

    def spell(self, keywords: Iterable[str]) -> tuple[str, ...] | None:
        """The keywords as this mailbox writes them; None when there would be too many."""
        known = self.keywords
        spelled = dict.fromkeys(known.get(k.lower(), k) for k in keywords)
        new = sum(1 for k in spelled if k.lower() not in known)
        if new and len(known) + new > MAX_KEYWORDS:
            return None
        return tuple(spelled)


class OpenMailboxes:
    """All selected mailboxes of a shard; `events` is to be called by the store's observer."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.subscribers = Subscribers(store)  # sessions with NOTIFY
        self._open: dict[int, OpenMailbox] = {}
        self._accounts: dict[int, list[OpenMailbox]] = {}
        self._floors: OrderedDict[int, int] = OrderedDict()
        # PERF: the UIDs of a mailbox of 100,000 take 20 to 40 ms to read; the next session
        # that asks for an old message finds them here, kept up by events like any others.
        self._parked: OrderedDict[int, OpenMailbox] = OrderedDict()
        self._loaded = 0  # UIDs in memory
        self._loaded_limit = SPARE_UIDS

    def __len__(self) -> int:
        return len(self._open)

    def select(self, row: Mailbox, watcher: Watcher, *, read_only: bool) -> View:
        """A view of the mailbox for one session; `row` was read just now."""
        box = self._open.get(row.id)
        if box is None:
            box = OpenMailbox(self, row, self._floors.get(row.id, 1))
            self._open[row.id] = box
            self._accounts.setdefault(row.account_id, []).append(box)
        else:
            self._parked.pop(row.id, None)
        view = View(box, watcher, read_only=read_only)
        box.views.append(view)
        return view

    def leave(self, view: View) -> None:
        """The session has closed its view; the last one closes the mailbox."""
        box = view.box
        if view not in box.views:
            return
        box.views.remove(view)
        self._remember(box.id, box.recent_floor)
        if not box.views and self._open.get(box.id) is box:
            if len(box.uids) >= PARKED_FROM and not box.gone:
                self._parked[box.id] = box
            else:
                self._close(box)

    def _close(self, box: OpenMailbox) -> None:
        del self._open[box.id]
        self._parked.pop(box.id, None)
        self._loaded -= len(box.uids)
        others = self._accounts[box.account_id]
        others.remove(box)
        if not others:
            del self._accounts[box.account_id]

    def spell(self, mailbox_id: int, keywords: tuple[str, ...]) -> tuple[str, ...] | None:
        """Keywords for a message of a mailbox that need not be open; None = too many."""
        box = self._open.get(mailbox_id)
        return keywords if box is None else box.spell(keywords)

    def recent(self, row: Mailbox) -> int:
        """Messages of a mailbox that no session has been told of (STATUS RECENT)."""
        box = self._open.get(row.id)
        floor = box.recent_floor if box is not None else self._floors.get(row.id, 1)
        if floor >= row.uid_next:
            return 0
        if floor == 1:
            return row.messages
        return len(self.store.uids(row.id, floor))

    def loaded(self, box: OpenMailbox, count: int) -> None:
        """`box` holds `count` UIDs more than before."""
        if self._open.get(box.id) is not box:
            return  # its last session left while it was read
        self._loaded += count
        if self._loaded > self._loaded_limit and count > 0:
            while self._loaded > SPARE_UIDS and self._parked:
                oldest = next(iter(self._parked.values()))
                if oldest is box:
                    break
                self._close(oldest)
            if self._loaded > SPARE_UIDS:
                for other in self._open.values():
                    if other is not box:
                        self._loaded -= other.drop_spare()
            # What cannot be dropped is not looked for again with every message.
            self._loaded_limit = max(SPARE_UIDS, self._loaded + SPARE_UIDS // 8)

    def events(self, events: Sequence[Event]) -> None:
        """Apply what a commit group did, then tell the sessions; never blocks."""
        touched: dict[int, OpenMailbox] = {}
        opened = self._open
        for event in events:
            if isinstance(event, AccountGone):
                for box in tuple(self._accounts.get(event.account_id, ())):
                    self._gone(box)
                continue
            if isinstance(event, SubscriptionChanged | MetadataChanged):
                continue
            box_or_none = opened.get(event.mailbox_id)
            if box_or_none is None:
                continue
            box = box_or_none
            if isinstance(event, Appended):
                changed = box.appended(event)
            elif isinstance(event, FlagsChanged):
                changed = box.flags_changed(event)
            elif isinstance(event, Expunged):
                changed = box.expunged(event)
            elif isinstance(event, MailboxNamed):
                box.name = event.new or box.name
                continue
            else:
                self._gone(box)
                continue
            if changed:
                touched[box.id] = box
        for box in touched.values():
            for view in tuple(box.views):
                view.watcher.stirred()
        if self.subscribers:
            self.subscribers.events(events)

    def _gone(self, box: OpenMailbox) -> None:
        box.gone = True
        for view in tuple(box.views):
            view.watcher.mailbox_gone()
        if box.id in self._parked:
            self._close(box)
        self._floors.pop(box.id, None)

    def _remember(self, mailbox_id: int, floor: int) -> None:
        self._floors[mailbox_id] = floor
        self._floors.move_to_end(mailbox_id)
        if len(self._floors) > FLOORS:
            self._floors.popitem(last=False)
