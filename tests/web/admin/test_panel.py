"""A panel's way through the relay: the calls it makes, and what it takes from the answers.

In the order of the list by which panels are compatible.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from tests.web.admin.office import Office

PANEL = 'https://admin.madmail.chat'
TEXT_TIME = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z')

TOGGLES = ('turn', 'iroh', 'admin_web', 'auto_purge_seen', 'message_retention', 'webimap',
           'websmtp', 'shadowsocks', 'ss_ws', 'ss_grpc', 'http_proxy')  # fmt: skip


def test_the_login_link_leads_here(office: Office) -> None:
    text = office.relay.cli('admin-token', '--no-qr').stdout
    match = re.search(rf'{PANEL}/#([A-Za-z0-9_-]+)', text)
    assert match
    packed = match[1]
    payload = json.loads(base64.urlsafe_b64decode(packed + '=' * (-len(packed) % 4)))
    assert payload == {
        'u': f'https://chat.example:{office.relay.web["https"]}/api/admin',
        't': office.token,
    }


def test_1_preflight_and_envelope(office: Office) -> None:
    client = office.relay.client('https')
    client.request('OPTIONS', '/api/admin', headers={'Origin': PANEL})
    response = client.getresponse()
    response.read()
    assert response.status == 204
    for name, value in (
        ('Access-Control-Allow-Origin', PANEL),
        ('Access-Control-Allow-Methods', 'POST, OPTIONS'),
        ('Access-Control-Allow-Headers', 'Authorization, Content-Type'),
        ('Access-Control-Max-Age', '86400'),
    ):
        assert response.headers[name] == value
    assert office.envelope('GET', '/admin/overview')['status'] == 200
    client.request('POST', '/api/admin/', '{"resource": "/admin/status"}')
    response = client.getresponse()
    assert response.status == 200
    assert json.loads(response.read())['status'] == 401
    client.close()


def test_2_and_3_wrong_token_and_unknown_resource(office: Office) -> None:
    answer = office.envelope('GET', '/admin/overview', token='f' * 64)
    assert answer['status'] == 401
    assert answer['error']
    assert 'body' not in answer
    answer = office.envelope('GET', '/admin/what/is/this')
    assert answer['status'] == 404
    assert 'unknown resource' in answer['error']


def test_4_to_6_overview(office: Office) -> None:
    found = office.ask('GET', '/admin/overview')
    for name in ('version', 'users', 'uptime', 'disk', 'tokens', 'settings'):
        assert found[name], name
    for name in ('sent_messages', 'outbound_messages', 'received_messages'):
        assert type(found[name]) is int
    assert found['users']['registered'] >= 0
    assert TEXT_TIME.match(found['uptime']['boot_time'])
    assert re.fullmatch(r'(\d+d )?(\d+h )?\d+m \d+s', found['uptime']['duration'])
    assert found['disk']['total_bytes'] >= found['disk']['available_bytes'] > 0
    assert 0 <= found['disk']['percent_used'] <= 100
    for name in ('smtp_hostname', 'http_port', 'https_port', 'admin_path', 'admin_web_path'):
        one = found['settings'][name]
        assert one.keys() == {'key', 'value', 'is_set', 'restart_required'}
        assert isinstance(one['value'], str)
        assert one['is_set'] is False
    # The parts by which an older server is put together.
    for name in ('status', 'storage', 'registration-token', 'settings'):
        assert office.ask('GET', f'/admin/{name}')
    assert office.ask('GET', '/admin/storage')['state_dir']['size_bytes'] > 0


def test_7_switches(office: Office) -> None:
    for action, status in (('close', 'closed'), ('open', 'open')):
        answer = office.ask('POST', '/admin/registration', {'action': action})
        assert answer['status'] == status
        assert office.ask('GET', '/admin/settings')['registration'] == status
    for name in TOGGLES:
        resource = f'/admin/services/{name}'
        assert office.ask('GET', resource)['status'] in ('enabled', 'disabled')
        for action in ('enable', 'disable'):
            answer = office.envelope('POST', resource, {'action': action})
            if answer['status'] == 200:
                assert answer['body']['status'] == f'{action}d'
            else:
                assert (answer['status'], action) == (400, 'enable')
                assert answer['error']
    assert office.ask('GET', '/admin/services/push')['mode'] in ('auto', 'on', 'off')
    assert office.ask('POST', '/admin/services/push', {'action': 'disable'})['mode'] == 'off'
    assert office.ask('GET', '/admin/registration/jit')['status'] == 'enabled'


def test_8_set_and_reset(office: Office) -> None:
    resource = '/admin/settings/message_retention'
    answer = office.ask('POST', resource, {'action': 'set', 'value': '14d'})
    assert (answer['key'], answer['value'], answer['is_set']) == (
        '__MESSAGE_RETENTION__', '14d', True,
    )  # fmt: skip
    assert isinstance(answer['restart_required'], bool)
    assert office.ask('GET', '/admin/status')['message_retention']['days'] == 14
    assert office.ask('POST', resource, {'action': 'reset'})['is_set'] is False


def test_the_path_is_saved_and_the_panel_follows(office: Office) -> None:
    resource = '/admin/settings/admin_path'
    answer = office.ask('POST', resource, {'action': 'set', 'value': '/my/desk'})
    assert (answer['value'], answer['is_set']) == ('/my/desk', True)
    # It asks for the reload where it was, and goes to the new path then.
    reload = {'scope': 'http', 'wait': True}
    assert office.ask('POST', '/admin/reload', reload)['status'] == 'reloaded'
    office.path = '/my/desk'
    try:
        assert office.ask('GET', '/admin/status')
        assert office.ask('GET', '/admin/settings')['admin_path']['is_set'] is True
        assert office.ask('POST', resource, {'action': 'reset'})['value'] == '/api/admin'
    finally:
        office.path = '/api/admin'
    assert office.ask('GET', '/admin/status')


@pytest.mark.parametrize(
    ('resource', 'member'),
    [
        ('/admin/accounts', 'accounts'),
        ('/admin/blocklist', 'blocked'),
        ('/admin/federation/rules', 'rules'),
        ('/admin/federation/silent-dismiss', 'domains'),
        ('/admin/federation/servers', 'servers'),
        ('/admin/dns', 'overrides'),
        ('/admin/registration-token', 'tokens'),
    ],
)
def test_9_lists(office: Office, resource: str, member: str) -> None:
    found = office.ask('GET', resource)
    assert isinstance(found[member], list)
    assert found['total'] == len(found[member])


def test_10_times(office: Office) -> None:
    made = office.ask('POST', '/admin/accounts', status=201)
    office.relay.imap(made['email'], made['password']).logout()
    accounts = office.ask('GET', '/admin/accounts')['accounts']
    (entry,) = [one for one in accounts if one['username'] == made['email']]
    for name in ('created_at', 'first_login_at', 'last_login_at'):
        assert type(entry[name]) is int
        assert entry[name] > 0
    assert entry['is_default_quota'] is True
    office.ask('POST', '/admin/blocklist', {'username': 'spam1'})
    for one in office.ask('GET', '/admin/blocklist')['blocked']:
        assert TEXT_TIME.match(one['blocked_at'])
    token = office.ask('POST', '/admin/registration-token', {'max_uses': 3}, status=201)
    assert TEXT_TIME.match(token['created_at'])
    assert token['expires_at'] is None
    office.ask('DELETE', '/admin/registration-token', {'token': token['token']})


def test_11_and_12_what_is_exported_can_be_imported(office: Office) -> None:
    made = office.ask('POST', '/admin/accounts', status=201)
    users = office.ask('PATCH', '/admin/accounts', {'action': 'export'})['users']
    assert made['email'] in [one['username'] for one in users]
    answer = office.ask('PATCH', '/admin/accounts', {'action': 'import', 'users': users})
    assert (answer['imported'], answer['skipped']) == (0, len(users))
    office.ask('PATCH', '/admin/accounts', {'action': 'import', 'users': []}, status=400)


def test_13_queue_actions_say_what_they_did(office: Office) -> None:
    for body in (
        {'action': 'purge_read'},
        {'action': 'purge_read_blobs'},
        {'action': 'purge_blobs_older', 'retention': '720h'},
        {'action': 'purge_older', 'retention': '24h'},
        {'action': 'purge_blobs'},
        {'action': 'purge_all'},
        {'action': 'purge_queue'},
    ):
        answer: dict[str, Any] = office.ask('POST', '/admin/queue', body)
        assert answer['action'] == body['action']
        assert answer['message']
        assert type(answer['deleted']) is int
    office.ask('POST', '/admin/queue', {'action': 'other'}, status=400)
    office.ask('GET', '/admin/queue', status=405)


def test_quota_and_notice(office: Office) -> None:
    made = office.ask('POST', '/admin/accounts', status=201)
    name = made['email']
    found = office.ask('GET', '/admin/quota')
    assert found.keys() == {'total_storage_bytes', 'accounts_count', 'default_quota_bytes'}
    body = {'username': name, 'max_bytes': 5_000_000}
    assert office.ask('PUT', '/admin/quota', body)['max_bytes'] == 5_000_000
    assert office.ask('GET', '/admin/quota', {'username': name})['is_default'] is False
    assert office.ask('DELETE', '/admin/quota', {'username': name}) == {'reset': name}
    assert office.ask('GET', '/admin/notice')['total_users'] >= 1
    sent = {'subject': 'Hello', 'body': 'A notice.', 'recipient': name}
    assert office.ask('POST', '/admin/notice', sent)['sent'] == 1


def test_nothing_that_is_told_by_itself_is_a_secret(office: Office) -> None:
    """Answers to questions, without asking for secrets; tokens to invite are no secret here."""
    from madmail.web.admin import registry

    kept = {office.token}
    for path in (office.relay.state_dir / 'secret', *office.relay.state_dir.glob('dkim/*')):
        if path.is_file():
            kept.add(path.read_bytes()[:32].hex())
    for resource, methods in registry.resources().items():
        if 'GET' in methods:
            text = json.dumps(office.envelope('GET', resource))
            assert not [one for one in kept if one in text], resource
            assert 'BEGIN' not in text
