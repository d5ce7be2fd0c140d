"""`POST /mxdeliv`: mail to another relay over HTTPS or HTTP.

One small HTTP/1.1 client, because there is one request to make and it has to
stream.  Connections are kept for the next message to the same host.  A
redirect is never followed: a POST that turns into a GET delivers nothing and
may still be answered with 200.

What an answer means (shared by the relays in the field):

    2xx                       taken, for all recipients
    400, 403 with an SMTP     the peer's decision: 5xx text is final, 4xx is not
    reply as text
    3xx 404 405 411 413 501   there is no such service here; another transport may do
    anything else             not now
"""

from __future__ import annotations

import re
import select
import ssl
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import gevent
from gevent import socket
from gevent.ssl import SSLContext

from madmail.delivery.route import Hop
from madmail.smtp.client import BLOCK_TIME, CONNECT_TIME, SLICE
from madmail.smtp.reply import Fault, Reply
from madmail.store.interface import Body

ANSWER_TIME = 120.0  # seconds: the peer stores before it answers
HEAD_LIMIT = 16384  # octets of status line and fields
TEXT_LIMIT = 4096  # octets of an answer's body that are read
BATCH = 90  # recipients of one request: common HTTP servers take 100 fields
KEEP_TIME = 55.0  # seconds a connection is kept; peers close theirs after 60 and more
KEEP_LIMIT = 8  # connections kept to one host
HOSTS_LIMIT = 200  # hosts with kept connections

_STATUS = re.compile(rb'HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\Z)')
_SMTP = re.compile(r'([245][0-9][0-9])[ -](?:([245]\.[0-9]{1,3}\.[0-9]{1,3}) )?(.{0,300})')
_NOT_HERE = frozenset((404, 405, 411, 413, 414, 431, 501))

AGAIN = Reply(451, '4.4.2', 'Connection lost between two requests', 'again', Fault.PEER)


class NotHere(Exception):
    """This transport leads nowhere at this host; nothing was delivered."""


class Unsure(Exception):
    """The message was sent and no answer came: the peer may have it."""

    def __init__(self, waited: bool = False) -> None:
        super().__init__('no answer')
        self.waited = waited  # the connection lived, the answer did not come in time


class _Answer(NamedTuple):
    status: int
    text: str
    keep: bool


class _Kept(NamedTuple):
    stream: socket.socket
    since: float


class HttpClient:
    """All HTTP connections of the courier."""

    def __init__(self, verified: SSLContext, unverified: SSLContext) -> None:
        self._verified = verified
        self._unverified = unverified
        self._kept: dict[tuple[str, str, int, bool], deque[_Kept]] = {}

    def send(
        self,
        hop: Hop,
        addresses: Sequence[str],
        sender: str,
        recipients: Sequence[str],
        body: Body,
        prefix: bytes,
    ) -> list[Reply]:
        """One reply a recipient.  `addresses` are the host's, in the order to try.

        Raises NotHere and Unsure.
        """
        replies: list[Reply] = []
        for start in range(0, len(recipients), BATCH):
            batch = recipients[start : start + BATCH]
            try:
                replies += self._post(hop, addresses, sender, batch, body, prefix)
            except (NotHere, Unsure):
                if not replies:
                    raise
                # Some have it already; the others come again on their own.
                replies += [AGAIN] * (len(recipients) - len(replies))
                break
        return replies

    def _post(
        self,
        hop: Hop,
        addresses: Sequence[str],
        sender: str,
        recipients: Sequence[str],
        body: Body,
        prefix: bytes,
    ) -> list[Reply]:
        head = _request(hop, sender, recipients, body.size + len(prefix))
        key = (hop.transport, hop.host, hop.port, hop.verify)
        kept = self._take(key)
        if kept is not None:
            try:
                answer = self._exchange(kept, head, body, prefix)
            except (NotHere, Unsure) as failure:
                # Closed by the peer while it lay idle, and then nothing was read of it.
                kept.close()
                if isinstance(failure, Unsure) and failure.waited:
                    raise
            else:
                return self._settle(key, kept, answer, recipients)
        stream = self._connect(hop, addresses)
        try:
            answer = self._exchange(stream, head, body, prefix)
        except BaseException:
            stream.close()
            raise
        return self._settle(key, stream, answer, recipients)

    def close(self) -> None:
        for kept in self._kept.values():
            for one in kept:
                one.stream.close()
        self._kept.clear()

    # -- inside

    def _settle(
        self,
        key: tuple[str, str, int, bool],
        stream: socket.socket,
        answer: _Answer,
        recipients: Sequence[str],
    ) -> list[Reply]:
        if answer.keep:
            self._keep(key, stream)
        else:
            stream.close()
        return [meaning(answer.status, answer.text)] * len(recipients)

    def _connect(self, hop: Hop, addresses: Sequence[str]) -> socket.socket:
        for address in addresses:
            try:
                stream = socket.create_connection((address, hop.port), CONNECT_TIME)
            except OSError:
                continue
            try:
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if hop.transport == 'https':
                    context = self._verified if hop.verify else self._unverified
                    name = None if hop.literal and not hop.verify else hop.host
                    stream = context.wrap_socket(stream, server_hostname=name)
            except (OSError, ssl.SSLError, ValueError):
                stream.close()
                continue
            return stream
        raise NotHere('cannot connect')

    def _exchange(self, stream: socket.socket, head: bytes, body: Body, prefix: bytes) -> _Answer:
        sent = False
        try:
            stream.settimeout(BLOCK_TIME)
            block = prefix + body.read(0, SLICE)
            offset = len(block) - len(prefix)
            stream.sendall(head + block)
            while offset < body.size:
                block = body.read(offset, SLICE)
                if not block:
                    raise NotHere('the message is shorter than it was')
                offset += len(block)
                stream.sendall(block)
            sent = True
        except OSError:
            pass  # the peer may have answered early, 413 for example
        try:
            with gevent.Timeout(ANSWER_TIME, TimeoutError()):
                answer = _read_answer(stream)
                return answer if sent else answer._replace(keep=False)
        except (OSError, ValueError) as error:
            if sent:
                raise Unsure(isinstance(error, TimeoutError)) from None
            raise NotHere('connection lost') from None

    def _take(self, key: tuple[str, str, int, bool]) -> socket.socket | None:
        kept = self._kept.get(key)
        now = gevent.get_hub().loop.now()
        while kept:
            one = kept.pop()
            if now - one.since < KEEP_TIME and not _spoken_to(one.stream):
                return one.stream
            one.stream.close()
        self._kept.pop(key, None)
        return None

    def _keep(self, key: tuple[str, str, int, bool], stream: socket.socket) -> None:
        kept = self._kept.setdefault(key, deque())
        if len(kept) >= KEEP_LIMIT or len(self._kept) > HOSTS_LIMIT:
            stream.close()
        else:
            kept.append(_Kept(stream, gevent.get_hub().loop.now()))


def _spoken_to(stream: socket.socket) -> bool:
    """Whether the peer closed an idle connection, or talks out of turn."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _request(hop: Hop, sender: str, recipients: Sequence[str], size: int) -> bytes:
    host = f'[{hop.host}]' if ':' in hop.host else hop.host
    lines = [
        f'POST {hop.path} HTTP/1.1',
        f'Host: {host}:{hop.port}',
        'Content-Type: message/rfc822',
        f'Content-Length: {size}',
    ]
    if sender:  # absent = the null reverse-path
        lines.append(f'X-Mail-From: {sender}')
    lines += [f'X-Mail-To: {recipient}' for recipient in dict.fromkeys(recipients)]
    return '\r\n'.join([*lines, '', '']).encode()


def _read_answer(stream: socket.socket) -> _Answer:
    """Raises OSError or ValueError when what comes is no answer."""
    buffer = bytearray()
    while True:
        while (end := buffer.find(b'\r\n\r\n')) < 0:
            if len(buffer) > HEAD_LIMIT:
                raise ValueError
            data = stream.recv(8192)
            if not data:
                raise ValueError
            buffer += data
        first, *rest = bytes(buffer[:end]).split(b'\r\n')
        del buffer[: end + 4]
        match = _STATUS.match(first)
        if match is None:
            raise ValueError
        status = int(match[1])
        if status >= 200:  # 100 Continue and the like come before
            break
    fields = {}
    for line in rest:
        name, _, value = line.partition(b':')
        fields[name.strip().lower()] = value.strip()
    length = fields.get(b'content-length', b'')
    known = length.isdigit() and b'transfer-encoding' not in fields
    wanted = min(int(length), TEXT_LIMIT) if known else TEXT_LIMIT
    chunked = b'chunked' in fields.get(b'transfer-encoding', b'').lower()
    while len(buffer) < wanted and not (chunked and buffer.endswith(b'0\r\n\r\n')):
        data = stream.recv(8192)
        if not data:
            break
        buffer += data
    keep = (
        known
        and len(buffer) == int(length)
        and first.startswith(b'HTTP/1.1')
        and b'close' not in fields.get(b'connection', b'').lower()
    )
    text = _first_chunk(bytes(buffer)) if chunked else bytes(buffer[:TEXT_LIMIT])
    return _Answer(status, text.decode('ascii', 'replace').strip(), keep)


def _first_chunk(data: bytes) -> bytes:
    size, _, rest = data.partition(b'\r\n')
    try:
        return rest[: int(size.split(b';')[0], 16)]
    except ValueError:
        return b''


def meaning(status: int, text: str) -> Reply:
    """What an answer says of the message.  Raises NotHere."""
    if 200 <= status < 300:
        return Reply(250, '2.0.0', 'Ok')
    if 300 <= status < 400 or status in _NOT_HERE:
        raise NotHere(f'status {status}')
    if status in (400, 403, 503, 507):
        match = _SMTP.match(text)
        if match is not None and match[1][0] != '2':
            said = ''.join(c if ' ' <= c <= '~' else '?' for c in match[3]).strip()
            return Reply(int(match[1]), match[2] or '', said, 'peer', Fault.PEER)
    if status == 403:
        # A relay that says no without a reason means it all the same.
        return Reply(550, '5.7.1', 'The other relay refuses this mail', 'peer', Fault.PEER)
    if status == 429 or status >= 500:
        return Reply(451, '4.3.0', f'The other relay answers {status}', 'peer', Fault.PEER)
    raise NotHere(f'status {status}')
