"""One connection of a client: from its first octet to its end.

    ASKING      nothing that we could open has come yet      ┐
    SILENT      it will not come any more                    ┘ nothing is ever sent
    CONNECTING  a service of the relay is connected to
    OPEN        octets go both ways
    PARTING     the service has ended; the client has time to read that

Everything runs in callbacks of the loop.  In the memory is at most one incomplete chunk and, each
way, what was read at once and was not taken by the other side; until it is, nothing more is read.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

from madmail.gate.gate import READ, WRITE
from madmail.realtime.shadowsocks.handshake import Late, Reception, Replayed, Request, Response
from madmail.realtime.shadowsocks.proxy import Proxy
from madmail.realtime.shadowsocks.services import Way
from madmail.realtime.shadowsocks.stream import Broken, Opener

CONNECT_TIME = 10.0  # seconds for a listener of ours
FAREWELL_TIME = 5.0  # seconds a client has to read the rest and close
LAST_READS = 16  # of what has come before we close
IP_BIND_ADDRESS_NO_PORT = 24  # ip(7); the module socket lacks it before Python 3.12

ASKING = 'asking'
SILENT = 'silent'
CONNECTING = 'connecting'
OPEN = 'open'
PARTING = 'parting'
GONE = 'gone'


class Tunnel:
    """Owns its sockets."""

    __slots__ = (
        '_client',
        '_client_ended',
        '_client_reader',
        '_client_writer',
        '_host',
        '_number',
        '_opener',
        '_proxy',
        '_reception',
        '_response',
        '_service',
        '_service_ended',
        '_service_reader',
        '_service_writer',
        '_state',
        '_to_client',
        '_to_service',
        'active',
        'deadline',
    )

    def __init__(self, proxy: Proxy, client: socket.socket, host: str, number: int) -> None:
        """`client` is non-blocking, `number` stands for the `host` it comes from."""
        self._proxy = proxy
        self._client = client
        self._host = host
        self._number = number
        self._state = ASKING
        self._reception: Reception | None = Reception(
            proxy.method, proxy.key, proxy.salts.add, time.time
        )
        self._response: Response | None = None
        self._opener: Opener | None = None
        self._service: socket.socket | None = None
        self._client_reader: Any = proxy.loop.io(client.fileno(), READ)
        self._client_writer: Any = None
        self._service_reader: Any = None
        self._service_writer: Any = None
        self._to_client = b''  # sealed, and not taken yet
        self._to_service = b''
        self._client_ended = False
        self._service_ended = False
        self.active = time.monotonic()
        self.deadline = proxy.patience()

    def start(self, crowded: bool = False) -> None:
        """Begin; where it is `crowded` nothing it says is listened to."""
        proxy = self._proxy
        proxy.began(self, self._number)
        proxy.deadlines.add(self)
        if crowded:
            self._reject()
        self._client_reader.start(self._guard, self._client_readable)

    def expired(self) -> None:
        """The time is up: of who said nothing right, of a connection, of a farewell."""
        self.end()

    # -- from the client

    def _client_readable(self) -> None:
        proxy = self._proxy
        if self._state in (SILENT, PARTING):
            self._discard()
            return
        try:
            size = self._client.recv_into(proxy.scratch)
        except BlockingIOError:
            return
        except OSError:
            self.end()
            return
        if not size:
            self._client_end()
            return
        proxy.received += size
        try:
            if self._reception is not None:
                self._ask(proxy.scratch[:size])
            else:
                assert self._opener is not None
                self.active = time.monotonic()
                plain = self._opener.feed(proxy.scratch[:size])
                if plain:
                    self._pass_to_service(plain)
        except Broken as broken:
            self._reject(broken)

    def _discard(self) -> None:
        """Read on as if it mattered."""
        try:
            # tcp(7): MSG_TRUNC throws the octets away in the kernel.
            size = self._client.recv_into(self._proxy.scratch, 0, socket.MSG_TRUNC)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        self._proxy.received += size
        if not size:
            self.end()

    def _client_end(self) -> None:
        if self._state != OPEN:
            self.end()
            return
        self._client_ended = True
        self._client_reader.stop()
        if not self._to_service:
            self._finish_service()

    def _ask(self, data: memoryview) -> None:
        """What comes before we know what it wants."""
        assert self._reception is not None
        request = self._reception.feed(data)
        if request is None:
            return
        self._reception = None
        proxy = self._proxy
        proxy.deadlines.remove(self)
        proxy.recognised(self, self._number)
        way = proxy.services.find(request.destination)
        if way is None:
            proxy.counts.unreachable += 1
            self.end()
            return
        self._connect(way, request)

    def _reject(self, reason: Broken | None = None) -> None:
        """Hear the rest and say nothing."""
        proxy = self._proxy
        counts = proxy.counts
        counts.rejected += 1
        if isinstance(reason, Replayed):
            counts.replayed += 1
        elif isinstance(reason, Late):
            counts.late += 1
        self._reception = self._opener = self._response = None
        if self._state != ASKING:
            proxy.fell_silent(self, self._number)
            self._drop_service()
            self._drop_client_writer()
            self._to_client = self._to_service = b''
            self.deadline = proxy.patience()
            proxy.deadlines.add(self)
        self._state = SILENT

    # -- the service

    def _connect(self, way: Way, request: Request) -> None:
        proxy = self._proxy
        self._opener = request.opener
        self._response = Response(proxy.method, proxy.key, request.salt)
        proxy.salts.add(self._response.salt)
        self._to_service = request.data
        self._client_reader.stop()
        self._state = CONNECTING
        self.deadline = time.monotonic() + CONNECT_TIME
        proxy.deadlines.add(self)
        try:
            service = self._service = socket.socket(way.family)
        except OSError:  # no more descriptors
            self._unreachable()
            return
        service.setblocking(False)
        service.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if way.family == socket.AF_INET:
            service.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            try:
                service.bind((proxy.pseudonyms.of(self._host), 0))
            except OSError:
                self._unreachable()
                return
        if service.connect_ex((way.host, way.port)) not in (0, errno.EINPROGRESS):
            self._unreachable()
            return
        self._watch_service_writable()

    def _unreachable(self) -> None:
        self._proxy.counts.unreachable += 1
        self.end()

    def _connected(self) -> None:
        service = self._service
        assert service is not None
        if service.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._unreachable()
            return
        proxy = self._proxy
        proxy.counts.opened += 1
        proxy.deadlines.remove(self)
        self._state = OPEN
        self.active = time.monotonic()
        self._drop_service_writer()
        self._service_reader = proxy.loop.io(service.fileno(), READ)
        self._service_reader.start(self._guard, self._service_readable)
        data, self._to_service = self._to_service, b''
        # Before that is sent: what cannot be taken stops it again.
        self._client_reader.start(self._guard, self._client_readable)
        if data:
            self._pass_to_service(data)

    def _pass_to_service(self, data: bytes) -> None:
        if self._service_ended:
            return
        assert self._service is not None
        try:
            sent = self._service.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # its end arrives by the reader
        if sent < len(data):
            self._to_service = data[sent:]
            self._client_reader.stop()
            self._watch_service_writable()

    def _service_writable(self) -> None:
        if self._state == CONNECTING:
            self._connected()
            return
        data, self._to_service = self._to_service, b''
        self._drop_service_writer()
        if data:
            self._pass_to_service(data)
        if self._to_service:
            return
        if self._client_ended:
            self._finish_service()
        else:
            self._client_reader.start(self._guard, self._client_readable)

    def _finish_service(self) -> None:
        """The client has said everything and the service has got it."""
        assert self._service is not None
        try:
            self._service.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # its end arrives by the reader

    def _service_readable(self) -> None:
        proxy = self._proxy
        assert self._service is not None
        assert self._response is not None
        try:
            size = self._service.recv_into(proxy.scratch)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self._service_ended = True
            self._service_reader.stop()
            if not self._to_client:
                self._part()
            return
        self.active = time.monotonic()
        self._to_client = self._response.seal(proxy.scratch[:size], time.time())
        if not self._flush_client() and self._state == OPEN:
            self._service_reader.stop()

    # -- to the client

    def _flush_client(self) -> bool:
        """Send what is sealed; False when some is left or the client is gone."""
        data = self._to_client
        try:
            sent = self._client.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.end()
            return False
        self._proxy.sent += sent
        self._to_client = data[sent:] if sent < len(data) else b''
        if not self._to_client:
            return True
        if self._client_writer is None:
            self._client_writer = self._proxy.loop.io(self._client.fileno(), WRITE)
            self._client_writer.start(self._guard, self._client_writable)
        return False

    def _client_writable(self) -> None:
        if not self._flush_client():
            return
        self.active = time.monotonic()
        self._drop_client_writer()
        if self._service_ended:
            self._part()
        else:
            self._service_reader.start(self._guard, self._service_readable)

    def _part(self) -> None:
        """Close our half and let the client close its own: closing both could undo last words."""
        self._drop_service()
        if self._client_ended:
            self.end()
            return
        self._state = PARTING
        try:
            self._client.shutdown(socket.SHUT_WR)
        except OSError:
            self.end()
            return
        self.deadline = time.monotonic() + FAREWELL_TIME
        self._proxy.deadlines.add(self)
        if not self._client_reader.active:
            self._client_reader.start(self._guard, self._client_readable)

    # -- the end

    def end(self) -> None:
        """Close, with FIN and not with a reset where that is in our hands."""
        if self._state == GONE:
            return
        self._state = GONE
        proxy = self._proxy
        proxy.deadlines.remove(self)
        proxy.ended(self, self._number)
        self._drop_service()
        self._drop_client_writer()
        self._client_reader.stop()
        self._client_reader.close()
        try:
            # Octets left unread would make it a reset.
            for _ in range(LAST_READS):
                if not self._client.recv_into(proxy.scratch, 0, socket.MSG_TRUNC):
                    break
        except OSError:
            pass
        self._client.close()
        self._reception = self._opener = self._response = None
        self._to_client = self._to_service = b''

    def _watch_service_writable(self) -> None:
        if self._service_writer is None:
            assert self._service is not None
            self._service_writer = self._proxy.loop.io(self._service.fileno(), WRITE)
            self._service_writer.start(self._guard, self._service_writable)

    def _drop_service_writer(self) -> None:
        if self._service_writer is not None:
            self._service_writer.stop()
            self._service_writer.close()
            self._service_writer = None

    def _drop_client_writer(self) -> None:
        if self._client_writer is not None:
            self._client_writer.stop()
            self._client_writer.close()
            self._client_writer = None

    def _drop_service(self) -> None:
        self._drop_service_writer()
        if self._service_reader is not None:
            self._service_reader.stop()
            self._service_reader.close()
            self._service_reader = None
        if self._service is not None:
            self._service.close()
            self._service = None

    def _guard(self, step: Any) -> None:
        """Whatever goes wrong costs this connection only."""
        try:
            step()
        except Exception as error:
            self._proxy.crashed(error)
            self.end()
