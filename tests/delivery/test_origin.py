"""Mail from elsewhere proves its domain, or is refused in the words of other relays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from madmail.delivery.dns import Resolver
from madmail.delivery.origin import Origins
from madmail.message import dkim_key
from madmail.settings import Settings
from madmail.smtp.reply import Reply
from tests.delivery.name_server import NameServer
from tests.message.dkim_forms import MESSAGE, rsa_key, with_signature

OWN = 'chat.example'
NAME = 'one._domainkey.relay.example'


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as server:
        server.add(NAME, 'TXT', dkim_key.record(rsa_key()))
        yield server


def judged(
    names: NameServer, message: bytes, *, own: str = OWN, cut: int = 0, **settings: Any
) -> Reply | None:
    resolver = Resolver([names.address], timeout=0.5)
    origin = Origins(Settings.defaults(**settings), own, resolver)()
    step = cut or len(message) or 1
    for start in range(0, len(message), step):
        origin.feed(message[start : start + step])
    return origin.finish()


def words(reply: Reply | None) -> str:
    return reply.line().decode().strip() if reply else ''


@pytest.mark.parametrize('cut', [0, 1, 7, 1000])
def test_a_signed_message_passes(names: NameServer, cut: int) -> None:
    assert judged(names, with_signature(), cut=cut) is None


@pytest.mark.parametrize('cut', [0, 1])
def test_no_signature(names: NameServer, cut: int) -> None:
    assert words(judged(names, MESSAGE, cut=cut)) == '554 5.7.1 No DKIM signature found'


@pytest.mark.parametrize(
    'message',
    [
        with_signature().replace(b'hello', b'hellp'),
        with_signature(d='other.example'),
        with_signature(s='unknown'),
        with_signature(MESSAGE.replace(b'alice@relay', b'alice@sub.relay')),
        with_signature(a='rsa-sha1'),
        with_signature(l='3'),
        b'DKIM-Signature: x\r\n' + MESSAGE,
    ],
    ids=['changed', 'foreign', 'no-key', 'subdomain', 'sha1', 'partial', 'rubbish'],
)
def test_no_valid_signature(names: NameServer, message: bytes) -> None:
    assert words(judged(names, message)) == '554 5.7.1 No valid DKIM signature found'


@pytest.mark.parametrize('trouble', ['fail', 'silent'])
def test_trouble_with_the_dns_is_not_the_senders_fault(names: NameServer, trouble: str) -> None:
    getattr(names, trouble)(NAME)
    reply = judged(names, with_signature())
    assert reply is not None
    assert reply.code == 451
    names.heal(NAME)
    assert judged(names, with_signature()) is None


def test_a_revoked_key(names: NameServer) -> None:
    names.put(NAME, 'TXT', 'v=DKIM1; p=')
    assert words(judged(names, with_signature())).endswith('No valid DKIM signature found')


def test_a_key_behind_an_alias(names: NameServer) -> None:
    names.put(NAME, 'TXT')
    names.add(NAME, 'CNAME', 'keys.hoster.example.')
    names.add('keys.hoster.example', 'TXT', dkim_key.record(rsa_key()))
    assert judged(names, with_signature()) is None


@pytest.mark.parametrize('domain', [b'[192.0.2.1]', b'[IPv6:2001:db8::1]'])
def test_an_ip_address_needs_none(names: NameServer, domain: bytes) -> None:
    assert judged(names, MESSAGE.replace(b'relay.example', domain)) is None
    assert not names.asked


@pytest.mark.parametrize('domain', [b'192.0.2.1', b'[192.0.2.999]', b'[x]', b'[127.0.0.1'])
def test_what_only_looks_like_an_ip_address_does(names: NameServer, domain: bytes) -> None:
    assert judged(names, MESSAGE.replace(b'relay.example', domain)) is not None


def test_our_own_domain_is_nothing_special(names: NameServer) -> None:
    own = MESSAGE.replace(b'relay.example', b'chat.example')
    assert words(judged(names, own)) == '554 5.7.1 No DKIM signature found'
    forged = judged(names, with_signature(own))
    assert words(forged) == '554 5.7.1 No valid DKIM signature found'


@pytest.mark.parametrize(
    ('own', 'sender'),
    [
        ('[192.0.2.1]', b'[192.0.2.1]'),
        ('[ipv6:2001:db8::1]', b'[IPv6:2001:DB8:0::1]'),
    ],
)
def test_our_own_ip_address_never_comes_from_outside(
    names: NameServer, own: str, sender: bytes
) -> None:
    message = MESSAGE.replace(b'relay.example', sender)
    assert words(judged(names, message, own=own)) == '554 5.7.1 No DKIM signature found'


def test_an_operator_can_do_without(names: NameServer) -> None:
    assert judged(names, MESSAGE, federation__dkim='off') is None


def test_a_change_of_the_setting_holds_for_the_next_message(names: NameServer) -> None:
    settings = Settings.defaults()
    origins = Origins(settings, OWN, Resolver([names.address]))
    first = origins()
    settings.change('federation.dkim', 'off')
    second = origins()
    for origin in (first, second):
        origin.feed(MESSAGE)
    assert first.finish() is not None
    assert second.finish() is None


@pytest.mark.parametrize('message', [b'', b'\r\n', b'\r\nhello\r\n', b'no header', b'x' * 200_000])
def test_what_is_no_message_has_no_signature(names: NameServer, message: bytes) -> None:
    assert words(judged(names, message)).endswith('No DKIM signature found')
    assert words(judged(names, message, cut=4096)).endswith('No DKIM signature found')


def test_a_header_without_body(names: NameServer) -> None:
    message = MESSAGE.removesuffix(b'\r\nhello\r\n')
    assert words(judged(names, message)).endswith('No DKIM signature found')


def test_a_name_is_asked_for_once(names: NameServer) -> None:
    origins = Origins(Settings.defaults(), OWN, Resolver([names.address]))
    for _ in range(5):
        origin = origins()
        origin.feed(with_signature())
        assert origin.finish() is None
    assert names.count(NAME) == 1
