"""A core in a network of its own, from which only some TCP ports of this host are reached.

Two such cores have no direct path to each other: what they say goes over the relay, or not
at all.  The ports are passed through Unix sockets, which a network namespace does not part:

    core → 127.0.0.1:PORT inside → DIRECTORY/PORT.sock → 127.0.0.1:PORT outside

Run as a program it is the inside: `seclusion.py DIRECTORY PROGRAM PORT …`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

# An interface with a default route, or a program would think that it is offline.
NETWORK = (
    'link set lo up',
    'link add near type veth peer name far',
    'addr add 10.9.0.1/24 dev near',
    'link set near up',
    'link set far up',
    'route add default via 10.9.0.2 dev near',
)
PR_SET_PDEATHSIG = 1


def possible() -> bool:
    """Whether this host lets us make network namespaces."""
    if not shutil.which('ip') or not shutil.which('unshare'):
        return False
    words = ['unshare', '--map-root-user', '--net', 'ip', *NETWORK[1].split()]
    return subprocess.run(words, capture_output=True).returncode == 0


def pass_on(listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
    """Join each connection with one of `connect`, until the listener is closed."""

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def join(one: socket.socket) -> None:
        with contextlib.suppress(OSError), one, connect() as other:
            back = threading.Thread(target=copy, args=(other, one), daemon=True)
            back.start()
            copy(one, other)
            back.join()

    while True:
        try:
            accepted, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=join, args=(accepted,), daemon=True).start()


def to_port(port: int) -> socket.socket:
    return socket.create_connection(('127.0.0.1', port), 10)


def to_path(path: Path) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(str(path))
    return stream


@contextlib.contextmanager
def secluded(directory: Path, program: str, ports: list[int]) -> Iterator[str]:
    """A program that runs `program` in a network where only `ports` of this host are."""
    directory.mkdir(parents=True)
    listeners = []
    for port in ports:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(directory / f'{port}.sock'))
        listener.listen(64)
        listeners.append(listener)
        connect = lambda port=port: to_port(port)  # noqa: E731
        threading.Thread(target=pass_on, args=(listener, connect), daemon=True).start()
    wrapper = directory / 'run'
    words = ' '.join(map(str, ports))
    wrapper.write_text(
        '#!/bin/sh\nexec unshare --map-root-user --net '
        f"'{sys.executable}' '{Path(__file__).resolve()}' '{directory}' '{program}' {words}\n"
    )
    wrapper.chmod(0o700)
    try:
        yield str(wrapper)
    finally:
        for listener in listeners:
            listener.close()


def inside(directory: Path, program: str, ports: list[int]) -> int:
    for words in NETWORK:
        subprocess.run(['ip', *words.split()], check=True)
    for port in ports:
        listener = socket.create_server(('127.0.0.1', port))
        connect = lambda port=port: to_path(directory / f'{port}.sock')  # noqa: E731
        threading.Thread(target=pass_on, args=(listener, connect), daemon=True).start()
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def end_with_us() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return subprocess.run([program], preexec_fn=end_with_us).returncode


if __name__ == '__main__':
    sys.exit(inside(Path(sys.argv[1]), sys.argv[2], [int(port) for port in sys.argv[3:]]))
