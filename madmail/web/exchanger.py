"""Mail that exchangers fetch from here, in both dialects (`delivery.exchanger_dialects`).

    GET  /exchanger/pull?domain=D      dialect B; D is a domain, or * for all that the
                                       exchanger may fetch
    POST /exchanger/pull/ack           {"ids": […]}
    GET  /exchanger/me/full            dialect A
    POST /exchanger/me/ack             the same, for clients that acknowledge
    …    /exchanger/TOKEN/me/full      the token in the URL, for clients that can show none

The token (`Authorization: Bearer`) says who asks, and with that of which domains
there is mail for it.  A message is handed out under a lease of `exchanger.lease`
and removed when it is acknowledged.  A client of dialect A that does not
announce it will acknowledge gets what the dialect says, with one grace: what
could not be written to its connection as a whole stays.

A request that finds nothing waits, when it is asked to, and is answered as soon
as there is something.
"""

from __future__ import annotations

import json
import select
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import falcon
import gevent
from gevent.event import Event

from madmail import log
from madmail.admin.relay import Relay
from madmail.delivery.dkim import Damaged
from madmail.delivery.exchanger import EVERY
from madmail.delivery.exchanger_dialects import (
    ACK_FIELD,
    PAGE,
    WAIT_FIELD,
    Given,
    answer_a,
    answer_b,
)
from madmail.delivery.federation import BadDomain, key
from madmail.shard.calls import CallRefused, ShardUnavailable, body_from
from madmail.store.exchangers import Exchanger
from madmail.web.peers import client
from madmail.web.services import Services
from madmail.web.upload import Cut, TooSlow, Upload

OCTETS = 4 * 1024 * 1024  # of an answer's messages, but for a single one
WAITING_LIMIT = 8  # requests of one exchanger that wait, a worker
ACK_LIMIT = 1024 * 1024  # octets of an acknowledgement
IDS_LIMIT = 10_000
SHARDS_LIMIT = 1024  # an entry is named id * SHARDS_LIMIT + shard
LOOK = 5.0  # seconds between two looks whether who waits is still there
AWAY_PAUSE = 0.5  # seconds before a shard that does not answer is asked again
FLUSH_TIME = 5.0  # seconds between two writings of counts

_log = log.get('exchanger')


class Exchange:
    """What the routes share; one a worker."""

    def __init__(self, services: Services, relay: Relay) -> None:
        self._services = services
        self._relay = relay
        self._waiting: Counter[str] = Counter()
        self._given: Counter[str] = Counter()
        self._writer: gevent.Greenlet | None = None

    # -- who asks

    def who(self, request: falcon.Request, token: str = '') -> Exchanger:
        """The exchanger whose token it is; nothing else is told to others."""
        services = self._services
        services.refresh()
        peer = client(request.env, services.settings)
        scheme, _, given = (request.get_header('Authorization') or '').partition(' ')
        if scheme.lower() == 'bearer':
            token = given.strip()
        found = services.federation.exchangers.by_token(token) if token else None
        if found is None:
            services.counters.count('exchanger_denied')
            if services.rate('limits.admin_failures_per_minute_per_ip', peer):
                raise falcon.HTTPTooManyRequests(retry_after=10)
            raise falcon.HTTPUnauthorized(challenges=['Bearer'])
        if found.mode == 'push' or services.federation.inbound('') is not None:
            raise falcon.HTTPForbidden
        return found

    # -- giving

    def find(
        self, who: Exchanger, domain: str, wait: int, single: bool, client: Any = None
    ) -> list[Given]:
        """Messages under a lease, as soon as there are any or `wait` seconds are over.

        None for a `client` (its socket) that has gone meanwhile: it would have the lease.
        """
        found = self._lease(who, domain, single)
        if found or not wait or self._waiting[who.name] >= WAITING_LIMIT:
            return found
        deadline = time.monotonic() + wait
        self._waiting[who.name] += 1
        try:
            while not found and not self._services.ending.is_set():
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                told = self._wait(who, domain, min(left, LOOK))
                if _is_gone(client):
                    break
                if told:
                    found = self._lease(who, domain, single)
        finally:
            self._waiting[who.name] -= 1
        return found

    def acknowledge(self, who: Exchanger, ids: list[int]) -> int:
        """Messages are safe with the exchanger; how many there were.  Raises HTTPError."""
        shards: dict[int, list[int]] = {}
        for number in ids:
            shards.setdefault(number % SHARDS_LIMIT, []).append(number // SHARDS_LIMIT)
        done = 0
        for shard, entries in shards.items():
            if shard < self._services.shards:
                try:
                    done += self._call(shard, 'outbox_acknowledge', who, entry_ids=entries)
                except (ShardUnavailable, CallRefused):
                    # Those that are not done stay; to acknowledge them again does no harm.
                    raise falcon.HTTPServiceUnavailable(retry_after=1) from None
        if done:
            self._services.counters.count('exchanger_given', done)
            self._given[who.name] += done
            if self._writer is None or self._writer.dead:
                self._writer = gevent.spawn_later(FLUSH_TIME, self._flush)
        return done

    # -- inside

    def _wait(self, who: Exchanger, domain: str, seconds: float) -> bool:
        """Ask all shards to say when there is something; whether one did."""
        told = Event()
        awaited = [
            gevent.spawn(self._wait_at, shard, who, domain, seconds, told)
            for shard in range(self._services.shards)
        ]
        ending = self._services.ending
        ending.rawlink(wake := lambda event: told.set())
        try:
            return told.wait(seconds) and not ending.is_set()
        finally:
            ending.unlink(wake)
            gevent.killall(awaited, block=False)

    def _wait_at(
        self, shard: int, who: Exchanger, domain: str, seconds: float, told: Event
    ) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                if self._call(
                    shard, 'outbox_wait', who, domain=domain, seconds=left, timeout=left + 5.0
                ):
                    told.set()
                    return
            except (ShardUnavailable, CallRefused):
                gevent.sleep(AWAY_PAUSE)  # it is being replaced

    def _lease(self, who: Exchanger, domain: str, single: bool) -> list[Given]:
        """The oldest of all shards first is not promised; of each shard it is."""
        services = self._services
        seconds = services.settings['exchanger.lease']
        found: list[Given] = []
        size = 0
        for shard in range(services.shards):
            if len(found) >= PAGE or size >= OCTETS:
                break
            try:
                leased = self._call(
                    shard,
                    'outbox_lease',
                    who,
                    domain=domain,
                    seconds=seconds,
                    limit=PAGE - len(found),
                    octets=OCTETS - size,
                    single=single,
                )
                for entry in leased:
                    one = self._given_out(shard, entry)
                    if one is not None:
                        found.append(one)
                        size += one.size
            except (ShardUnavailable, CallRefused):
                continue  # what it has comes later
        return found

    def _given_out(self, shard: int, entry: dict[str, Any]) -> Given | None:
        """An entry with its body and signature; None when it went away meanwhile."""
        try:
            body = body_from(
                self._services.clients.clients[shard].call('body', body_id=entry['body_id'])
            )
        except CallRefused:
            return None
        if body is None:
            return None
        try:
            prefix = self._services.keys.sign(body)
        except (Damaged, OSError) as error:
            # Its lease ends, and then it is tried again.
            _log.exception('no signature', error)
            return None
        return Given(
            entry['id'] * SHARDS_LIMIT + shard,
            entry['domain'],
            entry['sender'],
            tuple(entry['recipients']),
            entry['created'],
            prefix,
            body,
        )

    def _call(self, shard: int, method: str, who: Exchanger, **params: Any) -> Any:
        return self._services.clients.clients[shard].call(method, exchanger=who.name, **params)

    def _flush(self) -> None:
        given, self._given = self._given, Counter()
        for name, count in given.items():
            try:
                self._relay.control.exchanger_given(name, count, int(time.time()))
            except Exception as error:
                _log.exception('counts not written', error)


class Pull:
    """Dialect B: messages."""

    def __init__(self, exchange: Exchange, services: Services) -> None:
        self._exchange = exchange
        self._services = services

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        who = self._exchange.who(request)
        asked = (request.get_param('domain') or '').strip()
        if not asked:
            raise falcon.HTTPBadRequest(title='domain is required')
        try:
            domain = asked if asked == EVERY else key(asked)
        except BadDomain:
            raise falcon.HTTPBadRequest(title='this is not a domain') from None
        group = request.get_param('group') == '1'
        wait = _wait(request.get_param('wait') or '', self._services)
        found = self._exchange.find(who, domain, wait, not group, _socket(request))
        response.content_type = falcon.MEDIA_JSON
        response.stream = answer_b(asked, found, wait, group)


class Full:
    """Dialect A: messages."""

    def __init__(self, exchange: Exchange, services: Services) -> None:
        self._exchange = exchange
        self._services = services

    def on_get(self, request: falcon.Request, response: falcon.Response, token: str = '') -> None:
        who = self._exchange.who(request, token)
        ack = request.get_header(ACK_FIELD) == '1'
        wait = _wait(request.get_header(WAIT_FIELD) or '', self._services)
        found = self._exchange.find(who, EVERY, wait, False, _socket(request))
        response.content_type = falcon.MEDIA_JSON
        response.set_header('Cache-Control', 'no-store')
        text = answer_a(found, wait, ack)
        response.stream = text if ack else self._forgetting(text, who, found)

    def _forgetting(
        self, text: Iterator[bytes], who: Exchanger, found: list[Given]
    ) -> Iterator[bytes]:
        """The answer, and behind it the end of what it had."""
        yield from text
        # Asked for more, so all of it was written.
        if found:
            try:
                self._exchange.acknowledge(who, [one.id for one in found])
            except falcon.HTTPServiceUnavailable:
                pass  # it will be given twice


class Ack:
    """Both dialects: messages are safe."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def on_post(self, request: falcon.Request, response: falcon.Response, token: str = '') -> None:
        who = self._exchange.who(request, token)
        acked = self._exchange.acknowledge(who, _ids(request))
        response.content_type = falcon.MEDIA_JSON
        response.text = json.dumps({'status': 'ok', 'acked': acked})


def _socket(request: falcon.Request) -> Any:
    return request.env.get('gunicorn.socket')


def _is_gone(client: Any) -> bool:
    """Whether a client that waits for an answer has hung up, or wants something else."""
    if client is None:
        return False
    try:
        poll = select.poll()
        poll.register(client.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return True


def _ids(request: falcon.Request) -> list[int]:
    upload = Upload(request.env)
    data = bytearray()
    try:
        for piece in upload.pieces():
            data += piece
            if len(data) > ACK_LIMIT:
                upload.abandon()
                raise falcon.HTTPContentTooLarge
        ids = json.loads(bytes(data))['ids']
        # Dialect A has texts.
        numbers = [int(one) for one in ids if isinstance(one, int | str)]
    except (Cut, TooSlow):
        raise falcon.HTTPError(falcon.HTTP_408) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise falcon.HTTPBadRequest(title='this is not {"ids": […]}') from None
    if len(numbers) > IDS_LIMIT or any(not 0 < one < 2**62 for one in numbers):
        raise falcon.HTTPBadRequest(title='these are not ids')
    return numbers


def _wait(text: str, services: Services) -> int:
    """Seconds a request may wait."""
    if not text.isdigit() or len(text) > 9:
        return 0
    return min(int(text), int(services.settings['exchanger.wait']))


def add_routes(app: falcon.App, services: Services, relay: Relay) -> None:
    exchange = Exchange(services, relay)
    full, ack = Full(exchange, services), Ack(exchange)
    app.add_route('/exchanger/pull', Pull(exchange, services))
    app.add_route('/exchanger/pull/ack', ack)
    for base in ('/exchanger', '/exchanger/{token}'):
        app.add_route(f'{base}/me/full', full)
        app.add_route(f'{base}/me/ack', ack)
