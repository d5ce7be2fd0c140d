"""The rules that every entrance shares."""

import pytest

from madmail.delivery.destination import Parked, parked
from madmail.delivery.policy import Policy
from madmail.settings import Settings
from madmail.smtp import grammar


def spelled(address: str, domain: str) -> str:
    path = grammar.rcpt_to(f'TO:<{address}>'.encode(), utf8=True)
    assert isinstance(path, grammar.Path)
    return Policy(domain, Settings.defaults()).recipient(path)


@pytest.mark.parametrize(
    ('address', 'domain', 'recipient'),
    [
        ('Bob@Relay.Example', 'relay.example', 'bob@relay.example'),
        ('bob+a+b@relay.example', 'relay.example', 'bob@relay.example'),
        ('+bob@relay.example', 'relay.example', '+bob@relay.example'),
        ('"bob"@relay.example', 'relay.example', 'bob@relay.example'),
        ('postmaster', 'relay.example', 'postmaster@relay.example'),
        ('bob@192.0.2.1', '[192.0.2.1]', 'bob@[192.0.2.1]'),
        ('bob@[192.0.2.1]', '[192.0.2.1]', 'bob@[192.0.2.1]'),
        ('bob@[IPv6:2001:DB8:0::1]', '[ipv6:2001:db8::1]', 'bob@[ipv6:2001:db8::1]'),
        ('Bob+tag@Other.Example', 'relay.example', 'Bob+tag@other.example'),
        ('bob@198.51.100.7', 'relay.example', 'bob@[198.51.100.7]'),
        ('bob@bücher.example', 'relay.example', 'bob@xn--bcher-kva.example'),
    ],
)
def test_recipients_have_one_spelling(address: str, domain: str, recipient: str) -> None:
    assert spelled(address, domain) == recipient


@pytest.mark.parametrize(
    ('recipient', 'ownable'),
    [
        ('bob@relay.example', True),
        ('postmaster@relay.example', False),
        ('my-mailer-daemon@relay.example', False),
        ('"a b"@relay.example', False),
        ('ü@relay.example', False),
        ('a!b@relay.example', False),
    ],
)
def test_names_that_nobody_can_have(recipient: str, ownable: bool) -> None:
    assert Policy('relay.example', Settings.defaults()).ownable(recipient) is ownable


def test_the_sender_is_the_login_in_any_spelling_of_the_domain() -> None:
    policy = Policy('[192.0.2.1]', Settings.defaults())
    for text in ('bob@192.0.2.1', 'BOB@[192.0.2.1]'):
        path = grammar.mailbox(text)
        assert policy.sender(path, 'bob@[192.0.2.1]') is None
    refusal = policy.sender(grammar.mailbox('eve@192.0.2.1'), 'bob@[192.0.2.1]')
    assert refusal is not None
    assert refusal.code == 553


def test_sending_rate_is_a_burst_and_then_even() -> None:
    policy = Policy('x', Settings.defaults(limits__send_per_minute=60, limits__send_burst=3))
    taken = [policy.sending_rate('a', now) is None for now in (0, 0, 0, 0, 0.5, 1.0, 1.5, 2.0)]
    assert taken == [True, True, True, False, False, True, False, True]
    assert policy.sending_rate('b', 2.0) is None


def test_sending_rate_follows_the_setting() -> None:
    settings = Settings.defaults(limits__send_per_minute=1, limits__send_burst=1)
    policy = Policy('x', settings)
    assert policy.sending_rate('a', 0) is None
    assert policy.sending_rate('a', 1) is not None
    settings.replace('limits.send_per_minute', 0)
    assert all(policy.sending_rate('a', 1) is None for _ in range(100))


def test_securejoin_has_its_own_hour() -> None:
    policy = Policy('x', Settings.defaults(limits__securejoin_per_hour=2))
    assert policy.securejoin('a', ['b'], 0) is None
    assert policy.securejoin('a', ['b'], 0) is None
    refusal = policy.securejoin('a', ['b'], 0)
    assert refusal is not None
    assert refusal.code == 450
    assert policy.securejoin('a', ['b'], 1800) is None


def test_own_address_is_no_other_recipient_of_a_securejoin() -> None:
    policy = Policy('x', Settings.defaults())
    five = [f'b{i}' for i in range(5)]
    assert policy.securejoin('a', ['a', *five], 0) is None
    refusal = policy.securejoin('a', ['c', *five], 0)
    assert refusal is not None
    assert refusal.code == 523


def test_pseudo_domains_come_back_and_are_no_addresses() -> None:
    place = Parked(12, bytes(range(16)))
    assert parked(place.domain) == place
    assert grammar.mailbox(f'a@{place.domain}') is None
    assert parked('shard.example') is None
