"""What bad company costs others: slow readers, slow writers, floods of commands.

    python benchmarks/slow.py                       all kinds, about a minute
    python benchmarks/slow.py --only quiet,noops

One gate and one shard serve everybody.  The figure is that of relay.py: end of
DATA to EXISTS for other accounts, 400 messages one at a time, first in `quiet`
and then beside each kind of company, which comes from a process of its own:

    readers   fetch a message of 29 MB and read one octet a second
    writers   send one octet a second within DATA
    noops     send NOOP without end, and read the answers
    deaf      send NOOP without end, and read nothing
    fetches   send FETCH 1:* of 2,000 messages without end, and read the answers
    searches  send SEARCH TEXT over the same
    rsets     send RSET without end over submission, and read the answers
    all       one of everything

Prints JSON.  Gate, shard, company and measuring process want a processor each, so
on a small machine part of the figure is the scheduler's: `spinning` shows how
much, a process that only burns CPU, without a connection.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.crowd import Crowd, crowd, machine  # noqa: E402
from benchmarks.mailbox import Talk, cpu  # noqa: E402
from tests.system import mail  # noqa: E402
from tests.system.relay import client_tls, plain_token  # noqa: E402

KINDS = ('readers', 'writers', 'noops', 'deaf', 'fetches', 'searches', 'rsets', 'spinning')
COUNT = {'readers': 10, 'writers': 10}
LARGE = 29_000_000  # octets
MESSAGES = 2000  # in the mailbox that is fetched
LIFE = 60  # seconds; company that is forgotten goes by itself

Person = tuple[str, str]


# -- the company, in its own process


def imap(port: int, person: Person) -> socket.socket:
    stream = client_tls().wrap_socket(socket.create_connection(('127.0.0.1', port)))
    lines = stream.makefile('rb')
    lines.readline()
    stream.sendall(f'1 LOGIN {person[0]} {person[1]}\r\n2 SELECT INBOX\r\n'.encode())
    while not lines.readline().startswith(b'2 OK'):
        pass
    return stream


def submission(port: int, person: Person) -> socket.socket:
    stream = client_tls().wrap_socket(socket.create_connection(('127.0.0.1', port)))
    lines = stream.makefile('rb')
    lines.readline()
    stream.sendall(b'EHLO x\r\nAUTH PLAIN ' + plain_token(*person).encode() + b'\r\n')
    while not lines.readline().startswith(b'235'):
        pass
    return stream


def flood(stream: socket.socket, line: bytes, *, deaf: bool = False) -> Iterator[socket.socket]:
    """Send without end; with `deaf` nothing is read.  Yields what to wait for."""
    stream.setblocking(False)
    data = line * max(1, 16384 // len(line))
    scratch = bytearray(65536)
    pending = data
    while True:
        with contextlib.suppress(BlockingIOError, OSError):
            pending = pending[stream.send(pending) :] or data
        if not deaf:
            with contextlib.suppress(BlockingIOError, OSError):
                while stream.recv_into(scratch):
                    pass
        yield stream


def company(kind: str, ports: dict[str, int], person: Person) -> Iterator[socket.socket | None]:
    """One bad client as steps; a slow one's steps are a second long."""
    if kind == 'spinning':
        while True:
            sum(range(10_000))
            yield None
    if kind in ('writers', 'rsets'):
        stream = submission(ports['submissions'], person)
        if kind == 'rsets':
            yield from flood(stream, b'RSET\r\n')
        sender = person[0].encode()
        stream.sendall(b'MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n' % (sender, sender))
        for octet in mail.dotted(mail.encrypted(person[0])):
            stream.sendall(bytes((octet,)))
            yield None
        return
    stream = imap(ports['imaps'], person)
    if kind == 'readers':
        stream.sendall(b'3 FETCH 1 BODY.PEEK[]\r\n')
        while True:
            stream.recv(1)
            yield None
    line = {
        'noops': b'a NOOP\r\n',
        'deaf': b'a NOOP\r\n',
        'fetches': b'a FETCH 1:* (UID FLAGS RFC822.SIZE)\r\n',
        'searches': b'a SEARCH TEXT nothing\r\n',
    }[kind]
    yield from flood(stream, line, deaf=kind == 'deaf')


def behave(orders: dict[str, Any]) -> None:
    """The child: clients of several kinds until it is ended."""
    signal.alarm(LIFE)
    slow: list[Iterator[Any]] = []
    floods: dict[int, Iterator[Any]] = {}
    spinning: list[Iterator[Any]] = []
    poll = select.poll()
    for kind, people in orders['people'].items():
        for person in people:
            steps = company(kind, orders['ports'], tuple(person))
            stream = next(steps)
            if stream is not None:
                events = select.POLLOUT if kind == 'deaf' else select.POLLIN | select.POLLOUT
                poll.register(stream.fileno(), events)
                floods[stream.fileno()] = steps
            else:
                (spinning if kind == 'spinning' else slow).append(steps)
    print('ready', flush=True)
    due = 0.0
    while True:
        if time.monotonic() >= due:
            due = time.monotonic() + 1
            for steps in slow:
                next(steps, None)
        for descriptor, happened in poll.poll(0 if spinning else 100):
            if happened & ~(select.POLLIN | select.POLLOUT):
                poll.unregister(descriptor)  # it was thrown out
            else:
                next(floods[descriptor])
        for steps in spinning:
            next(steps)


# -- the measurement


def measure(people: Crowd, kinds: dict[str, int]) -> dict[str, Any]:
    """Latency of others beside so many of each kind."""
    relay = people.relay
    orders = {
        'ports': relay.ports,
        'people': {
            kind: [
                people.person(f'{kind}{n}' if kind != 'deaf' else 'noops0') for n in range(count)
            ]
            for kind, count in kinds.items()
        },
    }
    child = subprocess.Popen(
        [sys.executable, __file__, '--company', json.dumps(orders)], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        if kinds and child.stdout.readline() != b'ready\n':
            raise RuntimeError('the company did not come')
        time.sleep(1)
        before, began = cpu(relay), time.perf_counter()
        people.latency()
        wall = time.perf_counter() - began
        used = cpu(relay) - before
    finally:
        child.kill()
        child.wait()
    time.sleep(0.5)
    return {
        'p50_ms': round(people.figures['latency_p50'], 2),
        'p99_ms': round(people.figures['latency_p99'], 2),
        'relay_cpu_share': round(used / wall, 2),
    }


def prepare(people: Crowd) -> None:
    relay = people.relay
    for n in range(COUNT['readers']):
        person = people.person(f'readers{n}')
        Talk(relay, *person).close()
    with relay.smtp(*people.person('readers0'), timeout=60) as smtp:
        smtp.mail(people.person('readers0')[0])
        for n in range(COUNT['readers']):
            smtp.rcpt(people.person(f'readers{n}')[0])
        smtp.docmd('DATA')
        smtp.send(mail.dotted(mail.encrypted(people.person('readers0')[0], size=LARGE)))
        code, text = smtp.getreply()
        if code != 250:
            raise RuntimeError(f'{code} {text!r}')
    for name in ('fetches0', 'searches0'):
        talk = Talk(relay, *people.person(name))
        message = mail.encrypted(people.person(name)[0], size=1500)
        for _ in range(MESSAGES // 100):
            talk.stream.sendall((b'm APPEND INBOX {%d+}\r\n%s\r\n' % (len(message), message)) * 100)
            for _ in range(100):
                while not talk.lines.readline().startswith(b'm OK'):
                    pass
        talk.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', default='', help='some of quiet,all,' + ','.join(KINDS))
    parser.add_argument('--company', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.company:
        behave(json.loads(arguments.company))
        return
    wanted = [kind for kind in arguments.only.split(',') if kind]
    cases: dict[str, dict[str, int]] = {'quiet': {}}
    cases.update((kind, {kind: COUNT.get(kind, 1)}) for kind in KINDS)
    cases['all'] = {kind: COUNT.get(kind, 1) for kind in KINDS if kind != 'spinning'}
    result: dict[str, Any] = {}
    with crowd({'processes': {'gates': 1, 'shards': 1}}) as people:
        prepare(people)
        people.latency()  # makes the accounts
        for name, kinds in cases.items():
            if not wanted or name in wanted or name == 'quiet':
                print(f'{name} …', file=sys.stderr, flush=True)
                result[name] = measure(people, kinds)
    quiet = result['quiet']
    for entry in result.values():
        entry['ratio_p50'] = round(entry['p50_ms'] / quiet['p50_ms'], 1)
    print(json.dumps({**result, 'machine': machine()}, indent=1))


if __name__ == '__main__':
    main()
