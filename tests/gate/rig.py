"""A gate with its own loop in a thread, shards that are tests, and clients with plain sockets."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from madmail.bus.frame import Unframer, receive
from madmail.gate.peers import SIZE
from madmail.gate.process import SERVICES, GateRole
from madmail.master.child import ChildContext
from madmail.settings import Settings
from madmail.shard import address

PATIENCE = 10.0  # seconds until a test gives up


def until(condition: Callable[[], bool], patience: float = PATIENCE) -> bool:
    limit = time.monotonic() + patience
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True


def settings(**overrides: object) -> Settings:
    return Settings.defaults({'domain': 'chat.example'}, **overrides)


class Gate:
    """GateRole in a native thread with its own hub, listening on 127.0.0.1."""

    def __init__(
        self,
        state_dir: Path,
        configuration: Settings | None = None,
        *,
        shards: int = 1,
        index: int = 0,
        shared: mmap | None = None,
        host: str = '127.0.0.1',
        backlog: int = 1024,
        tls: Any = None,
    ) -> None:
        (state_dir / 'run').mkdir(exist_ok=True)
        self.listeners = {
            name: [socket.create_server((host, 0), backlog=backlog)] for name in SERVICES
        }
        self.ports = {name: found[0].getsockname()[1] for name, found in self.listeners.items()}
        self.host = host
        self.context = ChildContext(
            kind='gate',
            index=index,
            settings=configuration or settings(),
            state_dir=state_dir,
            shards=shards,
            listeners=self.listeners,
            shared=shared or mmap(-1, SIZE),
        )
        if tls is not None:
            self.context.shared_tls = tls  # type: ignore[attr-defined]
        self.state_dir = state_dir
        self.role: GateRole
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
            self.role = GateRole(self.context)
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
        """Run `function` in a greenlet of the gate's loop and give its result."""
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

    @property
    def counts(self) -> dict[str, Any]:
        return self.role.statistics()

    def close(self) -> None:
        for found in self.listeners.values():
            for listener in found:
                if listener.fileno() >= 0:
                    self._hub.loop.run_callback_threadsafe(listener.close)
        self._hub.loop.run_callback_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)

    # -- clients

    def connect(self, name: str) -> socket.socket:
        return socket.create_connection((self.host, self.ports[name]), timeout=PATIENCE)

    def connect_tls(self, name: str, **options: Any) -> ssl.SSLSocket:
        return client_context(**options).wrap_socket(self.connect(name))

    def client(self, name: str) -> Client:
        if name in ('imaps', 'submissions'):
            return Client(self.connect_tls(name))
        return Client(self.connect(name))


def client_context(
    alpn: list[str] | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class Client:
    """Blocking lines."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self._buffer = b''

    def send(self, data: bytes, split: bool = False) -> None:
        if split:
            for octet in data:
                self.stream.sendall(bytes([octet]))
        else:
            self.stream.sendall(data)

    def line(self) -> bytes:
        """The next line without its CRLF; b'' at the end of the stream."""
        while b'\r\n' not in self._buffer:
            try:
                data = self.stream.recv(65536)
            except ConnectionResetError:
                data = b''
            if not data:
                rest, self._buffer = self._buffer, b''
                return rest
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b'\r\n')
        return line

    def ended(self) -> bool:
        return not self._buffer and self.line() == b''

    def start_tls(self) -> None:
        assert not self._buffer, 'the server spoke on after its answer to STARTTLS'
        self.stream = client_context().wrap_socket(self.stream)

    def close(self) -> None:
        self.stream.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def greet_and_echo(stream: socket.socket, frame: dict[str, Any]) -> None:
    """A shard's session: the success line, then everything back."""
    if frame['proto'] == 'imap':
        stream.sendall(frame['tag'] + b' OK Logged in\r\n')
    elif frame['proto'] == 'submission':
        stream.sendall(b'235 2.7.0 Authentication successful\r\n')
    stream.sendall(frame['ahead'])
    while data := stream.recv(65536):
        stream.sendall(data)


def password_decides(frame: dict[str, Any]) -> bytes:
    """`right` and port 25 are let in, `new` makes an account, `busy` and `many` have trouble."""
    if frame['proto'] == 'inbound':
        return b'+'
    known = {b'right': b'+', b'new': b'*', b'busy': b'!', b'many': b'~'}
    return known.get(frame['password'], b'-')


class Shard:
    """The receiving end of the hand-over."""

    def __init__(
        self,
        state_dir: Path,
        index: int = 0,
        *,
        verdict: Callable[[dict[str, Any]], bytes] = password_decides,
        session: Callable[[socket.socket, dict[str, Any]], None] = greet_and_echo,
    ) -> None:
        self.frames: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.streams: list[socket.socket] = []
        self._verdict = verdict
        self._session = session
        self._listener = address.bind(state_dir, address.shard_name(index))
        self._listener.setblocking(True)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream: socket.socket) -> None:
        with stream:
            try:
                frame = receive(stream, Unframer())
                if frame is None:
                    return
                self.frames.put(frame)
                verdict = self._verdict(frame)
                if not verdict:
                    return
                stream.sendall(verdict)
                if verdict in (b'+', b'*'):
                    self.streams.append(stream)
                    self._session(stream, frame)
            except OSError:
                pass  # the gate's end is gone

    def frame(self) -> dict[str, Any]:
        return self.frames.get(timeout=PATIENCE)

    def close(self) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        for stream in self.streams:
            try:
                stream.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
