"""What relaying a packet costs: ours and, where it is installed, coturn's, with the same load.

The server runs in a process of its own; clients and peers are sockets of this one, which
sends ChannelData in batches (sendmmsg) at a given rate and counts what arrives. CPU of the
server is read from /proc. JSON on stdout. See README.md.  On a busy machine give it the weight
that `nice` gives a process to its whole session: `setsid sh -c 'echo -20 > /proc/self/autogroup;
python benchmarks/turn.py'`.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from madmail.master.listeners import bind  # noqa: E402
from madmail.realtime.turn.limits import Limits  # noqa: E402
from madmail.realtime.turn.message import IPV4, Address  # noqa: E402
from madmail.settings.kinds import Address as ListenAddress  # noqa: E402
from tests.realtime.turn.client import TurnClient  # noqa: E402

BATCH = 32
PORTS = range(22000, 23000)
REALM = 'chat.example'
SECRET = b'north'
PEER = '127.0.0.2'
SETTLE = 0.3  # seconds


class _Vector(ctypes.Structure):
    _fields_ = (('base', ctypes.c_void_p), ('length', ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ('name', ctypes.c_void_p),
        ('name_length', ctypes.c_uint32),
        ('vectors', ctypes.c_void_p),
        ('vectors_length', ctypes.c_size_t),
        ('control', ctypes.c_void_p),
        ('control_length', ctypes.c_size_t),
        ('flags', ctypes.c_int),
        ('padding', ctypes.c_int),
        ('octets', ctypes.c_uint),
    )


_libc = ctypes.CDLL(None, use_errno=True)


class Batch:
    """Datagrams of one connected socket, sent or taken with one call."""

    def __init__(self, through: socket.socket, packet: bytes, to: tuple[str, int] | None = None):
        self._descriptor = through.fileno()
        self._buffer = ctypes.create_string_buffer(packet, max(len(packet), 2048))
        self._headers = (_Header * BATCH)()
        self._vectors = (_Vector * BATCH)()
        self._name = b''
        if to is not None:
            self._name = (
                socket.AF_INET.to_bytes(2, sys.byteorder)
                + to[1].to_bytes(2, 'big')
                + socket.inet_aton(to[0])
                + bytes(8)
            )
        name = ctypes.create_string_buffer(self._name) if self._name else None
        self._kept = name
        for header, vector in zip(self._headers, self._vectors, strict=True):
            vector.base = ctypes.addressof(self._buffer)
            vector.length = len(packet) or 2048
            header.vectors = ctypes.addressof(vector)
            header.vectors_length = 1
            if name is not None:
                header.name = ctypes.addressof(name)
                header.name_length = 16

    def send(self, count: int) -> int:
        done: int = _libc.sendmmsg(self._descriptor, self._headers, min(count, BATCH), 0x40)
        return max(done, 0)

    def take(self) -> int:
        total = 0
        while True:
            done: int = _libc.recvmmsg(self._descriptor, self._headers, BATCH, 0x40, None)
            if done <= 0:
                return total
            total += done


def cpu(pid: int) -> float:
    with open(f'/proc/{pid}/stat', 'rb') as stat:
        fields = stat.read().rpartition(b')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def serve(listener: socket.socket) -> None:
    """Ours, as the role runs it: the loop in a thread."""
    import gc
    import threading

    from madmail.realtime.turn.credentials import Nonces
    from madmail.realtime.turn.loop import Loop
    from madmail.realtime.turn.server import Configuration, Server

    loop = Loop()
    configuration = Configuration(
        realm=REALM,
        secrets=(SECRET,),
        life=86400,
        public={IPV4: '127.0.0.1'},
        bound={IPV4: '127.0.0.1'},
        ports=PORTS,
        limits=Limits(per_account=0, per_address=0, per_minute=0, rate=0),
        allowed=(ip_network('127.0.0.0/8'),),
    )
    server = Server(loop, configuration, Nonces(b'nonces'))
    server.listen(listener)
    gc.freeze()
    thread = threading.Thread(target=loop.run)
    thread.start()
    thread.join()


@contextlib.contextmanager
def ours() -> Iterator[tuple[int, tuple[str, int]]]:
    listener = bind('turn/udp', ListenAddress('127.0.0.1', 0))
    process = multiprocessing.get_context('fork').Process(target=serve, args=(listener,))
    process.start()
    assert process.pid is not None
    try:
        yield process.pid, listener.getsockname()
    finally:
        process.kill()
        process.join()
        listener.close()


@contextlib.contextmanager
def coturn() -> Iterator[tuple[int, tuple[str, int]]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        arguments = [
            'turnserver', '-n', '--use-auth-secret', f'--static-auth-secret={SECRET.decode()}',
            f'--realm={REALM}', '--listening-ip=127.0.0.1', f'--listening-port={port}',
            '--relay-ip=127.0.0.1', f'--min-port={PORTS.start}', f'--max-port={PORTS.stop - 1}',
            '--allow-loopback-peers', '--cli-password=unused', '--no-cli', '--no-tls', '--no-dtls',
            '--relay-threads=1', '--no-stdout-log', f'--log-file={directory}/log', '--simple-log',
            f'--pidfile={directory}/pid', f'--db={directory}/db', '--no-tcp',
        ]  # fmt: skip
        process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=directory
        )
        try:
            time.sleep(1.5)
            yield process.pid, ('127.0.0.1', port)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


class Calls:
    """Clients with a channel each to a peer of their own."""

    def __init__(self, server: tuple[str, int], count: int, size: int) -> None:
        payload = bytes(size)
        packet = (0x4000).to_bytes(2, 'big') + size.to_bytes(2, 'big') + payload
        self.clients = []
        self.up: list[Batch] = []
        self.up_sinks: list[Batch] = []
        self.down: list[Batch] = []
        self.down_sinks: list[Batch] = []
        self._kept: list[Any] = []
        for number in range(count):
            client = TurnClient(server, secret=SECRET, name=str(int(time.time()) + 3600 + number))
            peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            peer.bind((PEER, 0))
            for each in (client.socket, peer):
                each.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE, where allowed
            relayed = client.allocate()
            client.bind(0x4000, Address(*peer.getsockname()))
            self.up.append(Batch(client.socket, packet))
            self.up_sinks.append(Batch(peer, b''))
            self.down.append(Batch(peer, payload, (relayed.host, relayed.port)))
            self.down_sinks.append(Batch(client.socket, b''))
            self._kept += [client, peer]

    def close(self) -> None:
        for each in self._kept:
            each.close()


def flow(
    pid: int, sources: list[Batch], sinks: list[Batch], rate: int, seconds: float
) -> dict[str, Any]:
    """Send at `rate` packets a second; what arrived, and what it cost."""
    sent = arrived = 0
    began = time.perf_counter()
    before = cpu(pid)
    turn = 0
    while (now := time.perf_counter() - began) < seconds:
        due = int(now * rate) - sent
        if due > 0:
            sent += sources[turn % len(sources)].send(min(due, BATCH))
            turn += 1
        if due <= BATCH or turn % 8 == 0:
            arrived += sinks[turn % len(sinks)].take()
    wall = time.perf_counter() - began
    used = cpu(pid) - before
    time.sleep(SETTLE)
    for sink in sinks:
        arrived += sink.take()
    return {
        'offered_per_second': round(sent / wall),
        'relayed_per_second': round(arrived / wall),
        'loss_percent': round(100 * (1 - arrived / max(sent, 1)), 3),
        'cpu_us_per_packet': round(used * 1e6 / max(arrived, 1), 2),
        'core_percent': round(100 * used / wall, 1),
    }


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with {'madmail': ours, 'coturn': coturn}[name]() as (pid, server):
        calls = Calls(server, arguments.calls, arguments.size)
        try:
            for way, sources, sinks in (
                ('up', calls.up, calls.up_sinks),
                ('down', calls.down, calls.down_sinks),
            ):
                for rate in arguments.rates:
                    runs = [
                        flow(pid, sources, sinks, rate, arguments.seconds)
                        for _ in range(arguments.repeat)
                    ]
                    found[f'{way}_{rate}'] = min(
                        runs, key=lambda run: (run['loss_percent'], run['cpu_us_per_packet'])
                    )
        finally:
            calls.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--calls', type=int, default=16)
    parser.add_argument('--size', type=int, default=160)
    parser.add_argument('--seconds', type=float, default=4.0)
    parser.add_argument(
        '--rates', type=int, nargs='+', default=[2000, 10_000, 40_000, 80_000, 120_000]
    )
    parser.add_argument(
        '--repeat', type=int, default=1, help='the best of so many, on a busy machine'
    )
    parser.add_argument('--only', choices=('madmail', 'coturn'))
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else ['madmail', 'coturn']
    if 'coturn' in names and shutil.which('turnserver') is None:
        names.remove('coturn')
    print(json.dumps({name: measure(name, arguments) for name in names}, indent=1))
    return 0


if __name__ == '__main__':
    sys.exit(main())
