"""Delta Chat on a relay that it can reach through the proxy only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from madmail.realtime.shadowsocks.methods import METHODS
from tests.client.core import Cores, cores_on, incoming, require_core
from tests.system.test_shadowsocks import ProxyRelay


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyRelay]:
    require_core()
    with ProxyRelay(tmp_path_factory.mktemp('relay')) as relay:
        yield relay.enable()


def link(relay: ProxyRelay) -> str:
    """What users are given, with the address for the name, which nothing resolves here."""
    given: str = relay.data('proxy', 'link')['shadowsocks_url']
    assert given.startswith('ss://')
    return given.replace('@chat.example:', '@127.0.0.1:')


def account(cores: Cores, relay: ProxyRelay, name: str) -> Any:
    """Configured by the relay's name, so that nothing but the proxy leads there."""
    address, password = relay.credentials(name)
    made = cores.delta.add_account()
    made.set_config('displayname', name.capitalize())
    made.set_config('proxy_url', link(relay))
    made.set_config('proxy_enabled', '1')
    by_name = relay.dclogin(address, password).replace('h=127.0.0.1', 'h=chat.example')
    made.add_transport_from_qr(by_name)
    assert made.is_configured()
    made.bring_online()
    return made


@pytest.mark.parametrize('method', METHODS)
def test_people_chat_through_the_proxy(relay: ProxyRelay, tmp_path: Path, method: str) -> None:
    relay.cli('proxy', 'cipher', 'set', method)
    with cores_on(relay, tmp_path) as cores:
        alice, bob = (account(cores, relay, name) for name in ('alice', 'bob'))
        assert relay.data('proxy', 'status')['connections'] >= 2
        alice.create_chat(bob).send_text('Can you read me?')
        message = incoming(bob, 'Can you read me?')
        assert message.get_snapshot().show_padlock
        bob.create_chat(alice).send_text('As if there was no wall.')
        incoming(alice, 'As if there was no wall.')


def test_a_code_to_scan_is_the_proxy(relay: ProxyRelay, tmp_path: Path) -> None:
    """The core takes our link for what it is."""
    relay.cli('proxy', 'cipher', 'reset')
    with cores_on(relay, tmp_path) as cores:
        made = cores.delta.add_account()
        found = made._rpc.check_qr(made.id, relay.data('proxy', 'link')['shadowsocks_url'])
        assert found['kind'] == 'proxy'
        assert found['port'] == relay.at
