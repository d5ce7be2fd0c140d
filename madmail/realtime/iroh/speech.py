"""What is spoken on a connection, from the first octet on.

Preamble    from our web workers: which peer it is, for they took the connection
Opening     the HTTP request, answered with a page or with 101
Derp        iroh 0.35, as native clients speak it
OldSocket   the same in WebSocket messages
NewSocket   iroh 1.x
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from madmail.realtime.iroh import derp, handshake, messages, request
from madmail.realtime.iroh.connection import OPEN, Connection
from madmail.realtime.iroh.derp import KEY, Malformed
from madmail.realtime.iroh.relay import RECEIVE, RECEIVE_SLOW
from madmail.web.webimap import websocket

PREAMBLE = struct.Struct('>Q')  # the number of the peer, see account.flood

# The peer of a connection by the fields of its request, where a reverse proxy of ours
# passes it on; 0 if there is none to be counted.
Forwarded = Callable[[str], int]


class Silent:
    """What has nothing to say of its own accord."""

    __slots__ = ('_connection',)
    receive = RECEIVE_SLOW

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ping(self, data: bytes) -> bytes:
        return b''

    def pong(self, data: bytes) -> bytes:
        return b''

    def gone(self, key: bytes) -> bytes:
        return b''

    def packet(self, kind: int, source: bytes, body: bytes | memoryview) -> bytes:
        return b''

    def replaced(self) -> bytes:
        return b''


class Preamble(Silent):
    __slots__ = ()

    def received(self, view: memoryview) -> int:
        if len(view) < PREAMBLE.size:
            return 0
        connection = self._connection
        (peer,) = PREAMBLE.unpack_from(view)
        connection.speech = Opening(connection)
        if not connection.admit(peer):
            connection.relay.counts.refused_connections += 1
            connection.farewell(request.page(429, ''))
        return PREAMBLE.size


class Opening(Silent):
    __slots__ = ('_forwarded',)

    def __init__(self, connection: Connection, forwarded: Forwarded | None = None) -> None:
        super().__init__(connection)
        self._forwarded = forwarded

    def received(self, view: memoryview) -> int:
        connection = self._connection
        counts = connection.relay.counts
        try:
            found = request.parse(bytes(view[: request.LIMIT]))
        except request.BadRequest:
            counts.bad_requests += 1
            connection.farewell(request.page(400, ''))
            return len(view)
        if found is None:
            return 0
        asked, size = found
        if self._forwarded is not None:
            peer = self._forwarded(asked.fields.get('x-forwarded-for', ''))
            if not connection.admit(peer):
                counts.refused_connections += 1
                connection.farewell(request.page(429, ''))
                return size
        answer = request.answer(asked)
        if isinstance(answer, bytes):
            connection.farewell(answer)
            return size
        connection.extend()
        connection.say(answer.head)
        if not answer.websocket:
            connection.speech = Derp(connection)
        elif answer.protocol:
            connection.speech = NewSocket(connection, answer.protocol)
        else:
            connection.speech = OldSocket(connection)
        return size


class Derp:
    """iroh 0.35, a frame after the other."""

    __slots__ = ('_connection',)
    receive = RECEIVE

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def received(self, view: memoryview) -> int:
        connection = self._connection
        if not connection.key:
            return self._hello(view)
        # PERF: consecutive packets to the same node are one run, changed where they lie and
        # sent with one call; 1.2 us of CPU a small packet, and nothing is copied.
        nodes = connection.relay.old.nodes
        counts = connection.relay.counts
        key = connection.key
        size = len(view)
        at = start = run = 0
        target: Connection | None = None
        while True:
            found = derp.next_frame(view, at, derp.PAYLOAD_LIMIT) if at < size else None
            if found is None:
                break
            kind, end = found
            if kind == derp.SEND and connection.state is OPEN:
                destination = derp.readdress(view, at, key)
                node = nodes.get(destination)
                if node is not target:
                    if target is not None:
                        target.deliver(view[start:at], run)
                    target, start, run = None, at, 0
                if node is None:
                    counts.unreachable += 1
                elif type(node.speech) is Derp:  # type: ignore[attr-defined]
                    target = node  # type: ignore[assignment]
                    run += 1
                    connection.reached(destination)
                else:
                    self._convert(node, view[at + derp.HEADER.size + KEY : end])  # type: ignore[arg-type]
                    connection.reached(destination)
                at = end
                continue
            if target is not None:
                target.deliver(view[start:at], run)
                target, run = None, 0
            if kind == derp.PING:
                connection.pong(bytes(view[at + derp.HEADER.size : end]))
            # Everything else says nothing to a relay; what a later version adds neither.
            at = start = end
        if target is not None:
            target.deliver(view[start:at], run)
        return at

    def _hello(self, view: memoryview) -> int:
        connection = self._connection
        found = derp.next_frame(view, 0, derp.HELLO_LIMIT)
        if found is None or not connection.may_verify():
            return 0
        kind, end = found
        key = None
        if kind == derp.CLIENT_INFO:
            key = handshake.client_info(bytes(view[derp.HEADER.size : end]))
        if key is None:
            connection.relay.counts.denied += 1
            connection.close()
        else:
            connection.enter(key, connection.relay.old)
        return end

    def _convert(self, node: Connection, body: memoryview) -> None:
        node.deliver(node.speech.packet(derp.SEND, self._connection.key, body))

    def packet(self, kind: int, source: bytes, body: bytes | memoryview) -> bytes:
        return derp.packet(source, body)

    def ping(self, data: bytes) -> bytes:
        return derp.frame(derp.PING, data)

    def pong(self, data: bytes) -> bytes:
        return derp.frame(derp.PONG, data)

    def gone(self, key: bytes) -> bytes:
        return derp.frame(derp.GONE, key)

    def replaced(self) -> bytes:
        return b''


class _Socket:
    """WebSocket messages."""

    __slots__ = ('_connection', '_dialect', '_message', '_open', 'gone', 'packet', 'ping', 'pong')
    receive = RECEIVE_SLOW

    def __init__(self, connection: Connection, dialect: messages.Dialect) -> None:
        self._connection = connection
        self._dialect = dialect
        self._message: bytearray | bytes = b''  # frames of a message that goes on
        self._open = False  # such a message is under way
        self.packet = dialect.packet
        self.ping = dialect.ping
        self.pong = dialect.pong
        self.gone = dialect.gone

    def replaced(self) -> bytes:
        return self._dialect.replaced() + websocket.close(websocket.NORMAL)

    def received(self, view: memoryview) -> int:
        connection = self._connection
        at = 0
        try:
            while connection.speech is self and connection.talking():
                limit = messages.LIMIT - len(self._message)
                found = websocket.frame_at(view, at, limit)
                if found is None or not (connection.key or connection.may_verify()):
                    break
                opcode, final, payload, at = found
                if opcode == websocket.CLOSE:
                    connection.farewell(websocket.close(websocket.NORMAL))
                elif opcode < websocket.CLOSE:
                    self._part(opcode, final, payload)
                # Pings of WebSocket are not answered: clients know only those of the relay.
        except websocket.Broken as broken:
            self._refuse(broken.code)
            return len(view)
        except Malformed:
            self._refuse(websocket.PROTOCOL)
            return len(view)
        return at

    def _part(self, opcode: int, final: bool, payload: bytes) -> None:
        if (opcode == websocket.CONTINUATION) != self._open:
            raise Malformed
        if opcode == websocket.TEXT:
            raise websocket.Broken(websocket.NOT_TEXT)
        if final and not self._open:
            self._take(payload)
            return
        if not final:
            self._connection.hold(len(payload))
            if not self._open:
                self._message = bytearray()
                self._open = True
            self._message += payload  # in place, for there may be a great many
            return
        whole = bytes(self._message) + payload
        self._connection.hold(-len(self._message))
        self._message = b''
        self._open = False
        self._take(whole)

    def _refuse(self, code: int) -> None:
        self._connection.relay.counts.malformed += 1
        self._connection.farewell(websocket.close(code))

    def _take(self, data: bytes) -> None:
        raise NotImplementedError

    def _pass_on(self, nodes: dict[bytes, Connection], kind: int, data: bytes) -> None:
        connection = self._connection
        if connection.state is not OPEN:
            return
        destination = data[1 : 1 + KEY]
        node = nodes.get(destination)
        if node is None:
            connection.relay.counts.unreachable += 1
            return
        body = memoryview(data)[1 + KEY :]
        node.deliver(node.speech.packet(kind, connection.key, body))
        connection.reached(destination)


class OldSocket(_Socket):
    """iroh 0.35, as it speaks in browsers."""

    __slots__ = ()

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, messages.OLD)

    def _take(self, data: bytes) -> None:
        connection = self._connection
        kind = messages.check_old(data)
        if not connection.key:
            key = handshake.client_info(data[1:]) if kind == derp.CLIENT_INFO else None
            if key is None:
                connection.relay.counts.denied += 1
                connection.close()
            else:
                connection.enter(key, connection.relay.old)
        elif kind == derp.SEND:
            self._pass_on(connection.relay.old.nodes, kind, data)  # type: ignore[arg-type]
        elif kind == derp.PING:
            connection.pong(data[1:])


class NewSocket(_Socket):
    """iroh 1.x."""

    __slots__ = ('_asked',)

    def __init__(self, connection: Connection, protocol: str) -> None:
        super().__init__(connection, messages.NEW[protocol])
        self._asked = handshake.challenge()
        connection.say(messages.message(handshake.challenge_message(self._asked)))

    def _take(self, data: bytes) -> None:
        connection = self._connection
        kind = messages.check_new(data)
        if not connection.key:
            self._authenticate(data)
        elif kind in (messages.DATAGRAM, messages.BATCH):
            self._pass_on(connection.relay.new.nodes, kind, data)  # type: ignore[arg-type]
        elif kind == messages.NEW_PING:
            connection.pong(data[1:])

    def _authenticate(self, data: bytes) -> None:
        connection = self._connection
        key = handshake.authentication(data, self._asked)
        self._asked = b''
        if key is None:
            connection.relay.counts.denied += 1
            denied = messages.message(handshake.denial('the signature is not right'))
            connection.farewell(denied + websocket.close(websocket.POLICY))
            return
        connection.enter(key, connection.relay.new)
        if connection.state is OPEN:
            connection.say(messages.message(bytes((messages.CONFIRMED,))))
