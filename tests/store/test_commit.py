"""Group commit: grouping, order, isolation of failures, a full disk."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import gevent
import pytest
from gevent import get_hub, getcurrent

from madmail.store.commit import BUDGET
from madmail.store.interface import Appended, FlagUpdate, MailboxExists, Outcome, StoreFull
from tests.store.conftest import Place, consistent, together


def test_simultaneous_writes_share_commits(place: Place):
    place.inbox()
    commits, jobs = place.store.commits, place.store.jobs
    results = together(*[lambda: place.deliver('a@localhost')] * 100)
    assert results == [[Outcome.STORED]] * 100
    assert place.store.jobs - jobs >= 100
    assert place.store.commits - commits <= 30


def test_lone_write_is_one_commit(place: Place):
    inbox = place.inbox()
    for _ in range(3):
        commits = place.store.commits
        place.append(inbox)
        assert place.store.commits == commits + 1


def test_write_that_changes_nothing_goes_not_to_disk_but_a_barrier_does(place: Place):
    inbox = place.inbox()
    place.append(inbox, flags=1)
    commits = place.store.commits
    place.store.store_flags(inbox, [1], FlagUpdate('add', 1))
    assert place.store.commits == commits
    place.store.barrier()
    assert place.store.commits == commits + 1


def test_events_come_in_order_before_any_writer_wakes_and_see_committed_data(place: Place):
    inbox = place.inbox()
    trace: list[tuple[str, int]] = []

    def observe(events):
        for event in events:
            assert isinstance(event, Appended)
            assert place.store.message(inbox, event.uids[0]) is not None
            trace.append(('event', event.uids[0]))

    place.store.observer = observe

    def write():
        (uid,) = place.append(inbox)
        trace.append(('woken', uid))

    together(*[write] * 20)
    assert sorted(uid for what, uid in trace if what == 'woken') == list(range(1, 21))
    assert [uid for what, uid in trace if what == 'event'] == list(range(1, 21))
    for uid in range(1, 21):
        assert trace.index(('event', uid)) < trace.index(('woken', uid))


def test_failing_observer_harms_nobody(place: Place):
    inbox = place.inbox()

    def broken(events):
        raise ZeroDivisionError

    place.store.observer = broken
    assert place.append(inbox) == [1]
    assert place.append(inbox) == [2]


def test_job_that_fails_after_writing_is_undone_alone(place: Place):
    store, inbox = place.store, place.inbox()
    place.take_events()

    def bad(tx):
        tx.execute('DELETE FROM mailboxes')
        tx.events.append('never')
        raise ZeroDivisionError

    def bad_without_trace(tx):
        raise MailboxExists

    results = together(
        store.barrier,  # keeps the thread busy: the others become one group
        lambda: place.append(inbox),
        lambda: store._submit(bad),
        lambda: store._submit(bad_without_trace),
        lambda: place.append(inbox),
        lambda: store._submit(bad),
        lambda: place.deliver('a@localhost'),
    )
    assert results[1] == [1]
    assert isinstance(results[2], ZeroDivisionError)
    assert isinstance(results[3], MailboxExists)
    assert results[4] == [2]
    assert isinstance(results[5], ZeroDivisionError)
    assert results[6] == [Outcome.STORED]
    assert [event.uids[0] for event in place.take_events()] == [1, 2, 3]
    consistent(store)


def test_job_that_fails_alone(place: Place):
    inbox = place.inbox()

    def bad(tx):
        tx.execute('DELETE FROM mailboxes')
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        place.store._submit(bad)
    assert place.append(inbox) == [1]


def test_what_a_failed_job_let_others_remember_is_forgotten(place: Place):
    store = place.store

    def made_and_lost(tx):
        tx.execute(
            "INSERT INTO accounts (id, address, password, created_day) VALUES (9, 'g', '', 0)"
        )
        tx.execute("INSERT INTO mailboxes (account_id, name, uid_validity) VALUES (9, 'INBOX', 9)")
        assert store._route(tx, 'g') is not None
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store._submit(made_and_lost)
    assert place.deliver('g') == [Outcome.UNKNOWN]


def test_failing_commit_fails_the_whole_group_and_the_next_one_works(place: Place):
    store, inbox = place.store, place.inbox()
    place.take_events()

    def doomed(tx):
        # A deferred constraint is checked by COMMIT itself.
        tx.execute('PRAGMA defer_foreign_keys = 1')
        tx.execute('INSERT INTO child VALUES (77)')

    store._submit(
        lambda tx: tx.execute(
            'CREATE TABLE child (x REFERENCES accounts (id) DEFERRABLE INITIALLY DEFERRED)'
        )
    )
    store._writer.execute('PRAGMA foreign_keys = 1')
    results = together(store.barrier, lambda: place.append(inbox), lambda: store._submit(doomed))
    assert [type(result) for result in results[1:]] == [sqlite3.IntegrityError] * 2
    assert place.take_events() == []
    assert place.append(inbox) == [1]
    consistent(store)


def test_writer_killed_while_waiting_has_written(place: Place):
    store, inbox = place.store, place.inbox()
    writer = gevent.spawn(place.append, inbox)
    gevent.sleep(0)  # it has begun
    writer.kill()
    store.barrier()
    assert store.mailbox_by_id(inbox).messages == 1
    assert place.append(inbox) == [2]


def test_write_from_a_loop_callback_is_refused(place: Place):
    inbox = place.inbox()
    caught: list[BaseException] = []

    def callback():
        assert getcurrent() is get_hub()
        try:
            place.append(inbox)
        except RuntimeError as error:
            caught.append(error)

    get_hub().loop.run_callback(callback)
    gevent.sleep(0.01)
    assert len(caught) == 1
    assert place.append(inbox) == [1]


def test_long_job_lets_the_loop_run_and_stays_atomic(place: Place):
    store = place.store
    turns_before_the_end = 0
    ended = False

    def long(tx):
        nonlocal ended
        for n in range(20):
            tx.execute('INSERT INTO graves VALUES (?)', (1_000_000 + n,))
            end = perf_counter() + BUDGET / 2
            while perf_counter() < end:
                pass
            yield
        ended = True
        return 'done'

    def tick():
        nonlocal turns_before_the_end
        while not ended:
            turns_before_the_end += 1
            assert store._one('SELECT count(*) FROM graves') == (0,)
            gevent.sleep(0)

    commits = store.commits
    assert together(lambda: store._submit(long), tick) == ['done', None]
    assert turns_before_the_end >= 5
    assert store._one('SELECT count(*) FROM graves') == (20,)
    assert store.commits == commits + 1


def test_close_commits_what_is_queued_and_refuses_more(place: Place):
    store, inbox = place.store, place.inbox()
    store.record_login(store.account('a@localhost').id, 86400)
    writers = [gevent.spawn(place.append, inbox) for _ in range(20)]
    gevent.sleep(0)
    store.close()
    gevent.joinall(writers, raise_error=True)
    assert sorted(writer.value[0] for writer in writers) == list(range(1, 21))
    with pytest.raises((RuntimeError, sqlite3.ProgrammingError)):
        store.create_account('b@localhost', '', 0)
    store.close()
    assert place.open().mailbox_by_id(inbox).messages == 20
    assert place.store.account('a@localhost').last_login_day == 86400


# -- a full disk


def pages(store, more: int) -> None:
    count = store._writer.execute('PRAGMA page_count').fetchone()[0]
    store._writer.execute(f'PRAGMA max_page_count = {count + more}')


def test_full_database_fails_writers_and_recovers(place: Place):
    store, inbox = place.store, place.inbox()
    place.append(inbox, 5, size=50_000, flags=8)
    place.take_events()
    pages(store, 20)
    results = together(*[lambda: place.append(inbox, size=30_000)] * 10)
    assert any(isinstance(result, StoreFull) for result in results)
    stored = [result[0] for result in results if isinstance(result, list)]
    assert list(store.uids(inbox)) == [1, 2, 3, 4, 5, *sorted(stored)]
    assert [uid for event in place.take_events() for uid in event.uids] == sorted(stored)
    with pytest.raises(StoreFull):
        place.deliver('a@localhost', data=b'x' * 120_000)
    consistent(store)
    assert store.expunge(inbox) == [1, 2, 3, 4, 5]  # making room works
    assert place.append(inbox, size=30_000) != []
    pages(store, 100_000)
    assert place.deliver('a@localhost', data=b'x' * 120_000) == [Outcome.STORED]
    consistent(store)


def test_small_writes_of_a_group_survive_the_one_that_does_not_fit(place: Place):
    store, inbox = place.store, place.inbox()
    pages(store, 12)
    results = together(
        store.barrier,
        lambda: place.append(inbox, size=10),
        lambda: place.append(inbox, size=120_000),
        lambda: place.append(inbox, size=10),
    )
    assert results[1] == [1]
    assert isinstance(results[2], StoreFull)
    assert results[3] == [2]
    consistent(store)


FILES_LIMITED = """
import os, resource, sys
from pathlib import Path
import gevent
from madmail.store.interface import StoreFull
from madmail.store.spool import MemoryBody
from madmail.store.sqlite import open_store

store = open_store(Path(sys.argv[1]), quota_default=0, trim_from=0.75, trim_to=0.7)
account = store.create_account('a@localhost', '', 0)
inbox = store.mailbox(account.id, 'INBOX').id
events = []
store.observer = events.extend
wal = Path(sys.argv[1]) / 'store.db-wal'

def deliver(size):
    try:
        return store.deliver(MemoryBody(b'x' * size), ['a@localhost'],
                             delivery_id=os.urandom(16))[0].value
    except StoreFull:
        return 'full'

print(deliver(10))
resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size + 20_000, -1))
writers = [gevent.spawn(deliver, 9000) for _ in range(6)]
gevent.joinall(writers)
results = [writer.value for writer in writers]
print('full' in results, store.mailbox_by_id(inbox).messages == 1 + results.count('stored'))
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
print(deliver(9000))
stored = 2 + results.count('stored')
print(store.mailbox_by_id(inbox).messages == stored == len(events))
store.close()
print('closed')
"""


def test_files_that_cannot_grow_fail_the_group_at_commit_and_recover(tmp_path):
    """The write-ahead log meets the limit inside COMMIT, in the thread."""
    told = subprocess.run(
        [sys.executable, '-c', FILES_LIMITED, str(tmp_path / 's')],
        capture_output=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert told.stdout.split() == b'stored True True stored True closed'.split(), told.stderr
