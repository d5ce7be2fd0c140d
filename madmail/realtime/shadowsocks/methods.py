"""The methods (ciphers) of the proxy and the keys they take.

AEAD methods hash the password to a key as OpenSSL once did; the 2022 methods take the key
itself, in base64.  A key for one direction of one connection is derived from it and a salt.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from hashlib import md5
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from madmail.account import bearer
from madmail.realtime.blake3 import derive_key

TAG = 16  # octets that an AEAD adds
PASSWORD_KEY = 16  # octets of randomness in a password that we make for an AEAD method
CONTEXT = 'shadowsocks 2022 session subkey'


class Method(NamedTuple):
    """One method."""

    name: str
    size: int  # octets of key and of salt
    aead: Callable[[bytes], Any]
    modern: bool  # of AEAD-2022 (SIP022)

    @property
    def largest(self) -> int:
        """Octets of payload in a chunk, at most."""
        return 0xFFFF if self.modern else 0x3FFF

    def key(self, password: str) -> bytes:
        """The key that the password stands for.  Raises ValueError when it stands for none."""
        if not self.modern:
            return _bytes_to_key(password.encode(), self.size)
        try:
            key = base64.b64decode(password, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError('the password is not base64') from None
        if len(key) != self.size:
            raise ValueError(f'the password is not the base64 of {self.size} octets')
        return key

    def fits(self, password: str) -> bool:
        """Whether it can be the password of this method."""
        try:
            self.key(password)
        except ValueError:
            return False
        return bool(password)

    def fresh_password(self) -> str:
        """A new password, good for this method."""
        if self.modern:
            return base64.b64encode(os.urandom(self.size)).decode()
        return bearer.fresh(PASSWORD_KEY)

    def cipher(self, key: bytes, salt: bytes) -> Any:
        """What seals or opens one direction of one connection."""
        if self.modern:
            return self.aead(derive_key(CONTEXT, key + salt, self.size))
        return self.aead(HKDF(SHA1(), self.size, salt, b'ss-subkey').derive(key))


def _bytes_to_key(password: bytes, size: int) -> bytes:
    """OpenSSL's EVP_BytesToKey with MD5, no salt and one round: no choice of ours."""
    key = block = b''
    while len(key) < size:
        block = md5(block + password, usedforsecurity=False).digest()
        key += block
    return key[:size]


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method('chacha20-ietf-poly1305', 32, ChaCha20Poly1305, False),
        Method('aes-128-gcm', 16, AESGCM, False),
        Method('aes-256-gcm', 32, AESGCM, False),
        Method('2022-blake3-aes-128-gcm', 16, AESGCM, True),
        Method('2022-blake3-aes-256-gcm', 32, AESGCM, True),
        Method('2022-blake3-chacha20-poly1305', 32, ChaCha20Poly1305, True),
    )
}
