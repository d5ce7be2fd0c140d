"""What the caretaker of a shard removes, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from madmail.settings import Settings
from madmail.store.interface import Flag, OutboxEntry
from madmail.store.spool import MemoryBody
from madmail.store.sqlite import open_store
from madmail.upkeep.caretaker import Caretaker, ClockTrouble
from madmail.upkeep.job import WAITING, Busy, Job
from madmail.upkeep.removal import EPOCH
from madmail.upkeep.task import find
from tests.store.conftest import Place, consistent

DAY = 86_400


class House:
    """A shard's store with its caretaker, on a clock that the test sets."""

    def __init__(self, directory: Path) -> None:
        self.place = Place(directory, open_store)
        self.settings = Settings.defaults()
        self.connected: set[int] = set()
        self.forgotten: list[str] = []
        self.now = 1_790_000_000
        self.open()
        self.store.limit(quota_default=0, trim_from=0.75, trim_to=0.7)
        self.caretaker.clock.trust()

    @property
    def store(self) -> Any:
        return self.place.store

    def open(self) -> None:
        self.caretaker = Caretaker(
            self.store,
            self.settings,
            0,
            connected=lambda account_id: int(account_id in self.connected),
            forget=self.forgotten.append,
            now=lambda: float(self.now),
        )

    def day(self, ago: int = 0) -> int:
        return (self.now // DAY - ago) * DAY

    def account(self, name: str, *, made: int = 0, used: int | None = None) -> int:
        """An account made and last used so many days ago; its id."""
        account = self.store.create_account(f'{name}@localhost', '', self.day(made))
        if used is not None:
            self.store.record_login(account.id, self.day(used))
            self.store.barrier()
        return account.id

    def run(self, name: str, **how: Any) -> Job:
        task = find(name)
        assert task is not None
        job = self.caretaker.run(task, **how)
        assert job.ended.wait(20)
        assert job.state == 'done'
        return job

    def names(self) -> list[str]:
        return [account.address.partition('@')[0] for account in self.store.accounts()]

    def set_saved(self, box: int, uid: int, saved: int) -> None:
        self.store._submit(
            lambda tx: tx.execute(
                'UPDATE messages SET saved = ? WHERE mailbox_id = ? AND uid = ?', (saved, box, uid)
            )
        )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / 'shard')
    yield made
    made.caretaker.stop()
    made.store.close()


def test_old_messages_go_and_large_ones_earlier(house: House) -> None:
    box = house.place.inbox()
    for age in (30, 19, 8, 6):
        house.place.append(box, internal_date=house.now - age * DAY)
        house.place.append(box, internal_date=house.now - age * DAY, size=250_000)
    assert house.run('prune-old-messages', dry_run=True).done == 4
    assert list(house.store.uids(box)) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert house.run('retention').done == 4
    assert list(house.store.uids(box)) == [3, 5, 7, 8]
    house.settings.replace('retention.messages', 0)
    house.settings.replace('retention.large', 0)
    house.run('retention')
    assert list(house.store.uids(box)) == [3, 5, 7, 8]
    consistent(house.store)


def test_read_messages_wait_for_the_other_device(house: House) -> None:
    box = house.place.inbox()
    house.place.append(box, internal_date=house.now - 5 * DAY, flags=Flag.SEEN)
    house.place.append(box, internal_date=house.now - 5 * DAY)
    house.place.append(box, internal_date=house.now - 5 * DAY, flags=Flag.SEEN)
    house.set_saved(box, 1, house.now - 5 * DAY)
    house.set_saved(box, 2, house.now - 5 * DAY)
    house.set_saved(box, 3, house.now - 1800)
    assert house.run('purge-seen').done == 0  # off
    house.settings.replace('retention.read', 3600)
    assert house.run('purge-seen').done == 1
    assert list(house.store.uids(box)) == [2, 3]
    house.now += 3600
    assert house.run('purge-seen').done == 1
    assert list(house.store.uids(box)) == [2]
    assert house.run('prune-unread-older', age=3600).done == 1
    consistent(house.store)


def test_dormant_accounts_go_with_everything_they_own(house: House) -> None:
    house.account('fresh')
    house.account('used', made=400, used=89)
    house.account('dormant', made=400, used=92)
    house.account('never', made=92)
    connected = house.account('connected', made=400, used=92)
    house.connected.add(connected)
    box = house.place.inbox('dormant@localhost')
    house.place.append(box, 3, size=200_000)
    assert house.run('prune-dormant-accounts', dry_run=True).done == 2
    assert house.run('dormant-accounts').done == 2
    assert house.names() == ['connected', 'fresh', 'used']
    assert sorted(house.forgotten) == ['dormant@localhost', 'never@localhost']
    # Who is connected has, as it were, logged in today.
    assert house.store.account_by_id(connected).last_login_day == house.day()
    for _ in range(20):
        house.store.barrier()
    house.store.blobs.close()
    assert house.store.storage()[:2] == (0, 0)
    assert house.store.sweep() == 0
    assert not [n for d in house.store.blobs.directories() for n in house.store.blobs.names(d)]
    consistent(house.store)


def test_unused_accounts_are_those_without_any_login(house: House) -> None:
    house.account('never', made=31)
    house.account('once', made=31, used=31)
    house.account('young', made=30)
    assert house.run('prune-unused-accounts').done == 0  # off
    house.settings.replace('retention.unused_accounts', 30 * DAY)
    assert house.run('prune-unused-accounts').done == 1
    assert house.names() == ['once', 'young']


def test_mail_in_the_outbox_survives_its_message_and_its_account(house: House) -> None:
    house.account('sender', made=400, used=200)
    entry = OutboxEntry(0, 'sender@localhost', 'far.example', ('bob@far.example',), house.now)
    house.store.deliver(
        MemoryBody(b'x' * 300_000),
        ['sender@localhost'],
        delivery_id=bytes(16),
        outbox=[entry],
    )
    house.now += 30 * DAY
    house.run('retention', age=3600, trust_clock=True)
    house.run('dormant-accounts')
    assert house.names() == []
    (waiting,) = house.store.outbox_list()
    for _ in range(20):
        house.store.barrier()
    assert house.store.sweep() == 0
    assert len(house.store.body(waiting.body_id).read()) == 300_000
    assert house.caretaker.begin('outbox', lambda job: None).ended.wait(5)


def test_dates_that_cannot_be_right_are_counted_from_when_they_were_found(house: House) -> None:
    box = house.place.inbox()
    house.place.append(box, 2, internal_date=100)  # while the clock stood in 1970
    house.place.append(box, 1, internal_date=house.now + 400 * DAY)  # from the future
    for uid in (1, 2, 3):
        house.set_saved(box, uid, 0)
    house.run('retention')
    assert len(house.store.uids(box)) == 3
    assert all(row.saved == house.now for row in house.store.messages(box, 1, 9))
    for _ in range(21):
        house.now += DAY
        assert house.caretaker.clock.check() == ''
    assert house.run('retention').done == 3
    old = house.account('wrong', made=0)
    house.store._submit(
        lambda tx: tx.execute('UPDATE accounts SET created_day = 86400 WHERE id = ?', (old,))
    )
    house.run('dormant-accounts')
    assert house.store.account_by_id(old).created_day == house.day() >= EPOCH
    consistent(house.store)


def test_by_a_wrong_clock_nothing_goes(house: House) -> None:
    box = house.place.inbox()
    house.place.append(box, 5, internal_date=house.now - DAY)
    house.account('someone', used=0)
    house.caretaker.look()
    for wrong, reason in ((1000, 'behind'), (house.now + 3000 * DAY, 'ahead')):
        right, house.now = house.now, wrong
        house.caretaker.look()
        assert house.caretaker.status()['clock'] == reason
        for name in ('retention', 'dormant-accounts', 'prune-unread-older'):
            with pytest.raises(ClockTrouble, match=reason):
                house.run(name, age=3600)
        house.now = right
    house.caretaker.look()
    assert house.caretaker.status()['clock'] == ''
    assert len(house.store.uids(box)) == 5
    assert house.names() == ['a', 'someone']


def test_what_is_due_is_done_once_also_after_a_restart(house: House) -> None:
    box = house.place.inbox()
    house.caretaker.look()
    task = find('retention')
    assert task is not None
    house.now = house.caretaker.schedule.next(task, house.now)
    house.place.append(box, 1, internal_date=house.now - 30 * DAY)
    house.place.reopen()
    house.open()
    house.caretaker.look()
    assert len(house.store.uids(box)) == 0
    house.place.append(box, 1, internal_date=house.now - 30 * DAY)
    house.place.reopen()
    house.open()
    house.caretaker.look()
    assert len(house.store.uids(box)) == 1  # not yet due
    house.now += task.period
    house.caretaker.look()
    assert len(house.store.uids(box)) == 0


def test_jobs_are_done_one_after_the_other_and_their_number_is_bounded(house: House) -> None:
    order: list[str] = []

    def work(name: str) -> Any:
        def do(job: Job) -> None:
            for _ in range(3):
                order.append(name)
                job.step(1)

        return do

    jobs = [house.caretaker.begin('test', work(name)) for name in 'abc']
    gevent.joinall([gevent.spawn(job.ended.wait) for job in jobs], timeout=10)
    assert ''.join(order) == 'aaabbbccc'
    assert [job.as_dict()['done'] for job in jobs] == [3, 3, 3]
    for _ in range(WAITING):
        house.caretaker.begin('test', work('x'))
    with pytest.raises(Busy):
        house.caretaker.begin('test', work('x'))
    house.caretaker.jobs.stop()


def test_a_job_that_breaks_says_so_and_lets_the_next_one_begin(house: House) -> None:
    def broken(job: Job) -> None:
        raise ValueError

    first = house.caretaker.begin('test', broken)
    second = house.caretaker.begin('test', lambda job: None)
    assert second.ended.wait(5)
    assert (first.state, second.state) == ('failed', 'done')
