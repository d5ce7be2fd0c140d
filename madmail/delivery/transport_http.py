"""`POST /mxdeliv`: mail to another relay over HTTPS or HTTP.

One small HTTP/1.1 client, because there is one request to make and it has to
stream.  Connections are kept for the next message to the same host.  A
redirect is never followed: a POST that turns into a GET delivers nothing and
may still be answered with 200.

What an answer means (shared by the relays in the field):

    2xx                       taken, for all recipients; but not if a page comes with it
    400, 403, 503, 507 with   the peer's decision: 5xx text is final, 4xx is not
    an SMTP reply as text
    403 as relays of the      final
    madmail family say it
    429, 504, 507             not now
    anything else             no such service here, or none that works; another transport
                              may do, as any web server may stand before a mail server

The status line decides: what is wrong with the rest of an answer only ends the
connection.  Octets that are no HTTP at all come from no relay.
"""

from __future__ import annotations

import fcntl
import re
import select
import ssl
import struct
import termios
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gevent
from gevent import socket
from gevent.ssl import SSLContext

from madmail.delivery.route import Hop
from madmail.smtp.client import BLOCK_TIME, CONNECT_TIME, SLICE
from madmail.smtp.reply import Fault, Reply
from madmail.store.interface import Body

ANSWER_TIME = 120.0  # seconds: the peer stores before it answers
TEXT_TIME = 5.0  # seconds for what follows the head of an answer
SLOWEST = 4096  # octets a second that a peer has to take
ACKNOWLEDGE_TIME = 2.0  # seconds to learn whether a lost connection had taken the request
INTERIM_LIMIT = 10  # answers of the kind 1xx before the real one
HEAD_LIMIT = 16384  # octets of status line and fields
TEXT_LIMIT = 4096  # octets of an answer's body that are read
BATCH = 90  # recipients of one request: common HTTP servers take 100 fields
KEEP_TIME = 55.0  # seconds a connection is kept; peers close theirs after 60 and more
KEEP_LIMIT = 8  # connections kept to one host
HOSTS_LIMIT = 200  # hosts with kept connections

_STATUS = re.compile(rb'HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\Z)')
_SMTP = re.compile(r'([245][0-9][0-9])[ -](?:([245]\.[0-9]{1,3}\.[0-9]{1,3}) )?(.{0,300})')
_LATER = frozenset((429, 504, 507))  # 504: a relay behind it may have the message
_FOR_MESSAGE = frozenset((400, 411, 413, 414, 431))
# What relays of the madmail family give as the reason of 403; others give pages.
_REFUSAL = re.compile(r'Forbidden\Z|Encryption Needed')
_USUAL_PORTS = {'https': 443, 'http': 80}
_HOST = re.compile(r'[A-Za-z0-9._:-]{1,255}\Z')
_FORBIDDEN = re.compile(r'[\x00-\x20,\x7f]')  # a comma separates the values of a field
_NO_TEXT = frozenset((204, 205, 304))  # RFC 9110 15: nothing follows the head
_CLOSED = 7  # TCP_CLOSE of <netinet/tcp.h>: the peer has reset the connection

AGAIN = Reply(451, '4.4.2', 'Connection lost between two requests', 'again', Fault.PEER)


class NotHere(Exception):
    """This transport leads nowhere at this host; nothing was delivered."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status  # that was answered, if any was

    @property
    def for_message(self) -> bool:
        """Whether another message would get another answer."""
        return self.status in _FOR_MESSAGE


class _Nonsense(NotHere):
    """What was read is no HTTP."""


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

    def __init__(
        self,
        verified: SSLContext,
        unverified: SSLContext,
        on_address: Callable[[str, str], None] = lambda host, address: None,
    ) -> None:
        """`on_address` is told at which IP address a host was reached."""
        self._verified = verified
        self._unverified = unverified
        self._on_address = on_address
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
                # The peer may close it at the moment at which we write.
                unread = (
                    not isinstance(failure, _Nonsense)
                    if isinstance(failure, NotHere)
                    else not failure.waited and _unread(kept)
                )
                kept.close()
                if not unread:
                    raise
            except BaseException:
                kept.close()
                raise
            else:
                return self._settle(hop, key, kept, answer, recipients)
        stream = self._connect(hop, addresses)
        try:
            answer = self._exchange(stream, head, body, prefix)
        except BaseException:
            stream.close()
            raise
        return self._settle(hop, key, stream, answer, recipients)

    def tidy(self) -> None:
        """Close what has waited for too long; call it now and then."""
        limit = gevent.get_hub().loop.now() - KEEP_TIME
        for key, kept in list(self._kept.items()):
            while kept and kept[0].since < limit:
                kept.popleft().stream.close()
            if not kept:
                del self._kept[key]

    def close(self) -> None:
        for kept in self._kept.values():
            for one in kept:
                one.stream.close()
        self._kept.clear()

    # -- inside

    def _settle(
        self,
        hop: Hop,
        key: tuple[str, str, int, bool],
        stream: socket.socket,
        answer: _Answer,
        recipients: Sequence[str],
    ) -> list[Reply]:
        if answer.keep:
            self._keep(key, stream)
        else:
            stream.close()
        reply = meaning(answer.status, answer.text)
        if reply.positive and hop.relay and answer.text.startswith('<'):
            # Some web servers show a page whatever they are asked; no relay does.  What the
            # operator has set up is believed.
            raise NotHere('a web page')
        return [reply] * len(recipients)

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
                    with gevent.Timeout(CONNECT_TIME, TimeoutError()):
                        stream = context.wrap_socket(stream, server_hostname=name)
            except (OSError, ssl.SSLError, ValueError):
                stream.close()
                continue
            self._on_address(hop.host, address)
            return stream
        raise NotHere('cannot connect')

    def _exchange(self, stream: socket.socket, head: bytes, body: Body, prefix: bytes) -> _Answer:
        sent = False
        patience = BLOCK_TIME + body.size / SLOWEST
        try:
            stream.settimeout(BLOCK_TIME)
            with gevent.Timeout(patience, TimeoutError()):
                _send(stream, head, body, prefix)
            sent = True
        except OSError:
            pass  # the peer may have answered early, 413 for example
        try:
            answer = _read_answer(stream, ANSWER_TIME if sent else TEXT_TIME)
            if sent:
                return answer
            if answer.status < 300:
                raise NotHere('taken before it was there')
            return answer._replace(keep=False)
        except OSError as error:
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
        if key not in self._kept and len(self._kept) >= HOSTS_LIMIT:
            self.tidy()
        kept = self._kept.get(key)
        if kept is None and len(self._kept) < HOSTS_LIMIT:
            kept = self._kept[key] = deque()
        if kept is None or len(kept) >= KEEP_LIMIT:
            stream.close()
        else:
            kept.append(_Kept(stream, gevent.get_hub().loop.now()))


def _spoken_to(stream: socket.socket) -> bool:
    """Whether the peer closed an idle connection, or talks out of turn."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _unread(stream: socket.socket) -> bool:
    """Whether the peer was gone before it read what we sent, so that it may go once more.

    A system that has no reader left resets the connection.  One that took all
    octets and then ended the stream in order may have given them to its relay.
    """
    for _ in range(int(ACKNOWLEDGE_TIME / 0.02)):
        try:
            if stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSED:
                return True
            waiting = struct.pack('i', 0)
            if not struct.unpack('i', fcntl.ioctl(stream.fileno(), termios.TIOCOUTQ, waiting))[0]:
                return False
        except OSError:
            return False
        gevent.sleep(0.02)
    return False


def _request(hop: Hop, sender: str, recipients: Sequence[str], size: int) -> bytes:
    """Raises NotHere for what cannot stand in a head."""
    if not _HOST.match(hop.host) or any(map(_FORBIDDEN.search, (hop.path, sender, *recipients))):
        raise NotHere('an address that HTTP cannot carry')
    host = f'[{hop.host}]' if ':' in hop.host else hop.host
    if hop.port != _USUAL_PORTS.get(hop.transport):  # RFC 9110 4.2.3; proxies compare it
        host = f'{host}:{hop.port}'
    lines = [
        f'POST {hop.path} HTTP/1.1',
        f'Host: {host}',
        'Content-Type: message/rfc822',
        f'Content-Length: {size}',
    ]
    if sender:  # absent = the null reverse-path
        lines.append(f'X-Mail-From: {sender}')
    lines += [f'X-Mail-To: {recipient}' for recipient in dict.fromkeys(recipients)]
    return '\r\n'.join([*lines, '', '']).encode()


def _send(stream: socket.socket, head: bytes, body: Body, prefix: bytes) -> None:
    block = prefix + body.read(0, SLICE)
    offset = len(block) - len(prefix)
    stream.sendall(head + block)
    while offset < body.size:
        block = body.read(offset, SLICE)
        if not block:
            raise NotHere('the message is shorter than it was')
        offset += len(block)
        stream.sendall(block)


def _read_answer(stream: socket.socket, patience: float) -> _Answer:
    """Raises OSError when no answer comes, NotHere when what comes is no HTTP."""
    buffer = bytearray()
    with gevent.Timeout(patience, TimeoutError()):
        for _ in range(INTERIM_LIMIT):
            status, newer = _read_status(stream, buffer)
            if status >= 200:
                break
            if not _read_fields(stream, buffer)[1]:  # 100 Continue and the like come before
                raise ConnectionResetError
        else:
            raise _Nonsense('no end of interim answers')
    keep = False
    text = b''
    try:
        with gevent.Timeout(TEXT_TIME, TimeoutError()):
            fields, whole = _read_fields(stream, buffer)
            if whole:
                text, keep = _read_text(stream, buffer, status, fields)
    except OSError:
        pass  # the status has been said
    keep = keep and newer and b'close' not in fields.get(b'connection', b'').lower()
    return _Answer(status, text.decode('ascii', 'replace').strip(), keep)


def _read_status(stream: socket.socket, buffer: bytearray) -> tuple[int, bool]:
    """The status, and whether it is HTTP/1.1; its line is taken from the buffer."""
    while (end := buffer.find(b'\n')) < 0:
        if len(buffer) > HEAD_LIMIT:
            raise _Nonsense('this is not HTTP')
        data = stream.recv(8192)
        if not data:
            raise ConnectionResetError
        buffer += data
    line = bytes(buffer[:end]).rstrip(b'\r')
    del buffer[: end + 1]
    match = _STATUS.match(line)
    if match is None:
        raise _Nonsense('this is not HTTP')
    return int(match[1]), line.startswith(b'HTTP/1.1')


def _read_fields(stream: socket.socket, buffer: bytearray) -> tuple[dict[bytes, bytes], bool]:
    """The fields up to the empty line, by lower name, and whether it has come."""
    fields: dict[bytes, bytes] = {}
    octets = 0
    while True:
        while (end := buffer.find(b'\n')) < 0:
            if octets + len(buffer) > HEAD_LIMIT:
                return fields, False
            data = stream.recv(8192)
            if not data:
                return fields, False
            buffer += data
        line = bytes(buffer[:end]).rstrip(b'\r')
        del buffer[: end + 1]
        octets += end + 1
        if not line:
            return fields, True
        if octets > HEAD_LIMIT:
            return fields, False
        name, _, value = line.partition(b':')
        name = name.strip().lower()
        # A field that comes twice counts as a list, which no length is.
        fields[name] = fields[name] + b', ' + value.strip() if name in fields else value.strip()


def _read_text(
    stream: socket.socket, buffer: bytearray, status: int, fields: dict[bytes, bytes]
) -> tuple[bytes, bool]:
    """The text, at most TEXT_LIMIT, and whether the next answer can begin behind it."""
    coding = fields.get(b'transfer-encoding', b'').lower()
    length = fields.get(b'content-length', b'')
    if status in _NO_TEXT:
        return b'', not buffer
    known = not coding and length.isdigit() and len(length) < 20
    wanted = min(int(length), TEXT_LIMIT) if known else TEXT_LIMIT
    chunked = b'chunked' in coding
    try:
        while len(buffer) < wanted and not (chunked and buffer.endswith(b'0\r\n\r\n')):
            data = stream.recv(8192)
            if not data:
                break
            buffer += data
    except (OSError, TimeoutError):
        known = False  # what there is may be a whole sentence
    text = _unchunked(bytes(buffer)) if chunked else bytes(buffer[:TEXT_LIMIT])
    return text, known and len(buffer) == int(length)


def _unchunked(data: bytes) -> bytes:
    """RFC 9112 7.1: the chunks that have come."""
    text = b''
    while True:
        size, line_end, rest = data.partition(b'\r\n')
        digits = size.split(b';')[0].strip()
        if not line_end or not re.fullmatch(rb'[0-9A-Fa-f]{1,8}', digits):
            return text
        octets = int(digits, 16)
        if not octets:
            return text
        text += rest[:octets]
        data = rest[octets + 2 :]


def meaning(status: int, text: str) -> Reply:
    """What an answer says of the message.  Raises NotHere."""
    if 200 <= status < 300:
        return Reply(250, '2.0.0', 'Ok')
    if status in (400, 403, 503, 507):
        match = _SMTP.match(text)
        if match is not None and match[1][0] != '2':
            said = ''.join(c if ' ' <= c <= '~' else '?' for c in match[3]).strip()
            return Reply(int(match[1]), match[2] or '', said, 'peer', Fault.PEER)
    if status == 403 and _REFUSAL.match(text):
        return Reply(550, '5.7.1', 'The other relay refuses this mail', 'peer', Fault.PEER)
    if status in _LATER:
        return Reply(451, '4.3.0', f'The other relay answers {status}', 'peer', Fault.PEER)
    raise NotHere(f'status {status}', status)
