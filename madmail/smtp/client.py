"""The sending side of SMTP: one connection to another server, many transactions.

Blocks its greenlet, never the loop.  A refusal of the peer is a `Reply` for
each recipient; what keeps the conversation from going on (no connection, a
time-out, nonsense) raises `Broken`, and how far it had come decides whether
the message may have been taken.

The message streams from its `Body` in slices; nothing of its size is held.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

import gevent
from gevent import socket
from gevent.ssl import SSLContext, SSLSocket

from madmail.smtp.reply import Fault, Reply
from madmail.store.interface import Body

CONNECT_TIME = 20.0  # seconds
GREETING_TIME = 60.0
COMMAND_TIME = 60.0
BLOCK_TIME = 120.0  # for one slice of the message to leave
LAST_WORDS_TIME = 5.0  # for a refusal to be read that came before the message had left
FINAL_TIME = 300.0  # RFC 5321 4.5.3.2.6 asks for ten minutes; a worker is not held that long
LINE_LIMIT = 4096  # octets of a reply line
LINES_LIMIT = 128  # of one reply
TEXT_LIMIT = 400  # characters of a reply that are kept
SLICE = 65536  # octets of the message
BATCH = 100  # RCPT commands in one write, RFC 5321 4.5.3.1.8
TRANSACTIONS_LIMIT = 100  # for one message to a peer that takes few recipients at once

_REPLY = re.compile(rb'([2-5][0-9][0-9])(?:([ -])(.*))?\Z', re.DOTALL)
_ENHANCED = re.compile(r'([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |\Z)')


class Phase(Enum):
    """How far the conversation had come when it broke."""

    CONNECT = 'connect'
    TLS = 'tls'
    GREETING = 'greeting'
    TRANSACTION = 'transaction'
    DATA = 'data'  # the final dot was sent: the peer may have the message


class Broken(Exception):
    """The connection is of no use any more; `reply` is what to remember of it."""

    def __init__(self, phase: Phase, text: str, reply: Reply | None = None) -> None:
        super().__init__(text)
        self.phase = phase
        self.reply = reply or Reply(421, '4.4.2', text, phase.value, Fault.PEER)


class Security(NamedTuple):
    """What is asked of TLS with this peer."""

    context: SSLContext
    name: str | None = None  # for SNI and, where the context checks it, the certificate
    required: bool = False  # no STARTTLS, no mail
    accept: Callable[[bytes], bool] | None = None  # DANE: judges the certificate (DER)


class Connection:
    """A greeted server, ready for transactions."""

    def __init__(self, stream: socket.socket, ehlo: str) -> None:
        self._stream = stream
        self._ehlo = ehlo
        self._buffer = bytearray()
        self._phase = Phase.GREETING
        self.extensions: dict[str, str] = {}
        self.encrypted = False
        self.lost = False  # of no use for another transaction
        self.transactions = 0
        self._batch = BATCH  # recipients that the peer takes at once, as far as we know

    # -- life

    @classmethod
    def open(
        cls,
        address: str,
        port: int,
        *,
        ehlo: str,
        security: Security,
        implicit_tls: bool = False,
    ) -> Connection:
        """Connect to an IP address and get as far as MAIL could be said.

        `ehlo` is our name, an IP literal in brackets.  Raises Broken.
        """
        try:
            stream = socket.create_connection((address, port), CONNECT_TIME)
        except OSError as error:
            raise Broken(Phase.CONNECT, _why('cannot connect', error)) from None
        connection = cls(stream, ehlo)
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if implicit_tls:
                connection._encrypt(security)
            connection._greet(security)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """End it without a word."""
        self._stream.close()

    def quit(self) -> None:
        """Say goodbye and do not wait for the answer."""
        try:
            self._stream.settimeout(1.0)
            self._stream.sendall(b'QUIT\r\n')
        except OSError:
            pass
        self.close()

    @property
    def size_limit(self) -> int:
        """RFC 1870: the largest message the peer takes; 0 = it does not say."""
        text = self.extensions.get('SIZE', '')
        return int(text) if text.isdigit() else 0

    # -- transactions

    def send(
        self, sender: str, recipients: Sequence[str], body: Body, prefix: bytes = b''
    ) -> list[Reply]:
        """One message to many; one reply a recipient, in their order.

        A peer that takes fewer recipients at once than we name gets the others in further
        transactions.  `prefix` goes before the body (a signature).  Raises Broken; but when
        some have their answer the others get one, too, and the connection is `lost`.
        """
        answers: dict[str, Reply] = {}
        left = list(dict.fromkeys(recipients))
        last = self.transactions + TRANSACTIONS_LIMIT
        while left:
            batch = left[: self._batch]
            try:
                replies = self._transaction(sender, batch, body, prefix)
            except Broken as broken:
                if not answers:
                    raise
                self.lost = True
                reply = broken.reply
                if reply.code >= 500:
                    reply = reply._replace(code=451)
                answers.update((one, reply) for one in left)
                break
            said = dict(zip(batch, replies, strict=True))
            over = [one for one in batch if _too_many(said[one])]
            answers.update(said)
            left = left[len(batch) :]
            if over:
                if len(batch) == 1 or self.transactions >= last:
                    answers.update((one, said[over[0]]) for one in left)
                    break
                self._batch = len(batch) - len(over) or len(batch) // 2
                left = over + left
        return [answers[recipient] for recipient in recipients]

    def _transaction(
        self, sender: str, recipients: list[str], body: Body, prefix: bytes
    ) -> list[Reply]:
        size = body.size + len(prefix)
        if self.size_limit and size > self.size_limit:
            return [TOO_BIG] * len(recipients)
        utf8 = not (sender + ''.join(recipients)).isascii()
        if utf8 and 'SMTPUTF8' not in self.extensions:
            return [NO_UTF8] * len(recipients)  # RFC 6531 3.1
        self._phase = Phase.TRANSACTION
        self.transactions += 1
        commands = [self._mail(sender, size, utf8)]
        commands += [f'RCPT TO:<{name}>\r\n'.encode() for name in recipients]
        commands.append(b'DATA\r\n')
        if 'PIPELINING' in self.extensions:
            # RFC 2920 3.1: DATA may end the group; its reply is read like any other.
            self._write(b''.join(commands), COMMAND_TIME)
            mail = self._reply(COMMAND_TIME)
            rcpt: list[Reply] = []
            try:
                for _ in recipients:
                    rcpt.append(self._reply(COMMAND_TIME))
                data = self._reply(COMMAND_TIME, asking=True)
            except Broken:
                if mail.positive and (
                    len(rcpt) < len(recipients) or any(one.positive for one in rcpt)
                ):
                    raise
                self.lost = True  # it has decided, and hung up
                return rcpt if mail.positive else [mail] * len(recipients)
        else:
            mail = self._say(commands[0])
            rcpt = [self._say(one) for one in commands[1:-1]] if mail.positive else []
            wanted = any(one.positive for one in rcpt)
            data = self._say(commands[-1], asking=True) if wanted else NOT_ASKED
        if data.code < 300:  # what it has done then nobody knows; not taken the message
            raise Broken(self._phase, 'the peer does not speak SMTP')
        if not mail.positive:
            self._give_up(data)
            return [mail] * len(recipients)
        if data.code != 354:
            self._give_up(data)
            return [data if one.positive else one for one in rcpt]
        if not any(one.positive for one in rcpt):
            self._give_up(data)
            return list(rcpt)
        final = self._message(body, prefix)
        return [final if one.positive else one for one in rcpt]

    def _mail(self, sender: str, size: int, utf8: bool) -> bytes:
        parameters = ''
        if 'SIZE' in self.extensions:
            parameters += f' SIZE={size}'
        if '8BITMIME' in self.extensions:
            parameters += ' BODY=8BITMIME'
        if utf8:
            parameters += ' SMTPUTF8'
        return f'MAIL FROM:<{sender}>{parameters}\r\n'.encode()

    def _message(self, body: Body, prefix: bytes) -> Reply:
        for block in stuffed(body, prefix):
            try:
                self._write(block, BLOCK_TIME)
            except Broken:
                # Some refuse in the midst of the message and hang up.
                early = self._reply(LAST_WORDS_TIME)
                if early.positive:
                    raise
                self.lost = True
                return early
        self._phase = Phase.DATA
        final = self._reply(FINAL_TIME)
        self._phase = Phase.TRANSACTION
        return final

    def _give_up(self, data: Reply) -> None:
        """End a transaction that is decided; what becomes of the connection changes nothing."""
        try:
            if data.code == 354:
                # The peer asks for a message that has no recipient: an empty one.
                self._write(b'.\r\n', COMMAND_TIME)
                self._reply(COMMAND_TIME)
            self._say(b'RSET\r\n')  # RFC 5321 4.1.1.5
        except Broken:
            self.lost = True  # many refuse and hang up

    # -- greeting

    def _greet(self, security: Security) -> None:
        hello = self._reply(GREETING_TIME)
        if not hello.positive:
            raise Broken(Phase.GREETING, hello.text, hello)
        self._introduce()
        if self.encrypted:
            return
        if 'STARTTLS' in self.extensions:
            said = self._say(b'STARTTLS\r\n')
            if said.code == 220:
                if self._buffer:  # RFC 3207 section 6: nothing may follow in the clear
                    raise Broken(Phase.TLS, 'the peer talks into STARTTLS')
                self._encrypt(security)
                self._introduce()
                return
        if security.required:
            raise Broken(Phase.TLS, 'the peer does not offer TLS', NO_TLS)

    def _introduce(self) -> None:
        self.extensions = {}
        self._write(f'EHLO {self._ehlo}\r\n'.encode(), COMMAND_TIME)
        lines: list[bytes] = []
        said = self._reply(COMMAND_TIME, lines)
        if said.positive:
            for line in lines[1:]:
                word, _, rest = line.decode('ascii', 'replace').strip().partition(' ')
                self.extensions[word.upper()] = rest
            return
        said = self._say(f'HELO {self._ehlo}\r\n'.encode())
        if not said.positive:
            raise Broken(Phase.GREETING, said.text, said)

    def _encrypt(self, security: Security) -> None:
        self._phase = Phase.TLS
        try:
            self._stream.settimeout(CONNECT_TIME)
            with gevent.Timeout(CONNECT_TIME, TimeoutError()):
                encrypted: SSLSocket = security.context.wrap_socket(
                    self._stream, server_hostname=security.name
                )
        except (OSError, ssl.SSLError, ValueError) as error:
            raise Broken(Phase.TLS, _why('TLS failed', error)) from None
        self._stream = encrypted
        self.encrypted = True
        if security.accept is not None:
            certificate = encrypted.getpeercert(binary_form=True) or b''
            if not security.accept(certificate):
                raise Broken(Phase.TLS, 'the certificate is not the published one')
        self._phase = Phase.GREETING

    # -- octets

    def _say(self, command: bytes, asking: bool = False) -> Reply:
        self._write(command, COMMAND_TIME)
        return self._reply(COMMAND_TIME, asking=asking)

    def _write(self, data: bytes, timeout: float) -> None:
        try:
            self._stream.settimeout(timeout)
            self._stream.sendall(data)
        except OSError as error:
            raise Broken(self._phase, _why('cannot send', error)) from None

    def _reply(
        self, timeout: float, lines: list[bytes] | None = None, asking: bool = False
    ) -> Reply:
        """RFC 5321 4.2.1: all lines of one reply, as one; 354 only if `asking` for it."""
        texts: list[bytes] = [] if lines is None else lines
        code = 0
        with gevent.Timeout(timeout, Broken(self._phase, 'no answer in time')):
            for _ in range(LINES_LIMIT):
                match = _REPLY.match(self._line())
                if match is None or (code and int(match[1]) != code):
                    raise Broken(self._phase, 'the peer does not speak SMTP')
                code = int(match[1])
                texts.append(match[3] or b'')
                if match[2] != b'-':
                    break
            else:
                raise Broken(self._phase, 'the reply does not end')
        reply = _spoken(code, texts)
        if code == 421:
            raise Broken(self._phase, reply.text, reply)  # RFC 5321 3.8: it hangs up
        if reply.positive and code // 100 != 2 and (code != 354 or not asking):
            raise Broken(self._phase, 'the peer does not speak SMTP')
        return reply

    def _line(self) -> bytes:
        buffer = self._buffer
        while (end := buffer.find(b'\n')) < 0:
            if len(buffer) > LINE_LIMIT:
                raise Broken(self._phase, 'the reply is too long')
            try:
                data = self._stream.recv(4096)
            except OSError as error:
                raise Broken(self._phase, _why('connection lost', error)) from None
            if not data:
                raise Broken(self._phase, 'the peer hung up')
            buffer += data
        line = bytes(buffer[:end]).rstrip(b'\r')
        del buffer[: end + 1]
        return line


def stuffed(body: Body, prefix: bytes = b'') -> Iterator[bytes]:
    """The message as DATA carries it (RFC 5321 4.5.2), with the final dot, in slices."""
    tail = b'\r\n'  # as if a line had just ended
    offset = 0
    block = prefix or body.read(0, SLICE)
    if not prefix:
        offset = len(block)
    while block:
        # The two octets before belong to the search: a line may end between two slices.
        joined = (tail + block).replace(b'\r\n.', b'\r\n..')
        yield joined[2:]
        tail = (tail + block)[-2:]
        block = body.read(offset, SLICE)
        offset += len(block)
    yield b'.\r\n' if tail == b'\r\n' else b'\r\n.\r\n'


def _spoken(code: int, texts: Sequence[bytes]) -> Reply:
    """What the peer said, made harmless: it may stand in a bounce."""
    text = b' '.join(texts).decode('ascii', 'replace')
    text = ''.join(c if ' ' <= c <= '~' else '?' for c in text).strip()[:TEXT_LIMIT]
    enhanced = ''
    match = _ENHANCED.match(text)
    if match is not None and match[1][0] == str(code)[0]:
        enhanced = match[1]
        text = text[match.end() :]
    return Reply(code, enhanced, text, 'peer', Fault.PEER if code >= 400 else Fault.NONE)


def _too_many(reply: Reply) -> bool:
    """RFC 5321 4.5.3.1.10: too many recipients at once, of which 552 is the old word."""
    return (reply.code, reply.enhanced) in ((452, '4.5.3'), (552, '5.5.3'), (552, '4.5.3'))


def _why(what: str, error: Exception) -> str:
    """A cause without the address that exceptions carry."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f'{what}: {error.verify_message}'
    if isinstance(error, ssl.SSLError):
        return f'{what}: {error.reason or "protocol error"}'
    if isinstance(error, TimeoutError):
        return f'{what}: timed out'
    if isinstance(error, OSError) and error.strerror:
        return f'{what}: {error.strerror}'
    return what


TOO_BIG = Reply(552, '5.3.4', 'The other server takes no message of this size', 'size', Fault.PEER)
NO_UTF8 = Reply(553, '5.6.7', 'The other server takes no such address', 'utf8', Fault.PEER)
NO_TLS = Reply(454, '4.7.5', 'The other server does not offer TLS', 'tls', Fault.PEER)
NOT_ASKED = Reply(503, '5.5.1', 'No valid recipients', 'order', Fault.PEER)
