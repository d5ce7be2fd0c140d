"""The iroh relay in a running relay: by its own port, and by those of the web."""

from __future__ import annotations

import imaplib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from madmail.realtime.iroh import derp, messages
from tests.realtime.iroh.rig import Node, Socket, rest
from tests.system.relay import free_ports
from tests.tls.authority import Authority
from tests.web.conftest import WebRelay, answer

PATIENCE = 30.0  # seconds
ENTRY = '/shared/vendor/deltachat/irohrelay'


class IrohRelay(WebRelay):
    def __init__(self, directory: Path, options: dict[str, Any] | None = None) -> None:
        (self.iroh,) = free_ports(1)
        super().__init__(directory, {'listen.iroh': [f'127.0.0.1:{self.iroh}'], **(options or {})})

    def way(self, scheme: str) -> Any:
        """What the nodes of the rig connect to."""
        if scheme == 'own':
            connect: Callable[[], Any] = lambda: socket.create_connection(  # noqa: E731
                ('127.0.0.1', self.iroh), 20
            )
        else:
            connect = lambda: self.raw(scheme)  # noqa: E731
        return type('Way', (), {'connect': staticmethod(connect)})

    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for child in self.status()['data']['children']:
            if child['kind'] == 'iroh':
                found = child['statistics']
        return found

    def told(self, account: tuple[str, str]) -> str:
        """The relay that clients are told; '' for none."""
        with self.imap(*account) as client:
            name = 'GETMETADATA'
            imaplib.Commands.setdefault(name, ('AUTH',))
            assert client._simple_command(name, '""', f'({ENTRY})')[0] == 'OK'
            _, found = client._untagged_response('OK', [None], 'METADATA')
        return found[0][1].decode() if found and isinstance(found[0], tuple) else ''

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < end, what
            time.sleep(0.1)
        return found


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IrohRelay]:
    with IrohRelay(tmp_path_factory.mktemp('relay')) as relay:
        account = relay.account()
        relay.until(lambda: relay.told(account), 'it answers')
        yield relay


@pytest.mark.parametrize('scheme', ['http', 'https'])
def test_nodes_meet_over_the_web_port_and_its_own(relay: IrohRelay, scheme: str) -> None:
    one, two = Node(relay.way(scheme)).hello(), Node(relay.way('own')).hello()
    one.ping()
    two.ping()
    packets = [os.urandom(size) for size in (0, 1000, 14_000, 65_536)] * 10
    for packet in packets:
        one.send(two.key, packet)
    for packet in packets:
        assert two.receive() == (derp.RECEIVE, one.key + packet)
    for packet in packets:
        two.send(one.key, packet)
    for packet in packets:
        assert one.receive() == (derp.RECEIVE, two.key + packet)
    one.close()
    assert two.receive() == (derp.GONE, one.key)


@pytest.mark.parametrize('scheme', ['http', 'https'])
def test_nodes_of_1_x_come_over_the_web_port(relay: IrohRelay, scheme: str) -> None:
    one = Socket(relay.way(scheme), messages.V2).hello()
    two = Socket(relay.way(scheme), messages.V1).hello()
    one.say(bytes((messages.DATAGRAM,)) + two.key + b'\0' + b'x' * 50_000)
    assert two.receive() == bytes((messages.DATAGRAM + 2,)) + one.key + b'\0' + b'x' * 50_000


@pytest.mark.parametrize('scheme', ['http', 'https'])
def test_the_web_port_answers_probes_and_stays_the_site(relay: IrohRelay, scheme: str) -> None:
    stream = relay.raw(scheme)
    stream.sendall(b'GET /generate_204 HTTP/1.1\r\nHost: x\r\nX-Iroh-Challenge: abc\r\n\r\n')
    said = answer(stream)
    assert said.startswith(b'HTTP/1.1 204 ')
    assert b'X-Iroh-Response: response abc\r\n' in said
    for path, status in (('/ping', 200), ('/relay', 400), ('/', 200), ('/else', 404)):
        client = relay.client(scheme)
        client.request('GET', path)
        response = client.getresponse()
        body = response.read()
        assert response.status == status
        if path == '/':
            assert b'chat.example' in body  # the site, not the page of the iroh relay
    client = relay.client(scheme)
    client.request('POST', '/relay', b'hello')
    assert client.getresponse().status == 404


def test_what_it_carries_is_counted_once(relay: IrohRelay) -> None:
    def octets() -> tuple[int, int]:
        web = sum(
            child['statistics']['octets']['web']['received']
            for child in relay.status()['data']['children']
            if child['kind'] == 'web'
        )
        return relay.figures()['octets']['iroh']['received'], web

    one, two = Node(relay.way('https')).hello(), Node(relay.way('https')).hello()
    two.ping()
    before = octets()
    for _ in range(20):
        one.send(two.key, bytes(50_000))
    for _ in range(20):
        two.receive()
    one.close()
    two.close()
    relay.until(lambda: octets()[0] - before[0] > 1_000_000, 'counted')
    assert octets()[1] - before[1] < 100_000


def test_it_is_switched_while_it_runs(relay: IrohRelay) -> None:
    account = relay.account()
    node = Node(relay.way('own')).hello()
    node.ping()
    shown = json.loads(relay.cli('iroh', 'status', '--json').stdout)['data']
    assert shown['relay_url'] == relay.told(account) == f'http://chat.example:{relay.iroh}'
    assert (shown['enabled'], shown['answers'], shown['port']) == (True, True, relay.iroh)
    assert shown['clients'] >= 1
    assert json.loads(relay.cli('iroh', 'disable', '--json').stdout)['ok']
    assert rest(node.stream) == b''
    relay.until(lambda: not relay.pids('iroh'), 'it goes')
    relay.until(lambda: not relay.told(account), 'nobody is told')
    with pytest.raises(ConnectionRefusedError):
        relay.way('own').connect()
    client = relay.client()
    client.request('GET', '/ping')
    assert client.getresponse().status == 404
    assert not json.loads(relay.cli('iroh', '--json').stdout)['data']['relay_url']
    relay.cli('iroh', 'enable')
    relay.until(lambda: relay.told(account), 'it is back')
    Node(relay.way('own')).hello().ping()
    Node(relay.way('https')).hello().ping()


def test_its_port_moves(relay: IrohRelay) -> None:
    account = relay.account()
    before = relay.iroh
    (relay.iroh,) = free_ports(1)
    try:
        relay.cli('port', 'iroh', 'set', str(relay.iroh))
        url = f'http://chat.example:{relay.iroh}'
        relay.until(lambda: relay.told(account) == url, 'told')
        Node(relay.way('own')).hello().ping()
        Node(relay.way('https')).hello().ping()
    finally:
        relay.cli('port', 'iroh', 'reset')
        relay.iroh = before
    relay.until(lambda: relay.told(account) == f'http://chat.example:{before}', 'back')
    Node(relay.way('own')).hello().ping()


def test_while_it_does_not_answer_the_web_port_says_so(relay: IrohRelay) -> None:
    (pid,) = relay.pids('iroh')
    path = relay.state_dir / 'run' / 'iroh.sock'
    aside = path.with_suffix('.aside')
    path.rename(aside)  # as if it were not there
    try:
        stream = relay.raw('https')
        stream.sendall(b'GET /relay HTTP/1.1\r\nHost: x\r\nUpgrade: iroh derp http\r\n\r\n')
        assert answer(stream).startswith(b'HTTP/1.1 503 ')
    finally:
        aside.rename(path)
    assert relay.pids('iroh') == [pid]
    Node(relay.way('https')).hello().ping()


def test_a_killed_one_is_replaced(relay: IrohRelay) -> None:
    node = Node(relay.way('https')).hello()
    node.ping()
    (pid,) = relay.pids('iroh')
    os.kill(pid, signal.SIGKILL)
    assert rest(node.stream) == b''
    relay.until(lambda: [one for one in relay.pids('iroh') if one != pid], 'another one')

    def served() -> bool:
        try:
            Node(relay.way('https')).hello().ping()
        except (OSError, AssertionError, EOFError):
            return False
        return True

    relay.until(served, 'it serves')


def test_a_reload_is_not_noticed_on_its_own_port(relay: IrohRelay) -> None:
    node = Node(relay.way('own')).hello()
    node.ping()
    (pid,) = relay.pids('iroh')
    relay.cli('reload')
    node.ping()
    assert relay.pids('iroh') == [pid]


def test_clients_are_told_https_where_they_trust_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue('chat.example')
    tls = {
        'tls.mode': 'file',
        'tls.cert_file': str(pair.certificate),
        'tls.key_file': str(pair.key),
    }
    relay = IrohRelay(tmp_path / 'relay', tls)
    relay.environment = {'SSL_CERT_FILE': str(authority.root)}
    with relay:
        account = relay.account()
        url = f'https://chat.example:{relay.web["https"]}'
        relay.until(lambda: relay.told(account) == url, 'told')
        Node(relay.way('https')).hello().ping()
        assert json.loads(relay.cli('iroh', '--json').stdout)['data']['relay_url'] == url
        # What the operator says counts more.
        relay.cli('settings', 'set', 'iroh.relay_url', 'https://other.example')
        relay.until(lambda: relay.told(account) == 'https://other.example', 'told')
        bad = relay.cli('settings', 'set', 'iroh.relay_url', 'ftp://x', check=False)
        assert bad.returncode != 0


def test_only_the_web_ports_are_enough(tmp_path: Path) -> None:
    relay = WebRelay(tmp_path)
    with relay:
        way = type('Way', (), {'connect': staticmethod(lambda: relay.raw('https'))})
        end = time.monotonic() + PATIENCE
        while True:
            try:
                Node(way).hello().ping()
                break
            except (OSError, AssertionError, EOFError):
                assert time.monotonic() < end
                time.sleep(0.1)


def test_nothing_went_wrong(relay: IrohRelay) -> None:
    told = relay.figures()
    assert told['connections'] > 0
    assert not told['crashes']
    assert not any(told['exceptions'].values())
