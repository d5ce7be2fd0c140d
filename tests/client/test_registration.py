"""A real core on accounts that the operator made or a token paid for."""

from __future__ import annotations

import json

from madmail.admin import registration, tokens
from madmail.cli.access import Access
from madmail.settings import load
from tests.client.core import Cores, incoming
from tests.system.relay import Relay


def test_cores_with_accounts_made_for_them_exchange_mail(relay: Relay, cores: Cores) -> None:
    relay.cli('registration', 'token')
    try:
        made = json.loads(relay.cli('--json', 'accounts', 'create-random').stdout)['data']
        with Access(load(relay.config)) as access:
            token = tokens.create(access)['token']
            guest = registration.create_account(access, token=token)
        alice, bob = (cores.delta.add_account() for _ in range(2))
        for account, link in ((alice, made['dclogin']), (bob, guest['dclogin_url'])):
            account.add_transport_from_qr(link)
            account.bring_online()
        assert alice.get_config('configured_addr') == made['email']
        assert bob.get_config('configured_addr') == guest['email']
        alice.create_chat(bob).send_text('Hello Bob')
        assert incoming(bob, 'Hello Bob').get_snapshot().show_padlock
        with Access(load(relay.config)) as access:
            assert tokens.status(access, token)['used_count'] == 1
    finally:
        relay.cli('registration', 'open')
