"""Sessions that work without end share one turn of the loop."""

from __future__ import annotations

import socket

import gevent
import pytest
from gevent import get_hub

from madmail.shard import turns
from madmail.shard.turns import LEAST, TURN, share, yield_to_others
from madmail.store.commit import SWITCH


def test_who_is_alone_has_the_whole_turn() -> None:
    assert share() == TURN
    yield_to_others()
    assert share() == TURN


def test_those_who_wait_share_the_turn() -> None:
    seen: list[float] = []

    def busy() -> None:
        for _ in range(5):
            seen.append(share())
            yield_to_others()

    gevent.joinall([gevent.spawn(busy) for _ in range(4)], raise_error=True)
    assert min(seen) == pytest.approx(TURN / 4)
    assert share() == TURN


def test_a_share_is_never_too_small_for_work() -> None:
    seen: list[float] = []

    def busy() -> None:
        for _ in range(3):
            seen.append(share())
            yield_to_others()

    gevent.joinall([gevent.spawn(busy) for _ in range(100)], raise_error=True)
    assert min(seen) == LEAST


def test_a_greenlet_that_is_killed_while_it_waits_does_not_count_any_more() -> None:
    greenlets = [gevent.spawn(yield_to_others) for _ in range(10)]
    gevent.sleep(0)
    gevent.killall(greenlets)
    assert turns._waiting == 0


def test_sockets_are_served_at_every_turn() -> None:
    """Not after fifty of them, as with gevent.sleep(0)."""
    ours, theirs = socket.socketpair()
    heard: list[int] = []
    sent: list[int] = []
    watcher = get_hub().loop.io(ours.fileno(), 1)
    watcher.start(lambda: heard.append(len(sent)) or ours.recv(1))
    try:
        for _ in range(10):
            sent.append(theirs.send(b'x'))
            yield_to_others()
            yield_to_others()
    finally:
        watcher.stop()
        watcher.close()
        ours.close()
        theirs.close()
    assert heard == list(range(1, 11))


def test_the_commit_thread_demands_the_gil_within_one_share() -> None:
    """A longer switch interval starts anew at each turn, and the thread never demands it."""
    assert SWITCH < LEAST
