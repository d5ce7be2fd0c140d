"""What the relay costs: CPU, latency, memory, throughput; as JSON, beside a recorded baseline.

The relay runs in its own processes, the load in this one; server figures are
read from /proc for the relay's processes only.  CPU time and ratios count,
wall times on a shared machine are noise.  See README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import resource
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.clients import (  # noqa: E402
    Dialogue,
    Loop,
    Lost,
    Peer,
    core_round,
    submit,
    to_idle,
    to_submission,
)
from tests.system import mail  # noqa: E402
from tests.system.relay import Relay, plain_token  # noqa: E402

BASELINE = Path(__file__).with_name('baseline.json')
Person = tuple[str, str]

# figure: (unit, goal, smaller is better)
Goals = dict[str, tuple[str, float | None, bool]]
GOALS: Goals = {
    'message_cpu': ('ms', 1.0, True),
    'message_cpu_one_at_a_time': ('ms', None, True),
    'message_cpu_with_download': ('ms', None, True),
    'latency_p50': ('ms', 3.0, True),
    'latency_p99': ('ms', 15.0, True),
    'fanout_delivery_cpu': ('ms', 0.2, True),
    'messages_per_second': ('1/s', 1500.0, False),
    'pss_per_idle_connection': ('KB', 35.0, True),
    'idle_cpu_per_1000_connections': ('ms/s', None, True),
    'login_cpu': ('ms', 1.5, True),
    'reconnect_wall': ('s', 15.0, True),
    'reconnect_cpu': ('ms', None, True),
    'big_message_memory': ('MB', 3.0, True),
    'big_message_seconds': ('s', None, True),
    'big_fetch_memory': ('MB', 3.0, True),
    'base_memory': ('MB', None, True),
    'large_mailbox_open_cpu': ('ms', None, True),
    'large_mailbox_open_ratio': ('', 1.2, True),
    'large_mailbox_use_ratio': ('', 1.2, True),
}


class Bench:
    def __init__(self, relay: Relay, arguments: argparse.Namespace) -> None:
        self.relay = relay
        self.arguments = arguments
        self.loop = Loop()
        self.figures: dict[str, float] = {}
        self.people: dict[str, Person] = {}

    # -- scenery
    def person(self, name: str) -> Person:
        if name not in self.people:
            self.people[name] = (f'{name}-bench@{self.relay.domain}', f'password-{name}')
        return self.people[name]

    def connect(self, dialogues: list[tuple[str, Callable[[Peer], Dialogue]]]) -> list[Peer]:
        """Open all connections, at most 200 under way at a time; back when all are through."""
        waiting = list(reversed(dialogues))
        peers: list[Peer] = []
        active: list[Peer] = []

        def more() -> bool:
            nonlocal active
            active = [peer for peer in active if not peer.finished]
            while waiting and len(active) < 200:
                listener, dialogue = waiting.pop()
                peer = Peer(self.loop, self.relay.ports[listener], dialogue)
                peers.append(peer)
                active.append(peer)
            return not waiting and not active

        self.loop.run(more, 30 + len(dialogues) * 0.05, 'connecting')
        return peers

    def receivers(self, count: int) -> list[Peer]:
        names = [self.person(f'receiver{n}') for n in range(count)]
        return self.connect([('imaps', to_idle(*person)) for person in names])

    def senders(self, count: int) -> list[Peer]:
        people = [self.person(f'sender{n}') for n in range(count)]
        tokens = [plain_token(*person) for person in people]
        return self.connect([('submissions', to_submission(token)) for token in tokens])

    def close(self, *groups: list[Peer]) -> None:
        for group in groups:
            for peer in group:
                peer.close()
        time.sleep(0.3)  # the relay notices

    def settle(self, seconds: float = 0.5) -> None:
        end = time.perf_counter() + seconds
        self.loop.run(lambda: time.perf_counter() > end, seconds + 5, 'settling')

    def data(self, sender: str, size: int = 3000) -> bytes:
        return mail.dotted(mail.encrypted(sender, size=size))

    def stream(
        self, senders: list[Peer], receivers: list[Peer], each: int, timeout: float
    ) -> tuple[float, float]:
        """Each sender sends `each` messages to the receivers in turn; CPU and wall seconds."""
        target = [peer.exists for peer in receivers]
        jobs: list[list[tuple[str, bytes]]] = []
        for number in range(len(senders)):
            address = self.person(f'sender{number}')[0]
            job = []
            for k in range(each):
                index = (number + k * len(senders)) % len(receivers)
                target[index] += 1
                job.append((self.person(f'receiver{index}')[0], self.data(address)))
            jobs.append(job)

        def run(number: int) -> Callable[[Peer], Dialogue]:
            address = self.person(f'sender{number}')[0]

            def dialogue(peer: Peer) -> Dialogue:
                for to, data in jobs[number]:
                    yield from submit(peer, address, [to], data)

            return dialogue

        gc.collect()
        gc.disable()
        cpu, began = self.relay.cpu(), time.perf_counter()
        for number, peer in enumerate(senders):
            peer.again(run(number))
        self.loop.run(lambda: all(p.finished for p in senders), timeout, 'sending')
        wall = time.perf_counter() - began
        self.loop.run(
            lambda: all(p.exists >= n for p, n in zip(receivers, target, strict=True)),
            20,
            'EXISTS for every message',
        )
        used = self.relay.cpu() - cpu
        gc.enable()
        return used, wall

    # -- figures
    def messages(self) -> None:
        """Throughput and CPU a message, 8 senders to 50 receivers in IDLE."""
        receivers, senders = self.receivers(50), self.senders(8)
        self.stream(senders, receivers, 40, 60)  # warm
        each = self.arguments.messages // 8
        cpu, wall = self.stream(senders, receivers, each, 120)
        self.figures['message_cpu'] = cpu * 1000 / (each * 8)
        self.figures['messages_per_second'] = each * 8 / wall
        self.close(receivers, senders)

    def latency(self) -> None:
        """One message at a time over 20 receivers: end of DATA to EXISTS, and its CPU."""
        receivers, senders = self.receivers(20), self.senders(1)
        self.settle()
        (sender,) = senders
        address = self.person('sender0')[0]
        count = 400
        prepared = [self.data(address) for _ in range(count)]
        times: list[float] = []

        def dialogue(peer: Peer) -> Dialogue:
            for number, data in enumerate(prepared):
                index = number % len(receivers)
                receiver = receivers[index]
                sent = 0.0
                got: list[float] = []
                receiver.arrived = lambda _, got=got: got.append(time.perf_counter())
                envelope = (
                    f'MAIL FROM:<{address}> BODY=8BITMIME\r\n'
                    f'RCPT TO:<{self.person(f"receiver{index}")[0]}>\r\nDATA\r\n'
                )
                peer.send(envelope.encode())
                yield b'354 '
                sent = time.perf_counter()
                peer.send(data)
                yield b'250 '
                while not got:
                    yield 0.0005
                times.append(got[0] - sent)
                receiver.arrived = None

        cpu = self.relay.cpu()
        sender.again(dialogue)
        self.loop.run(lambda: sender.finished, 120, 'latency')
        self.figures['message_cpu_one_at_a_time'] = (self.relay.cpu() - cpu) * 1000 / count
        times.sort()
        self.figures['latency_p50'] = times[len(times) // 2] * 1000
        self.figures['latency_p99'] = times[int(len(times) * 0.99)] * 1000
        self.close(receivers, senders)

    def download(self) -> None:
        """A message with everything: submission, notification, and a core's round to fetch it."""
        receivers, senders = self.receivers(4), self.senders(1)
        for peer in receivers:
            peer.again(core_round)
        self.loop.run(lambda: all(p.finished for p in receivers), 60, 'emptying')
        (sender,) = senders
        address = self.person('sender0')[0]
        count = 200

        def dialogue(peer: Peer) -> Dialogue:
            for number in range(count):
                receiver = receivers[number % 4]
                to = self.person(f'receiver{number % 4}')[0]
                before = receiver.exists
                yield from submit(peer, address, [to], self.data(address))
                while receiver.exists == before:
                    yield 0.0005
                receiver.again(core_round)
                while not receiver.finished:
                    yield 0.0005

        cpu = self.relay.cpu()
        sender.again(dialogue)
        self.loop.run(lambda: sender.finished, 120, 'download')
        self.figures['message_cpu_with_download'] = (self.relay.cpu() - cpu) * 1000 / count
        self.close(receivers, senders)

    def fanout(self) -> None:
        """50 recipients in one transaction."""
        receivers, senders = self.receivers(50), self.senders(1)
        (sender,) = senders
        address = self.person('sender0')[0]
        to = [self.person(f'receiver{n}')[0] for n in range(50)]
        count = 40
        prepared = [self.data(address) for _ in range(count + 2)]

        def run(messages: list[bytes]) -> None:
            target = [peer.exists + len(messages) for peer in receivers]

            def dialogue(peer: Peer) -> Dialogue:
                for data in messages:
                    yield from submit(peer, address, to, data)

            sender.again(dialogue)
            self.loop.run(lambda: sender.finished, 60, 'fan-out')
            self.loop.run(
                lambda: all(p.exists >= n for p, n in zip(receivers, target, strict=True)),
                20,
                'EXISTS after fan-out',
            )

        run(prepared[:2])
        cpu = self.relay.cpu()
        run(prepared[2:])
        self.figures['fanout_delivery_cpu'] = (self.relay.cpu() - cpu) * 1000 / (count * 50)
        self.close(receivers, senders)

    def logins(self) -> None:
        """Connect, TLS, LOGIN, SELECT, IDLE for accounts that exist and are known."""
        people = [self.person(f'receiver{n}') for n in range(50)]
        dialogues = [('imaps', to_idle(*people[n % 50])) for n in range(500)]
        self.close(self.connect(dialogues[:100]))
        cpu = self.relay.cpu()
        peers = self.connect(dialogues)
        self.figures['login_cpu'] = (self.relay.cpu() - cpu) * 1000 / len(dialogues)
        self.close(peers)

    def connections(self) -> None:
        """Memory and waking cost of idle connections; then all of them come back at once."""
        count = self.arguments.connections
        people = [self.person(f'idle{n}') for n in range(count)]
        dialogues = [('imaps', to_idle(*person)) for person in people]
        self.close(self.connect(dialogues[:200]))
        time.sleep(2)
        before = self.relay.pss()
        self.figures['base_memory'] = before / 1e6
        peers = self.connect(dialogues)
        self.settle(5)
        self.figures['pss_per_idle_connection'] = (self.relay.pss() - before) / 1000 / count
        cpu = self.relay.cpu()
        self.settle(10)
        self.figures['idle_cpu_per_1000_connections'] = (
            (self.relay.cpu() - cpu) * 1000 / 10 / (count / 1000)
        )
        self.close(peers)
        cpu, began = self.relay.cpu(), time.perf_counter()
        peers = self.connect(dialogues)
        self.figures['reconnect_wall'] = time.perf_counter() - began
        self.figures['reconnect_cpu'] = (self.relay.cpu() - cpu) * 1000 / count
        self.close(peers)

    def big(self) -> None:
        """One message of almost 30 MB in and out; how much more memory the relay ever held."""
        sender, receiver = self.person('sender0'), self.person('bigreceiver')
        self.close(self.connect([('imaps', to_idle(*receiver))]))
        data = mail.dotted(mail.encrypted(sender[0], size=29_500_000))
        before = self.relay.pss()
        peaks = Peak(self.relay)
        with self.relay.smtp(*sender, timeout=120) as smtp:
            smtp.mail(sender[0])
            smtp.rcpt(receiver[0])
            smtp.docmd('DATA')
            began = time.perf_counter()
            with peaks:
                smtp.send(data)
                code, text = smtp.getreply()
        if code != 250:
            raise Lost(f'{code} {text!r}')
        self.figures['big_message_seconds'] = time.perf_counter() - began
        self.figures['big_message_memory'] = (peaks.most - before) / 1e6
        before = self.relay.pss()
        context = self.loop.context
        with (
            self.relay.connect('imaps', timeout=120) as stream,
            stream.makefile('rwb') as wire,
        ):
            assert isinstance(stream, ssl.SSLSocket)
            assert context is not None
            wire.readline()
            wire.write(f'1 LOGIN "{receiver[0]}" "{receiver[1]}"\r\n2 SELECT INBOX\r\n'.encode())
            wire.flush()
            while not wire.readline().startswith(b'2 OK'):
                pass
            wire.write(b'3 FETCH 1 BODY.PEEK[]\r\n')
            wire.flush()
            got = 0
            with Peak(self.relay) as peaks:
                while not (line := wire.readline()).startswith(b'3 OK'):
                    got += len(line)
        if got < 29_000_000:
            raise Lost(f'{got} octets came back')
        self.figures['big_fetch_memory'] = (peaks.most - before) / 1e6

    def mailbox(self) -> None:
        """Login with SELECT, then STATUS and FETCH, in a mailbox of many and one of 100."""
        costs = []
        for count in (100, self.arguments.mailbox):
            inbox = self.relay.imap(*self.person(f'mailbox{count}'), timeout=120)
            address = self.person(f'mailbox{count}')[0]
            message = mail.encrypted(address, size=1500)
            inbox.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, count, 50):
                batch = min(50, count - start)
                inbox.send(b'm APPEND INBOX' + (b' {%d+}\r\n%s' % (len(message), message)) * batch)
                inbox.send(b'\r\n')
                line = inbox.readline()
                while not line.startswith(b'm '):
                    line = inbox.readline()
                if not line.startswith(b'm OK'):
                    raise Lost(repr(line))
            inbox.logout()
            opened, looked = 0.0, 0.0
            for _ in range(20):
                time.sleep(0.05)
                cpu = self.relay.cpu()
                inbox = self.relay.imap(*self.person(f'mailbox{count}'), timeout=120)
                inbox.send(b'n1 SELECT INBOX\r\n')
                while not inbox.readline().startswith(b'n1 OK'):
                    pass
                opened += self.relay.cpu() - cpu
                cpu = self.relay.cpu()
                for number in range(50):
                    inbox.send(
                        b'n2 STATUS INBOX (MESSAGES UIDNEXT UNSEEN)\r\n'
                        b'n3 FETCH %d (FLAGS BODY.PEEK[])\r\n' % (count - number)
                    )
                    while not inbox.readline().startswith(b'n3 OK'):
                        pass
                looked += self.relay.cpu() - cpu
                inbox.logout()
            costs.append((opened, looked))
        for index, name in enumerate(('large_mailbox_open', 'large_mailbox_use')):
            self.figures[f'{name}_ratio'] = costs[1][index] / max(costs[0][index], 0.01)
        self.figures['large_mailbox_open_cpu'] = costs[1][0] * 1000 / 20


class Peak:
    """The most memory the relay holds while this context is open."""

    def __init__(self, relay: Relay) -> None:
        self.most = 0
        self._relay = relay
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.most = max(self.most, self._relay.pss())
            self._stop.wait(0.02)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


PARTS = ('logins', 'messages', 'latency', 'download', 'fanout', 'big', 'connections')


def keep_best(best: dict[str, float], figures: dict[str, float]) -> None:
    """Of several runs the best counts: what disturbs only ever adds."""
    for name, value in figures.items():
        choose = min if GOALS[name][2] else max
        best[name] = choose(value, best.get(name, value))


def compare(figures: dict[str, float], worse_by: float, goals: Goals = GOALS) -> bool:
    """Print the figures beside baseline and goal; whether none is worse than allowed."""
    recorded = json.loads(BASELINE.read_text())['figures'] if BASELINE.exists() else {}
    good = True
    print(f'{"figure":32} {"now":>10} {"baseline":>10} {"ratio":>6} {"goal":>8}', file=sys.stderr)
    for name, (unit, goal, smaller) in goals.items():
        if name not in figures:
            continue
        now, then = figures[name], recorded.get(name)
        ratio = now / then if then else None
        mark = ''
        if goal is not None and (now > goal if smaller else now < goal):
            mark = ' misses the goal'
        # Where the baseline is almost nothing the ratio says nothing; the goal does.
        trifle = goal is not None and smaller and (then or 0) < goal / 10 and now <= goal
        if ratio and not trifle and (ratio > worse_by if smaller else ratio < 1 / worse_by):
            mark += ' WORSE'
            good = False
        print(
            f'{name:32} {now:10.3f} {then if then is not None else float("nan"):10.3f} '
            f'{ratio if ratio else float("nan"):6.2f} '
            f'{goal if goal is not None else float("nan"):8.2f} {unit}{mark}',
            file=sys.stderr,
        )
    return good


def machine() -> dict[str, Any]:
    return {
        'cpus': os.cpu_count(),
        'python': platform.python_version(),
        'kernel': platform.release(),
        'load_average': round(os.getloadavg()[0], 2),
    }


def record(figures: dict[str, float], **more: Any) -> None:
    """Put these into the baseline; other figures stay."""
    kept = json.loads(BASELINE.read_text()) if BASELINE.exists() else {'figures': {}}
    kept['figures'].update(figures)
    BASELINE.write_text(json.dumps({**kept, **more}, indent=1) + '\n')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', default='', help=f'some of {",".join(PARTS)},mailbox')
    parser.add_argument('--messages', type=int, default=4000)
    parser.add_argument('--connections', type=int, default=2000)
    parser.add_argument('--mailbox', type=int, default=0, help='messages; slow, off by default')
    parser.add_argument('--repeat', type=int, default=1, help='times; the best figures count')
    parser.add_argument('--record', action='store_true', help='write baseline.json')
    parser.add_argument('--check', type=float, default=0, help='fail when worse by this factor')
    parser.add_argument('--option', action='append', default=[], help='processes.gates=1 and such')
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # only root may ask for more
        hard = max(hard, 100_000)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    parts = [part for part in arguments.only.split(',') if part] or list(PARTS)
    if arguments.mailbox and 'mailbox' not in parts:
        parts.append('mailbox')
    options: dict[str, Any] = {
        'processes': {'gates': 'auto', 'shards': 'auto'},
        'limits.connections': 0,
        'limits.quota': 0,
        'limits.sessions_per_account': 0,
    }
    for pair in arguments.option:
        name, _, value = pair.partition('=')
        options[name] = int(value) if value.isdigit() else value
    figures: dict[str, float] = {}
    for _ in range(arguments.repeat):
        # A fresh relay each time: memory once grown is not grown again.
        with tempfile.TemporaryDirectory() as directory, Relay(Path(directory), options) as relay:
            bench = Bench(relay, arguments)
            try:
                for part in parts:
                    print(f'{part} …', file=sys.stderr, flush=True)
                    getattr(bench, part)()
            finally:
                bench.loop.close()
        keep_best(figures, bench.figures)
    result = {
        'figures': {name: round(value, 4) for name, value in figures.items()},
        'machine': machine(),
        'load': {'messages': arguments.messages, 'connections': arguments.connections},
    }
    good = compare(figures, arguments.check or float('inf'))
    print(json.dumps(result, indent=1))
    if arguments.record:
        record(result['figures'], machine=result['machine'], load=result['load'])
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
