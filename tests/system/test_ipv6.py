"""A relay that has nothing but an IPv6 address, and another that has an IPv4 address."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Iterator

import pytest

from tests.system import mail
from tests.system.relay import Relay, free_ports, wait_for

WEB = ('http', 'https')


class SixRelay(Relay):
    host = '::1'


@pytest.fixture(scope='module')
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Relay]]:
    """Their domains are their addresses, and nobody tells one of the other."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(('::1', 0))
    except OSError:
        pytest.skip('this host has no ::1')
    room = tmp_path_factory.mktemp('six')
    six_web, four_web = free_ports(2), free_ports(2)
    six = SixRelay(
        room / 'six',
        {
            'domain': '::1',
            **{f'listen.{name}': f'[::1]:{port}' for name, port in zip(WEB, six_web, strict=True)},
        },
    )
    six.domain = '[IPv6:::1]'
    four = Relay(
        room / 'four',
        {
            'domain': '127.0.0.1',
            **{
                f'listen.{name}': f'127.0.0.1:{port}'
                for name, port in zip(WEB, four_web, strict=True)
            },
        },
    )
    for one, other, web in ((six, four, four_web), (four, six, six_web)):
        one.write_config(
            federation__http_port=web[0],
            federation__https_port=web[1],
            federation__smtp_port=other.ports['smtp'],
        )
    with six, four:
        yield six, four


@pytest.mark.parametrize('transport', ['https', 'http', 'smtp'])
def test_they_exchange_mail(pair: tuple[Relay, Relay], transport: str) -> None:
    six, four = pair
    for one in pair:
        one.cli('settings', 'set', 'federation.transports', transport)
    alice, bob = six.account(), four.account()
    with six.smtp(*alice) as client:
        client.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0], bob[0]))
    with four.imap(*bob) as inbox:
        (found,) = wait_for(inbox, 1)
    assert f'From: <{alice[0]}>'.lower().encode() in found.lower()
    # The same address in another spelling.
    long = alice[0].replace('[IPv6:::1]', '[IPV6:0:0:0:0:0:0:0:1]')
    with four.smtp(*bob) as client:
        client.sendmail(bob[0], [long], mail.encrypted(bob[0], long))
    with six.imap(*alice) as inbox:
        assert len(wait_for(inbox, 1)) == 1


def test_port_25_speaks_ipv6(pair: tuple[Relay, Relay]) -> None:
    six, _ = pair
    alice = six.account()
    sender = 'fay@[IPv6:2001:db8::9]'
    with smtplib.SMTP('::1', six.ports['smtp'], timeout=20) as client:
        code, said = client.ehlo('[IPv6:::1]')
        assert (code, said.split(b'\n')[0].split()[0].lower()) == (250, b'[ipv6:::1]')
        client.sendmail(sender, [alice[0]], mail.encrypted(sender, alice[0]))
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail(sender, ['x@[IPv6:2001:db8::1]'], mail.encrypted(sender))
    with six.imap(*alice) as inbox:
        assert len(wait_for(inbox, 1)) == 1


def test_a_wrong_literal_is_refused(pair: tuple[Relay, Relay]) -> None:
    six, _ = pair
    alice = six.account()
    with six.smtp(*alice) as client:
        for wrong in ('[IPv6:::1', '[IPv6:1:2:3]', '[IPv6:g::1]', '[IPv6:::1%25lo]', '[1.2.3]'):
            assert client.docmd('MAIL', f'FROM:<{alice[0]}>')[0] == 250
            assert client.docmd('RCPT', f'TO:<bob@{wrong}>')[0] == 501, wrong
            client.rset()
