"""Clients over TCP and TLS: framing, bounded queues, and time limits (RFC 8656 3.1, 12.5)."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from madmail.gate.doors import EXHAUSTED
from madmail.realtime.turn.allocation import HEAD, Allocation
from madmail.realtime.turn.limits import network
from madmail.realtime.turn.loop import READ, WRITE
from madmail.realtime.turn.message import Address

if TYPE_CHECKING:
    from madmail.realtime.turn.connections import Connection
    from madmail.realtime.turn.server import Server

ACCEPT_BATCH = 16  # connections a turn
CHUNK = 16384  # octets read at a time; of the smallest packets still a long turn
QUEUE_LIMIT = 131072  # octets unsent, above which packets are dropped
ANSWERS_LIMIT = 262144  # octets unsent, above which a client that reads nothing is let go
STRANGER_LIMIT = 4096  # octets of a message from who has no allocation; twice the largest request
FIRST_TIME = 10.0  # seconds until the first message
IDLE_TIME = 30.0  # seconds without an allocation
PAUSE = 1.0  # seconds without accepting, when out of descriptors


class Entrance:
    """A TCP listener, with TLS or without."""

    def __init__(self, server: Server, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._server = server
        self.socket = listener
        self._tls = tls
        self._paused = 0.0
        listener.setblocking(False)
        server.loop.add(listener.fileno(), self._acceptable)

    def _acceptable(self, events: int) -> None:
        server = self._server
        for _ in range(ACCEPT_BATCH):
            try:
                accepted, peer = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    server.loop.change(self.socket.fileno(), self._acceptable, 0)
                    self._paused = server.now() + PAUSE
                    return
                continue
            if not server.admits_stream(network(peer[0])):
                server.dropped['connection'] += 1
                accepted.close()
                continue
            try:
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # What waits longer than a moment is of no use in a call.
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUE_LIMIT)
                if self._tls is not None:
                    accepted = self._tls.wrap_socket(
                        accepted, server_side=True, do_handshake_on_connect=False
                    )
            except OSError:
                accepted.close()
                continue
            Stream(server, accepted, Address(peer[0].partition('%')[0], peer[1]))

    def tick(self, now: float) -> None:
        if self._paused and now >= self._paused:
            self._paused = 0.0
            self._server.loop.change(self.socket.fileno(), self._acceptable, READ)

    def close(self) -> None:
        self._server.loop.remove(self.socket.fileno())
        self.socket.close()


class Stream:
    """One client connection; later perhaps one side of a pipe to a peer (RFC 6062)."""

    stream = True

    def __init__(self, server: Server, accepted: socket.socket, address: Address) -> None:
        self.address = address
        self.ip = address.host
        self.network = network(address.host)
        self.allocation: Allocation | None = None
        self.connection: Connection | None = None  # it is a pipe to it
        self.output = bytearray()
        self.eof = False  # the client sends nothing more
        self._server = server
        self._socket = accepted
        self._descriptor = accepted.fileno()
        self._handshaking = isinstance(accepted, ssl.SSLSocket)
        self._input = bytearray()
        self._events = READ
        self._reading = True
        self._wants_write = False  # TLS waits to write before it can go on
        self._ending = False
        self._known = False  # it had an allocation; packets may come
        self._until = server.now() + FIRST_TIME
        self.closed = False
        server.entered(self)
        server.loop.add(self._descriptor, self._event)

    # -- for the rest of the server

    def send(self, data: bytes) -> None:
        if len(self.output) > ANSWERS_LIMIT:
            self.close()
        else:
            self._queue(data)

    def relay(self, view: memoryview) -> None:
        if len(self.output) > QUEUE_LIMIT:
            self._server.dropped['queue'] += 1
            return
        padding = -len(view) & 3
        self._queue(bytes(view) + bytes(padding) if padding else view)

    def keep(self, allocation: Allocation) -> None:
        self.allocation = allocation
        self._known = True

    def leave(self) -> None:
        """The allocation is gone."""
        self.allocation = None
        self._until = self._server.now() + IDLE_TIME

    def become_pipe(self, connection: Connection) -> bytes:
        """From now on octets are passed on as they are; those that came already."""
        self.connection = connection
        ahead = bytes(self._input)
        self._input.clear()
        return ahead

    def pause(self, paused: bool) -> None:
        """Read nothing for now, or go on."""
        self._reading = not paused
        self._interest()
        if not paused and isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            self._server.loop.call(lambda: self._event(READ))

    def finish(self) -> None:
        """Nothing more comes for the client; close once all is sent and it ended too."""
        self._ending = True
        if not self.output:
            self._end()

    def tick(self, now: float) -> None:
        if self.allocation is None and self.connection is None and now > self._until:
            self.close()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        server = self._server
        server.loop.remove(self._descriptor)
        server.left(self)
        self._socket.close()
        if self.allocation is not None:
            server.release(self.allocation)
        if self.connection is not None:
            self.connection.close()

    # -- inside

    def _queue(self, data: bytes | memoryview) -> None:
        if self.closed:
            return
        idle = not self.output
        self.output += data
        if idle:
            self._write()

    def _interest(self) -> None:
        events = READ if self._reading and not self.eof else 0
        if self.output or self._wants_write:
            events |= WRITE
        if events != self._events and not self.closed:
            self._events = events
            self._server.loop.change(self._descriptor, self._event, events)

    def _event(self, events: int) -> None:
        try:
            self._serve(events)
        except Exception:
            self.close()  # what was not taken would come again and again
            raise

    def _serve(self, events: int) -> None:
        if self.closed:
            return
        # Not now means in the next turn, for epoll tells it again.
        if self._handshaking and not (self._server.may_shake() and self._handshake()):
            return
        self._wants_write = False
        if events & ~WRITE:
            self._read()
        if self.output and not self.closed:
            self._write()
        elif not self.closed:
            self._interest()

    def _handshake(self) -> bool:
        assert isinstance(self._socket, ssl.SSLSocket)
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self._wants_write = False
        except ssl.SSLWantWriteError:
            self._wants_write = True
        except (OSError, ValueError):
            self.close()
        else:
            self._handshaking = False
            return True
        self._interest()
        return False

    def _read(self) -> None:
        while self._reading and not self.eof:
            try:
                data = self._socket.recv(CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            except ssl.SSLWantWriteError:
                self._wants_write = True
                return
            except (OSError, ValueError):
                self.close()
                return
            if not data:
                self._ended()
                return
            if self.connection is not None:
                self.connection.from_client(data)
            else:
                self._input += data
                self._frames()
            if self.closed or not isinstance(self._socket, ssl.SSLSocket):
                return
            if not self._socket.pending():
                return

    def _ended(self) -> None:
        self.eof = True
        if self.connection is None:
            self.close()
        else:
            self._interest()
            self.connection.client_ended()

    def _frames(self) -> None:
        """Take all complete messages.  RFC 8656 12.5: ChannelData is padded here."""
        data = self._input
        at = 0
        while len(data) - at >= 4 and not self.closed and self.connection is None:
            first = data[at]
            length = data[at + 2] << 8 | data[at + 3]
            if first < 4:
                if length & 3 or (length > STRANGER_LIMIT and not self._known):
                    self.close()
                    return
                whole = end = at + 20 + length
            elif 0x40 <= first < 0x80 and self._known:
                end = at + 4 + length
                whole = end + (-length & 3)
            else:
                self.close()
                return
            if whole > len(data):
                break
            if first < 4:
                message = bytes(data[at:end])
                at = whole
                if not self._server.requests.message(message, self):
                    self.close()  # on a stream nobody knows where the next one begins
                    return
                if self.allocation is None:
                    self._until = max(self._until, self._server.now() + IDLE_TIME / 2)
            else:
                self._channel_data(data[at] << 8 | data[at + 1], data[at + 4 : end])
                at = whole
        if self.connection is not None:
            del data[:at]
            self.connection.client_was_ahead()
        else:
            del data[:at]

    def _channel_data(self, channel: int, payload: bytearray) -> None:
        allocation = self.allocation
        way = allocation.out.get(channel) if allocation else None
        if allocation is None or way is None:
            self._server.dropped['channel'] += 1
            return
        self._server.space.buffer[HEAD : HEAD + len(payload)] = payload
        allocation.to_peer(len(payload), *way)

    def _write(self) -> None:
        if self._handshaking:
            return
        try:
            while self.output:
                sent = self._socket.send(self.output[:CHUNK])
                del self.output[:sent]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except (OSError, ValueError):
            self.close()
            return
        self._interest()
        if not self.output:
            if self._ending:
                self._end()
            elif self.connection is not None:
                self.connection.client_reads()

    def _end(self) -> None:
        if self.eof:
            self.close()
            return
        try:
            if isinstance(self._socket, ssl.SSLSocket):
                # TLS has no half of an end that all understand.  It raises, for the client's
                # own word is not waited for, but ours is out: all has been sent.
                self._socket.unwrap()
                self.close()
            else:
                self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
