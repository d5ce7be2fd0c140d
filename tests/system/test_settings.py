"""Settings changed while a relay runs: seen everywhere, and nobody is cut off."""

from __future__ import annotations

import json
import smtplib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from madmail.store.control import Control
from tests.system import mail
from tests.system.relay import Relay, free_ports, running, wait_for
from tests.web.conftest import PEER, WebRelay


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Shared; who changes a setting changes it back."""
    with running(tmp_path_factory.mktemp('relay')) as relay:
        yield relay


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Relay]:
    with running(tmp_path / 'own') as relay:
        yield relay


def data(relay: Relay, *words: str) -> Any:
    return json.loads(relay.cli('--json', *words).stdout)['data']


def refused(relay: Relay, *words: str) -> str:
    answer = relay.cli(*words, check=False)
    assert answer.returncode == 1, answer.stdout
    assert answer.stderr.startswith('Error: ')
    return answer.stderr


def within(seconds: float, condition: Any) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_live_setting_reaches_gate_and_shard(relay: Relay) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    idle = relay.imap(*bob)
    idle.select()
    session = relay.smtp(*alice)
    assert data(relay, 'settings', 'get', 'limits.max_message_size')['source'] == 'default'
    changed = data(relay, 'settings', 'set', 'limits.max_message_size', '100K')
    assert (changed['value'], changed['source']) == ('100K', 'live')

    def announced() -> bool:
        with smtplib.SMTP('127.0.0.1', relay.ports['smtp']) as client:
            client.ehlo()
            return client.esmtp_features['size'] == str(100 * 1024)

    within(5, announced)
    text = mail.encrypted(alice[0], bob[0], size=200_000)
    with pytest.raises(smtplib.SMTPException):
        session.sendmail(alice[0], [bob[0]], text)
    session = relay.smtp(*alice)
    session.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0], bob[0], size=20_000))
    wait_for(idle, 1)
    data(relay, 'settings', 'reset', 'limits.max_message_size')
    within(5, lambda: not announced())
    assert data(relay, 'settings', 'get', 'limits.max_message_size')['source'] == 'default'
    assert idle.noop()[0] == 'OK'
    idle.logout()
    session.quit()


class Sink:
    """Another mail server, which keeps what it is greeted with."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            with stream, stream.makefile('rb') as lines:
                stream.sendall(b'220 other.example\r\n')
                for line in lines:
                    verb, _, name = line.strip().partition(b' ')
                    if verb.upper() == b'EHLO':
                        self.names.append(name)
                    if verb.upper() == b'MAIL':  # no mail, and no connection to be kept
                        stream.sendall(b'550 5.7.1 no\r\n')
                        break
                    stream.sendall(b'250 other.example\r\n')

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()


def test_one_change_is_seen_by_gate_shard_courier_and_web(tmp_path: Path) -> None:
    with WebRelay(tmp_path, {'queue.first_retry': '1s'}) as relay, Sink() as sink:
        relay.cli('endpoint-cache', 'set', 'other.example', f'smtp://127.0.0.1:{sink.port}')
        alice, bob = relay.account('alice'), relay.account('bob')
        idle = relay.imap(*bob)
        idle.select()
        idle.send(b'x1 IDLE\r\n')
        assert idle.readline().startswith(b'+')
        session = relay.smtp(*alice)
        children = {child['pid'] for child in data(relay, 'status')['children']}

        def greeting() -> bytes:
            with socket.create_connection(('127.0.0.1', relay.ports['smtp']), 20) as stream:
                return stream.recv(1000)

        def greeted(name: bytes) -> bool:
            text = mail.encrypted(alice[0], 'x@other.example')
            session.sendmail(alice[0], ['x@other.example'], text)
            within(20, lambda: sink.names)
            return sink.names.pop() == name

        def delivered() -> int:
            text = mail.encrypted(PEER, bob[0], size=150_000)
            try:
                return relay.post(text, bob[0])[0]
            except ConnectionError:  # refused before all of it was read
                return 0

        assert greeted(b'chat.example')
        assert delivered() == 200
        within(10, lambda: idle.readline().endswith(b'EXISTS\r\n'))
        data(relay, 'settings', 'set', 'relay.hostname', 'mx.chat.example')
        data(relay, 'settings', 'set', 'limits.max_message_size', '100K')
        within(5, lambda: greeting() == b'220 mx.chat.example ESMTP\r\n')  # gate
        within(5, lambda: session.ehlo()[1].startswith(b'mx.chat.example\n'))  # shard
        assert session.esmtp_features['size'] == str(100 * 1024)
        within(20, lambda: greeted(b'mx.chat.example'))  # courier
        within(5, lambda: delivered() != 200)  # web
        idle.send(b'DONE\r\n')
        within(5, lambda: idle.readline().startswith(b'x1 OK'))
        session.quit()
        assert {child['pid'] for child in data(relay, 'status')['children']} == children


def test_a_change_that_nobody_told_of_is_seen(relay: Relay) -> None:
    """A lost event on the bus delays a change by a few heartbeats."""
    control = Control(relay.state_dir)
    control.set_setting('limits.max_message_size', '100K')
    control.close()

    def announced() -> bool:
        with smtplib.SMTP('127.0.0.1', relay.ports['smtp']) as client:
            client.ehlo()
            return client.esmtp_features['size'] == str(100 * 1024)

    within(15, announced)
    data(relay, 'settings', 'reset', 'limits.max_message_size')


def test_a_port_moves_and_sessions_stay(relay: Relay) -> None:
    bob = relay.account()
    session = relay.imap(*bob)
    old = relay.ports['imaps']
    (relay.ports['imaps'],) = free_ports(1)
    moved = data(relay, 'port', 'imap-tls', 'set', str(relay.ports['imaps']))
    assert moved['port'] == str(relay.ports['imaps'])
    relay.imap(*bob).logout()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(('127.0.0.1', old), 5)
    assert session.noop()[0] == 'OK'
    session.logout()
    relay.stop()
    relay.start()  # stored for good
    relay.imap(*bob).logout()
    assert data(relay, 'port', 'imap-tls', 'reset')['port'] == old
    relay.ports['imaps'] = old


def test_a_taken_port_is_refused_and_the_old_one_kept(relay: Relay) -> None:
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        reason = refused(relay, 'port', 'imap-tls', 'set', str(port))
        assert 'the old value is kept' in reason
        assert 'taken' in reason
        assert data(relay, 'port', 'imap-tls', 'status')['port'] == relay.ports['imaps']
        relay.account()
    assert 'in listen.imap' in refused(relay, 'port', 'imap-tls', 'set', str(relay.ports['imap']))


def test_a_stored_port_that_is_taken_does_not_keep_the_relay_down(own: Relay) -> None:
    (port,) = free_ports(1)
    data(own, 'port', 'imap', 'set', str(port))
    own.stop()
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', port))
        taken.listen()
        own.start()  # on the port of the file
        assert 'taken' in data(own, 'settings', 'list')['unusable']['listen.imap']
        assert 'WARNING: stored listen.imap is not in force' in own.cli('status').stdout
        own.account()


def test_loopback_only_closes_the_other_addresses(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    relay = Relay(tmp_path, {'listen.imap': [f'0.0.0.0:{port}']})
    relay.ports['imap'] = port
    with relay:
        socket.create_connection(('127.0.0.2', port), 5).close()
        assert data(relay, 'port', 'imap', 'status')['mode'] == 'public'
        assert data(relay, 'port', 'imap', 'local')['mode'] == 'local'
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(('127.0.0.2', port), 5)
        socket.create_connection(('127.0.0.1', port), 5).close()
        assert data(relay, 'port', 'imap', 'public')['mode'] == 'public'
        socket.create_connection(('127.0.0.2', port), 5).close()


def test_a_listener_is_switched_off_and_on(relay: Relay) -> None:
    assert data(relay, 'port', 'smtp', 'disable')['enabled'] is False
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(('127.0.0.1', relay.ports['smtp']), 5)
    assert data(relay, 'port', 'smtp', 'enable')['port'] == relay.ports['smtp']
    relay.connect('smtp').close()


def test_listen_http_is_switched_off_and_on_by_a_row_and_reload(tmp_path: Path) -> None:
    with WebRelay(tmp_path) as relay:
        session = relay.imap(*relay.account())
        data(relay, 'settings', 'set', 'listen.http', '')
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(('127.0.0.1', relay.web['http']), 5)
        relay.client('https').connect()
        data(relay, 'settings', 'set', 'listen.https', '')
        assert 'web' not in {
            c['kind'] for c in data(relay, 'status')['children'] if c['state'] == 'serving'
        }
        data(relay, 'settings', 'reset', 'listen.https')
        data(relay, 'port', 'http', 'enable')
        relay.client('http').connect()
        assert session.noop()[0] == 'OK'
        session.logout()


def test_the_log_goes_on_and_off(relay: Relay, tmp_path: Path) -> None:
    path = tmp_path / 'relay.log'
    assert data(relay, 'log', 'status') == {'enabled': False, 'target': 'off'}
    data(relay, 'log', 'on', str(path))
    address, _ = relay.account('somebody')
    within(10, lambda: path.exists() and path.read_text())
    assert 'somebody' not in path.read_text()
    assert address not in path.read_text()
    reason = refused(relay, 'log', 'on', str(tmp_path / 'nowhere' / 'relay.log'))
    assert 'the old value is kept' in reason
    assert data(relay, 'log', 'status')['target'] == str(path)
    data(relay, 'log', 'off')
    size = path.stat().st_size
    relay.account()
    relay.cli('reload')
    assert path.stat().st_size == size


def test_what_cannot_be(relay: Relay) -> None:
    assert 'configuration file only' in refused(relay, 'settings', 'set', 'domain', 'x.example')
    assert 'did you mean' in refused(relay, 'settings', 'set', 'limits.qota', '5')
    assert 'expected' in refused(relay, 'settings', 'set', 'limits.quota', 'much')
    assert 'own accounts only' in refused(relay, 'openrelay', 'enable')
    assert data(relay, 'openrelay', 'status')['allowed'] is False
    assert data(relay, 'submission-access', 'status')['mode'] == 'local'


def test_a_row_of_another_version_is_told_and_can_go(relay: Relay) -> None:
    control = Control(relay.state_dir)
    control.set_setting('limits.of_another_version', '7')
    control.close()
    wanted = 'unknown setting'
    within(15, lambda: wanted in str(data(relay, 'settings', 'list')['unusable']))
    assert data(relay, 'settings', 'reset', 'limits.of_another_version')['source'] == 'none'
    assert data(relay, 'settings', 'list')['unusable'] == {}
    assert 'unknown' in refused(relay, 'settings', 'reset', 'limits.of_another_version')


def test_on_a_stopped_relay_it_counts_from_the_next_start_on(own: Relay) -> None:
    own.stop()
    assert 'next start' in own.cli('settings', 'set', 'limits.quota', '1G').stdout
    assert data(own, 'settings', 'list', '--changed')['settings'][-1]['name']
    own.start()
    assert data(own, 'settings', 'get', 'limits.quota')['value'] == '1G'
