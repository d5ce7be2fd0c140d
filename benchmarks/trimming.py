"""Trimming of a million messages: what room for new mail costs, beside a session that works.

    python benchmarks/trimming.py                      1,000,000 messages in 1,000 accounts
    python benchmarks/trimming.py --mailboxes 1        all in one account
    python benchmarks/trimming.py --messages 100000 --directory DIR

Three parts, each with the same going on beside it as in benchmarks/expiry.py:

`lowered`    the quota of every account falls to half of what it holds, and one message
             comes for each: what is too much goes in slices, down to 70 percent.
`steady`     accounts at the mark, so that every delivery gives up old messages first.
`refused`    the same where no message is old enough to go: the delivery is refused.

The figures of a part are those of its deliveries (`trimmed`: until the message is
durable), and of what goes on beside.  Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gevent

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.expiry import BODY, SETTINGS, Others, figures, make  # noqa: E402
from madmail.store.database import PAUSE  # noqa: E402
from madmail.store.interface import Outcome  # noqa: E402
from madmail.store.sqlite import SqliteStore, open_store  # noqa: E402

STEADY = 2000  # deliveries of a part, at most


def deliver(store: SqliteStore, addresses: list[str]) -> tuple[list[float], int]:
    """One message to each, one after the other; the times, and how many were taken."""
    times, taken = [], 0
    for address in addresses:
        then = time.perf_counter()
        (outcome,) = store.deliver(BODY, [address], delivery_id=os.urandom(16))
        times.append(time.perf_counter() - then)
        taken += outcome is Outcome.STORED
        gevent.sleep(PAUSE)  # as between messages that come over a network
    return times, taken


def total(store: SqliteStore) -> int:
    """Messages in the store, without those that come in beside."""
    busy = store.account('busy@localhost')
    assert busy is not None
    count = last = 0
    while True:
        _, messages, last = store.storage(last)
        count += messages
        if not last:
            return count - store.usage(busy.id)[1]


def settled(store: SqliteStore) -> int:
    """Messages, once nothing is trimmed any more."""
    before = -1
    while before != (now := total(store)):
        before = now
        for _ in range(20):
            store.barrier()
        gevent.sleep(0.1)
    return now


def part(store: SqliteStore, addresses: list[str]) -> dict[str, Any]:
    others = Others(store)
    before = total(store)
    wall, cpu = time.perf_counter(), time.process_time()
    with others:
        times, taken = deliver(store, addresses)
        done = time.perf_counter() - wall
        after = settled(store)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    gone = before + taken - after
    return {
        'deliveries': len(addresses),
        'taken': taken,
        'trimmed_messages': gone,
        'seconds_delivering': round(done, 2),
        'seconds': round(wall, 2),
        'cpu_us_per_trimmed': round(cpu / gone * 1e6, 1) if gone else None,
        'trimmed': figures(times),
        **others.figures(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--messages', type=int, default=1_000_000)
    parser.add_argument('--mailboxes', type=int, default=1000)
    parser.add_argument('--directory', type=Path, help='where to make the store; kept')
    arguments = parser.parse_args()
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix='madmail-bench-'))
    try:
        shard = directory / 'shard'
        if not shard.exists():
            make(shard, arguments.messages, arguments.mailboxes)
        store = open_store(shard, **SETTINGS)
        try:
            gevent.sleep(0.5)
            addresses = [f'{n}@localhost' for n in range(arguments.mailboxes)]
            each = arguments.messages // arguments.mailboxes * BODY.size
            result: dict[str, Any] = {'messages': total(store), 'mailboxes': len(addresses)}
            store.limit(quota_default=each // 2, trim_from=0.75, trim_to=0.7)
            # Whoever delivers beside has room: it is not what is measured.
            busy = store.account('busy@localhost')
            assert busy is not None
            store.set_quota(busy.id, 0)
            result['lowered'] = part(store, addresses)
            at_the_mark = (addresses * (STEADY // len(addresses) + 1))[:STEADY]
            store.limit(quota_default=each // 2, trim_from=0.7, trim_to=0.7)
            result['steady'] = part(store, at_the_mark)
            young = (
                'UPDATE messages SET internal_date = ?, saved = 0 WHERE mailbox_id BETWEEN ? AND ?'
            )
            ids = store.mailbox_ids(limit=1 << 30)
            for start in range(0, len(ids), 10):
                some = ids[start : start + 10]
                store._submit(
                    lambda tx, some=some: tx.execute(young, (int(time.time()), some[0], some[-1]))
                )
            store.limit(quota_default=each // 4, trim_from=0.75, trim_to=0.7)
            result['refused'] = part(store, at_the_mark)
        finally:
            store.close()
        print(json.dumps(result, indent=1))
    finally:
        if arguments.directory is None:
            shutil.rmtree(directory)


if __name__ == '__main__':
    main()
