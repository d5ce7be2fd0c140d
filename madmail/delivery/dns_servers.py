"""The name servers a resolver asks: which they are, how they are asked, and in which order.

A question goes out over UDP from a socket of its own, whose port the kernel
draws at random, with a random id; an answer counts only when it comes from the
server that was asked and repeats id and question.  A truncated answer is
fetched over TCP.

Sockets are plain and non-blocking, and the greenlet waits on their descriptor:
gevent's own `connect` would look up the address of the server in a thread.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gevent.socket import wait_read, wait_write

from madmail.delivery import dns_message
from madmail.delivery.dns_message import Malformed, Message, Name, Rcode, Type

RESOLV_CONF = Path('/etc/resolv.conf')
PORT = 53
SERVER_LIMIT = 3  # of resolv.conf, as resolv.conf(5) has it
ROUNDS = 2  # times each server is asked at most
RECHECK = 10.0  # seconds between two looks at resolv.conf
AWAY_TIME = 30.0  # seconds a server that did not answer is asked last
STRANGERS = 64  # datagrams that are no answer to our question, before we give up on it

# Servers that know no EDNS say so in one of these ways (RFC 6891 7).
_NO_EDNS = (Rcode.FORMERR, Rcode.NOTIMP, Rcode.BADVERS)
_SETTLED = (Rcode.NOERROR, Rcode.NXDOMAIN)


class Silent(Exception):
    """A server did not answer in time, or the connection failed."""


class Server(NamedTuple):
    family: socket.AddressFamily
    address: Any  # as `connect` takes it
    loopback: bool


class Reply(NamedTuple):
    message: Message
    trusted: bool  # the way from the server to here cannot have been tampered with


def server(text: str) -> Server:
    """A server from `host`, `host:port` or `[host]:port`.  Raises ValueError."""
    bracketed = re.fullmatch(r'\[(.+)\](?::(\d{1,5}))?', text)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    elif text.count(':') == 1:
        host, _, port = text.partition(':')
    else:
        host, port = text, ''
    host = '127.0.0.1' if host == 'localhost' else host
    loopback = ipaddress.ip_address(host).is_loopback
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    family, *_, address = socket.getaddrinfo(host, int(port or PORT), flags=flags)[0]
    return Server(family, address, loopback)


def system_servers(path: Path = RESOLV_CONF) -> list[Server]:
    """What resolv.conf(5) names; the local host when it names none."""
    found: list[Server] = []
    try:
        lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:
        lines = []
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == 'nameserver':
            try:
                found.append(server(words[1] if ':' not in words[1] else f'[{words[1]}]'))
            except (ValueError, OSError):
                continue
    return found[:SERVER_LIMIT] or [server('127.0.0.1')]


class Servers:
    """The servers of one resolver."""

    def __init__(self, servers: Sequence[str] | None, *, trusted: bool = False) -> None:
        """None takes those of the system and follows their changes.  Raises ValueError."""
        self._trusted = trusted
        self._system = servers is None
        self._servers = [server(text) for text in servers or ()]
        if not self._system and not self._servers:
            raise ValueError('no name servers')
        self._checked = -RECHECK
        self._version: object = None
        self._away: dict[Server, float] = {}

    def ask(self, name: Name, kind: Type, deadline: float) -> Reply | None:
        """The first usable answer before monotonic time `deadline`; None when there is none."""
        waiting = self._in_order()
        tries = len(waiting) * ROUNDS
        for _ in range(ROUNDS):
            for one in list(waiting):
                now = time.monotonic()
                if now >= deadline:
                    return None
                try:
                    message = self._exchange(one, name, kind, now + (deadline - now) / tries)
                except (Silent, OSError):
                    self._away[one] = time.monotonic() + AWAY_TIME
                    tries -= 1
                    continue
                self._away.pop(one, None)
                if message.rcode in _SETTLED:
                    return Reply(message, one.loopback or self._trusted)
                # It answered and cannot help: asking again at once would change nothing.
                waiting.remove(one)
                tries = max(tries - ROUNDS, 1)
        return None

    # -- which

    def _in_order(self) -> list[Server]:
        """All servers, those that kept silent lately at the end."""
        now = time.monotonic()
        if self._system and now - self._checked >= RECHECK:
            self._checked = now
            version = _version(RESOLV_CONF)
            if version != self._version or not self._servers:
                self._version = version
                self._servers = system_servers()
                self._away.clear()
        return sorted(self._servers, key=lambda one: self._away.get(one, 0.0) > now)

    # -- how

    def _exchange(self, one: Server, name: Name, kind: Type, deadline: float) -> Message:
        message = self._question(one, name, kind, deadline, extended=True)
        if message.rcode in _NO_EDNS:
            message = self._question(one, name, kind, deadline, extended=False)
        return message

    def _question(
        self, one: Server, name: Name, kind: Type, deadline: float, *, extended: bool
    ) -> Message:
        ident = secrets.randbits(16)
        octets = dns_message.query(ident, name, kind, extended=extended)
        message = _over_udp(one, octets, ident, (name, kind), deadline)
        if message.truncated:
            message = _over_tcp(one, octets, deadline)
            if message.truncated or not _ours(message, ident, (name, kind)):
                raise Silent
        return message


def _version(path: Path) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _ours(message: Message, ident: int, question: tuple[Name, Type]) -> bool:
    """Whether it answers our question; a server that understood nothing repeats none."""
    if message.ident != ident:
        return False
    if message.truncated:
        return True  # only makes us ask over TCP
    if message.question is None:
        return message.rcode not in _SETTLED
    return message.question == question


def _over_udp(
    one: Server, octets: bytes, ident: int, question: tuple[Name, Type], deadline: float
) -> Message:
    with socket.socket(one.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as datagrams:
        datagrams.connect(one.address)
        datagrams.send(octets)
        for _ in range(STRANGERS):
            _wait(wait_read, datagrams, deadline)
            try:
                message = dns_message.read(datagrams.recv(65536))
            except (BlockingIOError, Malformed):
                continue
            if _ours(message, ident, question):
                return message
    raise Silent


def _over_tcp(one: Server, octets: bytes, deadline: float) -> Message:
    with socket.socket(one.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as stream:
        try:
            stream.connect(one.address)
        except BlockingIOError:
            _wait(wait_write, stream, deadline)
            if error := stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error)) from None
        # A question is smaller than any send buffer.
        stream.send(struct.pack('!H', len(octets)) + octets)
        (length,) = struct.unpack('!H', _exactly(stream, 2, deadline))
        try:
            return dns_message.read(_exactly(stream, length, deadline))
        except Malformed:
            raise Silent from None


def _exactly(stream: socket.socket, count: int, deadline: float) -> bytes:
    received = bytearray()
    while len(received) < count:
        _wait(wait_read, stream, deadline)
        try:
            octets = stream.recv(count - len(received))
        except BlockingIOError:
            continue
        if not octets:
            raise Silent
        received += octets
    return bytes(received)


def _wait(wait: Any, one: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise Silent
    wait(one.fileno(), timeout=left, timeout_exc=Silent())
