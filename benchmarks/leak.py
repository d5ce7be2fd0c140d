"""Does memory grow?  200,000 messages and 20,000 connections, each process watched.

    python benchmarks/leak.py                                  about ten minutes
    python benchmarks/leak.py --messages 20000 --connects 2000

Load comes in rounds: 1,000 messages to 20 receivers that fetch and delete them
as a Delta Chat core does, then 100 connections that end in every way there is
(left in IDLE without LOGOUT, LOGOUT, wrong password, silence, no TLS at all,
submission that breaks off within DATA).  After each round the memory of every
process of the relay is read.  A tenth of the load warms up before.  `growth` is
the median of the last quarter of the readings minus that of the first; the exit
status is 1 when the resident memory of a process grew by more than its bound:

    shard      8 MB   SQLite's page caches (2 of 8 MB) fill as the file grows
    others     2 MB

A leak of 100 octets a message would be 20 MB.  PSS is given too, but pages that
processes no longer share move between them.  Prints JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.clients import Dialogue, Peer, core_round, to_idle  # noqa: E402
from benchmarks.clients import to_submission as submission  # noqa: E402
from benchmarks.crowd import Crowd, allow, crowd, machine  # noqa: E402
from tests.system.relay import Relay, plain_token  # noqa: E402

SENDERS, RECEIVERS, VISITORS = 8, 20, 50
BOUNDS = {'shard': 8.0, '': 2.0}  # MB a process may grow by in the full run

Memory = dict[str, tuple[float, float]]  # process: PSS and RSS in MB


def memory(relay: Relay) -> Memory:
    found: Memory = {}
    for pid in relay.processes():
        with contextlib.suppress(OSError):
            name = Path(f'/proc/{pid}/comm').read_text().strip()
            rows = dict(
                line.split(':')
                for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()[1:]
            )
            pss, rss = (int(rows[key].split()[0]) / 1e3 for key in ('Pss', 'Rss'))
            found[f'{name} {pid}'] = round(pss, 2), round(rss, 2)
    return found


# -- ways to come and go


def logout(address: str, password: str) -> Any:
    def dialogue(peer: Peer) -> Dialogue:
        yield from to_idle(address, password)(peer)
        peer.send(b'DONE\r\nA4 LOGOUT\r\n')
        yield b'A4 OK'

    return dialogue


def wrong(address: str) -> Any:
    def dialogue(peer: Peer) -> Dialogue:
        yield b'* OK'
        peer.send(f'A1 LOGIN {address} not-the-password\r\n'.encode())
        yield b'A1 NO'

    return dialogue


def silent(peer: Peer) -> Dialogue:
    yield b'* OK'


def broken_off(address: str, token: str) -> Any:
    def dialogue(peer: Peer) -> Dialogue:
        yield from submission(token)(peer)
        peer.send(f'MAIL FROM:<{address}>\r\nRCPT TO:<{address}>\r\nDATA\r\n'.encode())
        yield b'354 '
        peer.send(b'From: <%s>\r\nSubject: [...]\r\n\r\nunfinished' % address.encode())

    return dialogue


class Rounds:
    """The load, round after round."""

    def __init__(self, people: Crowd) -> None:
        self.people = people
        self.messages = self.connects = 0
        self.senders = people.senders(SENDERS)
        self.receivers = people.receivers(RECEIVERS)
        visitors = [people.person(f'visitor{n}') for n in range(VISITORS)]
        people.close(people.connect([('imaps', to_idle(*person)) for person in visitors]))
        self._visitors = visitors
        self._choice = random.Random(1)

    def close(self) -> None:
        self.people.close(self.senders, self.receivers)

    def mail(self, count: int) -> None:
        """`count` messages, of which the receivers then get rid."""
        people = self.people
        each = max(1, count // SENDERS)
        people.stream(self.senders, self.receivers, each, 120)
        for peer in self.receivers:
            peer.again(core_round)
        people.loop.run(lambda: all(p.finished for p in self.receivers), 60, 'fetching')
        self.messages += each * SENDERS

    def come_and_go(self, count: int) -> None:
        wave: list[tuple[str, Any]] = []
        for _ in range(count):
            address, password = self._choice.choice(self._visitors)
            wave.append(
                self._choice.choice(
                    [
                        ('imaps', to_idle(address, password)),
                        ('imaps', to_idle(address, password)),
                        ('imaps', logout(address, password)),
                        ('imaps', silent),
                        ('submissions', broken_off(address, plain_token(address, password))),
                        ('submissions', submission(plain_token(address, password))),
                    ]
                )
            )
        wave[0] = 'imaps', wrong(self._visitors[0][0])  # costs the relay a while: few
        peers, _ = self.people.wave(wave, at_once=50, timeout=60)
        failures = [peer.failure for peer in peers if peer.failure]
        if failures:
            raise RuntimeError(failures[0])
        for peer in peers:
            peer.close()
        for _ in range(3):  # without TLS, or with something else
            with socket.create_connection(('127.0.0.1', self.people.relay.ports['imaps'])) as plain:
                plain.sendall(b'GET / HTTP/1.0\r\n\r\n')
        self.connects += len(wave) + 3


def growth(samples: list[Memory], which: int = 0) -> dict[str, float]:
    """MB each process grew by from the first to the last quarter of the samples."""
    part = max(1, len(samples) // 4)
    found = {}
    for process in samples[-1]:
        values = [sample[process][which] for sample in samples if process in sample]
        first, last = values[:part], values[-part:]
        found[process] = round(statistics.median(last) - statistics.median(first), 2)
    return found


def run(
    people: Crowd, messages: int, connects: int, *, warm: tuple[int, int], rounds: int
) -> dict[str, Any]:
    """The load after a warm-up of so many messages and connects; figures by process."""
    load = Rounds(people)
    began = time.perf_counter()
    for _ in range(4):
        load.mail(warm[0] // 4)
        load.come_and_go(warm[1] // 4)
    load.messages = load.connects = 0
    samples: list[Memory] = []
    for turn in range(rounds):
        load.mail(messages // rounds)
        load.come_and_go(connects // rounds)
        people.settle(0.1)
        samples.append(memory(people.relay))
        if sys.stderr.isatty() or turn % 20 == 0:
            total = sum(pss for pss, _ in samples[-1].values())
            print(f'{load.messages} {load.connects} {total:.1f} MB', file=sys.stderr, flush=True)
    load.close()
    return {
        'messages': load.messages,
        'connects': load.connects,
        'seconds': round(time.perf_counter() - began),
        'growth_pss_mb': growth(samples),
        'growth_rss_mb': growth(samples, 1),
        'first': samples[0],
        'last': samples[-1],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--messages', type=int, default=200_000)
    parser.add_argument('--connects', type=int, default=20_000)
    parser.add_argument('--rounds', type=int, default=200)
    arguments = parser.parse_args()
    allow(4000)
    messages, connects = arguments.messages, arguments.connects
    with crowd() as people:
        warm = max(messages // 10, 800), max(connects // 10, 80)
        result = run(people, messages, connects, warm=warm, rounds=arguments.rounds)
    result['bounds_mb'] = BOUNDS
    result['machine'] = machine()
    print(json.dumps(result, indent=1))
    grown = [
        process
        for process, by in result['growth_rss_mb'].items()
        if by > (BOUNDS['shard'] if 'shard' in process else BOUNDS[''])
    ]
    return 1 if grown else 0


if __name__ == '__main__':
    sys.exit(main())
