"""What one client address, one connection and the whole relay may take."""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Callable
from mmap import mmap

import greenlet
import pytest

from madmail.account.flood import hash_key, origin
from madmail.gate.peers import SIZE
from tests.gate.rig import PATIENCE, Client, Gate, Shard, until


class TestTime:
    def test_a_silent_client_is_told_and_closed(self, start_gate: Callable[..., Gate]) -> None:
        gate = start_gate(limits__login_time=1)
        imap, smtp = gate.client('imap'), gate.client('submission')
        assert imap.line().startswith(b'* OK')
        assert imap.line() == b'* BYE Timed out'
        assert imap.ended()
        assert smtp.line().startswith(b'220 ')
        assert smtp.line() == b'421 4.4.2 Timed out'
        assert smtp.ended()
        assert until(lambda: gate.counts['timeouts'] == 2)

    def test_a_silent_handshake_is_closed(self, start_gate: Callable[..., Gate]) -> None:
        gate = start_gate(limits__login_time=1)
        client = Client(gate.connect('imaps'))
        client.send(b'\x16\x03\x01')
        assert client.ended()
        assert until(lambda: gate.counts['before_login'] == 0)

    def test_dripping_does_not_prolong_it(self, start_gate: Callable[..., Gate]) -> None:
        gate = start_gate(limits__login_time=1)
        client = gate.client('imaps')
        client.line()
        begin = time.monotonic()
        try:
            while time.monotonic() < begin + PATIENCE:
                client.send(b'a NOOP\r\n')
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() - begin < 5

    def test_a_client_that_does_not_read_is_closed(
        self, start_gate: Callable[..., Gate], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr('madmail.gate.connection.FAREWELL_TIME', 0.3)
        gate = start_gate(limits__login_time=1)
        stream = gate.connect('imap')
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.settimeout(0.2)
        sent = 0
        try:
            while sent < 30_000_000:
                sent += stream.send(b'a CAPABILITY\r\n' * 1000)
        except OSError:
            pass
        assert sent < 20_000_000  # it stopped hearing
        assert until(lambda: gate.counts['before_login'] == 0, 5)

    def test_time_passes_no_more_after_login(
        self, start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
    ) -> None:
        start_shard()
        gate = start_gate(limits__login_time=1)
        client = gate.client('imaps')
        client.line()
        client.send(b'a LOGIN alice@chat.example right\r\n')
        client.line()
        time.sleep(1.6)
        client.send(b'still there\r\n')
        assert client.line() == b'still there'


class TestConnections:
    def test_per_address_across_gates(self, start_gate: Callable[..., Gate]) -> None:
        shared = mmap(-1, SIZE)
        one = start_gate({'shared': shared, 'index': 0}, limits__connections_per_ip=3)
        two = start_gate({'shared': shared, 'index': 1}, limits__connections_per_ip=3)
        kept = [one.client('imap'), two.client('smtp'), two.client('submission')]
        assert all(client.line() for client in kept)
        assert one.client('imap').line() == b'* BYE Too many connections'
        assert two.client('smtp').line() == b'421 4.7.0 Too many connections'
        with pytest.raises(OSError):
            two.connect_tls('imaps')
        assert one.counts['refused_connections'] == 1
        assert two.counts['refused_connections'] == 2
        kept.pop().close()
        assert until(lambda: two.counts['before_login'] == 1)
        assert one.client('imap').line().startswith(b'* OK')

    def test_in_all(self, start_gate: Callable[..., Gate]) -> None:
        gate = start_gate(limits__connections=2, limits__connections_per_ip=0)
        kept = [gate.client('imaps'), gate.client('imap')]
        assert all(client.line() for client in kept)
        assert gate.client('imap').line() == b'* BYE Too many connections'

    def test_sessions_count_until_they_end(
        self, start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
    ) -> None:
        start_shard()
        gate = start_gate(limits__connections_per_ip=1)
        client = gate.client('imaps')
        client.line()
        client.send(b'a LOGIN alice@chat.example right\r\n')
        client.line()
        assert gate.client('imap').line() == b'* BYE Too many connections'
        client.close()
        assert until(lambda: gate.counts['pipes'] == 0)
        assert gate.client('imap').line().startswith(b'* OK')

    def test_out_of_descriptors_accepting_pauses_and_goes_on(
        self, start_gate: Callable[..., Gate]
    ) -> None:
        gate = start_gate()

        class Exhausted:
            def __init__(self, listener: socket.socket) -> None:
                self.listener, self.failures = listener, 2

            def accept(self) -> object:
                if self.failures:
                    self.failures -= 1
                    raise OSError(24, 'Too many open files')
                return self.listener.accept()

        door = next(door for door in gate.role._doors if door.kind.name == 'imap')
        door.listener = Exhausted(door.listener)  # type: ignore[assignment]
        client = gate.client('imap')
        assert until(lambda: gate.counts['accept_pauses'] == 1)
        assert gate.call(gate.role.check)  # paused on purpose
        assert client.line().startswith(b'* OK')
        assert until(lambda: gate.counts['accept_pauses'] == 2)
        assert gate.call(gate.role.check)


class TestLogins:
    def test_per_address_across_gates(
        self, start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
    ) -> None:
        start_shard()
        shared = mmap(-1, SIZE)
        limit = {'limits__logins_per_minute_per_ip': 3}
        one = start_gate({'shared': shared, 'index': 0}, **limit)
        two = start_gate({'shared': shared, 'index': 1}, **limit)
        client = one.client('imaps')
        client.line()
        for user in ('alice@chat.example', 'x@other.example', 'alice@chat.example'):
            client.send(b'a LOGIN %s wrong\r\n' % user.encode())
            assert client.line() == b'a NO [AUTHENTICATIONFAILED] Authentication failed'
        client.send(b'b LOGIN alice@chat.example right\r\n')
        assert client.line() == b'b NO [LIMIT] Too many logins, slow down'
        client = two.client('submissions')
        client.send(b'EHLO x\r\nAUTH PLAIN AGFsaWNlQGNoYXQuZXhhbXBsZQByaWdodA==\r\n')
        lines = []
        while line := client.line():
            lines.append(line)
        assert lines[-1] == b'421 4.7.0 Too many logins, slow down'
        assert two.counts['logins_limited'] == 1

    def test_the_shard_learns_the_origin_as_numbers(
        self, start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
    ) -> None:
        shard = start_shard()
        shared = mmap(-1, SIZE)
        gate = start_gate({'shared': shared})
        for service in ('imaps', 'imaps'):
            client = gate.client(service)
            client.line()
            client.send(b'a LOGIN alice@chat.example new\r\n')
            assert client.line() == b'a OK Logged in'
            assert shard.frame()['origin'] == list(origin('127.0.0.1', hash_key(shared)))
        assert until(lambda: gate.counts['registrations'] == 2)

    def test_settings_apply_live(
        self, start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
    ) -> None:
        start_shard()
        gate = start_gate(limits__logins_per_minute_per_ip=1)
        client = gate.client('imaps')
        client.line()
        client.send(b'a LOGIN alice@chat.example wrong\r\nb LOGIN alice@chat.example right\r\n')
        assert client.line() == b'a NO [AUTHENTICATIONFAILED] Authentication failed'
        assert client.line() == b'b NO [LIMIT] Too many logins, slow down'
        gate.context.settings.replace('limits.logins_per_minute_per_ip', 0)
        client.send(b'c LOGIN alice@chat.example right\r\n')
        assert client.line() == b'c OK Logged in'


def test_no_connection_has_a_greenlet(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    def greenlets() -> int:
        gc.collect()
        return sum(isinstance(found, greenlet.greenlet) for found in gc.get_objects())

    start_shard()
    gate = start_gate()
    gate.client('imap').line()
    before = greenlets()
    clients = [gate.client('imaps') for _ in range(200)]
    for client in clients[:100]:
        client.line()
        client.send(b'a LOGIN alice@chat.example right\r\n')
        assert client.line() == b'a OK Logged in'
    assert until(lambda: gate.counts['pipes'] == 100)
    assert greenlets() <= before
