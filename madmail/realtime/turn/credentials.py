"""Who may relay: user names that are times, and passwords made from them.

The TURN REST scheme (draft-uberti-behave-turn-rest): the user name is the Unix time at
which it ends, the password its HMAC under a secret that the shards share with the TURN
processes.  Nothing is kept, and nobody is asked.

The time also tells accounts apart, for quotas: it lies in a window, at a place that the
secret and the account decide.  All credentials that an account gets for a while are thus
one; nobody else can say whose it is, and on the wire it does not outlive itself.  Where
a place is taken the next one is.

    window k        [k·w, (k+1)·w), with w a quarter of the longest life
    made in it      a time in window k+3, so with a life of 2w to 4w
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator, Sequence

from madmail.realtime.turn.message import long_term_key

SLACK = 60  # seconds by which clocks may differ
NONCE_LIFE = 3600  # seconds (RFC 8656 5: at least hourly)
_DAY = 86400
_TAG = 16  # octets


Part = tuple[int, int]  # a shard and how many there are: each gives names of its own


def usernames(secret: bytes, account: str, life: int, now: float, part: Part) -> Iterator[str]:
    """The user names that an account may get now, in order; they last half of `life` or longer."""
    return _window(secret, account, life, int(now) // max(life // 4, 1), part)


def likely_names(secret: bytes, account: str, life: int, now: float, part: Part) -> list[str]:
    """The first choices of all windows whose names may count now."""
    number = int(now) // max(life // 4, 1)
    return [
        next(_window(secret, account, life, one, part))
        for one in range(max(number - 3, 0), number + 1)
    ]


def _window(secret: bytes, account: str, life: int, number: int, part: Part) -> Iterator[str]:
    """The names that are made in a window."""
    window = max(life // 4, 1)
    index, parts = part
    digest = hmac.digest(secret, b'%d %s' % (number, account.encode()), 'sha256')
    room = max(window // parts, 1)
    begin = int.from_bytes(digest[:8], 'big') % room
    for step in range(room):
        place = (begin + step) % room * parts + index
        yield str((number + 3) * window + min(place, window - 1))


def password(secret: bytes, name: str) -> str:
    return base64.b64encode(hmac.digest(secret, name.encode(), 'sha1')).decode()


def expiry(name: str) -> int | None:
    """Unix time from a user name; a suffix behind a colon, as the draft has it, is let pass."""
    digits = name.partition(':')[0]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 12):
        return None
    return int(digits)


def derived_secret(relay_secret: bytes) -> str:
    """The shared secret of a relay whose operator gave none."""
    return hmac.digest(relay_secret, b'turn', 'sha256').hex()


class Keys:
    """The keys of users under the secrets in force; the first is the present one."""

    def __init__(self, secrets: Sequence[bytes], realm: str, life: int) -> None:
        self.secrets = tuple(secrets)
        self.realm = realm
        self.life = life

    def of(self, name: str, now: float) -> list[bytes]:
        """Those that a request of this user may be signed with; none when it has ended."""
        until = expiry(name)
        if until is None or not now <= until <= now + self.life + SLACK:
            return []
        return [long_term_key(name, self.realm, password(secret, name)) for secret in self.secrets]


class Nonces:
    """Nonces that need no memory: a time, and proof that we gave it to this address.

    The key changes by the day of that time, so all processes always agree about it.
    A nonce is bound to the IP address, not to the port, because a client may go on
    with another socket.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def fresh(self, ip: str, now: float) -> bytes:
        stamp = int(now).to_bytes(8, 'big')
        # Begins with A as long as the time has leading zeros, so never with the
        # cookie of RFC 8489 9.2, which would promise more than is done here.
        return base64.urlsafe_b64encode(stamp + self._proof(stamp, ip))

    def valid(self, nonce: bytes, ip: str, now: float) -> bool:
        try:
            raw = base64.b64decode(nonce, b'-_', validate=True)
        except ValueError:
            return False
        stamp, proof = raw[:8], raw[8:]
        if len(proof) != _TAG or not hmac.compare_digest(proof, self._proof(stamp, ip)):
            return False
        return -SLACK <= now - int.from_bytes(stamp, 'big') <= NONCE_LIFE

    def _proof(self, stamp: bytes, ip: str) -> bytes:
        day = int.from_bytes(stamp, 'big') // _DAY
        key = hmac.digest(self._secret, b'nonce %d' % day, hashlib.sha256)
        return hmac.digest(key, stamp + ip.encode(), hashlib.sha256)[:_TAG]
