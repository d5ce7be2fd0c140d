"""TCP and TLS clients, and connections to peers (RFC 6062)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import time
from collections.abc import Callable

import pytest

from madmail.realtime.turn import message
from madmail.realtime.turn.message import Address, build, parse
from tests.realtime.turn.client import Denied, TurnClient
from tests.realtime.turn.conftest import Peer, Rig

TCP = (message.REQUESTED_TRANSPORT, message.family(message.TCP))


def closed(client: TurnClient) -> bool:
    """Whether the server has ended the connection."""
    try:
        while client.socket.recv(65536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize('transport', ['tcp', 'tls'])
def test_messages_in_pieces_and_at_once(rig: Rig, peer: Peer, transport: str) -> None:
    client = rig.client(transport)
    relayed = client.allocate()
    client.bind(0x4000, peer.address)
    packets = [b'\x40\0\0\5piece\0\0\0', b'\x40\0\0\4four', b'\x40\0\0\0']
    client.socket.sendall(b''.join(packets))
    assert [peer.receive()[0] for _ in packets] == [b'piece', b'four', b'']
    for octet in b''.join(packets) + build(message.REQUEST, message.BINDING, b't' * 12):
        client.socket.sendall(bytes([octet]))
    assert [peer.receive()[0] for _ in packets] == [b'piece', b'four', b'']
    assert parse(client.receive()).transaction == b't' * 12
    peer.send(b'padded', relayed)
    assert client.socket.recv(100) == b'\x40\0\0\6padded\0\0'


@pytest.mark.parametrize(
    'data', [b'\xff' * 20, b'GET / HTTP/1.1\r\n\r\n' * 2, b'\0\1\0\3' + bytes(30), bytes(40)]
)
def test_what_is_no_message_ends_the_connection(rig: Rig, data: bytes) -> None:
    client = rig.client('tcp')
    client.socket.sendall(data)
    assert closed(client)


def test_who_says_nothing_is_let_go(rig: Rig) -> None:
    silent, asking, calling = (rig.client('tcp') for _ in range(3))
    asking.ask(message.BINDING, [])
    calling.allocate()
    rig.pass_time(11)
    assert closed(silent)
    asking.ask(message.BINDING, [])
    rig.pass_time(62)
    assert closed(asking)
    calling.refresh(600)


def test_a_half_open_handshake_is_let_go(rig: Rig) -> None:
    plain = socket.create_connection(rig.addresses['tls'])
    rig.client('tls').ask(message.BINDING, [])
    rig.pass_time(11)
    plain.settimeout(10)
    assert plain.recv(100) == b''
    plain.close()


def test_the_allocation_ends_with_its_connection(rig: Rig) -> None:
    client = rig.client('tcp')
    client.allocate()
    client.close()
    other = rig.client()
    for _ in range(100):
        if not rig.ask(lambda: len(rig.server.allocations)):
            break
        time.sleep(0.05)
    assert not rig.ask(lambda: len(rig.server.allocations))
    assert not rig.ask(lambda: len(rig.server.streams))
    assert not rig.server.stream_networks
    other.ask(message.BINDING, [])


def test_connections_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('madmail.realtime.turn.server.STREAMS_PER_NETWORK', 2)
    for _ in range(2):
        rig.client('tcp').ask(message.BINDING, [])
    assert closed(rig.client('tcp'))
    assert rig.dropped('connection') == 1


def test_strangers_send_short_messages(rig: Rig) -> None:
    client = rig.client('tcp')
    client.socket.sendall(b'\0\1\xff\xfc')
    assert closed(client)


def test_a_packet_too_long_for_an_indication_ends_nothing(rig: Rig) -> None:
    one, other = rig.client('tcp'), rig.client('tcp')
    here, there = one.allocate(), other.allocate()
    other.permit(here)
    one.bind(0x4000, there)
    for payload in (bytes(65535), bytes(65505), b'later'):
        one.channel_data(0x4000, payload)
    indication = parse(other.receive())
    assert indication.get(message.DATA) == b'later'
    one.channel_data(0x4000, bytes(65504))
    assert len(parse(other.receive()).get(message.DATA) or b'') == 65504


def test_a_fault_of_ours_ends_the_connection(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing would take what it sends, and that would be kept."""
    client = rig.client('tcp')
    client.allocate()

    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(rig.server.requests, '_send', broken)
    client.indicate(Address('127.0.0.2', 9), b'')
    assert closed(client)
    assert not rig.ask(lambda: len(rig.server.allocations))


def test_new_connections_of_a_network_are_slowed_down(rig: Rig) -> None:
    rig.ask(lambda: rig.server._entering.set(1, 2))
    for _ in range(2):
        rig.client('tcp').ask(message.BINDING, [])
    assert closed(rig.client('tcp'))
    assert rig.server.dropped['connection'] == 1


def test_handshakes_leave_room_for_packets(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('madmail.realtime.turn.server.HANDSHAKES', 2)

    def turns() -> list[list[bool]]:
        found = []
        for _ in range(2):
            rig.loop.turn += 1
            found.append([rig.server.may_shake() for _ in range(3)])
        return found

    assert rig.ask(turns) == [[True, True, False]] * 2
    monkeypatch.setattr('madmail.realtime.turn.server.HANDSHAKES', 1)
    plain = [socket.create_connection(rig.addresses['tls']) for _ in range(5)]
    until(rig, lambda: len(rig.server.streams) == 5)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    waiting = [context.wrap_socket(one, do_handshake_on_connect=False) for one in plain]
    for one in waiting:
        one.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            one.do_handshake()
    for one in waiting:
        one.settimeout(10)
        one.do_handshake()
        one.close()


# -- RFC 6062


class Listening:
    """A peer that accepts."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.bind(('127.0.0.2', 0))
        self.socket.listen()
        self.socket.settimeout(10)
        self.address = Address(*self.socket.getsockname())

    def accept(self) -> socket.socket:
        accepted, _ = self.socket.accept()
        accepted.settimeout(10)
        return accepted


def bound(rig: Rig, control: TurnClient, number: int, transport: str = 'tcp') -> TurnClient:
    """The client's own connection to what has this number."""
    data = rig.client(transport)
    data.name, data.key = control.name, control.key
    data.request(message.CONNECTION_BIND, [(message.CONNECTION_ID, number.to_bytes(4, 'big'))])
    return data


def exchange(one: socket.socket, other: socket.socket, size: int) -> None:
    """`size` octets from one to the other."""
    sent = os.urandom(1000) * (size // 1000)
    one.settimeout(10)
    received = bytearray()
    at = 0
    while len(received) < len(sent):
        if at < len(sent):
            at += one.send(sent[at : at + 65536])
        received += other.recv(1 << 20)
    assert bytes(received) == sent


@pytest.mark.parametrize('transport', ['tcp', 'tls'])
def test_connect_to_a_peer(rig: Rig, transport: str) -> None:
    listening = Listening()
    control = rig.client(transport)
    relayed = control.allocate(protocol=message.TCP)
    number = control.connect_to(listening.address)
    theirs = listening.accept()
    assert Address(*theirs.getpeername()) == relayed
    theirs.sendall(b'ahead')
    data = bound(rig, control, number, transport)
    assert data.raw() == b'ahead'
    exchange(data.socket, theirs, 300_000)
    exchange(theirs, data.socket, 300_000)
    with pytest.raises(Denied, match='446'):
        control.connect_to(listening.address)
    theirs.close()
    assert closed(data)
    listening.socket.close()


def somewhere(ports: range) -> socket.socket:
    """A service on one of them that is free."""
    for port in ports:
        try:
            return socket.create_server(('127.0.0.1', port))
        except OSError:
            pass
    raise AssertionError


def test_what_else_listens_on_this_host_is_not_reached(rig: Rig) -> None:
    """Ports of the range are for relays, and somebody else may have one."""
    control, other = rig.client('tcp'), rig.client('tcp')
    control.allocate(protocol=message.TCP)
    place = other.allocate(protocol=message.TCP)
    with somewhere(range(20000, 21000)) as service:
        port = service.getsockname()[1]
        with pytest.raises(Denied, match='447'):
            control.connect_to(Address('127.0.0.1', port))
        service.setblocking(False)
        with pytest.raises(BlockingIOError):
            service.accept()
    assert control.connect_to(place)


def test_a_half_close_is_passed_on(rig: Rig) -> None:
    listening = Listening()
    control = rig.client('tcp')
    control.allocate(protocol=message.TCP)
    data = bound(rig, control, control.connect_to(listening.address))
    theirs = listening.accept()
    data.socket.sendall(b'the question')
    data.socket.shutdown(socket.SHUT_WR)
    assert theirs.recv(100) == b'the question'
    assert theirs.recv(100) == b''
    theirs.sendall(b'the answer')
    theirs.close()
    assert data.raw() == b'the answer'
    assert closed(data)
    assert rig.ask(lambda: len(next(iter(rig.server.allocations)).connections.by_peer)) == 0
    listening.socket.close()


def until(rig: Rig, condition: Callable[[], object]) -> None:
    """Wait for something that the loop says."""
    for _ in range(1000):
        if rig.ask(condition):
            return
        time.sleep(0.01)
    raise AssertionError


def test_a_slow_reader_gets_all_though_both_have_ended(rig: Rig) -> None:
    listening = Listening()
    control = rig.client('tcp')
    control.allocate(protocol=message.TCP)
    data = rig.client('tcp')
    data.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    number = control.connect_to(listening.address)
    theirs = listening.accept()
    data.name, data.key = control.name, control.key
    data.request(message.CONNECTION_BIND, [(message.CONNECTION_ID, number.to_bytes(4, 'big'))])
    (stream,) = rig.ask(lambda: [one for one in rig.server.streams if one.connection])
    sent = 0
    while not rig.ask(lambda: stream.output):
        sent += theirs.send(bytes(4096))
    theirs.close()
    until(rig, lambda: stream.connection._peer_ended)
    data.socket.shutdown(socket.SHUT_WR)
    until(rig, lambda: stream.closed or stream.eof)
    received = 0
    while chunk := data.socket.recv(1 << 20):
        received += len(chunk)
    assert received == sent
    until(rig, lambda: stream.closed and stream.connection.closed)
    listening.socket.close()


def test_tls_says_that_it_ends(rig: Rig) -> None:
    listening = Listening()
    control = rig.client('tls')
    control.allocate(protocol=message.TCP)
    data = bound(rig, control, control.connect_to(listening.address), 'tls')
    theirs = listening.accept()
    theirs.sendall(b'all')
    theirs.close()
    assert data.raw() == b'all'
    assert isinstance(data.socket, ssl.SSLSocket)
    data.socket.suppress_ragged_eofs = False
    assert data.socket.recv(10) == b''
    listening.socket.close()


def test_a_peer_connects(rig: Rig) -> None:
    control = rig.client('tcp')
    relayed = control.allocate(protocol=message.TCP)
    stranger = socket.create_connection(relayed, 10, ('127.0.0.3', 0))
    assert stranger.recv(10) == b''  # no permission
    control.permit(Address('127.0.0.2', 0))
    theirs = socket.create_connection(relayed, 10, ('127.0.0.2', 0))
    attempt = parse(control.receive())
    assert attempt.method == message.CONNECTION_ATTEMPT
    assert control.address(attempt, message.XOR_PEER_ADDRESS) == Address(*theirs.getsockname())
    number = int.from_bytes(attempt.get(message.CONNECTION_ID) or b'', 'big')
    data = bound(rig, control, number)
    exchange(theirs, data.socket, 10_000)
    with pytest.raises(Denied, match='400'):
        bound(rig, control, number)  # only once
    control.refresh(0)
    assert closed(data)
    assert theirs.recv(10) == b''
    theirs.close()
    stranger.close()


class Exhausted:
    """A listener while the system has no more descriptors."""

    def __init__(self, listener: socket.socket) -> None:
        self.fileno = listener.fileno
        self.asked = 0

    def accept(self) -> None:
        self.asked += 1
        raise OSError(errno.EMFILE, 'no descriptors')


def test_a_peer_waits_while_there_are_no_descriptors(rig: Rig) -> None:
    control = rig.client('tcp')
    relayed = control.allocate(protocol=message.TCP)
    control.permit(Address('127.0.0.2', 0))
    (connections,) = [one.connections for one in rig.server.allocations]
    listener = connections._listener
    without = Exhausted(listener)
    connections._listener = without
    theirs = socket.create_connection(relayed, 10, ('127.0.0.2', 0))
    until(rig, lambda: without.asked)

    def looked_at() -> bool:
        connections.acceptable()
        return listener.fileno() in rig.loop._handlers

    assert not rig.ask(looked_at)  # until the clock looks again
    connections._listener = listener
    rig.ask(lambda: connections.tick(0.0))
    assert parse(control.receive()).method == message.CONNECTION_ATTEMPT
    theirs.close()


def test_nobody_there_and_nobody_who_comes(rig: Rig) -> None:
    control = rig.client('tcp')
    control.allocate(protocol=message.TCP)
    free = Listening()
    free.socket.close()
    with pytest.raises(Denied, match='447'):
        control.connect_to(free.address)
    listening = Listening()
    control.connect_to(listening.address)
    theirs = listening.accept()
    theirs.sendall(bytes(500_000)[:200_000])
    rig.pass_time(31)
    try:
        assert theirs.recv(10) == b''
    except ConnectionResetError:
        pass
    assert not rig.ask(lambda: rig.server.pending or rig.server.waiting)
    listening.socket.close()
    theirs.close()


def test_requests_that_do_not_fit(rig: Rig) -> None:
    udp, tcp = rig.client(), rig.client('tcp')
    udp.allocate()
    with pytest.raises(Denied, match='400'):
        udp.connect_to(Address('127.0.0.2', 1))
    assert udp.denied(message.CONNECTION_BIND, [(message.CONNECTION_ID, bytes(4))]) == 400
    assert tcp.denied(message.ALLOCATE, [TCP, (message.EVEN_PORT, b'\0')]) == 400
    assert tcp.denied(message.ALLOCATE, [TCP, (message.DONT_FRAGMENT, b'')]) == 400
    assert tcp.denied(message.CONNECTION_BIND, [(message.CONNECTION_ID, bytes(4))]) == 400
    tcp.allocate(protocol=message.TCP)
    with pytest.raises(Denied, match='400'):
        tcp.bind(0x4000, Address('127.0.0.2', 1))
    with pytest.raises(Denied, match='403'):
        tcp.connect_to(Address('10.0.0.1', 1))


def test_connections_of_another_user_are_not_had(rig: Rig) -> None:
    listening = Listening()
    control = rig.client('tcp')
    control.allocate(protocol=message.TCP)
    number = control.connect_to(listening.address)
    thief = rig.client('tcp', name=str(int(control.name) - 7))
    value = (message.CONNECTION_ID, number.to_bytes(4, 'big'))
    assert thief.denied(message.CONNECTION_BIND, [value]) == 441
    listening.socket.close()


def test_a_peer_that_sends_too_much_too_early_is_made_to_wait(rig: Rig) -> None:
    listening = Listening()
    control = rig.client('tcp')
    control.allocate(protocol=message.TCP)
    number = control.connect_to(listening.address)
    theirs = listening.accept()
    theirs.setblocking(False)
    sent = 0
    for _ in range(400):
        try:
            sent += theirs.send(bytes(65536))
        except BlockingIOError:
            rig.ask(lambda: None)
    (waiting,) = rig.ask(lambda: list(rig.server.waiting))
    assert len(waiting._ahead) <= 2 * 65536
    data = bound(rig, control, number)
    received = 0
    while received < sent:
        received += len(data.raw())
    theirs.close()
    listening.socket.close()
