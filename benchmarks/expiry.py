"""Expiry of a million messages, slice by slice, beside a session that goes on working.

    python benchmarks/expiry.py                        1,000,000 messages in 1,000 mailboxes
    python benchmarks/expiry.py --mailboxes 1          all in one
    python benchmarks/expiry.py --messages 100000 --directory DIR

The store runs in this process alone, without a relay around it.  While it
expires, one greenlet looks at the clock every millisecond (`loop_held`: what it
came too late by; `loop_held_cpu`: the CPU time that the loop's thread used
meanwhile, which does not depend on what else the machine does), one delivers a
message every 20 ms (`delivery`: until it is durable) and one reads a mailbox
(`read`).  Messages have 3 KB and arrived in the mailboxes by turns, so the
oldest are spread over all.  Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.fill import fill  # noqa: E402
from madmail.store.spool import MemoryBody  # noqa: E402
from madmail.store.sqlite import SqliteStore, open_store  # noqa: E402

Settings = dict[str, Any]
SETTINGS: Settings = {'quota_default': 0, 'trim_from': 1.0, 'trim_to': 1.0}
OLD, NEW = 1_000_000_000, 1_100_000_000  # internal dates of what is filled in
BODY = MemoryBody(os.urandom(3000))


def figures(times: list[float]) -> dict[str, float]:
    """p50, p99 and the worst, in ms."""
    times.sort()
    if not times:
        return {}
    return {
        'count': len(times),
        'p50_ms': round(times[len(times) // 2] * 1e3, 2),
        'p99_ms': round(times[int(len(times) * 0.99)] * 1e3, 2),
        'worst_ms': round(times[-1] * 1e3, 2),
    }


class Others:
    """What goes on beside: how long each waits."""

    def __init__(self, store: SqliteStore) -> None:
        self.times: dict[str, list[float]] = {
            'loop_held': [],
            'loop_held_cpu': [],
            'delivery': [],
            'read': [],
        }
        self._store = store
        self._greenlets: list[Any] = []

    def __enter__(self) -> Others:
        for step in (self._watch, self._deliver, self._read):
            self._greenlets.append(gevent.spawn(self._forever, step))
        gevent.sleep(0)
        return self

    def __exit__(self, *_: object) -> None:
        gevent.killall(self._greenlets)

    def figures(self) -> dict[str, dict[str, float]]:
        return {name: figures(times) for name, times in self.times.items()}

    @staticmethod
    def _forever(step: Callable[[], Iterator[None]]) -> None:
        for _ in step():
            pass

    def _watch(self) -> Iterator[None]:
        while True:
            then, used = time.perf_counter(), time.thread_time()
            gevent.sleep(0.001)
            self.times['loop_held'].append(time.perf_counter() - then - 0.001)
            self.times['loop_held_cpu'].append(time.thread_time() - used)
            yield

    def _deliver(self) -> Iterator[None]:
        while True:
            then = time.perf_counter()
            self._store.deliver(BODY, ['busy@localhost'], delivery_id=os.urandom(16))
            self.times['delivery'].append(time.perf_counter() - then)
            gevent.sleep(0.02)
            yield

    def _read(self) -> Iterator[None]:
        account = self._store.account('busy@localhost')
        assert account is not None
        while True:
            gevent.sleep(0.01)
            then = time.perf_counter()
            box = self._store.mailbox(account.id, 'INBOX')
            assert box is not None
            for message in self._store.messages(box.id, box.uid_next - 1, box.uid_next):
                self._store.body(message.body_id)
            self.times['read'].append(time.perf_counter() - then)
            yield


def make(directory: Path, messages: int, mailboxes: int) -> None:
    store = open_store(directory, **SETTINGS)
    greenlets = [
        gevent.spawn(store.create_account, f'{n}@localhost', '', 0) for n in range(mailboxes)
    ]
    gevent.joinall(greenlets, raise_error=True)
    boxes = [row[0] for row in store._read('SELECT id FROM mailboxes ORDER BY id').fetchall()]
    store.create_account('busy@localhost', '', 0)
    store.close()
    body = BODY.read()
    fill(directory, boxes, messages // mailboxes, body, first_date=OLD, last_date=NEW)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--messages', type=int, default=1_000_000)
    parser.add_argument('--mailboxes', type=int, default=1000)
    parser.add_argument('--directory', type=Path, help='where to make the store; kept')
    parser.add_argument('--limit', type=int, default=0, help='expire only so many')
    parser.add_argument('--alone', action='store_true', help='nothing goes on beside')
    arguments = parser.parse_args()
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix='madmail-bench-'))
    try:
        shard = directory / 'shard'
        began = time.perf_counter()
        if not shard.exists():
            make(shard, arguments.messages, arguments.mailboxes)
        filled = time.perf_counter() - began
        store = open_store(shard, **SETTINGS)
        try:
            others = Others(store)
            gevent.sleep(0.5)
            limit = arguments.limit or arguments.messages
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            cpu, wall, commits = time.process_time(), time.perf_counter(), store.commits
            if arguments.alone:
                removed = store.expire(NEW + 1, limit)
            else:
                with others:
                    removed = store.expire(NEW + 1, limit)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            result = {
                'messages': removed,
                'mailboxes': arguments.mailboxes,
                'fill_seconds': round(filled, 1),
                'seconds': round(wall, 2),
                'wall_us_per_message': round(wall / max(removed, 1) * 1e6, 2),
                'cpu_us_per_message': round(cpu / max(removed, 1) * 1e6, 2),
                'commits': store.commits - commits,
                'memory_mb': round(
                    (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024, 1
                ),
                **others.figures(),
            }
        finally:
            store.close()
        print(json.dumps(result, indent=1))
    finally:
        if arguments.directory is None:
            shutil.rmtree(directory)


if __name__ == '__main__':
    main()
