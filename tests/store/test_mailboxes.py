"""Mailboxes, subscriptions, metadata, and what holds for their numbers."""

from __future__ import annotations

import pytest

from madmail.store.interface import (
    FlagUpdate,
    MailboxExists,
    MailboxGone,
    MailboxMissing,
    MailboxNamed,
    MetadataChanged,
    SubscriptionChanged,
)
from tests.store.conftest import Place, consistent, settle


@pytest.fixture
def account(place: Place) -> int:
    place.inbox()
    return place.store.account('a@localhost').id


def test_created_mailbox_is_found_by_name_and_id(store, account):
    made = store.create_mailbox(account, 'Sent/2024', '\\Sent')
    assert made.special_use == '\\Sent'
    assert store.mailbox(account, 'Sent/2024') == made
    assert store.mailbox_by_id(made.id) == made
    assert [box.name for box in store.mailboxes(account)] == ['INBOX', 'Sent/2024']
    with pytest.raises(MailboxExists):
        store.create_mailbox(account, 'Sent/2024')
    with pytest.raises(MailboxMissing):
        store.create_mailbox(999, 'X')


def test_uid_validity_never_repeats(place: Place, account):
    store = place.store
    seen = {store.mailbox(account, 'INBOX').uid_validity}
    for n in range(4):
        box = store.create_mailbox(account, 'Again')
        assert box.uid_validity > max(seen)
        seen.add(box.uid_validity)
        store.delete_mailbox(box.id)
        if n == 1:
            store = place.reopen()


def test_uid_next_survives_empty_mailbox_and_restart(place: Place, account):
    store = place.store
    inbox = store.mailbox(account, 'INBOX')
    uids = place.append(inbox.id, 3, flags=8)
    assert uids == [1, 2, 3]
    assert store.expunge(inbox.id) == uids
    store = place.reopen()
    again = store.mailbox(account, 'INBOX')
    assert (again.uid_next, again.messages) == (4, 0)
    assert again.uid_validity == inbox.uid_validity
    assert place.append(inbox.id) == [4]


def test_deleted_mailbox_tells_and_forgets(place: Place, account):
    store = place.store
    box = store.create_mailbox(account, 'X')
    place.append(box.id, 3)
    store.set_metadata(account, box.id, {'/x': b'y'})
    place.take_events()
    store.delete_mailbox(box.id)
    assert place.take_events() == [MailboxNamed(account, box.id, 'X', ''), MailboxGone(box.id)]
    assert store.mailbox_by_id(box.id) is None
    assert len(store.uids(box.id)) == 0
    with pytest.raises(MailboxMissing):
        store.delete_mailbox(box.id)
    with pytest.raises(MailboxMissing):
        store.copy(store.mailbox(account, 'INBOX').id, [1], box.id)
    settle(store)
    consistent(store)
    assert store._one('SELECT count(*) FROM metadata') == (0,)


def test_inbox_cannot_be_deleted(store, account):
    with pytest.raises(ValueError, match='INBOX'):
        store.delete_mailbox(store.mailbox(account, 'INBOX').id)


def test_rename_takes_inferiors_along_and_nothing_else(store, account):
    ids = {name: store.create_mailbox(account, name).id for name in ('a', 'a/b', 'a/b/c', 'ab')}
    store.rename_mailbox(ids['a'], 'z/y')
    names = {box.id: box.name for box in store.mailboxes(account)}
    assert names[ids['a']] == 'z/y'
    assert names[ids['a/b']] == 'z/y/b'
    assert names[ids['a/b/c']] == 'z/y/b/c'
    assert names[ids['ab']] == 'ab'


def test_rename_below_itself(store, account):
    ids = {name: store.create_mailbox(account, name).id for name in ('a', 'a/c')}
    store.rename_mailbox(ids['a'], 'a/b')
    names = {box.id: box.name for box in store.mailboxes(account)}
    assert (names[ids['a']], names[ids['a/c']]) == ('a/b', 'a/b/c')


def test_rename_onto_something_changes_nothing(store, account):
    for name in ('a', 'a/x', 'b/x', 'c'):
        store.create_mailbox(account, name)
    before = store.mailboxes(account)
    with pytest.raises(MailboxExists):
        store.rename_mailbox(store.mailbox(account, 'a').id, 'c')
    with pytest.raises(MailboxExists):
        store.rename_mailbox(store.mailbox(account, 'a').id, 'b')
    with pytest.raises(MailboxMissing):
        store.rename_mailbox(999, 'q')
    assert store.mailboxes(account) == before


def test_rename_of_inbox_moves_its_messages(place: Place, account):
    store = place.store
    inbox = store.mailbox(account, 'INBOX').id
    place.append(inbox, 700, flags=1)
    store.rename_mailbox(inbox, 'Old')
    old = store.mailbox(account, 'Old')
    assert (old.messages, old.unseen) == (700, 0)
    again = store.mailbox(account, 'INBOX')
    assert (again.id, again.messages, again.uid_next) == (inbox, 0, 701)
    consistent(store)


def test_subscriptions_are_names_of_their_own(store, account):
    store.subscribe(account, 'Not/There')
    store.subscribe(account, 'Not/There')
    assert store.subscriptions(account) == ['INBOX', 'Not/There']
    store.unsubscribe(account, 'INBOX')
    store.unsubscribe(account, 'INBOX')
    assert store.subscriptions(account) == ['Not/There']
    store.subscribe(999, 'X')
    assert store.subscriptions(999) == []


def test_metadata_is_set_changed_and_removed(place: Place, account):
    store = place.store
    inbox = store.mailbox(account, 'INBOX').id
    store.set_metadata(account, 0, {'/private/a': b'\0\xff', '/shared/b': b''})
    store.set_metadata(account, inbox, {'/private/a': b'box'})
    store.set_metadata(account, 0, {'/private/a': b'2', '/shared/b': None, '/none': None})
    store = place.reopen()
    assert store.metadata(account, 0) == {'/private/a': b'2'}
    assert store.metadata(account, inbox) == {'/private/a': b'box'}
    with pytest.raises(MailboxMissing):
        store.set_metadata(account, 999, {'/x': b''})
    with pytest.raises(MailboxMissing):
        store.set_metadata(999, 0, {'/x': b''})


@pytest.mark.parametrize('unseen', [(), (1,), (4999,), (2500, 4000), (2, 5000), (3001, 3002)])
def test_first_unseen(place: Place, account, unseen):
    store = place.store
    inbox = store.mailbox(account, 'INBOX').id
    for _ in range(10):
        place.append(inbox, 500, flags=1, size=1)
    store.store_flags(inbox, unseen, FlagUpdate('remove', 1))
    assert store.first_unseen(inbox) == min(unseen, default=0)
    assert store.first_unseen(999) == 0


def test_names_subscriptions_and_metadata_are_events(place: Place, account):
    store = place.store
    place.take_events()
    one = store.create_mailbox(account, 'a')
    two = store.create_mailbox(account, 'a/b')
    store.rename_mailbox(one.id, 'c')
    assert sorted(place.take_events()) == sorted(
        [
            MailboxNamed(account, one.id, '', 'a'),
            MailboxNamed(account, two.id, '', 'a/b'),
            MailboxNamed(account, one.id, 'a', 'c'),
            MailboxNamed(account, two.id, 'a/b', 'c/b'),
        ]
    )
    for _ in range(2):  # what changes nothing is no event
        store.subscribe(account, 'c')
    for _ in range(2):
        store.unsubscribe(account, 'c')
    store.set_metadata(account, 0, {'/private/x': b'y', '/private/z': None})
    assert place.take_events() == [
        SubscriptionChanged(account, 'c', True),
        SubscriptionChanged(account, 'c', False),
        MetadataChanged(account, 0, ('/private/x', '/private/z')),
    ]
