"""User names that are times, and nonces without memory."""

from __future__ import annotations

import base64
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.realtime.turn.credentials import (
    NONCE_LIFE,
    Keys,
    Nonces,
    expiry,
    likely_names,
    password,
    usernames,
)
from madmail.realtime.turn.message import long_term_key

NOW = 1758600000.0


def username(secret: bytes, account: str, life: int, now: float) -> str:
    return next(usernames(secret, account, life, now, (0, 1)))


@pytest.mark.parametrize(
    ('secret', 'made'),
    [(b'north', '8Dqkyyu11MVESBqjbIylmB06rv8='), (b'test-secret', 'nkfvRIGUcx0N/jq/StNLPajpLZE=')],
)
def test_known_passwords(secret: bytes, made: str) -> None:
    assert password(secret, '1758650868') == made


def test_known_key() -> None:
    key = long_term_key('1758650868', 'example.org', 'nkfvRIGUcx0N/jq/StNLPajpLZE=')
    assert key.hex() == '9469170dde9fc71df0b395db601a9ed4'
    assert key in Keys((b'test-secret',), 'example.org', 86400).of('1758650868', NOW)


@given(st.integers(0, 2**33), st.sampled_from([3600, 86400, 5 * 86400]), st.text(max_size=20))
def test_a_name_lasts_for_half_of_the_longest_life_or_longer(
    now: int, life: int, account: str
) -> None:
    left = int(username(b'secret', account, life, now)) - now
    assert life // 2 <= left <= life


def test_an_account_keeps_its_name_for_a_while_and_others_have_others() -> None:
    names = {username(b's', f'{n}@chat.example', 432000, NOW) for n in range(200)}
    assert len(names) > 195
    assert username(b's', '7@chat.example', 432000, NOW + 60) in names
    assert username(b's', '7@chat.example', 432000, NOW + 432000) not in names
    assert username(b'other', '7@chat.example', 432000, NOW) not in names


@given(st.integers(10**6, 2**33), st.sampled_from([60, 86400, 5 * 86400]), st.integers(1, 16))
def test_shards_give_names_of_their_own_and_others_when_one_is_taken(
    now: int, life: int, shards: int
) -> None:
    for index in range(shards):
        names = list(islice(usernames(b's', 'a@chat.example', life, now, (index, shards)), 50))
        assert all(life // 2 <= int(name) - now <= life for name in names)
        assert len(set(names)) == min(50, max(life // 4 // shards, 1))
        if life > 60:
            begin = (now // (life // 4) + 3) * (life // 4)
            assert {(int(name) - begin) % shards for name in names} == {index}


@given(st.integers(10**6, 2**33), st.floats(0, 5 * 86400 - 1))
def test_the_likely_names_are_those_given_lately_that_still_count(now: int, ago: float) -> None:
    given = username(b's', 'a@chat.example', 5 * 86400, now - ago)
    likely = likely_names(b's', 'a@chat.example', 5 * 86400, now, (0, 1))
    assert given in likely or int(given) < now


@pytest.mark.parametrize(
    ('name', 'counts'),
    [
        (str(int(NOW) + 100), True),
        (f'{int(NOW) + 100}:anybody', True),
        (str(int(NOW) - 1), False),
        (str(int(NOW) + 86400 + 61), False),  # nobody was given that
        ('', False),
        ('abc', False),
        ('-5', False),
        ('\u0661\u0662', False),
        ('9' * 30, False),
    ],
)
def test_which_names_count(name: str, counts: bool) -> None:
    assert bool(Keys((b's',), 'r', 86400).of(name, NOW)) is counts


def test_a_former_secret_counts_as_well() -> None:
    name = str(int(NOW) + 100)
    keys = Keys((b'new', b'old'), 'r', 86400).of(name, NOW)
    assert keys == [long_term_key(name, 'r', password(s, name)) for s in (b'new', b'old')]


def test_expiry_of_names() -> None:
    assert expiry('12:x') == 12
    assert expiry(':x') is None


def test_a_nonce_is_valid_for_an_hour_at_its_address() -> None:
    nonces = Nonces(b'secret')
    nonce = nonces.fresh('192.0.2.1', NOW)
    assert not nonce.startswith(b'obMatJos2')
    assert nonces.valid(nonce, '192.0.2.1', NOW)
    assert Nonces(b'secret').valid(nonce, '192.0.2.1', NOW + NONCE_LIFE - 1)
    assert not nonces.valid(nonce, '192.0.2.1', NOW + NONCE_LIFE + 1)
    assert not nonces.valid(nonce, '192.0.2.2', NOW)
    assert not Nonces(b'other').valid(nonce, '192.0.2.1', NOW)


def test_a_nonce_outlives_the_day_it_was_made_in() -> None:
    midnight = (int(NOW) // 86400 + 1) * 86400
    nonces = Nonces(b'secret')
    nonce = nonces.fresh('::1', midnight - 1)
    assert nonces.valid(nonce, '::1', midnight + 100)


@given(st.binary(max_size=80))
def test_no_made_up_nonce_is_valid(nonce: bytes) -> None:
    nonces = Nonces(b'secret')
    assert not nonces.valid(nonce, '192.0.2.1', NOW)
    assert not nonces.valid(base64.urlsafe_b64encode(nonce), '192.0.2.1', NOW)
