"""All clients come back at once: TLS, LOGIN, SELECT and IDLE for 10,000 accounts.

    python benchmarks/storm.py
    python benchmarks/storm.py --connections 2000 --at-once 500

Two storms: the clients of a running relay lose their connections (`warm`: it
remembers their passwords), and the relay was restarted (`cold`).  Prints JSON:
seconds until everybody is in IDLE, the relay's CPU a login, how long single
clients waited, and failures, which must be 0 (exit status 1 otherwise).  The
clients need as much CPU as the relay and share the machine with it; `wall` is
therefore an upper bound.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.clients import to_idle  # noqa: E402
from benchmarks.crowd import Crowd, allow, crowd, machine, quantiles  # noqa: E402


def storm(people: Crowd, count: int, at_once: int) -> dict[str, object]:
    dialogues = [('imaps', to_idle(*people.person(f'storm{n}'))) for n in range(count)]
    cpu, mine, began = people.relay.cpu(), time.process_time(), time.perf_counter()
    peers, times = people.wave(dialogues, at_once=at_once, timeout=120)
    wall = time.perf_counter() - began
    used, mine = people.relay.cpu() - cpu, time.process_time() - mine
    failures = Counter(peer.failure for peer in peers if peer.failure)
    people.close(list(peers))
    people.settle(2)
    return {
        'connections': count,
        'at_once': at_once,
        'wall_seconds': round(wall, 2),
        'relay_cpu_ms_per_login': round(used * 1e3 / count, 2),
        'client_cpu_ms_per_login': round(mine * 1e3 / count, 2),
        'waited': quantiles(times),
        'failures': sum(failures.values()),
        'first_failures': failures.most_common(3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--connections', type=int, default=10_000)
    parser.add_argument('--at-once', type=int, default=0, help='under way together; 0 = all')
    arguments = parser.parse_args()
    count = arguments.connections
    at_once = arguments.at_once or count
    allow(2 * count + 1000)
    result: dict[str, object] = {}
    with crowd() as people:
        result['first'] = storm(people, count, 200)  # makes the accounts
        result['warm'] = warm = storm(people, count, at_once)
        people.relay.stop(30)
        people.relay.start()
        result['cold'] = cold = storm(people, count, at_once)
    result['machine'] = machine()
    print(json.dumps(result, indent=1))
    return 1 if warm['failures'] or cold['failures'] else 0


if __name__ == '__main__':
    sys.exit(main())
