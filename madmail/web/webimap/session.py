"""A session with a shard, begun as a gate hands one over (see `madmail.shard.handoff`).

`Imap` and `Smtp` are clients in the plainest form, blocking only their greenlet.
"""

from __future__ import annotations

import itertools
from typing import Any

import gevent
from gevent import socket

from madmail.account.address import canonical
from madmail.account.placement import shard_of
from madmail.bus.frame import pack
from madmail.shard.address import connect, shard_name
from madmail.web.services import Services
from madmail.web.webimap.responses import Malformed, Value, parse, pending

ANSWER_TIME = 60.0  # seconds for an answer
VERDICT_TIME = 30.0  # seconds for the password check
LINE_LIMIT = 1024 * 1024  # octets of a line of an answer
READ = 256 * 1024


class Denied(Exception):
    """Wrong address or password, or an account that cannot be."""


class Crowded(Exception):
    """The account has as many sessions as it may have."""


class Trouble(Exception):
    """The shard is away, or its answer makes no sense; worth another try."""


class No(Exception):
    """The server refused a command; `text` is its own, `code` its response code or ''."""

    def __init__(self, text: str, code: str = '') -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Stream:
    """Octets to and from a shard."""

    def __init__(
        self, services: Services, protocol: str, address: str, password: str, guest: str
    ) -> None:
        """Raises Denied, Crowded, Trouble."""
        user = canonical(address, services.domain)
        if user is None:
            raise Denied
        self.user = user
        try:
            plain = connect(services.state_dir, shard_name(shard_of(user, services.shards)))
        except OSError:
            raise Trouble('the shard is away') from None
        # gevent's socket around the same descriptor.
        self._socket = socket.socket(fileno=plain.detach())
        self._input = bytearray()
        frame = {
            'kind': 'session',
            'proto': protocol,
            'user': user,
            'password': password.encode('utf-8', 'surrogateescape'),
            'tag': b'0',
            'helo': b'webimap',
            'esmtp': True,
            'tls': True,
            'origin': list(services.guest(guest)),
            'ahead': b'',
        }
        try:
            self._socket.sendall(pack(frame))
            with gevent.Timeout(VERDICT_TIME, Trouble('no verdict')):
                verdict = self._socket.recv(1)
        except OSError:
            self.close()
            raise Trouble('the shard went away') from None
        except BaseException:
            self.close()
            raise
        if verdict not in (b'+', b'*'):
            self.close()
            if verdict == b'-':
                raise Denied
            raise Crowded if verdict == b'~' else Trouble('the shard is in trouble')

    def close(self) -> None:
        self._socket.close()

    def interrupt(self) -> None:
        """Who waits for more gets Trouble; never blocks."""
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # it is gone already

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            raise Trouble('the shard went away') from None

    def line(self) -> bytes:
        """Without its CRLF."""
        searched = 0
        while (end := self._input.find(b'\r\n', searched)) < 0:
            searched = max(len(self._input) - 1, 0)
            if len(self._input) > LINE_LIMIT:
                raise Trouble('a line without end')
            self._more()
        found = bytes(self._input[:end])
        del self._input[: end + 2]
        return found

    def exactly(self, size: int) -> bytes:
        while len(self._input) < size:
            self._more()
        found = bytes(self._input[:size])
        del self._input[:size]
        return found

    def _more(self) -> None:
        try:
            data = self._socket.recv(READ)
        except OSError:
            data = b''
        if not data:
            raise Trouble('the shard went away')
        self._input += data


class Imap:
    """An IMAP session; close it, or use it in `with`."""

    def __init__(self, services: Services, address: str, password: str, guest: str) -> None:
        self._stream = Stream(services, 'imap', address, password, guest)
        self._tags = itertools.count(1)
        self.user = self._stream.user
        try:
            self._until(b'0')
            self.command('ENABLE UTF8=ACCEPT')  # names and addresses as they are
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Imap:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()

    def interrupt(self) -> None:
        """Whatever is waited for ends with Trouble."""
        self._stream.interrupt()

    def idle(self) -> None:
        """RFC 2177: nothing but `response` from now on; the session has no idle time then."""
        self._stream.send(b'%d IDLE\r\n' % next(self._tags))

    def command(self, *parts: str | bytes) -> list[list[Value]]:
        """The untagged responses; text goes as it is, octets as a literal.  Raises No."""
        tag = b'%d' % next(self._tags)
        line = bytearray(tag)
        for part in parts:
            line += b' '
            if isinstance(part, str):
                line += part.encode()
            else:
                line += b'{%d+}\r\n' % len(part) + part
        line += b'\r\n'
        self._stream.send(bytes(line))
        with gevent.Timeout(ANSWER_TIME, Trouble('no answer')):
            return self._until(tag)

    def response(self) -> list[Value]:
        """The next response of any kind; waits as long as it takes."""
        pieces = [self._stream.line()]
        while (size := pending(pieces[-1])) is not None:
            pieces.append(self._stream.exactly(size))
            pieces.append(self._stream.line())
        try:
            if len(pieces) == 1 and pieces[0].split(b' ', 2)[1:2] in ([b'OK'], [b'NO'], [b'BAD']):
                tag, word, text = [*pieces[0].split(b' ', 2), b''][:3]
                return [tag.decode(), word.decode(), text]
            return parse(pieces)
        except (Malformed, UnicodeDecodeError):
            raise Trouble('an answer that makes no sense') from None

    def _until(self, tag: bytes) -> list[list[Value]]:
        found = []
        while True:
            one = self.response()
            if one and one[0] == '*':
                if len(one) > 1 and one[1] == 'BYE':
                    raise Trouble('the session was ended')
                found.append(one[1:])
            elif one and str(one[0]).encode() == tag:
                if one[1] == 'OK':
                    return found
                text = one[2].decode('utf-8', 'replace') if len(one) > 2 else ''
                code = ''
                if text.startswith('['):
                    code, _, text = text[1:].partition('] ')
                raise No(text, code)


class Smtp:
    """A submission session."""

    def __init__(self, services: Services, address: str, password: str, guest: str) -> None:
        self._stream = Stream(services, 'submission', address, password, guest)
        self.user = self._stream.user
        try:
            self._reply()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Smtp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()

    def send(self, recipients: list[str], message: bytes) -> None:
        """One transaction.  Raises No with the reply's code; nothing is sent then."""
        self._say(b'MAIL FROM:<%s> SIZE=%d' % (self.user.encode(), len(message)))
        for recipient in recipients:
            self._say(b'RCPT TO:<%s>' % recipient.encode())
        self._stream.send(b'BDAT %d LAST\r\n' % len(message) + message)
        self._reply()

    def _say(self, line: bytes) -> None:
        self._stream.send(line + b'\r\n')
        self._reply()

    def _reply(self) -> None:
        with gevent.Timeout(ANSWER_TIME, Trouble('no answer')):
            line = self._stream.line()
            while line[3:4] == b'-':
                line = self._stream.line()
        if line[:1] != b'2':
            text = line[4:].decode('utf-8', 'replace')
            raise No(text, line[:3].decode('latin-1'))


def fetched(response: list[Any]) -> dict[str, Any] | None:
    """The items of an untagged FETCH by name; None for another response."""
    if len(response) < 3 or response[1] != 'FETCH' or not isinstance(response[2], list):
        return None
    items = response[2]
    found = {str(items[i]).upper(): items[i + 1] for i in range(0, len(items) - 1, 2)}
    found['NUMBER'] = response[0]
    return found
