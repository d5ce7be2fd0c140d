"""A few ports that serve all: for hosts whose firewall lets no more through.

Several allocations have the same relayed address then, so what comes in has to be told
apart by more than its port:

    who it comes from    a peer's address belongs to the allocation that sent there first
    ICE's user names     a check names the one it is for; the one it is for has named itself in
                         its own checks (RFC 8445 7.2.2)
    transactions         an answer is for whoever asked
    permissions          where only one allocation of the port permits the peer's host

What can be meant for several is dropped.  WebRTC begins with checks and repeats them, so
both sides are known before there is anything to hear.  Programs that do without ICE, or
want pairs of ports (EVEN-PORT with a reservation), need ports of their own.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from madmail.realtime.turn import message
from madmail.realtime.turn.allocation import BURST, HEAD, Allocation, Peer
from madmail.realtime.turn.message import HEADER, Malformed
from madmail.realtime.turn.ports import BUFFER, NoPort, Ports

if TYPE_CHECKING:
    from madmail.realtime.turn.server import Server

FLOWS_LIMIT = 256  # peers that an allocation keeps for itself
NAMES_LIMIT = 16  # of an allocation
QUESTIONS_LIMIT = 8192  # of a port
PORTS_LIMIT = 64  # in use at a time
_COOKIE = message.COOKIE.to_bytes(4, 'big')
_REQUEST, _ANSWERS = 0x0001, (0x0101, 0x0111)


def checked(view: memoryview) -> tuple[int, bytes] | None:
    """Type and transaction of a STUN message, of which Binding is used between peers."""
    if len(view) < HEADER or view[0] > 3 or view[4:8] != _COOKIE:
        return None
    return view[0] << 8 | view[1], bytes(view[8:20])


def names(view: memoryview) -> tuple[bytes, bytes]:
    """Of a check: the name of the one it is for, and of the one it is from; b'' if none."""
    try:
        name = message.parse(bytes(view)).get(message.USERNAME)
    except Malformed:
        return b'', b''
    theirs, _, ours = (name or b'').partition(b':')
    return theirs, ours


class Share:
    """What an allocation has of a shared port."""

    __slots__ = ('allocation', 'flows', 'names', 'partners', 'port')

    def __init__(self, port: SharedPort, allocation: Allocation) -> None:
        self.port = port
        self.allocation = allocation
        self.flows: set[Peer] = set()
        self.names: set[bytes] = set()
        self.partners: dict[Peer, Allocation] = {}  # by relayed address, of our own

    def send(self, payload: memoryview, peer: Peer) -> None:
        """To a peer on the network."""
        self.observe(payload)
        flows = self.port.flows
        if peer not in flows and len(self.flows) < FLOWS_LIMIT:
            flows[peer] = self.allocation
            self.flows.add(peer)
        self.port.socket.sendto(payload, peer)

    def observe(self, payload: memoryview) -> None:
        """Learn from a check who this is."""
        check = checked(payload)
        if check is None or check[0] != _REQUEST:
            return
        port = self.port
        if len(port.questions) >= QUESTIONS_LIMIT:
            del port.questions[next(iter(port.questions))]
        port.questions[check[1]] = self.allocation
        _, name = names(payload)
        if name and name not in port.names and len(self.names) < NAMES_LIMIT:
            port.names[name] = self.allocation
            self.names.add(name)

    def partner(self, peer: Peer, partner: Allocation) -> None:
        if len(self.partners) < FLOWS_LIMIT:
            self.partners[peer] = partner


class SharedPort:
    """One port and the allocations on it."""

    def __init__(self, server: Server, bound: socket.socket) -> None:
        self._server = server
        self.socket = bound
        self.allocations: set[Allocation] = set()
        self.flows: dict[Peer, Allocation] = {}
        self.names: dict[bytes, Allocation] = {}
        self.questions: dict[bytes, Allocation] = {}
        server.loop.add(bound.fileno(), self._readable)

    def enter(self, allocation: Allocation) -> Share:
        self.allocations.add(allocation)
        return Share(self, allocation)

    def leave(self, share: Share) -> None:
        allocation = share.allocation
        self.allocations.discard(allocation)
        for peer in share.flows:
            self.flows.pop(peer, None)
        for name in share.names:
            self.names.pop(name, None)
        for number in [n for n, asked in self.questions.items() if asked is allocation]:
            del self.questions[number]
        for partner in set(share.partners.values()):
            if partner.owner is not None:
                theirs = partner.owner.partners
                for peer in [peer for peer, one in theirs.items() if one is allocation]:
                    del theirs[peer]

    def _readable(self, events: int) -> None:
        server = self._server
        payload = server.space.payload
        receive = self.socket.recvfrom_into
        try:
            for _ in range(BURST):
                size, peer = receive(payload)
                target = self.flows.get(peer)
                view = payload[:size]
                if target is None or payload[0] < 4:
                    mapped = server.mapped(peer)
                    if mapped is not None:
                        peer = mapped
                    target = self.named(view, None) or target or self.permitted(peer, None)
                if target is None:
                    server.dropped['ambiguous'] += 1
                else:
                    target.from_peer(size, peer)
        except BlockingIOError:
            pass
        except OSError:
            server.dropped['trouble'] += 1

    def named(self, view: memoryview, sender: Allocation | None) -> Allocation | None:
        """Whom a check or its answer is for; not its sender."""
        check = checked(view)
        found = None
        if check is not None and check[0] == _REQUEST:
            found = self.names.get(names(view)[0])
        elif check is not None and check[0] in _ANSWERS:
            found = self.questions.pop(check[1], None)
        return None if found is sender else found

    def permitted(self, peer: Peer, sender: Allocation | None) -> Allocation | None:
        """The only one that wants to hear of this host."""
        found = None
        for allocation in self.allocations:
            if allocation is not sender and (
                peer[0] in allocation.permissions or peer in allocation.channels
            ):
                if found is not None:
                    return None
                found = allocation
        return found

    def close(self) -> None:
        self._server.loop.remove(self.socket.fileno())
        self.socket.close()


class SharedPorts:
    """The shared ports of one process; each is opened when it is first needed."""

    def __init__(self, server: Server, ports: Ports) -> None:
        self._server = server
        self._ports = ports
        self._open: dict[tuple[int, int], SharedPort] = {}

    def choose(self, family: int, account: str, *, even: bool) -> SharedPort:
        """A port with few allocations, and none of this account if possible.  Raises NoPort."""
        limit = min(len(self._ports.range), PORTS_LIMIT)
        found = [
            port
            for (of, number), port in self._open.items()
            if of == family and not (even and number % 2)
        ]
        if len(found) < limit and all(port.allocations for port in found):
            try:
                return self._make(family, even=even)
            except NoPort:
                pass
        if not found:
            raise NoPort

        def crowd(port: SharedPort) -> tuple[bool, int]:
            mine = any(one.account.name == account for one in port.allocations)
            return mine, len(port.allocations)

        return min(found, key=crowd)

    def _make(self, family: int, *, even: bool) -> SharedPort:
        bound = self._ports.open(family, even=even)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            bound.setsockopt(socket.SOL_SOCKET, option, 16 * BUFFER)
        port = SharedPort(self._server, bound)
        self._open[family, bound.getsockname()[1]] = port
        return port

    def inside(self, sender: Allocation, size: int, peer: Peer) -> bool:
        """From one of ours to another; the payload stands in the space.  False: to nobody here."""
        share: Share = sender.owner
        payload = self._server.space.view[HEAD : HEAD + size]
        share.observe(payload)
        target = share.partners.get(peer)
        if target is None:
            port = self._open.get((sender.family, peer[1]))
            if port is None:
                return False
            target = port.named(payload, sender) or port.permitted(peer, sender)
            if target is None:
                self._server.dropped['ambiguous'] += 1
                return True
            share.partner(peer, target)
            target.owner.partner(sender.source, sender)
        target.from_peer(size, sender.source)
        return True

    def close(self) -> None:
        for port in self._open.values():
            port.close()
        self._open.clear()
