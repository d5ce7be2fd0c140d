"""Calls from other processes to the shard that owns an account.

On the shard's socket a first frame `{"kind": "call"}` opens a call connection.
Requests `{"id", "method", "params"}` may overlap; answers `{"id", "ok",
"result"}` or `{"id", "ok": false, "error"}` come in the order in which they
are ready.  `error` is one of a few words (`unknown-method`, `bad-request`,
`full`, `exists`, `missing`, `failed`), never a text with personal data.

A message travels as octets up to the store's inline limit, and above it as
the path of a spool file, which the receiving shard adopts by a hard link.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import gevent
from gevent.event import AsyncResult

from madmail.account.placement import shard_of
from madmail.bus.frame import Unframer, pack, receive, send
from madmail.shard.address import connect, shard_name
from madmail.shard.turns import runners
from madmail.shard.wire import Wire
from madmail.smtp.reply import Fault, Reply
from madmail.store.interface import Body, Outcome
from madmail.store.spool import FileBody, MemoryBody

CONNECT_TIME = 5.0  # seconds a call waits for a shard that is being replaced
CALL_TIME = 20.0  # seconds for an answer
ROUNDS = 2  # times that the shards are asked to take a message
ROUND_PAUSE = 0.2  # seconds between
OPEN_LIMIT = 10_000  # calls of one connection under way


class ShardUnavailable(Exception):
    """The shard could not be asked, or its answer was lost; asking again is safe
    only for methods that are idempotent."""


class CallRefused(Exception):
    """The shard answered with an error word."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


def body_fields(body: Body | None) -> dict[str, Any]:
    """A body as call parameters: `data`, or `path` and `size`."""
    if body is None:
        return {}
    if isinstance(body, FileBody):
        return {'path': str(body.path), 'size': body.size}
    return {'data': body.read()}


def body_from(fields: dict[str, Any]) -> Body | None:
    """The inverse of `body_fields`."""
    if 'data' in fields:
        return MemoryBody(fields['data'])
    if 'path' in fields:
        return FileBody(Path(fields['path']), int(fields['size']))
    return None


class _Connection:
    """One call connection as seen by the caller; the session of its wire."""

    def __init__(self, stream: socket.socket) -> None:
        self.pending: dict[int, AsyncResult] = {}
        self._unframer = Unframer()
        self.wire = Wire(stream, lambda error: None)
        self.wire.write(pack({'kind': 'call'}))
        self.wire.attach(self)

    def run(self) -> None:
        frames = self._unframer.feed(self.wire.input)
        self.wire.input.clear()
        for frame in frames:
            answer = self.pending.get(frame.get('id', 0))
            if answer is not None:
                answer.set(frame)

    def tick(self, now: float) -> None:
        pass

    def retire(self) -> None:
        pass

    def ended(self) -> None:
        for answer in self.pending.values():
            answer.set(None)


class ShardClient:
    """Calls to one shard over one connection, shared by all greenlets of a process."""

    def __init__(self, state_dir: Path | str, index: int) -> None:
        self.index = index
        self._state_dir = state_dir
        self._connection: _Connection | None = None
        self._ids = itertools.count(1)

    def call(self, method: str, *, timeout: float = CALL_TIME, **params: Any) -> Any:
        """The result; raises ShardUnavailable or CallRefused.  Blocks the greenlet."""
        connection = self._open()
        if len(connection.pending) >= OPEN_LIMIT:
            raise ShardUnavailable('too many calls under way')
        number = next(self._ids)
        answer = connection.pending[number] = AsyncResult()
        try:
            connection.wire.write(pack({'id': number, 'method': method, 'params': params}))
            connection.wire.flush()
            frame = answer.get(timeout=timeout)
        except gevent.Timeout:
            raise ShardUnavailable('no answer in time') from None
        finally:
            connection.pending.pop(number, None)
        if frame is None:
            raise ShardUnavailable('the shard went away')
        if not frame.get('ok'):
            raise CallRefused(str(frame.get('error', 'failed')))
        return frame.get('result')

    def close(self) -> None:
        if self._connection is not None:
            self._connection.wire.close()

    def _open(self) -> _Connection:
        deadline = time.monotonic() + CONNECT_TIME
        while self._connection is None or self._connection.wire.closing:
            try:
                self._connection = _Connection(connect(self._state_dir, shard_name(self.index)))
            except OSError:
                if time.monotonic() > deadline:
                    raise ShardUnavailable('cannot connect') from None
                gevent.sleep(0.05)
        return self._connection


class ShardClients:
    """The other shards, as the router sees them."""

    def __init__(self, state_dir: Path | str, shards: int) -> None:
        self.clients = [ShardClient(state_dir, index) for index in range(shards)]

    def deliver(
        self, shard: int, body: Body, addresses: Sequence[str], delivery_id: bytes
    ) -> list[Outcome]:
        """Raises ShardUnavailable; may be repeated with the same `delivery_id`."""
        try:
            result = self.clients[shard].call(
                'deliver',
                addresses=list(addresses),
                delivery_id=delivery_id,
                **body_fields(body),
            )
        except CallRefused as refused:
            raise ShardUnavailable(refused.word) from None
        return [Outcome(word) for word in result]

    def receive(
        self,
        shard: int,
        body: Body,
        recipients: Sequence[str],
        message_id: bytes,
        origin: str = '',
    ) -> Reply:
        """Mail from elsewhere to local accounts of any shard, by way of `shard`.

        Raises ShardUnavailable; may be repeated, at another shard too, with
        the same `message_id` (see Router.receive).
        """
        try:
            code, enhanced, text, cause, fault = self.clients[shard].call(
                'receive',
                recipients=list(recipients),
                message_id=message_id,
                origin=origin,
                **body_fields(body),
            )
        except CallRefused as refused:
            raise ShardUnavailable(refused.word) from None
        return Reply(code, enhanced, text, cause, Fault(fault))

    def receive_anywhere(
        self, body: Body, recipients: Sequence[str], message_id: bytes, origin: str = ''
    ) -> Reply:
        """The same by any shard that answers.  Raises ShardUnavailable when none does.

        All are asked under one id, so a shard that took the message and could not
        say so does no harm.  They are asked twice, because at a reload all of them
        may be replaced at once.
        """
        first = shard_of(recipients[0], len(self.clients))
        for turn in range(ROUNDS):
            if turn:
                gevent.sleep(ROUND_PAUSE)
            for step in range(len(self.clients)):
                try:
                    shard = (first + step) % len(self.clients)
                    return self.receive(shard, body, recipients, message_id, origin)
                except ShardUnavailable:
                    continue
        raise ShardUnavailable('no shard answers')

    def hold(self, sender: str, body: Body, recipients: Sequence[str], message_id: bytes) -> Reply:
        """Judged mail from elsewhere that goes on to other relays.

        Raises ShardUnavailable.  May be repeated: the message's id names the shard.
        """
        shard = int.from_bytes(message_id[:4], 'big') % len(self.clients)
        for turn in range(ROUNDS):
            if turn:
                gevent.sleep(ROUND_PAUSE)
            try:
                code, enhanced, text, cause, fault = self.clients[shard].call(
                    'outbox_hold',
                    sender=sender,
                    recipients=list(recipients),
                    message_id=message_id,
                    **body_fields(body),
                )
            except (ShardUnavailable, CallRefused):
                continue
            return Reply(code, enhanced, text, cause, Fault(fault))
        raise ShardUnavailable('the shard does not answer')


class CallServer:
    """The shard's end of one call connection; a session on a wire."""

    def __init__(self, wire: Wire, methods: Methods) -> None:
        self._wire = wire
        self._methods = methods
        self._runners = runners()
        self._unframer = Unframer()
        self._open = 0

    def run(self) -> None:
        frames = self._unframer.feed(self._wire.input)
        self._wire.input.clear()
        for frame in frames:
            if self._open >= OPEN_LIMIT:
                self._answer(frame, {'ok': False, 'error': 'full'})
                continue
            self._open += 1
            self._runners.start(self._serve, frame)

    def tick(self, now: float) -> None:
        pass

    def retire(self) -> None:
        pass  # calls go on until the store closes

    def ended(self) -> None:
        pass

    def _serve(self, frame: dict[str, Any]) -> None:
        try:
            self._answer(frame, self._methods.call(frame.get('method'), frame.get('params')))
        finally:
            self._open -= 1

    def _answer(self, frame: dict[str, Any], answer: dict[str, Any]) -> None:
        answer['id'] = frame.get('id', 0)
        self._wire.write(pack(answer))
        self._wire.flush()


class Methods(Protocol):
    """What a call connection needs of the shard."""

    def call(self, method: object, params: object) -> dict[str, Any]:
        """The answer without its id; never raises."""


def call_blocking(
    state_dir: Path | str, shard: int, method: str, *, timeout: float = CALL_TIME, **params: Any
) -> Any:
    """One call from a process without a loop (the CLI); raises as ShardClient.call does."""
    try:
        connection = connect(state_dir, shard_name(shard))
    except OSError:
        raise ShardUnavailable('cannot connect') from None
    with connection:
        connection.settimeout(timeout)
        try:
            send(connection, {'kind': 'call'})
            send(connection, {'id': 1, 'method': method, 'params': params})
            frame = receive(connection)
        except OSError:
            raise ShardUnavailable('no answer') from None
    if frame is None:
        raise ShardUnavailable('the shard went away')
    if not frame.get('ok'):
        raise CallRefused(str(frame.get('error', 'failed')))
    return frame.get('result')
