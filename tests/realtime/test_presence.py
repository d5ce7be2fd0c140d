"""A service is known while it answers, and no longer."""

from __future__ import annotations

import gevent
import pytest

from madmail.bus.embedded import Bus
from madmail.realtime import presence
from madmail.realtime.presence import Presence, Prober


class TwoProcesses:
    """Two ends of a bus, each telling the other at once."""

    def __init__(self) -> None:
        self.service = Bus(lambda frame: self.shard.arrived(frame['topic'], frame['data']))
        self.shard = Bus(lambda frame: self.service.arrived(frame['topic'], frame['data']))


def test_is_known_once_the_probe_succeeds_and_gone_when_it_stops() -> None:
    two = TwoProcesses()
    known = Presence(two.shard)
    prober = Prober('turn', two.service, lambda: True)
    assert not known.has('turn')
    prober.start()
    gevent.sleep(0.01)
    assert known.has('turn')
    assert not known.has('iroh')
    prober.stop()
    assert not known.has('turn')


def test_a_process_that_begins_later_is_told() -> None:
    two = TwoProcesses()
    prober = Prober('turn', two.service, lambda: True)
    prober.start()
    gevent.sleep(0.01)
    assert Presence(two.shard).has('turn')
    prober.stop()


@pytest.mark.parametrize('error', [OSError, ValueError])
def test_a_probe_that_breaks_means_no(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, 'INTERVAL', 0.01)
    two = TwoProcesses()
    known = Presence(two.shard)
    outcomes = iter([True, True, error()])

    def probe() -> bool:
        outcome = next(outcomes, error())
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    prober = Prober('turn', two.service, probe)
    prober.start()
    gevent.sleep(0.005)
    assert known.has('turn')
    gevent.sleep(0.1)
    assert not known.has('turn')
    prober.stop()


def test_silence_is_an_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, 'LASTS', 0.05)
    two = TwoProcesses()
    known = Presence(two.shard)
    two.service.publish('service', {'name': 'iroh', 'up': True})
    assert known.has('iroh')
    gevent.sleep(0.1)
    assert not known.has('iroh')


def test_a_service_of_two_processes_is_there_while_one_is() -> None:
    two = TwoProcesses()
    known = Presence(two.shard)
    one, other = (Prober('turn', two.service, lambda: True) for _ in range(2))
    one.start()
    other.start()
    gevent.sleep(0.01)
    one.stop()
    assert known.has('turn')
    other.stop()
    assert not known.has('turn')


def test_who_asks_early_is_told_what_is_so_a_moment_later() -> None:
    two = TwoProcesses()
    prober = Prober('turn', two.service, lambda: gevent.sleep(0.05) or True)
    prober.start()
    gevent.sleep(0)  # its first probe is under way
    known = Presence(two.shard, patience=60.0)
    known.settle('turn')
    assert known.has('turn')
    prober.stop()
    known.settle('turn')  # known to be gone
    assert not known.has('turn')


def test_nobody_waits_for_long_for_what_does_not_begin() -> None:
    known = Presence(TwoProcesses().shard, patience=0.05)
    known.settle('turn')
    assert not known.has('turn')
