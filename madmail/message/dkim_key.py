"""DKIM key records, the public keys in the DNS (RFC 6376 3.6.1, RFC 8463), and tag lists."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from functools import lru_cache
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

RECORD_LIMIT = 4096  # octets of a key record; RSA with 4096 bits has 750
RSA_LEAST = 1024  # bits, RFC 8301 3.2
RSA_MOST = 4096  # bits; larger ones only cost time
EXPONENT_MOST = 2**33  # of RSA; larger ones as well
KEPT = 512  # parsed records

PrivateKey = RSAPrivateKey | Ed25519PrivateKey

_TAG = re.compile(rb'[ \t\r\n]*([A-Za-z][A-Za-z0-9_]*)[ \t\r\n]*=(.*)', re.DOTALL)
_BLANK = re.compile(rb'[ \t\r\n]+')


class Unusable(NamedTuple):
    """A signature or key that proves nothing."""

    cause: str  # for counters


class Key(NamedTuple):
    public: RSAPublicKey | Ed25519PublicKey
    strict: bool  # t=s: the identity i= must not be of a subdomain

    def verifies(self, algorithm: bytes, signature: bytes, signed: bytes) -> bool:
        """Whether `signature` is this key's under `signed`."""
        try:
            if isinstance(self.public, RSAPublicKey):
                if algorithm != b'rsa-sha256':
                    return False
                self.public.verify(signature, signed, PKCS1v15(), SHA256())
            else:
                if algorithm != b'ed25519-sha256':
                    return False
                # RFC 8463 3: what is signed is the digest.
                self.public.verify(signature, hashlib.sha256(signed).digest())
        except (InvalidSignature, ValueError):
            return False
        return True


def tags(text: bytes) -> dict[bytes, bytes] | None:
    """A tag list (RFC 6376 3.2); None when it is none, or names a tag twice."""
    found: dict[bytes, bytes] = {}
    *parts, last = text.split(b';')
    if last.strip(b' \t\r\n'):
        parts.append(last)
    for part in parts:
        tag = _TAG.match(part)
        if tag is None or tag[1] in found:
            return None
        found[tag[1]] = tag[2].strip(b' \t\r\n')
    return found


def unblanked(value: bytes) -> bytes:
    """Without the folding white space that base64 may have (RFC 6376 2.8)."""
    return _BLANK.sub(b'', value)


def decoded(value: bytes) -> bytes | None:
    """Strict base64 with folding; None when it is none."""
    try:
        return base64.b64decode(unblanked(value), validate=True)
    except (binascii.Error, ValueError):
        return None


@lru_cache(maxsize=KEPT)
def parse(record: bytes) -> Key | Unusable:
    """The key in a TXT record."""
    # PERF: 60 µs for RSA, most of it in OpenSSL; hence the cache.
    if len(record) > RECORD_LIMIT:
        return Unusable('key_size')
    # Some paste the quotation marks of a zone file into a web form.
    found = tags(record.replace(b'"', b''))
    if found is None:
        return Unusable('key_syntax')
    if found.get(b'v', b'DKIM1') != b'DKIM1' or (b'v' in found and next(iter(found)) != b'v'):
        return Unusable('key_version')
    if b'h' in found and b'sha256' not in _words(found[b'h']):
        return Unusable('key_hash')
    if b's' in found and not _words(found[b's']) & {b'*', b'email'}:
        return Unusable('key_service')
    data = decoded(found[b'p']) if b'p' in found else None
    if data is None:
        return Unusable('key_syntax')
    if not data:
        return Unusable('key_revoked')
    strict = b's' in _words(found.get(b't', b''))
    kind = found.get(b'k', b'rsa').lower()
    try:
        if kind == b'ed25519':
            return Key(Ed25519PublicKey.from_public_bytes(data), strict)
        # The DER form is that of RFC 5280; the bare one of RFC 8017 is about as well.
        public = load_der_public_key(data) if kind == b'rsa' else None
    except (ValueError, UnsupportedAlgorithm):
        return Unusable('key_syntax')
    if not isinstance(public, RSAPublicKey):
        return Unusable('key_kind')
    if not RSA_LEAST <= public.key_size <= RSA_MOST or public.public_numbers().e > EXPONENT_MOST:
        return Unusable('key_size')
    return Key(public, strict)


def _words(value: bytes) -> set[bytes]:
    return {word.lower() for word in unblanked(value).split(b':')}


def record(key: PrivateKey) -> str:
    """The key record to publish for a private key."""
    public = key.public_key()
    if isinstance(public, RSAPublicKey):
        kind, data = 'rsa', public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        kind, data = 'ed25519', public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f'v=DKIM1;k={kind};s=email;t=s;p={base64.b64encode(data).decode()}'
