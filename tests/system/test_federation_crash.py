"""kill -9 at both ends while two relays exchange mail: nothing lost, nothing twice.

Each run prints its seed; MADMAIL_SEED repeats it, MADMAIL_CRASH_SECONDS makes it longer.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import smtplib
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.system import mail
from tests.system.relay import Relay, fetch_all
from tests.system.test_federation import Pair, identity

SECONDS = float(os.environ.get('MADMAIL_CRASH_SECONDS', '8'))
SENDERS = 2  # at each relay
RECEIVERS = 3
PAUSE = (0.3, 1.2)  # seconds between two kills
ARRIVAL = 60.0  # seconds until everything must be there

Person = tuple[str, str]


class Traffic:
    """People of one relay who write to people of the other; no message is ever repeated."""

    def __init__(self, relay: Relay, receivers: list[Person], dice: random.Random) -> None:
        self.relay = relay
        self.receivers = receivers
        self.accepted: dict[str, list[str]] = {}
        self.uncertain = 0
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(
                target=self.send, args=(relay.account('sender'), random.Random(dice.random()))
            )
            for _ in range(SENDERS)
        ]

    def send(self, person: Person, dice: random.Random) -> None:
        smtp: smtplib.SMTP | None = None
        while not self.stop.is_set():
            with contextlib.suppress(OSError, smtplib.SMTPException):
                smtp = smtp or self.relay.smtp(*person, timeout=10)
            if smtp is None:
                time.sleep(0.05)
                continue
            ident = mail.message_id()
            people = dice.sample(self.receivers, dice.choice((1, 1, 2)))
            to = [address for address, _ in people]
            size = dice.choice((3000, 3000, 3000, 200_000))
            text = mail.encrypted(person[0], size=size, ident=ident)
            try:
                assert smtp.sendmail(person[0], to, text) == {}
            except (OSError, smtplib.SMTPException):
                self.uncertain += 1
                smtp.close()
                smtp = None
            else:
                self.accepted[f'<{ident}>'] = to
            time.sleep(0.01)
        if smtp is not None:
            smtp.close()


def processes(relay: Relay, role: str) -> list[int]:
    """Of the web server only its worker, which is the younger one."""
    found = relay.pids(role)
    return found[-1:] if role == 'http' else found


def kill_one(relay: Relay, role: str, dice: random.Random) -> bool:
    before = processes(relay, role)
    if not before:
        return False  # its successor is not there yet
    victim = dice.choice(before)
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    return True


def seen_by(relay: Relay, person: Person) -> Counter[str]:
    with relay.imap(*person, timeout=60) as inbox:
        return Counter(identity(text) for text in fetch_all(inbox).values())


@pytest.mark.parametrize(
    ('transport', 'roles'),
    [('https', ('courier', 'http')), ('smtp', ('courier', 'shard'))],
    ids=['https', 'smtp'],
)
def test_nothing_is_lost_or_doubled(
    tmp_path: Path, transport: str, roles: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get('MADMAIL_SEED') or random.SystemRandom().randrange(1 << 32))
    print(f'\nMADMAIL_SEED={seed} {transport}')
    dice = random.Random(seed)
    kills = Counter[str]()
    with Pair(tmp_path) as pair:
        pair.join(transport)
        relays = (pair.one, pair.two)
        people = {relay: [relay.account('receiver') for _ in range(RECEIVERS)] for relay in relays}
        ways = [
            Traffic(pair.one, people[pair.two], dice),
            Traffic(pair.two, people[pair.one], dice),
        ]
        for way in ways:
            for thread in way.threads:
                thread.start()
        try:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                time.sleep(dice.uniform(*PAUSE))
                relay, role = dice.choice(relays), dice.choice(roles)
                kills[role] += kill_one(relay, role, dice)
        finally:
            for way in ways:
                way.stop.set()
            for way in ways:
                for thread in way.threads:
                    thread.join(30)
                    assert not thread.is_alive(), 'a client hangs'
        assert min(kills[role] for role in roles) >= 1
        number = 0
        for way, there in zip(ways, reversed(relays), strict=True):
            assert len(way.accepted) > 30
            end = time.monotonic() + ARRIVAL
            while True:
                seen = {person[0]: seen_by(there, person) for person in people[there]}
                missing = [(i, a) for i, to in way.accepted.items() for a in to if not seen[a][i]]
                if not missing or time.monotonic() > end:
                    break
                time.sleep(0.5)
            assert missing == [], f'{len(missing)} lost'
            number += sum(map(len, way.accepted.values()))
        time.sleep(3)  # whatever is still tried again would show now
        for there in relays:
            for person in people[there]:
                twice = {i: n for i, n in seen_by(there, person).items() if n > 1}
                assert twice == {}, f'{len(twice)} more than once'
        uncertain = sum(way.uncertain for way in ways)
    with capsys.disabled():
        print(f'\n{transport}: {dict(kills)} killed, {number} deliveries, {uncertain} unanswered')
