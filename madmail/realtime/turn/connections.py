"""TCP between a client and its peers (RFC 6062).

The relayed address is a TCP port.  Each connection to a peer waits for a connection of
the client's own to it, of which it then is the other half.

What a peer sends before is kept up to a limit; a side that does not read stops the other
one from being read.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from typing import TYPE_CHECKING

from madmail.gate.doors import EXHAUSTED
from madmail.realtime.turn import message
from madmail.realtime.turn.allocation import Allocation, sockaddr
from madmail.realtime.turn.loop import READ, WRITE
from madmail.realtime.turn.message import Address
from madmail.realtime.turn.streams import QUEUE_LIMIT, Stream

if TYPE_CHECKING:
    from madmail.realtime.turn.requests import Proved
    from madmail.realtime.turn.server import Server

CONNECT_TIME = 30.0  # seconds (RFC 6062 5.2)
BIND_TIME = 30.0  # seconds a connection waits for its client (RFC 6062 5.2)
LIMIT = 64  # of an allocation
AHEAD_LIMIT = 65536  # octets of a peer kept before its client has come
CHUNK = 65536


class Connections:
    """Those of one allocation."""

    def __init__(self, server: Server, allocation: Allocation) -> None:
        self._server = server
        self._allocation = allocation
        self._listener = allocation.relay
        self.by_peer: dict[Address, Connection] = {}
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._listener.listen(16)

    def connect(self, peer: Address, proved: Proved) -> bool:
        """Begin to connect; the request is answered later.  False if there is one already."""
        if peer in self.by_peer:
            return False
        if len(self.by_peer) >= LIMIT:
            proved.client.send(proved.refuse(508))
            return True
        try:
            outgoing = socket.socket(self._listener.family, socket.SOCK_STREAM)
        except OSError:  # out of descriptors or memory
            proved.client.send(proved.refuse(508))
            return True
        try:
            outgoing.setblocking(False)
            outgoing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            outgoing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            outgoing.bind(self._listener.getsockname())
            failed = outgoing.connect_ex(sockaddr(peer)) not in (0, errno.EINPROGRESS)
        except OSError:
            failed = True
        if failed:
            outgoing.close()
            proved.client.send(proved.refuse(447))
            return True
        Connection(self._server, self._allocation, outgoing, peer, proved)
        return True

    def acceptable(self, events: int = 0) -> None:
        """A peer connects (RFC 6062 5.3)."""
        try:
            accepted, at = self._listener.accept()
        except OSError as error:
            if error.errno in EXHAUSTED:
                # Until the next look at the clock; else the loop would be told without end.
                self._server.loop.change(self._listener.fileno(), self.acceptable, 0)
                self._server.waiting.add(self)
            return
        accepted.setblocking(False)
        peer = Address(at[0], at[1])
        if (
            peer.host not in self._allocation.permissions
            or peer in self.by_peer
            or len(self.by_peer) >= LIMIT
        ):
            accepted.close()
            self._server.dropped['permission'] += 1
            return
        connection = Connection(self._server, self._allocation, accepted, peer, None)
        transaction = os.urandom(12)
        self._allocation.client.send(
            message.build(
                message.INDICATION,
                message.CONNECTION_ATTEMPT,
                transaction,
                [
                    (message.XOR_PEER_ADDRESS, message.xor_address(peer, transaction)),
                    (message.CONNECTION_ID, connection.number.to_bytes(4, 'big')),
                ],
            )
        )

    def tick(self, now: float) -> None:
        """Accept again."""
        self._server.waiting.discard(self)
        self._server.loop.change(self._listener.fileno(), self.acceptable, READ)

    def close(self) -> None:
        self._server.waiting.discard(self)
        for connection in list(self.by_peer.values()):
            connection.close()


class Connection:
    """One to a peer: being made, waiting for its client, or half of a pipe."""

    def __init__(
        self,
        server: Server,
        allocation: Allocation,
        peer_socket: socket.socket,
        peer: Address,
        request: Proved | None,
    ) -> None:
        self._server = server
        self.allocation = allocation
        self._socket = peer_socket
        self._descriptor = peer_socket.fileno()
        self._peer = peer
        self._request = request  # is answered once it is connected
        self._client: Stream | None = None
        self._ahead = bytearray()  # from the peer, until the client has come
        self._output = bytearray()  # to the peer
        self._peer_ended = False
        self._client_ended = False
        self._shut = False
        self._until = server.now() + (BIND_TIME if request is None else CONNECT_TIME)
        self.closed = False
        self.number = secrets.randbits(32)
        while self.number in server.pending:
            self.number = secrets.randbits(32)
        assert allocation.connections is not None
        allocation.connections.by_peer[peer] = self
        self._events = WRITE if request else READ
        server.loop.add(self._descriptor, self._event, self._events)
        server.waiting.add(self)
        if request is None:
            server.pending[self.number] = self

    def bind(self, client: object) -> None:
        """The client's own connection has come (RFC 6062 5.4)."""
        assert isinstance(client, Stream)
        self._server.pending.pop(self.number, None)
        self._server.waiting.discard(self)
        self._client = client
        client.connection = self
        if self._ahead:
            self._pay(len(self._ahead), down=True)
            client.send(bytes(self._ahead))
            self._ahead.clear()
        if self._peer_ended:
            client.finish()
        self._interest()

    def client_was_ahead(self) -> None:
        """Pass on what the client sent together with its request."""
        assert self._client is not None
        ahead = self._client.become_pipe(self)
        if ahead:
            self.from_client(ahead)

    def from_client(self, data: bytes) -> None:
        self._pay(len(data), down=False)
        idle = not self._output
        self._output += data
        if idle:
            self._write()
        if len(self._output) > QUEUE_LIMIT and self._client is not None:
            self._client.pause(True)

    def client_ended(self) -> None:
        """The client sends nothing more."""
        self._client_ended = True
        self._maybe_shut()

    def client_reads(self) -> None:
        """All was sent to the client."""
        self._interest()

    def tick(self, now: float) -> None:
        if self._client is None and now > self._until:
            if self._request is not None:
                self._request.client.send(self._request.refuse(447))
                self._request = None
            self.close()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._server.loop.remove(self._descriptor)
        self._socket.close()
        self._server.pending.pop(self.number, None)
        self._server.waiting.discard(self)
        connections = self.allocation.connections
        if connections is not None and connections.by_peer.get(self._peer) is self:
            del connections.by_peer[self._peer]
        if self._client is not None:
            self._client.close()

    # -- inside

    def _event(self, events: int) -> None:
        if self._request is not None:
            self._connected()
            return
        if events & WRITE or self._output:
            self._write()
        if events & ~WRITE and not self.closed:
            self._read()

    def _connected(self) -> None:
        request, self._request = self._request, None
        assert request is not None
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            request.client.send(request.refuse(447))
            self.close()
            return
        self._until = self._server.now() + BIND_TIME
        self._server.pending[self.number] = self
        request.client.send(request.answer((message.CONNECTION_ID, self.number.to_bytes(4, 'big'))))
        self._interest()

    def _read(self) -> None:
        if self._peer_ended:
            return
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self._peer_ended = True
            if self._client is not None:
                self._client.finish()
        elif self._client is None:
            self._ahead += data
        else:
            self._pay(len(data), down=True)
            self._client.send(data)
        self._interest()

    def _write(self) -> None:
        try:
            while self._output:
                del self._output[: self._socket.send(self._output[:CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._interest()
        if not self._output:
            if self._client is not None and not self._client.closed:
                self._client.pause(False)
            self._maybe_shut()

    def _maybe_shut(self) -> None:
        if self._client_ended and not self._output and not self._shut and not self.closed:
            self._shut = True
            if self._peer_ended:
                if self._client is None or not self._client.output:
                    self.close()
                return  # else once the client has all that the peer said
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.close()

    def _interest(self) -> None:
        if self.closed:
            return
        waiting = len(self._ahead) if self._client is None else len(self._client.output)
        events = READ if not self._peer_ended and waiting < AHEAD_LIMIT else 0
        if self._output:
            events |= WRITE
        if events != self._events:
            self._events = events
            self._server.loop.change(self._descriptor, self._event, events)

    def _pay(self, size: int, *, down: bool) -> None:
        """Count what is carried; streams are slowed by their peers, not by dropping."""
        allocation = self.allocation
        if down:
            allocation.down_granted += size
        else:
            allocation.up_granted += size
