"""What can be reached, and as whom."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from madmail.realtime.shadowsocks.destination import Destination
from madmail.realtime.shadowsocks.link import write
from madmail.realtime.shadowsocks.pseudonym import NETWORK, Pseudonyms
from madmail.realtime.shadowsocks.services import Services
from madmail.settings import Settings
from madmail.web.peers import is_loopback, trusted

LISTENING = {
    'domain': 'chat.example',
    'relay.hostname': 'mail.chat.example',
    'listen.imap': '0.0.0.0:143',
    'listen.imaps': ['203.0.113.7:993', '[2001:db8::7]:993'],
    'listen.submissions': '[::]:465',
    'listen.smtp': '0.0.0.0:25',
    'listen.https': 'localhost:443',
    'listen.metrics': '127.0.0.1:9180',
    'listen.shadowsocks': '0.0.0.0:8388',
}


@pytest.fixture
def services() -> Services:
    return Services(Settings.defaults(LISTENING))


@pytest.mark.parametrize(
    'host',
    ['chat.example', 'mail.chat.example', 'chat.example.', 'localhost', '127.0.0.1', '127.9.9.9',
     '::1', '::ffff:127.0.0.1'],
)  # fmt: skip
def test_names_and_addresses_of_this_relay(services: Services, host: str) -> None:
    assert services.find(Destination(host, 143)) == (socket.AF_INET, '127.0.0.1', 143)


@pytest.mark.parametrize(
    'host',
    ['other.example', 'example', 'xchat.example', 'a.chat.example', '203.0.113.99', '2001:db8::99',
     '0.0.0.0', '::', '224.0.0.1', '255.255.255.255', '', '.', '127.1', '2130706433',
     'chat.example\0', '[', '::ffff:203.0.113.99', '169.254.169.254'],
)  # fmt: skip
def test_nothing_else_is_reached(services: Services, host: str) -> None:
    assert services.find(Destination(host, 143)) is None


def test_each_port_leads_to_its_listener(services: Services) -> None:
    def way(port: int) -> tuple[int, str] | None:
        found = services.find(Destination('chat.example', port))
        return found and (found.family, found.host)

    assert way(993) == (socket.AF_INET, '203.0.113.7')
    assert way(465) == (socket.AF_INET6, '::1')
    assert way(443) == (socket.AF_INET, '127.0.0.1')
    for port in (25, 9180, 8388, 22, 80, 587, 0):
        assert way(port) is None
    assert services.first == 143


def test_nobody_comes_to_plain_http_as_somebody_on_this_host() -> None:
    listen = {'listen.http': '[::]:80', 'listen.https': '[::]:443', 'listen.imap': '[::1]:143'}
    services = Services(Settings.defaults(listen))
    assert services.find(Destination('localhost', 80)) is None
    assert services.find(Destination('localhost', 443))
    assert services.find(Destination('localhost', 143))
    both = Services(Settings.defaults({'listen.http': ['[::]:80', '0.0.0.0:80']}))
    assert both.find(Destination('localhost', 80)) == (socket.AF_INET, '127.0.0.1', 80)


def test_a_domain_that_is_an_address() -> None:
    for domain, host in (('203.0.113.1', '203.0.113.1'), ('2001:db8::1', '2001:db8:0::1')):
        services = Services(Settings.defaults({'domain': domain, 'listen.imap': '0.0.0.0:143'}))
        assert services.find(Destination(host, 143))
        assert services.find(Destination('203.0.113.2', 143)) is None


def test_clients_are_told_apart_and_not_known() -> None:
    pseudonyms = Pseudonyms()
    hosts = [f'198.51.100.{n}' for n in range(256)]
    aliases = [pseudonyms.of(host) for host in hosts]
    assert len(set(aliases)) == 256, 'all of a network'
    assert len({alias.rpartition('.')[0] for alias in aliases}) == 1, 'which is one network'
    assert all(ipaddress.ip_address(alias) in NETWORK for alias in aliases)
    assert aliases == [pseudonyms.of(host) for host in hosts]
    others = {pseudonyms.of(f'198.51.{n}.1').rpartition('.')[0] for n in range(100)}
    assert len(others) > 95
    assert pseudonyms.of('2001:db8:1:2::5') == pseudonyms.of('2001:db8:1:2:ffff::7')
    assert pseudonyms.of('2001:db8:1:2::5') != pseudonyms.of('2001:db8:2:2::5')
    assert pseudonyms.of('::ffff:198.51.100.7') == aliases[7]
    later = Pseudonyms()
    assert [later.of(host) for host in hosts] != aliases, 'another life, other names'


def test_the_kernel_takes_all_pseudonyms() -> None:
    pseudonyms = Pseudonyms()
    names = [str(NETWORK[0]), str(NETWORK[-1]), *(pseudonyms.of(f'192.0.{n}.9') for n in range(99))]
    for name in names:
        with socket.socket() as probe:
            probe.bind((name, 0))


def test_a_client_of_the_proxy_is_a_stranger_to_the_web_server() -> None:
    alias = Pseudonyms().of('203.0.113.1')
    assert is_loopback('127.0.0.1')
    assert is_loopback('127.0.0.53')
    assert not is_loopback(alias)
    settings = Settings.defaults({'web.trusted_proxies': '127.0.0.0/8'})
    assert trusted('127.0.0.1', settings)
    assert not trusted(alias, settings)


@pytest.mark.parametrize('host', ['chat.example', '203.0.113.1', '2001:db8::1', '[2001:db8::1]'])
def test_links(host: str) -> None:
    # The standard alphabet would give + and / here, which clients misread.
    link = write('aes-128-gcm', '~~~???>>>', host, 8388, 'a b')
    user, _, rest = link.removeprefix('ss://').partition('@')
    assert set(user) & set('+/=') == set()
    assert '-' in user or '_' in user
    assert rest == (f'[{host.strip("[]")}]' if ':' in host else host) + ':8388#a%20b'
    assert write('2022-blake3-aes-128-gcm', 'a/b+c==', 'x.example', 1, 'x').startswith(
        'ss://2022-blake3-aes-128-gcm:a%2Fb%2Bc%3D%3D@x.example:1'
    )
