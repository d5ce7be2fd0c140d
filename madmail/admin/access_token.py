"""The token that the admin API asks for: `<state_dir>/admin_token`, one line.

64 lower-case hexadecimal characters, readable by the owner only.  It is made
when there is none, and replaced when it is something else.  Who reads it for
every request asks `Watched`, which looks whether the file is another one.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from hmac import compare_digest
from pathlib import Path

NAME = 'admin_token'
OCTETS = 32  # of randomness

_FORM = re.compile(r'[0-9a-f]{64}')


def read(state_dir: Path) -> str:
    """The token, '' if there is none or it is malformed.  Raises OSError."""
    try:
        text = (state_dir / NAME).read_bytes().decode('ascii').strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ''
    return text if _FORM.fullmatch(text) else ''


def load(state_dir: Path) -> str:
    """The token, made if there is none.  Raises OSError."""
    token = read(state_dir)
    if token:
        return token
    path = state_dir / NAME
    if path.exists():
        return rotate(state_dir)
    fresh = _write(state_dir, secrets.token_hex(OCTETS))
    try:
        os.link(fresh, path)  # unless somebody else was faster
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    _keep(state_dir)
    return read(state_dir)


def rotate(state_dir: Path) -> str:
    """A new token in place of the old one, which is worth nothing from now on."""
    token = secrets.token_hex(OCTETS)
    fresh = _write(state_dir, token)
    os.replace(fresh, state_dir / NAME)
    _keep(state_dir)
    return token


def _write(state_dir: Path, token: str) -> Path:
    """A file with the token, beside the one in force."""
    descriptor, name = tempfile.mkstemp(prefix=f'{NAME}.', dir=state_dir)  # mode 0600
    with open(descriptor, 'w') as file:
        file.write(f'{token}\n')
        file.flush()
        os.fsync(file.fileno())
    return Path(name)


def _keep(state_dir: Path) -> None:
    """Make the change of the directory durable."""
    directory = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Watched:
    """The token in force, whoever changes it."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._seen: tuple[int, int, int] | None = None
        self._token = b''

    def matches(self, given: str) -> bool:
        """In constant time.  Without a token nothing matches.  PERF: 4 µs, most of it stat()."""
        try:
            status = (self._state_dir / NAME).stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                self._token = read(self._state_dir).encode()
                self._seen = seen
        except OSError:
            self._seen, self._token = None, b''
        same = compare_digest(given.encode('utf-8', 'replace'), self._token)
        return same and bool(self._token)
