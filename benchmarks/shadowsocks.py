"""What the proxy costs: CPU of a megabyte, of a connection and of a stranger; beside ss-server.

    python -m benchmarks.shadowsocks [--megabytes 200] [--connections 1000]

The proxy runs as it does in the relay, in a process of its own, and so does a service that pours
and drains.  The client's part (sealing, opening) is in the client and not measured.  Debian's
`ss-server` is measured in the same way where it is installed.  Prints one JSON object:

    METHOD.down_cpu_ms_mb, .up_cpu_ms_mb    CPU of the proxy for a megabyte to, from the client
    METHOD.down_mb_s, .up_mb_s              throughput of one connection
    METHOD.connection_cpu_us                a connection that hears one line
    METHOD.stranger_cpu_us                  one that sends 300 octets of noise
    ss_server.METHOD.…                      the same of ss-server
    idle_memory_kb                          memory (PSS) of an idle tunnel
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.pipe import cpu_us, fork, pss_kb
from madmail.realtime.shadowsocks.destination import Destination
from madmail.realtime.shadowsocks.handshake import Call
from madmail.realtime.shadowsocks.methods import METHODS

MEGABYTE = 1_000_000
PIECE = bytes(65532)
BY_BOTH = ('chacha20-ietf-poly1305', 'aes-128-gcm', 'aes-256-gcm')


def run_service(listener: socket.socket) -> None:
    """A letter says what is wanted: a line, a download of so many megabytes, or to be
    heard for so many octets.
    """

    def serve(stream: socket.socket) -> None:
        with stream:
            wish = stream.recv(16)
            if wish[:1] == b'd':
                for _ in range(int(wish[1:]) * MEGABYTE // len(PIECE)):
                    stream.sendall(PIECE)
            elif wish[:1] == b'u':
                stream.sendall(b'go')
                left = int(wish[1:])
                while left > 0 and (data := stream.recv(1 << 20)):
                    left -= len(data)
                stream.sendall(b'done')
            else:
                stream.sendall(b'* OK ready\r\n')
                stream.recv(1)

    while True:
        stream, _ = listener.accept()
        threading.Thread(target=serve, args=(stream,), daemon=True).start()


def run_proxy(state_dir: Path, listener: socket.socket, port: int, method: str, pw: str) -> None:
    import gevent

    from madmail.master.child import ChildContext
    from madmail.realtime.shadowsocks.process import ProxyRole
    from madmail.settings import Settings
    from madmail.store.control import Control

    Control(state_dir).close()
    settings = Settings.defaults(
        {
            'listen.imap': f'127.0.0.1:{port}',
            'shadowsocks.cipher': method,
            'shadowsocks.password': pw,
            'shadowsocks.connections': 0,
            'limits.connections_per_ip': 0,
        }
    )
    context = ChildContext(
        kind='shadowsocks',
        index=0,
        settings=settings,
        state_dir=state_dir,
        listeners={'shadowsocks': [listener]},
    )
    ProxyRole(context).start()
    gevent.get_hub().loop.timer(3600, 3600).start(lambda: None)
    gevent.get_hub().join()


class Client:
    def __init__(self, at: int, call: Call, port: int, wish: bytes) -> None:
        self.call = call
        self.stream = socket.create_connection(('127.0.0.1', at))
        self.stream.sendall(call.request(Destination('127.0.0.1', port), wish, time.time()))

    def hear(self, size: int) -> None:
        while size > 0:
            data = self.stream.recv(1 << 20)
            assert data, 'the proxy closed'
            size -= len(self.call.feed(data, time.time()))


def measure(
    pid: int, at: int, port: int, method: str, password: str, megabytes: int, connections: int
) -> dict[str, float]:
    def call() -> Call:
        return Call(METHODS[method], password)

    def timed(work: Callable[[], None]) -> tuple[float, float]:
        cpu, begin = cpu_us(pid), time.monotonic()
        work()
        return cpu_us(pid) - cpu, time.monotonic() - begin

    found: dict[str, float] = {}
    first = Client(at, call(), port, b'line')
    first.hear(12)
    down = Client(at, call(), port, b'd%d' % megabytes)
    size = megabytes * MEGABYTE // len(PIECE) * len(PIECE)
    cpu, wall = timed(lambda: down.hear(size))
    found['down_cpu_ms_mb'] = cpu / 1000 / megabytes
    found['down_mb_s'] = megabytes / wall

    up = Client(at, call(), port, b'u%d' % size)
    up.hear(2)
    # Sealed before, so that the client is no slower than the proxy.
    sealed = [up.call.seal(PIECE) for _ in range(size // len(PIECE))]

    def send() -> None:
        for piece in sealed:
            up.stream.sendall(piece)
        up.hear(4)

    cpu, wall = timed(send)
    found['up_cpu_ms_mb'] = cpu / 1000 / megabytes
    found['up_mb_s'] = megabytes / wall

    def connect() -> None:
        for _ in range(connections):
            client = Client(at, call(), port, b'line')
            client.hear(12)
            client.stream.close()

    found['connection_cpu_us'] = timed(connect)[0] / connections

    def knock() -> None:
        strangers = []
        for _ in range(connections):
            strangers.append(socket.create_connection(('127.0.0.1', at)))
            strangers[-1].sendall(os.urandom(300))
        time.sleep(0.3)
        for stranger in strangers:
            stranger.close()

    found['stranger_cpu_us'] = timed(knock)[0] / connections
    return {name: round(value, 3) for name, value in found.items()}


@contextmanager
def ours(method: str, password: str, port: int) -> Iterator[tuple[int, int]]:
    """Process id and port of the proxy."""
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.create_server(('127.0.0.1', 0), backlog=1024) as listener,
    ):
        at = listener.getsockname()[1]
        pid = fork(lambda: run_proxy(Path(directory), listener, port, method, password))
        time.sleep(1.0)
        try:
            yield pid, at
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextmanager
def theirs(method: str, password: str, port: int) -> Iterator[tuple[int, int]]:
    with socket.create_server(('127.0.0.1', 0)) as listener:
        at = listener.getsockname()[1]
    server = subprocess.Popen(
        ['ss-server', '-s', '127.0.0.1', '-p', str(at), '-k', password, '-m', method, '-t', '60'],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(1.0)
    try:
        yield server.pid, at
    finally:
        server.kill()
        server.wait()


def idle_memory(port: int, connections: int) -> float:
    method, password = 'chacha20-ietf-poly1305', 'a good password'
    with ours(method, password, port) as (pid, at):
        Client(at, Call(METHODS[method], password), port, b'line').hear(12)
        before = pss_kb(pid)
        clients = []
        for _ in range(connections):
            clients.append(Client(at, Call(METHODS[method], password), port, b'line'))
            clients[-1].hear(12)
        return round((pss_kb(pid) - before) / connections, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--megabytes', type=int, default=200)
    parser.add_argument('--connections', type=int, default=1000)
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found: dict[str, float] = {}
    with socket.create_server(('127.0.0.1', 0), backlog=1024) as listener:
        port = listener.getsockname()[1]
        service = fork(lambda: run_service(listener))
        try:
            for name, method in METHODS.items():
                password = method.fresh_password()
                kinds = [('', ours)]
                if name in BY_BOTH and shutil.which('ss-server'):
                    kinds.append(('ss_server.', theirs))
                for prefix, start in kinds:
                    with start(name, password, port) as (pid, at):
                        figures = measure(
                            pid, at, port, name, password, given.megabytes, given.connections
                        )
                    found |= {f'{prefix}{name}.{key}': value for key, value in figures.items()}
            found['idle_memory_kb'] = idle_memory(port, given.connections)
        finally:
            os.kill(service, signal.SIGKILL)
            os.waitpid(service, 0)
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
