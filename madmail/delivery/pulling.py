"""Fetching mail from exchangers: a greenlet each, in the courier.

A poll fetches what there is, stores it, acknowledges what is stored or can
never be, and begins anew while there was something.  What cannot be stored at
the moment is not acknowledged and comes again; where the dialect has no
acknowledgement it is tried again here, and no further poll is made until then.

An exchanger that lets us wait is asked again at once; any other after its
interval, give or take a tenth.  Failures in a row double the pause.

What became of polls is in memory and written to the control database every few
seconds, in a thread, because that waits for the disk.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import gevent
from gevent import get_hub
from gevent.event import Event

from madmail import log
from madmail.delivery.arrival import Arrival, size_limit
from madmail.delivery.dns import Resolver
from madmail.delivery.exchanger import LEAST_INTERVAL, BadUrl, place
from madmail.delivery.exchanger_dialects import (
    PAGE,
    BadAnswer,
    Message,
    Page,
    acknowledged,
    acknowledgement,
    page,
    request,
)
from madmail.delivery.federation import Federation, trusts_names
from madmail.delivery.origin import Origins
from madmail.delivery.policy import Policy
from madmail.delivery.pull_client import Failed, PullClient
from madmail.delivery.tls_policy import contexts
from madmail.settings import Settings
from madmail.shard.calls import ShardClients
from madmail.smtp import grammar
from madmail.smtp.reply import Reply
from madmail.store.control import Control
from madmail.store.exchangers import Exchanger, Polled
from madmail.store.interface import Body, StoreFull
from madmail.store.spool import Spool

WAIT = 25  # seconds we offer to wait for mail
ANSWER_TIME = 60.0  # seconds beyond that for a whole answer
ACK_TIME = 30.0  # seconds for the answer to an acknowledgement
ACK_EVERY = 10.0  # seconds after which what is safe is acknowledged before the page is done
ACK_LIMIT = 64 * 1024  # octets of the answer to it
EMPTY_LIMIT = 1024 * 1024  # octets of an answer beside its messages
LARGEST = 128 * 1024 * 1024  # octets of an answer where messages have no limit
AGAIN = 0.005  # seconds before an exchanger is asked again at once
LONGEST = 900.0  # seconds between two polls while they fail
DOUBLINGS = 10
SPREAD = (0.9, 1.1)
RETRY_TIME = 600.0  # seconds in which what cannot be given back is tried again
RETRY_PAUSES = (1.0, 30.0)  # seconds between two such tries: the first, doubled, and the longest
FLUSH_TIME = 5.0  # seconds between two writings of what became of polls
ERROR_LIMIT = 200  # characters

_log = log.get('exchanger')


class Fate(Enum):
    """What became of one message."""

    TAKEN = 'taken'
    NEVER = 'never'
    LATER = 'later'


class PullDesk:
    """What the arrival of a message needs, in the courier."""

    def __init__(
        self,
        state_dir: Path,
        settings: Settings,
        domain: str,
        federation: Federation,
        resolver: Resolver,
        shards: int,
    ) -> None:
        self.settings = settings
        self.federation = federation
        self.policy = Policy(domain, settings, federation)
        self.origin = Origins(settings, domain, resolver)
        self._clients = ShardClients(state_dir, shards)
        self._spools = state_dir / 'courier'
        shutil.rmtree(self._spools, ignore_errors=True)  # what a crash has left

    def spool(self) -> Spool:
        return Spool(self._spools)

    def receive(
        self, body: Body, recipients: list[str], message_id: bytes, origin: str = ''
    ) -> Reply:
        return self._clients.receive_anywhere(body, recipients, message_id, origin)

    def hold(self, sender: str, body: Body, recipients: list[str], message_id: bytes) -> Reply:
        return self._clients.hold(sender, body, recipients, message_id)

    def close(self) -> None:
        for client in self._clients.clients:
            client.close()


class Poller:
    """One exchanger."""

    def __init__(
        self,
        row: Exchanger,
        desk: PullDesk,
        client: PullClient,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] = gevent.sleep,
        hurried: Callable[[], None] = lambda: None,
    ) -> None:
        """`hurried` is called after a poll that somebody wanted to be made now."""
        self.row = row
        self._hurried = hurried
        self._desk = desk
        self._client = client
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._path = place(row.url).path
        self.last_poll_at = row.last_poll_at
        self.last_success_at = row.last_success_at
        self.last_error = row.last_error
        self.failures = row.failures
        self.pulled = 0  # since it was written
        self.refused = 0
        self.changed = False  # whether there is something to write
        # Whether the poll has brought something that is gone there now.
        self._has_brought = False

    def run(self, *, now: bool = False) -> None:
        """Poll for ever; with `now` begin with one that does not wait for mail."""
        if self.failures and not now:  # the pause goes on where a restart has cut it
            left = self.last_poll_at + self._pause() - self._clock()
            gevent.sleep(min(max(left, 0.0), LONGEST))
        while True:
            again = self.poll(0 if now else WAIT)
            if now:
                now = False
                self._hurried()
            gevent.sleep(AGAIN if again else self._pause())

    def take_polled(self) -> Polled:
        """What became of polls, with the counts since this was last asked."""
        polled = Polled(
            self.last_poll_at,
            self.last_success_at,
            self.last_error,
            self.failures,
            self.pulled,
            self.refused,
        )
        self.pulled = self.refused = 0
        self.changed = False
        return polled

    def give_back(self, polled: Polled) -> None:
        """It could not be written."""
        self.pulled += polled.pulled
        self.refused += polled.refused
        self.changed = True

    def poll(self, wait: int = WAIT) -> bool:
        """Fetch what there is, or comes in `wait` seconds; whether to ask again at once."""
        started = int(self._clock())
        began = self._monotonic()
        error, again = '', False
        self._has_brought = False
        try:
            if not self._desk.settings['federation.enabled']:
                # All would be refused for ever, and be gone.
                raise Failed('exchange of mail with other relays is off')
            for domain in self._domains():
                again = self._fetch(domain, wait) or again
        except (Failed, BadAnswer) as failure:
            error = str(failure)[:ERROR_LIMIT]
        except Exception as breakage:
            _log.exception('poll failed', breakage)
            error = 'it could not be asked'
        self.last_poll_at = started
        self.last_error = error
        self.changed = True
        if error:
            self.failures += 1
            return False
        self.failures = 0
        self.last_success_at = int(self._clock())
        # What promises to wait and does not must not make us run in circles.
        return again and (self._monotonic() - began >= LEAST_INTERVAL or self._has_brought)

    # -- inside

    def _pause(self) -> float:
        interval: float = max(self.row.poll_interval, LEAST_INTERVAL)
        if self.failures:
            doubled = interval * 2 ** min(self.failures, DOUBLINGS)
            interval = max(interval, min(doubled, LONGEST))
        return max(interval * random.uniform(*SPREAD), LEAST_INTERVAL)

    def _domains(self) -> Sequence[str]:
        if self.row.protocol == 'a':
            return ('',)  # who asks is all that counts
        return self.row.fetches or (self._desk.policy.domain,)

    def _fetch(self, domain: str, wait: int) -> bool:
        """One page; whether to ask again at once.  Raises Failed, BadAnswer."""
        single = len(self._domains()) == 1
        found = self._page(domain, wait if single else 0)
        safe: list[int | str] = []
        acked = self._monotonic()
        for message in found.messages:
            fate = self._take(message)
            if fate is Fate.LATER and not found.ack:
                fate = self._insist(message)
            if fate is Fate.TAKEN:
                self.pulled += 1
            elif fate is Fate.NEVER:
                self.refused += 1
            if fate is not Fate.LATER and found.ack and message.id != '':
                safe.append(message.id)
            if safe and self._monotonic() - acked > ACK_EVERY:
                self._acknowledge(safe)
                safe, acked = [], self._monotonic()
        if safe:
            self._acknowledge(safe)
        more = len(found.messages) >= PAGE and self._has_brought
        return (found.waited and single) or more

    def _page(self, domain: str, wait: int) -> Page:
        row = self.row
        target, fields = request(row.protocol, self._path, domain, wait)
        largest = size_limit(self._desk.settings)
        limit = max(16 * 1024 * 1024, largest * 3) if largest else LARGEST
        answer = self._client.ask(
            'GET',
            target,
            {**self._fields(), **fields},
            limit=limit + EMPTY_LIMIT,
            timeout=wait + ANSWER_TIME,
        )
        if answer.status == 404 and row.protocol == 'a':
            return Page((), False, False)  # no queue yet
        if answer.status != 200:
            raise Failed(_status(answer.status))
        return page(row.protocol, answer.data)

    def _acknowledge(self, ids: list[int | str]) -> None:
        target, body = acknowledgement(self.row.protocol, self._path, ids)
        answer = self._client.ask(
            'POST',
            target,
            {**self._fields(), 'Content-Type': 'application/json'},
            body,
            limit=ACK_LIMIT,
            timeout=ACK_TIME,
        )
        if answer.status != 200:
            raise Failed(f'{_status(answer.status)}, to an acknowledgement')
        if acknowledged(answer.data):
            self._has_brought = True

    def _fields(self) -> dict[str, str]:
        fields = {'Accept': 'application/json'}
        if self.row.token:
            fields['Authorization'] = f'Bearer {self.row.token}'
        return fields

    def _insist(self, message: Message) -> Fate:
        """It cannot be given back: try until it is decided."""
        pause, longest = RETRY_PAUSES
        deadline = self._monotonic() + RETRY_TIME
        while self._monotonic() < deadline:
            self._sleep(pause)
            pause = min(pause * 2, longest)
            fate = self._take(message)
            if fate is not Fate.LATER:
                return fate
        _log.error('a message could not be stored and is lost')
        return Fate.NEVER

    def _take(self, message: Message) -> Fate:
        """Judge and store one message; what breaks over it holds up no other."""
        try:
            return self._judge(message)
        except Exception as error:
            _log.exception('message failed', error)
            return Fate.LATER

    def _judge(self, message: Message) -> Fate:
        """As if it had come to /mxdeliv."""
        desk = self._desk
        limit = size_limit(desk.settings)
        if not message.sound or (limit and len(message.text) > limit * 2):
            return Fate.NEVER
        sender = _path(message.sender) if message.sender not in ('', '<>') else None
        if sender is None and message.sender not in ('', '<>'):
            return Fate.NEVER
        if refusal := desk.policy.inbound_sender(sender):
            return _fate(refusal)
        recipients: dict[str, None] = {}
        for name in message.recipients:
            path = _path(name)
            if path is None or desk.policy.one_more(len(recipients)):
                return Fate.NEVER
            recipients[desk.policy.recipient(path)] = None
        if not any(self._is_for_us(recipient) for recipient in recipients):
            return Fate.NEVER
        arrival = Arrival(desk, sender.address if sender else '', list(recipients))
        try:
            for piece in message.pieces():
                arrival.feed(piece)
                gevent.sleep(0)  # a large message holds nobody up
            found = arrival.finish()
        except ValueError:
            return Fate.NEVER  # it is not base64
        except StoreFull:
            return Fate.LATER
        finally:
            arrival.discard()
        if found is None:
            return Fate.TAKEN
        _log.info('message refused', code=found.reply.code, cause=found.reply.cause)
        return _fate(found.reply)

    def _is_for_us(self, recipient: str) -> bool:
        desk = self._desk
        return desk.policy.local(recipient) or desk.federation.carries(recipient.rpartition('@')[2])


def _path(text: str) -> grammar.Path | None:
    text = text.strip()
    return grammar.mailbox(text[1:-1] if text[:1] == '<' and text[-1:] == '>' else text)


def _fate(reply: Reply) -> Fate:
    return Fate.NEVER if reply.code >= 500 else Fate.LATER


def _status(status: int) -> str:
    meaning = {
        401: ': the token is wrong',
        403: ': it gives nothing to us',
        404: ': there is nothing to fetch at this URL',
    }
    return f'it answered {status}{meaning.get(status, "")}'


class Polling:
    """The pollers of all exchangers."""

    def __init__(
        self,
        state_dir: Path,
        desk: PullDesk,
        resolver: Resolver,
        federation: Federation,
    ) -> None:
        self._state_dir = state_dir
        self._desk = desk
        self._resolver = resolver
        self._federation = federation
        self._verified, self._unverified = contexts()
        self._pollers: dict[str, tuple[Poller, gevent.Greenlet]] = {}
        self._writer: gevent.Greenlet | None = None
        self._parted: list[Poller] = []  # with something to write
        self._flush_now = Event()
        self._stopped = False

    def start(self) -> None:
        self._writer = gevent.spawn(self._write)
        self.reload()

    def reload(self) -> None:
        """Take over what the federation has; pollers whose row is as it was go on."""
        if self._stopped:
            return
        rows = {row.name: row for row in self._federation.exchangers.polled}
        for name, (poller, greenlet) in list(self._pollers.items()):
            row = rows.get(name)
            if row is None or _given(row) != _given(poller.row):
                greenlet.kill(block=False)
                del self._pollers[name]
                self._parted.append(poller)
        for name, row in rows.items():
            if name not in self._pollers:
                try:
                    poller = Poller(row, self._desk, self._client(row), hurried=self._flush_now.set)
                except BadUrl:
                    continue  # stored by a version that knew more
                self._pollers[name] = (poller, gevent.spawn(poller.run))

    def poll(self, name: str) -> None:
        """Poll an exchanger now, all for ''."""
        for other, (poller, greenlet) in list(self._pollers.items()):
            if name in ('', other):
                # Whatever it is about: it comes again, and is stored once.
                greenlet.kill(block=False)
                self._pollers[other] = (poller, gevent.spawn(poller.run, now=True))

    def stop(self) -> None:
        """End, and write what is left."""
        self._stopped = True
        gevent.killall([greenlet for _, greenlet in self._pollers.values()], timeout=5.0)
        if self._writer is not None:
            self._writer.kill()
        self._flush()
        self._desk.close()

    def statistics(self) -> dict[str, int]:
        """How many are polled, and how many of them failed the last time."""
        pollers = [poller for poller, _ in self._pollers.values()]
        return {
            'exchangers': len(pollers),
            'exchangers_failing': sum(poller.failures > 0 for poller in pollers),
        }

    # -- inside

    def _client(self, row: Exchanger) -> PullClient:
        where = place(row.url)
        verify = trusts_names(where.host) if row.verify is None else row.verify
        context = self._verified if verify else self._unverified
        return PullClient(where, context, self._resolver.reach, verify=verify)

    def _write(self) -> None:
        while True:
            self._flush_now.wait(FLUSH_TIME)
            self._flush_now.clear()
            try:
                self._flush()
            except Exception as error:
                _log.exception('polls not written', error)

    def _flush(self) -> None:
        parted, self._parted = self._parted, []
        for poller in [*parted, *(poller for poller, _ in self._pollers.values())]:
            if poller.changed:
                polled = poller.take_polled()
                try:
                    get_hub().threadpool.apply(self._write_one, (poller.row.name, polled))
                except BaseException:
                    poller.give_back(polled)
                    raise

    def _write_one(self, name: str, polled: Polled) -> None:
        """In a thread; one at a time, because the pool is waited for."""
        control = Control(self._state_dir)
        try:
            control.exchanger_polled(name, polled)
        finally:
            control.close()


def _given(row: Exchanger) -> tuple[Any, ...]:
    """The operator's part of a row."""
    return row[: Exchanger._fields.index('updated')]
