"""A real core is told of our TURN server, and what it is told works."""

from __future__ import annotations

import imaplib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from madmail.realtime.turn import message
from madmail.realtime.turn.message import Address
from tests.client.core import cores_on, eventually
from tests.realtime.turn.client import Denied, TurnClient
from tests.system.relay import Relay, free_ports

ENTRY = '/shared/vendor/deltachat/turn'


@pytest.fixture(scope='module')
def calling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    port, secure = free_ports(2)
    options = {
        'domain': '127.0.0.1',
        'listen.turn': [f'127.0.0.1:{port}'],
        'listen.turns': [f'127.0.0.1:{secure}'],
        'turn': {'relay_port_min': 20000, 'relay_port_max': 21999},
        'accounts.bandwidth': True,
    }
    with Relay(tmp_path_factory.mktemp('calling'), options) as relay:
        relay.turn = port  # type: ignore[attr-defined]
        eventually(lambda: figures(relay)['answers'], 'TURN answers')
        yield relay


def figures(relay: Relay) -> Any:
    return json.loads(relay.cli('--json', 'turn', 'status').stdout)['data']


def told(client: imaplib.IMAP4, entry: str = ENTRY) -> bytes:
    """The value of the entry, b'' for none."""
    status, data = client.xatom('GETMETADATA', '""', f'({entry})')
    assert status == 'OK', data
    for part in client.response('METADATA')[1] or ():
        if isinstance(part, tuple):
            found: bytes = part[1]
            return found
        match = re.search(rb'"([^"]*:[^"]*)"\)', part or b'')
        if match:
            return match[1]
    return b''


def caller(relay: Relay, value: bytes, transport: str = 'udp') -> TurnClient:
    host, port, name, secret = value.decode().split(':', 3)
    client = TurnClient((host, int(port)), transport=transport, name=name, realm='127.0.0.1')
    client.key = message.long_term_key(name, '127.0.0.1', secret)
    return client


def test_a_core_gets_credentials_that_work(calling: Relay, tmp_path: Path) -> None:
    with cores_on(calling, tmp_path) as cores:
        (alice,) = cores.online('alice')
        servers = eventually(
            lambda: [one for one in alice.ice_servers() if one.get('username')],
            'credentials',
        )
        ours = [one for one in servers if f'127.0.0.1:{calling.turn}' in str(one)]
        assert ours, servers
        assert ours[0]['urls'] == [f'turn:127.0.0.1:{calling.turn}']
        name = ours[0]['username']
        assert int(name) > time.time() + 12 * 3600
        clients = []
        for _ in range(2):
            client = TurnClient(('127.0.0.1', calling.turn), name=name, realm='127.0.0.1')
            client.key = message.long_term_key(name, '127.0.0.1', ours[0]['credential'])
            clients.append(client)
        talk(*clients)


def talk(one: TurnClient, two: TurnClient, count: int = 1) -> None:
    first, second = one.allocate(), two.allocate()
    one.bind(0x4000, second)
    two.bind(0x4000, first)
    for _ in range(count):
        one.channel_data(0x4000, b'x' * 1000)
        assert two.receive()[4:] == b'x' * 1000
        two.channel_data(0x4000, b'y' * 500)
        assert one.receive()[4:] == b'y' * 500
    for client in (one, two):
        client.refresh(0)
        client.close()


def test_over_every_transport_and_private_peers_are_out_of_reach(calling: Relay) -> None:
    with calling.imap(*calling.account()) as client:
        value, secure = told(client), told(client, f'{ENTRY}s')
        status, data = client.xatom('GETMETADATA', '""', '(/shared/vendor/deltachat/unknown)')
        assert status == 'OK', data
    talk(caller(calling, value), caller(calling, value, 'tcp'))
    talk(caller(calling, secure, 'tls'), caller(calling, value))
    probe = caller(calling, value)
    probe.allocate()
    for host in ('10.0.0.1', '127.0.0.2', '169.254.169.254'):
        with pytest.raises(Denied, match='403'):
            probe.permit(Address(host, 1))
    probe.close()


def test_what_was_carried_is_told_by_service_and_account(calling: Relay) -> None:
    address, password = calling.account()
    with calling.imap(address, password) as client:
        value = told(client)
    before = figures(calling)
    talk(caller(calling, value), caller(calling, value), 20)
    after = figures(calling)
    assert after['received'] - before['received'] == 30_000
    assert after['sent'] - before['sent'] == 30_000


def test_not_told_while_it_is_off_and_secrets_change(calling: Relay) -> None:
    with calling.imap(*calling.account()) as client:
        value = told(client)
        calling.cli('turn', 'rotate')
        other = told(client)
        assert other.split(b':')[2:] != value.split(b':')[2:]
        talk(caller(calling, value), caller(calling, other))  # both count
        calling.cli('turn', 'rotate', '--forget')
        eventually(lambda: refused(calling, other), 'the former secret counts no more')
        calling.cli('turn', 'off')
        eventually(lambda: told(client) == b'', 'nothing is told')
        assert not figures(calling)['enabled']
        calling.cli('turn', 'on')
        fresh = eventually(lambda: told(client), 'it is told again')
        talk(caller(calling, fresh), caller(calling, fresh))


def refused(relay: Relay, value: bytes) -> bool:
    probe = caller(relay, value)
    try:
        probe.allocate()
        probe.refresh(0)
    except Denied as denied:
        return denied.code == 401
    finally:
        probe.close()
    return False
