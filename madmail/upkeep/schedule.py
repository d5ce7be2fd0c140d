"""When tasks are due.

A task is due one period after it was done last, whichever process did it: the
time is kept in the store, so a restart neither repeats it nor puts it off.  A
task that was never done is due within its first period, each in each shard at
another time, so that the work of a relay spreads over the hour and the day.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

from madmail.upkeep.task import TASKS, Task


class Notes(Protocol):
    """The store, as far as the schedule asks it."""

    def note(self, name: str) -> int | None: ...
    def set_note(self, name: str, value: int) -> None: ...


class Schedule:
    """The tasks of one shard; times are Unix seconds."""

    def __init__(self, notes: Notes, index: int, tasks: Sequence[Task] = TASKS) -> None:
        self._notes = notes
        self._index = index
        self._tasks = [task for task in tasks if task.period]
        self._last: dict[str, int] = {}

    def due(self, now: int) -> list[Task]:
        """What is to be done, longest due first."""
        waiting = [(self.next(task, now), task) for task in self._tasks]
        return [task for when, task in sorted(waiting, key=lambda pair: pair[0]) if when <= now]

    def next(self, task: Task, now: int) -> int:
        """When the task is due."""
        kept = self._kept(task, now)
        return -kept if kept < 0 else kept + task.period

    def last(self, task: Task, now: int) -> int:
        """When it was done; 0 = never."""
        return max(0, self._kept(task, now))

    def _kept(self, task: Task, now: int) -> int:
        """When it was done; below 0, for one that was not, when it is due."""
        kept = self._last.get(task.name)
        if kept is None:
            kept = self._notes.note(_note(task))
            if kept is None:
                kept = -(now + self._offset(task))
                self._notes.set_note(_note(task), kept)
            self._last[task.name] = kept
        if kept > now or -kept > now + task.period:  # from when the clock was ahead
            self.done(task, now)
            return now
        return kept

    def done(self, task: Task, now: int) -> None:
        self._last[task.name] = now
        self._notes.set_note(_note(task), now)

    def _offset(self, task: Task) -> int:
        """Seconds, less than a period, the same at each start."""
        mark = blake2b(f'{task.name} {self._index}'.encode(), digest_size=8).digest()
        return int.from_bytes(mark, 'big') % task.period


def _note(task: Task) -> str:
    return f'upkeep.{task.name}'
