"""dns and dkim at the command line, against a name server of our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from madmail.admin import records
from tests.cli.test_cli import Shell
from tests.delivery.name_server import NameServer

DOMAIN = 'chat.example'
NAME = f'madmail._domainkey.{DOMAIN}'
NEXT = f'madmail2._domainkey.{DOMAIN}'


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


def configure(path: Path, names: NameServer, **settings: str) -> Path:
    path.write_text(
        ''.join(
            f'{key}: {value}\n'
            for key, value in {
                'domain': DOMAIN,
                'state_dir': 'state',
                'processes': '{shards: 1}',
                'dns': f'{{servers: ["{names.address}"]}}',
                **settings,
            }.items()
        )
    )
    return path


@pytest.fixture
def shell(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    names: NameServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Shell:
    monkeypatch.setattr(records, 'own_addresses', lambda settings: ['192.0.2.1'])
    shell = Shell(configure(tmp_path / 'madmail.yaml', names), capsys)
    shell('init')
    return shell


def publish(names: NameServer, records: list[dict[str, Any]], *needs: str) -> None:
    for one in records:
        if one['expected'] and one['need'] in (needs or ('required', 'recommended')):
            names.add(one['name'], one['type'], one['expected'])


def test_init_makes_the_first_key(shell: Shell, tmp_path: Path) -> None:
    assert (tmp_path / 'state/dkim/madmail.pem').exists()


def test_without_a_relay_there_is_no_zone(tmp_path: Path, names: NameServer, capsys: Any) -> None:
    shell = Shell(configure(tmp_path / 'madmail.yaml', names), capsys)
    for words in (('dns',), ('dns', 'check'), ('dkim', 'show')):
        assert 'there is no relay in' in shell.error(*words)
    assert not (tmp_path / 'state').exists()


def test_the_zone_is_for_people_and_programs(shell: Shell) -> None:
    code, out, _ = shell('dns')
    assert code == 0
    data = shell.data('dns')
    assert data['domain'] == DOMAIN
    lines = out.splitlines()
    for one in data['records']:
        assert one['line'] in lines or f'; {one["line"]}' in lines


def test_a_self_signed_certificate_is_told(shell: Shell) -> None:
    assert '; The certificate is self-signed' in shell('dns')[1]
    assert 'self-signed' in shell('dns', 'check')[1]


def test_check_tells_what_is_missing_and_fails(shell: Shell, names: NameServer) -> None:
    code, out, _ = shell('dns', 'check')
    assert code == 1
    assert f'{DOMAIN}. 3600 IN MX 10 {DOMAIN}.' in out
    publish(names, shell.data('dns')['records'], 'required')
    shell_code, out, _ = shell('--json', 'dns', 'check')
    assert shell_code == 0
    assert '"complete":true' in out
    code, out, _ = shell('dns', 'check')
    assert 'All that is required is there.' in out
    assert 'missing  recommended' in out


def test_check_shows_expected_and_seen(shell: Shell, names: NameServer) -> None:
    publish(names, shell.data('dns')['records'])
    assert {one['verdict'] for one in shell.data('dns', 'check')['records']} == {'ok'}
    names.put(DOMAIN, 'MX', '10 other.example.')
    code, out, _ = shell('--json', 'dns', 'check')
    assert code == 1
    assert '"seen":["10 other.example."],"verdict":"different"' in out


def test_check_says_when_nobody_answers(shell: Shell, names: NameServer) -> None:
    publish(names, shell.data('dns')['records'])
    names.fail(NAME)
    code, out, _ = shell('dns', 'check')
    assert code == 1
    assert 'could not be looked up' in out


def test_a_relay_on_an_ip_address_needs_nothing(
    tmp_path: Path, names: NameServer, capsys: Any
) -> None:
    shell = Shell(configure(tmp_path / 'madmail.yaml', names, domain='192.0.2.1'), capsys)
    shell('init')
    assert shell.data('dns')['records'] == []
    assert shell('dns', 'check')[0] == 0
    assert shell.data('dkim', 'show')['keys'] == []
    assert 'signs nothing' in shell('dkim', 'show')[1].lower()
    assert 'signs nothing' in shell.error('dkim', 'rotate')
    assert not names.asked


def test_rotation_waits_for_the_record(shell: Shell, names: NameServer) -> None:
    assert 'no next key' in shell.error('dkim', 'activate')
    made = shell.data('dkim', 'rotate')
    assert made['selector'] == 'madmail2'
    assert 'next key already' in shell.error('dkim', 'rotate')
    assert [one['state'] for one in shell.data('dkim', 'show')['keys']] == ['active', 'next']
    assert {one['name'] for one in shell.data('dns')['records']} >= {NAME, NEXT}
    assert 'is missing in the DNS' in shell.error('dkim', 'activate')
    names.put(NEXT, 'TXT', 'v=DKIM1; p=')
    assert 'is different in the DNS' in shell.error('dkim', 'activate')
    names.put(NEXT, 'TXT', made['records'][0]['text'])
    assert shell.data('dkim', 'activate')['state'] == 'active'
    assert [one['state'] for one in shell.data('dkim', 'show')['keys']] == ['retired', 'active']


def test_activation_can_be_forced(shell: Shell, names: NameServer) -> None:
    shell('dkim', 'rotate')
    names.fail(NEXT)
    assert 'is unknown in the DNS' in shell.error('dkim', 'activate')
    assert shell('dkim', 'activate', '--force')[0] == 0


def test_show_prints_records_to_paste(shell: Shell) -> None:
    code, out, _ = shell('dkim', 'show')
    assert code == 0
    assert f'{NAME}. 3600 IN TXT "v=DKIM1;k=rsa;s=email;t=s;p=MIIBIjAN' in out


def test_damage_is_told(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / 'state/dkim/keys.json').write_text('{')
    for words in (('dns',), ('dkim', 'show'), ('dkim', 'rotate')):
        assert 'keys.json is damaged' in shell.error(*words)
