"""Delivery, quota and the outbox."""

from __future__ import annotations

import os
import time

import pytest

from madmail.store.interface import (
    Appended,
    Expunged,
    OutboxEntry,
    Outcome,
    OverQuota,
)
from madmail.store.spool import MemoryBody
from tests.store.conftest import QUOTA, Place, consistent, settle, together

DAY = 86_400
S, U, Q = Outcome.STORED, Outcome.UNKNOWN, Outcome.OVER_QUOTA


def test_one_body_for_many_recipients(place: Place):
    store = place.store
    boxes = [place.inbox(f'{n}@localhost') for n in range(30)]
    place.take_events()
    addresses = [f'{n}@localhost' for n in range(30)] + ['x@localhost']
    assert place.deliver(*addresses, data=b'hello') == [S] * 30 + [U]
    assert store._one('SELECT count(*) FROM bodies') == (1,)
    messages = [store.message(box, 1) for box in boxes]
    assert len({message.body_id for message in messages}) == 1
    assert abs(messages[0].internal_date - time.time()) < 60
    assert (messages[0].flags, messages[0].size) == (0, 5)
    assert store.mailbox_by_id(boxes[3]).unseen == 1
    assert place.take_events() == [Appended(box, (1,), 2) for box in boxes]
    consistent(store)


def test_an_address_named_twice_gets_one_copy(place: Place):
    inbox = place.inbox()
    assert place.deliver('a@localhost', 'u@localhost', 'a@localhost') == [S, U, S]
    assert place.store.mailbox_by_id(inbox).messages == 1


def test_nobody_known_stores_nothing(place: Place):
    assert place.deliver('x@localhost') == [U]
    assert place.deliver() == []
    assert place.store._one('SELECT count(*) FROM bodies') == (0,)


def test_repeated_delivery_id_changes_nothing(place: Place):
    inbox = place.inbox()
    body, key = MemoryBody(b'once'), os.urandom(16)
    addresses = ['a@localhost', 'u@localhost']
    ask = lambda body: place.store.deliver(body, addresses, delivery_id=key)  # noqa: E731
    assert ask(body) == [S, U]
    place.inbox('u@localhost')  # comes too late for this delivery
    assert ask(body) == [S, U]
    assert ask(None) == [S, U]
    place.reopen()
    assert ask(body) == [S, U]
    assert place.store.mailbox_by_id(inbox).messages == 1
    with pytest.raises(ValueError, match='other addresses'):
        place.store.deliver(body, ['a@localhost'], delivery_id=key)
    with pytest.raises(ValueError, match='body'):
        place.store.deliver(None, ['a@localhost'], delivery_id=os.urandom(16))
    consistent(place.store)


def test_a_full_mailbox_may_be_asked_again_under_the_same_id(place: Place):
    inbox = place.inbox()
    key = os.urandom(16)
    body = MemoryBody(b'x' * (QUOTA + 1))
    assert place.store.deliver(body, ['a@localhost'], delivery_id=key) == [Q]
    account = place.store.account('a@localhost')
    place.store.set_quota(account.id, 10 * QUOTA)
    for _ in range(2):
        assert place.store.deliver(body, ['a@localhost'], delivery_id=key) == [S]
    assert place.store.mailbox_by_id(inbox).messages == 1
    consistent(place.store)


def test_simultaneous_repetitions_store_once(place: Place):
    inbox = place.inbox()
    key = os.urandom(16)
    for body in (MemoryBody(b'x'), MemoryBody(b'x' * 200_000)):
        key = os.urandom(16)
        before = place.store.mailbox_by_id(inbox).messages
        results = together(
            *[lambda: place.store.deliver(body, ['a@localhost'], delivery_id=key)] * 4  # noqa: B023
        )
        assert results == [[S]] * 4
        assert place.store.mailbox_by_id(inbox).messages == before + 1
    settle(place.store)
    names = [p for p in (place.directory / 'blobs').glob('*/*')]
    assert len(names) == 1


def test_delivery_ids_are_forgotten_after_two_days(place: Place, monkeypatch):
    inbox = place.inbox()
    body, key = MemoryBody(b'x'), os.urandom(16)
    place.store.deliver(body, ['a@localhost'], delivery_id=key)
    now = time.time()
    monkeypatch.setattr('madmail.store.delivering.time.time', lambda: now + DAY - 1)
    place.store.deliver(body, ['a@localhost'], delivery_id=key)
    assert place.store.mailbox_by_id(inbox).messages == 1
    monkeypatch.setattr('madmail.store.delivering.time.time', lambda: now + 2 * DAY)
    place.store._purge_at = 0
    place.store.deliver(body, ['a@localhost'], delivery_id=os.urandom(16))
    settle(place.store)
    assert place.store._one('SELECT count(*) FROM delivered') == (1,)


def test_mail_goes_to_an_account_made_in_the_same_group(place: Place):
    store = place.store
    results = together(
        store.barrier,
        lambda: store.create_account('new@localhost', '', 0),
        lambda: place.deliver('new@localhost'),
    )
    assert results[2] == [S]


def test_many_recipients_are_one_transaction_that_lets_the_loop_breathe(place: Place, monkeypatch):
    store = place.store
    monkeypatch.setattr('madmail.store.commit.BUDGET', 0.0)
    together(*[lambda n=n: place.inbox(f'{n}@localhost') for n in range(40)])
    store.barrier()
    before = store.commits
    results = together(
        lambda: place.deliver(*[f'{n}@localhost' for n in range(40)]),
        lambda: place.store.account('7@localhost'),
    )
    assert results[0] == [S] * 40
    assert store.commits == before + 1
    consistent(store)


# -- quota


def old(count: int) -> int:
    return int(time.time()) - 2 * DAY + count


def test_above_three_quarters_the_oldest_go_until_seventy_percent(place: Place):
    store, inbox = place.store, place.inbox()
    account = store.account('a@localhost').id
    other = store.create_mailbox(account, 'Other').id
    for n in range(7):
        place.append(inbox, 1, size=QUOTA // 20, internal_date=old(2 * n))
        place.append(other, 1, size=QUOTA // 20, internal_date=old(2 * n + 1))
    place.append(inbox, 1, size=QUOTA // 20, internal_date=old(100))
    assert store.usage(account)[0] == QUOTA * 3 // 4
    place.take_events()
    assert place.deliver('a@localhost', data=b'x' * (QUOTA // 20)) == [S]
    assert store.usage(account)[0] == QUOTA * 7 // 10
    first, second, last = place.take_events()
    assert (first.mailbox_id, first.uids) == (inbox, [1])
    assert (second.mailbox_id, second.uids) == (other, [1])
    assert last == Appended(inbox, (9,), store.mailbox_by_id(inbox).highest_modseq)
    consistent(store)


def test_young_mail_is_never_trimmed_and_fills_the_box(place: Place):
    store, inbox = place.store, place.inbox()
    for _ in range(10):
        assert place.deliver('a@localhost', data=b'x' * (QUOTA // 10)) == [S]
    assert place.deliver('a@localhost', data=b'x') == [Q]
    assert store.mailbox_by_id(inbox).messages == 10
    with pytest.raises(OverQuota):
        place.append(inbox, 1)
    with pytest.raises(OverQuota):
        store.copy(inbox, [1], inbox)
    assert store.move(inbox, [1], inbox) == [(1, 11)]
    consistent(store)


def test_full_box_does_not_keep_others_from_their_mail(place: Place):
    place.inbox('full@localhost')
    place.store.set_quota(place.store.account('full@localhost').id, 3)
    place.inbox('b@localhost')
    assert place.deliver('full@localhost', 'b@localhost', data=b'12345') == [Q, S]


def test_message_larger_than_the_quota_trims_nothing(place: Place):
    inbox = place.inbox()
    place.append(inbox, 1, size=QUOTA - 10, internal_date=old(1))
    assert place.deliver('a@localhost', data=b'x' * (QUOTA + 1)) == [Q]
    assert place.store.mailbox_by_id(inbox).messages == 1
    settle(place.store)
    assert len(list((place.directory / 'blobs').glob('*/*'))) == 1


def test_own_quota_and_no_quota(place: Place):
    place.inbox()
    account = place.store.account('a@localhost').id
    place.store.set_quota(account, 10)
    assert place.deliver('a@localhost', data=b'x' * 11) == [Q]
    place.store.set_quota(account, 0)
    assert place.deliver('a@localhost', data=b'x' * QUOTA * 2) == [S]


def test_trimming_of_many_messages_goes_on_in_slices(place: Place):
    store, inbox = place.store, place.inbox()
    account = store.account('a@localhost').id
    store.set_quota(account, 0)
    place.append(inbox, 3000, size=1, internal_date=old(1))
    store.set_quota(account, 2000)
    assert place.deliver('a@localhost', data=b'x') == [S]  # makes room first
    for _ in range(6):
        store.barrier()
    assert store.usage(account)[0] <= 1400
    removed = sum(len(event.uids) for event in place.take_events() if isinstance(event, Expunged))
    assert removed == 3001 - store.usage(account)[1]
    consistent(store)


def test_large_body_survives_the_trimming_before_its_delivery(place: Place):
    store, inbox = place.store, place.inbox()
    account = store.account('a@localhost').id
    store.set_quota(account, 0)
    place.append(inbox, 2000, size=200, internal_date=old(1))
    store.set_quota(account, 450_000)
    data = b'x' * 300_000
    assert place.deliver('a@localhost', data=data) == [S]
    assert store.body(store.message(inbox, 2001).body_id).read() == data
    consistent(store)


def test_copy_may_trim_old_mail(place: Place):
    inbox = place.inbox()
    place.append(inbox, 10, size=QUOTA // 14, internal_date=old(1))
    pairs = place.store.copy(inbox, [9, 10], inbox)
    assert [pair[0] for pair in pairs] == [9, 10]
    assert place.store.mailbox_by_id(inbox).size <= QUOTA * 0.75
    consistent(place.store)


# -- outbox


def entry(domain: str, **how) -> OutboxEntry:
    return OutboxEntry(0, 'a@localhost', domain, ('x@' + domain, 'y@' + domain), 100, **how)


def test_outbox_entries_share_the_body_with_local_copies(place: Place):
    store, inbox = place.store, place.inbox()
    outcomes = store.deliver(
        MemoryBody(b'data'),
        ['a@localhost'],
        delivery_id=os.urandom(16),
        outbox=[entry('one.example'), entry('two.example', next_try=500)],
    )
    assert outcomes == [S]
    store = place.reopen()
    first, second = store.outbox_list()
    assert (first.domain, first.recipients) == ('one.example', ('x@one.example', 'y@one.example'))
    assert (first.sender, first.created, first.size, first.tries) == ('a@localhost', 100, 4, 0)
    assert store.body(first.body_id).read() == b'data'
    assert first.body_id == second.body_id == store.message(inbox, 1).body_id
    assert [e.domain for e in store.outbox_due(499)] == ['one.example']
    assert [e.domain for e in store.outbox_due(500, limit=1)] == ['one.example']
    store.outbox_retry(first.id, 600, 'refused')
    (due,) = store.outbox_due(599)
    assert due.id == second.id
    again = store.outbox_list()[0]
    assert (again.tries, again.next_try, again.last_error) == (1, 600, 'refused')
    store.outbox_remove(first.id)
    store.outbox_remove(first.id)
    consistent(store)
    store.outbox_remove(second.id)
    assert store.outbox_list() == []
    consistent(store)


def test_bounce_is_delivered_with_the_removal_and_only_once(place: Place):
    store, inbox = place.store, place.inbox()
    store.deliver(
        MemoryBody(b'data'), [], delivery_id=os.urandom(16), outbox=[entry('one.example')]
    )
    (waiting,) = store.outbox_list()
    before = store.commits
    store.outbox_remove(waiting.id, MemoryBody(b'bounce'), 'a@localhost')
    assert store.commits == before + 1
    store.outbox_remove(waiting.id, MemoryBody(b'bounce'), 'a@localhost')
    assert store.outbox_list() == []
    assert store.mailbox_by_id(inbox).messages == 1
    assert store.body(store.message(inbox, 1).body_id).read() == b'bounce'
    consistent(store)


def test_bounce_for_nobody_is_dropped(place: Place):
    store = place.store
    store.deliver(
        MemoryBody(b'data'), [], delivery_id=os.urandom(16), outbox=[entry('one.example')]
    )
    store.outbox_remove(store.outbox_list()[0].id, MemoryBody(b'b' * 200_000), 'gone@localhost')
    assert store.outbox_list() == []
    settle(store)
    assert list((place.directory / 'blobs').glob('*/*')) == []
    consistent(store)
