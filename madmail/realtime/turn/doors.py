"""The listeners for datagrams: what comes from clients over UDP."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from madmail.realtime.turn.addresses import routed_address
from madmail.realtime.turn.allocation import HEAD, Allocation, Peer
from madmail.realtime.turn.message import Address

if TYPE_CHECKING:
    from madmail.realtime.turn.server import Server

BATCH = 64  # datagrams taken before others have their turn
BUFFER = 4 * 1024 * 1024  # octets, as far as the system lets us
OTHERS_LIMIT = 64  # addresses of this host that have a socket of their own


class Datagrams:
    """A client over UDP: its address at one of our doors.

    Made for each message; one that has an allocation is kept with it.
    """

    __slots__ = ('_peer', '_sendto', 'address', 'allocation', 'door', 'ip')
    stream = False
    closed = False

    def __init__(self, door: Door, peer: Peer) -> None:
        self.door = door
        self.ip: str = peer[0]
        self.address = Address(peer[0].partition('%')[0], peer[1])
        self.allocation: Allocation | None = None
        self._peer = peer
        self._sendto = door.socket.sendto

    def send(self, data: bytes) -> None:
        try:
            self._sendto(data, self._peer)
        except OSError:
            self.door.server.dropped['trouble'] += 1

    def relay(self, view: memoryview) -> None:
        try:
            self._sendto(view, self._peer)
        except OSError:
            self.door.server.dropped['trouble'] += 1

    def keep(self, allocation: Allocation) -> None:
        self.allocation = allocation
        self.door.clients[self._peer] = allocation

    def leave(self) -> None:
        """The allocation is gone."""
        self.allocation = None
        self.door.clients.pop(self._peer, None)


class Door:
    """One listener."""

    def __init__(self, server: Server, listener: socket.socket) -> None:
        self.server = server
        self.socket = listener
        self.clients: dict[Peer, Allocation] = {}
        self._turn = 0
        listener.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            # What the master has asked for as root may be more than we get now.
            if listener.getsockopt(socket.SOL_SOCKET, option) < BUFFER:
                listener.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        server.loop.add(listener.fileno(), self.readable)

    def readable(self, events: int = 0) -> None:
        """Take what has come, ChannelData on the short way; a batch when there is much.

        PERF: asking a socket that is empty costs 3 us, as much as getting a packet, so
        that is done only when there were packets in the turn before as well.
        """
        loop = self.server.loop
        busy = loop.turn - self._turn == 1
        self._turn = loop.turn
        receive = self.socket.recvfrom_into
        space = self.server.space
        framed, buffer = space.framed, space.buffer
        clients = self.clients
        dropped = self.server.dropped
        for _ in range(BATCH if busy else 1):
            try:
                size, peer = receive(framed)
            except BlockingIOError:
                return
            except OSError:
                dropped['trouble'] += 1
                continue
            first = buffer[HEAD - 4]
            if 0x40 <= first < 0x80 and size >= 4:
                allocation = clients.get(peer)
                if allocation is None:
                    dropped['allocation'] += 1
                    continue
                way = allocation.out.get(first << 8 | buffer[HEAD - 3])
                length = buffer[HEAD - 2] << 8 | buffer[HEAD - 1]
                if way is None or length > size - 4:
                    dropped['channel'] += 1
                    continue
                # Written out here as in Allocation.to_peer, which would cost a call a packet.
                credit = allocation.up_credit - length
                if credit < 0:
                    credit = allocation.grant_up(credit)
                    if credit < 0:
                        continue
                allocation.up_credit = credit
                try:
                    way[0](space.view[HEAD : HEAD + length], way[1])
                except OSError:
                    dropped['trouble'] += 1
            elif first < 4 and size >= 20:
                allocation = clients.get(peer)
                client = allocation.client if allocation else Datagrams(self, peer)
                self.server.requests.message(bytes(framed[:size]), client)
            else:
                dropped['malformed'] += 1

    def close(self) -> None:
        self.server.loop.remove(self.socket.fileno())
        self.socket.close()


class Wildcard:
    """A listener for any address, and sockets at the further addresses of this host beside it.

    An answer from a socket for any address leaves from that of the way to the client; who
    asked another one of a host with several would not take it for an answer.
    """

    def __init__(self, server: Server, listener: socket.socket) -> None:
        self._server = server
        self._listener = listener
        self._door = Door(server, listener)
        self._others: dict[str, Door] = {}

    def readdress(self, own: Iterable[str]) -> None:
        """Follow the addresses of this host."""
        family = self._listener.family
        usual = routed_address(family)
        ours = {host for host in own if (':' in host) == (family == socket.AF_INET6)}
        for host in self._others.keys() - ours:
            self._others.pop(host).close()
        for host in sorted(ours - self._others.keys() - {usual}):
            address = ip_address(host)
            if host in ('127.0.0.1', '::1') or address.is_link_local:
                continue
            if len(self._others) >= OTHERS_LIMIT:
                break
            found = self._bind(host)
            if found is not None:
                self._others[host] = Door(self._server, found)

    def _bind(self, host: str) -> socket.socket | None:
        """None where that is not possible, for a port below 1024 for example."""
        listener = self._listener
        try:
            found = socket.socket(listener.family, socket.SOCK_DGRAM)
        except OSError:
            return None
        # As in master.listeners: for this moment, or always where processes share the port.
        shared = listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        try:
            if listener.family == socket.AF_INET6:
                found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for each in (listener, found):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            found.bind((host, listener.getsockname()[1]))
        except OSError:
            found.close()
            return None
        finally:
            for each in (listener, found):
                if not shared and each.fileno() >= 0:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        return found

    def close(self) -> None:
        self._door.close()
        for door in self._others.values():
            door.close()
        self._others.clear()
