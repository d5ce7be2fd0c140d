"""The courier as a process: its shards, its clock, its life under the master.

It also sends push notifications (`realtime.push`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event

from madmail import log
from madmail.account.address import ehlo_name, mail_domain
from madmail.delivery.courier import BATCH, Courier, Forbidden, Transport
from madmail.delivery.dkim import Damaged, Keys
from madmail.delivery.dns import Resolver
from madmail.delivery.federation import Federation
from madmail.delivery.outbox import Outbox, ShardOutbox, ToShard
from madmail.delivery.pulling import Polling, PullDesk
from madmail.delivery.relaying import Relaying
from madmail.delivery.route import Router
from madmail.delivery.schedule import Steps
from madmail.delivery.tracker import Tracker
from madmail.master.control import NotRunning, Refused, ask
from madmail.metrics import bandwidth
from madmail.realtime.push.sender import Sender, ShardBox
from madmail.realtime.push.service import Service
from madmail.shard.calls import ShardClient, ShardUnavailable
from madmail.store.control import Control, LiveSettings
from madmail.tls.brief import TOPIC
from madmail.tls.renewal import Renewals

if TYPE_CHECKING:
    from madmail.master.child import ChildContext

POLL = 5.0  # seconds between two looks at an outbox that announced nothing
STUCK = 120.0  # seconds without a turn after which the courier counts as stuck
RETIRE_TIME = 10.0  # seconds that entries under way get to end
PUSH_TIME = 3.0  # seconds that notifications under way get
EXPIRE_TIME = 60.0  # seconds between two looks for entries that are too old
SETTLE_TIME = 3600.0  # seconds without such a look after the clock was put forward
FLUSH_TIME = 30.0  # seconds between two writings of the tracker
TIDY_TIME = 5.0  # seconds between two looks at idle connections

_log = log.get('courier')


class CourierRole:
    """The courier as a child of the master."""

    def __init__(self, context: ChildContext) -> None:
        self._context = context
        settings = context.settings
        domain = mail_domain(settings['domain'])
        resolver = Resolver.configured(settings)
        self._live = LiveSettings(context.state_dir, settings)
        self._federation = Federation(context.state_dir, settings, domain)
        self._control = Control(context.state_dir)
        self.tracker = Tracker()
        self.tracker.load(self._control)
        self._keys = Keys(context.state_dir, domain, settings)
        self._relaying = Relaying(
            Router(resolver, self._federation.override, settings),
            resolver,
            self._keys,
            self.tracker,
            ehlo=lambda: ehlo_name(settings),
        )
        self._clients = [ShardClient(context.state_dir, n) for n in range(context.shards)]
        self._outboxes: dict[int, Outbox] = {c.index: ShardOutbox(c) for c in self._clients}
        self.courier = Courier(
            self._outboxes,
            self.transports(),
            domain=domain,
            settings=settings,
            on_room=lambda: self._rouse(self._wake),
            waits=self._is_fetched,
            shared=self._federation.shared,
            known=[name for name, peer in self.tracker.peers().items() if peer.successes],
        )
        self._polling = Polling(
            context.state_dir,
            PullDesk(
                context.state_dir, settings, domain, self._federation, resolver, context.shards
            ),
            resolver,
            self._federation,
        )
        # It has the clients of the shards, the resolver and the way of working: a process of
        # its own would cost the memory of one, for a few requests.
        self.sender = Sender(
            {client.index: ShardBox(client) for client in self._clients},
            Service(settings, resolver.reach),
            settings,
        )
        # As well: it needs the resolver, and looks a few times a day.
        self._renewals = Renewals(settings, context.state_dir, resolver, context.bus.publish)
        self._wake = {shard: Event() for shard in self._outboxes}
        self._turned = dict.fromkeys(self._outboxes, time.monotonic())
        self._steps = Steps(time.time, time.monotonic)
        self._expired = time.monotonic()
        self._loops: list[gevent.Greenlet] = []
        self._retiring = False

    def transports(self) -> Sequence[Transport]:
        """In the order in which they are asked."""
        return (ToShard(self._outboxes), Forbidden(self._federation), self._relaying)

    # -- Role

    def start(self) -> None:
        try:
            self._keys.refresh()  # the first key is made here, not under the first message
        except (Damaged, OSError) as error:
            _log.exception('no key to sign with', error)
        self._context.bus.subscribe('outbox', self._announced)
        self._context.bus.subscribe('federation', lambda data: self._reload())
        self._context.bus.subscribe(
            'exchanger', lambda data: self._polling.poll(str(data.get('poll', '')))
        )
        self._context.bus.subscribe('settings', lambda data: self._settings_changed())
        self._context.bus.subscribe('push', lambda data: self.sender.wake(data.get('shard')))
        self._loops = [gevent.spawn(self._work, shard) for shard in self._outboxes]
        self._loops.append(gevent.spawn(self._upkeep))
        self._polling.start()
        self.sender.start()
        self._context.bus.subscribe(TOPIC, self._renewals.asked)
        self._renewals.start()

    def check(self) -> bool:
        """Whether every shard's loop has come round; a shard that is away does not stop it."""
        self._live.refresh()
        if self._federation.refresh():
            self._polling.reload()
        now = time.monotonic()
        return (
            all(not loop.dead for loop in self._loops)
            and all(now - turned < STUCK for turned in self._turned.values())
            and self.sender.alive()
        )

    def retire(self) -> None:
        self._retiring = True
        self._rouse(self._wake)
        self._polling.stop()
        self._renewals.stop()
        self.sender.stop(PUSH_TIME)
        self.courier.finish(RETIRE_TIME)
        gevent.killall(self._loops)
        for client in self._clients:
            client.close()
        self._relaying.close()
        self._weigh()
        self.tracker.flush(self._control)
        self._count()

    def statistics(self) -> dict[str, Any]:
        courier = self.courier
        return {
            'delivered': courier.delivered,
            'bounced': courier.bounced,
            'deferred': courier.deferred,
            'under_way': courier.under_way,
            'destinations_down': len(courier.schedule.down()),
            **self._polling.statistics(),
            **self.sender.statistics(),
        }

    # -- inside

    def _settings_changed(self) -> None:
        self._live.reload()
        self.sender.wake()

    def _count(self) -> None:
        """Keep how many notifications were sent."""
        sent = self.sender.unwritten
        if sent:
            self._control.add_traffic({'notified': sent})
            self.sender.unwritten -= sent

    def _reload(self) -> None:
        self._federation.reload()
        self._polling.reload()

    def _is_fetched(self, domain: str) -> bool:
        """Whether mail waits; not when it may not leave at all, and so comes back."""
        federation = self._federation
        return federation.waits(domain) and federation.outbound(domain) is None

    def _announced(self, event: Any) -> None:
        """A shard says that its outbox has something new; without a shard, all are meant."""
        shard = None
        if isinstance(event, dict):
            shard = event.get('shard')
            if event.get('retry'):
                gevent.spawn(self._retry, str(event.get('domain', '')))
                return
        self._rouse([shard] if shard in self._wake else self._wake)

    def _retry(self, domain: str) -> None:
        self.courier.retry(domain)
        self._rouse(self._wake)

    def _rouse(self, shards: Iterable[int]) -> None:
        for shard in shards:
            self._wake[shard].set()

    def _work(self, shard: int) -> None:
        wake = self._wake[shard]
        while not self._retiring:
            self._turned[shard] = time.monotonic()
            wake.clear()
            try:
                if self.courier.visit(shard) >= BATCH:
                    continue
            except ShardUnavailable:
                pass
            except Exception as error:
                _log.exception('visit failed', error)
            wake.wait(POLL)

    def _upkeep(self) -> None:
        """What is done by the clock: old entries, idle connections, the tracker."""
        flushed = time.monotonic()
        while not self._retiring:
            gevent.sleep(TIDY_TIME)
            try:
                self._relaying.tidy()
                now = time.monotonic()
                self._look_at_clock(now)
                if now - self._expired >= EXPIRE_TIME:
                    self._expired = now
                    self._expire()
                if now - flushed >= FLUSH_TIME:
                    flushed = now
                    self.tracker.flush(self._control)
                    self._count()
                    self._weigh()
            except Exception as error:
                _log.exception('upkeep failed', error)

    def _look_at_clock(self, now: float) -> None:
        """What was put off by a clock that was wrong is due now; nothing is old by its leap."""
        step = self._steps.look()
        if step < 0:
            _log.warning('clock was put back', seconds=int(-step))
            self._retry('')
        elif step > 0:
            _log.warning('clock was put forward', seconds=int(step))
            self._expired = now + SETTLE_TIME - EXPIRE_TIME

    def _weigh(self) -> None:
        """Keep how much the relay has carried."""
        state_dir = self._context.state_dir
        try:
            told = gevent.get_hub().threadpool.apply(_told, (state_dir,))
        except (NotRunning, Refused, OSError):
            return  # next time
        if told:
            bandwidth.record(self._control, told)

    def _expire(self) -> None:
        for shard in self._outboxes:
            try:
                while self.courier.expire(shard) >= BATCH:
                    pass
            except ShardUnavailable:
                continue


def _told(state_dir: Path) -> dict[str, Any] | None:
    """The master's status; in a thread, for it waits on a socket."""
    return ask(state_dir, {'command': 'status'}, timeout=5.0)
