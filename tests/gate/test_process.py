from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from mmap import mmap

import pytest

from madmail.gate.peers import SIZE
from madmail.tls.context import Unusable
from tests.gate.rig import Gate, Shard, until


def test_check_follows_the_doors(start_gate: Callable[..., Gate]) -> None:
    gate = start_gate()
    assert gate.call(gate.role.check) is True
    gate.call(lambda: next(iter(gate.role._doors)).watcher.stop())
    assert gate.call(gate.role.check) is False


def test_retiring_lets_sessions_end_and_sends_strangers_away(
    start_gate: Callable[..., Gate],
    start_shard: Callable[..., Shard],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('madmail.gate.process.GRACE', 0.2)
    start_shard()
    gate = start_gate()
    session = gate.client('imaps')
    session.line()
    session.send(b'a LOGIN alice@chat.example right\r\n')
    assert session.line() == b'a OK Logged in'
    imap, smtp = gate.client('imap'), gate.client('submissions')
    assert imap.line()
    assert smtp.line()
    retired = threading.Event()

    def retire() -> None:
        gate.call(gate.role.retire)
        retired.set()

    threading.Thread(target=retire, daemon=True).start()
    assert imap.line() == b'* BYE Server going away, come back'
    assert smtp.line() == b'421 4.3.2 Server going away, come back'
    with pytest.raises(ConnectionRefusedError):
        gate.connect('imap')
    session.send(b'still there\r\n')
    assert session.line() == b'still there'
    assert not retired.is_set()
    session.close()
    assert retired.wait(5)


def test_another_gate_accepts_on_while_one_retires(start_gate: Callable[..., Gate]) -> None:
    one = start_gate()
    duplicate = one.listeners['imap'][0].dup()
    one.call(one.role.retire)
    client = socket.create_connection(duplicate.getsockname(), timeout=5)
    stream, _ = duplicate.accept()
    stream.close()
    client.close()
    duplicate.close()


def test_two_gates_share_a_listener(start_gate: Callable[..., Gate]) -> None:
    shared = mmap(-1, SIZE)
    one = start_gate({'shared': shared})
    two = start_gate({'shared': shared, 'index': 1})

    # two watches the first one's IMAP socket besides its own
    listener = one.listeners['imap'][0].dup()
    listener.setblocking(False)

    def watch() -> None:
        door = next(door for door in two.role._doors if door.kind.name == 'imap')
        door.watcher.stop()
        door.listener = listener
        door.watcher = two._hub.loop.io(listener.fileno(), 1)
        door.watcher.start(two.role._doors._accept, door)

    two.call(watch)
    clients = [one.client('imap') for _ in range(50)]
    assert all(client.line().startswith(b'* OK') for client in clients)
    assert one.counts['connections'] + two.counts['connections'] == 50
    assert one.role.gate.peers.total() == 50


def test_statistics_are_numbers_without_names(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    start_shard()
    gate = start_gate()
    client = gate.client('imaps')
    client.line()
    client.send(b'a LOGIN alice@chat.example new\r\n')
    client.line()
    found = gate.counts
    # The numbers of peers are keyed hashes, and the master only counts them.
    peers = found.pop('peers')
    assert len(peers) % 8 == 0
    octets = found.pop('octets')
    assert octets['imap']['sent'] > 0
    assert octets['smtp'] == {'received': 0, 'sent': 0}
    assert socket.inet_aton('127.0.0.1') not in peers
    assert all(isinstance(value, int) for value in found.values())
    assert found['connections'] == found['handshakes'] == found['logins'] == found['pipes'] == 1
    assert found['registrations'] == 1
    assert found['before_login'] == 0
    client.close()
    assert until(lambda: gate.counts['pipes'] == 0)


def test_an_unusable_tls_configuration_keeps_it_from_starting(
    start_gate: Callable[..., Gate],
) -> None:
    with pytest.raises(Unusable, match=r'absent\.pem'):
        start_gate(
            tls__mode='file',
            tls__cert_file='/nonexistent/absent.pem',
            tls__key_file='/nonexistent/k',
        )


def test_a_crash_costs_one_connection(
    start_gate: Callable[..., Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = start_gate()
    good = gate.client('imap')
    good.line()

    def broken(*_: object) -> None:
        raise RuntimeError('alice@chat.example')

    bad = gate.client('submission')
    bad.line()
    monkeypatch.setattr('madmail.gate.smtp_prelogin.SmtpDialogue.step', broken)
    bad.send(b'NOOP\r\n')
    assert bad.ended()
    good.send(b'a NOOP\r\n')
    assert good.line() == b'a OK NOOP completed'
    assert until(lambda: gate.counts['crashes'] == 1)
    assert until(lambda: gate.counts['before_login'] == 1)
