"""Router, courier, shard calls and the SQLite store together: nothing lost, nothing double."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from madmail.delivery.courier import Courier
from madmail.delivery.outbox import ShardOutbox, ToShard
from madmail.delivery.router import Router
from madmail.settings import Settings
from madmail.shard.calls import CallRefused, ShardUnavailable, body_fields
from madmail.shard.methods import ShardMethods
from madmail.smtp.reply import Reply
from madmail.smtp.session import SmtpSession
from madmail.store.interface import INLINE_LIMIT, Account, Body, OutboxEntry, Outcome, Store
from madmail.store.spool import MemoryBody, Spool
from madmail.store.sqlite import open_store
from tests.smtp.double import ScriptedWire

DOMAIN = 'relay.example'
ALICE = f'alice@{DOMAIN}'
BOB = f'bob@{DOMAIN}'
TEXT = b'From: <alice@relay.example>\r\nMessage-ID: <the-one@localhost>\r\n\r\nwords\r\n'


class Call:
    """A shard's call connection without the socket."""

    def __init__(self, index: int, store: Store) -> None:
        self.index = index
        shard = SimpleNamespace(
            store=store, settings=Settings.defaults(), statistics=dict, domain=DOMAIN
        )
        self._methods = ShardMethods(shard)  # type: ignore[arg-type]
        self.away = False
        self.deaf = False  # the work is done, the answer is lost

    def call(self, method: str, **params: Any) -> Any:
        if self.away:
            raise ShardUnavailable
        answer = self._methods.call(method, params)
        if self.deaf:
            raise ShardUnavailable
        if not answer['ok']:
            raise CallRefused(answer['error'])
        return answer['result']


class Nowhere:
    """A transport to domains that do not exist."""

    def takes(self, domain: str) -> bool:
        return True

    def send(self, entry: OutboxEntry, body: Body) -> list[Reply]:
        return [Reply(550, '5.4.4', 'No way there') for _ in entry.recipients]


class Relay:
    """Alice lives in shard 0, Bob in shard 1."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stores = [
            open_store(directory / str(n), quota_default=10**9, trim_from=0.75, trim_to=0.7)
            for n in range(2)
        ]
        self.stores[0].create_account(ALICE, 'x', 0)
        self.stores[1].create_account(BOB, 'x', 0)
        self.calls = [Call(n, store) for n, store in enumerate(self.stores)]
        self.settings = Settings.defaults(policy__require_encryption=False)
        self.router = Router(
            self.stores[0],
            self.elsewhere,
            own_shard=0,
            shard_of=lambda address: int(address != ALICE),
            settings=self.settings,
            domain=DOMAIN,
        )
        self.courier = self.start()

    def start(self) -> Courier:
        minutes = itertools.count(0, 60)  # a shard that was away may be asked again at once
        outboxes = {call.index: ShardOutbox(call) for call in self.calls}  # type: ignore[arg-type]
        return Courier(
            outboxes,
            (ToShard(outboxes, lambda: time.monotonic() + next(minutes)), Nowhere()),
            domain=DOMAIN,
            settings=self.settings,
            clock=lambda: time.time() + 1,
        )

    def elsewhere(self, shard: int, body: Body, names: Any, number: bytes) -> list[Outcome]:
        words = self.calls[shard].call(
            'deliver', addresses=list(names), delivery_id=number, **body_fields(body)
        )
        return [Outcome(word) for word in words]

    def texts(self, address: str) -> list[bytes]:
        for store in self.stores:
            account = store.account(address)
            if account is not None:
                box = store.mailbox(account.id, 'INBOX')
                assert box is not None
                bodies = [store.body(m.body_id) for m in store.messages(box.id, 1, 10**6)]
                return [body.read() for body in bodies if body is not None]
        raise AssertionError

    def carry(self) -> None:
        for n in range(2):
            try:
                self.courier.visit(n)
            except ShardUnavailable:
                pass
        assert self.courier.finish(10)


@pytest.fixture
def relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    monkeypatch.setattr('madmail.delivery.router.ELSEWHERE_TIME', 0.05)
    relay = Relay(tmp_path)
    yield relay
    for store in relay.stores:
        store.close()


def spooled(relay: Relay, size: int) -> tuple[Spool, Body]:
    spool = Spool(relay.directory / '0')
    spool.append(TEXT)
    spool.append(b'y' * (size - len(TEXT)))
    return spool, spool.finish()


@pytest.mark.parametrize('size', [len(TEXT), INLINE_LIMIT * 2])
@pytest.mark.parametrize('trouble', ['away', 'deaf'])
def test_a_parked_part_arrives_once(relay: Relay, size: int, trouble: str) -> None:
    setattr(relay.calls[1], trouble, True)
    spool, body = spooled(relay, size)
    whole = body.read()
    assert relay.router.submit(ALICE, [ALICE, BOB], body).code == 250
    spool.discard()
    relay.carry()
    assert len(relay.stores[0].outbox_list()) == 1
    setattr(relay.calls[1], trouble, False)
    relay.stores[0].outbox_retry(relay.stores[0].outbox_list()[0].id, 0, '')
    relay.carry()
    assert relay.texts(BOB) == [whole]
    assert relay.texts(ALICE) == [whole]
    assert relay.stores[0].outbox_list() == []


def test_remote_mail_and_unknown_names_come_back(relay: Relay) -> None:
    names = [BOB, 'x@other.example', f'ghost@{DOMAIN}']
    assert relay.router.submit(ALICE, names, MemoryBody(TEXT)).code == 250
    [bounce] = relay.texts(ALICE)
    assert f'ghost@{DOMAIN}'.encode() in bounce
    relay.carry()
    assert relay.stores[0].outbox_list() == []
    first, second = relay.texts(ALICE)
    assert first == bounce
    assert b'x@other.example' in second
    assert b'5.4.4' in second
    assert b'<the-one@localhost>' in second


def test_a_courier_whose_removal_got_no_answer_reports_once(relay: Relay) -> None:
    assert relay.router.submit(ALICE, ['x@other.example'], MemoryBody(TEXT)).code == 250
    remove = relay.calls[0].call

    def deaf_at_the_end(method: str, **params: Any) -> Any:
        result = remove(method, **params)
        if method == 'outbox_remove':
            raise ShardUnavailable
        return result

    relay.calls[0].call = deaf_at_the_end  # type: ignore[method-assign]
    relay.carry()
    relay.calls[0].call = remove  # type: ignore[method-assign]
    relay.courier = relay.start()
    relay.carry()
    assert len(relay.texts(ALICE)) == 1


def test_a_session_stores_what_it_answers_250_for(relay: Relay) -> None:
    shard = SimpleNamespace(
        settings=relay.settings,
        store=relay.stores[0],
        router=relay.router,
        hostname=DOMAIN,
        spool=lambda: Spool(relay.directory / '0'),
    )
    wire = ScriptedWire()
    account = Account(1, ALICE, '', 0, 0, -1)
    handover = {'helo': b'x', 'esmtp': True, 'tls': True}
    session = SmtpSession(wire, shard, account, handover)  # type: ignore[arg-type]
    large = TEXT + (b'z' * 70 + b'\r\n') * 4000
    for text in (TEXT, large):
        wire.input += (
            f'MAIL FROM:<{ALICE}>\r\nRCPT TO:<{ALICE}>\r\nRCPT TO:<{BOB}>\r\nDATA\r\n'.encode()
        )
        wire.script = [text[i : i + 65536] for i in range(0, len(text), 65536)] + [b'.\r\n']
        session.run()
        wire.flush()
        assert wire.sent[-1].startswith(b'250 ')
    for address in (ALICE, BOB):
        assert [len(text) for text in relay.texts(address)] == [len(TEXT), len(large)]
    assert not list((relay.directory / '0' / 'spool').iterdir())
