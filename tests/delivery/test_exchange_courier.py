"""The courier beside exchangers: what waits, what is leased, what comes back to elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from madmail.delivery.courier import WAITING, Courier
from madmail.delivery.outbox import ShardOutbox
from madmail.store.interface import OutboxEntry
from madmail.store.spool import MemoryBody
from tests.delivery.test_outbox_calls import ALICE, DOMAIN, TEXT, Nowhere, Relay

FAR = 'alice@a.example'  # the sender of what only passes here


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(tmp_path)
    yield relay
    for store in relay.stores:
        store.close()


def courier(relay: Relay, ahead: float = 1.0, **how: Any) -> Courier:
    outboxes = {call.index: ShardOutbox(call) for call in relay.calls}  # type: ignore[arg-type]
    return Courier(
        outboxes,
        (Nowhere(),),
        domain=DOMAIN,
        settings=relay.settings,
        clock=lambda: time.time() + ahead,
        **how,
    )


def queue(relay: Relay, domain: str = 'b.example', sender: str = ALICE) -> OutboxEntry:
    now = int(time.time())
    entry = OutboxEntry(0, sender, domain, (f'bob@{domain}',), now, next_try=now)
    store = relay.stores[0]
    store.deliver(MemoryBody(TEXT), (), delivery_id=os.urandom(16), outbox=[entry])
    return store.outbox_list()[-1]


def work(courier: Courier) -> None:
    courier.visit(0)
    assert courier.finish(10)


def test_what_waits_to_be_fetched_is_left_alone(relay: Relay) -> None:
    queue(relay, 'b.example')
    queue(relay, 'c.example')
    work(courier(relay, waits=lambda domain: domain == 'b.example'))
    [left] = relay.stores[0].outbox_list()
    assert (left.domain, left.last_error, left.tries) == ('b.example', WAITING, 0)
    assert left.next_try > time.time() + 600
    assert len(relay.texts(ALICE)) == 1, 'the other came back'


def test_it_comes_back_when_nobody_fetches_it(relay: Relay) -> None:
    queue(relay)
    lifetime = relay.settings['queue.lifetime']
    late = courier(relay, lifetime + 10, waits=lambda domain: True)
    assert late.expire(0) == 1
    assert relay.stores[0].outbox_list() == []
    [report] = relay.texts(ALICE)
    assert b'bob@b.example' in report


def test_not_while_it_is_on_its_way(relay: Relay) -> None:
    entry = queue(relay)
    lifetime = relay.settings['queue.lifetime']
    now = int(time.time())
    assert relay.stores[0].outbox_claim(entry.id, now, now + lifetime + 100)
    late = courier(relay, lifetime + 10, waits=lambda domain: True)
    assert late.expire(0) == 0
    assert len(relay.stores[0].outbox_list()) == 1


def test_what_is_being_fetched_is_not_sent_too(relay: Relay) -> None:
    entry = queue(relay)
    both = courier(relay, shared=lambda domain: True)
    outbox = both._outboxes[0]
    due = outbox.due(int(time.time()), 10)
    assert [one.id for one in due] == [entry.id]
    now = int(time.time())
    # Fetched between the look and the sending.
    [leased] = relay.stores[0].outbox_lease(['b.example'], now, now + 100, 10, 10**6, False)
    both._carry(outbox, due[0])
    assert len(relay.stores[0].outbox_list()) == 1
    assert relay.texts(ALICE) == []
    assert relay.stores[0].outbox_acknowledge([leased.id], ['b.example']) == 1


def test_a_report_about_what_only_passed_goes_on_as_well(relay: Relay) -> None:
    queue(relay, sender=FAR)
    work(courier(relay))
    [report] = relay.stores[0].outbox_list()
    assert (report.sender, report.domain, report.recipients) == ('', 'a.example', (FAR,))
    body = relay.stores[0].body(report.body_id)
    assert body is not None
    assert b'multipart/report' in body.read()
    work(courier(relay))
    assert relay.stores[0].outbox_list() == [], 'there is none about a report'
    assert relay.texts(ALICE) == []
