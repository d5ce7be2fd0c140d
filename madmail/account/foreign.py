"""Password verifiers that other relays made, for accounts that come from there.

`sha256:SALT:DIGEST`                    SHA-256 of salt and password, one round
`bcrypt:$2b$…`, `$2a$…`, `$2y$…`        bcrypt
`argon2:TIME:KIB:LANES:SALT:DIGEST`     Argon2id (RFC 9106)
`$5$…`, `$6$…`                          SHA-crypt with SHA-256 or SHA-512

Base64 is the standard one, with or without padding.  They are checked as they
are; a login with the right password replaces one by a verifier of our own
where that is at least as hard to guess (`weaker`).  What would take more than
about a second or much memory to check is not taken over at all, because every
wrong password would cost as much.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode
from hashlib import sha256

from madmail.account import sha_crypt

ARGON2_TIME = 32
ARGON2_MEMORY = 256 * 1024  # KiB
ARGON2_LANES = 16
BCRYPT_COST = 14
SHA_CRYPT_ROUNDS = 100_000  # 0.3 s

# Of our scrypt's strength or below: a password thought up by a person is better
# off with ours.
_BCRYPT_OURS = 8  # cost
_ARGON2_OURS = 16 * 1024  # KiB times passes
_SHA_CRYPT_OURS = 20_000  # rounds

_BCRYPT = re.compile(r'\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}\Z')


class Unusable(Exception):
    """The verifier cannot be taken over; the text says why, and nothing of its content."""


def check(verifier: str) -> str:
    """The verifier in the form in which it is kept.  Raises Unusable."""
    kind, _, rest = verifier.partition(':')
    try:
        if kind == 'bcrypt' or verifier.startswith('$2'):
            text = rest if kind == 'bcrypt' else verifier
            found = _BCRYPT.match(text)
            if found is None:
                raise Unusable('malformed bcrypt hash')
            if not 4 <= int(found[1]) <= BCRYPT_COST:
                raise Unusable(f'bcrypt cost above {BCRYPT_COST}')
            return f'bcrypt:{text}'
        if kind == 'argon2':
            _argon2_fields(rest)
            return verifier
        if kind == 'sha256':
            _sha256_fields(rest)
            return verifier
        if verifier.startswith(('$5$', '$6$')):
            if sha_crypt.parse(verifier).rounds > SHA_CRYPT_ROUNDS:
                raise Unusable(f'more than {SHA_CRYPT_ROUNDS} rounds')
            return verifier
    except ValueError:
        raise Unusable('malformed hash') from None
    raise Unusable('unknown form of hash')


def verify(password: bytes, verifier: str) -> bool:
    """Whether the password fits; takes up to a second.  Raises ValueError if it is malformed."""
    kind, _, rest = verifier.partition(':')
    if kind == 'sha256':
        salt, digest = _sha256_fields(rest)
        return hmac.compare_digest(sha256(salt + password).digest(), digest)
    if kind == 'bcrypt':
        return _bcrypt(password, rest)
    if kind == 'argon2':
        return _argon2(password, rest)
    if verifier.startswith(('$5$', '$6$')):
        crypt_kind, rounds, grain, letters = sha_crypt.parse(verifier)
        made = sha_crypt.digest(password, crypt_kind, rounds, grain)
        return hmac.compare_digest(made, letters)
    raise ValueError('unknown form of hash')


def weaker(verifier: str) -> bool:
    """Whether our own verifier of a weak password is at least as hard to guess as this one."""
    kind, _, rest = verifier.partition(':')
    try:
        if kind == 'bcrypt':
            return int(rest[4:6]) <= _BCRYPT_OURS
        if kind == 'argon2':
            time, memory, *_ = _argon2_fields(rest)
            return time * memory <= _ARGON2_OURS
        if verifier.startswith(('$5$', '$6$')):
            return sha_crypt.parse(verifier).rounds <= _SHA_CRYPT_OURS
    except ValueError:
        return False
    return kind == 'sha256'


def _unb64(text: str) -> bytes:
    if not re.fullmatch(r'[A-Za-z0-9+/]+={0,2}', text):
        raise ValueError('not base64')
    return b64decode(text.rstrip('=') + '=' * (-len(text.rstrip('=')) % 4), validate=True)


def _sha256_fields(rest: str) -> tuple[bytes, bytes]:
    salt, digest = map(_unb64, rest.split(':'))
    if len(digest) != 32 or not 4 <= len(salt) <= 128:
        raise ValueError('wrong lengths')
    return salt, digest


def _argon2_fields(rest: str) -> tuple[int, int, int, bytes, bytes]:
    """Passes, KiB, lanes, salt, digest; raises ValueError or Unusable."""
    time, memory, lanes, salt, digest = rest.split(':')
    if not all(re.fullmatch('[0-9]{1,9}', number) for number in (time, memory, lanes)):
        raise ValueError('not numbers')
    passes, kib, threads = int(time), int(memory), int(lanes)
    if passes > ARGON2_TIME or kib > ARGON2_MEMORY or threads > ARGON2_LANES:
        raise Unusable('argon2 hash that takes too much time or memory')
    octets, expected = _unb64(salt), _unb64(digest)
    if passes < 1 or threads < 1 or kib < 8 * threads:
        raise ValueError('out of range')
    if not 8 <= len(octets) <= 128 or not 16 <= len(expected) <= 128:
        raise ValueError('wrong lengths')
    return passes, kib, threads, octets, expected


def _bcrypt(password: bytes, verifier: str) -> bool:
    import bcrypt  # only where such accounts came from elsewhere

    if b'\0' in password:
        return False
    # 72 octets is all that bcrypt ever looks at.
    return bcrypt.checkpw(password[:72], verifier.encode())


def _argon2(password: bytes, rest: str) -> bool:
    from cryptography.exceptions import InvalidKey
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    passes, kib, lanes, salt, digest = _argon2_fields(rest)
    kdf = Argon2id(salt=salt, length=len(digest), iterations=passes, lanes=lanes, memory_cost=kib)
    try:
        kdf.verify(password, digest)  # in constant time
    except InvalidKey:
        return False
    return True
