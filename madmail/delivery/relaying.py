"""Mail to other relays: the transport behind the courier's queue.

For each message the hops of its domain are tried in order until one gives a
decision.  Which transport and address worked for a host is remembered for half
an hour and tried first.  SMTP connections are kept for the next message as
long as the destination is busy.

A message is signed when it leaves, so a key may rotate while mail waits.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import NamedTuple, Protocol

from madmail import log
from madmail.account.address import ip_literal
from madmail.delivery.dkim import Keys
from madmail.delivery.dns import Resolver, Status
from madmail.delivery.route import Hop, Router
from madmail.delivery.tls_policy import NotKnown, TlsPolicies, contexts
from madmail.delivery.transport_http import HttpClient, NotHere, Unsure
from madmail.smtp.client import Broken, Connection, Phase
from madmail.smtp.reply import Fault, Reply
from madmail.store.interface import Body, OutboxEntry

MEMORY_TIME = 1800.0  # seconds that what worked for a host is tried first
HOSTS_LIMIT = 5000  # hosts of which that is known
ADDRESSES_LIMIT = 6  # addresses of a host that are tried
SMTP_KEEP_TIME = 20.0  # seconds an SMTP connection waits for the next message
SMTP_KEEP_LIMIT = 8  # connections kept to one host
SMTP_KEPT_LIMIT = 500  # connections kept, to all hosts
SMTP_MESSAGES = 100  # over one connection

UNSURE = Reply(451, '4.4.2', 'The other relay did not answer', 'unsure', Fault.PEER)
NOT_ALLOWED = Reply(
    451, '4.7.5', "The domain's own policy forbids this host", 'mta_sts', Fault.PEER
)
NO_TLSA = Reply(451, '4.7.5', "The host's TLSA records are not to be had", 'dane', Fault.PEER)

_log = log.get('relaying')


class Unreachable(Exception):
    """No host of the domain could be talked to; `reply` is the last cause.

    With `met` there was one, and it broke off in the midst: perhaps because of this message.
    """

    def __init__(self, reply: Reply, met: bool = False) -> None:
        super().__init__(reply.text)
        self.reply = reply
        self.met = met


class Watcher(Protocol):
    """Who counts what became of attempts (see tracker)."""

    def succeeded(self, domain: str, transport: str, seconds: float) -> None: ...
    def failed(self, domain: str, transport: str) -> None: ...


class _Idle(NamedTuple):
    connection: Connection
    since: float


class Relaying:
    """Takes every real domain.  `send` raises Unreachable."""

    def __init__(
        self,
        router: Router,
        resolver: Resolver,
        keys: Keys,
        watcher: Watcher,
        *,
        ehlo: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ehlo` tells our name, an IP literal in brackets."""
        self._router = router
        self._resolver = resolver
        self._keys = keys
        self._watcher = watcher
        self._ehlo = ehlo
        self._monotonic = monotonic
        verified, unverified = contexts()
        self._policies = TlsPolicies(resolver, verified, unverified, time.time)
        self._worked: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._addresses: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._http = HttpClient(verified, unverified, self._reached)
        self._smtp: dict[Hop, deque[_Idle]] = {}

    def takes(self, domain: str) -> bool:
        return True

    def send(self, entry: OutboxEntry, body: Body) -> Sequence[Reply]:
        """One reply a recipient.  Blocks its greenlet for as long as peers may take."""
        hops = self._router.hops(entry.domain)
        if isinstance(hops, Reply):
            if hops.code < 500:
                raise Unreachable(hops)
            return [hops] * len(entry.recipients)
        signature = self._keys.sign(body)
        last = UNSURE
        refused: Reply | None = None  # by a host that takes other messages
        met = False
        for hop in self._preferred(hops):
            began = self._monotonic()
            try:
                replies = self._try(hop, entry, body, signature)
            except NotHere as failure:
                self._watcher.failed(entry.domain, hop.transport)
                last = Reply(451, '4.4.1', f'{hop.transport}: {failure}', 'not_here', Fault.PEER)
                if failure.for_message:
                    refused = last
                met = met or failure.status >= 500
                continue
            except Unsure:
                # Another transport now could deliver it twice.
                self._watcher.failed(entry.domain, hop.transport)
                raise Unreachable(UNSURE, met=True) from None
            except Broken as broken:
                self._watcher.failed(entry.domain, hop.transport)
                last = broken.reply
                if broken.phase is Phase.DATA:
                    raise Unreachable(UNSURE, met=True) from None
                met = met or broken.phase is Phase.TRANSACTION
                if last.code >= 500:
                    last = last._replace(code=451)  # a greeting that refuses is not for ever
                continue
            self._remember(self._worked, hop.host, hop.transport)
            self._watcher.succeeded(entry.domain, hop.transport, self._monotonic() - began)
            return replies
        if refused is not None:
            return [refused] * len(entry.recipients)
        raise Unreachable(last, met=met)

    def tidy(self) -> None:
        """End connections that nobody needed for a while; call it now and then."""
        self._http.tidy()
        limit = self._monotonic() - SMTP_KEEP_TIME
        for hop, kept in list(self._smtp.items()):
            while kept and kept[0].since < limit:
                kept.popleft().connection.quit()
            if not kept:
                del self._smtp[hop]

    def close(self) -> None:
        self._http.close()
        for kept in self._smtp.values():
            for one in kept:
                one.connection.close()
        self._smtp.clear()

    # -- inside

    def _try(self, hop: Hop, entry: OutboxEntry, body: Body, signature: bytes) -> Sequence[Reply]:
        if hop.transport != 'smtp':
            return self._http.send(
                hop, self._resolve(hop), entry.sender, entry.recipients, body, signature
            )
        if not self._policies.allowed(hop):
            raise Broken(Phase.CONNECT, 'policy', NOT_ALLOWED)
        connection = self._take(hop)
        if connection is not None:
            try:
                replies = connection.send(entry.sender, entry.recipients, body, signature)
            except Broken as broken:
                connection.close()
                if broken.phase is Phase.DATA:
                    raise
            else:
                self._keep(hop, connection)
                return replies
        connection = self._open(hop)
        try:
            replies = connection.send(entry.sender, entry.recipients, body, signature)
        except BaseException:
            connection.close()
            raise
        self._keep(hop, connection)
        return replies

    def _open(self, hop: Hop) -> Connection:
        try:
            security = self._policies.security(hop)
        except NotKnown:
            raise Broken(Phase.CONNECT, 'dane', NO_TLSA) from None
        broken = Broken(Phase.CONNECT, 'the host has no address')
        for address in self._resolve(hop):
            try:
                connection = Connection.open(
                    address, hop.port, ehlo=self._ehlo(), security=security
                )
            except Broken as failure:
                broken = failure
                if failure.phase is not Phase.CONNECT:
                    break
                continue
            self._reached(hop.host, address)
            return connection
        raise broken

    def _resolve(self, hop: Hop) -> Sequence[str]:
        """IP addresses of the host, the one that worked last first.  Raises NotHere."""
        if hop.literal:
            return (str(ip_literal(hop.host)),)
        if hop.host == 'localhost':  # RFC 6761 6.3: never asked of the DNS
            return ('127.0.0.1', '::1')
        answer = self._resolver.addresses(hop.host)
        if answer.status is not Status.FOUND:
            raise NotHere('the host has no address')
        values = alternating(answer.values)
        since, known = self._addresses.get(hop.host, (0.0, ''))
        if known in values and self._monotonic() - since < MEMORY_TIME:
            return (known, *(one for one in values if one != known))
        return values

    def _reached(self, host: str, address: str) -> None:
        self._remember(self._addresses, host, address)

    def _preferred(self, hops: Sequence[Hop]) -> list[Hop]:
        """The hops, with what worked for a host lately before its other transports."""
        now = self._monotonic()

        def rank(numbered: tuple[int, Hop]) -> tuple[int, int]:
            number, hop = numbered
            first = next(i for i, other in enumerate(hops) if other.host == hop.host)
            since, transport = self._worked.get(hop.host, (0.0, ''))
            known = transport == hop.transport and now - since < MEMORY_TIME
            return first, -1 if known else number

        return [hop for _, hop in sorted(enumerate(hops), key=rank)]

    def _remember(self, memory: OrderedDict[str, tuple[float, str]], host: str, what: str) -> None:
        memory[host] = (self._monotonic(), what)
        memory.move_to_end(host)
        if len(memory) > HOSTS_LIMIT:
            memory.popitem(last=False)

    def _take(self, hop: Hop) -> Connection | None:
        kept = self._smtp.get(hop)
        if not kept:
            return None
        return kept.pop().connection

    def _keep(self, hop: Hop, connection: Connection) -> None:
        if connection.lost:
            connection.close()
            return
        kept = self._smtp.get(hop, ())
        if (
            connection.transactions >= SMTP_MESSAGES
            or len(kept) >= SMTP_KEEP_LIMIT
            or sum(map(len, self._smtp.values())) >= SMTP_KEPT_LIMIT
        ):
            connection.quit()
        else:
            idle = _Idle(connection, self._monotonic())
            self._smtp.setdefault(hop, deque()).append(idle)


def alternating(addresses: Sequence[str]) -> Sequence[str]:
    """IPv6 and IPv4 by turns, so that a family without a way costs one attempt (RFC 8305 4)."""
    six = [one for one in addresses if ':' in one]
    four = [one for one in addresses if ':' not in one]
    ordered = [one for pair in zip_longest(six, four) for one in pair if one is not None]
    return ordered[:ADDRESSES_LIMIT]
