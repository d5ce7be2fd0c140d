"""What the connections of one gate process share: loop, limits, buffer, counts."""

from __future__ import annotations

import socket
import ssl
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from madmail import log
from madmail.account.address import mail_domain
from madmail.gate.deadlines import Deadlines
from madmail.gate.dialogue import Settings
from madmail.gate.peers import Peers
from madmail.gate.turns import Turns

READ = 1  # libev's EV_READ and EV_WRITE
WRITE = 2

SCRATCH = 65536  # octets; the most one callback reads
TLS_RECORD_LIMIT = 16384  # octets of plaintext, RFC 8446 5.1

_log = log.get('gate')


class Service(NamedTuple):
    """What a listener speaks."""

    name: str  # of the setting listen.*
    protocol: str  # 'imap', 'submission' or 'inbound'
    implicit_tls: bool
    tls: ssl.SSLContext


class Octets:
    """What went through the pipes of one service."""

    __slots__ = ('received', 'sent')

    def __init__(self) -> None:
        self.received = 0  # from clients
        self.sent = 0

    def as_dict(self) -> dict[str, int]:
        return {'received': self.received, 'sent': self.sent}


class Counts:
    """What has happened since the process began."""

    __slots__ = (
        'accept_pauses',
        'connections',
        'crashes',
        'handshake_failures',
        'handshakes',
        'logins',
        'logins_denied',
        'logins_limited',
        'logins_troubled',
        'pipes',
        'refused_connections',
        'registrations',
        'timeouts',
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    connections: int
    refused_connections: int  # over a limit
    accept_pauses: int  # out of file descriptors or memory
    handshakes: int
    handshake_failures: int
    timeouts: int  # before login
    logins: int
    logins_denied: int
    logins_limited: int  # too many from a peer, or sessions of an account
    logins_troubled: int
    registrations: int
    pipes: int  # open now
    crashes: int

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


class Gate:
    """Shared by all connections of the process; lives as long as it."""

    __slots__ = (
        '_next_shard',
        'counts',
        'deadlines',
        'denial_time',
        'domain',
        'imap',
        'imap_octets',
        'loop',
        'peers',
        'scratch',
        'settings',
        'shards',
        'smtp_octets',
        'state_dir',
        'turns',
    )

    def __init__(
        self,
        loop: Any,
        settings: Settings,
        state_dir: Path,
        shards: int,
        peers: Peers,
        first_shard: int = 0,
    ) -> None:
        self.loop = loop
        self.settings = settings
        self.state_dir = state_dir
        self.shards = shards
        self.domain = mail_domain(str(settings['domain']))
        self.peers = peers
        self.counts = Counts()
        self.imap_octets = Octets()
        self.smtp_octets = Octets()
        # Open IMAP pipes by peer number, see `peers`.
        self.imap: dict[int, int] = {}
        self.deadlines = Deadlines(loop, self.crashed)
        self.turns = Turns(loop, self.crashed)
        # PERF: everything is read into this one buffer and sent from it; a
        # connection has a buffer of its own only while the other side is slow.
        self.scratch = memoryview(bytearray(SCRATCH))
        # Seconds a denial takes a shard, sliding; names of other domains are
        # denied here after as long.
        self.denial_time = 0.005
        self._next_shard = count(first_shard)

    def limit(self, name: str) -> int:
        """A live number of the settings."""
        return int(str(self.settings[name]))

    def any_shard(self) -> list[int]:
        """All shards, each time beginning with the next one."""
        first = next(self._next_shard) % self.shards
        return [*range(first, self.shards), *range(first)]

    def crashed(self, error: BaseException) -> None:
        """An exception that nobody expected ended one connection."""
        self.counts.crashes += 1
        _log.exception('connection crashed', error)

    def paused(self) -> None:
        """Nobody is accepted for a moment, for want of descriptors or memory."""
        self.counts.accept_pauses += 1


def receive(stream: socket.socket, secure: bool, into: memoryview) -> int:
    """Octets read; 0 = end of stream.  Raises BlockingIOError, SSLWantReadError, OSError."""
    if secure:
        assert isinstance(stream, ssl.SSLSocket)
        # PERF: SSLSocket.recv_into costs a Python frame more than read.
        return int(stream.read(len(into), into))
    return stream.recv_into(into)


def send(stream: socket.socket, secure: bool, data: bytearray | memoryview) -> int:
    """Octets sent, fewer than given when the peer does not take more.  Raises OSError.

    With TLS, data not sent must be given again, unchanged and at the front:
    OpenSSL has made a record of it.
    """
    if not secure:
        try:
            return stream.send(data)
        except BlockingIOError:
            return 0
    sent, size = 0, len(data)
    with memoryview(data) as view:
        while sent < size:
            # One record a call, for OpenSSL reports no part of a longer write.
            try:
                sent += stream.send(view[sent : sent + TLS_RECORD_LIMIT])
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                break
    return sent


def say_goodbye(stream: socket.socket, secure: bool) -> None:
    """Tell the peer that nothing more comes: close_notify, then FIN.  Raises OSError."""
    if secure:
        assert isinstance(stream, ssl.SSLSocket)
        try:
            stream.unwrap()
        except (OSError, ValueError):
            pass  # sent or not, we do not wait for the peer's
    stream.shutdown(socket.SHUT_WR)
