"""Making verifiers in the forms that other relays know (see `foreign`), for an operator."""

from __future__ import annotations

import os
from base64 import b64encode
from hashlib import sha256 as _sha256

ALGORITHMS = ('bcrypt', 'argon2', 'sha256')


def bcrypt(password: bytes, cost: int = 10) -> str:
    """Raises ValueError when the password is longer than the 72 octets that bcrypt looks at."""
    import bcrypt as library

    if len(password) > 72:
        raise ValueError('bcrypt looks at no more than 72 octets of a password')
    return f'bcrypt:{library.hashpw(password, library.gensalt(cost)).decode()}'


def argon2(password: bytes, time: int = 3, memory: int = 1024, threads: int = 1) -> str:
    """`memory` in KiB.  Raises ValueError."""
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    salt = os.urandom(16)
    kdf = Argon2id(salt=salt, length=64, iterations=time, lanes=threads, memory_cost=memory)
    digest = kdf.derive(password)
    return f'argon2:{time}:{memory}:{threads}:{_b64(salt)}:{_b64(digest)}'


def sha256(password: bytes) -> str:
    salt = os.urandom(32)
    return f'sha256:{_b64(salt)}:{_b64(_sha256(salt + password).digest())}'


def _b64(data: bytes) -> str:
    return b64encode(data).decode()
