"""A few ports that serve all."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time

import pytest

from madmail.realtime.turn import message
from madmail.realtime.turn.message import REQUEST, SUCCESS, Address, build
from tests.realtime.turn.client import TurnClient
from tests.realtime.turn.conftest import Peer, Rig
from tests.realtime.turn.test_packets import data_of

TRANSPORT = (message.REQUESTED_TRANSPORT, message.family(message.UDP))


def check(theirs: str, ours: str, transaction: bytes = b'') -> bytes:
    """A check of ICE for `theirs` from `ours`."""
    name = (message.USERNAME, f'{theirs}:{ours}'.encode())
    return build(REQUEST, message.BINDING, transaction or os.urandom(12), [name])


def free(count: int) -> range:
    """Ports that nobody has, beginning with an even one."""
    for first in random.sample(range(20000, 30000, 2), 100):
        held = []
        try:
            for port in range(first, first + count):
                held.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                held[-1].bind(('127.0.0.1', port))
        except OSError:
            continue
        finally:
            for each in held:
                each.close()
        return range(first, first + count)
    raise AssertionError


@pytest.fixture
def one_port(rig: Rig) -> Rig:
    rig.reconfigure(shared=True, ports=free(1))
    return rig


def relay(rig: Rig) -> Address:
    """The one address that all have."""
    return Address('127.0.0.1', rig.server.configuration.ports.start)


def callers(rig: Rig, count: int) -> list[TurnClient]:
    clients = [rig.client(name=str(int(time.time()) + 3600 + n)) for n in range(count)]
    for client in clients:
        assert client.allocate() == relay(rig)
    return clients


def test_peers_belong_to_whom_sent_there_first(one_port: Rig, peer: Peer) -> None:
    other = Peer('127.0.0.2')
    one, two = callers(one_port, 2)
    one.bind(0x4000, peer.address)
    two.bind(0x4000, other.address)
    one.channel_data(0x4000, b'from one')
    two.channel_data(0x4000, b'from two')
    assert peer.receive() == (b'from one', relay(one_port))
    assert other.receive() == (b'from two', relay(one_port))
    peer.send(b'to one', relay(one_port))
    other.send(b'to two', relay(one_port))
    assert one.receive()[4:] == b'to one'
    assert two.receive()[4:] == b'to two'
    other.socket.close()


def test_checks_name_whom_they_are_for(one_port: Rig, peer: Peer) -> None:
    one, two = callers(one_port, 2)
    for client, name in ((one, 'alice'), (two, 'bob')):
        client.permit(Address('127.0.0.2', 0))
        client.indicate(Address('127.0.0.2', 9), check('peer', name))  # to somewhere else
    for client, name in ((two, 'bob'), (one, 'alice')):
        asked = check(name, 'peer')
        peer.send(asked, relay(one_port))
        assert data_of(client.receive()) == (peer.address, asked)
    # without a name nobody knows
    peer.send(b'for whom?', relay(one_port))
    one.refresh(600)
    two.refresh(600)
    assert one.waiting == two.waiting == []
    assert one_port.dropped('ambiguous') == 1


def test_answers_are_for_whom_asked(one_port: Rig, peer: Peer) -> None:
    one, two = callers(one_port, 2)
    for client in (one, two):
        client.bind(0x4000, peer.address)
        transaction = os.urandom(12)
        client.channel_data(0x4000, check('peer', 'someone', transaction))
        peer.receive()
        answer = build(SUCCESS, message.BINDING, transaction)
        peer.send(answer, relay(one_port))
        assert client.receive()[4:] == answer


def test_two_calls_among_four_on_one_port(one_port: Rig) -> None:
    four = callers(one_port, 4)
    at = relay(one_port)
    names = ['a', 'b', 'c', 'd']
    for client in four:
        client.bind(0x4000, at)
    for _ in range(2):  # the first check of each side comes before anybody knows the other
        for number, client in enumerate(four):
            client.channel_data(0x4000, check(names[number ^ 1], names[number]))
            client.refresh(600)
    for client in four:
        client.waiting.clear()
        client.refresh(600)
        client.waiting.clear()
    for number, client in enumerate(four):
        client.channel_data(0x4000, names[number].encode())
        assert four[number ^ 1].receive()[4:] == names[number].encode()
    four[0].refresh(0)
    four[1].channel_data(0x4000, b'gone')
    four[2].channel_data(0x4000, b'still here')
    assert four[3].receive()[4:] == b'still here'


def test_nothing_is_left_of_those_who_went(one_port: Rig, peer: Peer) -> None:
    clients = callers(one_port, 3)
    for client in clients:
        client.bind(0x4000, peer.address)
        client.bind(0x4001, relay(one_port))
        client.channel_data(0x4000, check('x', client.name))
        client.channel_data(0x4001, check('x', client.name))
        client.refresh(0)
    (port,) = one_port.ask(lambda: list(one_port.server.shared._open.values()))
    assert not port.allocations
    assert not port.flows
    assert not port.names
    assert not port.questions


def test_ports_are_taken_in_turn_and_pairs_are_refused(rig: Rig) -> None:
    ports = free(4)
    rig.reconfigure(shared=True, ports=ports)
    taken = [rig.client().allocate().port for _ in range(4)]
    assert sorted(taken) == list(ports)
    assert rig.client().allocate((message.EVEN_PORT, b'\0')).port % 2 == 0
    pair = (message.EVEN_PORT, b'\x80')
    assert rig.client().denied(message.ALLOCATE, [TRANSPORT, pair]) == 508


def test_webrtc_programs_call_on_one_port(one_port: Rig) -> None:
    pytest.importorskip('aioice')
    from tests.realtime.turn.test_peers import connected, relayed

    async def talk() -> None:
        calls = []
        for number in range(0, 6, 2):
            one = await relayed(one_port, 'udp', number)
            two = await relayed(one_port, 'udp', number + 1)
            calls.append((one, two))
        await asyncio.gather(*(connected(one, two) for one, two in calls))
        for number, (one, two) in enumerate(calls):
            await one.send(b'%d' % number)
            assert await two.recv() == b'%d' % number
            await two.send(b'-%d' % number)
            assert await one.recv() == b'-%d' % number
        for call in calls:
            await asyncio.gather(*(each.close() for each in call))

    asyncio.run(asyncio.wait_for(talk(), 60))
