"""The admin API of a running relay: what is changed there is seen everywhere at once."""

from __future__ import annotations

import contextlib
import http.client
import imaplib
import json
import smtplib
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from madmail.web.admin import endpoint
from tests.system import mail
from tests.system.relay import client_tls, wait_for
from tests.web.admin.office import Office
from tests.web.conftest import PEER, WebRelay, answer


def _until(found: Callable[[], Any], wanted: Any = True) -> None:
    """Wait for what happens in another process."""
    end = time.monotonic() + 20
    while (seen := found()) != wanted:
        assert time.monotonic() < end, f'{seen!r} instead of {wanted!r}'
        time.sleep(0.05)


def _said(stream: socket.socket, wanted: bytes) -> bytes:
    """What comes until `wanted` has come."""
    stream.settimeout(20)
    found = b''
    while wanted not in found:
        data = stream.recv(65536)
        assert data, found
        found += data
    return found


def _alive(client: imaplib.IMAP4) -> bool:
    try:
        return client.noop()[0] == 'OK'
    except (imaplib.IMAP4.error, OSError):
        return False


def test_the_token_is_there_from_the_start(office: Office) -> None:
    path = office.relay.state_dir / 'admin_token'
    assert path.stat().st_mode & 0o777 == 0o600
    assert office.relay.cli('admin-token', '--raw').stdout == office.token
    shown = json.loads(office.relay.cli('--json', 'admin-token').stdout)['data']
    assert shown == {
        'token': office.token,
        'api_url': f'https://chat.example:{office.relay.web["https"]}/api/admin',
    }


@pytest.mark.parametrize('scheme', ['http', 'https'])
def test_it_is_served_on_both(office: Office, scheme: str) -> None:
    assert office.envelope('GET', '/admin/status', scheme=scheme)['status'] == 200


def test_status_counts_without_names(office: Office) -> None:
    relay = office.relay
    before = office.ask('GET', '/admin/status')
    sender, recipient = relay.account('ann'), relay.account('ben')
    with relay.smtp(*sender) as smtp:
        message = mail.encrypted(sender[0], recipient[0])
        smtp.sendmail(sender[0], [recipient[0]], message)
    body = mail.encrypted(PEER, recipient[0])
    assert relay.post(body, recipient[0])[0] == 200
    with relay.imap(*recipient) as one, relay.imap(*recipient) as two:
        assert one.noop()[0] == two.noop()[0] == 'OK'
        after = office.ask('GET', '/admin/status')
        assert after['imap'] == {'connections': 2, 'unique_ips': 1}
        told = json.dumps([after, relay.status()])
    assert after['users']['registered'] == before['users']['registered'] + 2
    assert after['sent_messages'] == before['sent_messages'] + 1
    assert after['received_messages'] == before['received_messages'] + 1
    assert after['outbound_messages'] == 0
    assert sender[0] not in told
    assert recipient[0] not in told
    _until(lambda: office.ask('GET', '/admin/status')['imap'], {'connections': 0, 'unique_ips': 0})


def test_addresses_on_imap_are_counted_once_over_all_gates(office: Office) -> None:
    address, password = office.relay.account()
    login = f'a LOGIN {address} {password}\r\n'.encode()
    streams = []
    for number in (2, 3, 3, 2, 3, 2, 3):
        plain = socket.create_connection(
            ('127.0.0.1', office.relay.ports['imaps']), 20, (f'127.0.0.{number}', 0)
        )
        stream = client_tls().wrap_socket(plain)
        streams.append(stream)
        _said(stream, b'* OK')
        stream.sendall(login)
        _said(stream, b'a OK')
    found = office.ask('GET', '/admin/status')['imap']
    assert found == {'connections': 7, 'unique_ips': 2}
    for stream in streams:
        stream.close()


def test_an_account_made_here_logs_in_and_ends_here(office: Office) -> None:
    made = office.ask('POST', '/admin/accounts', status=201)
    with office.relay.imap(made['email'], made['password']) as inbox:

        def logged_in() -> bool:
            (entry,) = office.ask('GET', '/admin/accounts', {'q': made['email']})['accounts']
            assert entry['username'] == made['email']
            return bool(entry['last_login_at'])

        _until(logged_in, True)  # no login waits for it
        listed = json.loads(office.relay.cli('--json', 'accounts', 'list').stdout)['data']
        assert made['email'] in [one['username'] for one in listed['accounts']]
        office.ask('DELETE', '/admin/accounts', {'username': made['email']})
        _until(lambda: _alive(inbox), False)
    with pytest.raises(imaplib.IMAP4.error):
        office.relay.imap(made['email'], made['password'])


def test_blocking_ends_sessions_and_the_command_line_sees_it(office: Office) -> None:
    relay = office.relay
    address, password = relay.account()
    office.ask('POST', '/admin/blocklist', {'username': address, 'reason': 'abuse'})
    with pytest.raises(imaplib.IMAP4.error):
        relay.imap(address, password)
    listed = json.loads(relay.cli('--json', 'blocklist', 'list').stdout)['data']['entries']
    assert (address, 'abuse') in [(one['username'], one['reason']) for one in listed]
    relay.cli('blocklist', 'remove', '-y', address)
    blocked = office.ask('GET', '/admin/blocklist')['blocked']
    assert address not in [one['username'] for one in blocked]
    relay.imap(address, password).logout()


def test_the_message_size_holds_for_the_next_message(office: Office) -> None:
    relay = office.relay
    address, password = relay.account()

    def offered() -> str | None:
        with relay.smtp(address, password) as smtp:
            smtp.ehlo()
            return smtp.esmtp_features.get('size')

    with relay.smtp(address, password) as smtp:
        assert office.ask('PUT', '/admin/message-size', {'size': '100K'})['effective'] == '100K'
        _until(offered, str(100 * 1024))
        big = mail.encrypted(address, address, size=200_000)
        with pytest.raises((smtplib.SMTPSenderRefused, smtplib.SMTPDataError)) as refused:
            smtp.sendmail(address, [address], big)
        assert refused.value.smtp_code == 552
    assert office.ask('DELETE', '/admin/message-size')['effective'] == '30M'
    _until(offered, str(30 * 1024**2))
    with relay.smtp(address, password) as smtp:
        smtp.sendmail(address, [address], big)


def test_federation_policy_and_rules_hold_for_the_next_delivery(office: Office) -> None:
    relay = office.relay
    address, _ = relay.account()
    body = mail.encrypted(PEER, address)

    def status() -> int:
        return relay.post(body, address)[0]

    assert status() == 200
    office.ask('POST', '/admin/settings/federation', {'policy': 'REJECT'})
    assert status() == 403
    office.ask('POST', '/admin/federation/rules', {'domain': '192.0.2.9'})
    assert status() == 200
    shown = json.loads(relay.cli('--json', 'federation', 'list').stdout)['data']
    assert shown == {
        'policy': 'REJECT',
        'rules': [{'domain': '[192.0.2.9]', 'action': 'allow'}],
    }
    relay.cli('federation', 'policy', 'accept')
    assert status() == 403
    assert office.ask('GET', '/admin/settings/federation')['policy'] == 'ACCEPT'
    office.ask('DELETE', '/admin/federation/rules', {'domain': '192.0.2.9'})
    assert status() == 200
    office.ask('PUT', '/admin/federation-size', {'size': '64K'})
    assert relay.post(mail.encrypted(PEER, address, size=200_000), address)[0] == 413
    office.ask('DELETE', '/admin/federation-size')
    assert status() == 200


def test_the_path_moves(office: Office) -> None:
    control = office.relay.state_dir / 'control.db'
    assert control.exists()
    from madmail.store.control import Control

    rows = Control(office.relay.state_dir)
    rows.set_setting('admin.path', '/office/desk')
    try:
        office.path = '/office/desk'
        assert office.ask('GET', '/admin/status')
        shown = json.loads(office.relay.cli('--json', 'admin-token').stdout)['data']
        assert shown['api_url'].endswith('/office/desk')
    finally:
        office.path = '/api/admin'
        rows.remove_setting('admin.path')
        rows.close()
    assert office.ask('GET', '/admin/status')


def test_the_right_token_passes_while_somebody_guesses(office: Office) -> None:
    ended = threading.Event()
    seen: set[int] = set()

    def guess() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                forged = {'X-Forwarded-For': '198.51.100.1'}
                found = office.envelope('GET', '/admin/status', token='0' * 64, headers=forged)
                seen.add(found['status'])

    guessers = [threading.Thread(target=guess) for _ in range(4)]
    for guesser in guessers:
        guesser.start()
    try:
        _until(lambda: 429 in seen)
        assert {office.envelope('GET', '/admin/status')['status'] for _ in range(10)} == {200}
    finally:
        ended.set()
        for guesser in guessers:
            guesser.join()
    assert seen == {401, 429}


def test_rotation_counts_at_once(office: Office) -> None:
    old = office.token
    found = json.loads(office.relay.cli('--json', 'admin-token', 'rotate', '-y').stdout)['data']
    office.token = found['token']
    assert office.envelope('GET', '/admin/status')['status'] == 200
    assert office.envelope('GET', '/admin/status', token=old)['status'] in (401, 429)


def test_a_declared_giant_is_refused_before_it_is_sent(office: Office) -> None:
    with office.relay.raw('https') as stream:
        head = f'POST /api/admin HTTP/1.1\r\nHost: x\r\nContent-Length: {10**9}\r\n\r\n'
        stream.sendall(head.encode())
        found = _said(stream, b'"status":413')
    assert found.startswith(b'HTTP/1.1 200')


def test_a_giant_in_chunks_is_refused(office: Office) -> None:
    with office.relay.raw('http') as stream:
        stream.sendall(b'POST /api/admin HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n')
        piece = b' ' * 65536
        with contextlib.suppress(OSError):
            for _ in range(endpoint.SIZE_LIMIT // len(piece) + 4):
                stream.sendall(b'%x\r\n%s\r\n' % (len(piece), piece))
        assert _said(stream, b'"status":413')


def test_who_stops_or_drips_is_cut_and_holds_nobody_up(office: Office) -> None:
    head = b'POST /api/admin HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{'
    silent = office.relay.raw('http')
    drips = [office.relay.raw(scheme) for scheme in ('http', 'https')]
    for stream in (silent, *drips):
        stream.sendall(head)
    end = time.monotonic() + 60
    pending = set(drips)
    while pending:
        assert time.monotonic() < end
        time.sleep(0.5)
        for stream in list(pending):
            try:
                stream.sendall(b' ')
                stream.settimeout(0.01)
                if (found := stream.recv(65536)) == b'' or b'"status":408' in found:
                    pending.discard(stream)
            except TimeoutError:
                continue
            except OSError:
                pending.discard(stream)
        assert office.envelope('GET', '/admin/blocklist')['status'] == 200
    assert _said(silent, b'"status":408')
    assert answer(silent) == b''
    for stream in (silent, *drips):
        stream.close()


def test_status_of_the_command_line(office: Office) -> None:
    relay = office.relay
    address, password = relay.account()
    with relay.imap(address, password):
        data = json.loads(relay.cli('--json', 'status', '-d').stdout)['data']
    assert data['services'] == [{'name': 'IMAP', 'connections': 1, 'unique_ips': 1}]
    assert {one['port'] for one in data['ports']} == {*relay.ports.values(), *relay.web.values()}
    assert {one['service'] for one in data['ports']} == {'smtp', 'submission', 'imap', 'http'}
    assert data['server_tracker']['unique_conn_ips'] == 1
    assert data['messages']['received'] == office.ask('GET', '/admin/status')['received_messages']
    assert 'messages received' in relay.cli('status', '-d').stdout


def test_reload_and_restart(tmp_path: Path) -> None:
    with WebRelay(tmp_path) as relay:
        office = Office(relay)
        address, password = relay.account()
        generation = relay.status()['data']['generation']
        with relay.imap(address, password) as inbox:
            answer = office.ask('POST', '/admin/reload', {'scope': 'full', 'wait': True})
            assert answer['status'] == 'reloaded'
            assert inbox.noop()[0] == 'OK'  # nobody is disconnected
        assert relay.status()['data']['generation'] == generation + 1
        assert office.ask('POST', '/admin/reload', {})['status'] == 'reloading'
        _until(lambda: relay.status()['data']['generation'], generation + 2)
        before = relay.status()['data']
        office.ask('POST', '/admin/restart')

        def began() -> int:
            with contextlib.suppress(subprocess.CalledProcessError):
                return int(relay.status()['data']['generation'])
            return 0

        _until(lambda: 0 < began() < before['generation'])
        relay.wait_ready()
        after = relay.status()['data']
        assert after['pid'] == before['pid']
        assert after['boot_time'] >= before['boot_time']
        message = mail.encrypted(PEER, address)
        assert relay.post(message, address)[0] == 200
        with relay.imap(address, password) as inbox:
            wait_for(inbox, 1)
        assert office.ask('GET', '/admin/status')['received_messages'] == 1


def test_counts_of_messages_outlive_the_relay(tmp_path: Path) -> None:
    with WebRelay(tmp_path) as relay:
        address, _ = relay.account()
        assert relay.post(mail.encrypted(PEER, address), address)[0] == 200
    with relay.start() as relay:
        assert Office(relay).ask('GET', '/admin/status')['received_messages'] == 1


def test_a_taken_port_refuses_the_reload_and_nothing_changes(tmp_path: Path) -> None:
    with WebRelay(tmp_path) as relay, socket.socket() as taken:
        office = Office(relay)
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        relay.write_config(listen__smtp=[f'127.0.0.1:{taken.getsockname()[1]}'])
        text = office.ask('POST', '/admin/reload', {'wait': True}, status=500)
        assert 'listen.smtp' in text
        assert office.ask('GET', '/admin/status')
