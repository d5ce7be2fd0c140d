"""WebXDC apps of two real cores that have no direct path to each other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.core import PATIENCE, Cores, cores_on, eventually, require_core, wait_event
from tests.client.seclusion import possible, secluded
from tests.system.relay import Relay, free_ports
from tests.web.conftest import WebRelay


def figures(relay: Relay) -> dict[str, Any]:
    told = json.loads(relay.cli('status', '--json', '--details').stdout)
    found: dict[str, Any] = {}
    for child in told['data']['children']:
        if child['kind'] == 'iroh':
            found = child['statistics']
    return found


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    require_core()
    if not possible():
        pytest.skip('no network namespaces here')
    (port,) = free_ports(1)
    options = {
        'listen.iroh': [f'127.0.0.1:{port}'],
        'iroh.relay_url': f'http://127.0.0.1:{port}',
    }
    with WebRelay(tmp_path_factory.mktemp('relay'), options) as relay:
        relay.ports['iroh'] = port
        yield relay


@contextlib.contextmanager
def apart(relay: WebRelay, directory: Path, *names: str) -> Iterator[list[Any]]:
    """Accounts of cores that reach the relay and nothing else, one core each."""
    ports = [*relay.ports.values(), *relay.web.values()]
    with contextlib.ExitStack() as stack:
        accounts = []
        for name in names:
            # A Unix socket's path must be short.
            program = stack.enter_context(secluded(directory / name, require_core(), ports))
            cores: Cores = stack.enter_context(cores_on(relay, directory / f'{name}-core', program))
            accounts += cores.online(name)
        yield accounts


def app(directory: Path) -> str:
    path = directory / 'app.xdc'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('manifest.toml', 'name = "Test"\n')
        archive.writestr('index.html', '<!DOCTYPE html><html><body>Hello</body></html>\n')
    return str(path)


def shared_app(alice: Any, bob: Any, directory: Path) -> tuple[Any, Any]:
    """The message with the app, as each of them has it."""
    chat = alice.create_chat(bob)
    bob.create_chat(alice)
    mine = chat.send_message(text='Play', file=app(directory))
    event = wait_event(bob, 'IncomingMsg')
    theirs = bob.get_message_by_id(event['msgId'])
    return mine, theirs


def join(mine: Any, theirs: Any, alice: Any, bob: Any) -> None:
    mine.send_webxdc_realtime_advertisement()
    theirs.send_webxdc_realtime_advertisement()
    for account in (alice, bob):
        wait_event(account, 'WebxdcRealtimeAdvertisementReceived')


def say(sender: Any, message: Any, receiver: Any, data: bytes) -> None:
    """Say it until it is heard: before the peers have met, words are lost."""
    end = time.monotonic() + PATIENCE
    while True:
        message.send_webxdc_realtime_data(data)
        with contextlib.suppress(AssertionError):
            wait_event(receiver, 'WebxdcRealtimeData', lambda e: bytes(e['data']) == data, 2.0)
            return
        assert time.monotonic() < end, 'not heard'


def test_two_apps_talk_through_the_relay(relay: WebRelay, tmp_path: Path) -> None:
    with apart(relay, tmp_path, 'alice', 'bob') as (alice, bob):
        mine, theirs = shared_app(alice, bob, tmp_path)
        join(mine, theirs, alice, bob)
        say(alice, mine, bob, b'ping')
        say(bob, theirs, alice, b'pong')
        before = figures(relay)
        began = time.monotonic()
        for number in range(50):
            data = number.to_bytes(4, 'big') + os.urandom(20_000)
            mine.send_webxdc_realtime_data(data)
            event = wait_event(bob, 'WebxdcRealtimeData', lambda e, d=data: bytes(e['data']) == d)
            assert bytes(event['data']) == data
        print(f'\n50 messages of 20 kB: {time.monotonic() - began:.2f} s')
        after = eventually(
            lambda: (now := figures(relay))['octets']['iroh']['sent'] > 1_000_000 and now,
            'octets are counted',
        )
        # There is no other way: they went through us.
        grown = after['octets']['iroh']['sent'] - before['octets']['iroh']['sent']
        assert grown >= 50 * 20_000
        assert after['clients'] == 2
        assert after['malformed'] == after['bad_requests'] == after['denied'] == 0


def test_the_channel_outlives_the_relays_process(relay: WebRelay, tmp_path: Path) -> None:
    with apart(relay, tmp_path, 'carol', 'dave') as (carol, dave):
        mine, theirs = shared_app(carol, dave, tmp_path)
        join(mine, theirs, carol, dave)
        say(carol, mine, dave, b'before')
        (pid,) = relay.pids('iroh')
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: [one for one in relay.pids('iroh') if one != pid], 'another one')
        say(carol, mine, dave, b'after')
        say(dave, theirs, carol, b'and back')
