"""Group commit: many small writes, one transaction, one fsync.

Write jobs are plain functions.  They run **on the loop**, one after the other,
inside one open transaction: their statements touch only the page cache and
cost microseconds.  Only `COMMIT`, which waits for the disk and releases the
GIL while it does, runs in a native thread.  What is submitted while the thread
is at the disk queues up and becomes the next group, so the busier the relay,
the larger the groups; a lone job waits for nothing but its own fsync.

Why the statements do not run in the thread: every SQLite call releases and
retakes the GIL.  Against a busy loop each retaking costs up to one switch
interval, so a thread that runs ten statements a message would be held up ten
times, and would hold up the loop in turn (the GIL convoy).  Two hand-overs a
group is the least there can be.

Those two must not starve.  A thread that waits for the GIL demands it only after
a whole switch interval in which nobody let go of it, and a loop that turns every
millisecond lets go at each turn, for too short a time to take it.  So the
interval must be shorter than a turn.  PERF: beside a flood of NOOP a delivery
took 46 ms (p99 112) with the interpreter's 5 ms, and 3.5 ms (p99 7) with this;
quiet latency, CPU a message and throughput are the same.

When the thread is done, the loop first tells the store's observer the events of
the group, then lets the writers go on.  The next group is started in between,
so that the disk works while they run.

A job that fails does not spoil its group.  If it has changed nothing yet, which
is how refusals are written, it simply drops out; otherwise the transaction is
rolled back and the others run again, now each inside a savepoint.  Jobs must
therefore be repeatable: they work from arguments they do not change.

A job may be a generator function.  It is then driven on, one `yield` at a time,
and when the group's time is up the loop gets a turn in between, with the
transaction left open: long and still atomic.
"""

from __future__ import annotations

import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from types import GeneratorType
from typing import Any, TypeVar

from gevent import get_hub, getcurrent
from gevent.hub import Waiter

from madmail import log
from madmail.store.interface import Event, StoreFull

T = TypeVar('T')

BUDGET = 0.005  # seconds of loop time a group may take before it is committed
TURN = 0.002  # seconds a long job may go on before the loop gets its next turn
SWITCH = 0.0001  # seconds until a thread demands the GIL; less than a session works at a time

_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
_log = log.get('store')


class Transaction:
    """What a job works with: the open transaction and what shall follow its commit."""

    __slots__ = ('after', 'dropped', 'durable', 'events', 'execute', 'executemany')

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.durable = False  # commit through the thread even if nothing has changed
        self.events: list[Event] = []
        self.dropped: list[str] = []  # blobs nobody refers to once this is durable
        self.after: list[Callable[[], object]] = []  # run on the loop after the commit

    def clear(self) -> None:
        self.durable = False
        self.events = []
        self.dropped = []
        self.after = []


Work = Callable[[Transaction], T] | Callable[[Transaction], Generator[None, None, T]]
Failed = Callable[[BaseException], object]


class _Job:
    __slots__ = ('failed', 'mark', 'value', 'waiter', 'work')

    def __init__(self, work: Work[Any], waiter: Any, failed: Failed | None) -> None:
        self.work = work
        self.waiter = waiter
        self.failed = failed
        self.value: Any = None
        self.mark = (0, 0, 0, 0)  # changes, events, dropped, after: as they were before it


def is_full(error: BaseException) -> bool:
    """Whether an SQLite error says that the disk refuses to take more."""
    return getattr(error, 'sqlite_errorcode', 0) & 0xFF in _FULL


class GroupCommit:
    """The only writer of one database; all methods on the loop it was made on."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        committed: Callable[[Sequence[Event], Sequence[str]], object],
        rolled_back: Callable[[], object],
    ) -> None:
        """`committed` gets events and dropped blobs of each group, before its writers wake.

        `rolled_back` is told that uncommitted things a job may have seen and
        remembered are not true.  The connection must be in autocommit mode and
        usable from several threads (not at the same time).
        """
        self.commits = 0
        self.jobs = 0
        self._connection = connection
        self._tell = committed
        self._rolled_back = rolled_back
        self._transaction = Transaction(connection)
        self._queue: deque[_Job] = deque()
        self._group: list[_Job] = []
        self._suspended: tuple[_Job, Generator[None, None, Any]] | None = None
        self._busy = False  # a transaction is open: being filled or at the disk
        self._careful = False  # this group lost a job already: savepoints
        self._changes = 0
        self._failure: BaseException | None = None
        self._hub = get_hub()
        self._run_callback = self._hub.loop.run_callback
        self._done = self._hub.loop.async_()
        self._done.start(self._durable)
        # PERF: through the loop's event descriptor, for that takes a whole turn; of mere
        # callbacks gevent runs 50 before it looks at its sockets again (70 ms measured).
        self._later = self._hub.loop.async_()
        self._later.start(self._resume)
        self._orders: SimpleQueue[bool] = SimpleQueue()
        self._closed = False
        sys.setswitchinterval(min(SWITCH, sys.getswitchinterval()))
        self._thread = Thread(target=self._commit_orders, name='commit', daemon=True)
        self._thread.start()

    # -- for the store

    def submit(self, work: Work[T], failed: Failed | None = None) -> T:
        """Run `work(transaction)` in the next group; its value once that is on disk.

        Blocks the calling greenlet.  Raises what the work raised, StoreFull when
        the disk refused, or sqlite3.Error.  Should the greenlet be killed while it
        waits, the work is done nevertheless; `failed` is called exactly if it is
        not, whether or not somebody still waits.
        """
        if getcurrent() is self._hub:
            raise RuntimeError('A write blocks and cannot be made from a loop callback')
        waiter = Waiter(self._hub)
        self._enqueue(_Job(work, waiter, failed))
        value: T = waiter.get()
        return value

    def post(self, work: Work[Any]) -> None:
        """Like `submit` without waiting; a failure is logged.  Usable anywhere on the loop."""
        self._enqueue(_Job(work, None, None))

    def close(self) -> None:
        """Commit what is queued and end the thread; later calls raise."""
        if self._closed:
            return
        self.submit(through)
        self._closed = True
        self._orders.put(False)
        self._thread.join()
        for watcher in (self._done, self._later):
            watcher.stop()
            watcher.close()

    # -- filling a group

    def _enqueue(self, job: _Job) -> None:
        if self._closed:
            raise RuntimeError('The store is closed')
        self._queue.append(job)
        if not self._busy:
            self._begin()

    def _begin(self) -> None:
        """Open a transaction for what is queued."""
        self._busy = True
        self._changes = self._connection.total_changes
        try:
            self._transaction.execute('BEGIN IMMEDIATE')
        except sqlite3.Error as error:
            self._finish(error)
            return
        self._fill()

    def _resume(self) -> None:
        """Go on after the loop has had a turn."""
        if self._suspended is not None:
            self._fill()
        else:
            self._begin()

    def _fill(self) -> None:
        """Run queued jobs until there are no more or time is up, then order the commit."""
        transaction, queue, connection = self._transaction, self._queue, self._connection
        deadline = perf_counter() + (BUDGET if self._suspended is None else TURN)
        while True:
            steps: Generator[None, None, Any] | None
            if self._suspended is not None:
                (job, steps), self._suspended = self._suspended, None
            elif queue:
                job, steps = queue.popleft(), None
                job.mark = (
                    connection.total_changes,
                    len(transaction.events),
                    len(transaction.dropped),
                    len(transaction.after),
                )
            else:
                break
            try:
                if steps is None:
                    if self._careful:
                        transaction.execute('SAVEPOINT job')
                    value = job.work(transaction)
                    if type(value) is GeneratorType:
                        steps = value
                if steps is not None:
                    # Its steps take milliseconds themselves; what it began with does not count.
                    value = _drive(steps, min(deadline, perf_counter() + TURN))
                    if value is _UNFINISHED:
                        self._suspended = job, steps
                        self._later.send()
                        return
                if self._careful:
                    transaction.execute('RELEASE job')
            except Exception as error:
                if not self._drop(job, error):
                    return
            else:
                job.value = value
                self._group.append(job)
            if perf_counter() > deadline:
                break
        if connection.total_changes == self._changes and not transaction.durable:
            # Nothing to make durable, and whatever was read is.
            try:
                connection.commit()
            except sqlite3.Error as error:
                self._finish(error)
            else:
                self._finish(None, pause=True)
        else:
            self._orders.put(True)

    def _drop(self, job: _Job, error: Exception) -> bool:
        """Take a failed job out of the group, with everything it has done.

        False if that was the end of the group, and everybody has been told.
        """
        transaction, connection = self._transaction, self._connection
        changes, events, dropped, after = job.mark
        del transaction.events[events:], transaction.dropped[dropped:], transaction.after[after:]
        try:
            if connection.in_transaction and self._careful:
                transaction.execute('ROLLBACK TO job')
                transaction.execute('RELEASE job')
                self._rolled_back()
            elif not connection.in_transaction or connection.total_changes != changes:
                # SQLite itself gives the whole transaction up after some I/O errors.
                if connection.in_transaction:
                    connection.rollback()
                self._rolled_back()
                self._queue.extendleft(reversed(self._group))
                self._group.clear()
                transaction.clear()
                self._careful = True
                self._changes = connection.total_changes
                transaction.execute('BEGIN IMMEDIATE')
        except sqlite3.Error as worse:
            self._resolve(job, error)
            self._finish(worse)
            return False
        self._resolve(job, error)
        return True

    # -- at the disk

    def _commit_orders(self) -> None:
        """The thread: no Python to speak of, so that it needs the GIL only twice a group.

        `commit()` lets go of the GIL for all of its work, checkpoints included.
        """
        order, commit, done = self._orders.get, self._connection.commit, self._done.send
        while order():
            try:
                commit()
            except BaseException as error:
                self._failure = error
            done()

    def _durable(self) -> None:
        """On the loop, woken by the thread."""
        failure, self._failure = self._failure, None
        self.commits += 1
        self._finish(failure)

    def _finish(self, error: BaseException | None, pause: bool = False) -> None:
        transaction = self._transaction
        group, self._group = self._group, []
        events, dropped, after = transaction.events, transaction.dropped, transaction.after
        transaction.clear()
        self._careful = False
        if error is not None:
            # Everybody concerned is told; those still queued get their own try.
            if not group and self._queue:
                group, self._queue = list(self._queue), deque()
            try:
                if self._connection.in_transaction:
                    self._connection.rollback()
            except sqlite3.Error:
                _log.exception('rollback failed')
            self._rolled_back()
            for job in group:
                self._resolve(job, error)
        else:
            self.jobs += len(group)
            try:
                if events or dropped:
                    self._tell(events, dropped)
                for call in after:
                    call()
            except Exception:
                _log.exception('after commit')
            for job in group:
                if job.waiter is not None:
                    self._run_callback(job.waiter.switch, job.value)
        if not self._queue:
            self._busy = False
        elif pause:
            self._later.send()
        else:
            self._begin()

    def _resolve(self, job: _Job, error: BaseException) -> None:
        if job.failed is not None:
            job.failed(error)
        if isinstance(error, sqlite3.Error) and is_full(error):
            said: BaseException = StoreFull()
            said.__cause__ = error
        else:
            said = error
        if job.waiter is not None:
            self._run_callback(job.waiter.throw, said)
        else:
            try:
                raise said
            except Exception:
                _log.exception('queued write failed')


_UNFINISHED = object()


def _drive(steps: Generator[None, None, Any], deadline: float) -> Any:
    try:
        while True:
            next(steps)
            if perf_counter() > deadline:
                return _UNFINISHED
    except StopIteration as stop:
        return stop.value


def through(transaction: Transaction) -> None:
    """A job that changes nothing and still goes the whole way."""
    transaction.durable = True
