"""What idle phones cost: 10,000 TLS connections in IDLE, each of its own account.

    python benchmarks/idle.py                        two and a half minutes
    python benchmarks/idle.py --connections 2000 --no-keepalive

Prints JSON: memory (PSS) of the whole relay a connection, CPU of the whole relay
over a sample in which nobody says anything, and what one keep-alive line costs
(the relay sends one to each client every 120 s).  See docs/performance.md for the
limits of the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.clients import Lost, to_idle  # noqa: E402
from benchmarks.crowd import Crowd, allow, crowd, machine  # noqa: E402
from madmail.imap.session import KEEPALIVE  # noqa: E402
from tests.system.relay import Relay  # noqa: E402

SAMPLE = 20.0  # seconds
TICK = 5.0  # seconds a keep-alive may be late


def by_process(relay: Relay) -> dict[str, float]:
    """PSS in MB by what the process is."""
    found: dict[str, float] = {}
    for pid in relay.processes():
        try:
            name = Path(f'/proc/{pid}/comm').read_text().strip()
            for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
                if line.startswith('Pss:'):
                    found[f'{name} {pid}'] = round(int(line.split()[1]) / 1e3, 1)
        except OSError:
            continue
    return found


def measure(people: Crowd, count: int, keepalive: bool) -> dict[str, object]:
    relay = people.relay
    dialogues = [('imaps', to_idle(*people.person(f'idle{n}'))) for n in range(count)]
    # The first of them warm up everything that is kept once for all.
    warm, _ = people.wave(dialogues[:200], at_once=100, timeout=60)
    people.close(list(warm))
    people.settle(2)
    before = relay.pss()
    cpu, began = relay.cpu(), time.perf_counter()
    peers, _ = people.wave(dialogues, at_once=200, timeout=60 + count * 0.02)
    connecting = time.perf_counter() - began
    lost = [peer.failure for peer in peers if peer.failure]
    if lost:
        raise Lost(f'{len(lost)} failed: {lost[0]}')
    last = time.perf_counter()
    connect_cpu = relay.cpu() - cpu
    people.settle(3)
    memory = relay.pss() - before
    cpu = relay.cpu()
    people.settle(SAMPLE)
    quiet = (relay.cpu() - cpu) / SAMPLE
    figures: dict[str, object] = {
        'connections': count,
        'base_mb': round(before / 1e6, 1),
        'pss_kb_per_connection': round(memory / 1e3 / count, 2),
        'connect_seconds': round(connecting, 1),
        'first_login_cpu_ms': round(connect_cpu * 1e3 / count, 2),
        'quiet_cpu_ms_per_second': round(quiet * 1e3, 1),
        'processes_mb': by_process(relay),
    }
    if keepalive:
        people.settle(max(0.0, began + KEEPALIVE - 1 - time.perf_counter()))
        cpu, started = relay.cpu(), time.perf_counter()
        people.settle(last + KEEPALIVE + TICK + 2 - started)
        used = relay.cpu() - cpu - quiet * (time.perf_counter() - started)
        figures['keepalive_cpu_us'] = round(used * 1e6 / count, 1)
        figures['cpu_ms_per_second_with_keepalive'] = round(quiet * 1e3 + used * 1e3 / KEEPALIVE, 1)
        figures['pss_kb_per_connection_afterwards'] = round((relay.pss() - before) / 1e3 / count, 2)
    people.close(list(peers))
    people.settle(3)
    figures['mb_above_base_after_all_left'] = round((relay.pss() - before) / 1e6, 1)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--connections', type=int, default=10_000)
    parser.add_argument('--no-keepalive', action='store_true', help='do not wait for one')
    arguments = parser.parse_args()
    allow(2 * arguments.connections + 1000)
    with crowd() as people:
        result = measure(people, arguments.connections, not arguments.no_keepalive)
    print(json.dumps({**result, 'machine': machine()}, indent=1))


if __name__ == '__main__':
    main()
