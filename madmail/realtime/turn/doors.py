"""The listeners for datagrams: what comes from clients over UDP."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from madmail.realtime.turn.allocation import HEAD, Allocation, Peer
from madmail.realtime.turn.message import Address

if TYPE_CHECKING:
    from madmail.realtime.turn.server import Server

BATCH = 64  # datagrams taken before others have their turn
BUFFER = 4 * 1024 * 1024  # octets, as far as the system lets us


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
