"""When a token is tried again, and what opens the breaker: rules, and a model of both."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from madmail.realtime.push import schedule
from madmail.realtime.push.schedule import Answer, Breaker, Told, meaning, next_try

LIFETIME = 18_000.0
FAILURES = (Answer.REFUSED, Answer.BUSY, Answer.DOWN)


@pytest.mark.parametrize(
    ('status', 'answer'),
    [
        (200, Answer.TAKEN),
        (204, Answer.TAKEN),
        (301, Answer.REFUSED),
        (400, Answer.REFUSED),
        (404, Answer.REFUSED),
        (408, Answer.BUSY),
        (410, Answer.GONE),
        (429, Answer.BUSY),
        (500, Answer.DOWN),
        (503, Answer.DOWN),
    ],
)
def test_what_a_status_means(status: int, answer: Answer) -> None:
    assert meaning(status) is answer


def test_pauses_grow_eightfold() -> None:
    moments = [next_try(Told(Answer.DOWN), tries, 0, 0, LIFETIME, 1.0) for tries in range(1, 6)]
    assert moments == [8, 64, 512, 4096, 0]


def test_what_is_refused_gets_a_second_try_and_no_more() -> None:
    assert next_try(Told(Answer.REFUSED), 1, 0, 0, LIFETIME, 1.0) == 8
    assert next_try(Told(Answer.REFUSED), 2, 0, 8, LIFETIME, 1.0) == 0


@given(
    since=st.floats(1e9, 2e9),
    late=st.floats(0, 2e4),
    answers=st.lists(st.sampled_from(FAILURES), max_size=20),
    factors=st.lists(st.floats(1.0, 1.2), min_size=20, max_size=20),
    delays=st.lists(st.floats(0, 5000), min_size=20, max_size=20),
)
def test_tries_are_few_spread_and_never_too_late(
    since: float, late: float, answers: list[Answer], factors: list[float], delays: list[float]
) -> None:
    """Whatever answers come and however long a moment is missed (the relay was down)."""
    now, moments = since + late, []
    for tries, (answer, factor, delay) in enumerate(zip(answers, factors, delays), 1):  # noqa: B905
        if now > since + LIFETIME:  # as the sender does
            break
        moments.append(now)
        moment = next_try(Told(answer), tries, since, now, LIFETIME, factor)
        if not moment:
            break
        pause = moment - now
        assert 8**tries * 0.999 <= pause <= 8**tries * 1.2001
        assert moment <= since + LIFETIME
        now = moment + delay
    assert len(moments) <= schedule.TRIES
    assert all(since <= moment <= since + LIFETIME for moment in moments)


def test_no_try_is_made_before_the_service_wants_it() -> None:
    asked = Told(Answer.BUSY, 100.0)
    assert next_try(asked, 1, 0, 0, LIFETIME, 1.2) == 120
    assert next_try(asked, 3, 0, 0, LIFETIME, 1.0) == 512
    assert next_try(asked, 1, 0, 0, 99, 1.0) == 0  # nobody wants it so late
    assert next_try(asked, 5, 0, 0, LIFETIME, 1.0) == 0


def test_who_asks_to_be_left_alone_is_and_not_for_ever() -> None:
    breaker = Breaker()
    breaker.told(Told(Answer.BUSY, 100.0), 0.0)
    breaker.told(Told(Answer.BUSY, 5.0), 1.0)  # asked before that
    breaker.told(Told(Answer.TAKEN), 2.0)
    assert breaker.wait(10.0) == breaker.held(10.0) == 90
    assert not breaker.admit(99.0)
    assert not breaker.open  # it is there
    assert breaker.admit(100.0)
    breaker.told(Told(Answer.DOWN, 1e9), 200.0)
    assert breaker.held(200.0) == schedule.LONGEST_PAUSE
    breaker.close()
    assert breaker.admit(200.0)


def test_spread_is_between_none_and_a_fifth() -> None:
    factors = [schedule.spread() for _ in range(1000)]
    assert all(1.0 <= factor <= 1.2 for factor in factors)
    assert len(set(factors)) > 900


class BreakerModel(RuleBasedStateMachine):
    """Requests overlap as they do with several connections."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1e9
        self.breaker = Breaker(lambda: 1.0)
        self.under_way: list[bool] = []  # whether the breaker was open when it was made
        self.row = 0  # failures since an answer
        self.opened_at = 0.0

    @rule(seconds=st.floats(0, 4000))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        was_open = self.breaker.open
        if self.breaker.admit(self.now):
            if was_open:
                assert True not in self.under_way  # one at a time asks how it is
                assert self.now >= self.opened_at + schedule.FIRST_PAUSE
            self.under_way.append(was_open)
        else:
            assert was_open  # nothing else keeps requests back
            assert self.breaker.wait(self.now) > 0

    @rule(answer=st.sampled_from(Answer), which=st.integers(0, 100))
    def end(self, answer: Answer, which: int) -> None:
        if not self.under_way:
            return
        # Of what was made before it opened, any may end; while one asks how it is, that one.
        probes = [place for place, probing in enumerate(self.under_way) if probing]
        self.under_way.pop(probes[0] if probes else which % len(self.under_way))
        was_open = self.breaker.open
        self.breaker.told(Told(answer), self.now)
        self.row = self.row + 1 if answer is Answer.DOWN else 0
        if self.breaker.open and not was_open:
            self.opened_at = self.now

    @rule()
    def vanish(self) -> None:
        """A request of which nobody knows how it ended."""
        if self.under_way:
            probes = [place for place, probing in enumerate(self.under_way) if probing]
            self.under_way.pop(probes[0] if probes else 0)
            self.breaker.unasked()

    @invariant()
    def is_open_only_after_failures_in_a_row(self) -> None:
        assert self.breaker.failures == self.row
        assert self.breaker.open == (self.row >= schedule.THRESHOLD)
        assert self.breaker.wait(self.now) <= schedule.LONGEST_PAUSE + 1

    @invariant()
    def never_stays_closed_to_a_service_for_ever(self) -> None:
        if not any(self.under_way):
            later = self.now + schedule.LONGEST_PAUSE + 1
            assert self.breaker.wait(later) == 0


TestBreaker = BreakerModel.TestCase
TestBreaker.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_pause_doubles_up_to_its_limit() -> None:
    breaker = Breaker(lambda: 1.0)
    now, pauses = 0.0, []
    for _ in range(schedule.THRESHOLD - 1):
        assert breaker.admit(now)
        breaker.told(Told(Answer.DOWN), now)
    for _ in range(8):
        assert breaker.admit(now)
        breaker.told(Told(Answer.DOWN), now)
        pauses.append(breaker.wait(now))
        now += pauses[-1]
    assert pauses == [60, 120, 240, 480, 960, 1800, 1800, 1800]
    assert breaker.admit(now)
    breaker.told(Told(Answer.GONE), now)  # the service answers
    assert not breaker.open
    assert breaker.wait(now) == 0


@pytest.mark.parametrize('answer', [one for one in Answer if one is not Answer.DOWN])
def test_only_real_outages_open_it(answer: Answer) -> None:
    breaker = Breaker()
    for _ in range(100):
        assert breaker.admit(0.0)
        breaker.told(Told(answer), 0.0)
    for _ in range(schedule.THRESHOLD - 1):
        breaker.told(Told(Answer.DOWN), 0.0)
    breaker.told(Told(answer), 0.0)
    assert not breaker.open
