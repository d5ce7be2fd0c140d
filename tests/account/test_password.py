"""Verifiers: right passwords pass, weak ones are slow to guess, strong ones cheap to check."""

import time

import pytest

from madmail.account import password
from madmail.account.rates import Gcra
from madmail.account.secret import load

SECRET = bytes(range(32))


@pytest.mark.parametrize(
    'given', [b'correct horse battery', b'x9QmZp2LrT7vKw4NcY8bHd', b'p\xc3\xa4ss']
)
def test_a_verifier_accepts_its_password_only(given: bytes) -> None:
    made = password.encode(given, SECRET)
    assert password.verify(given, made, SECRET)
    assert not password.verify(given + b'x', made, SECRET)
    assert not password.verify(b'', made, SECRET)
    assert given.decode() not in made


def test_two_accounts_with_one_password_have_different_verifiers() -> None:
    assert password.encode(b'hunter2hunter2', SECRET) != password.encode(b'hunter2hunter2', SECRET)


@pytest.mark.parametrize(
    ('given', 'strong'),
    [
        (b'x9QmZp2LrT7vKw4NcY8bHd', True),  # 22 alphanumeric, as Delta Chat makes them
        (b'k3v9x2m7q4w8z1c6b5n0', True),  # 20 of a-z0-9
        (b'password', False),
        (b'Password1!', False),
        (b'correcthorsebattery', False),
        (b'aaaaaaaaaaaaaaaaaaaaaaaa', False),
        (b'abababababababababababab', False),
        (b'123456789012345678', False),
        (b'This is just a test', False),
        (b'six-or-seven-words-in-a-row', False),
        (b'3 blind mice see how they run', False),
    ],
)
def test_only_machine_made_passwords_count_as_strong(given: bytes, strong: bool) -> None:
    assert password.strong(given) is strong
    assert password.slow(password.encode(given, SECRET)) is not strong


def test_a_keyed_verifier_is_worth_nothing_without_the_secret() -> None:
    made = password.encode(b'x9QmZp2LrT7vKw4NcY8bHd', SECRET)
    assert not password.verify(b'x9QmZp2LrT7vKw4NcY8bHd', made, bytes(32))


@pytest.mark.parametrize('damaged', ['', 'hmac:1:x', 'scrypt:1', 'sha256:a:b', 'scrypt:a:b:c:d:e'])
def test_a_damaged_verifier_refuses(damaged: str) -> None:
    assert not password.verify(b'anything', damaged, SECRET)


def test_the_secret_is_made_once_and_is_private(tmp_path) -> None:
    first = load(tmp_path)
    assert load(tmp_path) == first
    assert len(first) == 32
    assert (tmp_path / 'secret').stat().st_mode & 0o777 == 0o600
    (tmp_path / 'secret').write_bytes(b'short')
    with pytest.raises(ValueError, match='damaged'):
        load(tmp_path)


def test_gcra_allows_a_burst_and_then_its_rate() -> None:
    rate = Gcra(60, 10)
    now = 1000.0
    assert [rate.allow('a', now) for _ in range(10)] == [0.0] * 10
    assert rate.allow('a', now) == pytest.approx(1.0)
    assert rate.allow('b', now) == 0.0
    assert rate.allow('a', now + 1.0) == 0.0
    assert rate.allow('a', now + 1.0) > 0
    # A full burst is back after the time of a burst.
    assert [rate.allow('a', now + 60) for _ in range(10)] == [0.0] * 10


def test_gcra_without_a_rate_has_no_limit_and_memory_is_bounded(monkeypatch) -> None:
    assert not any(Gcra(0, 0).allow('a', 0.0) for _ in range(1000))
    monkeypatch.setattr('madmail.account.rates.KEYS_LIMIT', 50)
    rate = Gcra(1, 1)
    for number in range(500):
        assert rate.allow(number, time.monotonic()) == 0.0
    assert len(rate._arrival) <= 50
