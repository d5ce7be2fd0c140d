"""Settings and switches by the names that panels know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from madmail.admin import catalogue, panel
from madmail.admin.refused import Refused
from madmail.admin.settings import MASK
from madmail.settings.declarations import SETTINGS
from tests.web.admin.double import Desk

FULL = ('key', 'value', 'is_set', 'restart_required')
WORDS = {
    'registration', 'jit_registration', 'turn_enabled', 'iroh_enabled', 'push_enabled',
    'push_mode', 'ss_enabled', 'ss_ws_enabled', 'ss_grpc_enabled', 'http_proxy_enabled',
    'auto_purge_seen_enabled', 'message_retention_enabled', 'admin_web_enabled',
    'webimap_enabled', 'websmtp_enabled', 'registration_token_required',
    'allow_inbound_remote_rcpt', 'federation_policy', 'smtp_access', 'submission_access',
    'submission_tls_access', 'imap_access', 'imap_tls_access', 'turn_access', 'sasl_access',
    'iroh_access', 'http_access', 'https_access', 'shadowsocks_url', 'message_size_effective',
    'federation_size_effective',
}  # fmt: skip
OBJECTS = {
    'smtp_port', 'submission_port', 'submission_tls_port', 'imap_port', 'imap_tls_port',
    'turn_port', 'sasl_port', 'iroh_port', 'ss_port', 'ss_ws_port', 'ss_grpc_port', 'http_port',
    'https_port', 'http_proxy_port', 'smtp_hostname', 'admin_path', 'admin_web_path',
    'turn_realm', 'turn_secret', 'turn_relay_ip', 'turn_relay_port_min', 'turn_relay_port_max',
    'turn_ttl', 'iroh_relay_url', 'ss_cipher', 'ss_password', 'http_proxy_path',
    'http_proxy_username', 'http_proxy_password', 'dclogin_imap_security',
    'dclogin_smtp_security', 'language', 'webmail_cors_origins', 'appendlimit',
    'max_message_size', 'max_federation_size', 'message_retention',
}  # fmt: skip


def test_all_members_are_there(desk: Desk) -> None:
    found = desk.ask('GET', '/admin/settings')
    assert found.keys() >= WORDS | OBJECTS
    for name in WORDS:
        assert isinstance(found[name], str), name
    for name in OBJECTS:
        assert tuple(found[name]) == FULL, name
        assert isinstance(found[name]['value'], str)
        assert found[name]['key'] == f'__{name.upper()}__'
        assert found[name]['is_set'] is False  # nothing was changed
    assert isinstance(found['federation_enabled'], bool)
    assert found['message_size_effective_bytes'] == 30 * 1024**2
    assert found['federation_size_effective_bytes'] == 70 * 1024**2
    assert desk.ask('GET', '/admin/overview')['settings'] == found


def test_each_object_has_its_resource(desk: Desk) -> None:
    found = desk.ask('GET', '/admin/settings')
    for name in OBJECTS:
        assert desk.ask('GET', f'/admin/settings/{name}') == found[name]
    for name in ('sasl', 'smtp', 'submission', 'submission_tls', 'imap', 'imap_tls', 'turn',
                 'iroh', 'http', 'https'):  # fmt: skip
        assert desk.ask('GET', f'/admin/settings/{name}_local_only')['value'] in (
            '',
            'true',
            'false',
        )


def test_names_mean_settings_that_are_there() -> None:
    for one in (*catalogue.VALUES.values(), *catalogue.LOCAL_ONLY.values()):
        assert bool(one.setting) or one.refusal, one.name
        if one.setting:
            assert SETTINGS[one.setting].live or one.part, one.name
    for name, switch in catalogue.SERVICES.items():
        assert bool(switch.setting) != bool(switch.refusal), name
        if switch.setting:
            for text in (switch.on, switch.off):
                SETTINGS[switch.setting].kind.parse(text)


def test_set_and_reset(desk: Desk) -> None:
    resource = '/admin/settings/max_message_size'
    assert desk.ask('POST', resource, {'action': 'set', 'value': '64M'}) == {
        'key': '__MAX_MESSAGE_SIZE__',
        'value': '64M',
        'is_set': True,
        'restart_required': False,
    }
    assert desk.relay.settings['limits.max_message_size'] == 64 * 1024**2
    assert desk.ask('GET', '/admin/settings/appendlimit')['value'] == '64M'
    assert desk.ask('GET', '/admin/message-size')['max_message_size'] == '64M'
    answer = desk.ask('POST', resource, {'action': 'reset'})
    assert (answer['value'], answer['is_set']) == ('30M', False)


@pytest.mark.parametrize(
    ('name', 'good', 'wrong'),
    [
        ('admin_path', ['/desk', 'a/b/'], ['/', '', '/a b', '/mxdeliv', '/x/../y', None]),
        ('max_federation_size', ['70M', '1G 512M'], ['1', '0', '70X', 'M', '-1M', {}]),
        ('message_retention', ['1d', '30d', '72h', 90000], ['0', '0d', '', '1x', '-1d', True]),
    ],
)
def test_values_are_checked(desk: Desk, name: str, good: list[Any], wrong: list[Any]) -> None:
    resource = f'/admin/settings/{name}'
    for value in wrong:
        desk.ask('POST', resource, {'action': 'set', 'value': value}, status=400)
        assert desk.ask('GET', resource)['is_set'] is False
    for value in good:
        kinds = {'path': desk.relay.settings['admin.path']}
        body = {'action': 'set', 'value': value}
        answer = desk.envelope('POST', resource, body, **kinds)
        assert answer['status'] == 200, answer
        assert answer['body']['is_set'] is True
    for action in ('', 'SET!', None, 7):
        answer = desk.envelope(
            'POST', resource, {'action': action}, path=desk.relay.settings['admin.path']
        )
        assert answer['status'] == 400


def test_what_the_relay_lacks_says_so(desk: Desk) -> None:
    for one in (*catalogue.VALUES.values(), *catalogue.LOCAL_ONLY.values()):
        if one.refusal:
            resource = f'/admin/settings/{one.name}'
            for body in ({'action': 'set', 'value': '1'}, {'action': 'reset'}):
                assert desk.ask('POST', resource, body, status=400) == one.refusal
    for name, switch in catalogue.SERVICES.items():
        resource = f'/admin/services/{name}'
        if switch.refusal:
            assert desk.ask('GET', resource) == {'status': 'disabled'}
            assert desk.ask('POST', resource, {'action': 'enable'}, status=400) == switch.refusal
            assert desk.ask('POST', resource, {'action': 'disable'}) == {'status': 'disabled'}
        for wrong in ({}, {'action': 'maybe'}, {'action': 1}):
            desk.ask('POST', resource, wrong, status=400)
    assert desk.relay.control.settings() == {}


def test_switches(desk: Desk) -> None:
    resource = '/admin/services/message_retention'
    assert desk.ask('GET', resource) == {'status': 'enabled'}
    assert desk.ask('POST', resource, {'action': 'disable'}) == {'status': 'disabled'}
    assert desk.relay.settings['retention.messages'] == 0
    assert desk.ask('GET', '/admin/status')['message_retention'] == {
        'enabled': False,
        'days': 30,
        'retention': '30d',
    }
    desk.ask('POST', '/admin/settings/message_retention', {'action': 'set', 'value': '7d'})
    assert desk.ask('GET', '/admin/status')['message_retention'] == {
        'enabled': True,
        'days': 7,
        'retention': '7d',
    }
    resource = '/admin/services/auto_purge_seen'
    assert desk.ask('GET', resource) == {'status': 'disabled'}
    assert desk.ask('POST', resource, {'action': 'ENABLE'}) == {'status': 'enabled'}
    assert desk.ask('GET', '/admin/settings')['auto_purge_seen_enabled'] == 'enabled'
    assert desk.ask('POST', resource, {'action': 'disable'}) == {'status': 'disabled'}
    assert 'retention.read' not in desk.relay.control.settings()  # as the file has it


def test_registration_by_token_only(desk: Desk) -> None:
    resource = '/admin/settings/registration_token_required'
    assert desk.ask('GET', resource) == {'status': 'disabled'}
    for body in ({'action': 'enable'}, {'action': 'set', 'value': 'YES'}):
        assert desk.ask('POST', resource, body) == {'status': 'enabled'}
        assert desk.relay.settings['accounts.registration'] == 'token'
        assert desk.ask('POST', resource, {'action': 'disable'}) == {'status': 'disabled'}
    found = desk.ask('GET', '/admin/settings')
    assert (found['registration'], found['registration_token_required']) == ('open', 'disabled')
    desk.ask('POST', resource, {'action': 'set'}, status=400)


def test_never_an_open_relay(desk: Desk) -> None:
    resource = '/admin/settings/allow_inbound_remote_rcpt'
    assert desk.ask('GET', resource) == {'status': 'disabled'}
    assert desk.ask('POST', resource, {'action': 'disable'}) == {'status': 'disabled'}
    desk.ask('POST', resource, {'action': 'enable'}, status=400)
    desk.ask('POST', resource, {'action': 'set', 'value': True}, status=400)


def test_push_and_webmail(desk: Desk) -> None:
    push = '/admin/services/push'
    assert desk.ask('GET', push) == {
        'status': 'enabled',
        'mode': 'auto',
        'successful_notifications': 0,
        'consecutive_failures': 0,
        'auto_disable_after': 5,
    }
    for action, mode in (('off', 'off'), ('enable', 'on'), ('disable', 'off'), ('auto', 'auto')):
        status = 'disabled' if mode == 'off' else 'enabled'
        assert desk.ask('POST', push, {'action': action}) == {'status': status, 'mode': mode}
        assert desk.ask('GET', push)['mode'] == mode
        settings = desk.ask('GET', '/admin/settings')
        assert (settings['push_enabled'], settings['push_mode']) == (status, mode)
    desk.ask('POST', push, {'action': 'perhaps'}, status=400)
    mail = '/admin/services/webmail_dev'
    assert desk.ask('GET', mail) == {
        'status': 'disabled',
        'browser_access_enabled': False,
        'webimap_enabled': 'disabled',
        'websmtp_enabled': 'disabled',
        'cors_origins': '',
        'cors_origins_list': [],
    }
    # Nothing is switched on by a call that is refused.
    desk.ask('POST', mail, {'action': 'enable', 'origin': 'ftp://x.example'}, status=400)
    assert desk.ask('GET', mail)['status'] == 'disabled'
    found = desk.ask('POST', mail, {'action': 'enable', 'origin': 'https://x.example'})
    assert found['origin'] == 'https://x.example'
    assert (found['status'], found['webimap_enabled']) == ('enabled', 'enabled')
    assert found['cors_origins_list'] == ['https://x.example']
    found = desk.ask('POST', mail, {'action': 'add_origin', 'origin': 'https://y.example'})
    assert (found['status'], found['origin']) == ('ok', 'https://y.example')
    assert found['cors_origins_list'] == ['https://x.example', 'https://y.example']
    desk.ask('POST', mail, {'action': 'add_origin', 'origin': 'x'}, status=400)
    found = desk.ask('POST', mail, {'action': 'disable'})
    assert (found['status'], len(found['cors_origins_list'])) == ('disabled', 2)


def test_secrets_are_masked_unless_asked_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = catalogue.Name('turn_secret', 'relay.comment', secret=True)
    monkeypatch.setitem(catalogue.VALUES, 'turn_secret', secret)
    desk.relay.control.set_setting('relay.comment', 'very-secret')
    desk.relay.publish('settings', {})
    for resource in ('/admin/settings', '/admin/overview'):
        assert 'very-secret' not in str(desk.ask('GET', resource))
        assert 'very-secret' in str(desk.ask('GET', resource, {'secrets': True}))
        desk.ask('GET', resource, {'secrets': 'yes'}, status=400)
    assert panel.value(desk.relay, secret)['value'] == MASK
    with pytest.raises(Exception, match='masked'):
        panel.set_(desk.relay, secret, MASK)


def test_access_is_where_the_listeners_are(tmp_path: Path) -> None:
    listen = {'listen.imap': ['127.0.0.1:143'], 'listen.imaps': ['0.0.0.0:993', '[::1]:993']}
    desk = Desk(tmp_path, **listen)
    found = desk.ask('GET', '/admin/settings')
    assert (found['imap_access'], found['imap_tls_access']) == ('local', 'public')
    assert found['imap_port']['value'] == ''  # a panel takes 993
    assert found['smtp_hostname']['value'] == 'relay.example'


def test_ports_and_reach_are_parts_of_a_listener(tmp_path: Path) -> None:
    desk = Desk(tmp_path, **{'listen.imap': ['0.0.0.0:143', '[::]:143'], 'listen.smtp': '10.0.0.1'})
    relay = desk.relay
    port, local = '/admin/settings/imap_port', '/admin/settings/imap_local_only'
    answer = desk.ask('POST', port, {'action': 'set', 'value': 1143})
    assert answer == {
        'key': '__IMAP_PORT__',
        'value': '1143',
        'is_set': True,
        'restart_required': False,
    }
    assert relay.asked == [{'command': 'reload'}]
    assert relay.control.settings() == {'listen.imap': '0.0.0.0:1143, [::]:1143'}
    answer = desk.ask('POST', local, {'action': 'set', 'value': True})
    assert (answer['value'], answer['is_set']) == ('true', True)
    assert relay.control.settings() == {'listen.imap': '127.0.0.1:1143, [::1]:1143'}
    assert desk.ask('GET', '/admin/settings')['imap_access'] == 'local'
    answer = desk.ask('POST', port, {'action': 'reset'})
    assert (answer['value'], answer['is_set']) == ('', False)
    assert relay.control.settings() == {'listen.imap': '127.0.0.1:143, [::1]:143'}
    desk.ask('POST', local, {'action': 'reset'})
    assert relay.control.settings() == {}  # back at what the file says
    for wrong in ('0', '65536', '-1', '1.5', 'x', '', True, '٣'):
        desk.ask('POST', port, {'action': 'set', 'value': wrong}, status=400)
    desk.ask('POST', port.replace('imap', 'smtp'), {'action': 'set', 'value': '143'})
    answer = desk.ask(
        'POST', '/admin/settings/http_local_only', {'action': 'set', 'value': 'true'}, 400
    )
    assert answer == 'http does not listen anywhere'


def test_a_refused_reload_puts_the_row_back(desk: Desk) -> None:
    resource = '/admin/settings/imap_tls_port'
    desk.ask('POST', resource, {'action': 'set', 'value': '1993'})
    desk.relay.answers['reload'] = Refused('failed', 'the port is taken')
    text = desk.ask('POST', resource, {'action': 'set', 'value': '2993'}, status=500)
    assert text == 'the old value is kept: the port is taken'
    assert desk.ask('GET', resource)['value'] == '1993'
    assert desk.relay.control.settings() == {'listen.imaps': '0.0.0.0:1993'}


def test_the_last_listener_of_the_api_stays(desk: Desk) -> None:
    assert desk.ask('POST', '/admin/services/http', {'action': 'disable'}) == {'status': 'disabled'}
    assert desk.relay.settings['listen.http'] == ()
    desk.ask('POST', '/admin/services/https', {'action': 'disable'}, status=403)
    assert desk.ask('POST', '/admin/services/http', {'action': 'enable'}) == {'status': 'enabled'}
    assert desk.relay.control.settings() == {}


def test_the_log_is_a_service(desk: Desk) -> None:
    assert desk.ask('GET', '/admin/services/log') == {'status': 'disabled'}
    assert desk.ask('POST', '/admin/services/log', {'action': 'enable'}) == {'status': 'enabled'}
    assert desk.relay.settings['log'] == 'stderr'
    assert desk.ask('GET', '/admin/settings')['log_disabled'] == 'false'
    desk.ask('POST', '/admin/services/log', {'action': 'disable'})
    assert desk.relay.settings['log'] == 'off'


def test_the_name_of_the_host(desk: Desk) -> None:
    resource = '/admin/settings/smtp_hostname'
    assert desk.ask('GET', resource)['value'] == 'relay.example'
    answer = desk.ask('POST', resource, {'action': 'set', 'value': 'MX.relay.example.'})
    assert (answer['value'], answer['is_set']) == ('mx.relay.example', True)
    for wrong in ('192.0.2.1', 'a b', '-x.example', 'x..example'):
        desk.ask('POST', resource, {'action': 'set', 'value': wrong}, status=400)
