"""Where a message goes, and that it goes there exactly once."""

import email
from collections.abc import Sequence
from email.message import Message

import gevent
import pytest

from madmail.delivery import router as router_module
from madmail.delivery.destination import Parked, parked
from madmail.delivery.router import Router
from madmail.settings import Settings
from madmail.store.interface import Body, Outcome
from madmail.store.spool import MemoryBody
from tests.delivery.double import MemoryStore

DOMAIN = 'relay.example'
HEADER = (
    b'From: <a0@relay.example>\r\nTo: <x@relay.example>\r\nMessage-ID: <the-one@localhost>\r\n'
    b'Subject: [...]\r\n'
)
BODY = MemoryBody(HEADER + b'\r\nsecret words\r\n')


def at(local: str) -> str:
    return f'{local}@{DOMAIN}'


SENDER = at('a0')


class Relay:
    """Three shards; an address lives in the shard whose number ends its name."""

    def __init__(self) -> None:
        self.stores = [MemoryStore(at(f'a{n}'), at(f'b{n}')) for n in range(3)]
        self.away: dict[int, int] = {}  # shard → calls that will fail
        self.deaf: set[int] = set()  # shards that store, but whose answer is lost
        self.ids: list[tuple[int, bytes]] = []
        self.announced = 0
        self.router = Router(
            self.stores[0],  # type: ignore[arg-type]
            self.elsewhere,
            own_shard=0,
            shard_of=lambda address: int(address.split('@')[0][-1]),
            settings=Settings.defaults(),
            domain=DOMAIN,
            announce=self.announce,
            clock=lambda: 1_800_000_000.5,
        )

    def announce(self) -> None:
        self.announced += 1

    def elsewhere(
        self, shard: int, body: Body, addresses: Sequence[str], delivery_id: bytes
    ) -> list[Outcome]:
        self.ids.append((shard, delivery_id))
        if self.away.get(shard, 0) > 0:
            self.away[shard] -= 1
            raise ConnectionError
        outcomes = self.stores[shard].deliver(body, addresses, delivery_id=delivery_id)
        if shard in self.deaf:
            raise ConnectionError
        return outcomes

    def box(self, local: str) -> list[bytes]:
        return self.stores[int(local[-1])].boxes[at(local)]


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Relay:
    monkeypatch.setattr(router_module, 'FIRST_PAUSE', 0.001)
    monkeypatch.setattr(router_module, 'ELSEWHERE_TIME', 0.1)
    return Relay()


def test_every_recipient_gets_one_copy(relay: Relay) -> None:
    names = [at(name) for name in ('a0', 'b0', 'a1', 'b1', 'a2')]
    assert relay.router.submit(SENDER, names + names, BODY).code == 250
    for name in ('a0', 'b0', 'a1', 'b1', 'a2'):
        assert relay.box(name) == [BODY.read()]
    assert relay.box('b2') == []
    assert relay.announced == 0


def test_a_shard_is_called_once_for_all_its_recipients(relay: Relay) -> None:
    relay.router.submit(SENDER, [at('a1'), at('b1'), at('a2')], BODY)
    assert sorted(shard for shard, _ in relay.ids) == [1, 2]
    assert relay.stores[0].transactions == 0


def test_shards_are_asked_at_the_same_time(relay: Relay) -> None:
    meeting: list[int] = []

    def elsewhere(shard: int, body: Body, names: Sequence[str], number: bytes) -> list[Outcome]:
        meeting.append(shard)
        while len(meeting) < 2:
            gevent.sleep(0.001)
        return [Outcome.STORED] * len(names)

    relay.router._elsewhere = elsewhere
    assert relay.router.submit(SENDER, [at('a1'), at('a2')], BODY).code == 250
    assert relay.stores[0].outbox == []


def test_remote_domains_are_queued_with_the_own_deliveries(relay: Relay) -> None:
    names = [at('b0'), 'x@one.example', 'y@one.example', 'z@[192.0.2.1]']
    assert relay.router.submit(SENDER, names, BODY).code == 250
    store = relay.stores[0]
    assert store.transactions == 1
    assert [(e.domain, e.recipients) for e in store.outbox] == [
        ('one.example', ('x@one.example', 'y@one.example')),
        ('[192.0.2.1]', ('z@[192.0.2.1]',)),
    ]
    assert {(e.sender, e.created, e.next_try) for e in store.outbox} == {
        (SENDER, 1_800_000_000, 1_800_000_000)
    }
    assert relay.announced == 1


def test_a_shard_that_comes_back_in_time_gets_it_once(relay: Relay) -> None:
    relay.away[1] = 2
    assert relay.router.submit(SENDER, [at('a0'), at('a1')], BODY).code == 250
    assert len({number for shard, number in relay.ids}) == 1, 'one id for all attempts'
    assert len(relay.ids) == 3
    assert len(relay.box('a1')) == 1
    assert relay.stores[0].outbox == []


def test_a_shard_that_stays_away_has_its_part_parked(relay: Relay) -> None:
    relay.away[1] = 10**6
    names = [at('a0'), at('a1'), at('b1'), at('a2')]
    assert relay.router.submit(SENDER, names, BODY).code == 250
    assert len(relay.box('a0')) == len(relay.box('a2')) == 1
    [entry] = relay.stores[0].outbox
    assert entry.recipients == (at('a1'), at('b1'))
    assert entry.sender == SENDER
    place = parked(entry.domain)
    assert place == Parked(1, next(number for shard, number in relay.ids if shard == 1))
    assert relay.stores[0].queued[entry.body_id] == BODY.read()
    assert relay.announced == 1


def test_a_lost_answer_doubles_nothing(relay: Relay) -> None:
    relay.deaf.add(1)
    assert relay.router.submit(SENDER, [at('a1')], BODY).code == 250
    [entry] = relay.stores[0].outbox
    place = parked(entry.domain)
    assert place is not None
    relay.stores[1].deliver(BODY, entry.recipients, delivery_id=place.delivery_id)
    assert len(relay.box('a1')) == 1


def test_a_shard_that_never_answers_is_given_up(relay: Relay) -> None:
    def hang(*_: object) -> list[Outcome]:
        gevent.sleep(60)
        raise AssertionError

    relay.router._elsewhere = hang
    with gevent.Timeout(5):
        assert relay.router.submit(SENDER, [at('a1')], BODY).code == 250
    assert len(relay.stores[0].outbox) == 1


def test_full_disk_is_451(relay: Relay) -> None:
    relay.stores[0].disk_full = True
    assert relay.router.submit(SENDER, [at('a0')], BODY).line().startswith(b'451 4.3.0 ')
    assert relay.router.receive([at('a0')], BODY).line().startswith(b'451 4.3.0 ')
    assert relay.router.submit(SENDER, ['x@one.example'], BODY).code == 451


def test_full_disk_with_a_part_to_park_is_451(relay: Relay) -> None:
    relay.stores[0].disk_full = True
    relay.away[1] = 10**6
    assert relay.router.submit(SENDER, [at('a1')], BODY).code == 451


def test_a_full_disk_of_another_shard_parks(relay: Relay) -> None:
    relay.stores[1].disk_full = True
    assert relay.router.submit(SENDER, [at('a1')], BODY).code == 250
    assert len(relay.stores[0].outbox) == 1


# -- bounces


def report(text: bytes) -> tuple[Message, str, list[Message], bytes]:
    """Parts of a delivery report (RFC 3464), read by the standard library."""
    message = email.message_from_bytes(text)
    assert message.get_content_type() == 'multipart/report'
    assert message.get_param('report-type') == 'delivery-status'
    human, status, original = message.get_payload()  # type: ignore[misc]
    assert status.get_content_type() == 'message/delivery-status'  # type: ignore[union-attr]
    per_recipient = status.get_payload()[1:]  # type: ignore[union-attr,index]
    words = human.get_payload(decode=True).decode()  # type: ignore[union-attr]
    return message, words, per_recipient, original.as_bytes()  # type: ignore[union-attr,return-value]


def test_one_bounce_lists_all_failures(relay: Relay) -> None:
    relay.stores[1].full.add(at('b1'))
    names = [at('a1'), at('b1'), at('ghost2'), at('ghost0'), at('postmaster')]
    assert relay.router.submit(SENDER, names, BODY).code == 250
    [text] = relay.box('a0')
    assert len(relay.box('a1')) == 1
    message, words, failures, original = report(text)
    assert message['To'] == f'<{SENDER}>' or message['To'] == SENDER
    assert 'mailer-daemon' in message['From'].lower()
    assert message['Auto-Submitted'] == 'auto-replied'
    status = {
        part['Final-Recipient'].split(';')[1].strip(): (part['Action'], part['Status'])
        for part in failures
    }
    assert status == {
        at('b1'): ('failed', '5.2.2'),
        at('ghost2'): ('failed', '5.1.1'),
        at('ghost0'): ('failed', '5.1.1'),
        at('postmaster'): ('failed', '5.1.1'),
    }
    assert all(name.split('@')[0] in words for name in status)
    assert b'<the-one@localhost>' in original
    assert b'secret words' not in text


def test_there_is_no_bounce_to_nobody(relay: Relay) -> None:
    assert relay.router.submit('', [at('ghost0')], BODY).code == 250
    assert all(not texts for store in relay.stores for texts in store.boxes.values())
    assert relay.stores[0].outbox == []


def test_a_bounce_that_fails_makes_no_bounce(relay: Relay) -> None:
    relay.stores[0].full.add(SENDER)
    assert relay.router.submit(SENDER, [at('ghost0')], BODY).code == 250
    assert relay.stores[0].outbox == []
    assert relay.router.submit(at('ghost1'), [at('ghost0')], BODY).code == 250
    assert all(not texts for store in relay.stores for texts in store.boxes.values())


def test_no_room_for_a_bounce_leaves_the_message_accepted(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = relay.stores[0]
    deliver = store.deliver

    def once(*args: object, **more: object) -> list[Outcome]:
        outcomes = deliver(*args, **more)  # type: ignore[arg-type]
        store.disk_full = True
        return outcomes

    monkeypatch.setattr(store, 'deliver', once)
    assert relay.router.submit(SENDER, [at('b0'), at('ghost0')], BODY).code == 250
    assert len(relay.box('b0')) == 1


# -- from elsewhere


def test_unknown_names_get_the_same_answer(relay: Relay) -> None:
    answers = {relay.router.receive([at(n)], BODY) for n in ('a0', 'ghost0', 'root', 'ghost1')}
    assert [reply.line() for reply in answers] == [b'250 2.0.0 Ok: queued\r\n']


def test_full_mailboxes_are_refused_only_when_nobody_was_served(relay: Relay) -> None:
    relay.stores[1].full.add(at('a1'))
    assert relay.router.receive([at('a1')], BODY).line().startswith(b'452 4.2.2 ')
    assert relay.router.receive([at('a1'), at('ghost0')], BODY).code == 452
    assert relay.router.receive([at('a1'), at('a2')], BODY).code == 250
    assert relay.box('a0') == []


def test_parked_inbound_mail_counts_as_taken_and_has_no_sender(relay: Relay) -> None:
    relay.stores[0].full.add(at('a0'))
    relay.away[1] = 10**6
    assert relay.router.receive([at('a0'), at('a1')], BODY).code == 250
    [entry] = relay.stores[0].outbox
    assert entry.sender == ''


def test_inbound_never_relays(relay: Relay) -> None:
    with pytest.raises(ValueError, match='remote'):
        relay.router.receive(['x@one.example'], BODY)
