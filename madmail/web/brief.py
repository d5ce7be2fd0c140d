"""What the relay's child process tells the server it starts, in a memory file.

Settings go as the values in force, not as the file they came from: a server
belongs to one generation of the configuration, whatever is written meanwhile.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path

VARIABLE = 'MADMAIL_WEB'  # the environment variable with the descriptor


@dataclass(frozen=True)
class Brief:
    given: dict[str, object]  # Settings.given
    stored: dict[str, object]  # Settings.stored()
    origin: Path | None  # Settings.origin
    state_dir: Path
    shards: int
    slot: int
    parent: int  # process id; the server ends with it
    workers: int
    http: int  # how many of `listeners` speak HTTP; then come those
    https: int  # with HTTPS, and then those for metrics
    listeners: tuple[int, ...]  # descriptors
    probe: int
    counters: int
    peer_key: bytes  # of the hashes of addresses, see account.flood
    pem: bytes  # certificate and key, where only root may read their files; else b''

    def store(self) -> int:
        """A memory file with all of it; its descriptor, closed on exec."""
        descriptor = os.memfd_create('madmail-brief', os.MFD_CLOEXEC)
        with os.fdopen(os.dup(descriptor), 'wb') as file:
            pickle.dump(self, file)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor


def load() -> Brief:
    """In the server: what its parent stored; once."""
    with os.fdopen(int(os.environ.pop(VARIABLE)), 'rb') as file:
        brief = pickle.load(file)
    assert isinstance(brief, Brief)
    return brief
