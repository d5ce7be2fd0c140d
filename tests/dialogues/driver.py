"""Plays dialogue scripts: what clients say to the relay and what it must answer.

A script is one directive a line; `#` starts a comment line.  Names of
connections are free.  `${...}` stands for a variable anywhere in a line.

    relay limits.send_burst=2      this script needs a relay with other options
    account alice bob              make accounts; alice alone names an address that
                                   does not exist yet, created by her first login
    send alice bob 3 [size]        submit three encrypted messages and wait for them
    let m = encrypted alice bob    prepare a message (people or addresses); also plain, securejoin,
                                   forged NAME; then ${m}, ${m.size}; `size=`, `id=` may follow
    wait 0.5                       seconds

    c = imaps                      connect: smtp, submission, submissions, imap, imaps
    c -> LINE                      send the line and CRLF
    c ~> TEXT                      send exactly this; \\r \\n \\0 \\t \\\\ \\xNN are octets
    c data m                       send message m as DATA carries it, with the final dot
    c starttls                     the TLS handshake, now
    c deflate                      from now on all is compressed, both ways
    c <- LINE                      the next line is exactly this
    c <~ REGEX                     the next line matches; named groups become variables
    c <... REGEX                   read on until a line matches
    c <& REGEX                     one of the lines since the last thing sent matches
    c <! REGEX                     none of them does
    c quiet 0.3                    nothing arrives for so long
    c eof                          the relay closes the connection
    c close                        we do

A line of the relay is a logical one: IMAP literals are part of it.  Variables of
an account: ${alice}, .local, .password, .plain (AUTH PLAIN), .b64, .password64.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.system import mail
from tests.system.relay import Relay, client_tls, plain_token, wait_for

PATIENCE = 10.0  # seconds for every answer
_LITERAL = re.compile(rb'\{(\d+)\}\r\n$')
_ESCAPE = re.compile(r'\\(r|n|t|0|\\|x[0-9a-fA-F]{2})')
_VARIABLE = re.compile(r'\$\{([a-zA-Z0-9_.]+)\}')
_PEOPLE = ('alice', 'bob', 'carol', 'dave')


class Failed(AssertionError):
    """What was expected, what came, and where in the script."""


class Connection:
    def __init__(self, relay: Relay, listener: str) -> None:
        self.imap = listener.startswith('imap')
        self.stream = relay.connect(listener, PATIENCE)
        self.buffer = b''
        self.lines: list[str] = []
        self.deflater: zlib._Compress | None = None
        self.inflater: zlib._Decompress | None = None

    def send(self, data: bytes) -> None:
        self.lines = []
        if self.deflater is not None:
            data = self.deflater.compress(data) + self.deflater.flush(zlib.Z_SYNC_FLUSH)
        self.stream.sendall(data)

    def _fill(self) -> None:
        self.stream.settimeout(PATIENCE)
        data = self.stream.recv(65536)
        if not data:
            raise Failed('connection closed')
        self.buffer += data if self.inflater is None else self.inflater.decompress(data)

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._fill()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def line(self) -> str:
        whole = b''
        while True:
            while b'\n' not in self.buffer:
                self._fill()
            whole += self._take(self.buffer.index(b'\n') + 1)
            literal = _LITERAL.search(whole) if self.imap else None
            if literal is None:
                break
            whole += self._take(int(literal[1]))
        if not whole.endswith(b'\r\n'):
            raise Failed(f'line does not end in CRLF: {whole!r}')
        text = whole[:-2].decode('latin-1')
        self.lines.append(text)
        return text

    def starttls(self) -> None:
        if self.buffer:
            raise Failed(f'octets before TLS: {self.buffer!r}')
        self.stream = client_tls().wrap_socket(self.stream)

    def deflate(self) -> None:
        if self.buffer:
            raise Failed(f'octets before compression: {self.buffer!r}')
        self.deflater, self.inflater = zlib.compressobj(wbits=-15), zlib.decompressobj(wbits=-15)

    def quiet(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.buffer:
            self.stream.settimeout(left)
            with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                data = self.stream.recv(65536)
                if not data:
                    raise Failed('connection closed')
                self.buffer += data
        if self.buffer:
            raise Failed(f'expected silence, got {self.buffer!r}')

    def eof(self) -> None:
        self.stream.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
            while data := self.stream.recv(65536):
                self.buffer += data
        if self.buffer.strip():
            raise Failed(f'expected the end, got {self.buffer!r}')

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.shutdown(socket.SHUT_RDWR)
        self.stream.close()


def directives(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.lstrip().startswith('#'):
            yield number, line.strip()


def options(path: Path) -> dict[str, object]:
    """What the script wants its relay to be."""
    found: dict[str, object] = {}
    for _, line in directives(path):
        if line.startswith('relay '):
            for pair in line.split()[1:]:
                name, _, value = pair.partition('=')
                found[name] = {'true': True, 'false': False}.get(
                    value, int(value) if value.isdigit() else value
                )
    return found


class Play:
    """One script against one relay."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.variables: dict[str, str] = {'domain': relay.domain}
        self.messages: dict[str, bytes] = {}
        self.people: dict[str, tuple[str, str]] = {}
        self.connections: dict[str, Connection] = {}
        self.transcript: list[str] = []

    def run(self, path: Path) -> None:
        try:
            for number, line in directives(path):
                self.transcript.append(f'{number:4} {line}')
                try:
                    self.perform(line)
                except (Failed, OSError) as trouble:
                    recent = '\n'.join(self.transcript[-25:])
                    raise Failed(f'{path.name}:{number}: {trouble}\n{recent}') from None
        finally:
            for connection in self.connections.values():
                connection.close()

    def perform(self, line: str) -> None:
        first, _, rest = line.partition(' ')
        general: dict[str, Callable[[str], None]] = {
            'relay': lambda _: None,
            'account': self.account,
            'send': self.submit,
            'let': self.let,
            'wait': lambda seconds: time.sleep(float(seconds)),
        }
        if first in general:
            general[first](rest)
            return
        verb, _, argument = rest.strip().partition(' ')
        if verb == '=':
            self.connections[first] = Connection(self.relay, argument.strip())
            return
        if first not in self.connections:
            raise Failed(f'no connection {first!r}')
        self.exchange(self.connections[first], verb, argument)

    def exchange(self, c: Connection, verb: str, argument: str) -> None:
        if verb == '->':
            c.send(self.expand(argument) + b'\r\n')
        elif verb == '~>':
            c.send(self.expand(argument, escapes=True))
        elif verb == 'data':
            c.send(mail.dotted(self.messages[argument.strip()]))
        elif verb == '<-':
            line = self.note(c.line())
            wanted = self.expand(argument).decode('latin-1')
            if line != wanted:
                raise Failed(f'expected {wanted!r}, got {line!r}')
        elif verb == '<~':
            line = self.note(c.line())
            if not self.matches(argument, line):
                raise Failed(f'expected /{argument}/, got {line!r}')
        elif verb == '<...':
            while not self.matches(argument, self.note(c.line())):
                pass
        elif verb == '<&':
            if not any(self.matches(argument, line) for line in c.lines):
                raise Failed(f'no line matches /{argument}/ among {c.lines!r}')
        elif verb == '<!':
            for line in c.lines:
                if self.matches(argument, line):
                    raise Failed(f'unwanted /{argument}/: {line!r}')
        elif verb == 'quiet':
            c.quiet(float(argument))
        elif verb in ('starttls', 'deflate', 'eof', 'close'):
            getattr(c, verb)()
        else:
            raise Failed(f'unknown directive {verb!r}')

    def note(self, line: str) -> str:
        self.transcript.append(f'       < {line if len(line) < 400 else line[:400] + "…"!r}')
        return line

    def matches(self, pattern: str, line: str) -> bool:
        quoted = _VARIABLE.sub(lambda m: re.escape(self.value(m[1])), pattern)
        found = re.match(quoted, line, re.DOTALL)
        if found:
            self.variables.update({k: v for k, v in found.groupdict().items() if v is not None})
        return found is not None

    def value(self, name: str) -> str:
        if name in self.variables:
            return self.variables[name]
        base, _, part = name.partition('.')
        if base in self.messages:
            message = self.messages[base]
            return str(len(message)) if part == 'size' else message.decode('latin-1')
        if base not in _PEOPLE:
            raise Failed(f'no variable {name!r}')
        address, password = self.person(base)
        parts = {
            '': address,
            'local': address.rpartition('@')[0],
            'password': password,
            'plain': plain_token(address, password),
            'b64': base64.b64encode(address.encode()).decode(),
            'password64': base64.b64encode(password.encode()).decode(),
        }
        return parts[part]

    def expand(self, text: str, *, escapes: bool = False) -> bytes:
        if escapes:
            octets = {'r': '\r', 'n': '\n', 't': '\t', '0': '\0', '\\': '\\'}
            text = _ESCAPE.sub(lambda m: octets.get(m[1]) or chr(int(m[1][1:], 16)), text)
        return _VARIABLE.sub(lambda m: self.value(m[1]), text).encode('latin-1')

    # -- setting the scene
    def person(self, name: str) -> tuple[str, str]:
        if name not in self.people:
            self.people[name] = self.relay.credentials(name)
        return self.people[name]

    def account(self, names: str) -> None:
        for name in names.split():
            self.relay.imap(*self.person(name)).logout()

    def submit(self, argument: str) -> None:
        sender, receiver, *more = argument.split()
        count = int(more[0]) if more else 1
        size = int(more[1]) if len(more) > 1 else 3000
        to = self.person(receiver)
        with self.relay.imap(*to) as inbox:
            before = int(inbox.select('INBOX', readonly=True)[1][0] or b'0')
            with self.relay.smtp(*self.person(sender)) as smtp:
                address = self.person(sender)[0]
                for _ in range(count):
                    smtp.sendmail(address, [to[0]], mail.encrypted(address, to[0], size))
            wait_for(inbox, before + count)

    def let(self, argument: str) -> None:
        name, _, recipe = argument.partition(' = ')
        kind, *words = recipe.split()
        named = dict(word.split('=', 1) for word in words if '=' in word)
        ends = [w for w in words if w in _PEOPLE or '@' in w]
        sender, receiver = (self.person(w)[0] if w in _PEOPLE else w for w in ends)
        if kind == 'encrypted':
            size = int(named.get('size', 3000))
            message = mail.encrypted(sender, receiver, size, ident=named.get('id'))
        elif kind == 'plain':
            message = mail.plain(sender, receiver)
        elif kind == 'securejoin':
            message = mail.securejoin(sender, receiver)
        elif kind == 'forged':
            message = mail.forgeries(sender, receiver)[words[0]]
        else:
            raise Failed(f'unknown kind of message {kind!r}')
        self.messages[name.strip()] = message
