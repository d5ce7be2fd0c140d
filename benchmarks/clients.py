"""Light clients for load: many TLS connections on one epoll loop, dialogues as generators.

A dialogue is a generator over a `Peer`.  `yield marker` waits until the marker
has come in and gives the octets up to the end of its line; the generator sends
with `peer.send`.  Nothing is parsed that is not needed, so that one core makes
thousands of messages a second.
"""

from __future__ import annotations

import contextlib
import heapq
import select
import socket
import ssl
import time
from collections.abc import Callable, Generator
from typing import Any

Dialogue = Generator[bytes | float, bytes, None]

_WANT = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


class Lost(Exception):
    """The relay closed a connection or did not answer."""


class Loop:
    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.peers: dict[int, Peer] = {}
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = 0

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.serial += 1
        heapq.heappush(self.timers, (time.perf_counter() + seconds, self.serial, call))

    def run(self, done: Callable[[], bool], timeout: float, what: str) -> None:
        """Until `done()`; raises Lost after `timeout` seconds."""
        end = time.perf_counter() + timeout
        while not done():
            now = time.perf_counter()
            if now > end:
                raise Lost(f'{what}: not within {timeout} s')
            while self.timers and self.timers[0][0] <= now:
                heapq.heappop(self.timers)[2]()
            wait = min(self.timers[0][0] - now if self.timers else 1.0, end - now, 1.0)
            for descriptor, events in self.epoll.poll(max(wait, 0)):
                peer = self.peers.get(descriptor)
                if peer is not None:
                    peer.ready(events)

    def close(self) -> None:
        for peer in list(self.peers.values()):
            peer.close()


class Peer:
    """One TLS connection and what runs on it.

    Idle peers only look for `* n EXISTS`; `exists` is the last n and `arrived`
    is called with the peer whenever it changes.
    """

    __slots__ = (
        'arrived',
        'buffer',
        'descriptor',
        'dialogue',
        'exists',
        'extra',
        'finished',
        'loop',
        'marker',
        'pending',
        'shaking',
        'stream',
    )

    def __init__(
        self, loop: Loop, port: int, dialogue: Callable[[Peer], Dialogue], extra: Any = None
    ) -> None:
        self.loop = loop
        self.extra = extra
        self.buffer = b''
        self.marker: bytes | None = None
        self.pending = b''
        self.finished = False
        self.exists = -1
        self.arrived: Callable[[Peer], None] | None = None
        plain = socket.socket()
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError):
            plain.connect(('127.0.0.1', port))
        self.stream = loop.context.wrap_socket(
            plain, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        self.shaking = True
        self.descriptor = self.stream.fileno()
        loop.peers[self.descriptor] = self
        loop.epoll.register(self.descriptor, select.EPOLLOUT)
        self.dialogue: Dialogue | None = dialogue(self)

    def send(self, data: bytes) -> None:
        self.pending += data
        self.flush()

    def flush(self) -> None:
        try:
            while self.pending:
                sent = self.stream.send(self.pending)
                self.pending = self.pending[sent:]
        except _WANT:
            self.loop.epoll.modify(self.descriptor, select.EPOLLIN | select.EPOLLOUT)

    def ready(self, events: int) -> None:
        try:
            if self.shaking:
                self.shake()
                return
            if self.pending and events & select.EPOLLOUT:
                self.loop.epoll.modify(self.descriptor, select.EPOLLIN)
                self.flush()
            if events & (select.EPOLLIN | select.EPOLLHUP):
                self.read()
        except OSError as trouble:
            self.fail(trouble)

    def shake(self) -> None:
        try:
            self.stream.do_handshake()
        except ssl.SSLWantReadError:
            self.loop.epoll.modify(self.descriptor, select.EPOLLIN)
            return
        except ssl.SSLWantWriteError:
            self.loop.epoll.modify(self.descriptor, select.EPOLLOUT)
            return
        self.shaking = False
        self.loop.epoll.modify(self.descriptor, select.EPOLLIN)
        self.resume(None)
        self.read()

    def read(self) -> None:
        while True:
            try:
                data = self.stream.recv(65536)
            except _WANT:
                return
            if not data:
                self.fail(ConnectionResetError('closed by the relay'))
                return
            if self.marker is not None:
                self.buffer = self.buffer + data if self.buffer else data
                self.look()
            elif b'EXISTS' in data:
                head = data[: data.rindex(b' EXISTS')]
                self.exists = int(head[head.rindex(b' ') :])
                if self.arrived is not None:
                    self.arrived(self)
            if not self.stream.pending() and len(data) < 16384:
                return

    def look(self) -> None:
        while self.marker is not None:
            at = self.buffer.find(self.marker)
            if at < 0:
                return
            end = self.buffer.find(b'\r\n', at)
            if end < 0:
                return
            taken, self.buffer = self.buffer[: end + 2], self.buffer[end + 2 :]
            self.resume(taken)

    def resume(self, got: bytes | None) -> None:
        """Run the dialogue to its next wait."""
        self.marker = None
        assert self.dialogue is not None
        try:
            wanted = next(self.dialogue) if got is None else self.dialogue.send(got)
        except StopIteration:
            self.finished = True
            return
        if isinstance(wanted, float):
            self.loop.later(wanted, lambda: self.resume(b''))
        else:
            self.marker = wanted

    def again(self, dialogue: Callable[[Peer], Dialogue]) -> None:
        """Start another dialogue on a peer whose last one has ended."""
        assert self.finished
        self.finished = False
        self.buffer = b''
        self.dialogue = dialogue(self)
        self.resume(None)
        if self.buffer:
            self.look()

    def fail(self, trouble: BaseException) -> None:
        self.close()
        raise Lost(f'{trouble!r} waiting for {self.marker!r}, got {self.buffer[-200:]!r}')

    def close(self) -> None:
        if self.descriptor >= 0:
            self.loop.peers.pop(self.descriptor, None)
            with contextlib.suppress(OSError):
                self.loop.epoll.unregister(self.descriptor)
            self.stream.close()
            self.descriptor = -1


# -- dialogues


def checked(answer: bytes, wanted: bytes) -> bytes:
    if wanted not in answer[answer.rfind(b'\r\n', 0, -2) + 1 :]:
        raise Lost(f'wanted {wanted!r}, got {answer[-300:]!r}')
    return answer


def to_idle(address: str, password: str) -> Callable[[Peer], Dialogue]:
    """Greeting, LOGIN, SELECT, IDLE: as Delta Chat with nothing to do."""
    login = f'A1 LOGIN "{address}" "{password}"\r\n'.encode()

    def dialogue(peer: Peer) -> Dialogue:
        yield b'* OK'
        peer.send(login)
        checked((yield b'A1 '), b'A1 OK')
        peer.send(b'A2 SELECT "INBOX"\r\n')
        answer = checked((yield b'A2 '), b'A2 OK')
        head = answer[: answer.index(b' EXISTS')]
        peer.exists = int(head[head.rindex(b'* ') + 2 :])
        peer.send(b'A3 IDLE\r\n')
        yield b'+'

    return dialogue


def to_submission(token: str) -> Callable[[Peer], Dialogue]:
    """Greeting, EHLO, AUTH PLAIN."""
    auth = f'AUTH PLAIN {token}\r\n'.encode()

    def dialogue(peer: Peer) -> Dialogue:
        yield b'220 '
        peer.send(b'EHLO [127.0.0.1]\r\n')
        yield b'250 '
        peer.send(auth)
        yield b'235 '

    return dialogue


def submit(peer: Peer, sender: str, to: list[str], data: bytes) -> Dialogue:
    """One transaction as Delta Chat's: the envelope in one write, then the data."""
    envelope = f'MAIL FROM:<{sender}> BODY=8BITMIME\r\n'
    envelope += ''.join(f'RCPT TO:<{address}>\r\n' for address in to)
    peer.send(envelope.encode() + b'DATA\r\n')
    answer = yield b'354 '
    if answer.count(b'250 ') != 1 + len(to):
        raise Lost(f'refused: {answer[-300:]!r}')
    peer.send(data)
    yield b'250 '


def core_round(peer: Peer) -> Dialogue:
    """What a core does for new mail: fetch, delete, back to IDLE."""
    peer.send(b'DONE\r\n')
    yield b'A3 OK'
    peer.send(
        b'A4 UID FETCH 1:500000 (UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE '
        b'X-MICROSOFT-ORIGINAL-MESSAGE-ID FROM CONTENT-TYPE SECURE-JOIN CHAT-VERSION '
        b'CHAT-IS-POST-MESSAGE AUTOCRYPT-SETUP-MESSAGE)])\r\n'
    )
    yield b'A4 OK'
    peer.send(b'A5 UID FETCH 1:* (FLAGS BODY.PEEK[])\r\n')
    yield b'A5 OK'
    peer.send(b'A6 UID STORE 1:* +FLAGS (\\Deleted)\r\n')
    yield b'A6 OK'
    peer.send(b'A7 CLOSE\r\n')
    yield b'A7 OK'
    peer.send(b'A8 SELECT "INBOX"\r\n')
    answer = yield b'A8 OK'
    head = answer[: answer.index(b' EXISTS')]
    peer.exists = int(head[head.rindex(b'* ') + 2 :])
    peer.send(b'A3 IDLE\r\n')
    yield b'+'
