"""Files with keys and certificates: written whole or not at all, for the relay's user only."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import NamedTuple

DIRECTORY = 'tls'  # in the state directory


class Files(NamedTuple):
    certificate: Path
    key: Path


def write(path: Path, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all, durable, readable by its owner only."""
    temporary = path.with_name(f'.{path.name}.{secrets.token_hex(4)}')
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, 'wb') as stream:
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        give_to_owner(temporary, path.parent)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def tidy(directory: Path, names: str) -> None:
    """Remove what a `write` of files whose names begin with `names` has left when it was killed.

    By who holds the lock under which they are written: it may be a key.
    """
    for path in directory.glob(f'.{names}*.????????'):
        path.unlink(missing_ok=True)


def make_directory(path: Path) -> None:
    """A directory for the relay's user only, as its parent is."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    give_to_owner(path, path.parent)


def give_to_owner(path: Path, like: Path) -> None:
    """Made by root, read by the relay's user: the owner of the state directory."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
