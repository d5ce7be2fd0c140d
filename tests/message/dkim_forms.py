"""Signed messages of any form, also wrong ones: signatures tag by tag, and keys."""

from __future__ import annotations

import base64
import functools
import hashlib

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from madmail.message.canonicalization import relaxed_field

DOMAIN = 'relay.example'
MESSAGE = (
    b'From: <alice@relay.example>\r\nTo: <bob@other.example>\r\nSubject: [...]\r\n\r\nhello\r\n'
)


@functools.cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@functools.cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def with_signature(message: bytes = MESSAGE, **tags: str | None) -> bytes:
    """The message under a relaxed/simple signature; a tag given as None is left out."""
    head, _, body = message.partition(b'\r\n\r\n')
    stripped = body.rstrip(b'\r\n') + b'\r\n'
    values: dict[str, str | None] = {
        'v': '1',
        'a': 'rsa-sha256',
        'c': 'relaxed/simple',
        'd': DOMAIN,
        's': 'one',
        'h': 'from:to:subject',
        'bh': base64.b64encode(hashlib.sha256(stripped).digest()).decode(),
        **tags,
    }
    field = 'DKIM-Signature: ' + ''.join(f'{k}={v}; ' for k, v in values.items() if v is not None)
    unsigned = (field + 'b=').encode()
    fields = [line + b'\r\n' for line in head.split(b'\r\n')]
    signed = b''
    for name in (values['h'] or '').lower().encode().split(b':'):
        for one in reversed(fields):
            if one.partition(b':')[0].strip().lower() == name.strip():
                fields.remove(one)
                signed += relaxed_field(one)
                break
    signed += relaxed_field(unsigned)[:-2]
    if values['a'] == 'ed25519-sha256':
        signature = ed_key().sign(hashlib.sha256(signed).digest())
    else:
        digest = SHA1() if values['a'] == 'rsa-sha1' else SHA256()
        signature = rsa_key().sign(signed, PKCS1v15(), digest)
    return unsigned + base64.b64encode(signature) + b'\r\n' + message
