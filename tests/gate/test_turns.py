"""Handshakes take turns: few an iteration, begun ones first, newcomers never shut out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent import get_hub

from madmail.gate.turns import STEPS, Turns


def crowd(turns: Turns, order: list[Any], count: int, begun: bool) -> None:
    def step(number: int) -> Callable[[], None]:
        return lambda: order.append((begun, number))

    for number in range(count):
        turns.wait(step(number), begun)


def test_a_few_steps_an_iteration():
    turns = Turns(get_hub().loop, lambda error: None)
    taken = [turns.take(begun=False) for _ in range(STEPS + 3)]
    assert taken == [True] * STEPS + [False] * 3
    turns.close()


def test_who_has_begun_goes_first_and_newcomers_still_come_in():
    turns = Turns(get_hub().loop, lambda error: None)
    order: list[Any] = []
    while turns.take(begun=False):
        pass
    crowd(turns, order, 100, begun=False)
    crowd(turns, order, 30, begun=True)
    assert not turns.take(begun=True)
    gevent.sleep(0.3)
    assert len(order) == 130
    assert {begun for begun, _ in order[:STEPS]} == {True, False}
    # One newcomer an iteration while others have begun.
    until = max(index for index, (begun, _) in enumerate(order) if begun)
    assert sum(begun for begun, _ in order[: until + 1]) == 30
    newcomers = [number for begun, number in order if not begun]
    assert newcomers == list(range(100))
    assert sum(not begun for begun, _ in order[: until + 1]) <= 30 // (STEPS - 1) + 1
    turns.close()


def test_a_step_that_fails_is_reported_and_stops_nobody():
    failures: list[BaseException] = []
    turns = Turns(get_hub().loop, failures.append)
    order: list[Any] = []
    while turns.take(begun=False):
        pass
    turns.wait(lambda: order[5], begun=True)
    crowd(turns, order, 3, begun=False)
    gevent.sleep(0.05)
    assert len(order) == 3
    assert len(failures) == 1
    turns.close()
