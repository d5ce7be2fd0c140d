"""What push notifications cost, and that an outage of their service costs next to nothing.

    python benchmarks/push.py                  about a minute
    python benchmarks/push.py --messages 2000

The service is a process of its own that answers at once; its CPU does not count.

    message_cpu          ms of the relay's CPU a message, no device anywhere
    told_message_cpu     the same where each receiver has a phone (and mail comes faster than
                         the service is told, so that some messages share a notification)
    notification_cpu     ms more, for each notification sent
    apart_cpu            ms of CPU for a message alone, five a second, no device
    told_apart_cpu       the same with a notification each
    latency_p50, _p99    ms from the end of data to the request, messages one at a time
    outage_cpu           ms of CPU a second, 2,000 tokens due and the service answers 503
    outage_requests      how many requests that is in those seconds
    recovery_seconds     until all 2,000 are told once it answers
    recovery_cpu         ms of CPU for each of them
    recovery_twice       tokens that were told twice

Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.relay import Bench, machine  # noqa: E402
from tests.realtime.push.double import NotificationService  # noqa: E402
from tests.system import mail  # noqa: E402
from tests.system.relay import Relay  # noqa: E402

RECEIVERS = 50
ACCOUNTS, DEVICES = 100, 20  # of the outage: 2,000 tokens
OUTAGE = 10.0  # seconds


def serve(pipe: Connection) -> None:
    """The service's process: answers what it is asked over the pipe."""
    with NotificationService() as service:
        pipe.send(service.url)
        while True:
            question, value = pipe.recv()
            if question == 'status':
                service.behave = lambda request, value=value: value
                pipe.send(None)
            elif question == 'times':
                pipe.send([request.at for request in service.requests[value:]])
            elif question == 'counts':
                counts = dict.fromkeys(service.tokens[value:], 0)
                for token in service.tokens[value:]:
                    counts[token] += 1
                pipe.send(counts)
            else:
                pipe.send(len(service.requests))
            if question == 'end':
                return


class Service:
    """The other end."""

    def __init__(self) -> None:
        context = multiprocessing.get_context('spawn')
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        self.url: str = self._pipe.recv()

    def ask(self, question: str, value: int = 0) -> Any:
        self._pipe.send((question, value))
        return self._pipe.recv()

    @property
    def count(self) -> int:
        count: int = self.ask('count')
        return count

    def rest(self, relay: Relay, timeout: float = 60.0) -> None:
        """Until nothing waits any more."""
        end = time.monotonic() + timeout
        before = -1
        while (count := self.count) != before and time.monotonic() < end:
            before = count
            time.sleep(0.5)


def register(relay: Relay, person: tuple[str, str], tokens: list[str]) -> None:
    client = relay.imap(*person)
    for token in tokens:
        client.xatom('SETMETADATA', 'INBOX', f'(/private/devicetoken "openpgp:{token}")')
    client.logout()


def token(name: str) -> str:
    """About as long as real ones."""
    return f'{name}-' + 'A' * 900


def crowd_of_messages(bench: Bench, service: Service, count: int) -> dict[str, float]:
    relay, figures = bench.relay, {}
    receivers, senders = bench.receivers(RECEIVERS), bench.senders(8)
    bench.stream(senders, receivers, 40, 60)  # warm
    cpu, _ = bench.stream(senders, receivers, count // 8, 120)
    figures['message_cpu'] = cpu * 1000 / count
    for number in range(RECEIVERS):
        register(relay, bench.person(f'receiver{number}'), [token(f'r{number}')])
    bench.stream(senders, receivers, 40, 60)
    service.rest(relay)
    before = service.count
    began = relay.cpu()
    bench.stream(senders, receivers, count // 8, 120)
    service.rest(relay)
    cpu = relay.cpu() - began
    sent = service.count - before
    figures['told_message_cpu'] = cpu * 1000 / count
    figures['notifications_a_message'] = sent / count
    figures['notification_cpu'] = (cpu * 1000 - figures['message_cpu'] * count) / sent
    bench.close(receivers, senders)
    return figures


def one_by_one(bench: Bench, service: Service, count: int, to: str) -> dict[str, float]:
    relay = bench.relay
    sender, receiver = bench.person('sender0'), bench.person(to)
    moments = []
    with relay.smtp(*sender) as smtp:
        before, began = service.count, relay.cpu()
        for _ in range(count):
            text = mail.encrypted(sender[0])
            smtp.mail(sender[0])
            smtp.rcpt(receiver[0])
            smtp.docmd('DATA')
            smtp.send(mail.dotted(text))
            moments.append(time.time())
            smtp.getreply()
            time.sleep(0.2)
        service.rest(relay)
    cpu = relay.cpu() - began
    times = service.ask('times', before)
    if to != 'receiver0':
        assert not times
        return {'apart_cpu': cpu * 1000 / count}
    assert len(times) == count, (len(times), count)
    took = sorted((told - sent) * 1000 for told, sent in zip(times, moments, strict=True))
    return {
        'told_apart_cpu': cpu * 1000 / count,
        'latency_p50': took[count // 2],
        'latency_p99': took[min(count * 99 // 100, count - 1)],
    }


def outage(bench: Bench, service: Service) -> dict[str, float]:
    relay = bench.relay
    people = [bench.person(f'phone{number}') for number in range(ACCOUNTS)]
    for number, person in enumerate(people):
        register(relay, person, [token(f'p{number}-{n}') for n in range(DEVICES)])
    service.ask('status', 503)
    before = service.count
    with relay.smtp(*bench.person('sender0')) as smtp:
        sender = bench.person('sender0')[0]
        smtp.sendmail(sender, [address for address, _ in people], mail.encrypted(sender))
    time.sleep(1.0)
    began = relay.cpu()
    time.sleep(OUTAGE)
    figures = {
        'outage_cpu': (relay.cpu() - began) * 1000 / OUTAGE,
        'outage_requests': float(service.count - before),
    }
    service.ask('status', 200)
    mark, cpu, start = service.count, relay.cpu(), time.monotonic()
    relay.cli('push', 'on')  # instead of waiting for the breaker
    wanted = ACCOUNTS * DEVICES
    while len(counts := service.ask('counts', mark)) < wanted and time.monotonic() < start + 120:
        time.sleep(0.1)
    assert len(counts) == wanted, len(counts)
    figures['recovery_seconds'] = time.monotonic() - start
    time.sleep(1.0)
    figures['recovery_cpu'] = (relay.cpu() - cpu) * 1000 / wanted
    counts = service.ask('counts', mark)
    figures['recovery_twice'] = float(sum(count > 1 for count in counts.values()))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--messages', type=int, default=4000)
    arguments = parser.parse_args()
    arguments.connections = 0
    service = Service()
    options: dict[str, Any] = {
        'processes': {'gates': 'auto', 'shards': 'auto'},
        'limits.quota': 0,
        'push': {'url': service.url},
    }
    figures: dict[str, float] = {}
    try:
        with tempfile.TemporaryDirectory() as directory, Relay(Path(directory), options) as relay:
            bench = Bench(relay, arguments)
            try:
                figures |= crowd_of_messages(bench, service, arguments.messages)
                relay.imap(*bench.person('alone')).logout()
                figures |= one_by_one(bench, service, 100, 'alone')
                figures |= one_by_one(bench, service, 100, 'receiver0')
                figures |= outage(bench, service)
            finally:
                bench.loop.close()
    finally:
        service.ask('end')
        service.process.join(5)
    result = {name: round(value, 3) for name, value in figures.items()}
    print(json.dumps({'figures': result, 'machine': machine()}, indent=1))
    return 0


if __name__ == '__main__':
    sys.exit(main())
