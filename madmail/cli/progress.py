"""How far long work is: one line on a terminal, nothing anywhere else."""

from __future__ import annotations

import sys
import time

WIDTH = 30  # characters of the bar
EVERY = 0.1  # seconds between two lines


class Bar:
    """Shown on stderr while it is entered; call it with what is done, of how many (0 = unknown)."""

    def __init__(self, what: str, *, quiet: bool = False) -> None:
        self._what = what
        self._shown = not quiet and sys.stderr.isatty()
        self._last = 0.0
        self._length = 0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._length:
            print('\r' + ' ' * self._length + '\r', end='', file=sys.stderr, flush=True)

    def __call__(self, done: int, total: int = 0) -> None:
        now = time.monotonic()
        if not self._shown or (now - self._last < EVERY and done != total):
            return
        self._last = now
        line = f'{self._what}: {done}'
        if total:
            full = min(WIDTH, done * WIDTH // total)
            line = f'{self._what} [{"#" * full}{"." * (WIDTH - full)}] {done}/{total}'
        padded = line.ljust(self._length)
        self._length = len(line)
        print(f'\r{padded}', end='', file=sys.stderr, flush=True)
