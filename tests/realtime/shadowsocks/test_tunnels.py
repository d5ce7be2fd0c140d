"""What clients get through the proxy: everything, in order, and without filling memory."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket as green

from madmail.realtime.shadowsocks import tunnel
from madmail.realtime.shadowsocks.methods import METHODS
from madmail.realtime.shadowsocks.pseudonym import NETWORK
from tests.realtime.shadowsocks.rig import Rig, eventually

MEGABYTE = 1024 * 1024


@pytest.mark.parametrize('method', METHODS)
def test_both_ways_with_every_method(tmp_path: Path, method: str) -> None:
    with Rig(tmp_path, shadowsocks__cipher=method) as rig:
        client = rig.client(b'hello')
        assert client.hear(5) == b'hello'
        data = os.urandom(3 * MEGABYTE)
        sender = gevent.spawn(client.say, data)
        assert client.hear(len(data)) == data
        sender.get()
        client.close()
        eventually(lambda: not rig.proxy.count, 'it ends with its client')
        assert rig.counts()['crashes'] == 0


def test_a_service_that_speaks_first(tmp_path: Path) -> None:
    def greet(stream: Any) -> None:
        stream.sendall(b'* OK ready\r\n')
        assert stream.recv(100) in (b'a LOGOUT\r\n', b'\r\n')  # the probe's
        stream.sendall(b'* BYE\r\n')

    with Rig(tmp_path, service=greet) as rig:
        client = rig.client()
        assert client.hear(12) == b'* OK ready\r\n'
        client.say(b'a LOGOUT\r\n')
        assert client.hear(100) == b'* BYE\r\n', 'and then the end of the stream'


def test_the_end_of_what_a_client_says_is_passed_on(tmp_path: Path) -> None:
    def count(stream: Any) -> None:
        size = 0
        while data := stream.recv(65536):
            size += len(data)
            if data == b'\r\n':
                stream.sendall(b'probed')
        stream.sendall(b'%d' % size)

    with Rig(tmp_path, service=count) as rig:
        client = rig.client(bytes(100_000))
        client.say(bytes(900_000))
        client.stream.shutdown(green.SHUT_WR)
        assert client.hear(100) == b'1000000'
        eventually(lambda: not rig.proxy.count, 'it is over')


def test_who_does_not_read_fills_no_memory(tmp_path: Path) -> None:
    sent = [0]

    def pour(stream: Any) -> None:
        while stream.recv(65536) and sent[0] < 64 * MEGABYTE:
            stream.sendall(b'probed')
            for _ in range(64 * 16):
                stream.sendall(bytes(65536))
                sent[0] += 65536

    with Rig(tmp_path, service=pour) as rig:
        sent[0] = 0
        client = rig.client(b'go')
        eventually(lambda: any(one._to_client for one in rig.proxy.opened), 'it piles up')
        before = -1
        while before != sent[0]:  # until everything on the way is full
            before = sent[0]
            gevent.sleep(0.3)
        assert sent[0] < 32 * MEGABYTE, 'the service has to wait'
        (open_,) = rig.proxy.opened
        assert 0 < len(open_._to_client) < 70_000
        assert len(client.hear(64 * MEGABYTE)) >= 64 * MEGABYTE, 'and nothing is lost'


def test_a_service_that_does_not_read_fills_no_memory(tmp_path: Path) -> None:
    go = gevent.event.Event()
    received = [0]

    def dawdle(stream: Any) -> None:
        first = stream.recv(1)
        stream.sendall(b'x')
        if first == b'\r':
            return  # the probe
        go.wait()
        while data := stream.recv(1 << 20):
            received[0] += len(data)

    with Rig(tmp_path, service=dawdle) as rig:
        client = rig.client(b'\0')
        client.hear(1)
        sender = gevent.spawn(client.say, bytes(40 * MEGABYTE))
        eventually(lambda: any(one._to_service for one in rig.proxy.opened), 'it piles up')
        gevent.sleep(0.3)
        (open_,) = (one for one in rig.proxy.opened if one._to_service)
        assert len(open_._to_service) < 140_000
        assert not sender.ready(), 'the client has to wait'
        go.set()
        sender.get(timeout=20)
        eventually(lambda: received[0] == 40 * MEGABYTE, 'nothing is lost')


@pytest.mark.parametrize(
    'where', [{'host': 'elsewhere.example'}, {'host': '203.0.113.9'}, {'port': 25}, {'port': 1}]
)
def test_what_is_not_ours_is_closed_without_a_word(tmp_path: Path, where: dict[str, Any]) -> None:
    with Rig(tmp_path) as rig:
        reached = len(rig.peers)
        client = rig.client(b'hello', **where)
        assert client.stream.recv(100) == b''
        assert len(rig.peers) == reached
        assert rig.counts()['unreachable'] == 1


def test_a_service_that_is_down_is_closed_without_a_word(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.server.stop()
        assert rig.client(b'hello').stream.recv(100) == b''
        assert rig.counts()['unreachable'] == 1


def test_without_descriptors_it_is_closed_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exhausted:
        def __getattr__(self, name: str) -> Any:
            return getattr(socket, name)

        def socket(self, *_: object) -> None:
            raise OSError(errno.EMFILE, 'too many')

    with Rig(tmp_path) as rig:
        with monkeypatch.context() as patch:
            patch.setattr(tunnel, 'socket', Exhausted())
            assert rig.client(b'hello').hear(1) == b''
        assert (rig.counts()['unreachable'], rig.counts()['crashes']) == (1, 0)
        assert rig.client(b'hello').hear(5) == b'hello'


def test_a_service_that_never_accepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, 'CONNECT_TIME', 0.3)
    with Rig(tmp_path) as rig:
        rig.server.stop_accepting()
        rig.server.socket.listen(0)
        idle = [rig.client(b'hello') for _ in range(4)]
        eventually(lambda: len(rig.proxy.opened) < 4, 'who cannot be connected is closed')
        for client in idle:
            client.close()


def test_clients_are_seen_as_strangers_of_different_addresses(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.peers.clear()
        for host in ('127.0.0.1', '127.0.0.2', '127.0.1.1', '127.0.0.2'):
            stream = green.create_connection(rig.at, source_address=(host, 0))
            call = rig.call()
            stream.sendall(rig.request(call, b'hello'))
            assert stream.recv(100)
            stream.close()
        first, second, other, again = rig.peers
        assert len({first, second, other}) == 3
        assert second == again
        assert first.rpartition('.')[0] == second.rpartition('.')[0]
        for peer in rig.peers:
            assert int.from_bytes(green.inet_aton(peer)) & int(NETWORK.netmask) == int(
                NETWORK.network_address
            )


def test_a_host_with_ipv6_only(tmp_path: Path) -> None:
    with Rig(tmp_path, host='::1') as rig:
        client = rig.client(b'hello')
        assert client.hear(5) == b'hello'
        assert rig.client(b'hello', host='::1').hear(5) == b'hello'
        assert set(rig.peers) == {'::1'}
        client.close()


def test_idle_tunnels_end_with_what_they_carry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('madmail.realtime.shadowsocks.proxy.IDLE_MARGIN', -1799.5)
    monkeypatch.setattr('madmail.realtime.shadowsocks.proxy.SWEEP', 0.1)
    with Rig(tmp_path, limits__imap_idle=1800, limits__smtp_idle=300) as rig:
        client = rig.client(b'hello')
        assert client.hear(5) == b'hello'
        for _ in range(8):
            client.say(b'x')
            assert client.hear(1) == b'x'
            gevent.sleep(0.1)
        assert client.hear(1) == b''


def test_password_and_cipher_change_while_tunnels_are_open(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        old = rig.client(b'one')
        assert old.hear(3) == b'one'
        method = METHODS['2022-blake3-aes-256-gcm']
        password = method.fresh_password()
        stale = rig.call()
        rig.change(shadowsocks__cipher=method.name, shadowsocks__password=password)
        assert rig.settings['shadowsocks.password'] == password
        old.say(b'two')
        assert old.hear(3) == b'two', 'it goes on'
        assert rig.client(b'new').hear(3) == b'new'
        stream = rig.knock()
        stream.sendall(rig.request(stale, b'hello'))
        eventually(lambda: rig.counts()['rejected'] == 1, 'the old password is worth nothing')


def test_a_password_is_made_and_kept(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        password = rig.settings['shadowsocks.password']
        assert METHODS[rig.settings['shadowsocks.cipher']].fits(password)
    with Rig(tmp_path) as rig:
        assert rig.settings['shadowsocks.password'] == password


def test_retiring_ends_everything(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        client, silent = rig.client(b'hello'), rig.knock()
        assert client.hear(5) == b'hello'
        assert rig.role.check()
    assert client.hear(1) == b''
    assert silent.recv(1) == b''
    assert not rig.proxy.count
    assert not rig.proxy.peers
