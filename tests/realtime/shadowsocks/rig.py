"""The proxy's role on a loop in this process, services that it leads to, and clients of it."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import gevent
from gevent import socket as green
from gevent.server import StreamServer

from madmail.master.child import ChildContext
from madmail.realtime.shadowsocks.destination import Destination
from madmail.realtime.shadowsocks.handshake import Call
from madmail.realtime.shadowsocks.methods import METHODS
from madmail.realtime.shadowsocks.process import ProxyRole
from madmail.settings import Settings
from madmail.store.control import Control

DOMAIN = 'chat.example'
PATIENCE = 10.0  # seconds for anything; only what hangs takes so long


def eventually(condition: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        gevent.sleep(0.01)


class Rig:
    """`service` is called with each connection that reaches the listener for IMAP; without it
    what is said comes back.
    """

    def __init__(
        self, directory: Path, *, service: Any = None, host: str = '127.0.0.1', **options: Any
    ) -> None:
        self.peers: list[str] = []
        self.service = service or self.echo
        self.server = StreamServer((host, 0), self.serve)
        self.server.start()
        self.port: int = self.server.server_port
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        self.listener = socket.create_server((host, 0), family=family, backlog=512)
        self.at: tuple[str, int] = self.listener.getsockname()[:2]
        self.settings = Settings.defaults(
            {
                'domain': DOMAIN,
                'listen.imap': f'[{host}]:{self.port}' if ':' in host else f'{host}:{self.port}',
                'shadowsocks.enabled': True,
                'limits.connections_per_ip': 0,
                **{name.replace('__', '.'): value for name, value in options.items()},
            }
        )
        self.directory = directory
        directory.mkdir(exist_ok=True)
        Control(directory).close()
        self.context = ChildContext(
            kind='shadowsocks',
            index=0,
            settings=self.settings,
            state_dir=directory,
            listeners={'shadowsocks': [self.listener]},
        )
        self.role = ProxyRole(self.context)

    def __enter__(self) -> Rig:
        self.role.start()
        eventually(lambda: self.role.statistics()['answers'], 'it answers its own probe')
        eventually(lambda: not self.proxy.count, 'the probe has gone')
        return self

    def __exit__(self, *_: object) -> None:
        self.role.retire()
        self.server.stop()

    @property
    def proxy(self) -> Any:
        return self.role.proxy

    def counts(self) -> dict[str, Any]:
        return self.role.statistics()

    def change(self, **rows: str) -> None:
        """As an operator does, while it runs."""
        control = Control(self.directory)
        for name, text in rows.items():
            control.set_setting(name.replace('__', '.'), text)
        control.close()
        self.context.bus.arrived('settings', {})

    def serve(self, stream: Any, address: tuple[str, int]) -> None:
        self.peers.append(address[0])
        try:
            self.service(stream)
        except OSError:
            pass
        finally:
            stream.close()

    @staticmethod
    def echo(stream: Any) -> None:
        while data := stream.recv(65536):
            stream.sendall(data)

    # -- clients

    def knock(self) -> Any:
        """A connection that has said nothing yet."""
        stream = green.create_connection(self.at, PATIENCE)
        stream.settimeout(PATIENCE)
        return stream

    def call(self) -> Call:
        return Call(
            METHODS[self.settings['shadowsocks.cipher']], self.settings['shadowsocks.password']
        )

    def request(self, call: Call, data: bytes = b'', host: str = DOMAIN, port: int = 0) -> bytes:
        return call.request(Destination(host, port or self.port), data, time.time())

    def client(self, data: bytes = b'', **where: Any) -> Client:
        call = self.call()
        stream = self.knock()
        stream.sendall(self.request(call, data, **where))
        return Client(stream, call)


class Client:
    """Knows the password."""

    def __init__(self, stream: Any, call: Call) -> None:
        self.stream = stream
        self.call = call

    def say(self, data: bytes) -> None:
        self.stream.sendall(self.call.seal(data))

    def hear(self, size: int) -> bytes:
        """`size` octets, fewer at the end of the stream."""
        heard = bytearray()
        while len(heard) < size:
            data = self.stream.recv(65536)
            if not data:
                break
            heard += self.call.feed(data, time.time())
        return bytes(heard)

    def close(self) -> None:
        self.stream.close()
