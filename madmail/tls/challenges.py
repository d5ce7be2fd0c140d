"""HTTP-01 challenges (RFC 8555 8.3): files that port 80 answers with while an order runs.

A process of its own orders and all web workers answer, so they meet in a directory,
`<state_dir>/tls/challenges/TOKEN`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from madmail.tls.files import make_directory, write

DIRECTORY = 'challenges'  # in the one of TLS
PATH = '/.well-known/acme-challenge/'
# RFC 8555 8.3: of the alphabet of base64url; nothing that means anything to a path.
TOKEN = re.compile(r'[A-Za-z0-9_-]{1,128}')
ANSWER_LIMIT = 512  # octets: a token, a dot and a SHA-256 in base64
LIMIT = 32  # at a time


def put(directory: Path, token: str, answer: str) -> None:
    """Answer requests for `token`.  Raises ValueError for what is none, and OSError."""
    if not TOKEN.fullmatch(token) or len(answer) > ANSWER_LIMIT or not answer.isascii():
        raise ValueError('not a challenge')
    place = directory / DIRECTORY
    make_directory(place)
    if len(os.listdir(place)) >= LIMIT:
        raise ValueError('too many challenges')
    write(place / token, answer.encode())


def find(directory: Path, token: str) -> bytes | None:
    """The answer to a request, None if that token is not expected.

    PERF: 20 µs, and only while somebody asks for this path.
    """
    if not TOKEN.fullmatch(token):
        return None
    try:
        descriptor = os.open(
            directory / DIRECTORY / token, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        )
        with open(descriptor, 'rb') as file:
            return file.read(ANSWER_LIMIT)
    except OSError:
        return None


def clear(directory: Path) -> None:
    """Answer nothing any more, and forget what an interrupted order has left."""
    place = directory / DIRECTORY
    try:
        names = os.listdir(place)
    except OSError:
        return
    for name in names:
        (place / name).unlink(missing_ok=True)
