"""Sends what is due in all shards.

What is due stays in its shard until the shard has been told what became of it, so a
sender that is killed loses nothing; what was under way then is sent once more (at
least once, and `push.connections` of them at most).  While a token is under way or
its outcome is not written yet it is not taken again.

Outcomes are written together, a moment after they are known: a commit of a shard for
each would cost more than the notification.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import gevent
from gevent.event import Event

from madmail import log
from madmail.realtime.push.schedule import Answer, Breaker, Told, next_try, spread
from madmail.settings import Settings
from madmail.shard.calls import CallRefused, ShardClient, ShardUnavailable
from madmail.shard.methods_push import PAGE
from madmail.store.interface import DueToken, Settled

LINE = 400  # tokens of all shards under way, lined up, or with an outcome not written yet
LEAST = 20  # of each shard, however many there are
IDLE = 30.0  # seconds after which a shard is asked that announced nothing
GATHER_TIME = 0.1  # seconds between two questions to a shard
SETTLE_TIME = 0.1  # seconds that outcomes wait for others
AWAY_TIME = 1.0  # seconds a shard that did not answer is left alone
FORGET_TIME = 3600.0  # seconds between two looks for old tokens
QUIET_TIME = 60.0  # seconds after which unused connections are closed

_log = log.get('push')


class Box(Protocol):
    """What is due in one shard.  Every method may raise ShardUnavailable."""

    def due(self, now: int, limit: int, skip: list[int]) -> tuple[list[DueToken], int]:
        """What is due, but for the ids `skip`, and when more will be (0 = nothing waits)."""

    def settle(self, outcomes: list[Settled]) -> int:
        """How many are due again."""

    def forget(self) -> int:
        """Remove old tokens; how many."""


class Notifier(Protocol):
    """The notification service, see service.Service."""

    @property
    def url(self) -> str: ...
    def notify(self, token: str) -> Told: ...
    def close(self) -> None: ...


class ShardBox:
    """A Box by way of shard calls."""

    def __init__(self, client: ShardClient) -> None:
        self._client = client

    def due(self, now: int, limit: int, skip: list[int]) -> tuple[list[DueToken], int]:
        found = self._call('push_due', now=now, limit=limit, skip=skip)
        return [DueToken(*row) for row in found['due']], found['next']

    def settle(self, outcomes: list[Settled]) -> int:
        again: int = self._call('push_settle', outcomes=[list(one) for one in outcomes])
        return again

    def forget(self) -> int:
        forgotten: int = self._call('push_forget')
        return forgotten

    def _call(self, method: str, **params: Any) -> Any:
        try:
            return self._client.call(method, **params)
        except CallRefused as refused:
            raise ShardUnavailable(refused.word) from None


class _Shard:
    """The sender's side of one shard."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.wake = Event()
        self.busy: set[int] = set()  # ids taken and not written yet
        self.outcomes: list[Settled] = []
        self.decided = Event()  # there are outcomes


class Sender:
    """All notifications of a relay; everything on the loop."""

    def __init__(
        self,
        boxes: Mapping[int, Box],
        service: Notifier,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        factor: Callable[[], float] = spread,
    ) -> None:
        """`clock` is Unix time, `factor` spreads pauses (see schedule)."""
        self._shards = {index: _Shard(box) for index, box in boxes.items()}
        self._room = max(LINE // max(len(boxes), 1), LEAST)  # tokens of a shard
        self._service = service
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic  # of the breaker: a clock that is set must not keep it open
        self._factor = factor
        self._url = service.url
        self.breaker = Breaker(factor)
        self._line: deque[tuple[_Shard, DueToken]] = deque()
        self._workers: set[gevent.Greenlet] = set()
        self._loops: list[gevent.Greenlet] = []
        self._stopping = False
        self._used = monotonic()
        self.counts = dict.fromkeys([*(answer.value for answer in Answer), 'given_up'], 0)
        self.unwritten = 0  # successes that are not in the control database yet

    # -- life

    def start(self) -> None:
        for shard in self._shards.values():
            self._loops.append(gevent.spawn(self._fill, shard))
            self._loops.append(gevent.spawn(self._settle, shard))
        self._loops.append(gevent.spawn(self._upkeep))

    def stop(self, timeout: float) -> None:
        """Let requests under way end, then write their outcomes."""
        self._stopping = True
        gevent.joinall(list(self._workers), timeout=timeout)
        gevent.killall(list(self._workers))
        gevent.killall(self._loops)
        for shard in self._shards.values():
            if shard.outcomes:
                try:
                    shard.box.settle(shard.outcomes)
                except ShardUnavailable:
                    _log.warning('outcomes not written', notifications=len(shard.outcomes))
        self._service.close()

    def alive(self) -> bool:
        return all(not loop.dead for loop in self._loops)

    def wake(self, shard: int | None = None) -> None:
        """Something is due in a shard, or somewhere; settings have changed."""
        for index, one in self._shards.items():
            if shard is None or index == shard:
                one.wake.set()

    def statistics(self) -> dict[str, Any]:
        return {
            'push': dict(self.counts),
            'push_failures': self.breaker.failures,
            'push_paused': self._paused,
            'traffic': {'notified': self.unwritten},
        }

    # -- taking

    @property
    def _mode(self) -> str:
        mode: str = self._settings['push.mode']
        return mode

    @property
    def _paused(self) -> bool:
        if self._mode == 'off':
            return False
        return self._waiting > 0 or (self._mode == 'auto' and self.breaker.open)

    @property
    def _waiting(self) -> float:
        """Seconds until the service may be asked.  One that says how long it wants to be left
        alone is there, so `on` heeds it as well."""
        now = self._monotonic()
        return self.breaker.wait(now) if self._mode == 'auto' else self.breaker.held(now)

    def _fill(self, shard: _Shard) -> None:
        while not self._stopping:
            shard.wake.clear()
            try:
                pause = self._take(shard)
            except ShardUnavailable:
                pause = AWAY_TIME
            except Exception as error:
                _log.exception('taking failed', error)
                pause = AWAY_TIME
            # PERF: what comes in a crowd is taken together, and announced once meanwhile; a
            # message in a crowd cost 0.12 ms more without.
            gevent.sleep(GATHER_TIME)
            shard.wake.wait(pause)

    def _take(self, shard: _Shard) -> float:
        """Line up what is due; how long to wait for more, seconds."""
        if self._service.url != self._url:
            self._url = self._service.url
            self.breaker.close()
        if self._mode == 'off':
            self._clear_line()
            return IDLE
        pause = self._waiting
        if pause > 0:
            return min(pause, IDLE)
        room = self._room - len(shard.busy)
        later = 0
        if room > 0:
            limit = min(room, PAGE)
            due, later = shard.box.due(int(self._clock()), limit, sorted(shard.busy))
            for one in due:
                shard.busy.add(one.id)
                self._line.append((shard, one))
            if len(due) == room:
                later = 0  # the workers wake us when there is room
            elif len(due) == limit:
                later = int(self._clock())  # there may be more
        self._engage()
        return min(max(later - self._clock(), 0.05), IDLE) if later else IDLE

    def _clear_line(self) -> None:
        """What is lined up stays where it is due."""
        while self._line:
            shard, one = self._line.popleft()
            shard.busy.discard(one.id)

    # -- sending

    def _engage(self) -> None:
        limit = min(self._settings['push.connections'], len(self._line) + len(self._workers))
        while len(self._workers) < limit and not self._stopping:
            self._workers.add(gevent.spawn(self._work))

    def _work(self) -> None:
        try:
            self._work_off()
        finally:
            self._workers.discard(gevent.getcurrent())

    def _work_off(self) -> None:
        while self._line and not self._stopping and len(self._workers) <= self._connections_allowed:
            shard, one = self._line[0]
            now = self._monotonic()
            auto = self._mode == 'auto'
            if self._mode == 'off' or self._waiting > 0 or (auto and not self.breaker.admit(now)):
                return  # _fill comes back to it
            self._line.popleft()
            if self._clock() > one.since + self._settings['push.lifetime']:
                self.breaker.unasked()
                self._decide(shard, Settled(one.id, one.news))
                self.counts['given_up'] += 1
                continue
            was_open, self._used = self.breaker.open, now
            try:
                told = self._service.notify(one.token)
            except BaseException as error:
                # Not known what became of it: it is still due, and is taken again.
                self.breaker.unasked()
                shard.busy.discard(one.id)
                if not isinstance(error, Exception):
                    raise
                _log.exception('request failed', error)
                return
            self.breaker.told(told, self._monotonic())
            if told.wait:
                _log.warning('service asks to wait', seconds=math.ceil(told.wait))
                self.wake()
            if auto and self.breaker.open is not was_open:
                (_log.info if was_open else _log.warning)(
                    'service answers again' if was_open else 'service does not answer'
                )
                self.wake()
            self._decide(shard, self._outcome(one, told))

    @property
    def _connections_allowed(self) -> int:
        allowed: int = self._settings['push.connections']
        return allowed

    def _outcome(self, one: DueToken, told: Told) -> Settled:
        self.counts[told.answer.value] += 1
        if told.answer is Answer.TAKEN:
            self.unwritten += 1
            return Settled(one.id, one.news)
        if told.answer is Answer.GONE:
            return Settled(one.id, one.news, gone=True)
        tries = one.tries + 1
        moment = next_try(
            told,
            tries,
            one.since,
            self._clock(),
            self._settings['push.lifetime'],
            self._factor(),
        )
        if not moment:
            self.counts['given_up'] += 1
        return Settled(one.id, one.news, tries, math.ceil(moment))

    # -- writing

    def _decide(self, shard: _Shard, outcome: Settled) -> None:
        shard.outcomes.append(outcome)
        shard.decided.set()

    def _settle(self, shard: _Shard) -> None:
        while True:
            shard.decided.wait()
            gevent.sleep(SETTLE_TIME)
            shard.decided.clear()
            taken = list(shard.outcomes)
            try:
                again = shard.box.settle(taken)
            except ShardUnavailable:
                gevent.sleep(AWAY_TIME)
                shard.decided.set()
                continue
            except Exception as error:
                _log.exception('outcomes not written', error)
                gevent.sleep(AWAY_TIME)
                shard.decided.set()
                continue
            full = len(shard.busy) >= self._room
            del shard.outcomes[: len(taken)]
            shard.busy.difference_update(one.id for one in taken)
            if full or again or any(one.next_try for one in taken):
                shard.wake.set()

    def _upkeep(self) -> None:
        forgotten = self._monotonic()
        while True:
            gevent.sleep(IDLE)
            now = self._monotonic()
            if now - self._used > QUIET_TIME:
                self._service.close()
            if now - forgotten < FORGET_TIME:
                continue
            forgotten = now
            for shard in self._shards.values():
                try:
                    shard.box.forget()
                except ShardUnavailable:
                    continue
                except Exception as error:
                    _log.exception('old tokens not removed', error)
