"""The iroh relay: what idle nodes cost, how it takes a storm, how many packets it passes.

    python -m benchmarks.iroh                     a minute and a half
    python -m benchmarks.iroh --clients 1000 --way https

Idle: `--clients` native nodes of iroh 0.35, each with its own key, that ping as real ones
do; memory is the proportional set size of the relay's process for them (with `--way https`
of the web worker as well, which ends TLS), CPU of a quiet sample.  Storm: all of them lose
their connections at once and come back at once, first while the relay goes on, then because
its process was killed; how long until each has its first pong, and how long packets of two
others took meanwhile.  Packets: `--pairs` nodes
send to as many others as fast as they may, small packets and large ones, without the limit
of a connection's rate; before that one at a time.  The clients share the machine with the
relay, so times and rates are bounds; CPU of the relay's process is what to compare.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import select
import signal
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.crowd import allow, machine, quantiles  # noqa: E402
from madmail.realtime.iroh import derp, handshake  # noqa: E402
from tests.system.relay import Relay, client_tls, free_ports  # noqa: E402
from tests.web.conftest import WebRelay  # noqa: E402

SAMPLE = 20.0  # seconds
SILENCE = 15.0  # seconds after which a client pings
ASK = b'GET /relay HTTP/1.1\r\nupgrade: iroh derp http\r\nhost: 127.0.0.1\r\n\r\n'
PING = derp.frame(derp.PING, b'12345678')
PONG = derp.frame(derp.PONG, b'12345678')
OPEN = {
    'iroh.connections': 0,
    'iroh.connections_per_ip': 0,
    'iroh.connects_per_minute_per_ip': 0,
    'iroh.rate': 0,
    'limits.connections_per_ip': 0,
}


class Client:
    """A node without a loop of its own; `state` goes from connecting to idle."""

    __slots__ = ('began', 'buffer', 'heard', 'hello', 'key', 'state', 'stream', 'took')

    def __init__(self) -> None:
        secret = Ed25519PrivateKey.generate()
        self.key = secret.public_key().public_bytes_raw()
        self.hello = handshake.introduce(secret) + PING
        self.state = 'closed'
        self.buffer = b''
        self.began = self.heard = self.took = 0.0
        self.stream: Any = None


class Nodes:
    """Many clients on one epoll."""

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self.port = port
        self.tls = tls
        self.poll = select.epoll()
        self.by_descriptor: dict[int, Client] = {}
        self.failures = 0
        self.again: list[tuple[float, Client]] = []

    def open(self, client: Client, began: float) -> None:
        client.began = began
        client.buffer = b''
        client.state = 'connecting'
        stream: Any = socket.socket()
        stream.setblocking(False)
        error = stream.connect_ex(('127.0.0.1', self.port))
        if error not in (0, errno.EINPROGRESS):
            stream.close()
            self.retry(client)
            return
        client.stream = stream
        self.by_descriptor[stream.fileno()] = client
        self.poll.register(stream.fileno(), select.EPOLLOUT)

    def retry(self, client: Client) -> None:
        """As clients do that were not served: a little later."""
        self.failures += 1
        client.state = 'closed'
        self.again.append((time.perf_counter() + 0.25, client))

    def close(self, client: Client) -> None:
        if client.stream is not None:
            self.by_descriptor.pop(client.stream.fileno(), None)
            with contextlib.suppress(OSError):
                self.poll.unregister(client.stream.fileno())
            client.stream.close()
            client.stream = None
        client.state = 'closed'

    def turn(self, timeout: float = 0.1) -> None:
        now = time.perf_counter()
        while self.again and self.again[0][0] <= now:
            _, client = self.again.pop(0)
            self.open(client, client.began)
        for descriptor, _ in self.poll.poll(timeout):
            client = self.by_descriptor[descriptor]
            try:
                self._ready(client, descriptor)
            except (ssl.SSLWantReadError, BlockingIOError):
                pass
            except (OSError, EOFError):
                self.close(client)
                self.retry(client)

    def _ready(self, client: Client, descriptor: int) -> None:
        if client.state == 'connecting':
            if error := client.stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, 'refused')
            self.poll.modify(descriptor, select.EPOLLIN)
            if self.tls is not None:
                client.stream = self.tls.wrap_socket(
                    client.stream, do_handshake_on_connect=False, suppress_ragged_eofs=False
                )
                client.state = 'shaking'
            else:
                client.state = 'asking'
                client.stream.send(ASK)
        if client.state == 'shaking':
            client.stream.do_handshake()
            client.state = 'asking'
            client.stream.send(ASK)
            return
        if client.state == 'asking' and self.tls is None and not client.buffer:
            client.buffer = b' '  # asked just now
            return
        data = client.stream.recv(65536)
        if not data:
            raise EOFError
        client.heard = time.perf_counter()
        client.buffer += data
        if client.state == 'asking' and b'\r\n\r\n' in client.buffer:
            if b' 101 ' not in client.buffer:
                raise EOFError
            client.buffer = b''
            client.state = 'greeting'
            client.stream.send(client.hello)
        elif client.state == 'greeting' and len(client.buffer) >= len(PONG):
            client.buffer = b''
            client.state = 'idle'
            client.took = client.heard - client.began
        elif client.state == 'idle':
            for at in range(0, len(client.buffer), len(PING)):
                if client.buffer[at] == derp.PING:
                    client.stream.send(derp.frame(derp.PONG, client.buffer[at + 5 : at + 13]))
            client.buffer = b''

    def until(self, done: Callable[[], bool], timeout: float) -> float:
        began = time.perf_counter()
        while not done():
            if time.perf_counter() - began > timeout:
                raise SystemExit('not in time')
            self.turn()
        return time.perf_counter() - began

    def rest(self, clients: list[Client], seconds: float) -> None:
        """Be idle, with the pings of real clients."""
        end = time.perf_counter() + seconds
        at = 0
        while (now := time.perf_counter()) < end:
            self.turn(0.05)
            for _ in range(max(1, len(clients) // 20)):
                client = clients[at % len(clients)]
                at += 1
                if client.state == 'idle' and now - client.heard > SILENCE:
                    client.heard = now
                    client.stream.send(PING)


def cpu(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f'/proc/{pid}/stat').read_bytes().rpartition(b')')[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf('SC_CLK_TCK')


def pss(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
            if line.startswith('Pss:'):
                total += int(line.split()[1]) * 1024
    return total


def came(clients: list[Client]) -> Callable[[], bool]:
    looked = [0.0, 0.0]

    def done() -> bool:
        now = time.perf_counter()
        if now - looked[0] < 0.02:
            return False
        looked[0] = now
        return all(client.state == 'idle' for client in clients)

    return done


def idle(relay: Relay, nodes: Nodes, clients: list[Client], kinds: list[str]) -> dict[str, Any]:
    pids = [pid for kind in kinds for pid in relay.pids(kind)]
    for client in clients[:200]:  # warm up everything that is kept once for all
        nodes.open(client, time.perf_counter())
    nodes.until(came(clients[:200]), 30)
    for client in clients[:200]:
        nodes.close(client)
    nodes.rest(clients, 3)
    before, used = pss(pids), cpu(pids)
    began = time.perf_counter()
    waiting = list(clients)
    under_way: list[Client] = []
    while waiting or under_way:
        under_way = [client for client in under_way if client.state != 'idle']
        while waiting and len(under_way) < 200:
            client = waiting.pop()
            under_way.append(client)
            nodes.open(client, time.perf_counter())
        nodes.turn(0.01)
    opened = time.perf_counter() - began
    connecting = cpu(pids) - used
    nodes.rest(clients, 5)
    memory = pss(pids) - before
    used = cpu(pids)
    nodes.rest(clients, SAMPLE)
    quiet = (cpu(pids) - used) / SAMPLE
    return {
        'clients': len(clients),
        'base_mb': round(before / 1e6, 1),
        'memory_mb': round(memory / 1e6, 1),
        'kb_a_client': round(memory / 1e3 / len(clients), 2),
        'connect_seconds': round(opened, 2),
        'connect_cpu_us': round(connecting * 1e6 / len(clients), 1),
        'quiet_cpu_ms_a_second': round(quiet * 1e3, 2),
    }


class Witness:
    """Two nodes in a process of their own that talk all the time, one packet at a time."""

    def __init__(self, nodes: Nodes) -> None:
        ends = [Client(), Client()]
        for client in ends:
            nodes.open(client, time.perf_counter())
        nodes.until(came(ends), 30)
        for client in ends:
            nodes.poll.unregister(client.stream.fileno())
            nodes.by_descriptor.pop(client.stream.fileno())
            client.stream.setblocking(True)
        self._read, write = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            ending: list[int] = []
            signal.signal(signal.SIGTERM, lambda number, frame: ending.append(number))
            frame = derp.frame(derp.SEND, ends[1].key + bytes(200))
            times = []
            while not ending:
                began = time.perf_counter()
                ends[0].stream.sendall(frame)
                left = len(frame)
                while left:
                    left -= len(ends[1].stream.recv(left))
                times.append(time.perf_counter() - began)
                time.sleep(0.001)
            os.write(write, json.dumps(quantiles(times)).encode())
            os._exit(0)
        os.close(write)
        for client in ends:
            client.stream.close()

    def end(self) -> Any:
        os.kill(self._pid, signal.SIGTERM)
        with os.fdopen(self._read, 'rb') as pipe:
            told = json.loads(pipe.read())
        os.waitpid(self._pid, 0)
        return told


def storm(
    relay: Relay, nodes: Nodes, clients: list[Client], kinds: list[str], *, kill: bool
) -> dict[str, Any]:
    nodes.failures = 0
    before = 0.0 if kill else cpu([pid for kind in kinds for pid in relay.pids(kind)])
    began = time.perf_counter()
    if kill:
        (pid,) = relay.pids('iroh')
        os.kill(pid, signal.SIGKILL)
        nodes.until(lambda: all(client.state != 'idle' for client in clients), 10)
        others = None
    else:
        witness = Witness(nodes)
        time.sleep(0.5)
        for client in clients:
            nodes.close(client)
        began = time.perf_counter()
        for client in clients:
            nodes.open(client, began)
    wall = nodes.until(came(clients), 120)
    if not kill:
        others = witness.end()
    pids = [pid for kind in kinds for pid in relay.pids(kind)]
    return {
        'wall_seconds': round(wall, 2),
        'cpu_us_a_client': round((cpu(pids) - before) * 1e6 / len(clients), 1),
        'waited': quantiles([client.heard - began for client in clients]),
        'attempts_that_failed': nodes.failures,
        'packets_of_others': others,
    }


def packets(relay: Relay, nodes: Nodes, pairs: int, size: int, seconds: float) -> dict[str, Any]:
    """Full speed between pairs; each sender on a thread of the kernel's choice."""
    ends = [(Client(), Client()) for _ in range(pairs)]
    both = [client for pair in ends for client in pair]
    for client in both:
        nodes.open(client, time.perf_counter())
    nodes.until(came(both), 30)
    pids = relay.pids('iroh')
    children: list[int] = []
    for sender, receiver in ends:
        for job in (sender, receiver):
            nodes.poll.unregister(job.stream.fileno())
            job.stream.setblocking(True)
        pid = os.fork()
        if not pid:
            frame = derp.frame(derp.SEND, receiver.key + bytes(size))
            batch = frame * max(1, 65536 // len(frame))
            end = time.perf_counter() + seconds
            with contextlib.suppress(OSError):
                while time.perf_counter() < end:
                    sender.stream.sendall(batch)
            os._exit(0)
        children.append(pid)
        pid = os.fork()
        if not pid:
            buffer = bytearray(1 << 20)
            receiver.stream.settimeout(seconds + 2)
            with contextlib.suppress(OSError):
                while receiver.stream.recv_into(buffer):
                    pass
            os._exit(0)
        children.append(pid)
    time.sleep(1)
    used, began, counts = cpu(pids), time.perf_counter(), figures(relay)
    time.sleep(max(seconds - 1.5, 0.2))
    after = figures(relay)
    spent, took = cpu(pids) - used, time.perf_counter() - began
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for client in both:
        nodes.by_descriptor.pop(client.stream.fileno(), None)
        client.stream.close()
    forwarded = after['forwarded'] - counts['forwarded']
    dropped = after['dropped'] - counts['dropped']
    return {
        'octets': size,
        'packets_a_second': round(forwarded / took),
        'megabytes_a_second': round(forwarded * size / took / 1e6, 1),
        'cpu_us_a_packet': round(spent * 1e6 / max(forwarded + dropped, 1), 2),
        'dropped_percent': round(100 * dropped / max(forwarded + dropped, 1), 1),
    }


def alone(relay: Relay, nodes: Nodes, count: int = 10_000, size: int = 1200) -> dict[str, Any]:
    """One packet at a time, back and forth."""
    ends = [Client(), Client()]
    for client in ends:
        nodes.open(client, time.perf_counter())
    nodes.until(came(ends), 30)
    for client in ends:
        nodes.poll.unregister(client.stream.fileno())
        client.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.stream.setblocking(True)
    pids = relay.pids('iroh')
    frames = [derp.frame(derp.SEND, client.key + bytes(size)) for client in reversed(ends)]
    used, times = cpu(pids), []
    for number in range(count):
        source, target = ends[number % 2], ends[1 - number % 2]
        began = time.perf_counter()
        source.stream.sendall(frames[number % 2])
        left = len(frames[0])
        while left:
            left -= len(target.stream.recv(left))
        times.append(time.perf_counter() - began)
    spent = cpu(pids) - used
    for client in ends:
        nodes.by_descriptor.pop(client.stream.fileno(), None)
        client.stream.close()
    return {
        'octets': size,
        'cpu_us_a_packet': round(spent * 1e6 / count, 2),
        'took': quantiles(times),
    }


def figures(relay: Relay) -> dict[str, Any]:
    for child in relay.status()['data']['children']:
        if child['kind'] == 'iroh':
            found: dict[str, Any] = child['statistics']
            return found
    raise SystemExit('the iroh relay does not run')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--clients', type=int, default=5000)
    parser.add_argument('--pairs', type=int, default=4)
    parser.add_argument('--seconds', type=float, default=5.0, help='of each kind of packet')
    parser.add_argument('--way', choices=('own', 'http', 'https'), default='own')
    arguments = parser.parse_args()
    allow(4 * arguments.clients + 1000)
    (port,) = free_ports(1)
    options = {'listen.iroh': [f'127.0.0.1:{port}'], **OPEN}
    result: dict[str, Any] = {'way': arguments.way}
    with (
        tempfile.TemporaryDirectory(prefix='madmail-bench-') as directory,
        WebRelay(Path(directory), options) as relay,
    ):
        kinds = ['iroh'] if arguments.way == 'own' else ['iroh', 'madmail-http']
        tls = client_tls() if arguments.way == 'https' else None
        if arguments.way != 'own':
            port = relay.web[arguments.way]
        nodes = Nodes(port, tls)
        clients = [Client() for _ in range(arguments.clients)]
        result['idle'] = idle(relay, nodes, clients, kinds)
        result['storm'] = storm(relay, nodes, clients, kinds, kill=False)
        result['storm_after_a_kill'] = storm(relay, nodes, clients, kinds, kill=True)
        for client in clients:
            nodes.close(client)
        if arguments.way == 'own':
            result['alone'] = alone(relay, nodes)
            result['packets'] = [
                packets(relay, nodes, arguments.pairs, size, arguments.seconds)
                for size in (100, 1200, 14000)
            ]
        result['after'] = {
            name: figures(relay)[name] for name in ('open', 'held', 'crashes', 'resident_bytes')
        }
    result['machine'] = machine()
    print(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
