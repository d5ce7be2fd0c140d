"""IMAP before login (RFC 3501 not authenticated state), as a pure dialogue.

The capability line gives away nothing but what a client needs to log in; the
relay's own extensions are told after login.  Commands may end in LF alone
(clients do), and everything is bounded: a command has LINE_LIMIT octets with
its literals, a literal LITERAL_LIMIT.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64

from madmail.gate.dialogue import (
    FAILURE_DELAY,
    FREE_FAILURES,
    MAX_BAD_COMMANDS,
    MAX_FAILURES,
    TLS_RECORD,
    Farewell,
    Login,
    Settings,
    Step,
    Then,
    Verdict,
)

LINE_LIMIT = 8192  # octets
LITERAL_LIMIT = 1024  # octets
ID_LIMIT = 40960  # octets of an ID command: 30 fields (RFC 2971 3.3), read and not kept

_CAPABILITY = b'IMAP4rev1 LITERAL+ SASL-IR ID IDLE'

# RFC 3501 9: tag = 1*<any ASTRING-CHAR except "+">
_COMMAND = re.compile(
    rb'([^\x00-\x20(){%*"\\+\x7f-\xff]{1,64}) ([A-Za-z][A-Za-z0-9.-]{0,31})(?: +(.*))?\Z', re.DOTALL
)
_TAG = re.compile(rb'([^\x00-\x20(){%*"\\+\x7f-\xff]{1,64})(?: |\Z)')
_LITERAL = re.compile(rb'\{([0-9]{1,10})(\+)?\}\Z')
# quoted string or atom; octets above 127 are accepted in both
_STRING = re.compile(rb'"((?:[^"\\\x00\r\n]|\\[^\x00\r\n])*)"|([^\x00-\x20(){%*"\\\x7f]+)')
_ESCAPED = re.compile(rb'\\(.)')

_LATER = frozenset(
    b'SELECT EXAMINE CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE LIST LSUB STATUS APPEND CHECK '
    b'CLOSE EXPUNGE SEARCH FETCH STORE COPY MOVE UID IDLE ENABLE NAMESPACE UNSELECT COMPRESS '
    b'GETQUOTA GETQUOTAROOT SETQUOTA GETMETADATA SETMETADATA SORT THREAD NOTIFY'.split()
)
_ID = re.compile(rb'([^\x00-\x20(){%*"\\+\x7f-\xff]{1,64}) [Ii][Dd] ')
_WEB = re.compile(rb'[A-Z]{3,8} \S* ?HTTP/', re.DOTALL)

_FAREWELLS = {
    Farewell.TIMEOUT: b'* BYE Timed out\r\n',
    Farewell.SHUTDOWN: b'* BYE Server going away, come back\r\n',
    Farewell.CONNECTIONS: b'* BYE Too many connections\r\n',
    Farewell.CROSS_PROTOCOL: b'* BYE This port speaks IMAP\r\n',
}


class ImapDialogue:
    """See `dialogue.Dialogue`."""

    __slots__ = (
        '_bad',
        '_dropped',
        '_failures',
        '_first',
        '_needed',
        '_pieces',
        '_sasl',
        '_settings',
        '_tag',
    )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bad = 0
        self._dropped = 0  # octets of a long ID command
        self._failures = 0
        self._first = True
        self.secured()

    def secured(self) -> None:
        self._pieces: list[bytes] = []  # text, literal, text, … of the command begun
        self._needed = -1  # octets of the literal awaited
        self._tag = b''  # of the login under way
        self._sasl = False  # a SASL response is awaited

    def greeting(self, secure: bool) -> bytes:
        return b'* OK [CAPABILITY %s] ready\r\n' % self._capability(secure)

    def farewell(self, reason: Farewell) -> bytes:
        return _FAREWELLS[reason]

    def step(self, buffer: bytearray, secure: bool) -> Step | None:
        if self._first and buffer:
            if buffer[0] == TLS_RECORD:
                return Step(_FAREWELLS[Farewell.CROSS_PROTOCOL], Then.CLOSE)
            self._first = False
        while True:
            if self._needed >= 0:
                if len(buffer) < self._needed:
                    return None
                self._pieces.append(bytes(buffer[: self._needed]))
                del buffer[: self._needed]
                self._needed = -1
            end = buffer.find(b'\n', 0, LINE_LIMIT)
            if end < 0:
                if len(buffer) >= LINE_LIMIT:
                    if self._shorten(buffer):
                        continue
                    return Step(b'* BAD Line too long\r\n* BYE Line too long\r\n', Then.CLOSE)
                return None
            self._dropped = 0
            line = bytes(buffer[: end - 1 if end and buffer[end - 1] == 13 else end])
            del buffer[: end + 1]
            if self._sasl:
                return self._response(line)
            if line.endswith(b'}'):
                literal = _LITERAL.search(line)
                if literal is not None:
                    step = self._literal(line, literal, secure)
                    if step is not None:
                        return step
                    continue
            pieces, self._pieces = self._pieces, []
            pieces.append(line)
            if len(pieces) > 1 and sum(map(len, pieces)) > LINE_LIMIT:
                return self._refuse(_tag(pieces[0]), b'Command too long')
            return self._command(pieces, secure)

    def refused(self, verdict: Verdict) -> Step:
        tag = self._tag
        if verdict is Verdict.TROUBLE:
            return Step(b'%s NO [UNAVAILABLE] Temporary trouble, try again later\r\n' % tag)
        if verdict is Verdict.SESSIONS:
            return Step(b'%s NO [LIMIT] Too many sessions\r\n' % tag)
        if verdict is Verdict.LOGINS:
            return self._refuse(tag, b'[LIMIT] Too many logins, slow down', b'NO')
        self._failures += 1
        say = b'%s NO [AUTHENTICATIONFAILED] Authentication failed\r\n' % tag
        delay = FAILURE_DELAY if self._failures > FREE_FAILURES else 0.0
        if self._failures >= MAX_FAILURES:
            return Step(say + b'* BYE Too many failures\r\n', Then.CLOSE, delay=delay)
        return Step(say, delay=delay)

    # -- inside

    def _shorten(self, buffer: bytearray) -> bool:
        """Drop what a long ID command has said so far; nobody reads it."""
        start = None if self._sasl or self._pieces else _ID.match(buffer)
        end = buffer.find(b'\n')  # behind it may stand the next command
        self._dropped += end if end >= 0 else len(buffer)
        if start is None or self._dropped > ID_LIMIT:
            return False
        # The last octet may be the CR of the line's end.
        del buffer[start.end() : end - 1 if end >= 0 else -1]
        return True

    def _open(self, secure: bool) -> bool:
        """Whether a password may be sent now."""
        return secure or bool(self._settings['policy.plaintext_login'])

    def _capability(self, secure: bool) -> bytes:
        start = b'' if secure else b' STARTTLS'
        login = b' AUTH=PLAIN' if self._open(secure) else b' LOGINDISABLED'
        return _CAPABILITY + start + login

    def _refuse(self, tag: bytes, text: bytes, status: bytes = b'BAD') -> Step:
        self._bad += 1
        say = b'%s %s %s\r\n' % (tag, status, text)
        if self._bad >= MAX_BAD_COMMANDS:
            return Step(say + b'* BYE Too many bad commands\r\n', Then.CLOSE)
        return Step(say)

    def _literal(self, line: bytes, literal: re.Match[bytes], secure: bool) -> Step | None:
        """A literal is announced; None: go on, it comes without being asked for."""
        size = int(literal[1])
        first = self._pieces[0] if self._pieces else line
        if literal[2] is None:
            # Say no before the client sends what we would not use.
            step = self._unwelcome(first, size, secure)
            if step is not None:
                self._pieces = []
                return step
        self._pieces.append(line[: literal.start()])
        total = size + sum(map(len, self._pieces))
        if size > LITERAL_LIMIT or total > LINE_LIMIT:
            self._pieces = []
            if literal[2] is None:
                return self._refuse(_tag(first), b'[TOOBIG] Literal too large')
            # RFC 7888 4: it comes all the same, and we do not take so much from strangers
            say = b'%s BAD [TOOBIG] Literal too large\r\n* BYE Literal too large\r\n' % _tag(first)
            return Step(say, Then.CLOSE)
        self._needed = size
        return Step(b'+ OK\r\n') if literal[2] is None else None

    def _unwelcome(self, first: bytes, size: int, secure: bool) -> Step | None:
        match = _COMMAND.match(first)
        if match is None:
            return self._refuse(_tag(first), b'Syntax error')
        name = match[2].upper()
        if name == b'LOGIN':
            return None if self._open(secure) else self._private(match[1])
        if name == b'ID' and size <= LITERAL_LIMIT:
            return None
        return self._unknown(match[1], name)

    def _unknown(self, tag: bytes, name: bytes) -> Step:
        if name in _LATER:
            return self._refuse(tag, b'Please log in first', b'NO')
        return self._refuse(tag, b'Unknown command')

    def _private(self, tag: bytes) -> Step:
        return self._refuse(tag, b'[PRIVACYREQUIRED] Use STARTTLS first', b'NO')

    def _command(self, pieces: list[bytes], secure: bool) -> Step:
        match = _COMMAND.match(pieces[0])
        if match is None:
            if _WEB.match(pieces[0]):
                return Step(_FAREWELLS[Farewell.CROSS_PROTOCOL], Then.CLOSE)
            return self._refuse(_tag(pieces[0]), b'Syntax error')
        tag, name = match[1], match[2].upper()
        arguments = match[3]
        if name == b'LOGIN':
            if not self._open(secure):
                return self._private(tag)
            pieces[0] = arguments or b''
            return self._login(tag, _strings(pieces))
        if name == b'AUTHENTICATE':
            return self._authenticate(tag, arguments, secure)
        if name == b'ID':  # RFC 2971: nothing is told
            return Step(b'* ID NIL\r\n%s OK ID completed\r\n' % tag)
        if name in (b'CAPABILITY', b'NOOP', b'LOGOUT', b'STARTTLS') and (
            arguments or len(pieces) > 1
        ):
            return self._refuse(tag, b'No argument allowed')
        if name == b'CAPABILITY':
            return Step(
                b'* CAPABILITY %s\r\n%s OK CAPABILITY completed\r\n'
                % (self._capability(secure), tag)
            )
        if name == b'NOOP':
            return Step(b'%s OK NOOP completed\r\n' % tag)
        if name == b'LOGOUT':
            return Step(b'* BYE Logging out\r\n%s OK LOGOUT completed\r\n' % tag, Then.CLOSE)
        if name == b'STARTTLS':
            if secure:
                return self._refuse(tag, b'TLS is active already')
            return Step(b'%s OK Begin TLS negotiation now\r\n' % tag, Then.START_TLS)
        return self._unknown(tag, name)

    def _login(self, tag: bytes, strings: list[bytes] | None) -> Step:
        if strings is None or len(strings) != 2:
            return self._refuse(tag, b'LOGIN takes a user name and a password')
        return self._handover(tag, strings[0], strings[1])

    def _handover(self, tag: bytes, user: bytes, password: bytes) -> Step:
        self._tag = tag
        # What is not UTF-8 is nobody's address and will be denied as such.
        name = user.decode('utf-8', 'replace')
        return Step(then=Then.LOGIN, login=Login('imap', name, password, tag))

    def _authenticate(self, tag: bytes, arguments: bytes | None, secure: bool) -> Step:
        words = (arguments or b'').split()
        if not 1 <= len(words) <= 2:
            return self._refuse(tag, b'AUTHENTICATE takes a mechanism')
        if words[0].upper() != b'PLAIN':
            return self._refuse(tag, b'[CANNOT] Mechanism not supported', b'NO')
        if not self._open(secure):
            return self._private(tag)
        self._tag = tag
        if len(words) == 2:  # RFC 4959; `=` is an empty response
            return self._plain(b'' if words[1] == b'=' else words[1])
        self._sasl = True
        return Step(b'+ \r\n')

    def _response(self, line: bytes) -> Step:
        self._sasl = False
        if line == b'*':  # RFC 3501 6.2.2
            return self._refuse(self._tag, b'Cancelled')
        return self._plain(line)

    def _plain(self, encoded: bytes) -> Step:
        """RFC 4616: identity NUL user NUL password."""
        try:
            parts = a2b_base64(encoded, strict_mode=True).split(b'\0')
        except (Base64Error, ValueError):
            return self._refuse(self._tag, b'Not base64')
        if len(parts) != 3 or parts[0] not in (b'', parts[1]):
            return self._refuse(self._tag, b'Not a PLAIN response')
        return self._handover(self._tag, parts[1], parts[2])


def _tag(line: bytes) -> bytes:
    """The tag for an answer to a line that is no command."""
    match = _TAG.match(line)
    return match[1] if match is not None else b'*'


def _strings(pieces: list[bytes]) -> list[bytes] | None:
    """The astrings of a command; pieces are text and literals in turn.

    `[`, `]` and `@` may stand in atoms: Python's imaplib sends the user name unquoted.
    """
    found: list[bytes] = []
    separate = True  # a string may begin here
    for index, piece in enumerate(pieces):
        if index % 2:
            if not separate or b'\0' in piece:
                return None
            found.append(piece)
            separate = False
            continue
        at = 0
        while at < len(piece):
            if piece[at] == 0x20:
                separate = True
                at += 1
                continue
            match = _STRING.match(piece, at) if separate else None
            if match is None:
                return None
            quoted = match[1]
            found.append(match[2] if quoted is None else _ESCAPED.sub(rb'\1', quoted))
            separate = False
            at = match.end()
    return found
