"""The shard process: store, sessions, calls, and the life between start and retirement.

<state_dir>/shards/N/          the store, see madmail.store
<state_dir>/run/shard-N.sock   hand-overs from gates and calls, see reception
<state_dir>/run/shard-N.handoff   sessions from the previous process, see handoff
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from mmap import mmap
from pathlib import Path
from typing import Any, TypeVar

import gevent
from gevent import get_hub

from madmail import log
from madmail.account import flood
from madmail.account.address import hostname, mail_domain
from madmail.account.admission import Admission
from madmail.account.flood import Flood
from madmail.account.placement import shard_of
from madmail.account.registry import Accounts
from madmail.account.secret import load as load_secret
from madmail.account.shortage import Shortage
from madmail.delivery.federation import Federation
from madmail.delivery.origin import Origins
from madmail.delivery.router import Router
from madmail.delivery.traffic import Ledger
from madmail.imap.compress import Compressed
from madmail.imap.mailbox import OpenMailboxes
from madmail.imap.session import ImapSession
from madmail.master.child import ChildContext
from madmail.realtime.presence import Presence
from madmail.realtime.turn.offer import Offer
from madmail.shard.bandwidth import Bandwidth
from madmail.shard.calls import ShardClients
from madmail.shard.handoff import Bequest, Inheritance
from madmail.shard.methods import ShardMethods
from madmail.shard.methods_exchange import News
from madmail.shard.methods_push import Due
from madmail.shard.reception import Reception
from madmail.shard.sessions import Sessions
from madmail.shard.wire import READ, Wire
from madmail.smtp.session import SmtpSession
from madmail.store.control import Blocklist, LiveSettings
from madmail.store.interface import AccountGone, Event, Store
from madmail.store.room import room
from madmail.store.spool import Spool
from madmail.store.sqlite import open_store
from madmail.upkeep.caretaker import Caretaker

ACCEPT_BATCH = 64  # connections a turn of the loop
BOUNDARY_TIME = 8.0  # seconds running commands get to end before sessions move
PRESENCE_TIME = 3.0  # seconds in which the services beside us have begun, too, or do not answer
SLICE = 50  # accounts whose calls end in one turn of the loop, about 3 ms
THREADS = 2  # for password hashing and file syncs

Result = TypeVar('Result')
_log = log.get('shard')


class Shard:
    """One shard; fulfils ShardServices for its sessions and Role for its process."""

    def __init__(self, context: ChildContext) -> None:
        self.context = context
        self.settings = context.settings
        self.domain = mail_domain(self.settings['domain'])
        self.directory: Path = context.state_dir / 'shards' / str(context.index)
        self.sessions = Sessions(lambda: self.settings['limits.sessions_per_account'])
        self._watchers: list[Any] = []
        self._resume: Any = None
        self._last_words: dict[str, Any] | None = None

    @property
    def hostname(self) -> str:
        return hostname(self.settings)

    # -- Role

    def start(self) -> None:
        """Open the store, take over what a predecessor passes on, accept."""
        inherited: list[tuple[dict[str, Any], socket.socket]] = []
        if self.context.takeover:
            inheritance = Inheritance(self.context.state_dir, self.context.index)
            self.context.awaiting()
            inherited = list(inheritance.receive())
        get_hub().threadpool.maxsize = THREADS
        settings = self.settings
        self._live = LiveSettings(self.context.state_dir, settings)
        self.store: Store = open_store(self.directory, **room(settings))
        self.store.notifying = settings['push.mode'] != 'off'
        self.blocklist = Blocklist(self.context.state_dir)
        self.admission = Admission(
            settings,
            Shortage(self.context.state_dir, settings),
            Flood(self.context.shared or mmap(-1, flood.SIZE), self.context.index),
            self.store.account_count,
        )
        self.accounts = Accounts(
            self.store,
            settings,
            load_secret(self.context.state_dir),
            self.blocklist,
            self.offload,
            self.admission,
        )
        self.boxes = OpenMailboxes(self.store)
        self.clients = ShardClients(self.context.state_dir, self.context.shards)
        self.federation = Federation(self.context.state_dir, settings, self.domain)
        self.news = News()
        self.router = Router(
            self.store,
            self.clients.deliver,
            own_shard=self.context.index,
            shard_of=lambda address: shard_of(address, self.context.shards),
            settings=settings,
            domain=self.domain,
            federation=self.federation,
            announce=self.announce,
        )
        self.bandwidth = Bandwidth(lambda: self.store, settings, self.sessions.owned)
        self.sessions.weigh = self.bandwidth.take
        self.ledger = Ledger(self.context.state_dir, self.router.traffic, self.offload)
        self.origin = Origins(settings, self.domain)
        self.upkeep = Caretaker(
            self.store,
            settings,
            self.context.index,
            connected=self.sessions.count,
            forget=self.accounts.forget,
        )
        self.due = Due(lambda: self.context.bus.publish('push', {'shard': self.context.index}))
        self.store.observer = self._observe
        self.store.announce_due = self.due.tell
        self.presence = Presence(self.context.bus, PRESENCE_TIME)
        bus, part = self.context.bus, (self.context.index, self.context.shards)
        self.turn = Offer(
            settings,
            load_secret(self.context.state_dir),
            self.presence,
            part,
            lambda names: bus.publish('turn.ended', {'names': names}),
        )
        self._end_calls(self.blocklist.blocked_since(int(time.time()) - settings['turn.ttl']))
        self.methods = ShardMethods(self)
        subscribe = self.context.bus.subscribe
        subscribe('blocklist', lambda data: self.reload_blocklist())
        subscribe('federation', lambda data: self.federation.reload())
        subscribe('settings', lambda data: self._refresh())
        subscribe('turn', lambda data: self.turn.carried(data['octets'], self.bandwidth.carried))
        subscribe('turn.begun', lambda data: self.turn.tell_ended())
        for state, stream in inherited:
            self._adopt(state, stream)
        self.sessions.start()
        self.upkeep.start()
        self.ledger.start()
        self.bandwidth.start()
        self._accept_on(self.context.listeners['shard'])

    def check(self) -> bool:
        """The heartbeat goes the way of a write: through the commit thread to disk."""
        self.store.barrier()
        if self._live.refresh():
            self._apply()
        self.federation.refresh()
        return True

    def retire(self) -> None:
        """Stop accepting, let commands end, pass sessions on or end them, close the store."""
        self._stop_accepting()
        self.upkeep.stop()
        self.news.close()
        bequest = None
        if self.context.succeeded:
            try:
                bequest = Bequest(self.context.state_dir, self.context.index)
            except OSError:
                _log.warning('no successor listens, sessions end')
        deadline = time.monotonic() + BOUNDARY_TIME
        while True:
            for wire in self.sessions:
                self._part_with(wire, bequest)
            if not len(self.sessions) or time.monotonic() > deadline:
                break
            gevent.sleep(0.02)
        for wire in self.sessions:
            wire.close()
        self.sessions.stop()
        self.ledger.stop()
        self.bandwidth.stop()
        self._last_words = self.statistics()  # asked for once more when the store is closed
        self.store.close()
        if bequest is not None:
            bequest.close()

    def statistics(self) -> dict[str, Any]:
        if self._last_words is not None:
            return self._last_words
        return {
            'accounts': self.store.account_count(),
            'connections': len(self.sessions),
            'sessions': self.sessions.logged_in,
            'traffic': self.router.traffic.as_dict(),
            'durable': self.router.durable.as_dict(),
            'queued': sum(self.store.outbox_count().values()),
            'push_waiting': self.store.push_waiting(),
            'registrations_refused': dict(self.admission.refused),
        }

    # -- ShardServices

    def spool(self) -> Spool:
        return Spool(self.directory)

    def announce(self) -> None:
        """The outbox has something new."""
        self.context.bus.publish('outbox', {'shard': self.context.index})
        self.news.tell()

    def offload(self, function: Callable[..., Result], *arguments: Any) -> Result:
        result: Result = get_hub().threadpool.apply(function, arguments)
        return result

    def reload_blocklist(self) -> None:
        """Read it anew; calls of who is on it now end."""
        before = self.blocklist.addresses
        self.blocklist.reload()
        self._end_calls(self.blocklist.addresses - before)

    # -- inside

    def _end_calls(self, addresses: Iterable[str]) -> None:
        """Those among them that live here have no credentials for calls any more."""
        ours = [
            one for one in addresses if shard_of(one, self.context.shards) == self.context.index
        ]
        self._end_some(ours[:SLICE])
        if len(ours) > SLICE:
            gevent.spawn(self._end_further, ours[SLICE:])

    def _end_further(self, addresses: Sequence[str]) -> None:
        """Of very many, with turns for others in between."""
        for at in range(0, len(addresses), SLICE):
            gevent.sleep(0)
            self._end_some(addresses[at : at + SLICE])

    def _end_some(self, addresses: Sequence[str]) -> None:
        found = ((self.store.account(address), address) for address in addresses)
        self.turn.all_ended((one.id if one else None, address) for one, address in found)

    def _refresh(self) -> None:
        self._live.reload()
        self._apply()

    def _apply(self) -> None:
        self.store.limit(**room(self.settings))
        self.store.notifying = self.settings['push.mode'] != 'off'

    def _observe(self, events: Sequence[Event]) -> None:
        self.boxes.events(events)
        for event in events:
            if isinstance(event, AccountGone):
                self.sessions.dismiss(event.account_id)
                self.turn.ended(event.account_id)
                self.admission.tell()

    def _accept_on(self, listeners: Sequence[socket.socket]) -> None:
        for listener in listeners:
            watcher = get_hub().loop.io(listener.fileno(), READ)
            watcher.start(self._accept, listener)
            self._watchers.append(watcher)

    def _stop_accepting(self) -> None:
        for watcher in self._watchers:
            watcher.stop()
            watcher.close()
        self._watchers.clear()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                stream, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # Out of descriptors: what waits in the backlog may wait a little.
                self._pause()
                return
            stream.setblocking(False)
            wire = self._wire(stream)
            wire.attach(Reception(wire, self, self.sessions, self.methods, time.monotonic))

    def _pause(self) -> None:
        _log.warning('out of descriptors')
        self._stop_accepting()
        self._resume = get_hub().loop.timer(0.2)
        self._resume.start(self._accept_on, self.context.listeners['shard'])

    def _wire(self, stream: socket.socket) -> Wire:
        wire = Wire(stream, self._crashed)
        self.sessions.enter(wire)
        return wire

    def _crashed(self, error: BaseException) -> None:
        _log.exception('session failed', error)

    def _part_with(self, wire: Wire, bequest: Bequest | None) -> None:
        session = wire.session
        if wire.busy or wire.unsent or session is None:
            return
        state = None
        if bequest is not None and isinstance(session, (ImapSession, SmtpSession, Compressed)):
            state = session.freeze()
        if state is None or bequest is None:
            session.retire()
            wire.close()
            return
        account_id = self.sessions.account_of(wire)
        self.sessions.forget(wire)
        bequest.send({**state, 'account': account_id or 0}, wire.detach())

    def _adopt(self, state: dict[str, Any], stream: socket.socket) -> None:
        """Go on with a session of the previous process."""
        account = self.store.account_by_id(state['account']) if state['account'] else None
        if account is None and state['account']:
            stream.close()
            return
        wire = self._wire(stream)
        session: ImapSession | SmtpSession | Compressed
        if state['protocol'] == 'imap':
            assert account is not None
            session = ImapSession.thaw(wire, self, account, state)
            if 'deflate' in state:
                session = Compressed.thaw(wire, session, state['deflate'])
        else:
            session = SmtpSession.thaw(wire, self, account, state)
        if account is not None:
            self.sessions.add(account.id, wire)
        wire.attach(session)
