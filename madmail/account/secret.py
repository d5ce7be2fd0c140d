"""The relay's own secret, `<state_dir>/secret`: 32 random octets.

It keys the verifiers of strong passwords, so a copy of a database without it
says nothing about them.  Losing it locks those accounts out: it belongs into
every backup.
"""

from __future__ import annotations

import os
from pathlib import Path

NAME = 'secret'
SIZE = 32


def load(state_dir: Path) -> bytes:
    """The secret, made at the first call; raises ValueError when it is damaged."""
    path = state_dir / NAME
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        return _make(path)
    if len(secret) != SIZE:
        raise ValueError(f'{path} is damaged: {len(secret)} octets instead of {SIZE}')
    return secret


def _make(path: Path) -> bytes:
    secret = os.urandom(SIZE)
    fresh = path.with_name(f'{NAME}.{os.getpid()}')
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secret)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(fresh, path)  # atomic: of several processes exactly one makes it
    except FileExistsError:
        secret = path.read_bytes()
    finally:
        os.unlink(fresh)
    return secret
