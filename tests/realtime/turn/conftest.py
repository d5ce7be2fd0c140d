"""A TURN server in its loop, without a relay around it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from madmail.realtime.turn.credentials import Nonces
from madmail.realtime.turn.loop import Loop
from madmail.realtime.turn.message import IPV4, IPV6, Address
from madmail.realtime.turn.server import Configuration, Server
from madmail.settings import Settings
from madmail.tls.context import ServerTLS
from tests.realtime.turn.client import TurnClient

CONFIGURATION = Configuration(
    realm='chat.example',
    secrets=(b'north',),
    life=86400,
    public={IPV4: '127.0.0.1', IPV6: '::1'},
    bound={IPV4: '127.0.0.1', IPV6: '::1'},
    ports=range(20000, 21000),
    allowed=(ip_network('127.0.0.0/8'),),
)


class Rig:
    """One server on free ports of the loopback interface."""

    def __init__(self, state_dir: Path, configuration: Configuration) -> None:
        self.loop = Loop()
        self.server = Server(self.loop, configuration, Nonces(b'nonces'))
        self.addresses: dict[str, tuple[Any, ...]] = {}
        tls = ServerTLS(Settings.defaults(domain='chat.example'), state_dir)
        for name, family, kind in (
            ('udp', socket.AF_INET, socket.SOCK_DGRAM),
            ('udp6', socket.AF_INET6, socket.SOCK_DGRAM),
            ('tcp', socket.AF_INET, socket.SOCK_STREAM),
            ('tls', socket.AF_INET, socket.SOCK_STREAM),
        ):
            listener = socket.socket(family, kind)
            listener.bind(('::1' if family == socket.AF_INET6 else '127.0.0.1', 0))
            if kind == socket.SOCK_STREAM:
                listener.listen()
            self.addresses[name] = listener.getsockname()
            self.server.listen(listener, tls.context('stun.turn') if name == 'tls' else None)
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()
        self.clients: list[TurnClient] = []

    def client(self, transport: str = 'udp', **more: Any) -> TurnClient:
        client = TurnClient(
            self.addresses[transport], transport=transport.removesuffix('6'), **more
        )
        self.clients.append(client)
        return client

    def dropped(self, what: str = '') -> int:
        """How many were, once the loop is through with what it is at; in all without `what`."""
        counts = self.server.dropped
        found: int = self.ask(lambda: counts[what] if what else sum(counts.values()))
        return found

    def ask(self, function: Callable[[], Any]) -> Any:
        """What it returns in the loop."""
        done = threading.Event()
        found: list[Any] = []

        def call() -> None:
            try:
                found.append(function())
            finally:
                done.set()

        self.loop.call(call)
        assert done.wait(10)
        return found[0]

    def reconfigure(self, **changes: Any) -> None:
        changed = self.server.configuration._replace(**changes)
        self.ask(lambda: self.server.configure(changed))

    def limit(self, **changes: Any) -> None:
        self.reconfigure(limits=self.server.limits._replace(**changes))

    def pass_time(self, seconds: float) -> None:
        """Let the clock of the server look at its tables that much later."""

        def look() -> None:
            later = self.loop.now + seconds
            self.loop.now = later
            self.server._tick(later)

        self.ask(look)

    def stop(self) -> None:
        for client in self.clients:
            client.close()
        self.ask(self.server.close)
        self.loop.stop()
        self.thread.join(10)
        self.loop.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, CONFIGURATION)
    yield made
    made.stop()


class Peer:
    """Somebody on the internet: a datagram socket at an address that may be reached."""

    def __init__(self, host: str = '127.0.0.2') -> None:
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.settimeout(10)
        self.address = Address(*self.socket.getsockname()[:2])

    def send(self, data: bytes, to: Address) -> None:
        self.socket.sendto(data, to)

    def receive(self) -> tuple[bytes, Address]:
        data, at = self.socket.recvfrom(65536)
        return data, Address(at[0], at[1])


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.socket.close()
