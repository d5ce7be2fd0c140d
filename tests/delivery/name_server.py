"""A small authoritative name server on the loopback interface, in a thread of its own.

    with NameServer() as names:
        names.add('relay.example', 'MX', '10 mx.relay.example.')
        names.add('mx.relay.example', 'A', '127.0.0.1')
        resolver = Resolver([names.address])

Records stand as in a zone file; `add` replaces nothing, `put` does.  A name
that has no records and no names below it does not exist (NXDOMAIN with SOA);
aliases are followed within the zone.  For trouble, by name (and type):

    names.fail('dead.example')                      SERVFAIL; any rcode by `rcode=`
    names.silent('lost.example', times=1)           no answer for the first one (or all)
    names.delay('slow.example', 0.5)                seconds before the answer
    names.truncate('big.example')                   TC over UDP, so the asker must use TCP
    names.raw('odd.example', function)              function(query octets, tcp) → octets to send

`names.authentic` sets AD on all answers; `names.asked` has what was asked, as
(name, type, 'udp' or 'tcp'), in order.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

TTL = 300
ALIASES = 20
Raw = Callable[[bytes, bool], list[bytes]]


class NameServer:
    def __init__(self, host: str = '127.0.0.1') -> None:
        self.authentic = False
        self.knows_edns = True
        self.negative_soa = True  # a negative answer tells how long it holds
        self.partial_chains = False  # an answer has one alias and not what it leads to
        self.listens_on_tcp = True
        self.asked: list[tuple[str, str, str]] = []
        self.queries: list[tuple[int, bytes]] = []  # port of the asker, octets
        self._records: dict[tuple[dns.name.Name, int], dns.rrset.RRset] = {}
        self._rcodes: dict[dns.name.Name, dns.rcode.Rcode] = {}
        self._silent: dict[dns.name.Name, float] = {}
        self._delays: dict[dns.name.Name, float] = {}
        self._truncated: set[dns.name.Name] = set()
        self._raw: dict[dns.name.Name, Raw] = {}
        self._datagrams, self._stream = _bound_pair(host)
        self.host, self.port = self._datagrams.getsockname()[:2]
        self._open = True
        self._threads = [
            threading.Thread(target=target, daemon=True)
            for target in (self._serve_datagrams, self._serve_streams)
        ]

    @property
    def address(self) -> str:
        return f'{self.host}:{self.port}'

    # -- what it knows

    def add(self, name: str, kind: str, *values: str, ttl: int = TTL) -> None:
        """Add records in zone file form; TXT may be given unquoted."""
        owner, rdtype = dns.name.from_text(name), dns.rdatatype.from_text(kind)
        if kind == 'TXT':
            values = tuple(v if v.startswith('"') else _quoted(v) for v in values)
        fresh = dns.rrset.from_text_list(owner, ttl, 'IN', rdtype, list(values))
        known = self._records.get((owner, rdtype))
        self._records[owner, rdtype] = fresh if known is None else known.union(fresh)

    def put(self, name: str, kind: str, *values: str, ttl: int = TTL) -> None:
        """Make these the records of this name and type; none at all removes them."""
        key = dns.name.from_text(name), dns.rdatatype.from_text(kind)
        self._records.pop(key, None)
        if values:
            self.add(name, kind, *values, ttl=ttl)

    def fail(self, name: str, rcode: str = 'SERVFAIL') -> None:
        self._rcodes[dns.name.from_text(name)] = dns.rcode.from_text(rcode)

    def heal(self, name: str) -> None:
        """Forget all trouble with a name."""
        owner = dns.name.from_text(name)
        for trouble in (self._rcodes, self._silent, self._delays, self._raw):
            trouble.pop(owner, None)  # type: ignore[attr-defined]
        self._truncated.discard(owner)

    def silent(self, name: str, times: float = float('inf')) -> None:
        self._silent[dns.name.from_text(name)] = times

    def delay(self, name: str, seconds: float) -> None:
        self._delays[dns.name.from_text(name)] = seconds

    def truncate(self, name: str) -> None:
        self._truncated.add(dns.name.from_text(name))

    def raw(self, name: str, answer: Raw) -> None:
        self._raw[dns.name.from_text(name)] = answer

    def count(self, name: str, kind: str = '') -> int:
        """How often a name was asked for."""
        name = name.lower()
        return sum(asked == name and kind in ('', type_) for asked, type_, _ in self.asked)

    # -- life

    def __enter__(self) -> NameServer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        with socket.socket(self._datagrams.family, socket.SOCK_DGRAM) as knock:
            knock.sendto(b'', self._datagrams.getsockname())
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._datagrams.close()
        self._stream.close()

    # -- service

    def _serve_datagrams(self) -> None:
        while True:
            octets, peer = self._datagrams.recvfrom(65536)
            if not self._open:
                return
            self.queries.append((peer[1], octets))
            threading.Thread(
                target=self._answer,
                args=(octets, False, lambda a, peer=peer: self._datagrams.sendto(a, peer)),
                daemon=True,
            ).start()

    def _serve_streams(self) -> None:
        while self._open:
            try:
                stream, _ = self._stream.accept()
            except OSError:
                return
            if not self.listens_on_tcp:
                stream.close()
                continue
            threading.Thread(target=self._serve_stream, args=(stream,), daemon=True).start()

    def _serve_stream(self, stream: socket.socket) -> None:
        with stream, contextlib.suppress(OSError, struct.error):
            stream.settimeout(10)
            with stream.makefile('rb') as incoming:
                (length,) = struct.unpack('!H', incoming.read(2))
                octets = incoming.read(length)
            self._answer(octets, True, lambda a: stream.sendall(struct.pack('!H', len(a)) + a))

    def _answer(self, octets: bytes, tcp: bool, send: Callable[[bytes], Any]) -> None:
        query = dns.message.from_wire(octets)
        asked = query.question[0]
        kind = dns.rdatatype.to_text(asked.rdtype)
        text = asked.name.to_text(omit_final_dot=True).lower()
        self.asked.append((text, kind, 'tcp' if tcp else 'udp'))
        left = self._silent.get(asked.name, 0)
        if left > 0:
            self._silent[asked.name] = left - 1
            return
        time.sleep(self._delays.get(asked.name, 0))
        with contextlib.suppress(OSError):
            if asked.name in self._raw:
                for datagram in self._raw[asked.name](octets, tcp):
                    send(datagram)
                return
            answer = self.response(query)
            if tcp:
                send(answer.to_wire(max_size=65535))
            elif asked.name in self._truncated:
                answer.answer.clear()
                answer.authority.clear()
                answer.flags |= dns.flags.TC
                send(answer.to_wire())
            else:
                limit = max(query.payload, 512)
                try:
                    send(answer.to_wire(max_size=limit))
                except dns.exception.TooBig:
                    answer.answer.clear()
                    answer.flags |= dns.flags.TC
                    send(answer.to_wire(max_size=limit))

    def response(self, query: dns.message.Message) -> dns.message.Message:
        """The whole answer to a query, as honest as the zone is."""
        answer = dns.message.make_response(query, recursion_available=True)
        if query.edns >= 0 and not self.knows_edns:
            answer.use_edns(False)
            answer.set_rcode(dns.rcode.FORMERR)
            return answer
        if self.authentic:
            answer.flags |= dns.flags.AD
        asked = query.question[0]
        name = asked.name
        if name in self._rcodes:
            answer.set_rcode(self._rcodes[name])
            return answer
        for _ in range(ALIASES):
            alias = self._records.get((name, dns.rdatatype.CNAME))
            if alias is None or asked.rdtype == dns.rdatatype.CNAME:
                break
            answer.answer.append(alias)
            name = alias[0].target
            if self.partial_chains:
                return answer
        found = self._records.get((name, asked.rdtype))
        if found is not None:
            answer.answer.append(found)
            return answer
        if not any(owner == name or owner.is_subdomain(name) for owner, _ in self._records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        if self.negative_soa:
            soa = f'ns.{name.to_text()} hostmaster.{name.to_text()} 1 3600 600 86400 60'
            answer.authority.append(dns.rrset.from_text(name, TTL, 'IN', 'SOA', soa))
        return answer


def _quoted(text: str) -> str:
    escaped = text.replace('\\', '\\\\').replace('"', '\\"')
    pieces = [escaped[i : i + 200] for i in range(0, len(escaped), 200)] or ['']
    return ' '.join(f'"{piece}"' for piece in pieces)


def _bound_pair(host: str) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on one free port."""
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    for _ in range(50):
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        datagrams.bind((host, 0))
        stream = socket.socket(family, socket.SOCK_STREAM)
        try:
            stream.bind((host, datagrams.getsockname()[1]))
        except OSError:
            datagrams.close()
            stream.close()
            continue
        stream.listen(32)
        return datagrams, stream
    raise OSError('no port is free for both UDP and TCP')
