"""APPEND, reading, STORE, EXPUNGE, COPY, MOVE and the modseq log."""

from __future__ import annotations

from array import array

import pytest

from madmail.store.interface import (
    Appended,
    Expunged,
    FlagsChanged,
    FlagUpdate,
    MailboxMissing,
    NewMessage,
    OverQuota,
)
from madmail.store.spool import MemoryBody
from tests.store.conftest import Place, consistent


@pytest.fixture
def inbox(place: Place) -> int:
    return place.inbox()


@pytest.fixture
def other(place: Place, inbox) -> int:
    return place.store.create_mailbox(place.store.mailbox_by_id(inbox).account_id, 'Other').id


def test_appended_message_comes_back_as_it_was(place: Place, inbox):
    data = bytes(range(1, 256)) * 3
    place.take_events()
    new = NewMessage(MemoryBody(data), flags=5, keywords=('$x', 'y'), internal_date=1234567)
    assert place.store.append(inbox, [new]) == [1]
    message = place.store.message(inbox, 1)
    assert (message.flags, message.keywords, message.internal_date) == (5, ('$x', 'y'), 1234567)
    assert message.size == len(data)
    body = place.store.body(message.body_id)
    assert body.size == len(data)
    assert body.read() == data
    assert body.read(10, 20) == data[10:30]
    assert body.read(700) == data[700:]
    assert body.read(0, 0) == b''
    box = place.store.mailbox_by_id(inbox)
    assert (box.messages, box.unseen, box.size, box.uid_next) == (1, 0, len(data), 2)
    assert place.take_events() == [Appended(inbox, [1], message.modseq)]
    assert box.highest_modseq == message.modseq


def test_append_of_several_is_one_change(place: Place, inbox):
    place.take_events()
    assert place.append(inbox, 3) == [1, 2, 3]
    (event,) = place.take_events()
    assert event.uids == [1, 2, 3]
    assert {m.modseq for m in place.store.messages(inbox, 1, 9)} == {event.modseq}
    assert place.store.append(inbox, []) == []


def test_append_to_a_missing_mailbox(place: Place):
    with pytest.raises(MailboxMissing):
        place.append(4711)
    assert place.store._one('SELECT count(*) FROM bodies') == (0,)


def test_uids_and_rows_by_range(place: Place, inbox):
    store = place.store
    place.append(inbox, 10)
    assert store.uids(inbox) == array('I', range(1, 11))
    assert store.uids(inbox, 3, 5) == array('I', [3, 4, 5])
    store.store_flags(inbox, [4, 9], FlagUpdate('add', 8))
    store.expunge(inbox)
    assert list(store.uids(inbox)) == [1, 2, 3, 5, 6, 7, 8, 10]
    assert list(store.uids(inbox, 4, 9)) == [5, 6, 7, 8]
    assert list(store.uids(inbox, 11)) == []
    assert store.uids(999) == array('I')
    assert [m.uid for m in store.messages(inbox, 2, 8, limit=3)] == [2, 3, 5]
    assert store.message(inbox, 4) is None
    assert store.body(4711) is None


def test_uids_of_a_large_mailbox_with_gaps(place: Place, inbox, monkeypatch):
    monkeypatch.setattr('madmail.store.messages.UID_SLICE', 100)
    place.append(inbox, 450, size=1)
    place.store.store_flags(inbox, [200], FlagUpdate('add', 8))
    place.store.expunge(inbox)
    wanted = [uid for uid in range(1, 451) if uid != 200]
    assert list(place.store.uids(inbox)) == wanted
    assert list(place.store.uids(inbox, 100, 300)) == wanted[99:299]


@pytest.mark.parametrize(
    ('update', 'flags', 'keywords'),
    [
        (FlagUpdate('add', 1, ('b', 'c')), 1 | 2, ('a', 'b', 'c')),
        (FlagUpdate('remove', 2, ('a',)), 0, ('b',)),
        (FlagUpdate('replace', 4, ('z', 'z')), 4, ('z',)),
        (FlagUpdate('replace'), 0, ()),
    ],
)
def test_store_adds_removes_replaces(place: Place, inbox, update, flags, keywords):
    place.append(inbox, 1, flags=2, keywords=('a', 'b'))
    place.take_events()
    origin = object()
    before = place.store.mailbox_by_id(inbox).highest_modseq
    (row,) = place.store.store_flags(inbox, [1, 77], update, origin)
    assert row == (1, flags, keywords, before + 1)
    message = place.store.message(inbox, 1)
    assert (message.flags, message.keywords, message.modseq) == row[1:]
    (event,) = place.take_events()
    assert event == FlagsChanged(inbox, [row], origin)
    assert event.origin is origin
    consistent(place.store)


def test_store_that_changes_nothing_takes_no_modseq(place: Place, inbox):
    place.append(inbox, 2, flags=1)
    before = place.store.mailbox_by_id(inbox)
    place.take_events()
    rows = place.store.store_flags(inbox, [1, 2], FlagUpdate('add', 1))
    assert [row[:2] for row in rows] == [(1, 1), (2, 1)]
    assert place.store.mailbox_by_id(inbox) == before
    assert place.take_events() == []


def test_store_unchanged_since_leaves_newer_rows_alone(place: Place, inbox):
    store = place.store
    place.append(inbox, 3)
    known = store.mailbox_by_id(inbox).highest_modseq
    store.store_flags(inbox, [2], FlagUpdate('add', 4))
    update = FlagUpdate('add', 1, unchanged_since=known)
    rows = store.store_flags(inbox, [1, 2, 3], update)
    assert [row[0] for row in rows] == [1, 3]
    assert update.modified == [2]
    assert [m.flags for m in store.messages(inbox, 1, 9)] == [1, 4, 1]


def test_store_with_an_unknown_mode_or_mailbox(store, inbox):
    with pytest.raises(ValueError, match='mode'):
        store.store_flags(inbox, [1], FlagUpdate('toggle', 1))
    with pytest.raises(MailboxMissing):
        store.store_flags(999, [1], FlagUpdate('add', 1))


def test_huge_store_and_expunge_work_in_slices(place: Place, inbox):
    store = place.store
    place.append(inbox, 1300, size=1)
    rows = store.store_flags(inbox, range(1, 1301), FlagUpdate('add', 8))
    assert [row[0] for row in rows] == list(range(1, 1301))
    assert store.expunge(inbox, range(1, 1201)) == list(range(1, 1201))
    assert list(store.uids(inbox)) == list(range(1201, 1301))
    consistent(store)


def test_expunge_takes_only_what_is_marked(place: Place, inbox):
    store = place.store
    place.append(inbox, 5)
    store.store_flags(inbox, [1, 3, 5], FlagUpdate('add', 8))
    place.take_events()
    origin = object()
    assert store.expunge(inbox, [2, 3, 4, 99], origin) == [3]
    modseq = store.mailbox_by_id(inbox).highest_modseq
    assert place.take_events() == [Expunged(inbox, [3], modseq, origin)]
    assert store.expunge(inbox) == [1, 5]
    assert store.expunge(inbox) == []
    assert list(store.uids(inbox)) == [2, 4]
    with pytest.raises(MailboxMissing):
        store.expunge(999)
    consistent(store)


def test_copies_share_the_body(place: Place, inbox, other):
    store = place.store
    place.append(inbox, 3, flags=2, keywords=('k',), internal_date=777)
    place.append(other, 1)
    assert store.copy(inbox, [1, 3, 50], other) == [(1, 2), (3, 3)]
    source, copied = store.message(inbox, 3), store.message(other, 3)
    blank = {'uid': 0, 'modseq': 0, 'saved': 0}
    assert copied._replace(**blank) == source._replace(**blank)
    consistent(store)
    store.store_flags(inbox, [3], FlagUpdate('add', 8))
    store.expunge(inbox)
    assert store.body(copied.body_id).read() == b'x' * 10
    store.store_flags(other, [3], FlagUpdate('add', 8))
    store.expunge(other)
    assert store.body(copied.body_id) is None
    consistent(store)


def test_copy_into_the_same_mailbox(place: Place, inbox):
    place.append(inbox, 2)
    assert place.store.copy(inbox, [1, 2], inbox) == [(1, 3), (2, 4)]
    assert place.store.copy(inbox, [1, 2, 3], inbox) == [(1, 5), (2, 6), (3, 7)]
    consistent(place.store)


def test_copy_of_nothing_changes_nothing(place: Place, inbox, other):
    before = place.store.mailbox_by_id(other)
    assert place.store.copy(inbox, [5, 6], other) == []
    assert place.store.mailbox_by_id(other) == before
    for source, target in ((inbox, 999), (999, inbox)):
        with pytest.raises(MailboxMissing):
            place.store.copy(source, [1], target)
        with pytest.raises(MailboxMissing):
            place.store.move(source, [1], target)


def test_copy_that_fails_in_the_middle_leaves_nothing(place: Place, inbox, other):
    store = place.store
    store.set_quota(store.mailbox_by_id(inbox).account_id, 1_500)
    place.append(inbox, 900, size=1)
    before = store.mailbox_by_id(other)
    with pytest.raises(OverQuota):
        store.copy(inbox, range(1, 901), other)
    after = store.mailbox_by_id(other)
    assert after.messages == before.messages == 0
    assert store.mailbox_by_id(inbox).messages == 900
    consistent(store)


def test_move_takes_messages_along_with_one_event_each_side(place: Place, inbox, other):
    store = place.store
    place.append(inbox, 3, flags=1)
    body = store.message(inbox, 2).body_id
    place.take_events()
    origin = object()
    assert store.move(inbox, [2, 3, 9], other, origin) == [(2, 1), (3, 2)]
    assert list(store.uids(inbox)) == [1]
    assert store.message(other, 1).body_id == body
    appended, expunged = place.take_events()
    assert appended == Appended(other, [1, 2], store.mailbox_by_id(other).highest_modseq)
    assert expunged == Expunged(inbox, [2, 3], store.mailbox_by_id(inbox).highest_modseq, origin)
    consistent(store)


def test_move_within_a_mailbox_gives_new_uids(place: Place, inbox):
    place.append(inbox, 3)
    assert place.store.move(inbox, [1, 2], inbox) == [(1, 4), (2, 5)]
    assert list(place.store.uids(inbox)) == [3, 4, 5]
    consistent(place.store)


def test_changed_since_gives_arrivals_and_changes_in_order(place: Place, inbox, other):
    store = place.store
    place.append(inbox, 5)
    marks = [store.mailbox_by_id(inbox).highest_modseq]
    store.store_flags(inbox, [4, 2], FlagUpdate('add', 1))
    marks.append(store.mailbox_by_id(inbox).highest_modseq)
    place.append(inbox, 2)
    store.store_flags(inbox, [1], FlagUpdate('add', 1))
    store.store_flags(inbox, [1], FlagUpdate('remove', 1))
    assert [m.uid for m in store.changed_since(inbox, 0)] == [3, 5, 2, 4, 6, 7, 1]
    assert [m.uid for m in store.changed_since(inbox, marks[0])] == [2, 4, 6, 7, 1]
    assert [m.uid for m in store.changed_since(inbox, marks[1])] == [6, 7, 1]
    highest = store.mailbox_by_id(inbox).highest_modseq
    assert store.changed_since(inbox, highest) == []
    assert store.changed_since(inbox, highest + 10) == []
    assert store.changed_since(999, 0) == []
    store.copy(inbox, [1, 3], other)  # what was changed here is new there
    assert [m.uid for m in store.changed_since(other, 0)] == [1, 2]


def test_changed_since_can_be_paged_without_tearing_a_change_apart(place: Place, inbox):
    place.append(inbox, 5)
    place.append(inbox, 1)
    place.store.store_flags(inbox, [1, 2], FlagUpdate('add', 1))
    pages, modseq = [], 0
    while page := place.store.changed_since(inbox, modseq, limit=2):
        pages.append([message.uid for message in page])
        modseq = page[-1].modseq
    assert pages == [[3, 4, 5], [6, 1, 2]]


def test_expunged_since(place: Place, inbox):
    store = place.store
    place.append(inbox, 9, flags=8)
    start = store.mailbox_by_id(inbox).highest_modseq
    store.expunge(inbox, [2, 3, 4, 8])
    middle = store.mailbox_by_id(inbox).highest_modseq
    store.expunge(inbox, [1, 5])
    assert store.expunged_since(inbox, start) == [1, 2, 3, 4, 5, 8]
    assert store.expunged_since(inbox, middle) == [1, 5]
    assert store.expunged_since(inbox, middle + 1) == []
    assert store.expunged_since(999, 0) == []


def test_expunge_log_is_bounded_and_forgetting_is_made_good(place: Place, inbox, monkeypatch):
    monkeypatch.setattr('madmail.store.database.LOG_LIMIT', 10)
    monkeypatch.setattr('madmail.store.database.randrange', lambda stop: 0)
    store = place.store
    place.append(inbox, 60, flags=8)
    start = store.mailbox_by_id(inbox).highest_modseq
    for uid in range(1, 51):
        store.expunge(inbox, [uid])
    assert store._one('SELECT count(*) FROM expunged')[0] <= 11
    assert store.expunged_since(inbox, start) == list(range(1, 51))
    last = store.mailbox_by_id(inbox).highest_modseq - 3
    assert store.expunged_since(inbox, last) == [48, 49, 50]


def test_expiry_takes_the_oldest_everywhere_in_slices(place: Place, inbox, other, monkeypatch):
    store = place.store
    for n in range(4):
        place.append(inbox, 200, internal_date=1000 + n, size=1)
        place.append(other, 200, internal_date=1000 + n, size=1)
    place.take_events()
    assert store.expire(1002, limit=700) == 700
    assert store.expire(1002, limit=700) == 100
    assert store.expire(1002) == 0
    assert store.mailbox_by_id(inbox).messages == store.mailbox_by_id(other).messages == 400
    gone = {box: set() for box in (inbox, other)}
    for event in place.take_events():
        assert isinstance(event, Expunged)
        gone[event.mailbox_id].update(event.uids)
    assert gone[inbox] == gone[other] == set(range(1, 401))
    consistent(store)


def test_expiry_of_large_messages_leaves_small_ones(place: Place, inbox):
    place.append(inbox, 2, internal_date=1000)
    place.append(inbox, 1, internal_date=1000, size=200_000)
    assert place.store.expire(2000, larger_than=150_000) == 1
    assert list(place.store.uids(inbox)) == [1, 2]
    with pytest.raises(ValueError, match='index'):
        place.store.expire(2000, larger_than=10)
