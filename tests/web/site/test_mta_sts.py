"""The MTA-STS policy (RFC 8461) is served where it holds, and `madmail dns` says the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from madmail.delivery.tls_policy import Policy, parse_policy
from madmail.delivery.zone import POLICY_AGE
from tests.tls.authority import Authority
from tests.web.conftest import WebRelay

DOMAIN = 'relay.example'
PATH = '/.well-known/mta-sts.txt'


def published(relay: WebRelay) -> list[str]:
    """The data of the record that tells of a policy."""
    records = json.loads(relay.cli('--json', 'dns').stdout)['data']['records']
    return [one['expected'] for one in records if one['name'].startswith('_mta-sts.')]


def test_the_policy_and_its_record_agree(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue(DOMAIN, f'mta-sts.{DOMAIN}')
    own = authority.issue(DOMAIN, signed=False)
    chosen = tmp_path / 'chosen.crt', tmp_path / 'chosen.key'
    options = {
        'domain': DOMAIN,
        'tls': {'mode': 'file', 'cert_file': str(chosen[0]), 'key_file': str(chosen[1])},
    }
    for file, source in zip(chosen, issued, strict=True):
        file.write_bytes(source.read_bytes())
    with WebRelay(tmp_path / 'relay', options) as relay:
        for scheme in ('https', 'http'):
            client = relay.client(scheme)
            client.request('GET', PATH, headers={'Host': f'mta-sts.{DOMAIN}'})
            answer = client.getresponse()
            text = answer.read()
            client.close()
            assert answer.status == 200
            assert answer.headers['Content-Type'].startswith('text/plain')
            assert parse_policy(text.decode()) == (Policy(True, (DOMAIN,)), POLICY_AGE)
        version = hashlib.sha256(text).hexdigest()[:16]
        assert published(relay) == [f'v=STSv1; id={version}']
        for file, source in zip(chosen, own, strict=True):
            file.write_bytes(source.read_bytes())
        client = relay.client('https')
        client.request('GET', PATH)
        assert client.getresponse().status == 404
        client.close()
        assert published(relay) == []
