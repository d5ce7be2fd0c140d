"""What the dashboard asks for beside what older panels do."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import segno

from madmail.admin import records
from madmail.cli.access import Access
from madmail.master.state import prepare
from madmail.settings.declarations import SECTIONS, SETTINGS
from tests.system import mail
from tests.tls.authority import Authority
from tests.web.admin.double import DOMAIN, Desk
from tests.web.admin.office import Office


@pytest.fixture
def stopped(tmp_path: Path) -> Any:
    """A relay with real stores, its shards asked in place."""
    prepare(tmp_path / 'state', 1, 1, None).close()
    desk = Desk(tmp_path / 'state', relay=Access)
    with desk.relay:
        yield desk


def one(desk: Desk, name: str) -> dict[str, Any]:
    settings = desk.ask('GET', '/admin/configuration')['settings']
    found: dict[str, Any] = next(one for one in settings if one['name'] == name)
    return found


def test_every_setting_is_told_with_what_it_takes(desk: Desk) -> None:
    told = desk.ask('GET', '/admin/configuration')
    assert [one['name'] for one in told['settings']] == list(SETTINGS)
    assert {one['name']: one['title'] for one in told['sections']} == SECTIONS
    for entry in told['settings']:
        assert entry.keys() == {
            'name', 'value', 'default', 'source', 'applies', 'unit', 'doc', 'section', 'kind',
            'expected', 'choices', 'secret', 'changeable',
        }  # fmt: skip
        assert isinstance(entry['value'], str)
        assert entry['section'] in SECTIONS
        assert entry['doc']
    language = one(desk, 'site.language')
    assert language['choices'] == ['auto', 'en', 'es', 'ru', 'fa']
    assert one(desk, 'domain')['changeable'] is False


def test_a_setting_is_set_and_reset(desk: Desk) -> None:
    given = {'action': 'set', 'name': 'relay.comment', 'value': 'for friends'}
    told = desk.ask('POST', '/admin/configuration', given)
    assert (told['value'], told['source']) == ('for friends', 'live')
    assert told == one(desk, 'relay.comment')
    told = desk.ask('POST', '/admin/configuration', {'action': 'reset', 'name': 'relay.comment'})
    assert (told['value'], told['source']) == ('', 'default')
    # An empty text is a value, too.
    desk.ask('POST', '/admin/configuration', {**given, 'name': 'relay.admin', 'value': ''})
    assert one(desk, 'relay.admin')['source'] == 'live'


@pytest.mark.parametrize(
    ('name', 'value', 'status', 'text'),
    [
        ('limits.quota', 'much', 400, 'limits.quota: expected a size'),
        ('limits.qota', '1M', 404, 'did you mean limits.quota?'),
        ('domain', 'x.example', 403, 'in the configuration file only'),
        ('relay.comment', 'two\nlines', 400, 'one line'),
        ('relay.comment', 7, 400, 'must be a text'),
        ('relay.comment', 'x' * 5000, 400, 'one line'),
    ],
)
def test_what_cannot_be_set(desk: Desk, name: str, value: Any, status: int, text: str) -> None:
    given = {'action': 'set', 'name': name, 'value': value}
    assert text in desk.ask('POST', '/admin/configuration', given, status)
    assert desk.relay.control.settings() == {}


def test_secrets_are_masked(desk: Desk) -> None:
    secrets = [name for name in SETTINGS if name.rpartition('.')[2] in ('secret', 'password')]
    assert secrets
    for name in secrets:
        given = {'action': 'set', 'name': name, 'value': 'a-long-and-hidden-secret'}
        answer = desk.envelope('POST', '/admin/configuration', given)
        assert 'hidden' not in str(answer)
        assert answer['body']['secret'] is True
        assert one(desk, name)['value'] == '********'


def test_codes_are_those_that_scanners_read(desk: Desk) -> None:
    text = 'dcaccount:https://relay.example/new'
    told = desk.ask('GET', '/admin/code', {'text': text})
    assert told['size'] == len(told['rows']) == len(told['rows'][0])
    out = io.StringIO()
    segno.make(text, error='l', micro=False).save(out, kind='txt', border=0)
    assert '\n'.join(told['rows']) == out.getvalue().strip()
    assert 'required' in desk.ask('GET', '/admin/code', {}, 400)
    assert 'too long' in desk.ask('GET', '/admin/code', {'text': 'x' * 1201}, 400)
    assert desk.ask('GET', '/admin/code', {'text': 'ж' * 1200})['size'] > 100


def test_invitations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {'tls.mode': 'acme', 'accounts.jit': 'auto'}
    options |= {'listen.http': ['0.0.0.0:80'], 'listen.https': ['0.0.0.0:443']}
    desk = Desk(tmp_path, **options)
    # Clients could not verify the certificate that stands in until the first one is issued.
    assert desk.ask('GET', '/admin/invitation')['link'].startswith('dclogin:')
    pair = Authority(tmp_path).issue(DOMAIN)
    (tmp_path / 'tls').mkdir()
    (tmp_path / 'tls' / 'acme.pem').write_bytes(
        pair.certificate.read_bytes() + pair.key.read_bytes()
    )
    monkeypatch.setattr('madmail.web.site.pages.LOOK', 1e-6)
    told = desk.ask('GET', '/admin/invitation')
    assert told == {'link': f'dcaccount:https://{DOMAIN}/new', 'page': f'https://{DOMAIN}/'}
    token = desk.ask('POST', '/admin/registration-token', {}, 201)['token']
    told = desk.ask('GET', '/admin/invitation', {'token': token})
    assert told['link'] == f'dcaccount:https://{DOMAIN}/new?token={token}'
    assert told['page'] == f'https://{DOMAIN}/inv/{token}'
    desk.ask('POST', '/admin/registration', {'action': 'close'})
    assert desk.ask('GET', '/admin/invitation')['link'] == ''


def test_an_account_with_a_name_of_its_own(desk: Desk) -> None:
    made = desk.ask('POST', '/admin/accounts', {'username': 'bob', 'password': 'long enough'}, 201)
    assert (made['email'], made['password']) == (f'bob@{DOMAIN}', 'long enough')
    assert made['dclogin_url'].startswith(f'dclogin:bob@{DOMAIN}?')
    made = desk.ask('POST', '/admin/accounts', {'username': f'eve@{DOMAIN}'}, 201)
    assert len(made['password']) > 12
    desk.ask('POST', '/admin/accounts', {'username': 'bob'}, 409)
    desk.ask('POST', '/admin/accounts', {'username': 'a b'}, 400)
    desk.ask('POST', '/admin/accounts', {'username': 'x@elsewhere.example'}, 400)
    desk.ask('POST', '/admin/accounts', {'password': 'only this one'}, 400)
    desk.ask('POST', '/admin/accounts', {'username': 'ann', 'password': 7}, 400)
    desk.ask('POST', '/admin/blocklist', {'username': 'mallory'})
    desk.ask('POST', '/admin/accounts', {'username': 'mallory'}, 403)


def test_an_empty_outbox(stopped: Desk) -> None:
    told = stopped.ask('GET', '/admin/outbox')
    assert (told['count'], told['entries'], told['destinations']) == (0, [], [])
    assert stopped.ask('POST', '/admin/outbox', {'action': 'retry'})['domains'] == []
    assert 'nothing waits' in stopped.ask(
        'POST', '/admin/outbox', {'action': 'retry', 'domain': 'x.example'}, 404
    )
    assert 'not waiting' in stopped.ask('DELETE', '/admin/outbox', {'id': '0-1'}, 404)
    assert 'not an id' in stopped.ask('DELETE', '/admin/outbox', {'id': 'x'}, 400)
    assert 'domain is required' in stopped.ask('DELETE', '/admin/outbox', {}, 400)
    assert stopped.ask('DELETE', '/admin/outbox', {'domain': 'x.example'}) == {'deleted': 0}


def test_the_doctor(stopped: Desk) -> None:
    told = stopped.ask('GET', '/admin/doctor')
    assert told['healthy'] is False  # it does not run
    assert told['bad'] == sum(one['level'] == 'bad' for one in told['checks']) >= 1
    assert {'processes', 'memory', 'disk', 'queue'} <= {one['name'] for one in told['checks']}


def test_records_and_whether_they_are_there(stopped: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, 'own_addresses', lambda settings: ['192.0.2.1'])
    told = stopped.ask('GET', '/admin/zone')
    assert told['domain'] == DOMAIN
    kinds = {(one['name'], one['type']) for one in told['records']}
    assert {(DOMAIN, 'A'), (DOMAIN, 'MX'), (f'_dmarc.{DOMAIN}', 'TXT')} <= kinds
    assert all('verdict' not in one for one in told['records'])
    for record in told['records']:
        assert record['line'] in told['zone']
    asked: list[tuple[str, str]] = []

    def look(settings: Any) -> Any:
        def answer(name: str, kind: str) -> tuple[str, ...] | None:
            asked.append((name, kind))
            published = {'A': ('192.0.2.1',), 'MX': ('10 other.example.',), 'SRV': None}
            return published.get(kind, ())

        return answer

    monkeypatch.setattr(records, 'look', look)
    told = stopped.ask('GET', '/admin/zone', {'check': True})
    verdicts = {(one['name'], one['type']): one['verdict'] for one in told['records']}
    assert verdicts[DOMAIN, 'A'] == 'ok'
    assert verdicts[DOMAIN, 'MX'] == 'different'
    assert verdicts[f'_dmarc.{DOMAIN}', 'TXT'] == 'missing'
    assert verdicts[f'_imaps._tcp.{DOMAIN}', 'SRV'] == 'unknown'
    assert len(asked) == len(set(asked))


def test_what_runs(office: Office) -> None:
    told = office.ask('GET', '/admin/processes')
    assert told['domain'] == 'chat.example'
    kinds = [one['kind'] for one in told['processes']]
    assert kinds.count('gate') == 2
    assert {'shard', 'courier', 'web'} <= set(kinds)
    assert all(one['state'] == 'serving' for one in told['processes'])
    assert all(one['resident_bytes'] > 1 << 20 for one in told['processes'])
    assert {one['name'] for one in told['listeners']} >= {'imaps', 'submissions', 'http', 'https'}
    assert 0 < told['memory']['available_bytes'] < told['memory']['total_bytes']
    assert told['complete'] is True
    assert told['trouble'] == told['unusable'] == {}
    assert len(told['load']) == 3


def test_the_doctor_of_a_running_relay(office: Office) -> None:
    """Asked over its own web server, which must not wait for itself."""
    told = office.ask('GET', '/admin/doctor')
    checks = {one['name']: one for one in told['checks']}
    assert checks['processes']['level'] == 'ok'
    ports = [one for one in told['checks'] if one['name'] == 'ports']
    assert 'listeners answer' in ports[0]['seen'], ports
    assert all('does not answer' not in one['seen'] for one in ports)


def test_mail_that_waits_is_seen_tried_and_removed(office: Office) -> None:
    relay = office.relay
    sender = relay.account('ann')
    domains = ('one.example', 'two.example')
    for domain in domains:  # nobody listens there, so that it waits
        given = {'lookup_key': domain, 'target_host': 'http://127.0.0.1:1'}
        office.ask('POST', '/admin/dns', given, 201)
    with relay.smtp(*sender) as smtp:
        for domain in domains:
            recipient = f'bob@{domain}'
            smtp.sendmail(sender[0], [recipient], mail.encrypted(sender[0], recipient))
    told = office.ask('GET', '/admin/outbox')
    assert told['count'] == len(told['entries']) == 2
    assert [one['domain'] for one in told['destinations']] == list(domains)
    assert len(office.ask('GET', '/admin/outbox', {'limit': 1})['entries']) == 1
    (entry,) = office.ask('GET', '/admin/outbox', {'domain': 'one.example'})['entries']
    assert (entry['mail_from'], entry['rcpt_to']) == (sender[0], ['bob@one.example'])
    retried = office.ask('POST', '/admin/outbox', {'action': 'retry', 'id': entry['id']})
    assert retried == {'domains': ['one.example'], 'running': True}
    assert office.ask('DELETE', '/admin/outbox', {'id': entry['id']}) == {'deleted': 1}
    assert office.ask('DELETE', '/admin/outbox', {'domain': 'two.example'}) == {'deleted': 1}
    assert office.ask('GET', '/admin/outbox')['count'] == 0
