"""What the web workers count, in memory that the relay's child process reads.

A memory file of u64 words: one row a worker, one column a name.  A worker
writes only its own row, so there is one writer to every word and nothing to
lock; a row goes on counting when another worker inherits it.
"""

from __future__ import annotations

import mmap
import os

ROWS = 64  # workers that live at once, at most 32 and their successors
NAMES = (
    'requests',  # all that were read, of any kind
    'connections',  # accepted so far
    'refused_connections',  # too many from one address
    'bad_requests',  # no HTTP, or header out of bounds
    'delivered',  # /mxdeliv: messages taken, whoever they were for
    'malformed',  # wrong sender, recipients or line ends
    'rejected_policy',
    'rejected_content',  # the encryption gate
    'rejected_origin',
    'too_big',
    'too_slow',
    'cut_off',  # the peer went away in the middle
    'rate_limited',
    'over_quota',
    'trouble',  # nobody could store it
    'admin_calls',  # done for the operator
    'admin_refused',
    'exchanger_given',  # messages that exchangers have fetched
    'exchanger_denied',  # requests without a right token
    'octets_received',  # of connections that ended
    'octets_sent',
)
_COLUMNS = {name: column for column, name in enumerate(NAMES)}
SIZE = ROWS * len(NAMES) * 8  # octets


def create() -> int:
    """A memory file for `Counters`; its descriptor, closed on exec."""
    descriptor = os.memfd_create('madmail-web', os.MFD_CLOEXEC)
    os.ftruncate(descriptor, SIZE)
    return descriptor


class Counters:
    """One process's view."""

    def __init__(self, descriptor: int | None = None, row: int = 0) -> None:
        """Without a descriptor the counts are nobody else's."""
        self._map = mmap.mmap(-1 if descriptor is None else descriptor, SIZE)
        self._words = memoryview(self._map).cast('Q')
        self._start = row % ROWS * len(NAMES)

    def count(self, name: str, by: int = 1) -> None:
        self._words[self._start + _COLUMNS[name]] += by

    def totals(self) -> dict[str, int]:
        """The sums over all workers by name."""
        width = len(NAMES)
        return {name: sum(self._words[column::width].tolist()) for name, column in _COLUMNS.items()}
