"""An allocation: a relayed address, who has it, and the way of a packet through it.

All packets of a process pass through one `Space`, in which the payload always stands at
`HEAD`; what is sent is a view of it, with the header of the other side written in front.

    HEAD-4    header of ChannelData
    HEAD-36   header of a Data indication from an IPv4 peer, HEAD-48 from an IPv6 one

Whether a permission or channel lasts is looked at by the clock, once a second; that it is
in its table means that it does.

PERF: with 160 octets of payload a packet costs 6 us through sockets, of which the logic
here is 0.7; the rest is the kernel's. See docs/performance.md.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from madmail.realtime.turn import message
from madmail.realtime.turn.limits import GRANT, Account, Bucket, take
from madmail.realtime.turn.message import Address

if TYPE_CHECKING:
    from madmail.realtime.turn.connections import Connections
    from madmail.realtime.turn.server import Server

HEAD = 64
LARGEST = 65535  # octets of a datagram
INDICATION_LIMIT = 65504  # octets of payload that a Data indication has room for
PERMISSION_LIFE = 300.0  # seconds (RFC 8656 9)
CHANNEL_LIFE = 600.0  # seconds (RFC 8656 12)
CHANNEL_REST = 300.0  # seconds a channel that ended stays with its peer
BURST = 32  # datagrams taken from a busy relay socket before the next has its turn

IP_MTU_DISCOVER, IPV6_DONTFRAG = 10, 62  # as Linux numbers them

_WORD = struct.Struct('>I')
_put_word = _WORD.pack_into
_INDICATION = struct.Struct('>HHI12s')

# A socket's address of a peer, as recvfrom tells it: (host, port), with two more for IPv6.
Peer = tuple[Any, ...]


class Space:
    """Where packets stand while they pass."""

    def __init__(self) -> None:
        self.buffer = bytearray(HEAD + LARGEST + 1 + 8)
        self.view = memoryview(self.buffer)
        self.payload = self.view[HEAD:]
        self.framed = self.view[HEAD - 4 :]


class Client(Protocol):
    """Who a message came from and where answers go."""

    ip: str
    address: Address
    stream: bool  # TCP or TLS
    closed: bool
    allocation: Allocation | None

    def send(self, data: bytes) -> None:
        """A whole message; dropped when the client does not read."""

    def relay(self, view: memoryview) -> None:
        """A packet of a peer, framed; dropped likewise."""

    def keep(self, allocation: Allocation) -> None:
        """It has one now."""

    def leave(self) -> None:
        """It has none any more."""


def sockaddr(address: Address) -> Peer:
    """As the sockets of its family tell it."""
    if ':' in address.host:
        return (address.host, address.port, 0, 0)
    return (address.host, address.port)


def port_name(stream: bool, address: Address) -> str:
    """Of a relayed address of ours."""
    return f'{"tcp" if stream else "udp"}{address.family} {address.port}'


class Allocation:
    """Of one client.  `relay` is the socket of the relayed address `relayed`."""

    __slots__ = (
        'account',
        'bound',
        'burst',
        'channels',
        'client',
        'connections',
        'counted',
        'down_bucket',
        'down_credit',
        'down_granted',
        'due',
        'expires',
        'family',
        'key',
        'limit',
        'network',
        'out',
        'owner',
        'permissions',
        'receive',
        'relay',
        'relayed',
        'reservation',
        'send',
        'server',
        'source',
        'space',
        'transaction',
        'turn',
        'up_bucket',
        'up_credit',
        'up_granted',
    )

    def __init__(
        self,
        server: Server,
        client: Client,
        account: Account,
        key: bytes,
        transaction: bytes,
        relay: socket.socket,
        relayed: Address,
        now: float,
    ) -> None:
        self.server = server
        self.client = client
        self.account = account
        self.key = key
        self.transaction = transaction
        self.relay = relay
        self.relayed = relayed
        self.family = relayed.family
        self.source = sockaddr(relayed)
        self.network = ''
        self.owner: Any = None  # of the relay socket, where several share it
        self.reservation = b''
        self.expires = now
        self.due = float('inf')  # when the clock looks next
        self.permissions: dict[str, float] = {}
        self.bound: dict[int, tuple[Peer, float]] = {}  # also those that rest
        self.out: dict[int, tuple[Callable[[memoryview, Peer], Any], Peer]] = {}
        self.channels: dict[Peer, int] = {}  # peer → channel << 16
        self.connections: Connections | None = None
        self.space = server.space
        self.send: Callable[[memoryview, Peer], Any] = relay.sendto
        self.receive = relay.recvfrom_into
        self.limit = LARGEST
        self.burst = 1
        self.turn = 0
        rate = server.limits.rate
        self.up_bucket = Bucket(rate, now)
        self.down_bucket = Bucket(rate, now)
        self.up_credit = self.down_credit = 0
        self.up_granted = self.down_granted = 0
        self.counted = (0, 0)

    @property
    def port(self) -> str:
        """Its relayed port, as processes tell each other."""
        return port_name(self.connections is not None, self.relayed)

    # -- packets

    def readable(self, events: int = 0) -> None:
        """Take what the relay socket has.

        PERF: one datagram a turn, since asking a socket that is empty costs as much as
        getting one; more when it had some in the turn before as well.
        """
        loop = self.server.loop
        if loop.turn - self.turn == 1:
            self.burst = min(self.burst * 2, BURST)
        else:
            self.burst = 1
        self.turn = loop.turn
        payload = self.space.payload
        try:
            for _ in range(self.burst):
                size, peer = self.receive(payload)
                self.from_peer(size, peer)
        except BlockingIOError:
            self.burst = 1
        except OSError:
            self.server.dropped['trouble'] += 1

    def from_peer(self, size: int, peer: Peer) -> None:
        """A payload of `size` octets from `peer` stands in the space."""
        head = self.channels.get(peer)
        if head is None:
            self._indicate(size, peer)
            return
        credit = self.down_credit - size
        if credit < 0:
            credit = self._grant_down(credit)
            if credit < 0:
                return
        self.down_credit = credit
        space = self.space
        _put_word(space.buffer, HEAD - 4, head | size)
        self.client.relay(space.view[HEAD - 4 : HEAD + size])

    def to_peer(self, size: int, send: Callable[[memoryview, Peer], Any], peer: Peer) -> None:
        """A payload of `size` octets from the client stands in the space."""
        credit = self.up_credit - size
        if credit < 0:
            credit = self.grant_up(credit)
            if credit < 0:
                return
        self.up_credit = credit
        try:
            send(self.space.view[HEAD : HEAD + size], peer)
        except OSError:
            self.server.dropped['trouble'] += 1

    def from_client(self, data: bytes, peer: Address, *, whole: bool = False) -> None:
        """The payload of a Send indication; `whole` in one piece or not at all."""
        at = sockaddr(peer)
        if peer.host not in self.permissions and at not in self.channels:
            self.server.dropped['permission'] += 1
            return
        if not self.server.policy.reaches(peer.host, peer.port):
            self.server.dropped['permission'] += 1
            return
        self.space.payload[: len(data)] = data
        if whole:
            self._fragment(False)
        try:
            self.to_peer(len(data), self.way(at), at)
        finally:
            if whole:
                self._fragment(True)

    def _fragment(self, allowed: bool) -> None:
        """RFC 8656 14.1: the DF bit of what is sent next."""
        if self.family == message.IPV6:
            self.relay.setsockopt(socket.IPPROTO_IPV6, IPV6_DONTFRAG, int(not allowed))
        else:
            self.relay.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0 if allowed else 2)

    def way(self, peer: Peer) -> Callable[[memoryview, Peer], Any]:
        """How packets get to a peer: not over the network if it is one of our own."""
        return self._inside if peer[0] in self.server.policy.relays else self.send

    def _inside(self, payload: memoryview, peer: Peer) -> None:
        """To a client of our own; the payload stands in the space."""
        self.server.inside(self, len(payload), peer)

    def _indicate(self, size: int, peer: Peer) -> None:
        """As a Data indication (RFC 8656 11.4), for there is no channel."""
        host = peer[0]
        if size > INDICATION_LIMIT:
            self.server.dropped['trouble'] += 1
            return
        if host not in self.permissions:
            mapped = self.server.mapped(peer)
            if mapped is None:
                self.server.dropped['permission'] += 1
            elif mapped in self.channels or mapped[0] in self.permissions:
                self.from_peer(size, mapped)
            return
        credit = self.down_credit - size
        if credit < 0:
            credit = self._grant_down(credit)
            if credit < 0:
                return
        self.down_credit = credit
        transaction = os.urandom(12)
        address = message.xor_address(Address(host, peer[1]), transaction)
        padding = -size & 3
        begin = HEAD - 28 - len(address)
        buffer = self.space.buffer
        length = 8 + len(address) + size + padding
        _INDICATION.pack_into(buffer, begin, 0x0017, length, message.COOKIE, transaction)
        _put_word(buffer, begin + 20, message.XOR_PEER_ADDRESS << 16 | len(address))
        buffer[begin + 24 : begin + 24 + len(address)] = address
        _put_word(buffer, HEAD - 4, message.DATA << 16 | size)
        buffer[HEAD + size : HEAD + size + padding] = bytes(padding)
        self.client.relay(self.space.view[begin : HEAD + size + padding])

    def _grant_down(self, credit: int) -> int:
        """More to use for packets to the client; negative, and dropped, if there is none."""
        server = self.server
        granted = take(
            server.now(),
            max(GRANT, -credit),
            (self.down_bucket, self.account.bucket, server.bucket),
        )
        self.down_granted += granted
        if credit + granted < 0:
            self.down_credit += granted
            server.dropped['rate'] += 1
        return credit + granted

    def grant_up(self, credit: int) -> int:
        server = self.server
        granted = take(
            server.now(),
            max(GRANT, -credit),
            (self.up_bucket, self.account.bucket, server.bucket),
        )
        self.up_granted += granted
        if credit + granted < 0:
            self.up_credit += granted
            server.dropped['rate'] += 1
        return credit + granted

    def grown(self) -> tuple[int, int]:
        """Octets from and to the client since it was asked last."""
        up = self.up_granted - self.up_credit
        down = self.down_granted - self.down_credit
        before_up, before_down = self.counted
        self.counted = (up, down)
        return up - before_up, down - before_down

    # -- permissions and channels

    def permit(self, hosts: list[str], now: float) -> bool:
        """For 300 seconds from now (RFC 8656 9); False, and nothing changes, if too many."""
        fresh = {host for host in hosts if host not in self.permissions}
        if len(self.permissions) + len(fresh) > self.server.limits.permissions:
            return False
        until = now + PERMISSION_LIFE
        for host in hosts:
            self.permissions[host] = until
        self.server.look_at(self, until)
        return True

    def bind(self, number: int, peer: Peer, now: float) -> str:
        """Channel `number` for `peer`, or again for it (RFC 8656 12): '', or why not."""
        held = self.bound.get(number)
        if held is None:
            if any(other == peer for other, _ in self.bound.values()):
                return 'taken'
            if len(self.bound) >= self.server.limits.channels:
                return 'full'
        elif held[0] != peer:
            return 'taken'
        if not self.permit([peer[0]], now):
            return 'full'
        until = now + CHANNEL_LIFE
        self.bound[number] = (peer, until)
        self.out[number] = (self.way(peer), peer)
        self.channels[peer] = number << 16
        self.server.look_at(self, until)
        return ''

    def expire(self, now: float) -> float:
        """Forget what has ended; when to look next."""
        due = self.expires
        for host, until in list(self.permissions.items()):
            if until <= now:
                del self.permissions[host]
            else:
                due = min(due, until)
        for number, (peer, until) in list(self.bound.items()):
            if until <= now:
                self.out.pop(number, None)
                self.channels.pop(peer, None)
                until += CHANNEL_REST
                if until <= now:
                    del self.bound[number]
                    continue
            due = min(due, until)
        return due
