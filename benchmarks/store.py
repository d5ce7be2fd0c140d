"""What the store costs: CPU a delivery, durable deliveries a second, expiry.

    python benchmarks/store.py [--seconds S] [--directory DIR]

Prints JSON.  CPU is that of the whole process (loop and commit thread), divided
by deliveries (recipients), with 3 KB bodies.  `writers` greenlets deliver one
message after the other; groups form by themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import gevent

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from madmail.store.interface import NewMessage
from madmail.store.spool import MemoryBody
from madmail.store.sqlite import SqliteStore, open_store

BODY = MemoryBody(os.urandom(3072))


def deliveries(
    store: SqliteStore, recipients: int, writers: int, seconds: float
) -> dict[str, float]:
    """Deliver to `recipients` accounts at a time from `writers` greenlets."""
    addresses = [account.address for account in store.accounts(limit=200)]
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    def write(offset: int) -> None:
        while (begun := time.perf_counter()) < end:
            offset += recipients
            some = [addresses[(offset + n) % len(addresses)] for n in range(recipients)]
            store.deliver(BODY, some, delivery_id=os.urandom(16))
            latencies.append(time.perf_counter() - begun)

    commits, cpu, wall = store.commits, time.process_time(), time.perf_counter()
    gevent.joinall([gevent.spawn(write, 7 * n) for n in range(writers)], raise_error=True)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done = len(latencies) * recipients
    latencies.sort()
    return {
        'recipients': recipients,
        'writers': writers,
        'cpu_us_per_delivery': round(cpu / done * 1e6, 1),
        'cpu_us_per_message': round(cpu / len(latencies) * 1e6, 1),
        'messages_per_s': round(len(latencies) / wall),
        'deliveries_per_s': round(done / wall),
        'commits_per_s': round((store.commits - commits) / wall),
        'ms_p50': round(latencies[len(latencies) // 2] * 1e3, 2),
        'ms_p99': round(latencies[int(len(latencies) * 0.99)] * 1e3, 2),
    }


def expiry(store: SqliteStore, count: int) -> dict[str, float]:
    """Expire `count` messages of one account while measuring how long the loop is held."""
    account = store.create_account('expiry@localhost', '', 0)
    assert account is not None
    inbox = store.mailbox(account.id, 'INBOX')
    assert inbox is not None
    some = [NewMessage(BODY, internal_date=1000)] * 500
    for _ in range(count // 500):
        store.append(inbox.id, some)
    begun = time.perf_counter()
    array = store.uids(inbox.id)
    uids_ms = (time.perf_counter() - begun) * 1e3
    assert len(array) == count // 500 * 500
    held = 0.0

    def watch() -> None:
        nonlocal held
        while True:
            then = time.perf_counter()
            gevent.sleep(0.001)
            held = max(held, time.perf_counter() - then - 0.001)

    watcher = gevent.spawn(watch)
    cpu, wall = time.process_time(), time.perf_counter()
    removed = store.expire(2000, count)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    watcher.kill()
    return {
        'messages': removed,
        'wall_us_per_message': round(wall / removed * 1e6, 1),
        'cpu_us_per_message': round(cpu / removed * 1e6, 1),
        'loop_held_ms': round(held * 1e3, 1),
        'uids_ms': round(uids_ms, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=2.0, help='a measurement')
    parser.add_argument('--directory', type=Path, help='where to make the store; kept')
    parser.add_argument('--switchinterval', type=float, default=0.0, help='seconds')
    parser.add_argument('--expire', type=int, default=50_000, help='messages; 0 = skip')
    arguments = parser.parse_args()
    if arguments.switchinterval:
        sys.setswitchinterval(arguments.switchinterval)
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix='madmail-bench-'))
    store = open_store(directory, quota_default=0, trim_from=0.75, trim_to=0.7)
    try:
        gevent.joinall(
            [gevent.spawn(store.create_account, f'u{n}@localhost', '', 0) for n in range(200)]
        )
        result = {
            'sqlite': sqlite3.sqlite_version,
            'python': sys.version.split()[0],
            'deliveries': [
                deliveries(store, recipients, writers, arguments.seconds)
                for recipients, writers in ((1, 1), (1, 8), (1, 50), (10, 8), (50, 8))
            ],
        }
        if arguments.expire:
            result['expiry'] = expiry(store, arguments.expire)
        print(json.dumps(result, indent=1))
    finally:
        store.close()
        if arguments.directory is None:
            shutil.rmtree(directory)


if __name__ == '__main__':
    main()
