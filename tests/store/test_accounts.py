"""Accounts: creation, change, disappearance."""

from __future__ import annotations

import pytest

from madmail.store.interface import AccountGone, MailboxGone, MailboxMissing
from tests.store.conftest import Place, consistent, settle, together


def test_new_account_has_a_subscribed_inbox_and_nothing_else(store):
    account = store.create_account('a@localhost', 'secret', 86400)
    assert store.account('a@localhost') == account
    assert store.account_by_id(account.id) == account
    assert (account.password, account.created_day, account.last_login_day) == ('secret', 86400, 0)
    assert account.quota == -1
    (inbox,) = store.mailboxes(account.id)
    assert (inbox.name, inbox.uid_next, inbox.messages) == ('INBOX', 1, 0)
    assert inbox.uid_validity > 0
    assert store.subscriptions(account.id) == ['INBOX']


def test_of_parallel_creations_exactly_one_wins(store):
    made = together(*[lambda: store.create_account('a@localhost', 'x', 0)] * 5)
    assert sum(account is not None for account in made) == 1
    assert store.account_count() == 1


def test_unknown_accounts_are_none(store):
    assert store.account('nobody@localhost') is None
    assert store.account_by_id(77) is None


def test_accounts_are_listed_in_pages(store):
    for name in 'dbac':
        store.create_account(name, '', 0)
    assert [account.address for account in store.accounts(limit=3)] == ['a', 'b', 'c']
    assert [account.address for account in store.accounts('b')] == ['c', 'd']


def test_changes_of_an_account_last(place: Place):
    store = place.store
    account = store.create_account('a@localhost', 'old', 0)
    store.set_password(account.id, 'new')
    store.set_quota(account.id, 5000)
    store.record_login(account.id, 86400)
    store = place.reopen()
    again = store.account('a@localhost')
    assert (again.password, again.quota, again.last_login_day) == ('new', 5000, 86400)
    assert store.account_count() == 1


def test_login_of_the_same_day_writes_nothing(store):
    account = store.create_account('a@localhost', '', 0)
    store.record_login(account.id, 86400)
    store.barrier()
    before = store.commits
    store.record_login(account.id, 86400)
    store.record_login(account.id, 0)
    assert store.commits == before
    assert store.account_by_id(account.id).last_login_day == 86400


def test_the_first_login_is_kept(store):
    account = store.create_account('a@localhost', '', 0)
    assert account.first_login_day == 0
    store.record_login(account.id, 86400)
    store.record_login(account.id, 3 * 86400)
    store.barrier()
    again = store.account('a@localhost')
    assert (again.first_login_day, again.last_login_day) == (86400, 3 * 86400)


def test_accounts_made_together_leave_alone_what_is_there(place: Place):
    store = place.store
    old = store.create_account('a@localhost', 'old', 0)
    made = store.create_accounts(
        [('a@localhost', 'x'), ('b@localhost', 'y'), ('b@localhost', 'z')], 86400
    )
    assert made == [False, True, False]
    store = place.reopen()
    assert store.account('a@localhost') == old
    assert store.account('b@localhost').password == 'y'
    assert store.account_count() == 2
    assert [box.name for box in store.mailboxes(store.account('b@localhost').id)] == ['INBOX']


def test_a_verifier_is_replaced_only_while_it_is_the_old_one(store):
    account = store.create_account('a@localhost', 'old', 0)
    assert not store.replace_password(account.id, 'other', 'new')
    assert store.replace_password(account.id, 'old', 'new')
    assert not store.replace_password(account.id, 'old', 'newer')
    assert store.account('a@localhost').password == 'new'
    assert not store.replace_password(77, 'old', 'new')


def test_an_account_that_was_used_is_not_deleted_as_unused(store):
    used, unused = store.create_account('a@localhost', '', 0), store.create_account('b@l', '', 0)
    store.record_login(used.id, 86400)
    assert not store.delete_account(used.id, unused_only=True)
    assert store.delete_account(unused.id, unused_only=True)
    assert store.account_count() == 1
    assert store.delete_account(used.id)


def test_changing_a_missing_account_is_an_error(store):
    with pytest.raises(KeyError):
        store.set_password(9, 'x')
    with pytest.raises(KeyError):
        store.set_quota(9, 1)
    store.record_login(9, 86400)
    store.delete_account(9)


def test_deleted_account_is_gone_at_once_with_everything(place: Place):
    store = place.store
    inbox = place.inbox()
    account = store.account('a@localhost')
    other = store.create_mailbox(account.id, 'Other')
    place.append(inbox, 3)
    place.append(other.id, 1200)
    store.set_metadata(account.id, inbox, {'/private/x': b'1'})
    place.take_events()
    store.delete_account(account.id)
    assert store.account('a@localhost') is None
    assert store.account_count() == 0
    assert store.mailboxes(account.id) == []
    assert store.mailbox_by_id(other.id) is None
    assert store.messages(other.id, 1, 5000) == []
    assert len(store.uids(other.id)) == 0
    assert store.message(inbox, 1) is None
    assert store.metadata(account.id, inbox) == {}
    assert store.subscriptions(account.id) == []
    events = place.take_events()
    assert set(events[:2]) == {MailboxGone(inbox), MailboxGone(other.id)}
    assert events[2:] == [AccountGone(account.id)]
    assert [o.value for o in place.deliver('a@localhost')] == ['unknown']
    with pytest.raises(MailboxMissing):
        place.append(inbox)
    settle(store)
    assert store._one('SELECT count(*) FROM messages') == (0,)
    consistent(store)


def test_removal_of_a_large_account_goes_on_after_a_restart(place: Place):
    store = place.store
    inbox = place.inbox()
    place.append(inbox, 1500)
    store.delete_account(store.account('a@localhost').id)
    store = place.reopen()
    settle(store)
    assert store._one('SELECT count(*) FROM messages') == (0,)
    consistent(store)


def test_address_made_again_is_a_new_account_with_new_uid_validity(place: Place):
    old = place.store.mailbox_by_id(place.inbox())
    place.store.delete_account(old.account_id)
    new = place.store.mailbox_by_id(place.inbox())
    assert new.account_id != old.account_id
    assert new.id != old.id
    assert new.uid_validity > old.uid_validity
    assert [o.value for o in place.deliver('a@localhost')] == ['stored']
    assert place.store.mailbox_by_id(new.id).messages == 1


def test_usage_counts_all_mailboxes(place: Place):
    inbox = place.inbox()
    account = place.store.account('a@localhost')
    place.append(place.store.create_mailbox(account.id, 'B').id, 2, size=100)
    place.append(inbox, 1, size=7)
    assert place.store.usage(account.id) == (207, 3)
    assert place.store.usage(999) == (0, 0)
