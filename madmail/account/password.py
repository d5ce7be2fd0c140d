r"""Password verifiers.

Two forms are made, by the strength of the password:

`hmac:1:SALT:DIGEST`
    One keyed hash, for passwords that a machine made (at least 80 bits by
    their length and alphabet).  Guessing them is out of reach however cheap
    one guess is, so a slow hash would only make reconnect storms slow: ten
    thousand clients that come back after a restart cost ten thousand hashes.
`scrypt:12:8:1:SALT:DIGEST`
    For everything a person may have thought up (RFC 7914, N = 2^12).

The key of the first form is the state directory's `secret` file, so that a
copy of the database alone is worth nothing.  Salts and digests are unpadded
URL-safe base64.  Passwords are compared as UTF-8 octets, in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

PASSWORD_LIMIT = 1024  # octets
SCRYPT = (12, 8, 1)  # log2 N, r, p: 4 MiB, about 10 ms
STRONG_BITS = 80.0

_CLASSES = (
    (re.compile(rb'[a-z]'), 26),
    (re.compile(rb'[A-Z]'), 26),
    (re.compile(rb'[0-9]'), 10),
    (re.compile(rb'[^a-zA-Z0-9]'), 32),
)


def strong(password: bytes) -> bool:
    """Whether the password looks machine-made: long, and few repetitions."""
    distinct = len(set(password))
    if len(password) < 14 or distinct < 9:
        return False
    alphabet = sum(size for pattern, size in _CLASSES if pattern.search(password))
    # Distinct octets bound the alphabet too: `aaaaaaaa1B` has few of them.
    bits = len(password) * math.log2(min(alphabet, distinct * 2))
    return bits >= STRONG_BITS and not _wordlike(password)


def _wordlike(password: bytes) -> bool:
    """A run of seven letters of one case hints at a word; machines rarely make one."""
    if len(password) >= 20:
        return False
    return re.search(rb'[a-z]{7}|[A-Z]{7}', password) is not None


def _b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b'=').decode()


def _unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + '=' * (-len(text) % 4))


def _keyed(password: bytes, salt: bytes, secret: bytes) -> bytes:
    return hashlib.blake2b(password, key=secret, salt=salt, digest_size=32).digest()


def _scrypt(password: bytes, salt: bytes, cost: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password, salt=salt, n=1 << cost, r=r, p=p, maxmem=256 * (1 << cost) * r, dklen=32
    )


def slow(verifier: str) -> bool:
    """Whether checking this verifier takes long enough to belong in a thread."""
    return not verifier.startswith('hmac:')


def encode(password: bytes, secret: bytes) -> str:
    """A new verifier; takes about 10 ms unless the password is `strong`."""
    salt = os.urandom(16)
    if strong(password):
        return f'hmac:1:{_b64(salt)}:{_b64(_keyed(password, salt, secret))}'
    cost, r, p = SCRYPT
    return f'scrypt:{cost}:{r}:{p}:{_b64(salt)}:{_b64(_scrypt(password, salt, cost, r, p))}'


def verify(password: bytes, verifier: str, secret: bytes) -> bool:
    """Whether the password fits; False for a verifier of unknown form."""
    kind, _, rest = verifier.partition(':')
    try:
        if kind == 'hmac':
            _, salt, digest = rest.split(':')
            return hmac.compare_digest(_keyed(password, _unb64(salt), secret), _unb64(digest))
        if kind == 'scrypt':
            cost, r, p, salt, digest = rest.split(':')
            made = _scrypt(password, _unb64(salt), int(cost), int(r), int(p))
            return hmac.compare_digest(made, _unb64(digest))
    except (ValueError, TypeError):
        return False
    return False
