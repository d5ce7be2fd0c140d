"""What the gate costs: CPU of a handshake, a login and a line, memory of an idle session.

    python -m benchmarks.pipe [--connections 2000] [--lines 20000]

A gate runs as it does in the relay, in a process of its own; a stand-in for the
shard, in another, admits everybody and echoes.  Only the gate is measured.
Prints one JSON object:

    handshake_us   CPU of accept, full TLS 1.3 handshake and greeting
    login_us       CPU of LOGIN, hand-over and verdict
    line_us        CPU of one line from the client and one back, through TLS and pipe
    idle_pss_kb    memory (PSS) of one idle session
    bulk_us_mb     CPU of one megabyte to the client
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import selectors
import signal
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from mmap import mmap
from pathlib import Path

BULK = 20_000_000  # octets


def cpu_us(pid: int) -> float:
    """CPU time of a process's main thread."""
    return int(Path(f'/proc/{pid}/schedstat').read_text().split()[0]) / 1000


def pss_kb(pid: int) -> int:
    for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
        if line.startswith('Pss:'):
            return int(line.split()[1])
    raise OSError('no PSS')


def fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    return pid


def run_gate(state_dir: Path, listener: socket.socket) -> None:
    import gevent

    from madmail.gate.peers import SIZE
    from madmail.gate.process import GateRole
    from madmail.master.child import ChildContext
    from madmail.settings import Settings

    settings = Settings.defaults(
        limits__connections_per_ip=0,
        limits__logins_per_minute_per_ip=0,
        limits__login_time=0,
    )
    gc.collect()
    gc.freeze()
    context = ChildContext(
        kind='gate',
        index=0,
        settings=settings,
        state_dir=state_dir,
        listeners={'imaps': [listener]},
        shared=mmap(-1, SIZE),
    )
    GateRole(context).start()
    gevent.get_hub().loop.timer(3600, 3600).start(lambda: None)
    gevent.get_hub().join()


def run_shard(listener: socket.socket) -> None:
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    fresh = set()
    listener.setblocking(True)
    while True:
        for key, _ in selector.select():
            stream = key.fileobj
            assert isinstance(stream, socket.socket)
            if stream is listener:
                stream, _ = listener.accept()
                selector.register(stream, selectors.EVENT_READ)
                fresh.add(stream)
                continue
            data = stream.recv(65536)
            if stream in fresh:
                fresh.remove(stream)
                stream.sendall(b'+a OK Logged in\r\n')
            elif data.startswith(b'BULK'):
                stream.sendall(bytes(BULK))
            elif data:
                stream.sendall(data)
            else:
                selector.unregister(stream)
                stream.close()


def read_line(stream: ssl.SSLSocket) -> None:
    while not stream.recv(4096).endswith(b'\n'):
        pass


def measure(gate: int, port: int, connections: int, lines: int) -> dict[str, float]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def connect() -> ssl.SSLSocket:
        stream = context.wrap_socket(socket.create_connection(('127.0.0.1', port)))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_line(stream)
        return stream

    def login(stream: ssl.SSLSocket) -> None:
        stream.sendall(b'a LOGIN "benchmark@localhost" "correct horse battery"\r\n')
        read_line(stream)

    result: dict[str, float] = {}
    warm = [connect() for _ in range(20)]
    for stream in warm:
        login(stream)
    memory, begin = pss_kb(gate), cpu_us(gate)
    streams = [connect() for _ in range(connections)]
    result['handshake_us'] = (cpu_us(gate) - begin) / connections
    begin = cpu_us(gate)
    for stream in streams:
        login(stream)
    result['login_us'] = (cpu_us(gate) - begin) / connections
    time.sleep(0.5)
    result['idle_pss_kb'] = (pss_kb(gate) - memory) / connections
    line = b'A0007 UID FETCH 17:516 (UID RFC822.SIZE FLAGS)\r\n'
    begin = cpu_us(gate)
    for number in range(lines):
        stream = streams[number % connections]
        stream.sendall(line)
        read_line(stream)
    result['line_us'] = (cpu_us(gate) - begin) / lines
    begin = cpu_us(gate)
    warm[0].sendall(b'BULK\r\n')
    left = BULK
    while left:
        left -= len(warm[0].recv(262144))
    result['bulk_us_mb'] = (cpu_us(gate) - begin) / (BULK / 1e6)
    result['idle_pss_kb_after_use'] = (pss_kb(gate) - memory) / connections
    return {name: round(value, 1) for name, value in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--connections', type=int, default=2000)
    parser.add_argument('--lines', type=int, default=20000)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    from madmail.shard import address

    with tempfile.TemporaryDirectory() as name:
        state_dir = Path(name)
        shard_listener = address.bind(state_dir, address.shard_name(0))
        listener = socket.create_server(('127.0.0.1', 0), backlog=1024)
        children = [
            fork(lambda: run_gate(state_dir, listener)),
            fork(lambda: run_shard(shard_listener)),
        ]
        try:
            port = listener.getsockname()[1]
            result = measure(children[0], port, options.connections, options.lines)
            json.dump({**vars(options), **result, 'python': sys.version.split()[0]}, sys.stdout)
            print()
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


if __name__ == '__main__':
    main()
