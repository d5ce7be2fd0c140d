"""What mail between two relays costs, and whether a dead relay disturbs a live one; as JSON.

Two relays on this machine exchange signed mail over HTTPS with kept connections;
each asks the other's DKIM key from a name server in this process.

    latency    from the end of DATA at one to EXISTS at the other, one message at a time
    messages   8 senders, 50 receivers in IDLE at the other relay; CPU of each side
    refusing   latency while 10,000 messages wait for a relay whose port is closed
    silent     the same for one that accepts connections and never says anything

Goals are for a machine with nothing else to do.  See README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.clients import Dialogue, Loop, Lost, Peer, submit  # noqa: E402
from benchmarks.relay import Bench, Goals, compare, machine, record  # noqa: E402
from tests.delivery.name_server import NameServer  # noqa: E402
from tests.system.relay import Relay, free_ports  # noqa: E402
from tests.web.conftest import WebRelay  # noqa: E402

DEAD = 'dead.example'
RECEIVERS = 20
ROUNDS = 300  # messages of one measurement of latency

# figure: (unit, goal, smaller is better)
GOALS: Goals = {
    'federated_latency_p50': ('ms', 25.0, True),
    'federated_latency_p99': ('ms', 100.0, True),
    'federated_send_cpu': ('ms', None, True),
    'federated_receive_cpu': ('ms', None, True),
    'federated_messages_per_second': ('1/s', None, False),
    'refusing_latency_p50': ('ms', 100.0, True),
    'refusing_latency_p99': ('ms', None, True),
    'refusing_courier_memory': ('MB', None, True),
    'silent_latency_p50': ('ms', 100.0, True),
    'silent_latency_p99': ('ms', None, True),
    'silent_courier_memory': ('MB', None, True),
}


def courier_memory(relay: Relay) -> float:
    """PSS of the courier in MB."""
    [pid] = relay.pids('courier')
    for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
        if line.startswith('Pss:'):
            return int(line.split()[1]) / 1000
    raise Lost('no PSS')


def waiting(relay: Relay) -> int:
    """Messages to the dead relay."""
    status = json.loads(relay.cli('--json', 'federation', 'status').stdout)['data']
    return sum(row['queued_messages'] for row in status['traffic'] if row['domain'] == DEAD)


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    held: list[socket.socket] = []
    with socket.create_server(('127.0.0.1', 0), backlog=1000) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for stream in held:
            stream.close()


class Pair:
    """Mail goes from `one` to `two`."""

    def __init__(self, one: Relay, two: Relay, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.one, self.two = Bench(one, arguments), Bench(two, arguments)
        self.loop: Loop = self.one.loop
        self.two.loop = self.loop
        self.figures: dict[str, float] = {}

    def latencies(self, sender: Peer, receivers: list[Peer], count: int) -> list[float]:
        """Milliseconds, sorted."""
        address = self.one.person('sender0')[0]
        prepared = [self.one.data(address) for _ in range(count)]
        times: list[float] = []

        def dialogue(peer: Peer) -> Dialogue:
            for number, data in enumerate(prepared):
                index = number % len(receivers)
                receiver = receivers[index]
                to = self.two.person(f'receiver{index}')[0]
                got: list[float] = []
                receiver.arrived = lambda _, got=got: got.append(time.perf_counter())
                envelope = f'MAIL FROM:<{address}> BODY=8BITMIME\r\nRCPT TO:<{to}>\r\nDATA\r\n'
                peer.send(envelope.encode())
                yield b'354 '
                sent = time.perf_counter()
                peer.send(data)
                yield b'250 '
                while not got:
                    yield 0.0005
                times.append((got[0] - sent) * 1000)
                receiver.arrived = None

        sender.again(dialogue)
        self.loop.run(lambda: sender.finished, 120, 'latency')
        return sorted(times)

    def note(self, name: str, times: list[float]) -> None:
        self.figures[f'{name}_latency_p50'] = times[len(times) // 2]
        self.figures[f'{name}_latency_p99'] = times[int(len(times) * 0.99)]

    # -- parts
    def latency(self) -> None:
        receivers, [sender] = self.two.receivers(RECEIVERS), self.one.senders(1)
        self.latencies(sender, receivers, 40)  # warm
        self.note('federated', self.latencies(sender, receivers, ROUNDS))
        self.one.close(receivers, [sender])

    def messages(self) -> None:
        receivers, senders = self.two.receivers(50), self.one.senders(8)
        self.stream(senders, receivers, 20)  # warm
        each = self.arguments.messages // len(senders)
        count = each * len(senders)
        before = self.one.relay.cpu(), self.two.relay.cpu()
        wall = self.stream(senders, receivers, each)
        self.figures['federated_send_cpu'] = (self.one.relay.cpu() - before[0]) * 1000 / count
        self.figures['federated_receive_cpu'] = (self.two.relay.cpu() - before[1]) * 1000 / count
        self.figures['federated_messages_per_second'] = count / wall
        self.one.close(receivers, senders)

    def stream(self, senders: list[Peer], receivers: list[Peer], each: int) -> float:
        """Seconds until the last of all messages has arrived."""
        target = [peer.exists for peer in receivers]

        def run(number: int) -> Callable[[Peer], Dialogue]:
            address = self.one.person(f'sender{number}')[0]
            jobs = []
            for k in range(each):
                index = (number + k * len(senders)) % len(receivers)
                target[index] += 1
                jobs.append((self.two.person(f'receiver{index}')[0], self.one.data(address)))

            def dialogue(peer: Peer) -> Dialogue:
                for to, data in jobs:
                    yield from submit(peer, address, [to], data)

            return dialogue

        dialogues = [run(number) for number in range(len(senders))]
        began = time.perf_counter()
        for peer, dialogue in zip(senders, dialogues, strict=True):
            peer.again(dialogue)
        self.loop.run(
            lambda: all(p.exists >= n for p, n in zip(receivers, target, strict=True)),
            120,
            'EXISTS for every message',
        )
        return time.perf_counter() - began

    def refusing(self) -> None:
        self.beside('refusing', free_ports(1)[0])

    def silent(self) -> None:
        with silent() as port:
            self.beside('silent', port)

    def beside(self, name: str, port: int) -> None:
        """Latency of the living while much mail waits for the dead."""
        relay = self.one.relay
        relay.cli('endpoint-cache', 'set', DEAD, f'https://127.0.0.1:{port}')
        receivers, senders = self.two.receivers(RECEIVERS), self.one.senders(8)
        self.latencies(senders[0], receivers, 40)
        before = courier_memory(relay)
        each = self.arguments.queued // len(senders)

        def run(number: int) -> Callable[[Peer], Dialogue]:
            address = self.one.person(f'sender{number}')[0]

            def dialogue(peer: Peer) -> Dialogue:
                for k in range(each):
                    to = f'{number}-{k}@{DEAD}'
                    yield from submit(peer, address, [to], self.one.data(address))

            return dialogue

        for number, peer in enumerate(senders):
            peer.again(run(number))
        self.loop.run(lambda: all(p.finished for p in senders), 120, 'queueing')
        if (count := waiting(relay)) < each * len(senders):
            raise Lost(f'{count} messages wait')
        times = self.latencies(senders[0], receivers, ROUNDS)
        # For long enough that the dead one is tried some times more.
        end = time.perf_counter() + self.arguments.seconds
        while time.perf_counter() < end:
            times += self.latencies(senders[0], receivers, 50)
            self.one.settle(0.5)
        self.note(name, sorted(times))
        self.figures[f'{name}_courier_memory'] = courier_memory(relay)
        print(f'courier: {before:.1f} MB before', file=sys.stderr)
        self.one.close(receivers, senders)


PARTS = ('latency', 'messages', 'refusing', 'silent')


@contextlib.contextmanager
def pair(arguments: argparse.Namespace) -> Iterator[Pair]:
    """Two relays that know each other's address and key."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        names = stack.enter_context(NameServer())
        relays = []
        for name in ('one', 'two'):
            options: dict[str, Any] = {
                'domain': f'{name}.example',
                'processes': {'gates': 1, 'shards': 2},
                'dns': {'servers': [names.address]},
                'queue': {'first_retry': 2},
                'limits.quota': 0,
                'limits.federation_per_minute_per_ip': 0,
            }
            relay = stack.enter_context(WebRelay(directory / name, options))
            for one in json.loads(relay.cli('--json', 'dns').stdout)['data']['records']:
                if '_domainkey' in one['name']:
                    names.add(one['name'], one['type'], one['expected'])
            relays.append(relay)
        for relay, other in (relays, reversed(relays)):
            relay.cli(
                'endpoint-cache', 'set', other.domain, f'https://127.0.0.1:{other.web["https"]}'
            )
        bench = Pair(relays[0], relays[1], arguments)
        stack.callback(bench.loop.close)
        yield bench


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', default='', help=f'some of {",".join(PARTS)}')
    parser.add_argument('--messages', type=int, default=2000)
    parser.add_argument('--queued', type=int, default=10_000, help='messages to the dead relay')
    parser.add_argument('--seconds', type=float, default=10, help='beside the dead relay')
    parser.add_argument('--record', action='store_true', help='write baseline.json')
    parser.add_argument('--check', type=float, default=0, help='fail when worse by this factor')
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    for part in [part for part in arguments.only.split(',') if part] or PARTS:
        print(f'{part} …', file=sys.stderr, flush=True)
        with pair(arguments) as bench:  # fresh ones: what waits in a queue stays there
            getattr(bench, part)()
        figures.update((name, round(value, 4)) for name, value in bench.figures.items())
    good = compare(figures, arguments.check or float('inf'), GOALS)
    print(json.dumps({'figures': figures, 'machine': machine()}, indent=1))
    if arguments.record:
        record(figures)
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
