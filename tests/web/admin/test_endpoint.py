"""The admin API as HTTP: envelope, token, limits, origins, paths."""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from madmail import __version__
from madmail.admin import access_token
from madmail.admin.refused import Refused
from madmail.web.admin import answer as answers
from madmail.web.admin import endpoint, envelope
from madmail.web.admin.path import LINGER
from tests.web.admin.double import FAR, Desk

PANEL = 'https://admin.madmail.chat'
REQUEST = {'resource': '/admin/blocklist'}


def test_a_call_and_its_answer(desk: Desk) -> None:
    answer = desk.envelope('post', '/admin/blocklist', {'username': 'spam1', 'reason': 'abuse'})
    assert answer == {
        'status': 200,
        'resource': '/admin/blocklist',
        'body': {'blocked': 'spam1@relay.example'},
        'error': None,
        'version': __version__,
    }


def test_the_method_is_get_unless_said_otherwise(desk: Desk) -> None:
    request = {**REQUEST, 'headers': {'authorization': f'Bearer  {desk.token} '}, 'more': 1}
    assert desk.post(json.dumps(request)).json['body'] == {'blocked': [], 'total': 0}


@pytest.mark.parametrize(
    'headers',
    [
        None,
        {},
        {'Authorization': ''},
        {'Authorization': 'Bearer '},
        {'Authorization': 'Bearer wrong'},
        {'Authorization': 'bearer {token}'},
        {'Authorization': '{token}'},
        {'Authorization': 7},
        {'Authorization': 'Bearer é'},
    ],
)
def test_without_the_token_nothing_is_told(desk: Desk, headers: Any) -> None:
    text = json.dumps({**REQUEST, 'headers': headers}).replace('{token}', desk.token)
    result = desk.post(text, headers={'Authorization': f'Bearer {desk.token}'})
    assert result.status_code == 200
    assert result.json == {'status': 401, 'error': 'unauthorized', 'version': __version__}


@pytest.mark.parametrize(
    'text',
    [
        '',
        'x',
        '[]',
        '7',
        'null',
        '{}',
        '{"resource": ""}',
        '{"resource": 7}',
        '{"resource": "/x", "method": 7}',
        '{"resource": "/x", "headers": []}',
        '{"resource": "/x", "body": NaN}',
        '{"resource": "/x", "body": "\\ud800"}',
        '[' * 10_000,
        '{"resource": "/x", "body": ' + '[' * 64 + ']' * 64 + '}',
        '{"resource": "/x", "body": ' + '9' * 5000 + '}',
        '{"resource": "' + 'x' * 300 + '"}',
        b'\xff\xfe',
    ],
)
def test_what_is_no_request_is_refused_before_the_token(desk: Desk, text: bytes | str) -> None:
    result = desk.post(text)
    assert result.status_code == 200
    assert result.json['status'] == 400
    assert result.json['error']
    assert result.json.keys() == {'status', 'error', 'version'}


def test_unknown_resources_and_methods(desk: Desk) -> None:
    assert 'unknown resource /admin/nothing' in desk.ask('GET', '/admin/nothing', status=404)
    assert 'unknown resource' in desk.ask('GET', '/admin/blocklist/', status=404)
    assert 'GET' in desk.ask('PUT', '/admin/blocklist', status=405)
    assert 'object' in desk.ask('GET', '/admin/blocklist', ['x'], status=400)


def test_other_verbs_are_for_http(desk: Desk) -> None:
    for verb in ('GET', 'PUT', 'DELETE', 'PATCH', 'HEAD'):
        assert desk.client.simulate_request(verb, '/api/admin').status_code == 405


def test_a_megabyte_is_the_most(desk: Desk) -> None:
    exact = json.dumps({**REQUEST, 'headers': {'Authorization': f'Bearer {desk.token}'}})
    exact += ' ' * (endpoint.SIZE_LIMIT - len(exact))
    assert desk.post(exact).json['status'] == 200
    answer = desk.post(exact + ' ').json
    assert answer['status'] == 413
    assert 'resource' not in answer


# -- guessing


def test_strangers_have_nothing_large_taken_apart(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    decode = envelope.decode

    def counting(octets: bytes) -> Any:
        taken.append(len(octets))
        return decode(octets)

    monkeypatch.setattr(envelope, 'decode', counting)
    large = {'users': ['x' * 100] * 500}
    for token in ('', 'f' * 64, f'f{desk.token}', desk.token[:-1]):
        assert desk.envelope('PATCH', '/admin/accounts', large, token=token)['status'] == 401
    assert desk.post(b'[' * 500_000).json['status'] == 401
    assert taken == []
    large = {'action': 'import', 'users': large['users']}
    assert desk.envelope('PATCH', '/admin/accounts', large)['status'] == 200
    assert len(taken) == 1
    # It has to stand where it belongs all the same.
    large['action'] = f'Bearer {desk.token}'
    answer = desk.envelope('PATCH', '/admin/accounts', large, token='f' * 64)
    assert answer['status'] == 401


def test_guessing_is_limited_by_address_and_the_token_always_passes(desk: Desk) -> None:
    def guess(address: str = FAR) -> int:
        return int(desk.envelope('GET', '/admin/status', token='0' * 64, address=address)['status'])

    assert [guess() for _ in range(12)] == [401] * 10 + [429] * 2
    assert guess('192.0.2.8') == 401
    assert desk.envelope('GET', '/admin/blocklist')['status'] == 200
    assert guess() == 429
    answer = desk.post(json.dumps(REQUEST))
    assert answer.json['status'] == 429
    assert answer.json['error'].startswith('unauthorized')
    assert 1 <= int(answer.headers['Retry-After']) <= 60
    desk.clock[0] += 60
    assert guess() == 401


def test_what_strangers_say_of_their_address_does_not_count(desk: Desk) -> None:
    found = [
        desk.post(json.dumps(REQUEST), headers={'X-Forwarded-For': f'198.51.100.{number}'}).json[
            'status'
        ]
        for number in range(12)
    ]
    assert found == [401] * 10 + [429] * 2


def test_what_a_trusted_proxy_says_counts(tmp_path: Path) -> None:
    desk = Desk(tmp_path, **{'web.trusted_proxies': ['192.0.2.0/24', '2001:db8::1']})

    def guess(forwarded: str) -> int:
        headers = {'X-Forwarded-For': forwarded}
        return int(desk.post(json.dumps(REQUEST), headers=headers).json['status'])

    # The client is the last that is no proxy of ours; what it has sent itself is not believed.
    found = [guess(f'203.0.113.{n}, 198.51.100.1, 192.0.2.99') for n in range(12)]
    assert found == [401] * 10 + [429] * 2
    assert guess('198.51.100.2') == 401
    assert guess('[2001:db8:1::1]:4711') == 401
    assert guess('nonsense') == 401


def test_ipv6_counts_by_network(desk: Desk) -> None:
    found = [
        desk.post(json.dumps(REQUEST), address=f'2001:db8::{number:x}').json['status']
        for number in range(11)
    ]
    assert found == [401] * 10 + [429]


def test_a_limit_of_nought_is_none(tmp_path: Path) -> None:
    desk = Desk(tmp_path, **{'limits.admin_failures_per_minute_per_ip': 0})
    assert {desk.post(json.dumps(REQUEST)).json['status'] for _ in range(20)} == {401}


# -- the token


def test_a_new_token_counts_at_once(desk: Desk) -> None:
    old = desk.token
    new = access_token.rotate(desk.services.state_dir)
    assert new != old
    assert desk.envelope('GET', '/admin/blocklist', token=old)['status'] == 401
    assert desk.envelope('GET', '/admin/blocklist', token=new)['status'] == 200


@pytest.mark.parametrize('text', ['', 'short', 'X' * 64, 'é' * 64])
def test_a_malformed_token_lets_nobody_in_and_is_replaced(desk: Desk, text: str) -> None:
    path = desk.services.state_dir / access_token.NAME
    path.write_text(text)
    assert desk.envelope('GET', '/admin/blocklist', token=text)['status'] == 401
    path.unlink()
    assert desk.envelope('GET', '/admin/blocklist', token='')['status'] == 401
    path.write_text(text)
    fresh = access_token.load(desk.services.state_dir)
    assert desk.envelope('GET', '/admin/blocklist', token=fresh)['status'] == 200
    assert path.stat().st_mode & 0o777 == 0o600
    assert access_token.load(desk.services.state_dir) == fresh
    assert [one.name for one in path.parent.glob('admin_token*')] == ['admin_token']


# -- where it is


def test_the_path_moves_at_once(desk: Desk) -> None:
    desk.relay.control.set_setting('admin.path', '/office/desk')
    assert desk.envelope('GET', '/admin/blocklist', path='/office/desk')['status'] == 200
    # Whoever has moved it asks for a reload at the old one.
    assert desk.envelope('GET', '/admin/blocklist')['status'] == 200
    desk.clock[0] += LINGER
    assert desk.post('{}').status_code == 404
    assert desk.post('{}', path='/-/admin').status_code == 404
    desk.relay.control.remove_setting('admin.path')
    assert desk.envelope('GET', '/admin/blocklist')['status'] == 200
    assert desk.envelope('GET', '/admin/blocklist', path='/api/admin/')['status'] == 200


def test_it_can_be_switched_off(desk: Desk) -> None:
    desk.relay.control.set_setting('admin.enabled', 'false')
    assert desk.post('{}').status_code == 404
    assert desk.post('{}', path='/__proxy', address='127.0.0.1').status_code == 404


def test_plain_http_is_for_this_host(desk: Desk) -> None:
    def status(**kinds: Any) -> int:
        return int(desk.envelope('GET', '/admin/blocklist', protocol='http', **kinds)['status'])

    assert status() == 403
    assert status(headers={'X-Forwarded-Proto': 'https'}) == 403
    assert status(headers={'X-Forwarded-For': '127.0.0.1'}) == 403
    assert status(address='127.0.0.1') == status(address='::1') == 200
    assert status(address='::ffff:127.0.0.1') == 200
    desk.relay.control.set_setting('web.trusted_proxies', FAR)
    assert status(headers={'X-Forwarded-Proto': 'https', 'X-Forwarded-For': '198.51.100.1'}) == 200
    assert status(headers={'X-Forwarded-For': '198.51.100.1'}) == 403
    desk.relay.control.set_setting('admin.require_tls', 'false')
    assert status() == 200


# -- other origins


def test_preflight(desk: Desk) -> None:
    result = desk.client.simulate_options('/api/admin', headers={'Origin': PANEL})
    assert result.status_code == 204
    assert result.headers['Access-Control-Allow-Origin'] == PANEL
    assert result.headers['Access-Control-Allow-Methods'] == 'POST, OPTIONS'
    assert result.headers['Access-Control-Allow-Headers'] == 'Authorization, Content-Type'
    assert result.headers['Access-Control-Max-Age'] == '86400'
    assert 'Origin' in result.headers['Vary']
    for headers in ({}, {'Origin': 'https://evil.example'}, {'Origin': f'{PANEL}.evil.example'}):
        result = desk.client.simulate_options('/api/admin', headers=headers)
        assert result.status_code == 403
        assert 'Access-Control-Allow-Origin' not in result.headers


def test_origins_are_a_setting(desk: Desk) -> None:
    assert desk.post('{}', headers={'Origin': PANEL}).headers['Access-Control-Allow-Origin']
    desk.relay.control.set_setting('admin.cors_origins', 'https://Own.example:8443, http://x')
    headers = {'Origin': 'https://own.example:8443'}
    assert desk.client.simulate_options('/api/admin', headers=headers).status_code == 204
    assert 'Access-Control-Allow-Origin' not in desk.post('{}', headers={'Origin': PANEL}).headers
    desk.relay.control.set_setting('admin.cors_origins', '*')
    assert desk.client.simulate_options('/api/admin', headers={'Origin': PANEL}).status_code == 204


# -- the panel on the loopback interface


def _proxied(desk: Desk, url: Any, **kinds: Any) -> Any:
    payload = {'resource': '/admin/blocklist', 'headers': {'Authorization': f'Bearer {desk.token}'}}
    request = json.dumps({'targetUrl': url, 'payload': payload})
    return desk.post(request, path='/__proxy', **kinds)


def test_the_proxy_is_for_this_api_on_this_host(desk: Desk) -> None:
    url = 'https://relay.example/api/admin'
    assert _proxied(desk, url).status_code == 404
    local = {'address': '127.0.0.1', 'protocol': 'http'}
    for good in (url, 'http://127.0.0.1:8080/api/admin/', 'https://localhost/api/admin'):
        assert _proxied(desk, good, **local).json['body'] == {'blocked': [], 'total': 0}
    for bad, status in (
        ('https://evil.example/api/admin', 403),
        ('https://relay.example/other', 403),
        ('file:///api/admin', 403),
        ('https://[::1/api/admin', 400),
        (None, 400),
    ):
        assert _proxied(desk, bad, **local).json['status'] == status
    answer = desk.post('{"targetUrl": "http://127.0.0.1/api/admin"}', path='/__proxy', **local)
    assert answer.json['status'] == 400


# -- trouble


def test_refusals_have_their_status(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ('invalid', 'forbidden', 'missing', 'exists', 'busy', 'failed', 'unavailable')
    assert set(answers.STATUS) == set(words)
    for word in words:
        refused = Refused(word, 'a clear sentence')  # type: ignore[arg-type]
        desk.relay.answers['restart'] = refused
        text = desk.ask('POST', '/admin/restart', status=answers.STATUS[refused.word])
        assert text == 'a clear sentence'


def test_breakage_tells_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError('the secret of bob@relay.example')

    monkeypatch.setattr(desk.relay, 'ask_master', broken)
    with caplog.at_level(logging.DEBUG):
        assert desk.ask('POST', '/admin/restart', status=500) == 'internal error'
    assert 'bob' not in caplog.text


def test_a_full_disk_is_said_and_is_no_fault(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trouble = sqlite3.OperationalError('database or disk is full')
    trouble.sqlite_errorcode = sqlite3.SQLITE_FULL

    def full(*_: Any, **__: Any) -> None:
        raise trouble

    monkeypatch.setattr(desk.relay.control, 'block', full)
    with caplog.at_level(logging.DEBUG):
        answer = desk.ask('POST', '/admin/blocklist', {'username': 'eve'}, status=500)
    assert answer == 'nothing is stored: database or disk is full'
    assert 'Traceback' not in caplog.text
    trouble = sqlite3.OperationalError('near "x": syntax error')
    assert desk.ask('POST', '/admin/blocklist', {'username': 'eve'}, status=500) == 'internal error'


@pytest.mark.parametrize('path', ['/-/admin', '//-/admin', '///-/admin', '/-/admin/', '//-/admin/'])
def test_it_is_reached_by_its_path_only(desk: Desk, path: str) -> None:
    """The router takes slashes before a path for one; what is mounted must not."""
    assert desk.post('{"resource": "/admin/status"}', path=path).status_code == 404


@pytest.mark.parametrize('path', ['/metrics', '//metrics', '///metrics', '/metrics/', '//metrics/'])
def test_figures_are_told_at_their_own_listener_only(desk: Desk, path: str) -> None:
    answer = desk.client.simulate_get(path, remote_addr='127.0.0.1')
    assert answer.status_code == 404
    assert 'madmail_' not in answer.text
