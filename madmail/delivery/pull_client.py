"""Small HTTP requests to an exchanger or another service: one connection, bounded answers,
bounded time.

Redirects are not followed: a token goes to the host it was given for.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Sequence
from email.message import Message
from typing import NamedTuple

import gevent
from gevent import socket
from gevent.ssl import SSLContext

from madmail import __version__
from madmail.account.address import ip_literal
from madmail.delivery.exchanger import Place

CONNECT_TIME = 15.0  # seconds for each address of the host
PIECE = 256 * 1024  # octets read at once
KEEP_TIME = 50.0  # seconds a connection lies idle and is still used


# What a connection says that was closed while it lay idle; under TLS also to who writes.
_ENDED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class Failed(Exception):
    """There is no answer; the text is for the operator and names nobody."""


class Answer(NamedTuple):
    status: int
    data: bytes
    fields: Message = Message()


class _Connection(http.client.HTTPConnection):
    """Over a socket that was connected before."""

    def __init__(self, place: Place, stream: socket.socket) -> None:
        super().__init__(place.host, place.port)
        self.sock = stream
        self.auto_open = 0


class PullClient:
    """Requests to one place, one after the other."""

    def __init__(
        self,
        place: Place,
        context: SSLContext,
        addresses: Callable[[str], Sequence[str]],
        *,
        verify: bool,
    ) -> None:
        """`addresses` resolves a host; `context` is one that does what `verify` says."""
        self._place = place
        self._context = context
        self._addresses = addresses
        self._verify = verify
        self._connection: _Connection | None = None
        self._used = 0.0

    def ask(
        self,
        method: str,
        target: str,
        fields: dict[str, str],
        body: bytes | None = None,
        *,
        limit: int,
        timeout: float,
    ) -> Answer:
        """One request.  At most `limit` octets, within `timeout` seconds.  Raises Failed."""
        if gevent.get_hub().loop.now() - self._used > KEEP_TIME:
            self.close()
        reused = self._connection is not None
        timer = gevent.Timeout(timeout)
        try:
            with timer:
                try:
                    return self._ask(method, target, fields, body, limit)
                except _ENDED:
                    if not reused:
                        raise
                # It was closed while it lay idle; whatever we ask may be asked twice.
                self.close()
                return self._ask(method, target, fields, body, limit)
        except gevent.Timeout as late:
            self.close()
            if late is not timer:
                raise
            raise Failed('it did not answer in time') from None
        except ssl.SSLError as error:
            self.close()
            wrong = isinstance(error, ssl.SSLCertVerificationError)
            raise Failed('its certificate is not right' if wrong else 'TLS failed') from None
        except (OSError, http.client.HTTPException, ValueError):
            self.close()
            raise Failed('the connection failed') from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(
        self, method: str, target: str, fields: dict[str, str], body: bytes | None, limit: int
    ) -> Answer:
        if self._connection is None:
            self._connection = _Connection(self._place, self._connect())
        connection = self._connection
        all_fields = {'Host': self._place.authority, 'User-Agent': f'madmail/{__version__}'}
        connection.request(method, target, body, {**all_fields, **fields})
        response = connection.getresponse()
        data = bytearray()
        while piece := response.read(min(PIECE, limit + 1 - len(data))):
            data += piece
            if len(data) > limit:
                self.close()
                raise Failed('the answer is too large')
        self._used = gevent.get_hub().loop.now()
        if response.will_close:
            self.close()
        return Answer(response.status, bytes(data), response.headers)

    def _connect(self) -> socket.socket:
        place = self._place
        addresses = self._addresses(place.host)
        if not addresses:
            raise Failed('the name of its host could not be looked up')
        for address in addresses:
            try:
                stream = socket.create_connection((address, place.port), CONNECT_TIME)
            except OSError:
                continue
            stream.settimeout(None)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if place.scheme == 'http':
                return stream
            literal = ip_literal(place.host) is not None
            try:
                return self._context.wrap_socket(
                    stream, server_hostname=None if literal and not self._verify else place.host
                )
            except BaseException:
                stream.close()
                raise
        raise Failed('it cannot be reached')
