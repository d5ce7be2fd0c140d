"""DKIM signatures (RFC 6376, RFC 8301, RFC 8463) as chatmail relays use them, without I/O.

`Signer` signs relaxed/simple.  `Verification` reads a message as it streams in
and says whether a signature of the very domain of its From holds: no other
domain's signature means anything here.

What is stricter than the RFC asks: a signature that covers only a part of the
body (l=) is none, since anything may be put behind that part.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from . import addresses, dkim_key, header
from .canonicalization import BodyHash, relaxed_field
from .dkim_key import PrivateKey, Unusable
from .header import Field

NAME = b'dkim-signature'
ALIGNED_LIMIT = 5  # signatures of the From domain that are tried
SIGNATURES_LIMIT = 50  # fields that are looked into
RECORDS_LIMIT = 3  # key records of one name that are tried

# RFC 6376 5.4.1, and what means something to chat clients.
SIGNED = (
    b'from',
    b'reply-to',
    b'subject',
    b'date',
    b'to',
    b'cc',
    b'sender',
    b'message-id',
    b'mime-version',
    b'content-type',
    b'content-transfer-encoding',
    b'resent-date',
    b'resent-from',
    b'resent-sender',
    b'resent-to',
    b'resent-cc',
    b'resent-message-id',
    b'in-reply-to',
    b'references',
    b'list-id',
    b'list-help',
    b'list-unsubscribe',
    b'list-subscribe',
    b'list-post',
    b'list-owner',
    b'list-archive',
    b'autocrypt',
    b'auto-submitted',
    b'chat-version',
    b'chat-is-post-message',
    b'chat-disposition-notification-to',
    b'secure-join',
    b'secure-join-invitenumber',
)
# Named once more than they stand: nobody can add another one (RFC 6376 8.15).
OVERSIGNED = frozenset(SIGNED) - {
    b'sender',
    b'message-id',
    b'mime-version',
    b'content-transfer-encoding',
    b'resent-message-id',
    b'auto-submitted',
    b'chat-version',
    b'chat-is-post-message',
    b'chat-disposition-notification-to',
    b'secure-join',
    b'secure-join-invitenumber',
}

_ALGORITHMS = (b'rsa-sha256', b'ed25519-sha256')  # RFC 8301 3.1: not rsa-sha1
_FORMS = (b'simple', b'relaxed')
_DOMAIN = re.compile(rb'(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*')
_NUMBER = re.compile(rb'[0-9]{1,12}')
_OWN_VALUE = re.compile(rb'((?:^|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*')


def covered(names: Sequence[bytes], fields: Sequence[Field]) -> Iterator[Field]:
    """The fields that h= names, each name taking the lowest that is left (RFC 6376 5.4.2)."""
    places: dict[bytes, list[Field]] = {}
    for field in fields:
        places.setdefault(field.name, []).append(field)
    for name in names:
        if left := places.get(name):
            yield left.pop()


class Signer:
    """One key of a domain; `domain` and `selector` as they stand in DNS names."""

    def __init__(self, domain: str, selector: str, key: PrivateKey) -> None:
        self.domain = domain
        self.selector = selector
        self._key = key
        self._algorithm = 'rsa-sha256' if isinstance(key, RSAPrivateKey) else 'ed25519-sha256'

    def sign(self, block: bytes, body_hash: bytes) -> bytes:
        """The DKIM-Signature field to put before a message, with its CRLF.

        `block` is the header block as it will be sent, `body_hash` the digest
        of a `BodyHash` in the simple form.  There is no time in a signature:
        it would tell when the message passed here.
        """
        fields = header.parse_loosely(block)
        present = [field.name for field in fields]
        names: list[bytes] = []
        for name in SIGNED:
            names += [name] * (present.count(name) + (name in OVERSIGNED))
        unsigned = (
            f'DKIM-Signature: v=1; a={self._algorithm}; c=relaxed/simple;\r\n'
            f'\td={self.domain}; s={self.selector};\r\n'
            f'\th={_folded(b":".join(names).decode(), ":")};\r\n'
            f'\tbh={base64.b64encode(body_hash).decode()};\r\n\tb='
        ).encode()
        signed = [relaxed_field(field.raw) for field in covered(names, fields)]
        signed.append(relaxed_field(unsigned)[:-2])
        signature = base64.b64encode(self._signature(b''.join(signed))).decode()
        return unsigned + _folded(signature).encode() + b'\r\n'

    def _signature(self, octets: bytes) -> bytes:
        if isinstance(self._key, RSAPrivateKey):
            return self._key.sign(octets, PKCS1v15(), SHA256())
        # RFC 8463 3: what is signed is the digest.
        return self._key.sign(hashlib.sha256(octets).digest())


def _folded(text: str, between: str = '') -> str:
    """Lines of at most 72 characters; `between`, a line ends only behind that character."""
    pieces = [f'{part}{between}' for part in text.split(between)] if between else list(text)
    lines = ['']
    for piece in pieces:
        if len(lines[-1]) + len(piece) > 72:
            lines.append('')
        lines[-1] += piece
    return '\r\n\t'.join(lines).removesuffix(between) if between else '\r\n\t'.join(lines)


class Signature(NamedTuple):
    """A DKIM-Signature field that could be understood (RFC 6376 3.5)."""

    field: Field
    domain: str  # lower case, like `selector`
    selector: str
    algorithm: bytes
    names: tuple[bytes, ...]  # h=, lower case
    relaxed_header: bool
    relaxed_body: bool
    body_hash: bytes
    signature: bytes
    subdomain: bool  # i= is of a subdomain of d=
    expires: int  # Unix seconds, 0 = never


def parse_signature(field: Field) -> Signature | Unusable:
    found = dkim_key.tags(field.value)
    if found is None or found.get(b'v') != b'1':
        return Unusable('syntax')
    if not {b'a', b'b', b'bh', b'd', b'h', b's'} <= found.keys():
        return Unusable('syntax')
    domain, selector = found[b'd'].lower(), found[b's'].lower()
    if not _DOMAIN.fullmatch(domain) or not _DOMAIN.fullmatch(selector):
        return Unusable('syntax')
    algorithm = found[b'a'].lower()
    if algorithm not in _ALGORITHMS:
        return Unusable('algorithm')
    if b'l' in found:
        return Unusable('partial')
    if b'dns/txt' not in dkim_key.unblanked(found.get(b'q', b'dns/txt')).lower().split(b':'):
        return Unusable('query')
    names = tuple(dkim_key.unblanked(found[b'h']).lower().split(b':'))
    if b'from' not in names:  # RFC 6376 5.4
        return Unusable('from_unsigned')
    form, _, body_form = found.get(b'c', b'simple').lower().partition(b'/')
    body_form = body_form or b'simple'
    if form not in _FORMS or body_form not in _FORMS:
        return Unusable('canonicalization')
    body_hash, signature = dkim_key.decoded(found[b'bh']), dkim_key.decoded(found[b'b'])
    if not body_hash or not signature:
        return Unusable('syntax')
    identity = dkim_key.unblanked(found.get(b'i', b'@' + domain)).lower().rpartition(b'@')
    if not identity[1] or not (identity[2] == domain or identity[2].endswith(b'.' + domain)):
        return Unusable('identity')
    times = [found.get(tag, b'0') for tag in (b't', b'x')]
    if not all(_NUMBER.fullmatch(moment) for moment in times):
        return Unusable('syntax')
    begins, expires = map(int, times)
    if b'x' in found and expires <= begins:
        return Unusable('syntax')
    return Signature(
        field,
        domain.decode(),
        selector.decode(),
        algorithm,
        names,
        form == b'relaxed',
        body_form == b'relaxed',
        body_hash,
        signature,
        identity[2] != domain,
        expires,
    )


class Outcome(Enum):
    VALID = 'valid'
    MISSING = 'missing'  # no signature at all
    INVALID = 'invalid'  # only broken ones, and ones of other domains
    FAILED = 'failed'  # a key could not be looked up: another try may help


class Result(NamedTuple):
    outcome: Outcome
    cause: str = ''  # for counters: why the last of the signatures that were tried is none


# The TXT records of a name, each joined; none when there is no such name or record, and
# None when that could not be found out.
FetchKey = Callable[[str], Sequence[bytes] | None]


class Verification:
    """One message on its way in."""

    __slots__ = ('_bodies', '_candidates', '_cause', '_fields', '_signatures', 'domain')

    def __init__(self) -> None:
        self.domain = ''  # of the one From address, lower case; '' where there is no such
        self._fields: list[Field] = []
        self._signatures = 0
        self._candidates: list[Signature] = []
        self._bodies: dict[bool, BodyHash] = {}
        self._cause = 'foreign'

    def feed_header(self, block: bytes) -> None:
        """The header block as it came, with or without its empty line; before any `feed`."""
        self._fields = header.parse_loosely(block)
        senders = [field.value for field in self._fields if field.name == b'from']
        sender = addresses.sole(header.unfold(senders[0])) if len(senders) == 1 else None
        if sender is not None:
            self.domain = sender.address.rpartition('@')[2].lower()
        for field in self._fields:
            if field.name == NAME:
                self._signatures += 1
                if self._signatures > SIGNATURES_LIMIT:
                    break
                self._consider(parse_signature(field))
        self._bodies = {
            one.relaxed_body: BodyHash(relaxed=one.relaxed_body) for one in self._candidates
        }

    def feed(self, chunk: bytes) -> None:
        """Octets behind the empty line, as they came."""
        for body in self._bodies.values():
            body.feed(chunk)

    def finish(self, fetch_key: FetchKey, now: float | None = None) -> Result:
        """Call once, at the end of the message; `fetch_key` may block."""
        if not self._signatures:
            return Result(Outcome.MISSING)
        now = time.time() if now is None else now
        hashes = {relaxed: body.digest() for relaxed, body in self._bodies.items()}
        failed = False
        for one in self._candidates:
            if one.expires and now > one.expires:
                self._cause = 'expired'
            elif hashes[one.relaxed_body] != one.body_hash:
                self._cause = 'body'
            else:
                # Only now: who has a wrong body hash cannot make us ask anybody.
                records = fetch_key(f'{one.selector}._domainkey.{one.domain}')
                if records is None:
                    failed = True
                elif self._holds(one, records):
                    return Result(Outcome.VALID)
        if failed:
            return Result(Outcome.FAILED, 'dns')
        return Result(Outcome.INVALID, self._cause)

    def _consider(self, found: Signature | Unusable) -> None:
        if isinstance(found, Unusable):
            self._cause = found.cause
        elif found.domain == self.domain and len(self._candidates) < ALIGNED_LIMIT:
            self._candidates.append(found)

    def _holds(self, one: Signature, records: Sequence[bytes]) -> bool:
        """Whether one of the keys has made this signature."""
        if not records:
            self._cause = 'key_missing'
        signed = b''
        for record in records[:RECORDS_LIMIT]:
            key = dkim_key.parse(record)
            if isinstance(key, Unusable):
                self._cause = key.cause
                continue
            if key.strict and one.subdomain:
                self._cause = 'identity'
                continue
            signed = signed or self._signed(one)
            if key.verifies(one.algorithm, one.signature, signed):
                return True
            self._cause = 'signature'
        return False

    def _signed(self, one: Signature) -> bytes:
        """The octets under a signature: the fields it names, then itself without b=."""
        raw = [field.raw for field in covered(one.names, self._fields)]
        name, _, value = one.field.raw.partition(b':')
        own = b'%b:%b' % (name, _OWN_VALUE.sub(rb'\1', value, count=1))
        if one.relaxed_header:
            return b''.join([relaxed_field(field) for field in raw]) + relaxed_field(own)[:-2]
        return b''.join(raw) + own.removesuffix(b'\r\n')
