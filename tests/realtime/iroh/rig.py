"""The iroh relay with its own loop in a thread, and nodes with plain sockets."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gevent.event import Event

from madmail.master.child import ChildContext
from madmail.realtime.iroh import derp, handshake, messages
from madmail.realtime.iroh.process import IrohRole
from madmail.settings import Settings
from madmail.web.webimap import websocket

PATIENCE = 10.0  # seconds until a test gives up
KEY = b'AAAAAAAAAAAAAAAAAAAAAA=='  # of a WebSocket's request


def until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    limit = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < limit, f'{what}: not within {patience} s'
        time.sleep(0.01)
    return found


class Service:
    """IrohRole in a native thread with its own hub, listening on 127.0.0.1."""

    def __init__(self, state_dir: Path, **overrides: object) -> None:
        (state_dir / 'run').mkdir(exist_ok=True)
        listener = socket.create_server(('127.0.0.1', 0), backlog=1024)
        self.port = listener.getsockname()[1]
        self.state_dir = state_dir
        self.settings = Settings.defaults({'domain': 'chat.example', 'listen.iroh': '3340'})
        for name, value in overrides.items():
            self.settings.replace(name.replace('__', '.'), value)
        self.context = ChildContext(
            kind='iroh',
            index=0,
            settings=self.settings,
            state_dir=state_dir,
            listeners={'iroh': [listener]},
        )
        self.role: IrohRole
        self._failed: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        self._hub = gevent.get_hub()
        self._stop = Event()
        try:
            self.role = IrohRole(self.context)
            self.role.start()
        except BaseException as error:
            self._failed = error
            self._ready.set()
            return
        # keeps the loop from being empty while nothing happens
        self._hub.loop.timer(3600, 3600).start(lambda: None)
        self._ready.set()
        self._stop.wait()
        self._hub.destroy(destroy_loop=True)

    def call(self, function: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """Run `function` in a greenlet of the service's loop and give its result."""
        result: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                result.put((function(), None))
            except BaseException as error:
                result.put((None, error))

        self._hub.loop.run_callback_threadsafe(gevent.spawn, run)
        value, error = result.get(timeout=patience)
        if error is not None:
            raise error
        return value

    def __getitem__(self, name: str) -> Any:
        """A figure of the statistics."""
        return self.role.statistics()[name]

    def retire(self) -> None:
        self.call(self.role.retire)

    def close(self) -> None:
        if self._thread.is_alive() and self._failed is None:
            self.retire()
            self._hub.loop.run_callback_threadsafe(self._stop.set)
            self._thread.join(PATIENCE)

    # -- clients

    def connect(self) -> socket.socket:
        stream = socket.create_connection(('127.0.0.1', self.port), PATIENCE)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream

    def ask(self, data: bytes) -> bytes:
        """All that comes back until the end of the stream."""
        with self.connect() as stream:
            stream.sendall(data)
            return rest(stream)


def rest(stream: socket.socket) -> bytes:
    """Everything to the end of the stream."""
    found = b''
    try:
        while data := stream.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


def exactly(stream: socket.socket, size: int) -> bytes:
    found = b''
    while len(found) < size:
        data = stream.recv(size - len(found))
        if not data:
            raise EOFError(found)
        found += data
    return found


def head(stream: socket.socket) -> bytes:
    """The head of an answer of HTTP, not an octet more."""
    found = b''
    while not found.endswith(b'\r\n\r\n'):
        found += exactly(stream, 1)
    return found


class Node:
    """A native client of iroh 0.35."""

    def __init__(self, service: Service, secret: Ed25519PrivateKey | None = None) -> None:
        self.secret = secret or Ed25519PrivateKey.generate()
        self.key = self.secret.public_key().public_bytes_raw()
        self.stream = service.connect()
        # As real ones do, octet by octet.
        self.stream.sendall(
            b'GET /relay HTTP/1.1\r\nupgrade: iroh derp http\r\nhost: 203.0.113.5:3340\r\n\r\n'
        )
        assert head(self.stream).startswith(b'HTTP/1.1 101 ')

    def hello(self) -> Node:
        self.stream.sendall(handshake.introduce(self.secret))
        return self

    def ping(self) -> None:
        """Everything said before is done when this returns."""
        data = os.urandom(8)
        self.stream.sendall(derp.frame(derp.PING, data))
        while (got := self.receive()) != (derp.PONG, data):
            assert got[0] == derp.PONG

    def send(self, destination: bytes, packet: bytes) -> None:
        self.stream.sendall(derp.frame(derp.SEND, destination + packet))

    def receive(self) -> tuple[int, bytes]:
        kind, size = derp.HEADER.unpack(exactly(self.stream, derp.HEADER.size))
        return kind, exactly(self.stream, size)

    def close(self) -> None:
        self.stream.close()


def masked(opcode: int, data: bytes, *, final: bool = True) -> bytes:
    """A WebSocket frame as clients send it."""
    size = len(data)
    first = bytes((opcode | (0x80 if final else 0),))
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = bytes((0x80 | 126,)) + size.to_bytes(2, 'big')
    else:
        length = bytes((0x80 | 127,)) + size.to_bytes(8, 'big')
    mask = b'\x11\x22\x33\x44'
    key = (mask * (size // 4 + 1))[:size]
    body = (int.from_bytes(data, 'big') ^ int.from_bytes(key, 'big')).to_bytes(size, 'big')
    return first + length + mask + body


class Socket:
    """A client in WebSocket messages: of 0.35, or of 1.x with its name of the protocol."""

    def __init__(
        self, service: Service, protocol: str = '', secret: Ed25519PrivateKey | None = None
    ) -> None:
        self.secret = secret or Ed25519PrivateKey.generate()
        self.key = self.secret.public_key().public_bytes_raw()
        self.protocol = protocol
        self.stream = service.connect()
        offer = b'Sec-WebSocket-Protocol: %s\r\n' % protocol.encode() if protocol else b''
        self.stream.sendall(
            b'GET /relay HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
            b'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ' + KEY + b'\r\n' + offer + b'\r\n'
        )
        self.answer = head(self.stream)
        assert self.answer.startswith(b'HTTP/1.1 101 ')

    def hello(self) -> Socket:
        if self.protocol:
            asked = self.receive()
            assert asked[0] == messages.CHALLENGE
            self.say(handshake.answer(self.secret, asked[1:]))
            assert self.receive() == bytes((messages.CONFIRMED,))
        else:
            payload = handshake.introduce(self.secret)[derp.HEADER.size :]
            self.say(bytes((derp.CLIENT_INFO,)) + payload)
        return self

    def say(self, data: bytes) -> None:
        self.stream.sendall(masked(websocket.BINARY, data))

    def ping(self) -> None:
        old = (derp.PING, derp.PONG)
        ping, pong = (messages.NEW_PING, messages.NEW_PONG) if self.protocol else old
        data = os.urandom(8)
        self.say(bytes((ping,)) + data)
        assert self.receive() == bytes((pong,)) + data

    def frame(self) -> tuple[int, bytes]:
        """Opcode and payload."""
        first, size = exactly(self.stream, 2)
        assert first & 0x80
        if size > 125:
            size = int.from_bytes(exactly(self.stream, 2 if size == 126 else 8), 'big')
        return first & 0x0F, exactly(self.stream, size)

    def receive(self) -> bytes:
        opcode, data = self.frame()
        assert opcode == websocket.BINARY
        return data

    def close(self) -> None:
        self.stream.close()
