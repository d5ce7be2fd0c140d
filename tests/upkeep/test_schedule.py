"""The schedule: nothing twice, nothing skipped, whatever restarts and the clock do."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from madmail.upkeep.schedule import Schedule
from madmail.upkeep.task import TASKS, Task, find
from tests.upkeep.test_clock import NOW, Notes

HOURLY = Task('hourly', (), '', 3600)
DAILY = Task('daily', (), '', 86_400)
BOTH = (HOURLY, DAILY)


def test_every_name_and_alias_means_one_task() -> None:
    words = [word for task in TASKS for word in (task.name, *task.aliases)]
    assert len(words) == len(set(words))
    assert all(find(word.upper()) is not None for word in words)
    assert find('nonsense') is None


def test_the_first_time_is_within_a_period_and_differs_by_shard() -> None:
    times = []
    for index in range(8):
        schedule = Schedule(Notes(), index, BOTH)
        assert schedule.last(DAILY, NOW) == 0
        when = schedule.next(DAILY, NOW)
        assert NOW <= when < NOW + DAILY.period
        times.append(when)
    assert len(set(times)) == 8
    assert max(times) - min(times) > DAILY.period // 4


def test_what_a_restart_interrupts_is_due_again_and_what_was_done_is_not() -> None:
    notes = Notes()
    due = Schedule(notes, 0, BOTH).next(HOURLY, NOW)
    assert Schedule(notes, 0, BOTH).due(due) == [HOURLY]  # not done, so due in the next process
    after = Schedule(notes, 0, BOTH)
    assert after.due(due) == [HOURLY]
    after.done(HOURLY, due)
    assert Schedule(notes, 0, BOTH).due(due) == []
    assert Schedule(notes, 0, BOTH).last(HOURLY, due) == due
    assert Schedule(notes, 0, BOTH).due(due + HOURLY.period - 1) in ([], [DAILY])


@given(st.lists(st.tuples(st.integers(60, 7000), st.booleans()), min_size=30, max_size=120))
def test_restarts_neither_repeat_nor_skip(steps: list[tuple[int, bool]]) -> None:
    """However often it restarts, each task is done once a period, late by no more than a step."""
    notes = Notes()
    schedule = Schedule(notes, 3, BOTH)
    now = NOW
    done: dict[str, list[int]] = {'hourly': [], 'daily': []}
    for step, restarts in steps:
        now += step
        if restarts:
            schedule = Schedule(notes, 3, BOTH)
        for task in schedule.due(now):
            done[task.name].append(now)
            schedule.done(task, now)
    for task in BOTH:
        times = done[task.name]
        # Before anything was asked nothing could be noted: the first look starts it.
        assert all(b - a >= task.period for a, b in pairwise(times))
        assert all(b - a < task.period + 7000 for a, b in pairwise(times))
        if now - NOW > 2 * task.period + 14_000:
            assert times


def test_a_time_from_the_future_does_not_stop_a_task_for_years() -> None:
    notes = Notes()
    Schedule(notes, 0, BOTH).done(HOURLY, NOW + 10**9)
    schedule = Schedule(notes, 0, BOTH)
    assert schedule.next(HOURLY, NOW) == NOW + HOURLY.period
    fresh = Schedule(Notes(), 0, BOTH)
    fresh.next(HOURLY, NOW + 10**9)
    assert fresh.next(HOURLY, NOW) <= NOW + HOURLY.period
