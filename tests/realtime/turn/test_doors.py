"""A host with several addresses answers from the one that was asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from madmail.realtime.turn import message, server
from madmail.realtime.turn.credentials import Nonces
from madmail.realtime.turn.loop import Loop
from madmail.realtime.turn.message import Address
from madmail.realtime.turn.server import Server
from tests.realtime.turn.client import TurnClient
from tests.realtime.turn.conftest import CONFIGURATION, Peer

OWN = ('127.0.0.1', '127.0.0.5', '127.0.0.6')


class Host:
    """A server at any address of a host that has these."""

    def __init__(self, *own: str, shared: bool = False) -> None:
        self.loop = Loop()
        self.server = Server(self.loop, CONFIGURATION, Nonces(b'nonces'), own)
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        if shared:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.listener.bind(('0.0.0.0', 0))
        self.port = self.listener.getsockname()[1]
        self.server.listen(self.listener)
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()

    def client(self, host: str) -> TurnClient:
        return TurnClient((host, self.port))

    def ask(self, function: Callable[[], Any]) -> None:
        done = threading.Event()
        self.loop.call(lambda: (function(), done.set()))  # type: ignore[func-returns-value]
        assert done.wait(10)

    def stop(self) -> None:
        self.ask(self.server.close)
        self.loop.stop()
        self.thread.join(10)
        self.loop.close()


@pytest.fixture(params=[False, True], ids=['alone', 'shared'])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    made = Host(*OWN, shared=request.param)
    yield made
    made.stop()


def test_answers_and_packets_come_from_the_address_that_was_asked(host: Host, peer: Peer) -> None:
    """The sockets of these clients are connected and hear nobody else."""
    for own in OWN:
        with host.client(own) as client:
            client.ask(message.BINDING, [])
            relayed = client.allocate()
            client.bind(0x4000, peer.address)
            client.channel_data(0x4000, b'there')
            assert peer.receive() == (b'there', relayed)
            peer.send(b'back', relayed)
            assert client.receive() == b'\x40\0\0\4back'
            client.refresh(0)


def test_addresses_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host('127.0.0.1', '127.0.0.5')
    own = frozenset(('127.0.0.1', '127.0.0.6'))
    monkeypatch.setattr(server, 'own_addresses', lambda: own)
    monkeypatch.setattr(server, 'RESCAN', 1)
    host.ask(lambda: host.server._tick(host.loop.now))
    with host.client('127.0.0.6') as client:
        assert client.allocate()
    (wildcard,) = host.server._wildcards
    assert list(wildcard._others) == ['127.0.0.6']
    host.stop()


def test_nobody_else_shares_the_port_afterwards() -> None:
    host = Host(*OWN)
    for address in ('0.0.0.0', *OWN):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match='in use'):
                other.bind((address, host.port))
    host.stop()


def test_an_address_that_is_not_there_is_left_out() -> None:
    host = Host('127.0.0.5', '203.0.113.9')
    with host.client('127.0.0.5') as client:
        relayed = client.allocate()
        assert isinstance(relayed, Address)
    host.stop()
