"""Whatever strangers say: nothing breaks, nothing is kept, others are served."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from madmail.realtime.iroh import derp, handshake, messages
from madmail.web.webimap import websocket
from tests.realtime.iroh.rig import Node, Service, Socket, masked, until

EXAMPLES = int(os.environ.get('MADMAIL_FUZZ', '60'))  # of each property
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope='module')
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(
        tmp_path_factory.mktemp('iroh'),
        iroh__connects_per_minute_per_ip=0,
        iroh__connections_per_ip=0,
    )
    yield service
    service.close()


@pytest.fixture(scope='module')
def witness(service: Service) -> Iterator[tuple[Node, Socket]]:
    """Two clients that behave, to be disturbed if possible."""
    native, new = Node(service).hello(), Socket(service, messages.V2).hello()
    yield native, new
    native.close()
    new.close()


def mutated(data: bytes, changes: list[tuple[int, int, int]]) -> bytes:
    found = bytearray(data)
    for place, kind, octet in changes:
        at = place % (len(found) + 1)
        if kind == 0 and at < len(found):
            found[at] = octet
        elif kind == 1:
            found[at:at] = bytes((octet,)) * (octet % 7)
        elif kind == 2:
            del found[at : at + octet % 9]
    return bytes(found)


changes = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 2), st.integers(0, 255)), max_size=8
)
cuts = st.lists(st.integers(1, 400), min_size=1, max_size=20)


def pour(stream: socket.socket, data: bytes, sizes: list[int]) -> None:
    """Send in pieces of these sizes, and go."""
    at = number = 0
    try:
        while at < len(data):
            size = sizes[number % len(sizes)]
            stream.sendall(data[at : at + size])
            at, number = at + size, number + 1
    except OSError:
        pass  # it let us go
    stream.close()


def unharmed(service: Service, witness: tuple[Node, Socket]) -> None:
    native, new = witness
    data = os.urandom(8)
    native.stream.sendall(derp.frame(derp.PING, data))
    while native.receive() != (derp.PONG, data):
        pass  # somebody may have sent us something, or have left
    new.say(bytes((messages.NEW_PING,)) + data)
    while new.receive() != bytes((messages.NEW_PONG,)) + data:
        pass
    until(lambda: service['open'] == 2 and service['held'] == 0, 'all is given back')
    assert service['crashes'] == 0


@fuzz
@given(data=st.binary(max_size=3000), sizes=cuts)
def test_any_octets(
    service: Service, witness: tuple[Node, Socket], data: bytes, sizes: list[int]
) -> None:
    pour(service.connect(), data, sizes)
    unharmed(service, witness)


@fuzz
@given(changes=changes, sizes=cuts, payload=st.binary(max_size=200), kind=st.integers(0, 20))
def test_a_native_conversation_with_mistakes(
    service: Service,
    witness: tuple[Node, Socket],
    changes: list[tuple[int, int, int]],
    sizes: list[int],
    payload: bytes,
    kind: int,
) -> None:
    node = Node(service)
    said = (
        handshake.introduce(node.secret)
        + derp.frame(derp.SEND, witness[0].key + payload)
        + derp.frame(kind, payload)
        + derp.frame(derp.PING, b'12345678')
        + derp.frame(derp.SEND, node.key + payload)
    )
    pour(node.stream, mutated(said, changes), sizes)
    unharmed(service, witness)


@fuzz
@given(
    frames=st.lists(st.tuples(st.integers(0, 20), st.binary(max_size=200)), max_size=20),
    changes=changes,
    sizes=cuts,
)
def test_a_node_that_says_anything(
    service: Service,
    witness: tuple[Node, Socket],
    frames: list[tuple[int, bytes]],
    changes: list[tuple[int, int, int]],
    sizes: list[int],
) -> None:
    node = Node(service).hello()
    said = b''.join(derp.frame(kind, payload) for kind, payload in frames)
    pour(node.stream, mutated(said, changes), sizes)
    unharmed(service, witness)


@fuzz
@given(
    frames=st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 8, 9, 10]), st.booleans(), st.binary(max_size=200)),
        max_size=12,
    ),
    changes=changes,
    sizes=cuts,
    protocol=st.sampled_from(['', *messages.PROTOCOLS]),
    known=st.booleans(),
)
def test_a_websocket_that_says_anything(
    service: Service,
    witness: tuple[Node, Socket],
    frames: list[tuple[int, bool, bytes]],
    changes: list[tuple[int, int, int]],
    sizes: list[int],
    protocol: str,
    known: bool,
) -> None:
    client = Socket(service, protocol)
    if known:
        client.hello()
    kind = messages.DATAGRAM if protocol else derp.SEND
    target = witness[1 if protocol else 0].key
    said = masked(websocket.BINARY, bytes((kind,)) + target + b'\0hello')
    said += b''.join(masked(opcode, data, final=final) for opcode, final, data in frames)
    pour(client.stream, mutated(said, changes), sizes)
    unharmed(service, witness)
