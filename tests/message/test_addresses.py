"""Address lists of RFC 5322 3.4, with the forgeries of From in mind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.message import addresses


@pytest.mark.parametrize(
    ('value', 'address', 'bare'),
    [
        (b' <alice@example.org>', 'alice@example.org', True),
        (b' alice@example.org', 'alice@example.org', True),
        (b'\r\n <alice@example.org>', 'alice@example.org', True),
        (b' Alice <alice@example.org>', 'alice@example.org', False),
        (b' "A. <x@y>" <alice@example.org>', 'alice@example.org', False),
        (b' "quoted \\" <x@y>" <alice@example.org>', 'alice@example.org', False),
        (b' (<x@y>) alice@example.org', 'alice@example.org', False),
        (b' alice@example.org (a (nested) one \\) )', 'alice@example.org', False),
        (b' "Alice"\r\n\t<alice@example.org>', 'alice@example.org', False),
        (b' J. Q. Public <alice@example.org>', 'alice@example.org', False),
        (b' \xc3\x84lice <alice@example.org>', 'alice@example.org', False),
        (b' <Alice@[192.0.2.1]>', 'Alice@[192.0.2.1]', True),
        (b' <a@[IPv6:2001:db8::1]>', 'a@[IPv6:2001:db8::1]', True),
        (b' <a@192.0.2.1>', 'a@192.0.2.1', True),
        (b' <a@_test.example>', 'a@_test.example', True),
    ],
)
def test_sole_mailbox_is_found(value: bytes, address: str, bare: bool) -> None:
    assert addresses.sole(value) == (address, bare)


@pytest.mark.parametrize(
    'value',
    [
        b'',
        b' ',
        b' alice',
        b' <alice>',
        b' <alice@example.org',
        b' alice@example.org>',
        b' <@x:alice@example.org>',
        b' <alice@example.org>, <bob@example.org>',
        b' friends: <alice@example.org>;',
        b' "hidden-recipients": ;',
        b' <alice@example.org> trailing',
        b' one@example.org two@example.org',
        b' "alice"@example.org',
        b' <al\xc3\xafce@example.org>',
        b' <alice@ex\xc3\xa4mple.org>',
        b' <.alice@example.org>',
        b' <alice@example..org>',
        b' <alice@[300]>',
        b' "unclosed <alice@example.org>',
        b' (unclosed <alice@example.org>',
        b' ' + b'(' * 21 + b')' * 21 + b' alice@example.org',
        b' <alice@example.org>\0',
        b' <' + b'a' * 400 + b'@example.org>',
    ],
)
def test_anything_else_is_no_sole_mailbox(value: bytes) -> None:
    assert addresses.sole(value) is None


def test_list_and_groups() -> None:
    found = addresses.parse(b' <a@x.org>, B <b@x.org>, team: c@x.org, <d@x.org>;, e@x.org')
    assert found is not None
    assert [box.address for box in found.mailboxes] == [f'{c}@x.org' for c in 'abcde']
    assert found.groups == [(b'team', 2)]
    empty = addresses.parse(b' "hidden-recipients": ;')
    assert empty is not None
    assert empty == ([], [(b'"hidden-recipients"', 0)])


@pytest.mark.parametrize(
    ('left', 'right'),
    [
        ('Alice@Example.ORG', 'alice@example.org'),
        ('alice@[192.0.2.1]', 'alice@192.0.2.1'),
        ('a@[IPv6:2001:DB8::1]', 'a@[ipv6:2001:db8::1]'),
    ],
)
def test_comparable_forms(left: str, right: str) -> None:
    assert addresses.comparable(left) == addresses.comparable(right)


def test_tags_are_other_addresses() -> None:
    assert addresses.comparable('a+b@x.org') != addresses.comparable('a@x.org')


@given(st.binary(max_size=200) | st.text('<>@,;:"\\()ab. \r\n[]', max_size=60).map(str.encode))
def test_any_octets_are_a_list_or_none(value: bytes) -> None:
    found = addresses.parse(value)
    sole = addresses.sole(value)
    if sole is not None:
        assert '@' in sole.address
        assert sole.address.isascii()
        assert not set(sole.address) & set(' \r\n<>"')
    assert found is None or found.mailboxes or found.groups
