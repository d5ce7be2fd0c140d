"""A mailbox of 100,000 messages against one of 100: what single commands cost.

    python benchmarks/mailbox.py
    python benchmarks/mailbox.py --messages 20000 --dense --rounds 50

Both accounts live in one shard.  Every command is given `--rounds` times in
each mailbox by turns; `cpu_us` is the CPU time of the whole relay a command,
from the scheduler's own count of nanoseconds, and `ratio` that of the large
mailbox to the small one.  `others` is how long a NOOP of another account's
session of the same shard took meanwhile: how long its loop was held.

`first` is the very first access in the large mailbox after the relay started.
Commands with `select_` in their name are given together with a SELECT, as by a
client that has just connected.  Without `--dense` every eighth UID is missing.
Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.crowd import Crowd, crowd, machine, quantiles  # noqa: E402
from tests.system import mail  # noqa: E402
from tests.system.relay import Relay  # noqa: E402


def cpu(relay: Relay) -> float:
    """Seconds the relay's threads have run, finer than /proc/PID/stat."""
    total = 0
    for pid in relay.processes():
        for task in Path(f'/proc/{pid}/task').iterdir():
            total += int((task / 'schedstat').read_text().split()[0])
    return total / 1e9


class Talk:
    """A blocking IMAP client, as thin as can be."""

    def __init__(self, relay: Relay, address: str, password: str) -> None:
        self.stream = relay.connect('imaps', timeout=60)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.stream.makefile('rb')
        self.lines.readline()
        self.run(f'LOGIN {address} {password}')

    def run(self, command: str | bytes) -> list[bytes]:
        """Send one command; all lines up to its status, which must be OK."""
        data = command.encode() if isinstance(command, str) else command
        self.stream.sendall(b'T ' + data + b'\r\n')
        answer = []
        while not (line := self.lines.readline()).startswith(b'T '):
            if not line:
                raise ConnectionResetError('closed by the relay')
            answer.append(line)
        if not line.startswith(b'T OK'):
            raise RuntimeError(repr(line))
        return answer

    def close(self) -> None:
        self.lines.close()
        self.stream.close()


class Watch(threading.Thread):
    """Another account's session that says NOOP all the time."""

    def __init__(self, relay: Relay, address: str, password: str) -> None:
        super().__init__()
        self.talk = Talk(relay, address, password)
        self.times: list[float] = []
        self.ending = False

    def run(self) -> None:
        while not self.ending:
            then = time.perf_counter()
            self.talk.run('NOOP')
            self.times.append(time.perf_counter() - then)
            time.sleep(0.001)
        self.talk.close()

    def take(self) -> list[float]:
        times, self.times = self.times, []
        return times


class Box:
    """One of the two mailboxes."""

    def __init__(self, people: Crowd, name: str) -> None:
        self.address, self.password = people.person(name)
        self.relay = people.relay
        self.count = 0
        self.dense = False
        self.message = mail.encrypted(self.address)
        self.talk: Talk | None = None

    def connect(self) -> Talk:
        self.talk = Talk(self.relay, self.address, self.password)
        return self.talk

    def uid(self, number: int) -> int:
        """Of the message that had this number (from 1) when the mailbox was filled."""
        return number if self.dense else number + (number - 1) // 7


Do = Callable[[Talk, Box, int], Any]


def commands() -> dict[str, Do]:
    """Name: what is done; the last argument counts the rounds."""
    fetch = '(UID FLAGS RFC822.SIZE BODY.PEEK[])'

    def append(talk: Talk, box: Box, _: int) -> None:
        talk.run(b'APPEND INBOX {%d+}\r\n%s' % (len(box.message), box.message))

    def expunge(talk: Talk, box: Box, turn: int) -> None:
        uid = box.uid(box.count // 2 + 7 + turn)
        talk.run(f'UID STORE {uid} +FLAGS.SILENT (\\Deleted)')
        answer = talk.run(f'UID EXPUNGE {uid}')
        assert len(answer) == 1, answer

    def one(command: str) -> Do:
        def do(talk: Talk, box: Box, turn: int) -> None:
            middle = box.count // 2
            talk.run(
                command.format(
                    fetch=fetch,
                    new=box.uid(box.count),
                    old=box.uid(1),
                    middle=box.uid(middle),
                    last=box.uid(middle + 4),
                    number=middle,
                    sign='+-'[turn % 2],
                )
            )

        return do

    def selected(command: str) -> Do:
        inner = one(command)

        def do(talk: Talk, box: Box, turn: int) -> None:
            talk.run('SELECT INBOX')
            inner(talk, box, turn)

        return do

    return {
        'status': one('STATUS INBOX (MESSAGES UIDNEXT UNSEEN)'),
        'select': one('SELECT INBOX'),
        'select_uid_fetch_newest': selected('UID FETCH {new} {fetch}'),
        'select_uid_fetch_middle': selected('UID FETCH {middle} {fetch}'),
        'select_uid_fetch_oldest': selected('UID FETCH {old} {fetch}'),
        'select_fetch_number': selected('FETCH {number} {fetch}'),
        'uid_fetch_newest': one('UID FETCH {new} {fetch}'),
        'uid_fetch_middle': one('UID FETCH {middle} {fetch}'),
        'uid_fetch_oldest': one('UID FETCH {old} {fetch}'),
        'fetch_number': one('FETCH {number} {fetch}'),
        'uid_search_small': one('UID SEARCH UID {middle}:{last} UNDELETED'),
        'uid_store': one('UID STORE {middle} {sign}FLAGS (\\Flagged)'),
        'append': append,
        'expunge': expunge,
    }


def fill(people: Crowd, counts: dict[str, int], dense: bool) -> None:
    """Make the accounts, stop the relay, fill the mailboxes, start it again."""
    for name in (*counts, 'watcher'):
        Talk(people.relay, *people.person(name)).close()
    people.relay.stop()
    for name, count in counts.items():
        subprocess.run(
            [
                sys.executable,
                str(Path(__file__).with_name('fill.py')),
                str(people.relay.state_dir / 'shards' / '0'),
                people.person(name)[0],
                str(count),
                '--run-length',
                str(1 << 30 if dense else 7),
            ],
            check=True,
        )
    people.relay.start()


def measure(people: Crowd, arguments: argparse.Namespace) -> dict[str, Any]:
    relay = people.relay
    counts = {'small': 100, 'large': arguments.messages}
    fill(people, counts, arguments.dense)
    watch = Watch(relay, *people.person('watcher'))
    watch.start()
    time.sleep(1)
    boxes = []
    result: dict[str, Any] = {'messages': arguments.messages, 'others_quiet': {}}
    result['others_quiet'] = quantiles(watch.take())
    first: dict[str, float] = {}
    for name, count in counts.items():
        box = Box(people, name)
        box.count, box.dense = count, arguments.dense
        boxes.append(box)
    talk = boxes[1].connect()
    for what, do in list(commands().items())[:5]:
        watch.take()
        then, used = time.perf_counter(), cpu(relay)
        do(talk, boxes[1], 0)
        first[what] = round((time.perf_counter() - then) * 1e3, 2)
        time.sleep(0.01)
        first[what + '_cpu_ms'] = round((cpu(relay) - used) * 1e3, 2)
        first[what + '_others_worst_ms'] = round(max(watch.take(), default=0.0) * 1e3, 2)
    result['first'] = first
    # From now on without the watcher, whose NOOPs would count.
    watch.ending = True
    watch.join()
    boxes[0].connect()
    table: dict[str, Any] = {}
    rounds = arguments.rounds
    for what, do in commands().items():
        used = [0.0, 0.0]
        for box in boxes:
            assert box.talk is not None
            box.talk.run('SELECT INBOX')
        # EXPUNGE has only so many messages in the small mailbox.
        turns = min(rounds, 40) if what == 'expunge' else rounds
        for start in range(0, turns, 10):
            for index, box in enumerate(boxes):
                assert box.talk is not None
                before = cpu(relay)
                for turn in range(start, min(start + 10, turns)):
                    do(box.talk, box, turn)
                used[index] += cpu(relay) - before
        small, large = (seconds / turns * 1e6 for seconds in used)
        table[what] = {
            'small_cpu_us': round(small, 1),
            'large_cpu_us': round(large, 1),
            'ratio': round(large / small, 2),
        }
    # And once more with somebody watching.
    watch = Watch(relay, *people.person('watcher'))
    watch.start()
    time.sleep(0.2)
    for what, do in commands().items():
        if what == 'expunge':
            continue
        watch.take()
        for turn in range(20):
            assert boxes[1].talk is not None
            do(boxes[1].talk, boxes[1], turn)
        table[what]['others'] = quantiles(watch.take())
    watch.ending = True
    watch.join()
    for box in boxes:
        assert box.talk is not None
        box.talk.close()
    result['commands'] = table
    result['worst_ratio'] = max(entry['ratio'] for entry in table.values())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--messages', type=int, default=100_000)
    parser.add_argument('--rounds', type=int, default=200)
    parser.add_argument('--dense', action='store_true', help='no UID is missing')
    arguments = parser.parse_args()
    with crowd({'processes': {'gates': 1, 'shards': 1}}) as people:
        result = measure(people, arguments)
    print(json.dumps({**result, 'machine': machine()}, indent=1))


if __name__ == '__main__':
    main()
