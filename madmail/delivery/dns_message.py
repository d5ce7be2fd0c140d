"""DNS messages as octets (RFC 1035 4): one question out, what matters of an answer back.

dnspython writes and parses; this says which answers are fit to be parsed at
all, because anybody may have written them, and what is read out of them.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
from dns.name import Name
from dns.rcode import Rcode
from dns.rdata import Rdata
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType as Type
from dns.rrset import RRset

__all__ = ['Malformed', 'Message', 'Name', 'Rcode', 'Rdata', 'Type', 'name_of', 'query', 'read']

# PERF: a record takes 20 to 80 µs to parse, so this many hold a loop for less than 10 ms.
RECORD_LIMIT = 100
PAYLOAD = 1232  # octets of a datagram that no network splits (DNS flag day 2020)

_HEADER = struct.Struct('!HHHHHH')
_HOST_OCTETS = frozenset(b'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_')

# dnspython imports a record type when it meets it first: that would hold a loop, and a
# process without privileges may not be able to read it.  A stranger chooses the types.
dns.rdata.load_all_types(disable_dynamic_load=True)


class Malformed(Exception):
    """What arrived is no answer that can be used."""


class Message(NamedTuple):
    """What an answer says."""

    ident: int
    truncated: bool  # the rest is empty then: ask over TCP
    question: tuple[Name, Type] | None = None
    rcode: Rcode = Rcode.NOERROR
    authentic: bool = False  # the server says that it has checked the signatures
    answer: dict[tuple[Name, Type], RRset] = {}  # noqa: RUF012 - never written to
    negative_ttl: int | None = None  # seconds, of the SOA that says "there is none" (RFC 2308 5)


def name_of(text: str) -> Name | None:
    """A name as mail uses them; None for what cannot be one, so nobody has to be asked."""
    if len(text) > 254:
        return None
    labels = text.removesuffix('.').encode('utf-8').split(b'.')
    for label in labels:
        if not 0 < len(label) < 64 or not _HOST_OCTETS.issuperset(label):
            return None
    try:
        return Name([*labels, b''])
    except dns.exception.DNSException:
        return None


def query(ident: int, name: Name, kind: Type, *, extended: bool) -> bytes:
    """A question with recursion desired; `extended` adds EDNS (RFC 6891).

    The flag AD asks the server to say whether it has checked the answer (RFC 6840 5.7).
    """
    message = dns.message.make_query(
        name,
        kind,
        use_edns=0 if extended else False,
        payload=PAYLOAD,
        flags=int(dns.flags.RD | dns.flags.AD),
        id=ident,
    )
    return message.to_wire()


def read(octets: bytes) -> Message:
    """An answer from the wire.  Raises Malformed."""
    try:
        ident, flags, *counts = _HEADER.unpack_from(octets)
    except struct.error:
        raise Malformed('too short') from None
    if not flags & dns.flags.QR or sum(counts) > RECORD_LIMIT:
        raise Malformed('no answer, or too much of one')
    if flags & dns.flags.TC:
        return Message(ident, True)
    try:
        return _read(dns.message.from_wire(octets, ignore_trailing=True))
    except Malformed:
        raise
    except Exception as error:
        # Whatever a parser makes of hostile octets; dnspython has no one base for it.
        raise Malformed(type(error).__name__) from None


def _read(message: dns.message.Message) -> Message:
    question = None
    if message.question:
        asked = message.question[0]
        if len(message.question) > 1 or asked.rdclass != RdataClass.IN:
            raise Malformed('question')
        question = asked.name, asked.rdtype
    negative_ttl = None
    for rrset in message.authority:
        if rrset.rdtype == Type.SOA and len(rrset):
            negative_ttl = min(rrset.ttl, rrset[0].minimum)
    return Message(
        message.id,
        False,
        question,
        message.rcode(),
        bool(message.flags & dns.flags.AD),
        {
            (rrset.name, rrset.rdtype): rrset
            for rrset in message.answer
            if rrset.rdclass == RdataClass.IN and len(rrset)
        },
        negative_ttl,
    )
