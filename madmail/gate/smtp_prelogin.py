"""SMTP before the hand-over, as a pure dialogue: submission until AUTH, port 25 until MAIL.

Submission (RFC 6409) offers AUTH under TLS only, unless plaintext logins are
allowed.  Port 25 never has AUTH; its first MAIL goes to a shard with all that
follows.  Lines end in CRLF and nothing else (see `madmail.smtp.grammar`).
"""

from __future__ import annotations

from madmail.account.address import ehlo_name
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
from madmail.smtp import grammar
from madmail.smtp.reply import Reply

_EXTENSIONS = ('8BITMIME', 'SMTPUTF8', 'ENHANCEDSTATUSCODES', 'CHUNKING')

_FAREWELLS = {
    Farewell.TIMEOUT: b'421 4.4.2 Timed out\r\n',
    Farewell.SHUTDOWN: b'421 4.3.2 Server going away, come back\r\n',
    Farewell.CONNECTIONS: b'421 4.7.0 Too many connections\r\n',
    Farewell.CROSS_PROTOCOL: b'421 4.7.0 This port speaks SMTP\r\n',
}

_HELLO_FIRST = Reply(503, '5.5.1', 'Send EHLO first')
_TLS_FIRST = Reply(530, '5.7.0', 'Must issue a STARTTLS command first')  # RFC 3207 4
_LOGIN_FIRST = Reply(530, '5.7.0', 'Authentication required')  # RFC 4954 6
_MAIL_FIRST = Reply(503, '5.5.1', 'Send MAIL first')
_ENCRYPT_FIRST = Reply(538, '5.7.11', 'Encryption required for this mechanism')  # RFC 4954 6
_NO_COMMAND = Reply(502, '5.5.1', 'Command not implemented')
_OK = b'250 2.0.0 OK\r\n'

# in the exchange of AUTH
_PLAIN = 'plain'
_USER = 'user'
_PASSWORD = 'password'


class SmtpDialogue:
    """See `dialogue.Dialogue`."""

    __slots__ = (
        '_awaited',
        '_bad',
        '_esmtp',
        '_failures',
        '_first',
        '_helo',
        '_hostname',
        '_inbound',
        '_settings',
        '_user',
    )

    def __init__(self, settings: Settings, inbound: bool) -> None:
        self._settings = settings
        self._hostname = _octets(ehlo_name(settings))
        self._inbound = inbound
        self._bad = 0
        self._failures = 0
        self._first = True
        self.secured()

    def secured(self) -> None:
        self._helo = b''
        self._esmtp = False
        self._awaited = ''
        self._user = b''

    def greeting(self, secure: bool) -> bytes:
        return b'220 %s ESMTP\r\n' % self._hostname

    def farewell(self, reason: Farewell) -> bytes:
        return _FAREWELLS[reason]

    def step(self, buffer: bytearray, secure: bool) -> Step | None:
        if self._first and buffer:
            if buffer[0] == TLS_RECORD:
                return Step(_FAREWELLS[Farewell.CROSS_PROTOCOL], Then.CLOSE)
            self._first = False
        long = self._awaited or buffer[:5].upper() == b'AUTH '
        line = grammar.take_line(buffer, grammar.AUTH_LINE_LIMIT if long else grammar.LINE_LIMIT)
        if line is None:
            return None
        if isinstance(line, Reply):
            return Step(line.line(), Then.CLOSE)
        if self._awaited:
            return self._response(line)
        command = grammar.command(line)
        if isinstance(command, Reply):
            return self._refuse(command)
        verb, argument = command
        if verb in grammar.FOREIGN:
            return Step(grammar.CROSS_PROTOCOL.line(), Then.CLOSE)
        if verb in ('EHLO', 'HELO'):
            return self._hello(argument, verb == 'EHLO', secure)
        if verb == 'STARTTLS':
            return self._starttls(argument, buffer, secure)
        if verb == 'AUTH':
            return self._auth(argument, secure)
        if verb == 'MAIL':
            return self._mail(line, secure)
        if verb == 'NOOP':
            return Step(_OK)
        if verb == 'RSET':
            return Step(_OK) if not argument else self._refuse(grammar.NO_ARGUMENT_ALLOWED)
        if verb == 'QUIT':
            return Step(b'221 2.0.0 Bye\r\n', Then.CLOSE)
        if verb == 'HELP':
            return Step(b'214 2.0.0 See RFC 5321\r\n')
        if verb == 'VRFY':
            return Step(b'252 2.0.0 Cannot verify, send some mail\r\n')
        if verb in ('RCPT', 'DATA'):
            return self._refuse(self._first_of_all(secure) or _MAIL_FIRST)
        if verb == 'BDAT':
            # RFC 3030 2: the chunk comes at once; it must not be read as commands.
            return Step(_MAIL_FIRST.line(), Then.CLOSE)
        if verb in ('EXPN', 'ETRN', 'TURN', 'ATRN', 'SEND', 'SOML', 'SAML'):
            return self._refuse(_NO_COMMAND)
        return self._refuse(grammar.UNKNOWN_COMMAND)

    def refused(self, verdict: Verdict) -> Step:
        if verdict is Verdict.LOGINS:
            return Step(b'421 4.7.0 Too many logins, slow down\r\n', Then.CLOSE)
        if verdict is Verdict.SESSIONS:
            return Step(b'421 4.7.0 Too many sessions, try again later\r\n', Then.CLOSE)
        if self._inbound:
            return Step(b'451 4.3.0 Temporary trouble, try again later\r\n')
        if verdict is Verdict.TROUBLE:
            return Step(b'454 4.7.0 Temporary trouble, try again later\r\n')
        self._failures += 1
        say = b'535 5.7.8 Authentication failed\r\n'
        delay = FAILURE_DELAY if self._failures > FREE_FAILURES else 0.0
        if self._failures >= MAX_FAILURES:
            return Step(say + b'421 4.7.0 Too many failures\r\n', Then.CLOSE, delay=delay)
        return Step(say, delay=delay)

    # -- inside

    def _open(self, secure: bool) -> bool:
        """Whether a password may be sent now."""
        return not self._inbound and (secure or bool(self._settings['policy.plaintext_login']))

    def _refuse(self, reply: Reply) -> Step:
        self._bad += 1
        say = reply.line()
        if self._bad >= MAX_BAD_COMMANDS:
            return Step(say + b'421 4.7.0 Too many errors\r\n', Then.CLOSE)
        return Step(say)

    def _first_of_all(self, secure: bool) -> Reply | None:
        """What has to come before mail; None when nothing is missing."""
        if self._inbound:
            if not secure and self._settings['policy.inbound_require_tls']:
                return _TLS_FIRST
            return None if self._helo else _HELLO_FIRST
        return _LOGIN_FIRST if self._open(secure) else _TLS_FIRST

    def _hello(self, argument: bytes, esmtp: bool, secure: bool) -> Step:
        # RFC 5321 4.1.4: servers in the wild greet with all sorts of words
        helo = grammar.helo(argument, strict=False)
        if isinstance(helo, Reply):
            return self._refuse(helo)
        self._helo = helo
        self._esmtp = esmtp
        if not esmtp:
            return Step(b'250 %s\r\n' % self._hostname)
        lines = [
            self._hostname,
            b'PIPELINING',
            b'SIZE %d' % int(str(self._settings['limits.max_message_size'])),
            *(name.encode('ascii') for name in _EXTENSIONS),
        ]
        if not secure:
            lines.append(b'STARTTLS')
        if self._open(secure):
            lines.append(b'AUTH PLAIN LOGIN')
        last = lines.pop()
        return Step(b''.join(b'250-%s\r\n' % line for line in lines) + b'250 %s\r\n' % last)

    def _starttls(self, argument: bytes, buffer: bytearray, secure: bool) -> Step:
        if argument:
            return self._refuse(grammar.NO_ARGUMENT_ALLOWED)
        if secure:
            return self._refuse(Reply(503, '5.5.1', 'TLS is active already'))
        if buffer:
            # RFC 3207 4.1: STARTTLS is the last command of a group; what follows
            # was put there to be taken for something said under TLS.
            return Step(b'503 5.5.1 Nothing may follow STARTTLS\r\n', Then.CLOSE)
        return Step(b'220 2.0.0 Ready to start TLS\r\n', Then.START_TLS)

    def _mail(self, line: bytes, secure: bool) -> Step:
        missing = self._first_of_all(secure)
        if missing is not None:
            return self._refuse(missing)
        login = Login('inbound', helo=self._helo, esmtp=self._esmtp, ahead=line + b'\r\n')
        return Step(then=Then.LOGIN, login=login)

    def _auth(self, argument: bytes, secure: bool) -> Step:
        if self._inbound:
            return self._refuse(_NO_COMMAND)
        if not self._open(secure):
            return self._refuse(_ENCRYPT_FIRST)
        if not self._helo:
            return self._refuse(_HELLO_FIRST)
        request = grammar.auth(argument)
        if isinstance(request, Reply):
            return self._refuse(request)
        mechanism, initial = request
        if mechanism == 'PLAIN':
            if initial is None:
                self._awaited = _PLAIN
                return Step(b'334 \r\n')
            return self._plain(initial)
        if mechanism == 'LOGIN':
            if initial is None:
                self._awaited = _USER
                return Step(b'334 VXNlcm5hbWU6\r\n')
            self._user = initial
            self._awaited = _PASSWORD
            return Step(b'334 UGFzc3dvcmQ6\r\n')
        return self._refuse(Reply(504, '5.5.4', 'Mechanism not supported'))

    def _response(self, line: bytes) -> Step:
        awaited, self._awaited = self._awaited, ''
        if line == b'*':  # RFC 4954 4
            return self._refuse(Reply(501, '5.7.0', 'Cancelled'))
        response = grammar.decode64(line)
        if response is None:
            return self._refuse(grammar.BAD_AUTH)
        if awaited == _PLAIN:
            return self._plain(response)
        if awaited == _USER:
            self._user = response
            self._awaited = _PASSWORD
            return Step(b'334 UGFzc3dvcmQ6\r\n')
        user, self._user = self._user, b''
        return self._handover(user.decode('utf-8', 'replace'), response)

    def _plain(self, response: bytes) -> Step:
        found = grammar.plain(response)
        if found is None:
            return self._refuse(grammar.BAD_AUTH)
        return self._handover(found.user, found.password)

    def _handover(self, user: str, password: bytes) -> Step:
        login = Login('submission', user, password, helo=self._helo, esmtp=self._esmtp)
        return Step(then=Then.LOGIN, login=login)


def _octets(domain: str) -> bytes:
    """The domain as a greeting has it, bare."""
    return domain.encode('ascii' if domain.isascii() else 'idna')
