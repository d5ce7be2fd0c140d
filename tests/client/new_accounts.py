"""Run by test_new in a network of its own: real cores get accounts from the public pages.

There the relay has the usual ports, and `_chat.test` is a name in /etc/hosts. Names with
an underscore are for tests: the core does not insist on their certificates.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from pathlib import Path

from tests.client.core import cores_on, incoming
from tests.system.relay import Relay, client_tls

DOMAIN = '_chat.test'
PORTS = {'smtp': 25, 'submission': 587, 'submissions': 465, 'imap': 143, 'imaps': 993}
WEB = {'http': 80, 'https': 443}


def main(directory: Path) -> None:
    listen = {name: [f'0.0.0.0:{port}'] for name, port in {**PORTS, **WEB}.items()}
    relay = Relay(directory / 'relay', {'domain': DOMAIN, 'listen': listen})
    relay.ports = dict(PORTS)
    found = {}
    with relay, cores_on(relay, directory) as cores:
        page = urllib.request.urlopen(f'https://{DOMAIN}/', context=client_tls()).read().decode()
        match = re.search(r'href="(dclogin:[^"]+)"', page)
        assert match is not None
        codes = {
            'new': f'DCACCOUNT:https://{DOMAIN}/new',
            'domain': f'dcaccount:{DOMAIN}',
            'page': match[1].replace('&amp;', '&'),
        }
        accounts = {}
        for name, code in codes.items():
            account = cores.delta.add_account()
            account.add_transport_from_qr(code)
            account.bring_online()
            found[name] = account.get_config('configured_addr')
            accounts[name] = account
        for one, other in (('new', 'domain'), ('domain', 'page'), ('page', 'new')):
            accounts[one].create_chat(accounts[other]).send_text(f'from {one}')
            incoming(accounts[other], f'from {one}')
        # A closed relay tells the user why.
        relay.cli('registration', 'token')
        refused = cores.delta.add_account()
        try:
            refused.add_transport_from_qr(codes['new'])
        except Exception as error:
            found['refused'] = str(error)
        token = json.loads(relay.cli('--json', 'registration-tokens', 'create').stdout)
        invited = cores.delta.add_account()
        invited.add_transport_from_qr(f'{codes["new"]}?token={token["data"]["token"]}')
        found['invited'] = invited.get_config('configured_addr')
    print(json.dumps(found))


if __name__ == '__main__':
    main(Path(sys.argv[1]))
