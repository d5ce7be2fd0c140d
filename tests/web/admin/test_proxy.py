"""The Shadowsocks proxy in a panel's hands."""

from __future__ import annotations

import base64
import time
from urllib.parse import unquote, urlsplit

import pytest

from madmail.admin.settings import MASK
from madmail.realtime.shadowsocks.methods import METHODS
from tests.web.admin.double import Desk
from tests.web.admin.office import Office

RESOURCE = '/admin/services/shadowsocks'


def user(url: str) -> tuple[str, str]:
    """Method and password of a link."""
    text = urlsplit(url).netloc.rpartition('@')[0]
    if ':' not in text:
        text = base64.urlsafe_b64decode(text + '=' * (-len(text) % 4)).decode()
    method, _, password = text.partition(':')
    return method, unquote(password)


def test_a_panel_switches_it_and_shows_the_link(office: Office) -> None:
    assert office.ask('GET', RESOURCE)['status'] == 'disabled'
    assert office.ask('GET', RESOURCE, {'secrets': True})['url'] == ''
    answer = office.ask('POST', RESOURCE, {'action': 'enable'})
    assert answer == {'status': 'enabled', 'restart_required': False}
    end = time.monotonic() + 20
    while not office.ask('GET', RESOURCE)['answers']:
        assert time.monotonic() < end
        time.sleep(0.1)
    found = office.ask('GET', RESOURCE)
    assert found.keys() & {'url', 'code', 'password'} == set()
    assert found['configured']
    assert found['cipher'] == 'chacha20-ietf-poly1305'
    found = office.ask('GET', RESOURCE, {'secrets': True})
    password = office.ask('GET', '/admin/settings/ss_password', {'secrets': True})['value']
    assert user(found['url']) == (found['cipher'], password)
    size = found['code']['size']
    assert size == len(found['code']['rows']) >= 21
    assert all(len(row) == size for row in found['code']['rows'])
    assert (
        office.ask('GET', '/admin/settings', {'secrets': True})['shadowsocks_url'] == found['url']
    )
    assert office.ask('GET', '/admin/settings')['shadowsocks_url'] == ''
    assert office.ask('GET', '/admin/settings')['ss_enabled'] == 'enabled'
    assert office.ask('GET', '/admin/settings/ss_password')['value'] == MASK
    assert office.ask('GET', '/admin/status')['shadowsocks'] == {'connections': 0, 'unique_ips': 0}
    office.ask('POST', RESOURCE, {'action': 'disable'})
    assert office.ask('GET', RESOURCE)['status'] == 'disabled'


def test_cipher_and_password_fit_each_other(desk: Desk) -> None:
    def value(name: str) -> str:
        found: str = desk.ask('GET', f'/admin/settings/{name}', {'secrets': True})['value']
        return found

    def set_(name: str, text: str, status: int = 200) -> None:
        desk.ask('POST', f'/admin/settings/{name}', {'action': 'set', 'value': text}, status)

    set_('ss_password', 'a good password')
    for name in ('aes-128-gcm', 'aes_256_gcm', 'chacha20_ietf_poly1305'):
        set_('ss_cipher', name)
        assert value('ss_cipher') == name.replace('_', '-')
        assert value('ss_password') == 'a good password', 'it fits as it is'
    previous = 'a good password'
    for name, method in METHODS.items():
        if method.modern:
            set_('ss_cipher', name)
            assert value('ss_cipher') == name
            assert method.fits(value('ss_password'))
            set_('ss_password', 'a good password', 400)
            set_('ss_password', method.fresh_password())
            assert value('ss_password') != previous
            previous = value('ss_password')
    set_('ss_cipher', 'rc4-md5', 400)
    set_('ss_cipher', 'none', 400)
    set_('ss_password', 'short', 400)
    set_('ss_password', MASK, 400)
    desk.ask('POST', '/admin/settings/ss_cipher', {'action': 'reset'})
    assert value('ss_cipher') == 'chacha20-ietf-poly1305'
    assert value('ss_password') == previous
    desk.ask('POST', '/admin/settings/ss_password', {'action': 'reset'})
    assert value('ss_password') not in ('', previous), 'a new one'


@pytest.mark.parametrize('name', ['ss_ws', 'ss_grpc'])
def test_other_ways_of_carrying_it_are_refused(desk: Desk, name: str) -> None:
    assert desk.ask('GET', f'/admin/services/{name}')['status'] == 'disabled'
    desk.ask('POST', f'/admin/services/{name}', {'action': 'enable'}, 400)
    desk.ask('POST', f'/admin/services/{name}', {'action': 'disable'})
