"""What hangs on the loop of a TURN process: doors, allocations, and what they may use."""

from __future__ import annotations

import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from typing import Any, NamedTuple

from madmail.account.rates import Gcra
from madmail.realtime.turn.addresses import Policy, own_addresses
from madmail.realtime.turn.allocation import Allocation, Peer, Space, port_name, sockaddr
from madmail.realtime.turn.connections import Connection, Connections
from madmail.realtime.turn.credentials import Keys, Nonces, expiry
from madmail.realtime.turn.doors import Door, Wildcard
from madmail.realtime.turn.limits import Account, Bucket, Limits, network
from madmail.realtime.turn.loop import Loop
from madmail.realtime.turn.message import IPV6, Address
from madmail.realtime.turn.neighbours import Neighbours
from madmail.realtime.turn.ports import Ports
from madmail.realtime.turn.requests import Requests
from madmail.realtime.turn.shared import SharedPort, SharedPorts
from madmail.realtime.turn.streams import Entrance, Stream

STRANGER_RATE, STRANGER_BURST = 3000, 100  # answers a minute to an IP address without proof
AT_ONCE = 6  # the part of a minute's allocations that may come at once: one sixth
ENDED_LIMIT = 400_000  # user names that count no more
STREAMS_LIMIT = 8192  # TCP and TLS clients
STREAMS_PER_NETWORK = 256
STREAMS_RATE = 1200  # new ones a minute from a network
HANDSHAKES = 4  # steps of TLS a turn of the loop
RESCAN = 60  # seconds between two looks at the addresses of this host


class Configuration(NamedTuple):
    """What the settings say."""

    realm: str
    secrets: tuple[bytes, ...]  # the present one first
    life: int  # seconds, of credentials
    public: dict[int, str]  # by family: the relayed address that clients are told
    bound: dict[int, str]  # by family: the local one
    ports: range
    limits: Limits = Limits()
    allowed: tuple[IPv4Network | IPv6Network, ...] = ()
    alone: bool = True  # no other process has relayed addresses of ours
    shared: bool = False  # a few ports serve all
    own_ports: range | None = None  # where not all are for this process


class Server:
    """Everything in it happens in the thread of its loop."""

    def __init__(
        self, loop: Loop, configuration: Configuration, nonces: Nonces, own: Sequence[str] = ()
    ) -> None:
        self.loop = loop
        self.nonces = nonces
        self.space = Space()
        self.allocations: set[Allocation] = set()
        self.relayed: dict[tuple[str, int], Allocation] = {}
        self.accounts: dict[str, Account] = {}
        self.ended: dict[str, None] = {}  # user names that count no more
        self.neighbours = Neighbours()
        # Told what has changed of what is held here, where there are other processes.
        self.tell: Callable[[dict[str, Any]], None] = lambda held: None
        self.networks: Counter[str] = Counter()  # allocations by IP address or network
        self.ports_held: Counter[str] = Counter()  # allocations by relayed port
        self.streams: set[Stream] = set()
        self.stream_networks: Counter[str] = Counter()
        self.pending: dict[int, Connection] = {}  # by number, until the client has come
        self.waiting: set[Connection | Connections] = set()  # those, and what else the clock ends
        self.dropped: Counter[str] = Counter()
        self.denied: dict[int, int] = {}
        self.made = 0
        self.octets = [0, 0]  # from and to clients
        self.users: Counter[tuple[str, bool]] = Counter()  # by user name, and whether to it
        self._own = frozenset(own) or own_addresses()
        self._rescan = 0
        self._doors: list[Door] = []
        self._wildcards: list[Wildcard] = []
        self._entrances: list[Entrance] = []
        self._due: dict[int, set[Allocation]] = {}  # by second
        self._second = int(loop.now)
        self._strangers = Gcra(STRANGER_RATE, STRANGER_BURST)
        self._allocating = Gcra(0, 1)
        self._entering = Gcra(STREAMS_RATE, STREAMS_PER_NETWORK)
        self._shaking = self._shaken = 0  # a turn of the loop, and handshakes in it
        self.configure(configuration)
        self.requests = Requests(self)
        loop.on_tick.append(self._tick)

    def configure(self, configuration: Configuration) -> None:
        """Take over settings; what there is goes on under those that it was made with."""
        before: Configuration | None = getattr(self, 'configuration', None)
        self.configuration = configuration
        self.limits = configuration.limits
        self._allocating.set(self.limits.per_minute, max(self.limits.per_minute // AT_ONCE, 1))
        self.keys = Keys(configuration.secrets, configuration.realm, configuration.life)
        self.bucket = Bucket(configuration.limits.total_rate, self.loop.now)
        if configuration.alone:
            self.neighbours.forget()
        for account in self.accounts.values():
            self._share(account)
        if (
            before is None
            or before.ports != configuration.ports
            or before.bound != configuration.bound
            or before.own_ports != configuration.own_ports
            or before.shared != configuration.shared
        ):
            ports = Ports(
                configuration.own_ports or configuration.ports, configuration.bound, self.now
            )
            if before is not None:
                for allocation in [one for one in self.allocations if one.owner is not None]:
                    self.release(allocation)
                self.ports.close()
                if self.shared is not None:
                    self.shared.close()
            self.ports: Ports = ports
            self.shared: SharedPorts | None = (
                SharedPorts(self, ports) if configuration.shared else None
            )
        self._judge()

    def _judge(self) -> None:
        configuration = self.configuration
        self.policy = Policy(
            configuration.public.values(), self._own, configuration.allowed, configuration.ports
        )

    def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve on a bound socket, UDP or TCP; with `tls` as TLS."""
        if listener.type == socket.SOCK_DGRAM and listener.getsockname()[0] in ('0.0.0.0', '::'):
            self._wildcards.append(Wildcard(self, listener))
            self._wildcards[-1].readdress(self._own)
        elif listener.type == socket.SOCK_DGRAM:
            self._doors.append(Door(self, listener))
        else:
            self._entrances.append(Entrance(self, listener, tls))

    def now(self) -> float:
        return self.loop.now

    def time(self) -> float:
        return time.time()

    # -- who may what

    def end(self, names: Iterable[str]) -> None:
        """What these user names have is over, and they get nothing more."""
        self.ended.update(dict.fromkeys(names))
        for allocation in [one for one in self.allocations if one.account.name in self.ended]:
            self.release(allocation)
        if len(self.ended) > ENDED_LIMIT:
            now = self.time()
            self.ended = dict.fromkeys(name for name in self.ended if (expiry(name) or 0) >= now)
            for name in list(islice(self.ended, max(len(self.ended) - ENDED_LIMIT, 0))):
                del self.ended[name]

    def answers_stranger(self, ip: str) -> bool:
        """Whether somebody who proved nothing is answered once more."""
        if self._strangers.allow(network(ip), self.loop.now):
            self.dropped['stranger'] += 1
            return False
        return True

    def may_allocate(self, ip: str) -> bool:
        return not self._allocating.allow(network(ip), self.loop.now)

    def admits(self, name: str, place: str) -> bool:
        """Whether the account and the place it comes from may have one allocation more."""
        limits = self.limits
        account = self.accounts.get(name)
        held = (account.allocations if account else 0) + self.neighbours.account(name)
        here = self.networks.get(place, 0) + self.neighbours.network(place)
        return (not limits.per_account or held < limits.per_account) and (
            not limits.per_address or here < limits.per_address
        )

    def full(self) -> bool:
        """Whether there are as many allocations as there may be."""
        limit = self.limits.total
        return bool(limit) and len(self.allocations) + self.neighbours.total() >= limit

    def admits_stream(self, place: str) -> bool:
        return (
            len(self.streams) < STREAMS_LIMIT
            and self.stream_networks.get(place, 0) < STREAMS_PER_NETWORK
            and not self._entering.allow(place, self.loop.now)
        )

    def may_shake(self) -> bool:
        """Whether a step of a TLS handshake may be made in this turn of the loop.

        PERF: one takes up to 1 ms, and when all come at once packets have their turn in between.
        """
        if self._shaking != self.loop.turn:
            self._shaking = self.loop.turn
            self._shaken = 0
        self._shaken += 1
        return self._shaken <= HANDSHAKES

    # -- allocations

    def allocate(
        self,
        client: Any,
        name: str,
        key: bytes,
        transaction: bytes,
        relay: socket.socket,
        family: int,
        stream: bool,
        port: SharedPort | None = None,
    ) -> Allocation | None:
        """A new allocation on a bound socket; None if the system has no room."""
        now = self.loop.now
        account = self.accounts.get(name)
        if account is None:
            account = self.accounts[name] = Account(name, self.limits.account_rate, now)
        relayed = Address(self.configuration.public[family], relay.getsockname()[1])
        allocation = Allocation(self, client, account, key, transaction, relay, relayed, now)
        try:
            if stream:
                allocation.connections = Connections(self, allocation)
                self.loop.add(relay.fileno(), allocation.connections.acceptable)
            elif port is not None:
                allocation.owner = port.enter(allocation)
                allocation.send = allocation.owner.send
            else:
                self.loop.add(relay.fileno(), allocation.readable)
        except OSError:
            relay.close()
            return None
        account.allocations += 1
        allocation.network = network(client.ip)
        self.networks[allocation.network] += 1
        self.allocations.add(allocation)
        if not stream and port is None:
            self.relayed[relayed] = allocation
        self.made += 1
        client.keep(allocation)
        self.ports_held[allocation.port] += 1
        self._changed(allocation)
        return allocation

    def release(self, allocation: Allocation) -> None:
        """The end of an allocation, and of all that it has."""
        if allocation not in self.allocations:
            return
        self.allocations.discard(allocation)
        self._count(allocation)
        allocation.client.leave()
        if allocation.connections is not None:
            allocation.connections.close()
        elif self.relayed.get(allocation.relayed) is allocation:
            del self.relayed[allocation.relayed]
        if allocation.owner is not None:
            allocation.owner.port.leave(allocation.owner)
        else:
            self.loop.remove(allocation.relay.fileno())
            self.ports.rest(allocation.relay)
        account = allocation.account
        account.allocations -= 1
        if not account.allocations:
            self.accounts.pop(account.name, None)
        self.networks[allocation.network] -= 1
        if not self.networks[allocation.network]:
            del self.networks[allocation.network]
        self.ports_held[allocation.port] -= 1
        if not self.ports_held[allocation.port]:
            del self.ports_held[allocation.port]
        self._changed(allocation)

    def _changed(self, allocation: Allocation) -> None:
        account, place, port = allocation.account, allocation.network, allocation.port
        self._share(account)
        if not self.configuration.alone:
            self.tell(
                {
                    'accounts': {account.name: account.allocations},
                    'networks': {place: self.networks.get(place, 0)},
                    'ports': {port: self.ports_held.get(port, 0)},
                    'total': len(self.allocations),
                    'whole': False,
                }
            )

    def _share(self, account: Account) -> None:
        """Of an account's rate here is the part that its allocations here are of all it has."""
        rate = self.limits.account_rate
        if rate and account.allocations:
            all_held = account.allocations + self.neighbours.account(account.name)
            rate = max(rate * account.allocations // all_held, 1)
        account.bucket.change(rate, self.loop.now)

    def held(self) -> dict[str, Any]:
        """All that is held here, for another process."""
        return {
            'accounts': {name: one.allocations for name, one in self.accounts.items()},
            'networks': dict(self.networks),
            'ports': dict(self.ports_held),
            'total': len(self.allocations),
            'whole': True,
        }

    def learn(self, told: Mapping[str, Any]) -> None:
        """What another process holds."""
        self.neighbours.learn(told)
        for account in (
            list(self.accounts.values())
            if told['whole']
            else (self.accounts[name] for name in told['accounts'] if name in self.accounts)
        ):
            self._share(account)

    def look_at(self, allocation: Allocation, until: float) -> None:
        """Something of it ends then."""
        if until < allocation.due:
            allocation.due = until
            self._due.setdefault(int(until) + 1, set()).add(allocation)

    def inside(self, sender: Allocation, size: int, peer: Peer) -> None:
        """From one allocation to another; the payload stands in the space.

        PERF: no system call, and no way through the network.
        """
        if sender.owner is not None and self.shared is not None:
            if not self.shared.inside(sender, size, peer) and not self.configuration.alone:
                self._across(sender, size, peer)
            return
        target = self.relayed.get(peer[:2])
        if target is not None:
            target.from_peer(size, sender.source)
        elif self.configuration.alone:
            self.dropped['allocation'] += 1
        else:
            self._across(sender, size, peer)

    def relays_streams(self, peer: Address) -> bool:
        """Whether a port of a relayed address of ours is one to which peers connect."""
        port = port_name(True, peer)
        return port in self.ports_held or self.neighbours.has(port)

    def _across(self, sender: Allocation, size: int, peer: Peer) -> None:
        """To another process of ours, over the local address of its socket.

        But to nothing else that has a port of the range on this host.
        """
        if not self.neighbours.has(port_name(False, Address(peer[0], peer[1]))):
            self.dropped['allocation'] += 1
            return
        bound = self.configuration.bound[sender.family]
        if bound == '0.0.0.0':
            bound = '127.0.0.1'
        elif bound == '::':
            bound = '::1'
        payload = self.space.payload[:size]
        try:
            sender.send(payload, sockaddr(Address(bound, peer[1])))
        except OSError:
            self.dropped['trouble'] += 1

    def mapped(self, peer: Peer) -> Peer | None:
        """The relayed address behind a local one from which another process of ours sends."""
        configuration = self.configuration
        family = IPV6 if len(peer) == 4 else 1
        bound = configuration.bound.get(family)
        if (
            configuration.alone
            or peer[0] not in ('127.0.0.1', '::1')
            or bound not in ('0.0.0.0', '::')
            or peer[1] not in configuration.ports
        ):
            return None
        return sockaddr(Address(configuration.public[family], peer[1]))

    # -- the clock

    def _tick(self, now: float) -> None:
        second = int(now)
        while self._second < second:
            self._second += 1
            for allocation in self._due.pop(self._second, ()):
                self._expire(allocation, now)
        self.ports.expire()
        for stream in list(self.streams):
            stream.tick(now)
        for entrance in self._entrances:
            entrance.tick(now)
        for waiting in list(self.waiting):
            waiting.tick(now)
        self._rescan += 1
        if self._rescan >= RESCAN:
            self._rescan = 0
            found = own_addresses()
            if found and found != self._own:
                self._own = found
                self._judge()
                for wildcard in self._wildcards:
                    wildcard.readdress(found)

    def _expire(self, allocation: Allocation, now: float) -> None:
        if allocation not in self.allocations:
            return
        if allocation.expires <= now:
            self.release(allocation)
            return
        allocation.due = float('inf')
        self.look_at(allocation, allocation.expire(now))

    def left(self, stream: Stream) -> None:
        """A TCP or TLS client is gone."""
        self.streams.discard(stream)
        self.stream_networks[stream.network] -= 1
        if self.stream_networks[stream.network] <= 0:
            del self.stream_networks[stream.network]

    def entered(self, stream: Stream) -> None:
        self.streams.add(stream)
        self.stream_networks[stream.network] += 1

    # -- figures

    def _count(self, allocation: Allocation) -> None:
        up, down = allocation.grown()
        self.octets[0] += up
        self.octets[1] += down
        name = allocation.account.name
        if up:
            self.users[name, False] += up
        if down:
            self.users[name, True] += down

    def weigh(self) -> dict[tuple[str, bool], int]:
        """Octets by user name, and whether to it, since this was asked last."""
        for allocation in self.allocations:
            self._count(allocation)
        found = dict(self.users)
        self.users.clear()
        return found

    def statistics(self) -> dict[str, Any]:
        for allocation in self.allocations:
            self._count(allocation)
        return {
            'relays': len(self.allocations),
            'allocations': self.made,
            'streams': len(self.streams),
            'denied': {str(code): count for code, count in self.denied.items()},
            'dropped': dict(self.dropped),
            'octets': {'turn': {'received': self.octets[0], 'sent': self.octets[1]}},
        }

    def close(self) -> None:
        """End everything."""
        for allocation in list(self.allocations):
            self.release(allocation)
        for stream in list(self.streams):
            stream.close()
        for door in self._doors:
            door.close()
        for wildcard in self._wildcards:
            wildcard.close()
        for entrance in self._entrances:
            entrance.close()
        if self.shared is not None:
            self.shared.close()
        self.ports.close()
