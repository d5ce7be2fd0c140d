"""The proxy of a running relay, with the clients of others and with our own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from madmail.realtime.shadowsocks.destination import Destination
from madmail.realtime.shadowsocks.handshake import Call
from madmail.realtime.shadowsocks.methods import METHODS
from madmail.store.control import Control
from tests.system import mail, socks
from tests.system.relay import Relay, client_tls, fetch_all, free_ports

PATIENCE = 20.0  # seconds


class ProxyRelay(Relay):
    """With a web server and the proxy."""

    def __init__(self, directory: Path, options: dict[str, Any] | None = None) -> None:
        self.http, self.at, self.other = free_ports(3)
        super().__init__(
            directory,
            {
                'listen.http': f'127.0.0.1:{self.http}',
                'listen.shadowsocks': f'127.0.0.1:{self.at}',
                **(options or {}),
            },
        )

    def __enter__(self) -> ProxyRelay:
        super().__enter__()
        return self

    def data(self, *words: str) -> Any:
        return json.loads(self.cli('--json', *words).stdout)['data']

    def enable(self) -> ProxyRelay:
        self.cli('proxy', 'enable')
        self.until(lambda: self.data('proxy', 'status')['answers'], 'the proxy answers')
        return self

    def until(self, condition: Any, what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, what
            time.sleep(0.1)

    def row(self, name: str, default: str = '') -> str:
        """A stored setting; a command would take most of a second."""
        control = Control(self.state_dir)
        try:
            return control.settings().get(f'shadowsocks.{name}', default)
        finally:
            control.close()

    @property
    def password(self) -> str:
        return self.row('password')

    def call(self) -> Call:
        return Call(METHODS[self.row('cipher', 'chacha20-ietf-poly1305')], self.password)

    def through(self, port: int, data: bytes = b'', source: str = '127.0.0.1') -> Proxied:
        return Proxied(self.call(), self.at, self.domain, port, data, source)

    def statistics(self) -> dict[str, Any]:
        children = self.status()['data']['children']
        (found,) = (one['statistics'] for one in children if one['kind'] == 'shadowsocks')
        assert isinstance(found, dict)
        return found


class Proxied:
    """A connection through the proxy."""

    def __init__(
        self, call: Call, at: int, host: str, port: int, data: bytes, source: str = '127.0.0.1'
    ) -> None:
        self.call = call
        self.stream = socket.create_connection(('127.0.0.1', at), 10, (source, 0))
        self.recorded = call.request(Destination(host, port), data, time.time())
        self.stream.sendall(self.recorded)

    def send(self, data: bytes) -> None:
        self.stream.sendall(self.call.seal(data))

    def receive(self) -> bytes:
        """b'' at the end of the stream."""
        while True:
            data = self.stream.recv(65536)
            if not data:
                return b''
            if heard := self.call.feed(data, time.time()):
                return heard

    def line(self) -> bytes:
        heard = b''
        while not heard.endswith(b'\r\n'):
            data = self.receive()
            if not data:
                break
            heard += data
        return heard

    def close(self) -> None:
        self.stream.close()


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyRelay]:
    with ProxyRelay(tmp_path_factory.mktemp('relay')) as relay:
        yield relay.enable()


@pytest.mark.parametrize('program', ['ss-local', 'pproxy'])
@pytest.mark.parametrize('method', ['aes-128-gcm', 'aes-256-gcm', 'chacha20-ietf-poly1305'])
def test_clients_of_others(relay: ProxyRelay, program: str, method: str) -> None:
    relay.cli('proxy', 'cipher', 'set', method)
    address, password = relay.account('anna')
    with socks.client(program, method, relay.password, relay.at) as local:
        plain = socks.connect(local, relay.domain, relay.ports['imaps'])
        stream = client_tls().wrap_socket(plain, server_hostname=relay.domain)
        stream.settimeout(PATIENCE)
        reader = stream.makefile('rb')
        assert reader.readline().startswith(b'* OK ')
        stream.sendall(f'a LOGIN {address} {password}\r\n'.encode())
        assert reader.readline().startswith(b'a OK ')
        text = mail.encrypted(address, address, size=300_000)
        stream.sendall(b'b APPEND INBOX {%d}\r\n' % len(text))
        assert reader.readline().startswith(b'+ ')
        stream.sendall(text + b'\r\n')
        while not (line := reader.readline()).startswith(b'b '):
            assert line
        assert line.startswith(b'b OK ')
        stream.close()
        web = socks.connect(local, relay.domain, relay.http)
        web.sendall(b'GET / HTTP/1.1\r\nHost: chat.example\r\nConnection: close\r\n\r\n')
        heard = b''
        while data := web.recv(65536):
            heard += data
        assert heard.startswith(b'HTTP/1.1 ')
        web.close()
    (kept,) = fetch_all(relay.imap(address, password)).values()
    assert kept == text


@pytest.mark.parametrize('method', METHODS)
def test_every_method_live(relay: ProxyRelay, method: str) -> None:
    relay.cli('proxy', 'cipher', 'set', method)
    proxied = relay.through(relay.ports['imap'])
    assert proxied.line().startswith(b'* OK ')
    proxied.send(b'a NOOP\r\nb LOGOUT\r\n')
    heard = b''
    while data := proxied.receive():
        heard += data
    assert b'a OK ' in heard
    assert heard.rstrip().splitlines()[-1].startswith(b'b OK ')


def test_switch_password_and_port_while_it_runs(tmp_path: Path) -> None:
    with ProxyRelay(tmp_path) as relay:
        with pytest.raises(OSError, match='refused'):
            socket.create_connection(('127.0.0.1', relay.at), 5)
        assert relay.cli('proxy', 'link', check=False).returncode == 1
        status = relay.data('proxy', 'status')
        assert (status['configured'], status['enabled']) == (False, False)
        relay.enable()
        first = relay.through(relay.ports['imap'])
        assert first.line().startswith(b'* OK ')
        old = relay.password
        link = relay.data('proxy', 'link')['shadowsocks_url']
        relay.cli('proxy', 'password', 'reset')
        assert relay.password != old
        assert relay.data('proxy', 'link')['shadowsocks_url'] != link
        first.send(b'a NOOP\r\n')
        assert first.line().startswith(b'a OK '), 'who is there stays'
        call = Call(METHODS['chacha20-ietf-poly1305'], old)
        stale = Proxied(call, relay.at, relay.domain, relay.ports['imap'], b'')
        assert relay.through(relay.ports['imap']).line().startswith(b'* OK ')
        relay.until(lambda: relay.statistics()['rejected'] >= 1, 'the old one is rejected')
        stale.stream.settimeout(0.2)
        with pytest.raises(TimeoutError):
            stale.stream.recv(1)

        assert finding(relay)['level'] == 'ok'
        relay.cli('port', 'shadowsocks', 'disable')
        assert finding(relay)['level'] == 'bad'
        assert relay.data('proxy', 'status')['port'] is None
        assert 'listens nowhere' in relay.cli('proxy').stdout
        relay.cli('proxy', 'enable')
        relay.cli('port', 'shadowsocks', 'set', str(relay.other))
        relay.at, old_port = relay.other, relay.at
        assert relay.through(relay.ports['imap']).line().startswith(b'* OK ')
        with pytest.raises(OSError, match='refused'):
            socket.create_connection(('127.0.0.1', old_port), 5)
        assert f':{relay.other}#' in relay.data('proxy', 'link')['shadowsocks_url']
        taken = relay.cli('proxy', 'port', 'set', str(relay.ports['imap']), check=False)
        assert taken.returncode == 1
        assert relay.through(relay.ports['imap']).line().startswith(b'* OK ')

        # What listens elsewhere is found there.
        (moved,) = free_ports(1)
        relay.cli('port', 'imap', 'set', str(moved))
        relay.until(lambda: relay.data('proxy', 'status')['answers'], 'it answers again')
        assert relay.through(moved).line().startswith(b'* OK ')
        assert relay.through(relay.ports['imap']).receive() == b''

        relay.cli('proxy', 'disable')

        def refused() -> bool:
            try:
                socket.create_connection(('127.0.0.1', relay.at), 5).close()
            except ConnectionRefusedError:
                return True
            return False

        relay.until(refused, 'it is off')
        relay.enable()
        assert relay.through(moved).line().startswith(b'* OK ')


def finding(relay: ProxyRelay) -> dict[str, Any]:
    """What the doctor says of it."""
    told = json.loads(relay.cli('--json', 'doctor', check=False).stdout)['data']
    (found,) = (one for one in told['checks'] if one['name'] == 'proxy')
    assert isinstance(found, dict)
    return found


def test_recordings_are_refused_over_restarts(tmp_path: Path) -> None:
    with ProxyRelay(tmp_path) as relay:
        relay.enable()
        proxied = relay.through(relay.ports['imap'])
        assert proxied.line().startswith(b'* OK ')
        relay.stop()
        relay.start()
        relay.until(lambda: relay.data('proxy', 'status')['answers'], 'it answers')
        again = socket.create_connection(('127.0.0.1', relay.at), 5)
        again.sendall(proxied.recorded)
        relay.until(lambda: relay.statistics()['replayed'] == 1, 'it is known')
        again.settimeout(0.3)
        with pytest.raises(TimeoutError):
            again.recv(1)


def test_a_proxy_that_dies_is_replaced_and_nobody_else_notices(relay: ProxyRelay) -> None:
    anna = relay.imap(*relay.account('anna'))
    children = relay.status()['data']['children']
    (pid,) = (one['pid'] for one in children if one['kind'] == 'shadowsocks')
    os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        found = [one for one in relay.status()['data']['children'] if one['kind'] == 'shadowsocks']
        return [one['pid'] for one in found if one['statistics'].get('answers')] not in ([], [pid])

    relay.until(replaced, 'another one serves')
    assert relay.through(relay.ports['imap']).line().startswith(b'* OK ')
    assert anna.noop()[0] == 'OK'
    anna.logout()


def test_users_of_the_proxy_do_not_lock_each_other_out(tmp_path: Path) -> None:
    options = {'limits.connections_per_ip': 4, 'limits.logins_per_minute_per_ip': 3}
    with ProxyRelay(tmp_path, options) as relay:
        relay.enable()
        anna = relay.account('anna')

        def login(source: str, password: str) -> bytes:
            proxied = relay.through(relay.ports['imaps'], source=source)
            inside, outside = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_tls().wrap_bio(inside, outside, server_hostname=relay.domain)

            def step(function: Any, *arguments: Any) -> Any:
                while True:
                    try:
                        result = function(*arguments)
                    except ssl.SSLWantReadError:
                        result = None
                    if data := outside.read():
                        proxied.send(data)
                    if result is not None:
                        return result
                    data = proxied.receive()
                    assert data
                    inside.write(data)

            def shake() -> bool:
                tls.do_handshake()
                return True

            step(shake)
            assert step(tls.read, 4096).startswith(b'* OK ')
            step(tls.write, f'a LOGIN {anna[0]} {password}\r\n'.encode())
            answer: bytes = step(tls.read, 4096)
            proxied.close()
            return answer

        guesses = [login('127.0.0.66', 'wrong-password') for _ in range(5)]
        assert b'a NO [LIMIT]' in guesses[-1], 'a guesser is stopped'
        for source in ('127.0.0.1', '127.0.0.67', '127.0.7.1'):
            assert b'a OK ' in login(source, anna[1]), 'and nobody else'
        held = [relay.through(relay.ports['imap'], source='127.0.0.66') for _ in range(4)]
        assert all(one.line().startswith(b'* OK ') for one in held)
        assert relay.through(relay.ports['imap'], source='127.0.0.9').line().startswith(b'* OK ')


def test_the_proxy_gives_no_privilege_of_this_host(relay: ProxyRelay) -> None:
    token = (relay.state_dir / 'admin_token').read_text().strip()
    given = {
        'method': 'GET',
        'resource': '/admin/status',
        'headers': {'Authorization': f'Bearer {token}'},
    }
    body = json.dumps(given).encode()

    def post(path: str, through: bool) -> bytes:
        request = (
            f'POST {path} HTTP/1.1\r\nHost: chat.example\r\nConnection: close\r\n'
            f'Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n'
        ).encode() + body
        if through:
            proxied = relay.through(relay.http, request)
            heard = b''
            while data := proxied.receive():
                heard += data
            return heard
        with socket.create_connection(('127.0.0.1', relay.http), 10) as stream:
            stream.sendall(request)
            heard = b''
            while data := stream.recv(65536):
                heard += data
            return heard

    assert b'"status":200' in post('/api/admin', through=False)
    assert b'"status":403' in post('/api/admin', through=True)
    assert b' 404 ' in post('/__proxy', through=True).splitlines()[0]


def test_only_ports_for_users(relay: ProxyRelay) -> None:
    for port in (relay.ports['smtp'], relay.at, 22):
        assert relay.through(port).receive() == b''


def test_what_is_told_of_it(relay: ProxyRelay) -> None:
    relay.cli('proxy', 'cipher', 'reset')
    proxied = relay.through(relay.ports['imap'])
    assert proxied.line().startswith(b'* OK ')
    status = relay.data('proxy', 'status')
    assert (status['connections'], status['unique_ips']) == (1, 1)
    assert status['port'] == relay.at
    password = relay.password
    shown = relay.cli('proxy').stdout + relay.cli('--json', 'proxy', 'status').stdout
    shown += relay.cli('--json', 'proxy', 'password', 'set', 'another-password').stdout
    assert password not in shown
    assert 'another-password' not in shown
    services = {one['name']: one for one in relay.status()['data']['services']}
    assert services['Shadowsocks']['connections'] == 1
    link = relay.data('proxy', 'link')['shadowsocks_url']
    assert re.fullmatch(rf'ss://[A-Za-z0-9_-]+@127\.0\.0\.1:{relay.at}#chat\.example', link) or (
        re.fullmatch(rf'ss://[A-Za-z0-9_-]+@chat\.example:{relay.at}#chat\.example', link)
    )
    octets = relay.statistics()['octets']['shadowsocks']
    assert octets['sent'] > 100
    assert octets['received'] > 50
    proxied.close()


def test_neither_log_nor_status_names_a_client(tmp_path: Path) -> None:
    log = tmp_path / 'log.txt'
    with ProxyRelay(tmp_path / 'relay', {'log': str(log), 'log_level': 'debug'}) as relay:
        relay.enable()
        source = '127.23.45.67'
        proxied = relay.through(relay.ports['imap'], source=source)
        assert proxied.line().startswith(b'* OK ')
        noise = socket.create_connection(('127.0.0.1', relay.at), 5, (source, 0))
        noise.sendall(b'GET / HTTP/1.1\r\n\r\n' * 40)
        relay.until(lambda: relay.statistics()['rejected'] == 1, 'noise is noise')
        told = log.read_text() + json.dumps(relay.status()) + relay.text()
        for secret in (source, '127.128.', relay.password):
            assert secret not in told
        for path in relay.state_dir.rglob('*'):
            if path.is_file():
                octets = path.read_bytes()
                assert source.encode() not in octets
                assert socket.inet_aton(source) not in octets
