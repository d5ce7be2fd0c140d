"""Ports and reach through the admin API of a running relay, which answers while it moves."""

from __future__ import annotations

import imaplib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.relay import client_tls, free_ports
from tests.web.admin.office import Office
from tests.web.conftest import WebRelay


@pytest.fixture(scope='module')
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with WebRelay(tmp_path_factory.mktemp('relay')) as relay:
        yield Office(relay)


def refused(port: int, host: str = '127.0.0.1') -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def listens(port: int) -> bool:
    with imaplib.IMAP4_SSL('127.0.0.1', port, ssl_context=client_tls(), timeout=20) as client:
        return client.state == 'NONAUTH'


def test_a_mail_port_moves_and_sessions_stay(office: Office) -> None:
    relay = office.relay
    session = relay.imap(*relay.account())
    old = relay.ports['imaps']
    (port,) = free_ports(1)
    resource = '/admin/settings/imap_tls_port'
    answer = office.ask('POST', resource, {'action': 'set', 'value': port})
    assert answer == {
        'key': '__IMAP_TLS_PORT__',
        'value': str(port),
        'is_set': True,
        'restart_required': False,
    }
    assert listens(port)
    assert refused(old)
    assert office.ask('GET', resource) == answer  # by a worker of the new generation
    assert office.ask('GET', '/admin/settings')['imap_tls_port'] == answer
    assert session.noop()[0] == 'OK'
    answer = office.ask('POST', resource, {'action': 'reset'})
    assert (answer['value'], answer['is_set']) == ('', False)
    assert listens(old)
    assert refused(port)
    assert session.noop()[0] == 'OK'
    session.logout()


def test_a_taken_port_is_refused_and_the_old_one_kept(office: Office) -> None:
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        body = {'action': 'set', 'value': taken.getsockname()[1]}
        text = office.ask('POST', '/admin/settings/imap_tls_port', body, status=500)
    assert 'taken' in text
    assert 'the old value is kept' in text
    assert listens(office.relay.ports['imaps'])
    assert office.ask('GET', '/admin/settings/imap_tls_port')['is_set'] is False


def test_the_port_of_the_api_itself_moves(office: Office) -> None:
    """Also while the same connection is kept."""
    relay = office.relay
    old = relay.web['https']
    (port,) = free_ports(1)
    client = relay.client()

    def on_it(body: dict[str, object]) -> int:
        client.request(
            'POST',
            office.path,
            json.dumps(
                {
                    'method': 'POST',
                    'resource': '/admin/settings/https_port',
                    'headers': {'Authorization': f'Bearer {office.token}'},
                    'body': body,
                }
            ),
        )
        status: int = json.loads(client.getresponse().read())['status']
        return status

    assert on_it({'action': 'set', 'value': str(port)}) == 200
    client.close()
    assert refused(old)
    relay.web['https'] = port
    try:
        assert office.ask('GET', '/admin/settings')['https_port']['value'] == str(port)
    finally:
        office.ask('POST', '/admin/settings/https_port', {'action': 'reset'})
        relay.web['https'] = old
    assert office.ask('GET', '/admin/settings/https_port')['is_set'] is False


def test_http_is_switched_off_and_on(office: Office) -> None:
    resource = '/admin/services/http'
    assert office.ask('POST', resource, {'action': 'disable'}) == {'status': 'disabled'}
    assert refused(office.relay.web['http'])
    assert 'nothing else' in office.ask(
        'POST', '/admin/services/https', {'action': 'disable'}, status=403
    )
    assert office.ask('POST', resource, {'action': 'enable'}) == {'status': 'enabled'}
    client = office.relay.client('http')
    client.request('GET', '/-/nothing')
    assert client.getresponse().status in (301, 308, 404)
    client.close()


def test_local_only_closes_other_addresses(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    relay = WebRelay(tmp_path, {'listen.imap': [f'0.0.0.0:{port}']})
    relay.ports['imap'] = port
    with relay:
        office = Office(relay)
        resource = '/admin/settings/imap_local_only'
        assert office.ask('GET', resource)['value'] == 'false'
        assert not refused(port, '127.0.0.2')
        answer = office.ask('POST', resource, {'action': 'set', 'value': True})
        assert (answer['value'], answer['is_set']) == ('true', True)
        assert refused(port, '127.0.0.2')
        assert not refused(port)
        assert office.ask('GET', '/admin/settings')['imap_access'] == 'local'
        office.ask('POST', resource, {'action': 'reset'})
        assert not refused(port, '127.0.0.2')


def test_log_and_host_name_change_at_once(office: Office, tmp_path: Path) -> None:
    relay = office.relay
    body = {'action': 'set', 'value': 'mx.chat.example'}
    assert office.ask('POST', '/admin/settings/smtp_hostname', body)['value'] == 'mx.chat.example'

    def greeting() -> bytes:
        with socket.create_connection(('127.0.0.1', relay.ports['smtp']), 20) as stream:
            return stream.recv(1000)

    deadline = time.monotonic() + 20
    while greeting() != b'220 mx.chat.example ESMTP\r\n':
        assert time.monotonic() < deadline
        time.sleep(0.02)
    office.ask('POST', '/admin/settings/smtp_hostname', {'action': 'reset'})
    assert office.ask('POST', '/admin/services/log', {'action': 'enable'}) == {'status': 'enabled'}
    deadline = time.monotonic() + 20
    while b'log begins' not in relay.output.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert office.ask('POST', '/admin/services/log', {'action': 'disable'}) == {
        'status': 'disabled'
    }
