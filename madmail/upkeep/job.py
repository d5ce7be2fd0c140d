"""Long work in a shard: started, looked at, waited for.

One job works at a time, whoever started it, so that however many are asked for,
sessions share the loop with no more than one.  Jobs live in memory: they end with
the process, and whatever they do can be done again.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from time import perf_counter
from typing import Any

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from madmail import log

REMEMBERED = 50  # jobs that have ended
WAITING = 20  # jobs that have not begun
GENTLE = 3.0  # pause for every second of work: by itself
BRISK = 0.5  # the same when somebody waits for it
SHORTEST = 0.001  # seconds of a pause; 0 would be no turn of the loop
LONGEST = 2.0

_log = log.get('upkeep')


class Busy(Exception):
    """Too many jobs wait already."""


class Job:
    """One piece of work; the function gets it to tell how far it is."""

    __slots__ = ('_began', '_ease', 'detail', 'done', 'ended', 'id', 'kind', 'state', 'total')

    def __init__(self, number: int, kind: str, *, ease: float) -> None:
        self.id = number
        self.kind = kind
        self.state = 'waiting'  # then running, then done or failed
        self.done = 0
        self.total = 0  # 0 = not known
        self.detail: dict[str, Any] = {}
        self.ended = Event()
        self._ease = ease
        self._began = perf_counter()

    def step(self, count: int = 0) -> None:
        """So many more are done; lets the others go first.  Blocks the greenlet."""
        self.done += count
        worked = perf_counter() - self._began
        gevent.sleep(min(LONGEST, max(SHORTEST, worked * self._ease)))
        self._began = perf_counter()

    def begin(self) -> None:
        self.state = 'running'
        self._began = perf_counter()

    def as_dict(self) -> dict[str, Any]:
        return {
            'job': self.id,
            'kind': self.kind,
            'state': self.state,
            'done': self.done,
            'total': self.total,
            'detail': self.detail,
        }


Work = Callable[[Job], None]


class Jobs:
    """The jobs of one shard."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._turn = BoundedSemaphore(1)
        self._greenlets: set[Any] = set()

    def start(self, kind: str, work: Work) -> Job:
        """Begin as soon as the others are done.  Raises Busy."""
        if len(self._greenlets) >= WAITING:
            raise Busy
        job = Job(next(self._numbers), kind, ease=BRISK)
        self._jobs[job.id] = job
        while len(self._jobs) > REMEMBERED:
            oldest = next(iter(self._jobs.values()))
            if not oldest.ended.is_set():
                break
            del self._jobs[oldest.id]
        greenlet = gevent.spawn(self._run, job, work)
        self._greenlets.add(greenlet)
        greenlet.rawlink(self._greenlets.discard)
        return job

    def perform(self, kind: str, work: Work) -> Job:
        """Do it now, in this greenlet and gently; not remembered."""
        job = Job(0, kind, ease=GENTLE)
        self._run(job, work)
        return job

    def find(self, number: int) -> Job | None:
        return self._jobs.get(number)

    def stop(self) -> None:
        """End all of them between two steps, or in one that is durable all the same."""
        gevent.killall(tuple(self._greenlets), timeout=5)

    def _run(self, job: Job, work: Work) -> None:
        try:
            with self._turn:
                job.begin()
                work(job)
            job.state = 'done'
        except Exception:
            job.state = 'failed'
            _log.exception('job failed')
        finally:
            if job.state in ('waiting', 'running'):
                job.state = 'failed'
            job.ended.set()
