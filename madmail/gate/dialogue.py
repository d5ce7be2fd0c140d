"""What a dialogue before login asks of its connection.

A dialogue is pure: it takes octets from the front of a buffer and returns a
`Step`; it knows no sockets, shards or limits of others.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol


class Settings(Protocol):
    """Live settings, by dotted name."""

    def __getitem__(self, name: str) -> object: ...


class Then(Enum):
    READ_ON = 'read on'
    START_TLS = 'start tls'
    LOGIN = 'login'
    CLOSE = 'close'


class Login(NamedTuple):
    """A session that a shard shall take over."""

    protocol: str  # 'imap', 'submission' or 'inbound'
    user: str = ''  # as the client wrote it; '' for inbound
    password: bytes = b''
    tag: bytes = b''  # of the IMAP command
    helo: bytes = b''
    esmtp: bool = False
    ahead: bytes = b''  # goes to the shard before what is still in the buffer


class Step(NamedTuple):
    """Say this, after `delay` seconds, and then do that."""

    say: bytes = b''
    then: Then = Then.READ_ON
    login: Login | None = None  # with LOGIN
    delay: float = 0.0


class Verdict(Enum):
    """Why a login did not happen; the values are the octets of the hand-over."""

    DENIED = b'-'
    TROUBLE = b'!'
    SESSIONS = b'~'  # too many of this account
    LOGINS = b'l'  # too many from this peer; said by the gate itself


class Farewell(Enum):
    """Why the relay ends a connection on its own."""

    TIMEOUT = 'timeout'
    SHUTDOWN = 'shutdown'
    CONNECTIONS = 'connections'
    CROSS_PROTOCOL = 'cross protocol'


class Dialogue(Protocol):
    def greeting(self, secure: bool) -> bytes:
        """What is said first."""

    def step(self, buffer: bytearray, secure: bool) -> Step | None:
        """Take one command from the front of `buffer`; None when none is complete.

        May be None with data left; call again when there is more.
        """

    def secured(self) -> None:
        """TLS has begun: forget everything heard before (RFC 3207 4.2, RFC 3501 6.2.1)."""

    def refused(self, verdict: Verdict) -> Step:
        """The answer to the login that failed."""

    def farewell(self, reason: Farewell) -> bytes:
        """The last words."""


MAX_BAD_COMMANDS = 10  # then the connection is closed
MAX_FAILURES = 10  # denied logins, then the connection is closed
FREE_FAILURES = 2  # denied logins answered at once
FAILURE_DELAY = 1.0  # seconds before each further answer

TLS_RECORD = 0x16  # RFC 8446 5.1: the first octet of a ClientHello
