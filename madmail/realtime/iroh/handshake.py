"""Who a node is: its key, proved by a signature.

iroh 0.35 signs the number of its protocol version and nothing else, so what a node says
is the same everywhere and for ever: whoever has heard it once can say it too.  That costs
a node its place here and never its secrets (`switchboard` bounds it); iroh 1.x signs a
challenge.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from madmail.realtime.blake3 import derive_key
from madmail.realtime.iroh import derp
from madmail.realtime.iroh.derp import KEY
from madmail.realtime.iroh.messages import AUTHENTICATION, CHALLENGE, DENIED

MAGIC = b'RELAY\xf0\x9f\x94\x91'
SIGNATURE = 64  # octets
VERSION = 3  # of the protocol of 0.35
CHALLENGE_SIZE = 16
CONTEXT = 'iroh-relay handshake v1 challenge signature'
VARINT_LIMIT = 10  # octets of a u64

_MESSAGE = len(MAGIC) + KEY + SIGNATURE  # where the signed message begins


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    """PERF: 0.1 ms, once a connection; the hash of a challenge 0.2 ms more."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def client_info(payload: bytes) -> bytes | None:
    """The key of the node that says so in a CLIENT_INFO; None if it is not to be believed."""
    if len(payload) <= _MESSAGE or not payload.startswith(MAGIC):
        return None
    key = payload[len(MAGIC) : len(MAGIC) + KEY]
    message = payload[_MESSAGE:]
    if _varint(message) != VERSION:
        return None
    return key if verify(key, payload[_MESSAGE - SIGNATURE : _MESSAGE], message) else None


def _varint(data: bytes) -> int | None:
    """The LEB128 number at the beginning."""
    value = 0
    for place, octet in enumerate(data[:VARINT_LIMIT]):
        value |= (octet & 0x7F) << (7 * place)
        if octet < 0x80:
            return value
    return None


def challenge() -> bytes:
    return os.urandom(CHALLENGE_SIZE)


def challenge_message(asked: bytes) -> bytes:
    return bytes((CHALLENGE,)) + asked


def authentication(data: bytes, asked: bytes) -> bytes | None:
    """The key of the node that answers the challenge `asked`; None if it does not."""
    if len(data) != 2 + KEY + SIGNATURE or data[0] != AUTHENTICATION or data[1 + KEY] != SIGNATURE:
        return None
    key = data[1 : 1 + KEY]
    return key if verify(key, data[2 + KEY :], _to_sign(asked)) else None


def denial(reason: str) -> bytes:
    """`reason` has fewer than 128 octets, so that its length is one."""
    text = reason.encode()
    return bytes((DENIED, len(text))) + text


def _to_sign(asked: bytes) -> bytes:
    return derive_key(CONTEXT, asked, 32)


# -- the node's side, for our own probe


def introduce(secret: Ed25519PrivateKey) -> bytes:
    """The CLIENT_INFO frame of a node of 0.35."""
    message = bytes((VERSION,))
    key = secret.public_key().public_bytes_raw()
    return derp.frame(derp.CLIENT_INFO, MAGIC + key + secret.sign(message) + message)


def answer(secret: Ed25519PrivateKey, asked: bytes) -> bytes:
    """The AUTHENTICATION message of a node of 1.x."""
    key = secret.public_key().public_bytes_raw()
    signature = secret.sign(_to_sign(asked))
    return bytes((AUTHENTICATION,)) + key + bytes((SIGNATURE,)) + signature
