"""What passes between clients and peers, and what does not."""

from __future__ import annotations

import socket

import pytest

from madmail.realtime.turn import message
from madmail.realtime.turn.message import Address, parse
from madmail.realtime.turn.process import NOTHING
from tests.realtime.turn.client import TurnClient
from tests.realtime.turn.conftest import Peer, Rig

SIZES = (0, 1, 3, 160, 1201, 9000)


def payload(size: int) -> bytes:
    return bytes(number % 251 for number in range(size))


def data_of(received: bytes) -> tuple[Address, bytes]:
    """Peer and payload of a Data indication."""
    found = parse(received)
    assert (found.kind, found.method) == (message.INDICATION, message.DATA_METHOD)
    peer = message.read_xor_address(found.get(message.XOR_PEER_ADDRESS) or b'', found.transaction)
    data = found.get(message.DATA)
    assert data is not None
    return peer, data


@pytest.mark.parametrize('transport', ['udp', 'udp6', 'tcp', 'tls'])
def test_channels_both_ways(rig: Rig, peer: Peer, transport: str) -> None:
    client = rig.client(transport)
    relayed = client.allocate()
    client.bind(0x4001, peer.address)
    for size in SIZES:
        client.channel_data(0x4001, payload(size))
        assert peer.receive() == (payload(size), relayed)
        peer.send(payload(size), relayed)
        head = b'\x40\x01' + size.to_bytes(2, 'big')
        assert client.receive() == head + payload(size)


@pytest.mark.parametrize('transport', ['udp', 'tcp', 'tls'])
def test_indications_both_ways(rig: Rig, peer: Peer, transport: str) -> None:
    client = rig.client(transport)
    relayed = client.allocate()
    client.permit(peer.address)
    for size in SIZES:
        client.indicate(peer.address, payload(size))
        assert peer.receive() == (payload(size), relayed)
        peer.send(payload(size), relayed)
        assert data_of(client.receive()) == (peer.address, payload(size))
    client.indicate(peer.address, b'whole', (message.DONT_FRAGMENT, b''))
    assert peer.receive() == (b'whole', relayed)


def test_ipv6(rig: Rig) -> None:
    six = (message.REQUESTED_ADDRESS_FAMILY, message.family(message.IPV6))
    one, two = rig.client(), rig.client('udp6')
    first, second = one.allocate(six), two.allocate(six)
    assert first.host == second.host == '::1'
    one.permit(second)
    two.bind(0x4000, first)
    two.channel_data(0x4000, b'hello')
    assert data_of(one.receive()) == (second, b'hello')
    one.indicate(second, b'back')
    assert two.receive() == b'\x40\0\0\4back'


@pytest.mark.parametrize('transports', [('udp', 'udp'), ('tcp', 'udp'), ('tls', 'tcp')])
def test_two_relays_talk_to_each_other(rig: Rig, transports: tuple[str, str]) -> None:
    one, two = (rig.client(transport) for transport in transports)
    first, second = one.allocate(), two.allocate()
    one.bind(0x4000, second)
    two.bind(0x5000, first)
    for size in SIZES:
        one.channel_data(0x4000, payload(size))
        assert two.receive() == b'\x50\0' + size.to_bytes(2, 'big') + payload(size)
        two.channel_data(0x5000, payload(size))
        assert one.receive() == b'\x40\0' + size.to_bytes(2, 'big') + payload(size)


def elsewhere(rig: Rig, *relayed: Address) -> None:
    """As if another process had these."""
    ports = {f'udp1 {address.port}': 1 for address in relayed}
    rig.ask(lambda: rig.server.learn({'by': 1, **NOTHING, 'ports': ports}))
    rig.ask(rig.server.relayed.clear)


def test_relays_of_two_processes_talk_to_each_other(rig: Rig) -> None:
    """Over the network, where the other one is not in this process."""
    rig.reconfigure(alone=False)
    one, two = rig.client(), rig.client()
    first, second = one.allocate(), two.allocate()
    one.permit(second)
    two.bind(0x5000, first)
    elsewhere(rig, first, second)
    one.indicate(second, b'over')
    assert two.receive() == b'\x50\0\0\4over'
    two.channel_data(0x5000, b'back')
    assert data_of(one.receive()) == (second, b'back')


def test_relays_behind_one_to_one_nat_talk_to_each_other(rig: Rig) -> None:
    """The address that others see is none of ours."""
    rig.reconfigure(public={1: '8.8.4.4'}, bound={1: '0.0.0.0'}, alone=False)
    one, two = rig.client(), rig.client()
    first, second = one.allocate(), two.allocate()
    assert first.host == '8.8.4.4'
    one.permit(second)
    two.permit(first)
    one.indicate(second, b'inside')
    assert data_of(two.receive()) == (first, b'inside')
    elsewhere(rig, first, second)
    one.indicate(second, b'across')
    assert data_of(two.receive()) == (first, b'across')


def test_ports_of_the_range_that_are_not_ours_are_not_reached(rig: Rig) -> None:
    """Also where another process might have them."""
    rig.reconfigure(alone=False)
    one, two = rig.client(), rig.client()
    first, second = one.allocate(), two.allocate()
    one.permit(second)
    two.permit(first)
    rig.ask(rig.server.relayed.clear)
    one.indicate(second, b'to nobody')
    nothing_else(one)
    nothing_else(two)
    assert rig.server.dropped['allocation'] == 1


def nothing_else(client: TurnClient) -> None:
    """Nothing came before the answer to this."""
    client.refresh(600)
    assert client.waiting == []


def test_without_permission_nothing_passes(rig: Rig, peer: Peer) -> None:
    stranger = Peer('127.0.0.3')
    client = rig.client()
    relayed = client.allocate()
    stranger.send(b'unasked', relayed)
    client.indicate(stranger.address, b'unasked')
    client.permit(peer.address)
    stranger.send(b'unasked', relayed)
    peer.send(b'asked', relayed)
    assert data_of(client.receive()) == (peer.address, b'asked')
    client.indicate(stranger.address, b'unasked')
    nothing_else(client)
    stranger.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        stranger.receive()
    stranger.socket.close()


def test_a_permission_is_for_the_host_and_a_channel_for_the_port(rig: Rig, peer: Peer) -> None:
    other = Peer('127.0.0.2')
    client = rig.client()
    relayed = client.allocate()
    client.bind(0x4000, peer.address)
    other.send(b'other port', relayed)
    assert data_of(client.receive()) == (other.address, b'other port')
    other.socket.close()


def test_a_channel_lasts_longer_than_its_permission(rig: Rig, peer: Peer) -> None:
    client = rig.client()
    relayed = client.allocate()
    client.bind(0x4000, peer.address)
    rig.pass_time(400)
    peer.send(b'still', relayed)
    assert client.receive() == b'\x40\0\0\5still'
    client.channel_data(0x4000, b'here')
    assert peer.receive() == (b'here', relayed)


def test_wrong_packets_are_dropped_in_silence(rig: Rig, peer: Peer) -> None:
    client = rig.client()
    client.allocate()
    client.bind(0x4000, peer.address)
    for data in (
        b'',
        b'\x40',
        b'\x40\0\0',
        b'\x40\0\0\5four',  # shorter than it says
        b'\x40\1\0\0',  # no such channel
        b'\xff' * 40,
        b'\x80\0\0\0',
        b'\0\1\0\0' + bytes(16),  # not the cookie
        b'\0\x16\0\0' + message.COOKIE.to_bytes(4, 'big') + bytes(12),  # Send without anything
    ):
        client.socket.send(data)
    nothing_else(client)
    assert rig.dropped() == 9
    client.socket.send(b'\x40\0\0\4fourand more')
    assert peer.receive()[0] == b'four'


def test_what_is_too_fast_is_dropped(rig: Rig, peer: Peer) -> None:
    rig.limit(rate=1000)
    client = rig.client()
    client.allocate()
    client.bind(0x4000, peer.address)
    for _ in range(300):
        client.channel_data(0x4000, bytes(1000))
    client.refresh(600)
    dropped = rig.dropped('rate')
    assert 150 < dropped <= 300 - 131
    assert rig.ask(rig.server.statistics)['octets']['turn']['received'] == (300 - dropped) * 1000


def test_an_account_and_the_whole_have_rates_too(rig: Rig, peer: Peer) -> None:
    rig.limit(rate=0, account_rate=1000)
    clients = [rig.client() for _ in range(2)]
    clients[1].name, clients[1].key = clients[0].name, clients[0].key
    for client in clients:
        client.allocate()
        client.bind(0x4000, peer.address)
        for _ in range(100):
            client.channel_data(0x4000, bytes(1000))
        client.refresh(600)
    assert rig.dropped('rate') > 50


def test_a_client_that_does_not_read_costs_bounded_memory(rig: Rig, peer: Peer) -> None:
    rig.limit(rate=0)
    client = rig.client('tcp')
    relayed = client.allocate()
    client.bind(0x4000, peer.address)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for number in range(50_000):
        peer.send(bytes(1400), relayed)
        if number % 50 == 0:
            rig.ask(lambda: None)  # it keeps up
        if rig.server.dropped['queue']:
            break
    (stream,) = rig.ask(lambda: list(rig.server.streams))
    assert rig.server.dropped['queue']
    assert len(stream.output) < 140_000
