"""SHA-crypt, `$5$` (SHA-256) and `$6$` (SHA-512), by Ulrich Drepper's specification.

Written here because Python has none any more (PEP 594).  PERF: 5,000 rounds take
5 ms, all of it under the interpreter's lock: only for accounts that come from
elsewhere, once a process and account, and in a thread.
"""

from __future__ import annotations

import re
from hashlib import sha256, sha512
from time import sleep
from typing import NamedTuple

DEFAULT_ROUNDS = 5000
LEAST_ROUNDS, MOST_ROUNDS = 1000, 999_999_999

_FORM = re.compile(
    r'\$([56])\$(?:rounds=([0-9]{1,9})\$)?([^$\s]{0,16})\$([./0-9A-Za-z]{43}|[./0-9A-Za-z]{86})\Z'
)
_ALPHABET = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
_BREATH = 500  # rounds, 0.5 ms, after which another thread may have the interpreter
_REPEATS = 42  # rounds after which what is mixed in comes again: 2 · 3 · 7


class Verifier(NamedTuple):
    kind: str  # '5' or '6'
    rounds: int
    salt: bytes
    digest: str


def parse(text: str) -> Verifier:
    """The parts of a verifier.  Raises ValueError."""
    found = _FORM.match(text)
    if found is None or (found[1] == '5') != (len(found[4]) == 43):
        raise ValueError('no SHA-crypt verifier')
    kind, count, salt, digest = found.groups()
    rounds = DEFAULT_ROUNDS if count is None else int(count)
    return Verifier(kind, min(max(rounds, LEAST_ROUNDS), MOST_ROUNDS), salt.encode(), digest)


def digest(password: bytes, kind: str, rounds: int, salt: bytes) -> str:
    """The last part of the verifier of a password."""
    make = sha256 if kind == '5' else sha512
    other = make(password + salt + password).digest()
    first = make(password + salt + _fill(other, len(password)))
    length = len(password)
    while length:
        first.update(other if length & 1 else password)
        length >>= 1
    made = first.digest()
    word = _fill(make(password * len(password)).digest(), len(password))
    grain = _fill(make(salt * (16 + made[0])).digest(), len(salt))
    extra = [
        (grain if number % 3 else b'') + (word if number % 7 else b'') for number in range(_REPEATS)
    ]
    # An odd round hashes word + extra + digest, an even one digest + extra + word.
    extra = [word + more if number & 1 else more + word for number, more in enumerate(extra)]
    for number in range(rounds):
        if not number % _BREATH:
            sleep(0)
        more = extra[number % _REPEATS]
        made = make(more + made if number & 1 else made + more).digest()
    return _letters(made)


def _fill(block: bytes, length: int) -> bytes:
    """`block` as often as it takes for `length` octets."""
    return (block * (length // len(block) + 1))[:length]


def _letters(made: bytes) -> str:
    """Its own base64 of octets in its own order, and a last group of what is left."""
    if len(made) == 32:
        text = [
            _group(made[a % 30], made[(a + 10) % 30], made[(a + 20) % 30])
            for a in range(0, 210, 21)
        ]
        return ''.join(text) + _group(0, made[31], made[30])[:3]
    text = [
        _group(made[a % 63], made[(a + 21) % 63], made[(a + 42) % 63]) for a in range(0, 462, 22)
    ]
    return ''.join(text) + _group(0, 0, made[63])[:2]


def _group(high: int, middle: int, low: int) -> str:
    """Three octets as four letters, the lowest six bits first."""
    word = high << 16 | middle << 8 | low
    return ''.join([_ALPHABET[word >> shift & 63] for shift in (0, 6, 12, 18)])
