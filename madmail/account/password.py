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

An export for another relay writes `hmac:1:SALT:DIGEST:KEY`, which needs no
secret.  Such verifiers and those of `foreign` are checked too, and are
replaced by one of our own (`better`) when somebody logs in.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

from madmail.account import foreign

PASSWORD_LIMIT = 1024  # octets
SCRYPT = (12, 8, 1)  # log2 N, r, p: 4 MiB, about 10 ms
SCRYPT_COST_LIMIT = 16  # of one that is imported: 64 MiB, 0.2 s
STRONG_BITS = 80.0
LOCKED = 'none'  # in place of a verifier: no password fits

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
    """Blanks, no digit, or a run of seven letters of one case hint at words.

    Machines rarely make such passwords; what is taken for words is merely checked slowly.
    """
    if re.search(rb'[ \t]', password) or not re.search(rb'[0-9]', password):
        return True
    return len(password) < 20 and re.search(rb'[a-z]{7}|[A-Z]{7}', password) is not None


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
            _, salt, digest, *key = rest.split(':')
            made = _keyed(password, _unb64(salt), _unb64(key[0]) if key else secret)
            return hmac.compare_digest(made, _unb64(digest))
        if kind == 'scrypt':
            cost, r, p, salt, digest = rest.split(':')
            made = _scrypt(password, _unb64(salt), int(cost), int(r), int(p))
            return hmac.compare_digest(made, _unb64(digest))
        return foreign.verify(password, verifier)
    except (ValueError, TypeError, foreign.Unusable):
        return False


def better(password: bytes, verifier: str) -> bool:
    """Whether a new verifier of ours for this right password would be no easier to guess.

    Never for one that is ours already.
    """
    kind, _, rest = verifier.partition(':')
    if kind == 'hmac':
        return rest.count(':') > 2
    if kind == 'scrypt':
        return int(rest.partition(':')[0]) < SCRYPT[0]
    # A strong password needs no slow hash; a weak one keeps the slowest.
    return strong(password) or foreign.weaker(verifier)


def portable(verifier: str, secret: bytes) -> str:
    """The verifier as another relay can check it."""
    if verifier.startswith('hmac:') and verifier.count(':') == 3:
        return f'{verifier}:{_b64(secret)}'
    return verifier


def importable(verifier: str) -> str:
    """A verifier from elsewhere, in the form in which it is kept.  Raises foreign.Unusable."""
    kind, _, rest = verifier.partition(':')
    if kind not in ('hmac', 'scrypt'):
        return foreign.check(verifier)
    try:
        if kind == 'hmac':
            version, salt, digest, key = rest.split(':')
            lengths = [len(_unb64(part)) for part in (salt, digest, key)]
            if version == '1' and lengths == [16, 32, 32]:
                return verifier
        else:
            cost, r, p, salt, digest = rest.split(':')
            bounded = 10 <= int(cost) <= SCRYPT_COST_LIMIT and (int(r), int(p)) == (8, 1)
            if bounded and len(_unb64(salt)) >= 8 and len(_unb64(digest)) == 32:
                return verifier
    except ValueError:
        pass
    raise foreign.Unusable('malformed hash')
