"""Names: mail exchangers, addresses, texts and certificates of other relays.

One `Resolver` a process asks recursive servers (see `dns_servers`) and keeps
what they said for as long as they said, within bounds.  It blocks the greenlet
that asks and nothing else; who asks for what somebody else is waiting for gets
the same answer.

Four outcomes are told apart, because they mean different things for mail: the
records, no such name, a name without such records, and trouble (no server
answered, or all of them could not).  Only the last one is worth another try.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeVar

import gevent

from madmail import log
from madmail.account.address import ip_literal
from madmail.delivery import dns_message
from madmail.delivery.dns_message import Name, Rcode, Rdata, Type
from madmail.delivery.dns_servers import Servers
from madmail.settings import Settings

TIMEOUT = 5.0  # seconds for one look-up, whatever it takes
CACHE_LIMIT = 4096  # answers kept
CACHE_OCTETS = 4 * 1024 * 1024  # of their values, about
TTL_LIMIT = 3600  # seconds an answer is kept at most
NEGATIVE_TTL_LIMIT = 300  # seconds that there was nothing is remembered at most
FAILURE_TTL = 5  # seconds until a name that could not be looked up is asked for again (RFC 9520)
CHAIN_LIMIT = 8  # aliases followed
UNDER_WAY = 500  # look-ups at a time

Value = TypeVar('Value')
_log = log.get('dns')


class Status(Enum):
    FOUND = 'found'
    NO_NAME = 'no such name'
    NO_DATA = 'no such records'
    FAILED = 'failed'  # no server answered, or none could: worth another try


class Answer(NamedTuple, Generic[Value]):
    """What a look-up gave; `values` is empty unless FOUND."""

    status: Status
    values: tuple[Value, ...] = ()
    ttl: int = 0  # seconds for which it may still be used
    secure: bool = False  # proved by DNSSEC, and by somebody we trust


class Tlsa(NamedTuple):
    """RFC 6698 2.1."""

    usage: int
    selector: int
    matching: int
    data: bytes


class _Kept(NamedTuple):
    expires: float  # monotonic
    octets: int
    answer: Answer[Any]


_FAILED: Answer[Any] = Answer(Status.FAILED)
_Key = tuple[str, Type, bool]  # name, type, in zone file form


class Resolver:
    """Looks names up.  Use it from one thread: it belongs to its gevent loop."""

    def __init__(
        self,
        servers: Sequence[str] | None,
        *,
        timeout: float = TIMEOUT,
        trusted: bool = False,
    ) -> None:
        """`servers` are host:port, None for those of the system.  Raises ValueError.

        Answers count as secure only from servers on the loopback interface,
        or from all when `trusted`: anybody on the way could set that bit.
        """
        self._servers = Servers(servers, trusted=trusted)
        self._timeout = timeout
        self._cache: OrderedDict[_Key, _Kept] = OrderedDict()
        self._octets = 0
        self._running: dict[_Key, gevent.Greenlet] = {}

    @classmethod
    def configured(cls, settings: Settings) -> Resolver:
        """One for the `dns` settings."""
        servers = [str(address) for address in settings['dns.servers']]
        return cls(servers or None, trusted=settings['dns.trusted'])

    # -- what can be asked

    def mx(self, domain: str) -> Answer[tuple[int, str]]:
        """(preference, host), best first; a null MX (RFC 7505) is the one value (0, '')."""
        answer = self._ask(domain, Type.MX)
        return answer._replace(values=tuple(sorted(answer.values)))

    def addresses(self, host: str) -> Answer[str]:
        """IPv6 and IPv4 addresses as text."""
        # Together: many hosts have no IPv6, and nobody waits for that.
        other = gevent.spawn(self._ask, host, Type.AAAA)
        four: Answer[str] = self._ask(host, Type.A)
        six: Answer[str] = other.get()
        found = [one for one in (six, four) if one.status is Status.FOUND]
        if not found:
            failed = [one for one in (six, four) if one.status is Status.FAILED]
            return failed[0] if failed else four
        return Answer(
            Status.FOUND,
            tuple(value for one in found for value in one.values),
            min(one.ttl for one in found),
            all(one.secure for one in found),
        )

    def reach(self, host: str) -> Sequence[str]:
        """Where to connect for a host of a URL: its addresses, none if they are not known."""
        literal = ip_literal(host)
        if literal is not None:
            return (str(literal),)
        if host == 'localhost':  # RFC 6761 6.3: never asked of the DNS
            return ('127.0.0.1', '::1')
        return self.addresses(host).values

    def txt(self, name: str) -> Answer[bytes]:
        """One value a record, its strings joined."""
        return self._ask(name, Type.TXT)

    def tlsa(self, name: str) -> Answer[Tlsa]:
        return self._ask(name, Type.TLSA)

    def records(self, name: str, kind: str) -> Answer[str]:
        """Records of any type as they stand in a zone file, for people.

        Raises ValueError for a type that is none.
        """
        return self._ask(name, Type.make(kind), as_text=True)

    # -- inside

    def _ask(self, name: str, kind: Type, *, as_text: bool = False) -> Answer[Any]:
        key = (name.removesuffix('.').lower(), kind, as_text)
        answer = self._remembered(key)
        if answer is not None:
            return answer
        running = self._running.get(key)
        if running is None:
            if len(self._running) >= UNDER_WAY:
                _log.warning('too many look-ups')
                return _FAILED
            # In a greenlet of its own: one who gives up must not take others with it.
            running = self._running[key] = gevent.spawn(self._settle, key)
        found: Answer[Any] = running.get()
        return found

    def _settle(self, key: _Key) -> Answer[Any]:
        try:
            answer = self._find(*key)
        except Exception as error:
            _log.exception('look-up failed', error)
            answer = _FAILED
        finally:
            self._running.pop(key, None)
        ttl = FAILURE_TTL if answer.status is Status.FAILED else answer.ttl
        if ttl > 0:
            self._remember(key, answer, ttl)
        return answer

    def _find(self, text: str, kind: Type, as_text: bool) -> Answer[Any]:
        name = dns_message.name_of(text)
        if name is None:
            return Answer(Status.NO_NAME)
        deadline = time.monotonic() + self._timeout
        ttl, secure = TTL_LIMIT, True
        seen: set[Name] = set()
        while True:
            reply = self._servers.ask(name, kind, deadline)
            if reply is None:
                return _FAILED
            message = reply.message
            secure = secure and message.authentic and reply.trusted
            # RFC 1034 3.6.2: the answer has the whole chain, or as much as the server knew.
            start = name
            while kind != Type.CNAME and (name, Type.CNAME) in message.answer:
                alias = message.answer[name, Type.CNAME]
                seen.add(name)
                name, ttl = alias[0].target, min(ttl, alias.ttl)
                if name in seen or len(seen) > CHAIN_LIMIT:
                    return _FAILED
            found = message.answer.get((name, kind))
            if found is not None:
                reader = Rdata.to_text if as_text else _READERS[kind]
                values = tuple(reader(data) for data in found)
                return Answer(Status.FOUND, values, min(ttl, found.ttl), secure)
            if message.rcode == Rcode.NXDOMAIN or name == start:
                break
            if message.negative_ttl is not None:
                break
        # RFC 2308 5: without SOA nothing says how long this holds.
        ttl = min(ttl, message.negative_ttl or 0, NEGATIVE_TTL_LIMIT)
        status = Status.NO_NAME if message.rcode == Rcode.NXDOMAIN else Status.NO_DATA
        return Answer(status, (), ttl, secure)

    # -- cache

    def _remembered(self, key: _Key) -> Answer[Any] | None:
        kept = self._cache.get(key)
        if kept is None:
            return None
        left = kept.expires - time.monotonic()
        if left <= 0:
            self._forget(key)
            return None
        self._cache.move_to_end(key)
        return kept.answer._replace(ttl=int(left))

    def _remember(self, key: _Key, answer: Answer[Any], ttl: int) -> None:
        if key in self._cache:
            self._forget(key)
        octets = 300 + sum(len(repr(value)) + 60 for value in answer.values)
        if octets > CACHE_OCTETS // 16:
            return
        self._cache[key] = _Kept(time.monotonic() + ttl, octets, answer)
        self._octets += octets
        while len(self._cache) > CACHE_LIMIT or self._octets > CACHE_OCTETS:
            self._forget(next(iter(self._cache)))

    def _forget(self, key: _Key) -> None:
        self._octets -= self._cache.pop(key).octets


def host(name: Name) -> str:
    """Lower case, without the final dot; '' for the root."""
    return name.to_text(omit_final_dot=True).lower() if len(name) > 1 else ''


_READERS: dict[Type, Callable[[Any], Any]] = {
    Type.A: lambda data: data.address,
    Type.AAAA: lambda data: data.address,
    Type.MX: lambda data: (data.preference, host(data.exchange)),
    Type.TXT: lambda data: b''.join(data.strings),
    Type.TLSA: lambda data: Tlsa(data.usage, data.selector, data.mtype, data.cert),
}
