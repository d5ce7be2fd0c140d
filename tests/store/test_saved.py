"""When a message came into its mailbox, object salts, replacing; and the way there."""

from __future__ import annotations

import sqlite3
import time

import pytest

from madmail.store import schema
from madmail.store.interface import Appended, Expunged, Flag, MessageMissing, NewMessage, OverQuota
from madmail.store.spool import MemoryBody
from madmail.store.sqlite import open_store
from tests.store.conftest import QUOTA, Place, consistent


def test_a_database_without_save_dates_is_brought_up(tmp_path):
    directory = tmp_path / 'shard'
    directory.mkdir()
    connection = sqlite3.connect(directory / 'store.db', isolation_level=None)
    schema.migrate(connection, schema.SHARD[:1])
    assert schema.version(connection) == 1
    for statement in (
        "INSERT INTO accounts VALUES (1, 'a@localhost', '', 0, 0, -1)",
        'INSERT INTO mailboxes (id, account_id, name, uid_validity, uid_next, highest_modseq,'
        " messages, unseen, size) VALUES (1, 1, 'INBOX', 9, 3, 3, 2, 1, 8)",
        "INSERT INTO messages VALUES (1, 1, 1, 'word', 1000, 4, 2, 7)",
        "INSERT INTO messages VALUES (1, 2, 0, '', 2000, 4, 3, 8)",
        "INSERT INTO bodies VALUES (7, 4, NULL, x'61626364'), (8, 4, NULL, x'61626364')",
    ):
        connection.execute(statement)
    connection.close()
    store = open_store(directory, quota_default=QUOTA, trim_from=0.75, trim_to=0.7)
    try:
        assert schema.version(store._reader) == len(schema.SHARD)
        first, second = store.messages(1, 1, 10)
        assert (first.uid, first.keywords, first.internal_date, first.saved) == (
            1, ('word',), 1000, 1000,
        )  # fmt: skip
        assert (second.uid, second.saved) == (2, 2000)
        assert store.body(first.body_id).read() == b'abcd'
        ((_, copied),) = store.copy(1, [1], 1)
        assert abs(store.message(1, copied).saved - time.time()) < 10
        assert store.message(1, copied).internal_date == 1000
        consistent(store)
        salt = store.salt(1)
    finally:
        store.close()
    store = open_store(directory, quota_default=QUOTA, trim_from=0.75, trim_to=0.7)
    assert store.salt(1) == salt
    store.close()


def test_salts_differ_by_account_and_by_store(place: Place, tmp_path):
    other = open_store(tmp_path / 'other', quota_default=0, trim_from=1, trim_to=1)
    salts = {place.store.salt(1), place.store.salt(2), other.salt(1), other.salt(2)}
    other.close()
    assert len(salts) == 4
    assert all(len(salt) == 16 for salt in salts)


def test_a_message_is_saved_when_it_comes_into_the_mailbox(place: Place):
    inbox = place.inbox()
    store = place.store
    box = store.create_mailbox(store.account('a@localhost').id, 'box').id
    now = time.time()
    place.deliver('a@localhost')
    place.append(inbox, internal_date=1000)
    place.append(inbox)
    delivered, dated, plain = store.messages(inbox, 1, 10)
    assert delivered.saved == delivered.internal_date
    assert dated.internal_date == 1000
    assert abs(dated.saved - now) < 10
    assert plain.saved == plain.internal_date
    store.move(inbox, [2], box)
    (moved,) = store.messages(box, 1, 10)
    assert moved.internal_date == 1000
    assert abs(moved.saved - now) < 10
    assert moved.body_id == dated.body_id


def test_replacing_is_one_change(place: Place):
    inbox = place.inbox()
    store = place.store
    place.append(inbox, 3)
    place.take_events()
    session = object()
    new = [NewMessage(MemoryBody(b'new'))]
    assert store.append(inbox, new, session, replacing=(inbox, 2)) == [4]
    assert [m.uid for m in store.messages(inbox, 1, 10)] == [1, 3, 4]
    appended, expunged = place.take_events()
    assert isinstance(appended, Appended)
    assert isinstance(expunged, Expunged)
    assert list(expunged.uids) == [2]
    assert expunged.origin is session
    with pytest.raises(MessageMissing):
        store.append(inbox, new, session, replacing=(inbox, 2))
    assert [m.uid for m in store.messages(inbox, 1, 10)] == [1, 3, 4]
    box = store.create_mailbox(store.account('a@localhost').id, 'box').id
    assert store.append(box, new, session, replacing=(inbox, 1)) == [1]
    assert [m.uid for m in store.messages(inbox, 1, 10)] == [3, 4]
    consistent(store)


def test_replacing_needs_room_for_the_difference_only(place: Place):
    inbox = place.inbox()
    store = place.store
    store.set_quota(store.account('a@localhost').id, 1000)
    place.append(inbox, size=900)
    larger = [NewMessage(MemoryBody(b'x' * 950))]
    with pytest.raises(OverQuota):
        store.append(inbox, larger)
    assert store.append(inbox, larger, replacing=(inbox, 1)) == [2]
    with pytest.raises(OverQuota):
        store.append(inbox, [NewMessage(MemoryBody(b'x' * 1001))], replacing=(inbox, 2))
    assert [m.uid for m in store.messages(inbox, 1, 10)] == [2]
    consistent(store)


def test_deleted_counts_what_expunge_would_free(place: Place):
    inbox = place.inbox()
    place.append(inbox, 2, size=100)
    place.append(inbox, 3, size=10, flags=Flag.DELETED)
    assert place.store.deleted(inbox) == (3, 30)
    assert place.store.deleted(inbox + 1) == (0, 0)


def test_metadata_usage_is_that_of_all_mailboxes(place: Place):
    inbox = place.inbox()
    store = place.store
    account = store.account('a@localhost').id
    assert store.metadata_usage(account) == (0, 0)
    store.set_metadata(account, 0, {'/private/a': b'12345'})
    store.set_metadata(account, inbox, {'/private/a': b'123', '/private/b': b''})
    assert store.metadata_usage(account) == (3, 8)
