"""Who gets an account: switches, tokens and their uses, made-up names."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest

from madmail.account import dclogin
from madmail.account import password as verifiers
from madmail.account.placement import shard_of
from madmail.account.registry import Verdict
from madmail.admin import accounts, blocklist, registration, tokens
from madmail.admin.refused import Refused
from madmail.cli.access import Access
from tests.admin.conftest import DOMAIN

Open = Callable[..., Access]


def refusal(function: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        function()
    return caught.value.word, caught.value.text


def log_in(relay: Access, made: dict[str, str]) -> Verdict:
    """The way of a session, at the shard that has the account."""
    shard = relay._stopped[shard_of(made['email'], relay.shards)]
    login = shard.accounts.login(made['email'], made['password'].encode())
    shard.store.barrier()
    return login.verdict


def count(relay: Access) -> int:
    return sum(1 for _ in relay.accounts())


# -- accounts


def test_an_account_has_a_name_a_password_and_a_link(relay: Access) -> None:
    made = registration.create_account(relay)
    local, _, domain = made['email'].rpartition('@')
    assert domain == DOMAIN
    assert len(local) == 9
    assert set(local) <= set('abcdefghijklmnopqrstuvwxyz0123456789')
    assert len(made['password']) == 24
    assert verifiers.strong(made['password'].encode())
    assert made['dclogin_url'].startswith(f'dclogin:{made["email"]}?')
    fields = parse_qs(made['dclogin_url'].partition('?')[2])
    assert unquote(fields['p'][0]) == made['password']
    assert log_in(relay, made) is Verdict.WELCOME


def test_lengths_follow_the_settings_within_what_is_allowed(open_relay: Open) -> None:
    relay = open_relay(
        accounts__generated_name_length=20,
        accounts__username_max_length=12,
        accounts__generated_password_length=14,
        accounts__password_min_length=30,
    )
    made = registration.create_account(relay)
    assert len(made['email'].partition('@')[0]) == 12
    assert len(made['password']) == 30


@pytest.mark.parametrize('switch', ['closed', 'token'])
def test_without_a_token_only_open_registration_makes_accounts(relay: Access, switch: str) -> None:
    registration.set_registration(relay, switch)
    word, text = refusal(lambda: registration.create_account(relay))
    assert word == 'forbidden'
    assert ('token' in text) is (switch == 'token')
    made = registration.create_account(relay, operator=True)
    token = tokens.create(relay)['token']
    guest = registration.create_account(relay, token=f' {token} ')
    assert count(relay) == 2
    assert made['email'] != guest['email']


def test_names_that_are_taken_or_blocked_are_drawn_again(
    relay: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.create(relay, f'taken@{DOMAIN}', b'a good password')
    blocklist.block(relay, f'banned@{DOMAIN}')
    drawn = iter(['taken', 'banned', 'postmaster', 'free'])
    monkeypatch.setattr(dclogin, 'random_name', lambda settings: next(drawn))
    token = tokens.create(relay, max_uses=2)['token']
    assert registration.create_account(relay, token=token)['email'] == f'free@{DOMAIN}'
    assert tokens.status(relay, token)['pending'] == 1
    monkeypatch.setattr(dclogin, 'random_name', lambda settings: 'taken')
    assert refusal(lambda: registration.create_account(relay, token=token))[0] == 'failed'
    # Neither a use is lost nor somebody's account.
    assert tokens.status(relay, token)['available'] == 1
    assert relay.call(f'taken@{DOMAIN}', 'account_info')['address'] == f'taken@{DOMAIN}'


def test_a_token_that_made_no_account_is_given_back(
    relay: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tokens.create(relay)['token']
    real = relay.call

    def busy(address: str, method: str, **params: Any) -> Any:
        if method == 'account_register':
            real(address, method, **params)
            raise Refused('unavailable', 'no answer in time')  # it was made all the same
        return real(address, method, **params)

    monkeypatch.setattr(relay, 'call', busy)
    assert refusal(lambda: registration.create_account(relay, token=token))[0] == 'unavailable'
    assert count(relay) == 0
    monkeypatch.undo()
    registration.create_account(relay, token=token)
    assert refusal(lambda: registration.create_account(relay, token=token))[0] == 'forbidden'


# -- switches


def test_switches_are_rows_and_hold_at_once(relay: Access) -> None:
    assert registration.status(relay)['jit_enabled'] is True
    assert registration.set_registration(relay, 'closed')['jit_enabled'] is False
    assert registration.set_jit(relay, True)['jit_enabled'] is True
    assert registration.set_registration(relay, 'open')['registration'] == 'open'
    assert registration.set_jit(relay, False)['jit_enabled'] is False
    assert registration.set_jit(relay, None)['jit_enabled'] is True
    assert relay.control.settings()['accounts.registration'] == 'open'
    assert refusal(lambda: registration.set_registration(relay, 'ajar'))[0] == 'invalid'


def test_asking_for_tokens_ends_first_logins_until_they_are_allowed_again(relay: Access) -> None:
    registration.set_jit(relay, True)
    assert registration.set_registration(relay, 'token')['jit_enabled'] is False
    assert registration.set_jit(relay, True)['jit_enabled'] is True


# -- tokens


def test_a_token_is_used_up_and_says_so(relay: Access) -> None:
    made = tokens.create(relay, 'party-2026', max_uses=2, comment='for the party')
    assert made['status'] == 'active'
    assert made['available'] == 2
    for _ in range(2):
        registration.create_account(relay, token='party-2026')
    word, text = refusal(lambda: registration.create_account(relay, token='party-2026'))
    assert (word, text) == ('forbidden', 'Invalid registration token: fully used')
    (listed,) = tokens.entries(relay)
    assert (listed['status'], listed['used_count'], listed['pending']) == ('exhausted', 0, 2)
    assert count(relay) == 2
    assert refusal(lambda: registration.create_account(relay, token='unknown'))[1].endswith(
        'not found'
    )


def test_the_first_login_makes_a_use_final(relay: Access) -> None:
    token = tokens.create(relay, max_uses=2)['token']
    first, second = (registration.create_account(relay, token=token) for _ in range(2))
    assert log_in(relay, first) is Verdict.WELCOME
    found = tokens.status(relay, token)
    assert (found['used_count'], found['pending']) == (1, 1)
    assert [one['username'] for one in found['pending_accounts']] == [second['email']]


def test_an_overdue_reservation_gives_its_use_back_and_its_account_goes(
    relay: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tokens.create(relay, max_uses=2)['token']
    used, unused = (registration.create_account(relay, token=token) for _ in range(2))
    assert log_in(relay, used) is Verdict.WELCOME
    later = time.time() + relay.settings['accounts.reservation_time'] + 1
    monkeypatch.setattr(tokens.time, 'time', lambda: later)
    again = registration.create_account(relay, token=token)
    left = {account['address'] for account in relay.accounts()}
    assert left == {used['email'], again['email']}
    assert unused['email'] not in left
    assert refusal(lambda: registration.create_account(relay, token=token))[0] == 'forbidden'


def test_an_account_outlives_its_token(relay: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tokens.create(relay, expires=int(time.time()) + 60)['token']
    made = registration.create_account(relay, token=token)
    tokens.remove(relay, token)
    assert log_in(relay, made) is Verdict.WELCOME
    token = tokens.create(relay, expires=int(time.time()) + 60)['token']
    made = registration.create_account(relay, token=token)
    later = time.time() + 61
    monkeypatch.setattr(tokens.time, 'time', lambda: later)
    assert tokens.status(relay, token)['status'] == 'expired'
    assert log_in(relay, made) is Verdict.WELCOME
    assert refusal(lambda: registration.create_account(relay, token=token))[1].endswith('expired')


def test_terms_of_a_token_change_and_what_was_used_stays(relay: Access) -> None:
    token = tokens.create(relay, max_uses=1, comment='a')['token']
    registration.create_account(relay, token=token)
    changed = tokens.change(relay, token, max_uses=3)
    assert (changed['available'], changed['comment'], changed['status']) == (2, 'a', 'active')
    changed = tokens.change(relay, token, max_uses=1, expires=int(time.time()) + 100)
    assert (changed['available'], changed['status']) == (0, 'exhausted')
    assert refusal(lambda: tokens.change(relay, 'unknown-one', max_uses=2))[0] == 'missing'
    assert refusal(lambda: tokens.create(relay, token))[0] == 'exists'


@pytest.mark.parametrize(
    'terms',
    [
        {'token': 'a b c d'},
        {'token': 'abc'},
        {'token': 'x' * 129},
        {'max_uses': 0},
        {'max_uses': -1},
        {'max_uses': 10**10},
        {'comment': 'two\nlines'},
        {'comment': 'x' * 201},
        {'expires': 1},
    ],
)
def test_terms_that_make_no_sense_are_refused(relay: Access, terms: dict[str, Any]) -> None:
    assert refusal(lambda: tokens.create(relay, **terms))[0] == 'invalid'
    assert tokens.entries(relay) == []


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('', 0),
        ('72h', 1000 + 72 * 3600),
        ('30d', 1000 + 30 * 86400),
        ('90', 1090),
        ('2027-01-31', 1801353600),
        ('2027-01-31T12:00:00Z', 1801396800),
        ('2027-01-31T12:00:00+02:00', 1801389600),
    ],
)
def test_ends_are_durations_or_times(text: str, expected: int) -> None:
    assert tokens.expiry(text, 1000) == expected


def test_an_end_that_is_neither_is_refused() -> None:
    for text in ('soon', '2027-13-01', '-5h', '0'):
        assert refusal(lambda text=text: tokens.expiry(text))[0] == 'invalid'
