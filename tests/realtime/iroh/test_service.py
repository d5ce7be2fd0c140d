"""The relay over real sockets."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from madmail.realtime.iroh import (
    connection,
    derp,
    handshake,
    messages,
    probe,
    relay,
    speech,
    switchboard,
)
from madmail.realtime.iroh.speech import PREAMBLE
from madmail.shard.address import connect
from madmail.web.webimap import websocket
from tests.realtime.iroh.rig import Node, Service, Socket, exactly, head, masked, rest, until

Serve = Callable[..., Service]
ASK = b'GET /relay HTTP/1.1\r\nupgrade: iroh derp http\r\n\r\n'


def quiet(stream: socket.socket, seconds: float = 0.2) -> bool:
    """Whether nothing comes."""
    stream.settimeout(seconds)
    try:
        return stream.recv(1, socket.MSG_PEEK) == b'never'
    except TimeoutError:
        return True
    finally:
        stream.settimeout(10)


# -- native clients


def test_nothing_is_said_before_the_first_ping(service: Service) -> None:
    node = Node(service).hello()
    assert quiet(node.stream)
    node.stream.sendall(derp.frame(derp.PING, b'12345678'))
    assert node.receive() == (derp.PONG, b'12345678')


def test_packets_go_to_whom_they_are_for(service: Service) -> None:
    nodes = [Node(service).hello() for _ in range(3)]
    for node in nodes:
        node.ping()
    for source in nodes:
        for target in nodes:
            source.send(target.key, source.key[:4] + target.key[:4])
            assert target.receive() == (
                derp.RECEIVE,
                source.key + source.key[:4] + target.key[:4],
            )
    until(lambda: service['forwarded'] == 9, 'counted')


def test_a_conversation_may_come_in_one_piece_or_octet_by_octet(service: Service) -> None:
    other = Node(service).hello()
    other.ping()
    secret = Ed25519PrivateKey.generate()
    packets = [os.urandom(size) for size in (0, 1, 100, 1200)]
    said = (
        ASK
        + handshake.introduce(secret)
        + b''.join(derp.frame(derp.SEND, other.key + packet) for packet in packets)
        + derp.frame(derp.PING, b'12345678')
    )
    for size in (len(said), 1):
        with service.connect() as stream:
            for at in range(0, len(said), size):
                stream.sendall(said[at : at + size])
            assert head(stream).startswith(b'HTTP/1.1 101 ')
            assert exactly(stream, 13) == derp.frame(derp.PONG, b'12345678')
            key = secret.public_key().public_bytes_raw()
            for packet in packets:
                assert other.receive() == (derp.RECEIVE, key + packet)
        assert other.receive() == (derp.GONE, key)


def test_large_packets_keep_their_order_and_octets(service: Service) -> None:
    one, two = Node(service).hello(), Node(service).hello()
    two.ping()
    packets = [os.urandom(size) for size in (65536, 14000, 1, 65535, 0, 30000)]
    for packet in packets:
        one.send(two.key, packet)
    for packet in packets:
        assert two.receive() == (derp.RECEIVE, one.key + packet)


def test_a_packet_for_nobody_is_dropped_in_silence(service: Service) -> None:
    node = Node(service).hello()
    node.send(os.urandom(32), b'hello')
    node.ping()
    assert service['unreachable'] == 1


def test_what_is_not_known_is_ignored(service: Service) -> None:
    node = Node(service).hello()
    for kind in (0, 1, 2, 3, 5, 6, 7, 8, 9, 14, 15, 77, 255):
        node.stream.sendall(derp.frame(kind, b'whatever'))
    node.ping()
    node.stream.sendall(handshake.introduce(node.secret))
    node.ping()


@pytest.mark.parametrize(
    'said',
    [
        derp.HEADER.pack(derp.SEND, 70_000),
        derp.HEADER.pack(derp.SEND, 31),
        derp.HEADER.pack(200, 1 << 31),
        derp.HEADER.pack(derp.PING, 0),
    ],
)
def test_who_breaks_the_framing_is_let_go(service: Service, said: bytes) -> None:
    node = Node(service).hello()
    node.ping()
    node.stream.sendall(said)
    assert rest(node.stream) == b''
    until(lambda: service['malformed'] == 1 and service['open'] == 0, 'gone')


@pytest.mark.parametrize(
    'said',
    [
        derp.frame(derp.PING, b'12345678'),
        derp.frame(derp.CLIENT_INFO, b'x' * 106),
        derp.frame(derp.CLIENT_INFO, b''),
        derp.HEADER.pack(derp.CLIENT_INFO, 1025),
        derp.frame(derp.SEND, bytes(40)),
    ],
)
def test_who_does_not_say_who_it_is_is_let_go(service: Service, said: bytes) -> None:
    node = Node(service)
    node.stream.sendall(said)
    assert rest(node.stream) == b''
    until(lambda: service['denied'] + service['malformed'] == 1, 'counted')


def test_those_who_heard_of_a_node_are_told_that_it_left(service: Service) -> None:
    one, two, three = (Node(service).hello() for _ in range(3))
    two.ping()
    three.ping()
    one.send(two.key, b'hello')
    assert two.receive()[0] == derp.RECEIVE
    one.close()
    assert two.receive() == (derp.GONE, one.key)
    assert quiet(three.stream)


# -- WebSockets


def test_both_forms_of_the_old_protocol_meet(service: Service) -> None:
    native, browser, other = Node(service).hello(), Socket(service).hello(), Socket(service).hello()
    native.ping()
    browser.ping()
    other.ping()
    packet = os.urandom(20_000)
    native.send(browser.key, packet)
    assert browser.receive() == bytes((derp.RECEIVE,)) + native.key + packet
    browser.say(bytes((derp.SEND,)) + native.key + packet)
    assert native.receive() == (derp.RECEIVE, browser.key + packet)
    browser.say(bytes((derp.SEND,)) + other.key + b'')
    assert other.receive() == bytes((derp.RECEIVE,)) + browser.key


def test_a_message_may_be_in_parts(service: Service) -> None:
    one, two = Socket(service).hello(), Socket(service).hello()
    two.ping()
    packet = os.urandom(5000)
    message = bytes((derp.SEND,)) + two.key + packet
    parts = [message[:10], message[10:2000], b'', message[2000:]]
    for number, part in enumerate(parts):
        opcode = websocket.CONTINUATION if number else websocket.BINARY
        one.stream.sendall(masked(opcode, part, final=number == len(parts) - 1))
        one.stream.sendall(masked(websocket.PING, b'a ping of WebSocket is not answered'))
    assert two.receive() == bytes((derp.RECEIVE,)) + one.key + packet
    one.ping()
    assert service['held'] == 0


class Talking:
    """As much of a connection as a speech asks for."""

    key = bytes(32)
    speech: speech.OldSocket
    held = 0

    def talking(self) -> bool:
        return True

    def hold(self, octets: int) -> None:
        self.held += octets


def test_a_message_in_many_parts_is_put_together_in_place() -> None:
    """Or each part would copy all that came before."""
    connection = Talking()
    speaking = speech.OldSocket(connection)  # type: ignore[arg-type]
    connection.speech = speaking
    part = masked(websocket.CONTINUATION, b'x', final=False)
    speaking.received(memoryview(bytearray(masked(websocket.BINARY, b'x', final=False))))
    message = speaking._message
    speaking.received(memoryview(bytearray(part * 1000)))
    assert speaking._message is message
    assert len(message) == connection.held == 1001
    speaking.received(memoryview(bytearray(masked(websocket.CONTINUATION, b'x'))))
    assert connection.held == 0


def test_of_pings_that_come_at_once_the_newest_is_answered(service: Service) -> None:
    node = Node(service).hello()
    node.ping()
    numbers = [number.to_bytes(8, 'big') for number in range(50)]
    node.stream.sendall(b''.join(derp.frame(derp.PING, number) for number in numbers))
    assert node.receive() == (derp.PONG, numbers[-1])
    node.stream.sendall(derp.frame(derp.PING, b'the next'))
    assert node.receive() == (derp.PONG, b'the next')


@pytest.mark.parametrize('protocol', messages.PROTOCOLS)
def test_nodes_of_1_x_meet(service: Service, protocol: str) -> None:
    one, two = Socket(service, protocol).hello(), Socket(service, 'iroh-relay-v1').hello()
    assert f'Sec-WebSocket-Protocol: {protocol}\r\n'.encode() in one.answer
    one.ping()
    two.ping()
    for kind, body in ((messages.DATAGRAM, b'\x01data'), (messages.BATCH, b'\x00\x00\x05datas')):
        one.say(bytes((kind,)) + two.key + body)
        assert two.receive() == bytes((kind + 2,)) + one.key + body
    one.close()
    assert two.receive() == bytes((messages.NEW_GONE,)) + one.key


def test_both_protocols_keep_apart(service: Service) -> None:
    secret = Ed25519PrivateKey.generate()
    old, new = Node(service, secret).hello(), Socket(service, messages.V2, secret).hello()
    old.ping()
    new.ping()
    other = Socket(service, messages.V2).hello()
    other.say(bytes((messages.DATAGRAM,)) + new.key + b'\0x')
    assert new.receive()[0] == messages.DATAGRAM + 2
    assert quiet(old.stream)


def test_an_answer_replayed_is_denied(service: Service) -> None:
    one = Socket(service, messages.V2)
    answer = handshake.answer(one.secret, one.receive()[1:])
    one.say(answer)
    assert one.receive() == bytes((messages.CONFIRMED,))
    two = Socket(service, messages.V2)
    two.receive()
    two.say(answer)
    denied = two.receive()
    assert denied[0] == messages.DENIED
    assert denied[1] == len(denied) - 2
    assert two.frame()[0] == websocket.CLOSE
    one.ping()
    assert service['denied'] == 1


@pytest.mark.parametrize(
    ('said', 'code'),
    [
        (masked(websocket.TEXT, b'hello'), websocket.NOT_TEXT),
        (masked(websocket.CONTINUATION, b'hello'), websocket.PROTOCOL),
        (masked(websocket.BINARY, b''), websocket.PROTOCOL),
        (masked(websocket.BINARY, b'\x04short'), websocket.PROTOCOL),
        (b'\x82\x01x', websocket.PROTOCOL),
        (b'\x82\xff' + (100_000).to_bytes(8, 'big'), websocket.TOO_BIG),
        (masked(websocket.CLOSE, b''), websocket.NORMAL),
    ],
)
@pytest.mark.parametrize('protocol', ['', messages.V1])
def test_a_broken_websocket_is_closed_with_a_reason(
    service: Service, protocol: str, said: bytes, code: int
) -> None:
    client = Socket(service, protocol).hello()
    client.ping()
    client.stream.sendall(said)
    assert client.frame() == (websocket.CLOSE, code.to_bytes(2, 'big'))
    assert rest(client.stream) == b''


# -- the same node twice


def test_the_newest_connection_of_a_node_has_its_place(service: Service) -> None:
    old = Node(service).hello()
    old.ping()
    new = Node(service, old.secret).hello()
    new.ping()
    assert rest(old.stream) == b''
    other = Node(service).hello()
    other.send(new.key, b'hello')
    assert new.receive() == (derp.RECEIVE, other.key + b'hello')
    until(lambda: service['clients'] == service['open'] == 2, 'the old one is gone')
    assert service['evicted'] == 1


@pytest.mark.parametrize('protocol', messages.PROTOCOLS)
def test_the_older_connection_of_1_x_is_told_why(service: Service, protocol: str) -> None:
    old = Socket(service, protocol).hello()
    new = Socket(service, protocol, old.secret).hello()
    said = old.receive()
    assert said[0] == (messages.STATUS if protocol == messages.V2 else messages.HEALTH)
    assert old.frame()[0] == websocket.CLOSE
    new.ping()


def test_two_who_push_each_other_out_are_stopped(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, 'MUTE_TIME', 1.0)
    monkeypatch.setattr(switchboard, 'SETTLED', 2.0)
    nodes = [first := Node(service).hello()]
    first.ping()
    for _ in range(switchboard.CHANGES):
        nodes.append(first := Node(service, first.secret).hello())
        first.ping()
    late = Node(service, first.secret).hello()
    late.stream.sendall(derp.frame(derp.PING, b'12345678'))
    other = Node(service).hello()
    late.send(other.key, b'from nobody')
    # It is not answered, so that it gives up by itself and waits longer each time.
    assert quiet(late.stream)
    assert service['muted'] == 1
    first.send(other.key, b'hello')
    assert other.receive() == (derp.RECEIVE, first.key + b'hello')
    assert rest(late.stream) == b''
    time.sleep(2.0)
    late = Node(service, first.secret).hello()
    late.ping()
    assert rest(first.stream) == b''


# -- bounds


def flood(source: Node, target: bytes, octets: int, size: int = 10_000) -> int:
    """How many packets were sent."""
    packet = bytes(size)
    frame = derp.frame(derp.SEND, target + packet)
    count = octets // size
    for _ in range(count):
        source.stream.sendall(frame)
    source.ping()
    return count


def test_who_does_not_read_loses_the_newest_and_is_answered_all_the_same(serve: Serve) -> None:
    service = serve(iroh__queue=65536, iroh__rate=0)
    lazy, eager, friend = (Node(service).hello() for _ in range(3))
    lazy.ping()
    sent = flood(eager, lazy.key, 20_000_000)
    assert service['dropped'] > 0
    assert service['held'] <= 65536 + relay.SCRATCH
    eager.send(friend.key, b'not disturbed')
    assert friend.receive() == (derp.RECEIVE, eager.key + b'not disturbed')
    # What it gets is whole, and the pong is among it.
    lazy.stream.sendall(derp.frame(derp.PING, b'12345678'))
    packets = 0
    while (got := lazy.receive()) != (derp.PONG, b'12345678'):
        assert got == (derp.RECEIVE, eager.key + bytes(10_000))
        packets += 1
    lazy.stream.settimeout(0.3)
    while not quiet(lazy.stream):
        assert lazy.receive() == (derp.RECEIVE, eager.key + bytes(10_000))
        packets += 1
    assert packets == sent - service['dropped']
    assert service['held'] == 0


def test_a_pong_overtakes_what_waits(serve: Serve) -> None:
    service = serve(iroh__queue=8 << 20, iroh__rate=0)
    lazy, eager = Node(service).hello(), Node(service).hello()
    lazy.ping()
    flood(eager, lazy.key, 12_000_000)
    until(lambda: service['held'] > 4 << 20, 'much waits')
    lazy.stream.sendall(derp.frame(derp.PING, b'12345678'))
    behind = service['held']
    read = 0
    while (got := lazy.receive()) != (derp.PONG, b'12345678'):
        read += len(got[1])
    # What was in the kernel already was before it, and no more.
    assert service['held'] > 0
    assert behind > 0


def test_all_together_hold_no_more_than_the_memory(serve: Serve) -> None:
    service = serve(iroh__memory=1_000_000, iroh__queue=1 << 30, iroh__rate=0)
    lazy = [Node(service).hello() for _ in range(4)]
    eager = Node(service).hello()
    for node in lazy:
        node.ping()
    for node in lazy:
        flood(eager, node.key, 10_000_000)
    assert service['held'] <= 1_000_000
    assert service['dropped'] > 0
    # Nor by frames that do not end.
    nodes = [Node(service).hello() for _ in range(10)]
    for node in nodes:
        node.stream.sendall(derp.HEADER.pack(derp.SEND, 60_000) + bytes(50_000))
    until(lambda: service['open'] < 15, 'some are let go')
    assert service['held'] <= 1_000_000
    for node in lazy + nodes:
        node.close()
    until(lambda: service['open'] == 1, 'gone')
    assert service['held'] == 0


def test_messages_in_endless_parts_are_bounded(serve: Serve) -> None:
    service = serve()
    client = Socket(service).hello()
    client.ping()
    client.stream.sendall(masked(websocket.BINARY, bytes(40_000), final=False))
    until(lambda: service['held'] == 40_000, 'kept')
    client.stream.sendall(masked(websocket.CONTINUATION, bytes(40_000), final=False))
    assert client.frame() == (websocket.CLOSE, websocket.TOO_BIG.to_bytes(2, 'big'))
    until(lambda: service['held'] == 0, 'given back')


def test_who_sends_too_fast_is_slowed_down_and_loses_nothing(serve: Serve) -> None:
    service = serve(iroh__rate=400_000)
    one, two = Node(service).hello(), Node(service).hello()
    two.ping()
    began = time.monotonic()
    # Two seconds' worth at once, and one second more.
    count = 120
    for _ in range(count):
        one.send(two.key, bytes(10_000))
    for _ in range(count):
        assert two.receive()[0] == derp.RECEIVE
    assert time.monotonic() - began > 0.5
    one.ping()
    assert service['dropped'] == 0
    assert service['forwarded'] == count


def test_connections_of_one_address_are_limited(serve: Serve) -> None:
    service = serve(iroh__connections_per_ip=3)
    nodes = [Node(service).hello() for _ in range(3)]
    assert service.ask(ASK).startswith(b'HTTP/1.1 429 ')
    nodes[0].close()
    until(lambda: service['open'] == 2, 'gone')
    Node(service).hello().ping()
    assert service['refused_connections'] == 1


def test_connections_are_limited(serve: Serve) -> None:
    service = serve(iroh__connections=2)
    until(lambda: service['connections'] > 0 and service['open'] == 0, 'probed')
    nodes = [Node(service).hello() for _ in range(2)]
    nodes[1].ping()
    assert service.ask(ASK).startswith(b'HTTP/1.1 503 ')
    assert service.call(service.role.check)


def test_a_relay_that_is_full_is_there_all_the_same(serve: Serve) -> None:
    service = serve()
    node = Node(service).hello()
    node.ping()
    service.settings.replace('iroh.connections', 1)
    with service.connect() as stream:
        assert head(stream).startswith(b'HTTP/1.1 503 ')
    assert service.call(service.role._answers)


def test_new_connections_a_minute_are_limited(serve: Serve) -> None:
    service = serve(iroh__connects_per_minute_per_ip=10)
    for _ in range(5):
        assert service.ask(b'GET /ping HTTP/1.1\r\n\r\n').startswith(b'HTTP/1.1 200 ')
    assert service.ask(b'GET /ping HTTP/1.1\r\n\r\n').startswith(b'HTTP/1.1 429 ')


def test_behind_a_proxy_of_ours_clients_are_told_apart(serve: Serve) -> None:
    service = serve(web__trusted_proxies='127.0.0.1', iroh__connections_per_ip=2)
    ask = b'GET /relay HTTP/1.1\r\nupgrade: iroh derp http\r\nX-Forwarded-For: %s\r\n\r\n'
    streams = []
    for host in (b'203.0.113.1', b'203.0.113.1', b'203.0.113.2'):
        streams.append(service.connect())
        streams[-1].sendall(ask % host)
        assert head(streams[-1]).startswith(b'HTTP/1.1 101 ')
    assert service.ask(ask % b'203.0.113.1').startswith(b'HTTP/1.1 429 ')
    streams[0].close()
    until(lambda: service['open'] == 2, 'gone')
    with service.connect() as stream:
        stream.sendall(ask % b'203.0.113.1')
        assert head(stream).startswith(b'HTTP/1.1 101 ')


def test_our_web_workers_tell_who_it_is(serve: Serve) -> None:
    service = serve(iroh__connections_per_ip=1)

    def passed_on(peer: int) -> socket.socket:
        stream = connect(service.state_dir, probe.SOCKET)
        stream.settimeout(10)
        stream.sendall(PREAMBLE.pack(peer) + ASK)
        return stream

    streams = [passed_on(peer) for peer in (7, 8, 0, 0)]
    for stream in streams:
        assert head(stream).startswith(b'HTTP/1.1 101 ')
    late = passed_on(7)
    assert rest(late).startswith(b'HTTP/1.1 429 ')
    for stream in (*streams, late):
        stream.close()


# -- time


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, 'ROUND', 0.2)
    for name, seconds in (
        ('HELLO_TIME', 0.6), ('SILENCE', 0.3), ('JITTER', 0.1), ('PONG_TIME', 0.5),
        ('FRAME_TIME', 0.7), ('STUCK_TIME', 1.0), ('FAREWELL_TIME', 0.3),
    ):  # fmt: skip
        monkeypatch.setattr(connection, name, seconds)
    monkeypatch.setattr(connection.random, 'uniform', lambda low, high: 0.0)


@pytest.mark.parametrize(
    'said',
    [b'', b'GET /relay HT', ASK, ASK + handshake.introduce(Ed25519PrivateKey.generate())[:50]],
)
@pytest.mark.usefixtures('quick')
def test_who_does_not_get_on_is_let_go(serve: Serve, said: bytes) -> None:
    service = serve()
    with service.connect() as stream:
        stream.sendall(said)
        rest(stream)
    until(lambda: service['silent'] == 1, 'counted')


@pytest.mark.usefixtures('quick')
def test_a_silent_node_is_asked_and_let_go_if_it_does_not_answer(serve: Serve) -> None:
    service = serve()
    node, dead = Node(service).hello(), Node(service).hello()
    for _ in range(4):
        kind, data = node.receive()
        assert kind == derp.PING
        node.stream.sendall(derp.frame(derp.PONG, data))
    assert rest(dead.stream)[:1] == bytes((derp.PING,))
    until(lambda: service['clients'] == 1, 'one is left')
    kind, data = node.receive()
    assert (kind, service['silent']) == (derp.PING, 1)


@pytest.mark.usefixtures('quick')
def test_a_silent_node_of_1_x_too(serve: Serve) -> None:
    service = serve()
    node = Socket(service, messages.V1).hello()
    for _ in range(3):
        ping = node.receive()
        assert ping[0] == messages.NEW_PING
        node.say(bytes((messages.NEW_PONG,)) + ping[1:])
    assert node.receive()[0] == messages.NEW_PING
    rest(node.stream)
    until(lambda: service['silent'] == 1, 'let go')


@pytest.mark.usefixtures('quick')
def test_a_frame_that_does_not_end_ends(serve: Serve) -> None:
    service = serve()
    node = Node(service).hello()
    node.ping()
    said = derp.HEADER.pack(derp.SEND, 1000)
    try:
        for octet in said + bytes(900):
            node.stream.sendall(bytes((octet,)))
            time.sleep(0.01)
            if service['silent']:
                break
    except OSError:
        pass
    until(lambda: service['silent'] == 1, 'let go')
    assert service['held'] == 0


@pytest.mark.usefixtures('quick')
def test_who_never_reads_is_let_go(serve: Serve) -> None:
    service = serve(iroh__rate=0)
    lazy, eager = Node(service).hello(), Node(service).hello()
    lazy.ping()
    flood(eager, lazy.key, 12_000_000)
    while service['silent'] == 0:
        eager.ping()
        lazy.stream.sendall(derp.frame(derp.PONG, b'12345678'))  # it is alive, but does not read
        time.sleep(0.05)
    until(lambda: service['clients'] == 1, 'let go')
    assert service['held'] == 0


# -- life


def test_pages_end_their_connection(service: Service) -> None:
    assert b'<h1>Relay</h1>' in service.ask(b'GET / HTTP/1.1\r\n\r\n')
    found = service.ask(b'GET /ping HTTP/1.1\r\n\r\nGET /ping HTTP/1.1\r\n\r\n')
    assert found.count(b'HTTP/1.1 200 ') == 1
    assert service.ask(b'\x16\x03\x01 TLS').startswith(b'HTTP/1.1 400 ')
    assert service['bad_requests'] == 1


def test_a_reset_is_an_end(service: Service) -> None:
    node = Node(service).hello()
    node.ping()
    node.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    node.close()
    until(lambda: service['open'] == 0, 'gone')
    assert service['crashes'] == 0


def test_the_probe_is_a_node(service: Service) -> None:
    assert service.call(service.role.check)
    assert service.call(lambda: probe.answers(service.state_dir))
    until(lambda: service.role.statistics()['answers'], 'known')


def test_a_relay_that_goes_lets_all_go(service: Service) -> None:
    nodes: list[Any] = [Node(service).hello(), Socket(service, messages.V2).hello()]
    nodes[0].ping()
    service.retire()
    for node in nodes:
        assert rest(node.stream) == b''
    with pytest.raises(OSError):
        service.call(lambda: probe.answers(service.state_dir))


def test_an_exception_costs_one_connection(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, other = Node(service).hello(), Node(service).hello()
    node.ping()
    other.ping()
    monkeypatch.setattr(derp, 'readdress', lambda *_: 1 / 0)
    node.send(other.key, b'hello')
    assert rest(node.stream) == b''
    monkeypatch.undo()
    other.ping()
    assert service['crashes'] == 1
