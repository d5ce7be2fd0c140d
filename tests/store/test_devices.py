"""Push tokens: a bounded set that ages, and what is due of it after a delivery."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from madmail.store import schema
from madmail.store.database import SLICE
from madmail.store.interface import DueToken, MailboxMissing, OutboxEntry, Settled
from madmail.store.spool import MemoryBody
from tests.store.conftest import STORES, Place, consistent

DAY = 86_400
ANN, BOB = 'a@localhost', 'b@localhost'


class Clock:
    """time.time of the store's rooms."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000.0
        monkeypatch.setattr(time, 'time', lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def account(place: Place, address: str = ANN) -> int:
    place.inbox(address)
    found: int = place.store.account(address).id
    return found


def due(place: Place, now: float = 1e10, skip: tuple[int, ...] = ()) -> list[DueToken]:
    found: list[DueToken] = place.store.push_due(int(now), 100, skip)
    return found


def test_tokens_are_a_set_in_order_of_the_day_of_their_renewal(place: Place, clock: Clock) -> None:
    ann = account(place)
    for token in ('one', 'two', 'one', 'three'):
        place.store.add_device_token(ann, token, 20)
    assert place.store.device_tokens(ann) == ['one', 'two', 'three']
    commits = place.store.commits
    place.store.add_device_token(ann, 'one', 20)
    assert place.store.commits == commits  # the same day: nothing to write
    clock.now += DAY
    place.store.add_device_token(ann, 'one', 20)
    assert place.store.device_tokens(ann) == ['two', 'three', 'one']
    place.store.add_device_token(ann, 'four', 3)
    assert place.store.device_tokens(ann) == ['three', 'one', 'four']
    place.reopen()
    assert place.store.device_tokens(ann) == ['three', 'one', 'four']


def test_days_and_no_times_are_kept(place: Place) -> None:
    place.store.add_device_token(account(place), 'one', 20)
    ((renewed,),) = place.store._read('SELECT renewed FROM push_tokens').fetchall()
    assert renewed % DAY == 0


def test_a_token_is_good_for_ninety_days(place: Place, clock: Clock) -> None:
    ann = account(place)
    place.store.add_device_token(ann, 'old', 20)
    clock.now += 89 * DAY
    place.store.add_device_token(ann, 'new', 20)
    place.deliver(ANN)
    assert [one.token for one in due(place)] == ['old', 'new']
    place.store.push_settle([Settled(one.id, one.news) for one in due(place)])
    clock.now += DAY
    assert place.store.device_tokens(ann) == ['new']
    place.deliver(ANN)
    assert [one.token for one in due(place)] == ['new']
    assert place.store.forget_old_tokens() == 1
    assert place.store.forget_old_tokens() == 0
    assert place.store._one('SELECT count(*) FROM push_tokens') == (1,)


def test_a_renewal_brings_an_old_token_back(place: Place, clock: Clock) -> None:
    ann = account(place)
    place.store.add_device_token(ann, 'one', 20)
    clock.now += 100 * DAY
    place.deliver(ANN)
    assert due(place) == []
    place.store.add_device_token(ann, 'one', 20)
    place.deliver(ANN)
    assert [one.token for one in due(place)] == ['one']


def test_a_delivery_makes_the_tokens_of_its_recipients_due(place: Place, clock: Clock) -> None:
    ann, bob = account(place), account(place, BOB)
    told: list[bool] = []
    place.store.announce_due = lambda: told.append(True)
    place.deliver(ANN, BOB)
    assert due(place) == []
    assert not told
    place.store.add_device_token(ann, 'phone', 20)
    place.store.add_device_token(ann, 'tablet', 20)
    place.store.add_device_token(bob, 'other', 20)
    place.deliver(ANN)
    found = due(place)
    assert [(one.token, one.since, one.tries) for one in found] == [
        ('phone', int(clock.now), 0),
        ('tablet', int(clock.now), 0),
    ]
    assert told == [True]
    assert place.store.push_waiting() == 2
    place.deliver(ANN, BOB)
    assert [one.token for one in due(place)] == ['phone', 'tablet', 'other']
    assert [one.token for one in due(place, skip=(found[0].id,))] == ['tablet', 'other']


def test_the_devices_of_who_sent_it_are_not_told(place: Place) -> None:
    for address in (ANN, BOB):
        place.store.add_device_token(account(place, address), f'of {address}', 20)
    place.store.deliver(MemoryBody(b'x'), [ANN, BOB], delivery_id=os.urandom(16), quiet=ANN)
    assert [one.token for one in due(place)] == [f'of {BOB}']


def test_a_repeated_delivery_tells_nobody_again(place: Place) -> None:
    place.store.add_device_token(account(place), 'phone', 20)
    mark = os.urandom(16)
    place.store.deliver(MemoryBody(b'x'), [ANN], delivery_id=mark)
    (one,) = due(place)
    place.store.push_settle([Settled(one.id, one.news)])
    place.store.deliver(MemoryBody(b'x'), [ANN], delivery_id=mark)
    assert due(place) == []


def test_neither_appending_nor_copying_nor_a_refusal_tells_anybody(place: Place) -> None:
    ann = account(place)
    place.store.add_device_token(ann, 'phone', 20)
    inbox = place.inbox(ANN)
    uids = place.append(inbox)
    box = place.store.create_mailbox(ann, 'box').id
    place.store.copy(inbox, uids, box)
    place.store.move(box, place.store.uids(box), inbox)
    place.store.set_quota(ann, 20)
    place.deliver(ANN, data=b'x' * 1000)
    assert due(place) == []


def test_bounces_are_mail_as_well(place: Place) -> None:
    place.store.add_device_token(account(place), 'phone', 20)
    entry = OutboxEntry(0, ANN, 'else.example', ('c@else.example',), 1)
    place.store.deliver(MemoryBody(b'x'), [], delivery_id=os.urandom(16), outbox=[entry])
    (waiting,) = place.store.outbox_list()
    place.store.outbox_remove(waiting.id, MemoryBody(b'report'), ANN)
    assert [one.token for one in due(place)] == ['phone']


def test_while_notifications_are_off_nothing_is_written(place: Place) -> None:
    place.store.add_device_token(account(place), 'phone', 20)
    place.store.notifying = False
    place.deliver(ANN)
    assert due(place) == []
    place.store.notifying = True
    place.deliver(ANN)
    assert len(due(place)) == 1


def test_messages_that_come_together_are_one_row(place: Place, clock: Clock) -> None:
    place.store.add_device_token(account(place), 'phone', 20)
    for _ in range(3):
        place.deliver(ANN)
        clock.now += 1
    (one,) = due(place)
    assert one.since == int(clock.now) - 3
    assert place.store.push_settle([Settled(one.id, one.news)]) == 0
    assert due(place) == []
    assert place.store.push_waiting() == 0


def test_what_came_meanwhile_is_due_again(place: Place, clock: Clock) -> None:
    place.store.add_device_token(account(place), 'phone', 20)
    place.deliver(ANN)
    (one,) = due(place)
    clock.now += 5
    place.deliver(ANN)
    clock.now += 5
    assert place.store.push_settle([Settled(one.id, one.news)]) == 1
    (again,) = due(place, clock.now)
    assert (again.id, again.since, again.tries) == (one.id, int(clock.now) - 5, 0)
    assert place.store.push_settle([Settled(again.id, again.news)]) == 0
    assert due(place) == []


def test_an_outcome_that_is_written_twice_meets_no_later_message(place: Place) -> None:
    place.store.add_device_token(account(place), 'phone', 20)
    place.deliver(ANN)
    (one,) = due(place)
    place.store.push_settle([Settled(one.id, one.news)])
    place.deliver(ANN)
    assert place.store.push_settle([Settled(one.id, one.news)]) == 1
    assert len(due(place)) == 1


def test_a_failure_is_put_off_and_survives(place: Place, clock: Clock) -> None:
    place.store.add_device_token(account(place), 'phone', 20)
    place.deliver(ANN)
    (one,) = due(place)
    later = int(clock.now) + 8
    for _ in range(2):
        place.store.push_settle([Settled(one.id, one.news, 1, later)])
    place.reopen()
    assert due(place, later - 1) == []
    assert place.store.push_next(int(clock.now)) == later
    place.deliver(ANN)  # waits with it
    (again,) = due(place, later)
    assert (again.tries, again.since) == (1, one.since)
    assert place.store.push_next(later) == 0


def test_a_clock_that_was_wrong_keeps_nobody_waiting(place: Place, clock: Clock) -> None:
    place.store.add_device_token(account(place), 'phone', 20)
    clock.now += DAY
    place.deliver(ANN)
    (one,) = due(place)
    place.store.push_settle([Settled(one.id, one.news, 1, int(clock.now) + 8)])
    clock.now -= DAY
    place.deliver(ANN)
    assert place.store.push_next(int(clock.now)) <= clock.now + 5000


def test_a_dead_token_goes_with_what_is_due_for_it(place: Place) -> None:
    ann = account(place)
    for token in ('dead', 'alive'):
        place.store.add_device_token(ann, token, 20)
    place.deliver(ANN)
    dead, alive = due(place)
    place.deliver(ANN)  # also if more has come
    place.store.push_settle([Settled(dead.id, dead.news, gone=True)])
    assert place.store.device_tokens(ann) == ['alive']
    assert [one.id for one in due(place)] == [alive.id]
    # A number is never given again, so what is said late hits nobody.
    place.store.push_settle([Settled(alive.id, alive.news, gone=True)])
    place.store.add_device_token(ann, 'new', 20)
    place.store.push_settle([Settled(alive.id, alive.news, gone=True)])
    assert place.store.device_tokens(ann) == ['new']


def test_a_deleted_account_leaves_no_token(place: Place) -> None:
    ann, bob = account(place), account(place, BOB)
    for one in (ann, bob):
        place.store.add_device_token(one, f'phone {one}', 20)
    place.deliver(ANN, BOB)
    place.store.delete_account(ann)
    assert [one.token for one in due(place)] == [f'phone {bob}']
    assert place.store._one('SELECT count(*) FROM push_tokens') == (1,)
    with pytest.raises(MailboxMissing):
        place.store.add_device_token(ann, 'late', 20)
    consistent(place.store)


def test_many_old_tokens_go_in_slices(place: Place, clock: Clock) -> None:
    ann = account(place)
    for number in range(300):
        place.store.add_device_token(ann, f'token {number}', SLICE)
    clock.now += 91 * DAY
    counts = []
    while count := place.store.forget_old_tokens():
        counts.append(count)
    assert counts == [200, 100]


def test_tokens_of_older_versions_are_taken_over(tmp_path: Path) -> None:
    """They were an annotation of the account, a line a token."""
    directory = tmp_path / 'shard'
    directory.mkdir()
    place = next(
        number
        for number, migration in enumerate(schema.SHARD)
        if any('push_tokens' in statement for statement in migration)
    )
    connection = sqlite3.connect(directory / 'store.db', isolation_level=None)
    schema.migrate(connection, schema.SHARD[:place])
    today = int(time.time()) // DAY * DAY
    for account_id, value in (
        (1, f'{today - DAY} openpgp:a+b/c=\n{today} two'),
        (2, f'{today - 100 * DAY} old'),
    ):
        connection.execute(
            'INSERT INTO metadata VALUES (?, 0, ?, ?)',
            (account_id, '/private/devicetoken', value.encode()),
        )
    connection.execute("INSERT INTO metadata VALUES (1, 0, '/private/comment', ?)", (b'own',))
    connection.close()
    found: Any = Place(directory, STORES['sqlite'])
    try:
        assert found.store.device_tokens(1) == ['openpgp:a+b/c=', 'two']
        assert found.store.device_tokens(2) == []
        assert found.store.metadata(1, 0) == {'/private/comment': b'own'}
        assert found.store._one('SELECT count(*) FROM push_tokens') == (3,)
    finally:
        found.store.close()
