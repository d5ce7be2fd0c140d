"""Settings changed while a relay runs: seen everywhere, and nobody is cut off."""

from __future__ import annotations

import json
import smtplib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import mail
from tests.system.relay import Relay, free_ports, running, wait_for


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with running(tmp_path) as relay:
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


def test_a_change_that_nobody_told_of_is_seen(relay: Relay) -> None:
    """A lost event on the bus delays a change by a few heartbeats."""
    from madmail.store.control import Control

    control = Control(relay.state_dir)
    control.set_setting('limits.max_message_size', '100K')
    control.close()

    def announced() -> bool:
        with smtplib.SMTP('127.0.0.1', relay.ports['smtp']) as client:
            client.ehlo()
            return client.esmtp_features['size'] == str(100 * 1024)

    within(15, announced)


def test_a_port_moves_and_sessions_stay(relay: Relay) -> None:
    bob = relay.account('bob')
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


def test_a_stored_port_that_is_taken_does_not_keep_the_relay_down(relay: Relay) -> None:
    (port,) = free_ports(1)
    data(relay, 'port', 'imap', 'set', str(port))
    relay.stop()
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', port))
        taken.listen()
        relay.start()  # on the port of the file
        assert 'taken' in data(relay, 'settings', 'list')['unusable']['listen.imap']
        relay.account()


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


def test_the_log_goes_on_and_off(relay: Relay, tmp_path: Path) -> None:
    path = tmp_path / 'relay.log'
    assert data(relay, 'log', 'status') == {'enabled': False, 'target': 'off'}
    data(relay, 'log', 'on', str(path))
    address, _ = relay.account('somebody')
    within(10, lambda: path.exists() and path.read_text())
    assert 'somebody' not in path.read_text()
    assert address not in path.read_text()
    data(relay, 'log', 'off')
    size = path.stat().st_size
    relay.account()
    time.sleep(0.3)
    assert path.stat().st_size == size


def test_what_cannot_be(relay: Relay) -> None:
    assert 'configuration file only' in refused(relay, 'settings', 'set', 'domain', 'x.example')
    assert 'did you mean' in refused(relay, 'settings', 'set', 'limits.qota', '5')
    assert 'expected' in refused(relay, 'settings', 'set', 'limits.quota', 'much')
    assert 'own accounts only' in refused(relay, 'openrelay', 'enable')
    assert data(relay, 'openrelay', 'status')['allowed'] is False
    assert data(relay, 'submission-access', 'status')['mode'] == 'local'


def test_on_a_stopped_relay_it_counts_from_the_next_start_on(relay: Relay) -> None:
    relay.stop()
    assert 'next start' in relay.cli('settings', 'set', 'limits.quota', '1G').stdout
    assert data(relay, 'settings', 'list', '--changed')['settings'][-1]['name']
    relay.start()
    assert data(relay, 'settings', 'get', 'limits.quota')['value'] == '1G'
