"""The usual runs of coturn's own client, all at once, for each waits for seconds."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from madmail.realtime.turn.credentials import password
from tests.realtime.turn.conftest import Rig

PACKETS = 20
PEER = '127.0.0.2'
RUNS = {
    'channels over UDP': ('udp', '-c'),
    'pairs of ports, with EVEN-PORT': ('udp', ''),
    'Send indications': ('udp', '-c -s'),
    'DONT-FRAGMENT': ('udp', '-c -g'),
    'more requests than needed': ('udp', '-c -G'),
    'relay to relay': ('udp', '-c -y'),
    'over TCP': ('tcp', '-c -t'),
    'pairs over TCP': ('tcp', '-t'),
    'Send indications over TCP': ('tcp', '-c -t -s'),
    'over TLS': ('tls', '-c -t -S'),
    'relay to relay over TLS': ('tls', '-c -y -t -S'),
    'TCP to peers': ('tcp', '-c -y -T'),
    'TCP to peers over TLS': ('tls', '-c -y -T -S'),
}


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        reason = f'{name} is not installed'
        if os.environ.get('CI') == 'true':
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture
def peer_port() -> Iterator[int]:
    """Answers everything with itself."""
    path = program('turnutils_peer')
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((PEER, 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [path, '-L', PEER, '-p', str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(0.3)
    yield port
    process.kill()
    process.wait()


def test_uclient(rig: Rig, peer_port: int) -> None:
    path = program('turnutils_uclient')
    rig.limit(per_account=0, per_address=0, per_minute=0)
    running = {}
    for number, (what, (transport, flags)) in enumerate(RUNS.items()):
        name = str(int(time.time()) + 3600 + number)
        command = [
            path, '-u', name, '-w', password(b'north', name), '-e', PEER, '-r', str(peer_port),
            '-n', str(PACKETS), '-m', '2', '-p', str(rig.addresses[transport][1]),
            *flags.split(), '127.0.0.1',
        ]  # fmt: skip
        running[what] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    try:
        for what, process in running.items():
            output, _ = process.communicate(timeout=60)
            lost = re.findall(r'Total lost packets (\d+)', output)
            received = re.findall(r'tot_recv_msgs=(\d+)', output)
            assert process.returncode == 0, f'{what}:\n{output[-2000:]}'
            assert lost[-1:] == ['0'], f'{what}:\n{output[-2000:]}'
            assert int((received or ['0'])[-1]) >= 2 * PACKETS, f'{what}:\n{output[-2000:]}'
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()
                process.wait()
