"""There is one spelling of every account."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.account.address import canonical, canonical_domain, ip_literal, is_local, mail_domain
from madmail.account.placement import shard_of


@pytest.mark.parametrize(
    ('setting', 'domain'),
    [
        ('Chat.Example.ORG', 'chat.example.org'),
        ('chat.example.org.', 'chat.example.org'),
        ('203.0.113.5', '[203.0.113.5]'),
        ('[203.0.113.5]', '[203.0.113.5]'),
        ('2001:DB8::1', '[ipv6:2001:db8::1]'),
        ('[IPv6:2001:db8:0::1]', '[ipv6:2001:db8::1]'),
        ('localhost', 'localhost'),
        ('bücher.example', 'xn--bcher-kva.example'),
    ],
)
def test_a_domain_setting_has_one_form(setting: str, domain: str) -> None:
    assert mail_domain(setting) == domain


@pytest.mark.parametrize('setting', ['', 'a b', 'a..b', '-a.example', 'a/b', '.', 'x' * 300])
def test_what_is_no_domain_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=r'neither|label|codec'):
        mail_domain(setting)


@pytest.mark.parametrize(
    'text',
    ['alice@chat.example', 'ALICE@Chat.Example', ' alice@chat.example ', 'alice@chat.example.'],
)
def test_case_and_dots_make_no_second_account(text: str) -> None:
    assert canonical(text, 'chat.example') == 'alice@chat.example'


def test_an_ip_domain_may_be_written_with_or_without_brackets() -> None:
    for text in ('bob@203.0.113.5', 'bob@[203.0.113.5]'):
        assert canonical(text, '[203.0.113.5]') == 'bob@[203.0.113.5]'
    for text in ('bob@[IPv6:2001:db8::1]', 'bob@[2001:DB8:0:0::1]', 'bob@2001:db8::1'):
        assert canonical(text, '[ipv6:2001:db8::1]') == 'bob@[ipv6:2001:db8::1]'


@pytest.mark.parametrize(
    'text',
    [
        'alice',
        '@chat.example',
        'alice@',
        'alice@other.example',
        'a/b@chat.example',
        '../b@chat.example',
        '..@chat.example',
        'a..b@chat.example',
        '.a@chat.example',
        'a.@chat.example',
        'a@b@chat.example',
        'älice@chat.example',
        'аlice@chat.example',  # Cyrillic a
        'al\u0131ce@chat.example',
        'alice\0@chat.example',
        'al ice@chat.example',
        'alice%x@chat.example',
        '"alice"@chat.example',
        'a' * 65 + '@chat.example',
        'a' * 400 + '@chat.example',
    ],
)
def test_tricks_are_no_addresses(text: str) -> None:
    assert canonical(text, 'chat.example') is None


@given(st.text(max_size=60))
def test_canonical_is_a_fixed_point_and_never_raises(text: str) -> None:
    once = canonical(text + '@chat.example', 'chat.example')
    if once is not None:
        assert canonical(once, 'chat.example') == once
        assert once == once.lower()
        assert '/' not in once


def test_local_domains_are_known_in_every_spelling() -> None:
    assert is_local('203.0.113.5', '[203.0.113.5]')
    assert is_local('CHAT.example', 'chat.example')
    assert not is_local('chat.example.net', 'chat.example')
    assert canonical_domain('not a domain') is None
    assert ip_literal('[1.2.3.4]') is not None
    assert ip_literal('1.2.3.4.5') is None


def test_placement_spreads_and_never_changes() -> None:
    counts = [0] * 4
    for number in range(4000):
        counts[shard_of(f'user{number}@chat.example', 4)] += 1
    assert min(counts) > 900
    # The figures are part of the data on disk.
    assert [shard_of(f'user{n}@chat.example', 4) for n in range(8)] == [2, 2, 0, 0, 3, 0, 1, 2]
    assert shard_of('anyone@chat.example', 1) == 0
