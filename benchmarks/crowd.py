"""A crowd of clients around one relay: file limits, accounts, waves of connections.

Passwords are machine-made, as Delta Chat makes them, so that the relay keeps
them as keyed hashes (see account.password).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import resource
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.clients import Dialogue, Lost, Peer  # noqa: E402
from benchmarks.relay import Bench, Person  # noqa: E402
from tests.system.relay import Relay  # noqa: E402

OPTIONS: dict[str, Any] = {
    'processes': {'gates': 'auto', 'shards': 'auto'},
    'limits.connections': 0,
    'limits.quota': 0,
    'limits.sessions_per_account': 0,
}


def allow(descriptors: int) -> int:
    """Raise this process's limit of open files, which the relay inherits; how many it is.

    Above the hard limit only root may go; then `ulimit -Hn` has to be raised first.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < descriptors:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
            soft = hard = descriptors
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < descriptors:
        print(
            f'Only {hard} files may be open and {descriptors} may be needed; '
            'see docs/performance.md',
            file=sys.stderr,
        )
    return hard


class Failing(Peer):
    """A peer whose failure is noted and ends nothing else."""

    __slots__ = ('failure',)
    failure: str

    def fail(self, trouble: BaseException) -> None:
        if not self.finished:
            self.failure = f'{trouble!r} waiting for {self.marker!r}, got {self.buffer[-200:]!r}'
        self.finished = True
        self.close()

    def ready(self, events: int) -> None:
        try:
            super().ready(events)
        except Lost as trouble:
            self.fail(trouble)


class Crowd(Bench):
    """A Bench with strong passwords whose waves may fail one by one."""

    def __init__(self, relay: Relay) -> None:
        super().__init__(relay, argparse.Namespace())

    def person(self, name: str) -> Person:
        if name not in self.people:
            digest = hashlib.sha256(f'{self.relay.mark}{name}'.encode()).digest()
            password = urlsafe_b64encode(digest[:18]).decode()
            self.people[name] = (f'{name}-crowd@{self.relay.domain}', password)
        return self.people[name]

    def wave(
        self,
        dialogues: list[tuple[str, Callable[[Peer], Dialogue]]],
        *,
        at_once: int,
        timeout: float,
    ) -> tuple[list[Failing], list[float]]:
        """Open them all, `at_once` under way at a time; peers, and seconds until each was through.

        The relay may fail some: their `failure` says how.
        """
        waiting = list(reversed(dialogues))
        peers: list[Failing] = []
        under_way: list[tuple[Failing, float]] = []
        times: list[float] = []
        looked = 0.0

        def more() -> bool:
            nonlocal under_way, looked
            now = time.perf_counter()
            if now - looked > 0.02:
                looked = now
                times.extend(now - began for peer, began in under_way if peer.finished)
                under_way = [entry for entry in under_way if not entry[0].finished]
            while waiting and len(under_way) < at_once:
                listener, dialogue = waiting.pop()
                peer = Failing(self.loop, self.relay.ports[listener], dialogue)
                peer.failure = ''
                peers.append(peer)
                under_way.append((peer, now))
            return not waiting and not under_way

        try:
            self.loop.run(more, timeout, 'the wave')
        except Lost as late:
            for peer, _ in under_way:
                if not peer.finished:
                    peer.fail(late)
        return peers, times


@contextlib.contextmanager
def crowd(options: dict[str, Any] | None = None) -> Iterator[Crowd]:
    """A relay of its own processes in a temporary directory, with a crowd around it."""
    with (
        tempfile.TemporaryDirectory(prefix='madmail-bench-') as directory,
        Relay(Path(directory), {**OPTIONS, **(options or {})}) as relay,
    ):
        made = Crowd(relay)
        try:
            yield made
        finally:
            made.loop.close()


def machine() -> dict[str, Any]:
    return {
        'cpus': os.cpu_count(),
        'python': platform.python_version(),
        'kernel': platform.release(),
        'load_average': round(os.getloadavg()[0], 1),
    }


def quantiles(seconds: list[float]) -> dict[str, float]:
    """p50, p99 and the worst, in ms."""
    ordered = sorted(seconds)
    if not ordered:
        return {'count': 0}
    return {
        'count': len(ordered),
        'p50_ms': round(ordered[len(ordered) // 2] * 1e3, 2),
        'p99_ms': round(ordered[int(len(ordered) * 0.99)] * 1e3, 2),
        'worst_ms': round(ordered[-1] * 1e3, 2),
    }
