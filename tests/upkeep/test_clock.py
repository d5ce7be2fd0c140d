"""The clock: when it is believed, and when nothing may go by it."""

from __future__ import annotations

import pytest

from madmail.upkeep.clock import DAY, HOLD, JUMP, YEAR, Clock

NOW = 1_800_000_000


class Notes:
    """A store's notes, and the newest message it has."""

    def __init__(self, newest: int = 0) -> None:
        self.kept: dict[str, int] = {}
        self._newest = newest

    def note(self, name: str) -> int | None:
        return self.kept.get(name)

    def set_note(self, name: str, value: int) -> None:
        self.kept[name] = value

    def newest(self) -> int:
        return self._newest


class Time:
    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def time(notes: Notes) -> Time:
    return Time()


def test_an_empty_relay_believes_its_clock(notes: Notes, time: Time) -> None:
    assert Clock(notes, time).check() == ''


def test_a_machine_that_boots_in_1970_removes_nothing(notes: Notes, time: Time) -> None:
    assert Clock(notes, time).check() == ''
    time.now = 60
    assert Clock(notes, time).check() == 'behind'


def test_without_notes_the_newest_message_says_what_is_behind(time: Time) -> None:
    time.now = 60
    assert Clock(Notes(newest=NOW), time).check() == 'behind'
    time.now = NOW + 2 * YEAR
    assert Clock(Notes(newest=NOW), time).check() == 'ahead'


def test_a_clock_that_comes_right_again_is_believed(notes: Notes, time: Time) -> None:
    clock = Clock(notes, time)
    clock.check()
    for wrong, said in ((60, 'behind'), (NOW + 10 * YEAR, 'ahead')):
        time.now = wrong
        assert clock.check() == said
        time.now = NOW + 100
        assert clock.check() == ''


def test_after_weeks_of_rest_it_waits_a_day_and_goes_on(notes: Notes, time: Time) -> None:
    Clock(notes, time).check()
    began = time.now = NOW + 30 * DAY
    while time.now < began + HOLD:
        assert Clock(notes, time).check() == 'ahead'  # also over restarts
        time.now += HOLD // 5
    assert Clock(notes, time).check() == ''
    assert Clock(notes, time).check() == ''


def test_a_second_leap_begins_the_wait_anew(notes: Notes, time: Time) -> None:
    clock = Clock(notes, time)
    clock.check()
    time.now = NOW + 30 * DAY
    assert clock.check() == 'ahead'
    time.now = NOW + 60 * DAY
    assert clock.check() == 'ahead'
    time.now += HOLD
    assert clock.check() == ''


def test_a_leap_of_years_is_only_for_the_operator_to_accept(notes: Notes, time: Time) -> None:
    clock = Clock(notes, time)
    clock.check()
    time.now = NOW + 2 * YEAR
    for _ in range(50):
        assert clock.check() == 'ahead'
        time.now += DAY
    clock.trust()
    assert clock.check() == ''
    assert Clock(notes, time).check() == ''


def test_small_steps_and_short_rests_do_not_matter(notes: Notes, time: Time) -> None:
    clock = Clock(notes, time)
    for step in (60, -120, JUMP, -DAY // 2, 3600, JUMP):
        time.now += step
        assert clock.check() == ''
        clock = Clock(notes, time)
