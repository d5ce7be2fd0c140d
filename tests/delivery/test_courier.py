"""The courier settles every entry by one call, whatever happens in between."""

import email
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event

from madmail.delivery import courier as courier_module
from madmail.delivery import outbox as outbox_module
from madmail.delivery.courier import Courier, Transport
from madmail.delivery.destination import Parked, parked
from madmail.delivery.outbox import ShardOutbox, ToShard
from madmail.delivery.process import EXPIRE_TIME, SETTLE_TIME, CourierRole
from madmail.delivery.relaying import Unreachable
from madmail.delivery.schedule import Steps
from madmail.delivery.tracker import Tracker
from madmail.settings import Settings
from madmail.shard.calls import CallRefused, ShardUnavailable
from madmail.smtp.reply import Reply
from madmail.store.control import Control
from madmail.store.interface import Body, OutboxEntry, Outcome
from madmail.store.spool import MemoryBody
from tests.delivery.double import MemoryStore

DOMAIN = 'relay.example'
ALICE = f'alice@{DOMAIN}'
BOB = f'bob@{DOMAIN}'
CAROL = f'carol@{DOMAIN}'
TEXT = b'From: <alice@relay.example>\r\nMessage-ID: <the-one@localhost>\r\n\r\nsecret words\r\n'
NOW = 1_700_000_000


class Killed(gevent.GreenletExit):
    """kill -9, as far as one greenlet can feel it."""


class MemoryOutbox:
    """The outbox of a MemoryStore; `die_before` and `die_after` name a call."""

    def __init__(self, shard: int, store: MemoryStore) -> None:
        self.shard = shard
        self.store = store
        self.away = False
        self.die_before = self.die_after = ''
        self.calls: list[str] = []
        self.asked: list[int] = []

    def _do(self, name: str, work: Callable[[], Any]) -> Any:
        self.calls.append(name)
        if self.away:
            raise ShardUnavailable
        if self.die_before == name:
            raise Killed
        result = work()
        if self.die_after == name:
            raise Killed
        return result

    def due(self, now: int, limit: int, skip: Sequence[str] = ()) -> list[OutboxEntry]:
        self.asked.append(limit)
        return self._do('due', lambda: self.store.outbox_due(now, limit, skip))

    def older(self, created: int, limit: int) -> list[OutboxEntry]:
        return self._do('older', lambda: self.store.outbox_older(created, limit))

    def body(self, entry: OutboxEntry) -> Body | None:
        text = self.store.queued.get(entry.body_id)
        return self._do('body', lambda: None if text is None else MemoryBody(text))

    def remove(self, entry: OutboxEntry, report: bytes | None) -> None:
        body = None if report is None else MemoryBody(report)
        self._do('remove', lambda: self.store.outbox_remove(entry.id, body, entry.sender))

    def retry(
        self,
        entry: OutboxEntry,
        next_try: int,
        error: str,
        recipients: Sequence[str] | None = None,
        report: bytes | None = None,
    ) -> None:
        body = None if report is None else MemoryBody(report)
        self._do(
            'retry',
            lambda: self.store.outbox_retry(
                entry.id, next_try, error, recipients=recipients, bounce=body, sender=entry.sender
            ),
        )

    def postpone(self, domain: str, next_try: int, error: str) -> None:
        self._do('postpone', lambda: self.store.outbox_postpone(domain, next_try, error))

    def deliver(self, body: Body, addresses: Sequence[str], delivery_id: bytes) -> list[Outcome]:
        return self._do(
            'deliver', lambda: self.store.deliver(body, addresses, delivery_id=delivery_id)
        )


class Scripted:
    """A transport that answers what it is told, and then refuses for ever."""

    def __init__(self, *answers: Sequence[Reply] | Exception) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, ...]] = []

    def takes(self, domain: str) -> bool:
        return True

    def send(self, entry: OutboxEntry, body: Body) -> Sequence[Reply]:
        assert body.read() == TEXT
        self.sent.append(entry.recipients)
        answer = self.answers.pop(0) if self.answers else [NEVER] * len(entry.recipients)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Relay:
    """Alice and an outbox in shard 0, Bob in shard 1."""

    def __init__(self, *transports: Transport) -> None:
        self.now = float(NOW)
        self.stores = [MemoryStore(ALICE), MemoryStore(BOB)]
        self.outboxes = {n: MemoryOutbox(n, store) for n, store in enumerate(self.stores)}
        self.transports = transports or (Scripted(),)
        self.rooms = 0
        self.courier = self.start()

    def start(self) -> Courier:
        return Courier(
            self.outboxes,
            (ToShard(self.outboxes, lambda: self.now), *self.transports),
            domain=DOMAIN,
            settings=Settings.defaults(),
            clock=lambda: self.now,
            on_room=self.room,
        )

    def room(self) -> None:
        self.rooms += 1

    def queue(self, domain: str, *recipients: str, sender: str = ALICE) -> None:
        entry = OutboxEntry(0, sender, domain, recipients, int(self.now), next_try=int(self.now))
        number = len(self.stores[0].seen).to_bytes(16, 'big')
        self.stores[0].deliver(MemoryBody(TEXT), (), delivery_id=number, outbox=[entry])

    def turn(self) -> None:
        for shard in self.outboxes:
            self.courier.visit(shard)
        assert self.courier.finish(5)

    @property
    def waiting(self) -> list[OutboxEntry]:
        return self.stores[0].outbox

    @property
    def reports(self) -> list[bytes]:
        return self.stores[0].boxes[ALICE]


OK = Reply(250, '2.0.0', 'Ok')
LATER = Reply(451, '4.4.1', 'Come again')
NEVER = Reply(550, '5.1.1', 'Nobody here')


def statuses(text: bytes) -> dict[str, str]:
    """Failed recipients and their status, read by the standard library."""
    message = email.message_from_bytes(text)
    assert message.get_content_type() == 'multipart/report'
    status = message.get_payload()[1]  # type: ignore[index]
    parts = status.get_payload()[1:]  # type: ignore[union-attr,index]
    assert all(part['Action'] == 'failed' for part in parts)
    return {part['Final-Recipient'].split(';')[1].strip(): part['Status'] for part in parts}


def test_refused_mail_comes_back_with_the_words_of_the_peer() -> None:
    relay = Relay()
    domain = 'other.example'
    relay.queue(domain, f'x@{domain}', f'y@{domain}')
    relay.turn()
    assert relay.waiting == []
    [text] = relay.reports
    assert statuses(text) == {f'x@{domain}': '5.1.1', f'y@{domain}': '5.1.1'}
    assert b'550 5.1.1 Nobody here' in text
    assert b'<the-one@localhost>' in text
    assert b'secret words' not in text
    assert relay.outboxes[0].calls == ['due', 'body', 'remove'], 'one atomic call'


def test_nobody_is_told_about_a_lost_report() -> None:
    relay = Relay()
    relay.queue('other.example', 'x@other.example', sender='')
    relay.turn()
    assert relay.waiting == []
    assert relay.reports == []


def test_parked_mail_arrives_when_its_shard_is_back() -> None:
    relay = Relay()
    relay.queue(Parked(1, b'i' * 16).domain, BOB)
    relay.outboxes[1].away = True
    with pytest.raises(ShardUnavailable):
        relay.turn()
    relay.courier.finish(5)
    [entry] = relay.waiting
    assert entry.tries == 1
    assert NOW < entry.next_try <= NOW + 5
    assert entry.last_error.startswith('451 4.3.0 ')
    relay.outboxes[1].away = False
    relay.now += 10
    relay.turn()
    assert relay.waiting == []
    assert relay.stores[1].boxes[BOB] == [TEXT]
    assert relay.reports == []


def test_a_dead_shard_is_not_stormed() -> None:
    relay = Relay()
    for n in range(50):
        relay.queue(Parked(1, n.to_bytes(16, 'big')).domain, BOB)
    relay.outboxes[1].away = True
    relay.courier.visit(0)
    relay.courier.finish(5)
    assert len(relay.waiting) == 50
    assert relay.outboxes[1].calls.count('deliver') <= outbox_module.AT_ONCE
    relay.outboxes[1].away = False
    relay.now += 10
    relay.turn()
    assert relay.waiting == []
    assert len(relay.stores[1].boxes[BOB]) == 50


def test_parked_mail_for_unknown_and_full_names_is_reported() -> None:
    relay = Relay()
    relay.stores[1].full.add(BOB)
    relay.queue(Parked(1, b'i' * 16).domain, BOB, CAROL)
    relay.turn()
    [text] = relay.reports
    assert statuses(text) == {BOB: '5.2.2', CAROL: '5.1.1'}


@pytest.mark.parametrize('call', ['due', 'body', 'deliver', 'remove'])
@pytest.mark.parametrize('when', ['die_before', 'die_after'])
def test_a_killed_courier_loses_and_doubles_nothing(call: str, when: str) -> None:
    relay = Relay()
    relay.queue(Parked(1, b'i' * 16).domain, BOB, CAROL)
    shard = 1 if call == 'deliver' else 0
    setattr(relay.outboxes[shard], when, call)
    try:
        relay.courier.visit(0)
        relay.courier.finish(5)
    except Killed:
        pass
    setattr(relay.outboxes[shard], when, '')
    relay.courier = relay.start()
    relay.turn()
    assert relay.waiting == []
    assert relay.stores[1].boxes[BOB] == [TEXT]
    assert len(relay.reports) == 1


def test_an_entry_is_not_taken_up_twice() -> None:
    relay = Relay()
    relay.queue('other.example', 'x@other.example')
    assert relay.courier.visit(0) == 1
    assert relay.courier.visit(0) == 0
    relay.courier.finish(5)
    assert len(relay.reports) == 1


def test_transports_are_asked_in_order() -> None:
    transport = Scripted([OK])
    relay = Relay(transport)
    relay.queue('other.example', 'x@other.example')
    relay.turn()
    assert transport.sent == [('x@other.example',)]
    assert relay.waiting == []
    assert relay.reports == []
    assert relay.courier.delivered == 1


def test_temporary_failures_wait_longer_and_longer() -> None:
    relay = Relay(Scripted([LATER], [LATER], RuntimeError(), [OK]))
    relay.queue('other.example', 'x@other.example')
    waits = []
    for _ in range(3):
        relay.turn()
        [entry] = relay.waiting
        waits.append(entry.next_try - relay.now)
        relay.turn()  # not due yet: nothing is sent
        relay.now = entry.next_try
    assert 48 <= waits[0] <= 74
    assert 96 <= waits[1] <= 146
    assert 192 <= waits[2] <= 290
    relay.turn()
    assert relay.waiting == []
    assert relay.reports == []


def test_after_its_lifetime_mail_comes_back() -> None:
    relay = Relay(Scripted([LATER]))
    relay.queue('other.example', 'x@other.example')
    relay.now += 172800
    relay.turn()
    assert relay.waiting == []
    assert statuses(relay.reports[0]) == {'x@other.example': '4.4.7'}
    assert b'Come again' in relay.reports[0]


def test_after_its_last_try_mail_comes_back() -> None:
    transport = Scripted([LATER], [LATER], [OK])
    relay = Relay(transport)
    relay.courier._settings = Settings.defaults(queue__tries=2)
    relay.queue('other.example', 'x@other.example')
    relay.turn()
    [entry] = relay.waiting
    assert relay.reports == []
    relay.now = entry.next_try
    relay.turn()
    assert relay.waiting == []
    [text] = relay.reports
    assert statuses(text) == {'x@other.example': '4.4.7'}
    assert b'Come again' in text
    assert len(transport.sent) == 2


def test_mixed_answers_never_send_twice() -> None:
    transport = Scripted([OK, LATER, NEVER], [OK])
    relay = Relay(transport)
    names = tuple(f'{n}@other.example' for n in 'xyz')
    relay.queue('other.example', *names)
    relay.turn()
    [entry] = relay.waiting
    assert entry.recipients == (names[1],)
    assert entry.last_error == '451 4.4.1 Come again'
    assert [statuses(text) for text in relay.reports] == [{names[2]: '5.1.1'}]
    assert relay.outboxes[0].calls == ['due', 'body', 'retry'], 'one atomic call'
    relay.now = entry.next_try
    relay.turn()
    assert relay.waiting == []
    assert transport.sent == [names, names[1:2]]
    assert len(relay.reports) == 1


def test_an_entry_without_body_is_dropped_not_retried_forever() -> None:
    relay = Relay()
    relay.queue('other.example', 'x@other.example')
    relay.stores[0].queued.clear()
    relay.turn()
    assert relay.waiting == []


# -- destinations


class Peers:
    """A transport to many domains: dead ones cost time and then raise; others answer."""

    def __init__(self, *dead: str, seconds: float = 0.01) -> None:
        self.dead = set(dead)
        self.seconds = seconds
        self.attempts: list[str] = []
        self.at_once = 0
        self.most_at_once: dict[str, int] = {}
        self._now: dict[str, int] = {}

    def takes(self, domain: str) -> bool:
        return parked(domain) is None

    def send(self, entry: OutboxEntry, body: Body) -> Sequence[Reply]:
        domain = entry.domain
        self.attempts.append(domain)
        self._now[domain] = self._now.get(domain, 0) + 1
        self.most_at_once[domain] = max(self.most_at_once.get(domain, 0), self._now[domain])
        gevent.sleep(self.seconds if domain in self.dead else 0)
        self._now[domain] -= 1
        if domain in self.dead:
            raise Unreachable(Reply(451, '4.4.1', 'cannot connect'))
        return [OK] * len(entry.recipients)


def test_a_dead_destination_costs_one_attempt_a_round_and_delays_nobody() -> None:
    peers = Peers('dead.example', seconds=0.05)
    relay = Relay(peers)
    for n in range(10_000):
        relay.queue('dead.example', f'{n}@dead.example')
    for n in range(20):
        relay.queue(f'live{n}.example', f'x@live{n}.example')
    relay.queue('last.example', 'x@last.example')
    calls = relay.outboxes[0].calls
    began = time.monotonic()
    while any(e.domain != 'dead.example' for e in relay.waiting):
        relay.courier.visit(0)
        gevent.sleep(0.001)
        assert time.monotonic() - began < 5
    relay.courier.finish(5)
    assert peers.attempts.count('dead.example') == 1
    assert len(calls) < 200, 'work does not grow with what waits for the dead'
    assert len(relay.waiting) == 10_000
    assert all(e.next_try > relay.now + 40 for e in relay.waiting)
    assert sum(e.tries for e in relay.waiting) == 1, 'only one message was tried'
    assert all('cannot connect' in e.last_error for e in relay.waiting)
    for rounds in (2, 3):
        relay.now = max(e.next_try for e in relay.waiting) + 1
        relay.turn()
        assert peers.attempts.count('dead.example') == rounds


def test_hundreds_of_dead_destinations_leave_room() -> None:
    dead = [f'dead{n}.example' for n in range(300)]
    peers = Peers(*dead, seconds=0.5)
    relay = Relay(peers)
    for domain in dead:
        for n in range(3):
            relay.queue(domain, f'{n}@{domain}')
    relay.queue('live.example', 'x@live.example')
    began = time.monotonic()
    while 'live.example' not in peers.attempts:
        relay.courier.visit(0)
        gevent.sleep(0.001)
        assert time.monotonic() - began < 0.4, 'it waited for the dead'
    relay.courier.finish(10)
    assert len(peers.attempts) == 301
    assert all(e.next_try > relay.now for e in relay.waiting)


def test_lines_beyond_all_greenlets_are_worked_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, 'WORKERS', 3)
    relay = Relay(Peers())
    for n in range(50):
        relay.queue(f'live{n}.example', f'x@live{n}.example', f'y@live{n}.example')
    assert relay.courier.visit(0) == 50
    assert relay.courier.finish(5)
    assert relay.waiting == []
    assert relay.courier.under_way == 0
    assert relay.courier.waiting() == {}


class Hanging(Peers):
    """The dead ones hang until `released`."""

    def __init__(self) -> None:
        super().__init__()
        self.released = Event()
        self.hanging = 0

    def send(self, entry: OutboxEntry, body: Body) -> Sequence[Reply]:
        self.attempts.append(entry.domain)
        if entry.domain.startswith('dead'):
            self.hanging += 1
            self.released.wait()
            raise Unreachable(LATER)
        return [OK] * len(entry.recipients)


def test_any_number_of_dead_destinations_leaves_room_for_those_that_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (('WORKERS', 6), ('STRANGERS', 4), ('STRANGE_LINES', 10), ('IN_LINES', 40)):
        monkeypatch.setattr(courier_module, name, value)
    peers = Hanging()
    relay = Relay(peers)
    for n in range(3):
        relay.queue(f'live{n}.example', f'x@live{n}.example')
    relay.turn()
    assert relay.waiting == []
    for n in range(100):
        relay.queue(f'dead{n}.example', f'x@dead{n}.example', f'y@dead{n}.example')
    relay.courier.visit(0)
    relay.courier.visit(0)
    gevent.sleep(0.01)
    assert peers.hanging == 4
    for _ in range(2):
        for n in range(3):
            relay.queue(f'live{n}.example', f'z@live{n}.example')
        relay.queue(Parked(1, os.urandom(16)).domain, BOB)
        for _ in range(10):
            relay.courier.visit(0)
            gevent.sleep(0.01)
        assert all(entry.domain.startswith('dead') for entry in relay.waiting)
        assert peers.hanging == 4
    assert relay.courier.under_way <= 15
    peers.released.set()
    assert relay.courier.finish(5)
    for _ in range(40):
        relay.now += 31
        relay.turn()
    assert {f'dead{n}.example' for n in range(100)} <= set(peers.attempts), 'their turn comes'
    assert not relay.courier._strange


def test_who_answered_before_a_restart_is_known_after_it(
    tmp_path: Path,
) -> None:
    control, tracker = Control(tmp_path), Tracker()
    tracker.succeeded('live.example', 'https', 0.1)
    tracker.failed('dead.example', 'https')
    tracker.flush(control)
    control.close()
    role = CourierRole(FakeContext(tmp_path))  # type: ignore[arg-type]
    assert not role.courier._is_strange('live.example')
    assert role.courier._is_strange('dead.example')


def test_a_destination_that_answers_gets_a_few_greenlets_and_no_more() -> None:
    class Slow(Peers):
        def send(self, entry: OutboxEntry, body: Body) -> Sequence[Reply]:
            self._now[''] = self._now.get('', 0) + 1
            self.at_once = max(self.at_once, self._now[''])
            gevent.sleep(0.005)
            self._now[''] -= 1
            return super().send(entry, body)

    peers = Slow()
    relay = Relay(peers)
    for n in range(60):
        relay.queue('live.example', f'{n}@live.example')
    relay.turn()
    assert relay.waiting == []
    assert peers.at_once == courier_module.PER_DESTINATION


def test_a_backlog_is_worked_off_without_waiting_for_the_clock() -> None:
    relay = Relay(Peers())
    for n in range(1000):
        relay.queue('live.example', f'{n}@live.example')
    visits = 0
    while relay.waiting:
        before = relay.rooms
        while relay.courier.visit(0) >= courier_module.BATCH:
            visits += 1
        relay.courier.finish(5)
        visits += 1
        assert not relay.waiting or relay.rooms > before, 'nobody says that there is room'
        assert visits < 40


def test_the_back_off_of_a_destination_doubles_and_ends_with_an_answer() -> None:
    peers = Peers('moody.example', seconds=0)
    relay = Relay(peers)
    relay.queue('moody.example', 'x@moody.example')
    waits = []
    for _ in range(4):
        relay.turn()
        [entry] = relay.waiting
        waits.append(entry.next_try - relay.now)
        relay.now = entry.next_try
    for wait, expected in zip(waits, (60, 120, 240, 480), strict=True):
        assert expected * 0.8 <= wait <= expected * 1.2 + 2
    peers.dead.clear()
    relay.turn()
    assert relay.waiting == []
    assert relay.courier.schedule.down() == {}


def test_a_message_that_the_peer_stumbles_over_does_not_hold_up_the_others() -> None:
    class Stumbling(Peers):
        def send(self, entry: OutboxEntry, body: Body) -> Sequence[Reply]:
            replies = super().send(entry, body)
            if entry.recipients[0].startswith('poison'):
                raise Unreachable(LATER, met=True)
            return replies

    peers = Stumbling()
    relay = Relay(peers)
    relay.queue('other.example', 'poison@other.example')
    for n in range(5):
        relay.queue('other.example', f'{n}@other.example')
    relay.turn()
    assert len(relay.waiting) == 6, 'it may be the destination'
    relay.now = relay.courier.schedule.down_until('other.example') + 1
    relay.turn()
    [poison] = relay.waiting
    assert poison.tries == 1
    for tries in (2, 3):
        relay.now = poison.next_try
        relay.turn()
        [poison] = relay.waiting
        assert poison.tries == tries
        assert relay.courier.schedule.down() == {}, 'it was the message'
        relay.queue('other.example', 'next@other.example')
        relay.turn()
        assert relay.waiting == [poison]
    assert poison.next_try - relay.now > 150


def test_the_operator_need_not_wait() -> None:
    peers = Peers('moody.example', seconds=0)
    relay = Relay(peers)
    relay.queue('moody.example', 'x@moody.example')
    relay.turn()
    peers.dead.clear()
    relay.stores[0].outbox[0] = replace(relay.waiting[0], next_try=int(relay.now))
    relay.turn()
    assert len(relay.waiting) == 1, 'still counted as down'
    relay.courier.schedule.retry('moody.example')
    relay.stores[0].outbox[0] = replace(relay.waiting[0], next_try=int(relay.now))
    relay.turn()
    assert relay.waiting == []


# -- the clock


def test_a_clock_that_was_set_is_noticed_once() -> None:
    now, ticks = [1000.0], [50.0]
    steps = Steps(lambda: now[0], lambda: ticks[0])
    assert steps.look() == 0
    for change, seen in ((5, 0), (-86_400, -86_400), (0, 0), (0.5, 0), (7200, 7200), (0, 0)):
        ticks[0] += 5
        now[0] += 5 + change
        assert steps.look() == seen


def test_what_a_wrong_clock_put_off_does_not_wait_for_its_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    relay = Relay()
    clients = [FakeClient(n, store) for n, store in enumerate(relay.stores)]
    monkeypatch.setattr('madmail.delivery.process.ShardClient', lambda state_dir, n: clients[n])
    role = CourierRole(FakeContext(tmp_path))  # type: ignore[arg-type]
    now, ticks = [time.time() + 10 * 365 * 86_400], [0.0]
    role._steps = Steps(lambda: now[0], lambda: ticks[0])
    relay.now = now[0]
    relay.queue('other.example', 'x@other.example')
    role.courier.schedule.failed('other.example', 'away')
    now[0] = time.time()
    role._look_at_clock(5.0)
    assert relay.waiting[0].next_try <= time.time()
    assert role.courier.schedule.down() == {}
    now[0] += 100_000
    role._look_at_clock(10.0)
    assert role._expired == 10.0 + SETTLE_TIME - EXPIRE_TIME


# -- age


def test_what_is_too_old_comes_back_tried_or_not() -> None:
    peers = Peers('dead.example', seconds=0)
    relay = Relay(peers)
    relay.queue('dead.example', 'x@dead.example')
    relay.turn()
    relay.now += 100_000
    relay.queue('dead.example', 'young@dead.example')
    relay.now += 72_801
    assert relay.courier.expire(0) == 1
    assert [e.recipients for e in relay.waiting] == [('young@dead.example',)]
    [text] = relay.reports
    assert statuses(text) == {'x@dead.example': '4.4.7'}
    assert b'cannot connect' in text
    assert relay.courier.expire(0) == 0


def test_old_mail_that_must_stay_does_not_hide_what_is_behind_it() -> None:
    relay = Relay()
    for n in range(150):
        relay.queue(Parked(1, n.to_bytes(16, 'big')).domain, BOB)
    relay.queue('other.example', 'x@other.example')
    relay.now += 172_801
    assert relay.courier.expire(0) == 1
    assert len(relay.waiting) == 150
    assert [statuses(text) for text in relay.reports] == [{'x@other.example': '4.4.7'}]
    assert relay.courier.expire(0) == 0


def test_parked_mail_and_mail_under_way_do_not_expire_in_passing() -> None:
    transport = Scripted([OK])
    relay = Relay(transport)
    relay.queue('other.example', 'x@other.example')
    relay.queue(Parked(1, b'i' * 16).domain, BOB)
    relay.now += 172_801
    relay.courier.visit(0)  # lined up, not yet begun
    assert relay.courier.expire(0) == 0
    relay.courier.finish(5)
    assert relay.reports == []
    assert relay.stores[1].boxes[BOB] == [TEXT]
    assert transport.sent == [('x@other.example',)]


# -- a shard that does not answer at the end


@pytest.mark.parametrize('when', ['before', 'after'])
@pytest.mark.parametrize('answers', [[OK, OK, OK], [OK, LATER, NEVER], [OK, OK, NEVER]])
def test_what_was_handed_over_is_not_sent_again_when_the_shard_was_away(
    when: str, answers: list[Reply]
) -> None:
    names = tuple(f'{n}@other.example' for n in 'xyz')
    transport = Scripted(answers, [OK] * answers.count(LATER))
    relay = Relay(transport)
    relay.queue('other.example', *names)
    outbox = relay.outboxes[0]
    do = outbox._do

    def losing(name: str, work: Callable[[], Any]) -> Any:
        if name in ('remove', 'retry'):
            if when == 'after':
                do(name, work)
            raise ShardUnavailable
        return do(name, work)

    outbox._do = losing  # type: ignore[method-assign]
    relay.turn()
    assert len(transport.sent) == 1
    outbox._do = do  # type: ignore[method-assign]
    relay.turn()
    for _ in range(3):
        relay.now += 1000
        relay.turn()
    assert relay.waiting == []
    later = [n for n, reply in zip(names, answers, strict=True) if reply is LATER]
    assert transport.sent == [names] + [(name,) for name in later]
    never = {n: '5.1.1' for n, reply in zip(names, answers, strict=True) if reply is NEVER}
    assert [statuses(text) for text in relay.reports] == ([never] if never else [])


@pytest.mark.parametrize('call', ['due', 'body', 'retry', 'remove', 'postpone'])
@pytest.mark.parametrize('when', ['die_before', 'die_after'])
def test_a_courier_killed_among_remote_mail_loses_nothing(call: str, when: str) -> None:
    names = tuple(f'{n}@other.example' for n in 'xyz')
    transport = Scripted(
        Unreachable(LATER) if call == 'postpone' else [OK, LATER, NEVER],
    )
    relay = Relay(transport)
    relay.queue('other.example', *names)
    setattr(relay.outboxes[0], when, call)
    try:
        relay.turn()
        relay.now += 1000
        relay.turn()
    except Killed:
        pass
    setattr(relay.outboxes[0], when, '')
    left = [e.recipients for e in relay.waiting]
    settled = {name for text in relay.reports for name in statuses(text)}
    sent = {name for batch in transport.sent for name in batch}
    for name in names:
        assert any(name in one for one in left) or name in settled or name in sent
    relay.courier = relay.start()
    transport.answers = [[OK] * 3] * 3
    for _ in range(3):
        relay.now += 1000
        transport.answers = [[OK] * len(e.recipients) for e in relay.waiting]
        relay.turn()
    assert relay.waiting == []
    reported = [name for text in relay.reports for name in statuses(text)]
    assert len(reported) == len(set(reported)), 'a report is made once'


# -- calls and the process


class FakeClient:
    """Answers like a shard's call connection."""

    def __init__(self, index: int, store: MemoryStore) -> None:
        self.index = index
        self.store = store
        self.refuse = ''

    def call(self, method: str, **params: Any) -> Any:
        if self.refuse:
            raise CallRefused(self.refuse)
        if method == 'outbox_due':
            names = OutboxEntry.__dataclass_fields__
            rows = [{n: getattr(e, n) for n in names} for e in self.store.outbox_due(**params)]
            return [{**row, 'recipients': list(row['recipients'])} for row in rows]
        if method == 'body':
            if params['body_id'] not in self.store.queued:
                raise CallRefused('missing')
            return {'data': self.store.queued[params['body_id']]}
        if method == 'outbox_remove':
            data = params.get('data')
            bounce = None if data is None else MemoryBody(data)
            return self.store.outbox_remove(params['entry_id'], bounce, params.get('sender', ''))
        if method == 'outbox_retry':
            return self.store.outbox_retry(**params)
        if method == 'outbox_postpone':
            return self.store.outbox_postpone(**params)
        if method == 'outbox_hasten':
            assert params == {'domain': ''}
            now = int(time.time())
            self.store.outbox[:] = [replace(one, next_try=now) for one in self.store.outbox]
            return None
        assert method == 'deliver'
        body = MemoryBody(params.pop('data'))
        return [outcome.value for outcome in self.store.deliver(body, **params)]

    def close(self) -> None:
        pass


def test_shard_outbox_speaks_the_calls() -> None:
    relay = Relay()
    relay.queue(Parked(1, b'i' * 16).domain, BOB)
    relay.queue('other.example', 'x@other.example')
    clients = [FakeClient(n, store) for n, store in enumerate(relay.stores)]
    relay.outboxes = {c.index: ShardOutbox(c) for c in clients}  # type: ignore[arg-type,misc]
    relay.courier = relay.start()
    relay.turn()
    assert relay.waiting == []
    assert relay.stores[1].boxes[BOB] == [TEXT]
    assert len(relay.reports) == 1
    clients[0].refuse = 'failed'
    with pytest.raises(ShardUnavailable):
        relay.courier.visit(0)


class FakeBus:
    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[[dict[str, Any]], None]] = {}

    def subscribe(self, topic: str, callback: Callable[[dict[str, Any]], None]) -> None:
        self.callbacks[topic] = callback

    def publish(self, topic: str, data: dict[str, Any]) -> None:
        pass


class FakeContext:
    def __init__(self, state_dir: Path) -> None:
        self.settings = Settings.defaults(
            domain=DOMAIN, federation__enabled=False, push__mode='off'
        )
        self.state_dir = state_dir
        self.shards = 2
        self.bus = FakeBus()


def test_the_role_wakes_at_an_announcement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    relay = Relay()
    clients = [FakeClient(n, store) for n, store in enumerate(relay.stores)]
    monkeypatch.setattr('madmail.delivery.process.ShardClient', lambda state_dir, n: clients[n])
    context = FakeContext(tmp_path)
    role = CourierRole(context)  # type: ignore[arg-type]
    role.start()
    gevent.sleep(0.02)
    relay.queue('other.example', 'x@other.example')
    gevent.sleep(0.02)
    assert len(relay.waiting) == 1, 'nobody has looked'
    context.bus.callbacks['outbox']({'shard': 0})
    gevent.sleep(0.05)
    assert relay.waiting == []
    control = Control(tmp_path)
    control.add_rule('new.example', 1)
    control.close()
    assert role.check()
    assert role._federation._agrees('new.example') is False, 'found, though nobody told'
    statistics = role.statistics()
    assert {name: value for name, value in statistics.items() if isinstance(value, int)} == {
        'delivered': 0,
        'bounced': 1,
        'deferred': 0,
        'under_way': 0,
        'destinations_down': 0,
        'exchangers': 0,
        'exchangers_failing': 0,
        'push_failures': 0,
        'push_paused': False,
    }
    role.retire()
    assert not role.check()
