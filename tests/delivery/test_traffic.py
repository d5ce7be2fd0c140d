"""What came from whom is counted once its origin is proved, within bounds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from madmail.delivery import traffic as traffic_module
from madmail.delivery.traffic import KEEP_TIME, Ledger, Traffic
from madmail.store.control import Control


def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def test_counts_add_up_over_writings_and_shards(tmp_path: Path) -> None:
    control = Control(tmp_path)
    for _ in range(2):
        traffic = Traffic()
        ledger = Ledger(tmp_path, traffic, at_once)
        for origin in ('one.example', 'One.Example', '[IPv6:2001:DB8::1]', '', 'no domain'):
            traffic.arrived(origin)
        ledger.write()
        assert not traffic.origins
        ledger.write()
        traffic.arrived('one.example')
        ledger.stop()
    assert {domain: count for domain, (count, _) in control.inbound().items()} == {
        'one.example': 6,
        '[ipv6:2001:db8::1]': 2,
    }
    assert control.traffic()['received'] == 12


def test_what_comes_during_a_writing_or_could_not_be_written_is_kept(tmp_path: Path) -> None:
    control = Control(tmp_path)
    traffic = Traffic()

    def busy(function: Callable[..., Any], *arguments: Any) -> Any:
        function(*arguments)
        traffic.arrived('one.example')

    def broken(function: Callable[..., Any], *arguments: Any) -> Any:
        raise sqlite3.OperationalError('disk I/O error')

    traffic.arrived('one.example')
    Ledger(tmp_path, traffic, broken).write()
    Ledger(tmp_path, traffic, busy).write()
    assert traffic.origins == {'one.example': 1}
    assert control.inbound()['one.example'][0] == 1


def test_strangers_cannot_fill_memory(monkeypatch: Any) -> None:
    monkeypatch.setattr(traffic_module, 'ORIGINS_LIMIT', 3)
    traffic = Traffic()
    for _ in range(2):
        for number in range(9):
            traffic.arrived(f'{number}.example')
    assert traffic.origins == {'0.example': 2, '1.example': 2, '2.example': 2}
    assert traffic.received == 18


def test_strangers_cannot_fill_the_disk_and_the_silent_are_forgotten(tmp_path: Path) -> None:
    control = Control(tmp_path)
    now = 1_700_000_000
    control.add_inbound({'silent.example': 5}, now, 3, 0)
    control.add_inbound({'old.example': 5}, now + 50, 3, 0)
    later = now + 10 + KEEP_TIME
    control.add_inbound({'a.example': 1}, later, 3, later - KEEP_TIME)
    assert set(control.inbound()) == {'old.example', 'a.example'}
    control.add_inbound({f'{n}.example': n for n in range(1, 9)}, later + 1, 3, 0)
    assert control.inbound() == {f'{n}.example': (n, later + 1) for n in (6, 7, 8)}
