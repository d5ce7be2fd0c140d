"""No process of the relay grows with the messages and connections it has served.

The short form of benchmarks/leak.py.  The bounds leave room for caches that
fill (SQLite's pages, remembered accounts) and are far below what one kept
connection (17 KB) or message (3 KB) each would make.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.crowd import OPTIONS, Crowd
from benchmarks.leak import run
from tests.system.relay import Relay

BOUND = 2.0  # MB
SHARD_BOUND = 4.0  # MB; the page caches fill


def test_memory_stays_over_3000_messages_and_1000_connections(tmp_path: Path):
    options = {**OPTIONS, 'processes': {'gates': 1, 'shards': 1}}
    with Relay(tmp_path / 'relay', options) as relay:
        people = Crowd(relay)
        try:
            result = run(people, 3000, 1000, warm=(1000, 400), rounds=10)
            alive = relay.processes()
        finally:
            people.loop.close()
    assert result['messages'] == 3000 // 10 // 8 * 8 * 10
    assert result['connects'] >= 1000
    growth = result['growth_rss_mb']
    assert len(growth) == len(alive) >= 4  # none was replaced by a fresh one
    assert result['first'].keys() == result['last'].keys()
    for process, grown in growth.items():
        assert grown < (SHARD_BOUND if 'shard' in process else BOUND), growth
