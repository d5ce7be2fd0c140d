"""The one who looks after a shard's accounts: does what is due, and what is asked for.

Once a minute the clock is looked at and whatever is due is done, gently: three
times as long as it works it pauses.  What an administrator asks for is a job of
its own and pauses less.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent

from madmail import log
from madmail.settings import Settings
from madmail.store.interface import Account, Store
from madmail.upkeep import removal
from madmail.upkeep.clock import REASONS, Clock
from madmail.upkeep.job import Job, Jobs, Work
from madmail.upkeep.schedule import Schedule
from madmail.upkeep.task import DAY, TASKS, Task

LOOK_EVERY = 60.0  # seconds

_log = log.get('upkeep')


class ClockTrouble(Exception):
    """The clock cannot be trusted; `reason` is a key of clock.REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Caretaker:
    """The upkeep of one shard; everything is called on its loop."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        index: int,
        *,
        connected: Callable[[int], int],
        forget: Callable[[str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`connected` counts the sessions of an account id; `forget` is told deleted addresses."""
        self.jobs = Jobs()
        self.clock = Clock(store, now)
        self.schedule = Schedule(store, index)
        self._store = store
        self._settings = settings
        self._connected = connected
        self._forget = forget
        self._now = now
        self._greenlet: Any = None
        self._said = ''  # trouble with the clock that was logged
        self._results: dict[str, int] = {}  # by task: what the last run removed

    # -- life

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._work)

    def stop(self) -> None:
        """What is under way ends between two slices; it is due again."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self.jobs.stop()

    def _work(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                _log.exception('upkeep failed')
            gevent.sleep(LOOK_EVERY)

    def look(self) -> None:
        """Do what is due."""
        trouble = self.clock.check()
        if trouble != self._said:
            self._said = trouble
            if trouble:
                _log.warning('nothing expires', reason=REASONS[trouble].replace(' ', '-'))
            else:
                _log.info('the clock is right again')
        if trouble:
            return
        now = int(self._now())
        for task in self.schedule.due(now):
            if task.enabled(self._settings):
                job = self.jobs.perform(task.name, partial(self._do, task=task))
                if job.state != 'done':
                    continue  # due again at the next look
                self._results[task.name] = job.done
                if job.done:
                    _log.info('upkeep', task=task.name, removed=job.done)
            self.schedule.done(task, int(self._now()))

    # -- what can be asked for

    def status(self) -> dict[str, Any]:
        now = int(self._now())
        return {
            'clock': self.clock.trouble,
            'tasks': [
                {
                    'name': task.name,
                    'enabled': task.enabled(self._settings),
                    'last': self.schedule.last(task, now) if task.period else 0,
                    'next': self.schedule.next(task, now) if task.period else 0,
                    'removed': self._results.get(task.name),
                }
                for task in TASKS
            ],
        }

    def run(
        self, task: Task, *, age: int = 0, dry_run: bool = False, trust_clock: bool = False
    ) -> Job:
        """Start a task now; `age` in seconds in place of what the settings say.

        Raises ClockTrouble, Busy.
        """
        if trust_clock:
            self.clock.trust()
        elif task.ages and (trouble := self.clock.check()):
            raise ClockTrouble(trouble)

        def work(job: Job) -> None:
            self._do(job, task, age=age, dry_run=dry_run)
            if task.period and not age and not dry_run:
                self.schedule.done(task, int(self._now()))
                self._results[task.name] = job.done

        return self.jobs.start(task.name, work)

    def begin(self, kind: str, work: Work) -> Job:
        """Start other work as a job.  Raises Busy."""
        return self.jobs.start(kind, work)

    # -- the tasks

    def _do(self, job: Job, task: Task, *, age: int = 0, dry_run: bool = False) -> None:
        now, store, settings = int(self._now()), self._store, self._settings
        if task.name == 'prune-old-messages':
            large = 0 if age else settings['retention.large']
            age = age or settings['retention.messages']
            if large and (large < age or not age):
                removal.old_messages(
                    store,
                    job,
                    now - large,
                    now,
                    since=max(removal.EPOCH, now - age) if age else removal.EPOCH,
                    larger_than=settings['retention.large_size'],
                    dry_run=dry_run,
                )
            if age:
                removal.old_messages(store, job, now - age, now, dry_run=dry_run)
        elif task.name == 'purge-seen':
            if age := age or settings['retention.read']:
                removal.messages(store, job, seen=True, before=now - age, dry_run=dry_run)
        elif task.name == 'prune-unread-older':
            removal.messages(store, job, seen=False, before=now - age, dry_run=dry_run)
        elif task.name == 'prune-dormant-accounts':
            if age := age or settings['retention.dormant_accounts']:
                self._accounts(job, now, lambda one: self._dormant(one, now - age), dry_run)
        elif task.name == 'prune-unused-accounts':
            if age := age or settings['retention.unused_accounts']:
                self._accounts(job, now, lambda one: _unused(one, now - age), dry_run, unused=True)
        elif task.name == 'sweep-blobs' and not dry_run:
            job.step(store.sweep())

    def _accounts(
        self,
        job: Job,
        now: int,
        doomed: Callable[[Account], bool],
        dry_run: bool,
        *,
        unused: bool = False,
    ) -> None:
        def delete(account: Account) -> bool:
            gone = self._store.delete_account(account.id, unused_only=unused)
            self._forget(account.address)
            return gone

        removal.accounts(self._store, job, doomed, delete, now, dry_run=dry_run)

    def _dormant(self, account: Account, before: int) -> bool:
        # A day is kept as its beginning; it may have been used until its end.
        if max(account.last_login_day, account.created_day) + DAY >= before:
            return False
        if self._connected(account.id):
            # A session can outlast many days without another login.
            self._store.record_login(account.id, int(self._now()) // DAY * DAY)
            return False
        return True


def _unused(account: Account, before: int) -> bool:
    return not account.last_login_day and account.created_day + DAY < before
