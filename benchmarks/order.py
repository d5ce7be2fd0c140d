"""SORT, THREAD and SEARCH over 100,000 messages: their CPU, and whether anybody else waits.

    python benchmarks/order.py
    python benchmarks/order.py --messages 20000

The messages are encrypted ones of 3 KB as in mailbox.py, but each with a Message-ID,
a subject and references of its own: conversations of fifty, in which everybody
refers to the last three.  `cpu_ms` is the CPU time of the whole relay; `again` that
of the same command given once more, when keys of SORT are remembered; `others` is
how long a NOOP of another account's session of the same shard took meanwhile.
Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.crowd import Crowd, crowd, machine, quantiles  # noqa: E402
from benchmarks.mailbox import Talk, Watch, cpu, fill  # noqa: E402

COMMANDS = {
    'search_subject': 'UID SEARCH SUBJECT 77',
    'search_text': 'UID SEARCH TEXT nothing',
    'sort_arrival': 'UID SORT (ARRIVAL) UTF-8 ALL',
    'sort_subject': 'UID SORT (SUBJECT) UTF-8 ALL',
    'sort_from_date': 'UID SORT (FROM REVERSE DATE) UTF-8 ALL',
    'thread_references': 'UID THREAD REFERENCES UTF-8 ALL',
    'thread_refs': 'UID THREAD REFS UTF-8 ALL',
    'thread_orderedsubject': 'UID THREAD ORDEREDSUBJECT UTF-8 ALL',
}
CONVERSATION = 50  # messages


def header(number: int) -> bytes:
    """What tells this message from the others."""
    first = number - number % CONVERSATION
    references = b' '.join(
        b'<%d.%d@chat.example>' % (parent, parent * 7919)
        for parent in range(max(first, number - 3), number)
    )
    return b'Message-ID: <%d.%d@chat.example>\r\nSubject: %s%d\r\n%s' % (
        number,
        number * 7919,
        b'Re: ' if number != first else b'',
        number // 3,
        b'References: %s\r\n' % references if references else b'',
    )


def tell_apart(directory: Path) -> None:
    """Give every body of the closed store a header of its own."""
    connection = sqlite3.connect(directory / 'store.db', isolation_level=None)
    connection.create_function('header', 1, header)
    connection.execute('PRAGMA synchronous = OFF')
    connection.execute('BEGIN')
    connection.execute('UPDATE bodies SET data = CAST(header(id) || data AS BLOB)')
    connection.execute('UPDATE bodies SET size = length(data)')
    connection.execute(
        'UPDATE messages SET size = (SELECT size FROM bodies WHERE id = messages.body_id)'
    )
    connection.execute('COMMIT')
    connection.execute('PRAGMA wal_checkpoint(TRUNCATE)')
    connection.close()


def measure(people: Crowd, messages: int) -> dict[str, Any]:
    relay = people.relay
    fill(people, {'large': messages}, False)
    relay.stop()
    tell_apart(relay.state_dir / 'shards' / '0')
    relay.start()
    watch = Watch(relay, *people.person('watcher'))
    watch.start()
    time.sleep(1)
    result: dict[str, Any] = {'others_quiet': quantiles(watch.take())}
    talk = Talk(relay, *people.person('large'))
    talk.run('SELECT INBOX')
    for name, command in COMMANDS.items():
        entry: dict[str, Any] = {}
        for turn in ('cpu_ms', 'again_cpu_ms'):
            watch.take()
            used = cpu(relay)
            talk.run(command)
            entry[turn] = round((cpu(relay) - used) * 1e3)
            times = watch.take()
            entry['others' if turn == 'cpu_ms' else 'others_again'] = quantiles(times)
        result[name] = entry
    watch.ending = True
    watch.join()
    talk.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--messages', type=int, default=100_000)
    arguments = parser.parse_args()
    with crowd({'processes': {'gates': 1, 'shards': 1}}) as people:
        result = measure(people, arguments.messages)
    print(json.dumps({'messages': arguments.messages, **result, 'machine': machine()}, indent=1))


if __name__ == '__main__':
    main()
