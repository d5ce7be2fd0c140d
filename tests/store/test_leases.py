"""Leases of outbox entries: handed out once, free again in time, gone when acknowledged."""

from __future__ import annotations

import os

from madmail.store.interface import OutboxEntry
from madmail.store.spool import MemoryBody
from tests.store.conftest import Place

NOW = 1_000_000
MEGABYTE = 2**20


def queue(place: Place, domain: str, *names: str, size: int = 100, sender: str = '') -> None:
    entry = OutboxEntry(0, sender, domain, tuple(f'{name}@{domain}' for name in names), NOW)
    body = MemoryBody(b'x' * size)
    place.store.deliver(body, (), delivery_id=os.urandom(16), outbox=[entry])


def lease(place: Place, *domains: str, now: int = NOW, **how: object) -> list[OutboxEntry]:
    given = {'until': now + 60, 'limit': 50, 'octets': MEGABYTE, 'single': False, **how}
    found: list[OutboxEntry] = place.store.outbox_lease(domains, now, **given)
    return found


def bodies(place: Place) -> int:
    count: int = place.store._one('SELECT count(*) FROM bodies')[0]
    return count


def test_a_lease_is_exclusive_durable_and_ends(place: Place) -> None:
    queue(place, 'b.example', 'bob')
    queue(place, 'c.example', 'carol')
    [first] = lease(place, 'b.example')
    assert first.recipients == ('bob@b.example',)
    assert lease(place, 'b.example') == []
    assert not place.store.outbox_free(['b.example'], NOW)
    assert place.store.outbox_free(['b.example', 'c.example'], NOW)
    place.reopen()
    assert lease(place, 'b.example', now=NOW + 59) == []
    [again] = lease(place, 'b.example', now=NOW + 60)
    assert again.id == first.id


def test_who_sends_leaves_alone_what_is_leased(place: Place) -> None:
    queue(place, 'b.example', 'bob')
    [one] = lease(place, 'b.example')
    assert place.store.outbox_due(NOW) == []
    assert not place.store.outbox_claim(one.id, NOW, NOW + 900)
    assert [due.id for due in place.store.outbox_due(NOW + 60)] == [one.id]
    assert place.store.outbox_claim(one.id, NOW + 60, NOW + 900)
    assert lease(place, 'b.example', now=NOW + 100) == []
    place.store.outbox_retry(one.id, NOW + 200, 'later')
    assert [free.id for free in lease(place, 'b.example', now=NOW + 100)] == [one.id]


def test_an_acknowledgement_removes_entries_of_its_domains_with_their_bodies(place: Place) -> None:
    queue(place, 'b.example', 'bob')
    queue(place, 'c.example', 'carol')
    [bob], [carol] = lease(place, 'b.example'), lease(place, 'c.example')
    store = place.store
    assert store.outbox_acknowledge([bob.id, carol.id, 99], ['b.example']) == 1
    assert [one.id for one in store.outbox_list()] == [carol.id]
    assert bodies(place) == 1
    assert store.outbox_acknowledge([bob.id, carol.id], ['b.example', 'c.example']) == 1
    assert store.outbox_list() == []
    assert bodies(place) == 0


def test_pages_are_bounded_by_number_and_size_but_never_empty(place: Place) -> None:
    for size in (600, 600, 100, 100, 100):
        queue(place, 'b.example', 'bob', size=size)
    assert [one.size for one in lease(place, 'b.example', octets=10)] == [600]
    assert [one.size for one in lease(place, 'b.example', octets=700)] == [600, 100]
    assert [one.size for one in lease(place, 'b.example', limit=1)] == [100]
    assert len(lease(place, 'b.example')) == 1


def test_divided_entries_have_one_recipient_and_share_the_body(place: Place) -> None:
    queue(place, 'b.example', 'a', 'b', 'c')
    store = place.store
    first = lease(place, 'b.example', single=True, limit=2)
    assert [one.recipients for one in first] == [('a@b.example',), ('b@b.example',)]
    [last] = lease(place, 'b.example', single=True)
    assert last.recipients == ('c@b.example',)
    numbers = [one.id for one in (*first, last)]
    assert len(set(numbers)) == 3
    for left, number in zip((2, 1, 0), numbers, strict=True):
        assert store.outbox_acknowledge([number], ['b.example']) == 1
        assert len(store.outbox_list()) == left
        assert bodies(place) == (1 if left else 0)


def test_hasten_makes_what_was_put_off_due(place: Place) -> None:
    queue(place, 'b.example', 'bob')
    queue(place, 'c.example', 'carol')
    for domain in ('b.example', 'c.example'):
        place.store.outbox_postpone(domain, NOW + 3600, 'waits')
    assert place.store.outbox_hasten('b.example', NOW) == 1
    assert [one.domain for one in place.store.outbox_due(NOW)] == ['b.example']
    assert place.store.outbox_held('b.example', 10) == 1


def test_a_bounce_for_somebody_elsewhere_waits_for_his_domain(place: Place) -> None:
    queue(place, 'b.example', 'bob', sender='alice@a.example')
    [one] = place.store.outbox_list()
    away = OutboxEntry(0, '', 'a.example', ('alice@a.example',), NOW, next_try=NOW)
    place.store.outbox_remove(one.id, MemoryBody(b'report'), 'alice@a.example', away=away)
    [report] = place.store.outbox_list()
    assert (report.sender, report.recipients) == ('', ('alice@a.example',))
    assert place.store.body(report.body_id).read() == b'report'
    place.store.outbox_remove(one.id, MemoryBody(b'twice'), 'alice@a.example', away=away)
    assert len(place.store.outbox_list()) == 1
