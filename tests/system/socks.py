"""Clients of a Shadowsocks proxy that others have written, each a SOCKS5 server on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.relay import free_ports


def command(program: str, method: str, password: str, port: int, local: int) -> list[str]:
    """What starts it.  Skips the test without the program; on CI, where it must be, fails."""
    beside = Path(sys.executable).parent / program
    path = str(beside) if beside.exists() else shutil.which(program)
    if path is None:
        reason = f'{program} is not installed'
        if os.environ.get('CI') == 'true':
            pytest.fail(reason)
        pytest.skip(reason)
    if program == 'pproxy':
        at = f'ss://{method}:{password}@127.0.0.1:{port}'
        return [path, '-l', f'socks5://127.0.0.1:{local}', '-r', at]
    at_ = ['-s', '127.0.0.1', '-p', str(port), '-b', '127.0.0.1', '-l', str(local)]
    return [path, *at_, '-k', password, '-m', method, '-t', '60']


@contextlib.contextmanager
def client(program: str, method: str, password: str, port: int) -> Iterator[int]:
    """The port on which it listens."""
    (local,) = free_ports(1)
    process = subprocess.Popen(
        command(program, method, password, port, local),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(('127.0.0.1', local), 1).close()
                break
            except OSError:
                assert process.poll() is None, f'{program} ended'
                assert time.monotonic() < end, f'{program} does not listen'
                time.sleep(0.05)
        yield local
    finally:
        process.terminate()
        process.wait(10)


def connect(local: int, host: str, port: int) -> socket.socket:
    """Through the SOCKS5 server (RFC 1928), which is given the name."""
    stream = socket.create_connection(('127.0.0.1', local), 15)
    stream.sendall(b'\5\1\0')
    assert stream.recv(2) == b'\5\0'
    stream.sendall(b'\5\1\0\3' + bytes((len(host),)) + host.encode() + struct.pack('>H', port))
    reply = stream.recv(4, socket.MSG_WAITALL)
    assert reply[:2] == b'\5\0'
    size = {1: 4, 4: 16}.get(reply[3]) or stream.recv(1)[0]  # one of them repeats the name
    stream.recv(size + 2, socket.MSG_WAITALL)
    return stream
