"""What clients are told, and whose octets they were."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from madmail.bus.embedded import Bus
from madmail.realtime.presence import Presence
from madmail.realtime.turn import names, offer
from madmail.realtime.turn.credentials import password
from madmail.realtime.turn.offer import Offer
from madmail.realtime.turn.process import relayed_addresses
from madmail.settings import SettingError, Settings
from madmail.store.interface import Account

ALICE = Account(7, 'alice@chat.example', '', 0, 0, -1)
BOB = Account(8, 'bob@chat.example', '', 0, 0, -1)


def made(
    tell: Callable[[list[str]], None] = lambda names: None, up: bool = True, **settings: Any
) -> Offer:
    bus = Bus(lambda frame: None)
    presence = Presence(bus)
    bus.publish('service', {'name': 'turn', 'up': up})
    settings.setdefault('domain', 'chat.example')
    return Offer(Settings.defaults(**settings), bytes(32), presence, tell=tell)


def name_of(offered: Offer, account: Account) -> str:
    return offered.value(account).decode().split(':')[2]


def test_the_form() -> None:
    host, port, expiry, secret = made(turn__secret='north').value(ALICE).decode().split(':', 3)
    assert (host, port) == ('chat.example', '3478')
    assert secret == password(b'north', expiry)
    assert 2.5 * 86400 - 60 < int(expiry) - time.time() < 5 * 86400 + 60
    assert made().value(ALICE, 'turns').startswith(b'chat.example:5349:')


def test_nothing_while_it_does_not_answer_or_listen() -> None:
    assert made(up=False).value(ALICE) == b''
    assert made(listen__imap=['127.0.0.1:143']).value(ALICE) == b''


@pytest.mark.parametrize(
    ('settings', 'host'),
    [
        ({'domain': '192.0.2.1'}, '192.0.2.1'),
        ({'domain': '2001:db8::1'}, ''),  # no form for it
        ({'domain': '2001:db8::1', 'turn__relay_ip': ['192.0.2.9', '2001:db8::1']}, '192.0.2.9'),
        ({'relay__hostname': 'mail.chat.example'}, 'mail.chat.example'),
        ({'relay__hostname': 'mail.chat.example', 'turn__host': 'turn.example'}, 'turn.example'),
    ],
)
def test_hosts(settings: dict[str, Any], host: str) -> None:
    settings.setdefault('domain', 'chat.example')
    assert offer.host(Settings.defaults(**settings)) == host
    assert bool(made(**settings).value(ALICE)) is bool(host)


def test_secrets() -> None:
    settings = Settings.defaults(turn__secret='new', turn__former_secret='old')
    assert offer.secrets_of(settings, bytes(32)) == (b'new', b'old')
    (derived,) = offer.secrets_of(Settings.defaults(), bytes(32))
    assert derived != offer.secrets_of(Settings.defaults(), b'\1' * 32)[0]


def test_octets_find_their_accounts() -> None:
    offered = made(accounts__bandwidth=True)
    given = {one.id: name_of(offered, one) for one in (ALICE, BOB)}
    found: list[tuple[int, int, int]] = []
    octets = {given[7]: [10, 20], given[8]: [1, 2], '1234': [100, 100]}
    offered.carried(octets, lambda *one: found.append(one))
    assert sorted(found) == [(7, 10, 20), (8, 1, 2)]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, 'LIMIT', 10)
    offered = made()
    for number in range(50):
        one = ALICE._replace(id=number, address=f'{number}@chat.example')
        offered.value(one)
        if number < 40:
            offered.ended(one.id, one.address)
    remembered = offered._names
    assert len(remembered) <= 10
    assert len(remembered._of) <= 10
    assert len(remembered._ended) <= 10
    assert offered.value(one) == offered.value(one)


def test_no_two_accounts_have_the_same_name() -> None:
    offered = made(turn__ttl=400)  # a hundred places
    given = {
        offered.value(ALICE._replace(id=number, address=f'{number}@chat.example')).split(b':')[2]
        for number in range(20)
    }
    assert len(given) == 20


def test_the_names_of_who_is_gone_are_told_and_not_given_again() -> None:
    told: list[str] = []
    offered = made(told.extend)
    old, others = name_of(offered, ALICE), name_of(offered, BOB)
    offered.ended(ALICE.id)
    assert told == [old]
    assert name_of(offered, ALICE) != old  # unblocked
    assert name_of(offered, BOB) == others
    offered.ended(ALICE.id)
    assert len(told) == len(set(told)) == 2
    again = list(told)
    told.clear()
    offered.tell_ended()
    assert told == again


def test_a_shard_that_has_just_begun_knows_the_likely_names() -> None:
    old = name_of(made(), ALICE)
    told: list[str] = []
    offered = made(told.extend)
    offered.ended(None, ALICE.address)
    assert old in told
    assert name_of(offered, ALICE) not in told
    told.clear()
    offered.ended(None, ALICE.address)
    assert not told


def test_what_another_has_does_not_end() -> None:
    """Bob has the place that was Alice's before a restart."""
    told: list[str] = []
    offered = made(told.extend)
    offered.value(BOB._replace(address=ALICE.address))
    offered.ended(ALICE.id, ALICE.address)
    assert name_of(offered, BOB._replace(address=ALICE.address)) not in told


def test_relayed_addresses() -> None:
    given = Settings.defaults(turn__relay_ip=['192.0.2.1', '2001:db8::1'])
    assert relayed_addresses(given, {}) == {1: '192.0.2.1', 2: '2001:db8::1'}
    assert relayed_addresses(Settings.defaults(domain='192.0.2.7'), {}) == {1: '192.0.2.7'}
    assert relayed_addresses(Settings.defaults(domain='localhost'), {})[1] == '127.0.0.1'
    assert 1 in relayed_addresses(Settings.defaults(domain='chat.example'), {})


@pytest.mark.parametrize(
    'wrong',
    [
        {'turn__relay_port_min': 60000, 'turn__relay_port_max': 50000},
        {'listen__turn': ['0.0.0.0:50000']},
        {'listen__turns': ['127.0.0.1:49152']},
        {'turn__relay_ip': ['192.0.2.1', '192.0.2.2']},
        {'turn__relay_ip': ['0.0.0.0']},
    ],
)
def test_settings_that_do_not_fit(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        Settings.defaults(**wrong)
