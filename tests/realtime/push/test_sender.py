"""The sender between a real store and a service that answers as it is told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from madmail.realtime.push import sender as sender_module
from madmail.realtime.push.schedule import THRESHOLD, TRIES
from madmail.realtime.push.sender import Sender
from madmail.realtime.push.service import Service
from madmail.settings import Settings
from madmail.shard.calls import ShardUnavailable
from madmail.store.interface import DueToken, Settled
from madmail.store.spool import MemoryBody
from madmail.store.sqlite import open_store
from tests.realtime.push.double import NotificationService
from tests.tls.authority import Authority

real_time = time.time
WHEN = 'Sunday, 06-Nov-94 08:50:37 GMT'


class StoreBox:
    """A Box over the store itself; can be away, or lose its answer."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.away = False
        self.page = 200  # tokens of one answer
        self.deaf = 0  # settlements that are written and not answered
        self.settled = 0

    def due(self, now: int, limit: int, skip: list[int]) -> tuple[list[DueToken], int]:
        self._reach()
        due = self.store.push_due(now, min(limit, self.page), skip)
        return due, self.store.push_next(now)

    def settle(self, outcomes: list[Settled]) -> int:
        self._reach()
        again: int = self.store.push_settle(outcomes)
        self.settled += 1
        if self.deaf:
            self.deaf -= 1
            raise ShardUnavailable
        return again

    def forget(self) -> int:
        self._reach()
        forgotten: int = self.store.forget_old_tokens()
        return forgotten

    def _reach(self) -> None:
        if self.away:
            raise ShardUnavailable


class World:
    """Two shards, a sender and a service; `later` lets time pass for all of them."""

    def __init__(self, directory: Path, service: NotificationService, **values: Any) -> None:
        self.service = service
        values.setdefault('push__url', service.url)
        self.settings = Settings.defaults(**values)
        self.offset = 0.0
        self.stores = [
            open_store(directory / str(n), quota_default=0, trim_from=0.75, trim_to=0.7)
            for n in range(2)
        ]
        self.boxes = {n: StoreBox(store) for n, store in enumerate(self.stores)}
        self.senders: list[Sender] = []
        self.sender = self.start()
        for n, store in enumerate(self.stores):
            store.announce_due = lambda n=n: self.sender.wake(n)

    def now(self) -> float:
        return real_time() + self.offset

    def start(self) -> Sender:
        self.sender = Sender(
            self.boxes,
            Service(self.settings, lambda host: (host,)),
            self.settings,
            clock=self.now,
            monotonic=self.now,
            factor=lambda: 1.0,
        )
        self.sender.start()
        self.senders.append(self.sender)
        return self.sender

    def kill(self) -> None:
        """kill -9, as far as greenlets can feel it."""
        for greenlet in (*self.sender._loops, *list(self.sender._workers)):
            greenlet.kill(block=True)

    def later(self, seconds: float) -> None:
        self.offset += seconds
        self.sender.wake()

    def device(self, name: str, *tokens: str, shard: int = 0) -> None:
        store = self.stores[shard]
        account = store.account(name) or store.create_account(name, 'x', 0)
        assert account is not None
        for token in tokens:
            store.add_device_token(account.id, token, 20)

    def deliver(self, *names: str, shard: int = 0) -> None:
        self.stores[shard].deliver(
            MemoryBody(b'Subject: x\r\n\r\n'), names, delivery_id=os.urandom(16)
        )

    def waiting(self) -> int:
        return sum(store.push_waiting() for store in self.stores)

    def rest(self, count: int) -> list[str]:
        """The tokens that were told once there are `count` of them, and no more come."""
        self.service.wait(count, sleep=gevent.sleep)
        gevent.sleep(0.3)
        assert len(self.service.requests) == count
        return self.service.tokens

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end
            gevent.sleep(0.01)

    def close(self) -> None:
        self.service.released.set()
        for sender in self.senders:
            sender.stop(1.0)
        for store in self.stores:
            store.close()


@pytest.fixture
def service() -> Iterator[NotificationService]:
    with NotificationService() as made:
        yield made


Make = Callable[..., World]


@pytest.fixture
def make(
    tmp_path: Path, service: NotificationService, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    worlds: list[World] = []

    def world(**values: Any) -> World:
        worlds.append(World(tmp_path / str(len(worlds)), service, **values))
        monkeypatch.setattr(time, 'time', worlds[-1].now)
        return worlds[-1]

    yield world
    for one in worlds:
        one.close()


def test_one_request_a_token_with_nothing_in_it_but_the_token(
    make: Make, service: NotificationService
) -> None:
    world = make()
    world.device('ann', 'openpgp:phone+/=', 'openpgp:tablet')
    world.device('bob', 'openpgp:bob', shard=1)
    world.deliver('ann')
    assert sorted(world.rest(2)) == ['openpgp:phone+/=', 'openpgp:tablet']
    world.deliver('bob', shard=1)
    assert world.rest(3)[-1] == 'openpgp:bob'
    world.until(lambda: world.waiting() == 0)
    for request in service.requests:
        assert request.path == '/notify'
        assert set(request.fields) == {
            'Accept-Encoding',
            'Content-Length',
            'Content-Type',
            'Host',
            'User-Agent',
        }
    assert service.connections <= 2
    assert world.sender.counts == {
        'sent': 3, 'gone': 0, 'refused': 0, 'busy': 0, 'failed': 0, 'given_up': 0
    }  # fmt: skip
    assert world.sender.unwritten == 3


def test_messages_apart_are_told_one_by_one(make: Make) -> None:
    world = make()
    world.device('ann', 'phone')
    for count in range(1, 4):
        world.deliver('ann')
        world.rest(count)
        world.until(lambda: world.waiting() == 0)


def test_messages_together_are_told_at_most_twice(make: Make, service: NotificationService) -> None:
    """Once for the first, once for all that came while that was under way."""
    world = make()
    world.device('ann', 'phone')
    service.delay = 0.3
    world.deliver('ann')
    service.wait(1, sleep=gevent.sleep)
    for _ in range(20):
        world.deliver('ann')
    assert world.rest(2) == ['phone', 'phone']
    world.until(lambda: world.waiting() == 0)
    first, second = (request.at for request in service.requests)
    assert second - first >= 0.3


def test_a_crowd_is_told_without_pauses(
    make: Make, service: NotificationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard answers with so many at a time, whatever room there is for more."""
    monkeypatch.setattr(sender_module, 'PAGE', 4)
    monkeypatch.setattr(sender_module, 'IDLE', 600.0)
    world = make()
    world.boxes[0].page = 4
    names = [f'user{n}' for n in range(15)]
    for name in names:
        world.device(name, f'of-{name}')
    world.deliver(*names)
    world.rest(15)
    world.until(lambda: world.waiting() == 0)


def test_a_dead_token_is_removed_and_nothing_else_happens(
    make: Make, service: NotificationService
) -> None:
    world = make()
    world.device('ann', *(f'dead {n}'.replace(' ', '-') for n in range(10)), 'alive')
    service.behave = lambda request: 410 if request.token.startswith('dead') else 200
    world.deliver('ann')
    world.rest(11)
    account = world.stores[0].account('ann')
    assert account is not None
    world.until(lambda: world.stores[0].device_tokens(account.id) == ['alive'])
    assert world.sender.breaker.failures == 0
    world.deliver('ann')
    assert world.rest(12)[-1] == 'alive'
    assert world.sender.counts['gone'] == 10


@pytest.mark.parametrize('behaviour', [500, 503, 429, 'close', 'reset', 'garbage', 'endless'])
def test_trouble_is_tried_again_later(
    make: Make, service: NotificationService, behaviour: int | str
) -> None:
    world = make()
    world.device('ann', 'phone')
    service.script = [behaviour]
    world.deliver('ann')
    world.rest(1)
    world.until(lambda: world.waiting() == 1 and not world.sender._shards[0].busy)
    world.later(7)
    world.rest(1)
    world.later(2)
    world.rest(2)
    world.until(lambda: world.waiting() == 0)
    assert world.sender.breaker.failures == 0  # it answered


@pytest.mark.parametrize('mode', ['auto', 'on'])
@pytest.mark.parametrize('status', [429, 503])
def test_a_service_that_says_how_long_to_wait_is_left_alone(
    make: Make, service: NotificationService, status: int, mode: str
) -> None:
    world = make(push__mode=mode)
    world.device('ann', 'phone')
    world.device('bob', 'other', shard=1)
    service.script = [(status, {'Retry-After': '300'})]
    world.deliver('ann')
    world.rest(1)
    assert world.sender.statistics()['push_paused']
    world.deliver('bob', shard=1)  # nor is anybody else told meanwhile
    for _ in range(4):
        world.later(70)
        world.rest(1)
    world.later(25)
    assert sorted(world.rest(3)) == ['other', 'phone', 'phone']
    world.until(lambda: world.waiting() == 0)
    assert not world.sender.statistics()['push_paused']
    assert world.sender.counts['given_up'] == 0


def test_a_date_counts_by_the_clock_of_the_service(
    make: Make, service: NotificationService
) -> None:
    world = make()
    world.device('ann', 'phone')
    service.script = [(503, {'Date': 'Sun, 06 Nov 1994 08:49:37 GMT', 'Retry-After': WHEN})]
    world.deliver('ann')
    world.rest(1)
    world.later(55)
    world.rest(1)
    world.later(10)
    world.rest(2)


def test_nobody_waits_longer_than_half_an_hour_nor_for_an_answer_that_is_final(
    make: Make, service: NotificationService
) -> None:
    world = make()
    world.device('ann', 'phone')
    service.script = [(200, {'Retry-After': '300'}), (429, {'Retry-After': '9' * 5000})]
    world.deliver('ann')
    world.rest(1)
    world.until(lambda: world.waiting() == 0)
    world.deliver('ann')
    world.rest(2)
    world.later(1790)
    world.rest(2)
    world.later(15)
    world.rest(3)


def test_who_does_not_answer_in_time_is_tried_again(
    make: Make, service: NotificationService
) -> None:
    world = make(push__timeout=1)
    world.device('ann', 'phone')
    service.script = ['hang']
    world.deliver('ann')
    world.until(lambda: world.sender.counts['failed'] == 1)
    world.later(9)
    world.rest(2)


def test_a_refusal_is_final_at_the_second_time_and_keeps_the_token(
    make: Make, service: NotificationService
) -> None:
    world = make()
    world.device('ann', 'phone')
    service.script = [404, 'redirect']
    world.deliver('ann')
    world.rest(1)
    world.until(lambda: not world.sender._shards[0].busy)
    world.later(10)
    assert world.rest(2) == ['phone', 'phone']
    world.until(lambda: world.waiting() == 0)
    assert {request.path for request in service.requests} == {'/notify'}  # nothing is followed
    world.deliver('ann')
    world.rest(3)


def test_tries_end(make: Make, service: NotificationService) -> None:
    world = make(push__mode='on')
    world.device('ann', 'phone')
    service.behave = lambda request: 500
    world.deliver('ann')
    for tries in range(1, TRIES + 1):
        world.rest(tries)
        world.until(lambda: not world.sender._shards[0].busy)
        world.later(8**tries + 2)
    world.rest(TRIES)
    assert world.waiting() == 0
    assert world.sender.counts['given_up'] == 1
    service.behave = lambda request: 200
    world.deliver('ann')
    world.rest(TRIES + 1)


def test_what_came_while_one_failed_for_the_last_time_gets_tries_of_its_own(
    make: Make, service: NotificationService
) -> None:
    world = make(push__mode='on')
    world.device('ann', 'phone')
    service.behave = lambda request: 404
    world.deliver('ann')
    world.rest(1)
    world.until(lambda: not world.sender._shards[0].busy)
    service.delay = 0.3
    world.later(10)
    service.wait(2, sleep=gevent.sleep)
    world.deliver('ann')
    world.rest(3)


def test_too_late_is_not_told_at_all(make: Make, service: NotificationService) -> None:
    """The relay was down, or notifications were off, for longer than the mail is news."""
    world = make(push__lifetime=600)
    world.device('ann', 'phone')
    world.boxes[0].away = True
    world.deliver('ann')
    world.later(601)
    world.boxes[0].away = False
    world.until(lambda: world.waiting() == 0)
    assert service.requests == []
    assert world.sender.counts['given_up'] == 1
    world.deliver('ann')
    world.rest(1)


def test_an_outage_costs_few_requests_and_ends_by_itself(
    make: Make, service: NotificationService
) -> None:
    world = make(push__connections=1)
    names = [f'user{n}' for n in range(30)]
    for name in names:
        world.device(name, f'of-{name}')
    service.behave = lambda request: 503
    world.deliver(*names)
    world.rest(THRESHOLD)
    assert world.sender.statistics()['push_paused']
    for count in range(1, 4):  # one asks how it is
        world.later(4000)
        world.rest(THRESHOLD + count)
    service.behave = lambda request: 200
    before = len(service.requests)
    world.later(4000)
    world.service.wait(before + 20, sleep=gevent.sleep)
    world.until(lambda: not world.sender.breaker.open)
    world.until(lambda: world.waiting() == 0)
    assert service.counts['of-user29'] == 1  # the outage used up none of its tries
    assert not world.sender.statistics()['push_paused']


def test_on_tries_whatever_happens(make: Make, service: NotificationService) -> None:
    world = make(push__mode='on')
    names = [f'user{n}' for n in range(20)]
    for name in names:
        world.device(name, f'of-{name}')
    service.behave = lambda request: 500
    world.deliver(*names)
    assert len(set(world.rest(20))) == 20
    assert not world.sender.statistics()['push_paused']
    assert world.sender.statistics()['push_failures'] == 20


def test_a_certificate_of_nobody_is_no_service(
    make: Make, tmp_path: Path, service: NotificationService
) -> None:
    pair = Authority(tmp_path).issue('127.0.0.1')
    with NotificationService(tls=pair) as secure:
        world = make(push__url=secure.url)
        world.device('ann', 'phone')
        world.deliver('ann')
        world.until(lambda: world.sender.counts['failed'] == 1)
        assert secure.requests == []
        # Another address is another service: nothing of the old one counts.
        world.settings.store('push.url', service.url)
        world.later(9)
        world.rest(1)


def test_a_trusted_certificate_is(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv('SSL_CERT_FILE', str(authority.root))
    with NotificationService(tls=authority.issue('127.0.0.1')) as secure:
        world = make(push__url=secure.url)
        world.device('ann', 'phone')
        for count in range(1, 4):
            world.deliver('ann')
            secure.wait(count, sleep=gevent.sleep)
            world.until(lambda: world.waiting() == 0)
        assert secure.connections == 1


def test_nobody_there_is_an_outage(make: Make, service: NotificationService) -> None:
    world = make(push__url='http://127.0.0.1:1/')
    for n in range(THRESHOLD + 3):
        world.device('ann', f'token-{n}')
    world.deliver('ann')
    world.until(lambda: world.sender.breaker.open)
    world.settings.store('push.url', service.url)
    world.later(10)
    world.service.wait(THRESHOLD + 3, sleep=gevent.sleep)
    assert sorted(service.counts) == [f'token-{n}' for n in range(THRESHOLD + 3)]


def test_requests_at_a_time_are_bounded_and_so_is_what_is_taken(
    make: Make, service: NotificationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, 'LINE', 60)
    world = make(push__connections=3)
    names = [f'user{n}' for n in range(120)]
    for name in names:
        world.device(name, f'of-{name}')
    service.delay = 0.005
    world.deliver(*names)
    most = 0
    while len(service.requests) < 120:
        most = max(most, len(world.sender._shards[0].busy))
        gevent.sleep(0.001)
    world.rest(120)
    assert set(service.counts.values()) == {1}
    assert service.at_once <= 3
    assert most <= 30  # half for each shard


def test_a_setting_for_fewer_connections_holds_at_once(
    make: Make, service: NotificationService
) -> None:
    world = make(push__connections=8)
    names = [f'user{n}' for n in range(60)]
    for name in names:
        world.device(name, f'of-{name}')
    service.delay = 0.02
    world.deliver(*names)
    service.wait(10, sleep=gevent.sleep)
    world.settings.store('push.connections', '1')
    gevent.sleep(0.1)
    service.at_once = 0
    world.rest(60)
    assert service.at_once <= 1


def test_off_sends_nothing_and_on_again_what_is_not_too_old(
    make: Make, service: NotificationService
) -> None:
    world = make(push__connections=1)
    names = [f'user{n}' for n in range(10)]
    for name in names:
        world.device(name, f'of-{name}')
    service.delay = 0.1
    world.deliver(*names)
    service.wait(2, sleep=gevent.sleep)
    world.settings.store('push.mode', 'off')
    world.sender.wake()
    gevent.sleep(0.5)
    count = len(service.requests)
    assert count <= 4
    gevent.sleep(0.3)
    assert len(service.requests) == count
    world.settings.store('push.mode', 'auto')
    world.sender.wake()
    world.rest(10)
    assert set(service.counts.values()) == {1}


def test_a_shard_that_is_away_costs_no_second_request(
    make: Make, service: NotificationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, 'AWAY_TIME', 0.05)
    world = make()
    world.device('ann', 'phone')
    world.device('bob', 'other', shard=1)
    service.delay = 0.1
    world.deliver('ann')
    service.wait(1, sleep=gevent.sleep)
    world.boxes[0].away = True
    gevent.sleep(0.5)
    world.deliver('bob', shard=1)  # nor does it hold up the others
    service.wait(2, sleep=gevent.sleep)
    assert world.waiting() >= 1
    world.boxes[0].away = False
    world.until(lambda: world.waiting() == 0)
    world.rest(2)


def test_an_answer_of_a_shard_that_is_lost_costs_none_either(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, 'AWAY_TIME', 0.05)
    world = make()
    world.device('ann', 'phone')
    world.boxes[0].deaf = 2
    world.deliver('ann')
    world.rest(1)
    world.until(lambda: world.boxes[0].settled >= 3)
    world.deliver('ann')
    world.rest(2)


def test_killed_at_any_moment_it_sends_at_least_once_and_hardly_more(
    make: Make, service: NotificationService
) -> None:
    world = make(push__connections=4)
    names = [f'user{n}' for n in range(100)]
    for name in names:
        world.device(name, f'of-{name}')
    service.delay = 0.01
    kills = 6
    for number in range(kills):
        world.deliver(*names[number * 10 : number * 10 + 40])
        gevent.sleep(0.02 + 0.03 * number)
        world.kill()
        world.start()
    world.until(lambda: world.waiting() == 0)
    told = set(service.tokens)
    assert told == {f'of-{name}' for name in names[:90]}
    deliveries = kills * 40
    # Under way, or told and not written yet, when it was killed.
    lost = kills * (4 + 4 * (sender_module.SETTLE_TIME + 0.1) / 0.01)
    assert len(service.requests) <= deliveries + lost


def test_retiring_writes_what_is_known(make: Make, service: NotificationService) -> None:
    world = make()
    world.device('ann', 'phone')
    service.delay = 0.2
    world.deliver('ann')
    service.wait(1, sleep=gevent.sleep)
    world.sender.stop(5.0)
    assert world.waiting() == 0
    world.deliver('ann')
    world.start()
    world.rest(2)


def test_old_tokens_are_forgotten_by_the_clock(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, 'IDLE', 0.02)
    world = make()
    world.device('ann', 'phone')
    world.later(91 * 86_400)
    store = world.stores[0]
    world.until(lambda: store._one('SELECT count(*) FROM push_tokens') == (0,))


def test_a_fault_of_ours_leaves_it_due(
    make: Make, service: NotificationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make()
    world.device('ann', 'phone')
    notify = world.sender._service.notify
    faults = [KeyError('x')]

    def broken(token: str) -> Any:
        if faults:
            raise faults.pop()
        return notify(token)

    monkeypatch.setattr(world.sender._service, 'notify', broken)
    world.deliver('ann')
    world.until(lambda: not faults)
    assert world.waiting() == 1
    world.later(1)
    world.rest(1)


def test_no_word_of_a_token_is_logged(
    make: Make, service: NotificationService, capfd: pytest.CaptureFixture[str]
) -> None:
    from madmail import log

    log.configure('stderr', 'debug')
    try:
        world = make(push__connections=1)
        service.behave = lambda request: 500
        for n in range(8):
            world.device('ann', f'openpgp:verysecret{n}')
        world.deliver('ann')
        world.until(lambda: world.sender.breaker.open)
        service.behave = lambda request: 410
        world.later(100)
        world.until(lambda: not world.sender.breaker.open)
    finally:
        log.configure('off', 'info')
    text = capfd.readouterr().err
    assert 'service does not answer' in text
    assert 'service answers again' in text
    assert 'secret' not in text
    assert 'notify' not in text
