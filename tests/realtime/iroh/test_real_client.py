"""Two nodes of iroh 1.x, each in a network from which only the relay is reached."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.seclusion import possible, secluded
from tests.realtime.iroh.rig import Service

pytest.importorskip('iroh')
PROGRAM = Path(__file__).with_name('node.py')
PATIENCE = 60


def program(path: Path, *words: str) -> str:
    path.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{PROGRAM}' {' '.join(words)}\n")
    path.chmod(0o700)
    return str(path)


def test_two_nodes_talk_through_the_relay(
    service: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not possible():
        pytest.skip('no network namespaces here')
    directory = tmp_path_factory.mktemp('nodes')
    url = f'http://127.0.0.1:{service.port}'
    listen = program(directory / 'listen', url, 'listen')
    with (
        secluded(directory / 'a', listen, [service.port]) as run,
        subprocess.Popen([run], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as listener,
    ):
        try:
            assert listener.stdout is not None
            identity = json.loads(listener.stdout.readline())['id']
            assert service['clients'] >= 1
            call = program(directory / 'call', url, 'call', identity)
            with secluded(directory / 'b', call, [service.port]) as run:
                found = subprocess.run(
                    [run], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=PATIENCE
                )
            assert found.returncode == 0
            told = json.loads(found.stdout)
            assert told['same']
            assert told['relayed']
            assert json.loads(listener.stdout.readline()) == {'heard': 2_000_000}
        finally:
            listener.kill()
    octets = service['octets']['iroh']
    assert octets['received'] > 4_000_000
    assert octets['sent'] > 4_000_000
    assert service['malformed'] == service['denied'] == service['bad_requests'] == 0
