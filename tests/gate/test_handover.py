"""The hand-over when shards are absent, slow, restarted or confused."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from madmail.account.placement import shard_of
from madmail.shard import address
from tests.gate.rig import Client, Gate, Shard


def login(client: Client, password: bytes = b'right') -> bytes:
    client.line()
    client.send(b'a LOGIN alice@chat.example %s\r\n' % password)
    return client.line()


def test_the_account_s_shard_is_asked(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    shards = [start_shard(index) for index in range(3)]
    gate = start_gate({'shards': 3})
    for name in ('alice', 'bob', 'carol', 'dave', 'erin'):
        client = gate.client('imaps')
        client.line()
        client.send(b'a LOGIN %s@chat.example right\r\n' % name.encode())
        assert client.line() == b'a OK Logged in'
        index = shard_of(f'{name}@chat.example', 3)
        assert shards[index].frame()['user'] == f'{name}@chat.example'


def test_no_shard_is_asked_about_other_domains(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    shard = start_shard()
    gate = start_gate()
    client = gate.client('imaps')
    client.line()
    client.send(b'a LOGIN alice@other.example right\r\n')
    assert client.line() == b'a NO [AUTHENTICATIONFAILED] Authentication failed'
    client.send(b'b LOGIN "no address" right\r\n')
    assert client.line() == b'b NO [AUTHENTICATIONFAILED] Authentication failed'
    assert shard.frames.empty()


def test_nobody_listens(start_gate: Callable[..., Gate], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('madmail.gate.handover.REACH_TIME', 0.3)
    gate = start_gate()
    client = gate.client('imaps')
    assert login(client) == b'a NO [UNAVAILABLE] Temporary trouble, try again later'
    client.send(b'b NOOP\r\n')
    assert client.line() == b'b OK NOOP completed'


def test_a_shard_that_comes_back_is_waited_for(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    gate = start_gate()
    client = gate.client('imaps')
    client.line()
    client.send(b'a LOGIN alice@chat.example right\r\n')
    time.sleep(0.3)
    start_shard()
    assert client.line() == b'a OK Logged in'


@pytest.mark.parametrize('answer', [b'', b'?'])
def test_a_shard_that_gives_up_or_is_confused(
    answer: bytes, start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    start_shard(verdict=lambda frame: answer)
    client = start_gate().client('imaps')
    assert login(client) == b'a NO [UNAVAILABLE] Temporary trouble, try again later'


def test_a_shard_that_does_not_answer(
    start_gate: Callable[..., Gate],
    start_shard: Callable[..., Shard],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('madmail.gate.handover.VERDICT_TIME', 0.5)
    released = threading.Event()

    def verdict(frame: object) -> bytes:
        released.wait(10)
        return b'+'

    start_shard(verdict=verdict)
    gate = start_gate(limits__login_time=2)
    client = gate.client('imaps')
    assert login(client) == b'a NO [UNAVAILABLE] Temporary trouble, try again later'
    released.set()
    assert client.line() == b'* BYE Timed out'


def test_input_is_bounded_while_a_shard_thinks(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    released = threading.Event()

    def verdict(frame: object) -> bytes:
        released.wait(10)
        return b'-'

    start_shard(verdict=verdict)
    gate = start_gate(policy__plaintext_login=True)
    client = gate.client('imap')
    client.line()
    client.send(b'a LOGIN alice@chat.example right\r\n')
    client.stream.settimeout(0.3)
    noops, sent = b'b NOOP\r\n' * 5000, 0
    try:
        while sent < 50_000_000:
            sent += client.stream.send(noops)
    except TimeoutError:
        pass
    assert sent < 20_000_000  # what the kernel's buffers take
    released.set()
    client.stream.settimeout(10)
    # What was sent meanwhile was kept by the kernel and is still answered.
    assert client.line() == b'a NO [AUTHENTICATIONFAILED] Authentication failed'
    assert client.line() == b'b OK NOOP completed'


def test_a_full_backlog_is_tried_again(
    start_gate: Callable[..., Gate], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = start_gate()
    monkeypatch.setattr(address, 'BACKLOG', 0)
    listener = address.bind(gate.state_dir, address.shard_name(0))
    fillers = []
    try:
        while True:
            fillers.append(address.connect(gate.state_dir, address.shard_name(0)))
    except BlockingIOError:
        pass
    client = gate.client('imaps')
    client.line()
    client.send(b'a LOGIN alice@chat.example right\r\n')
    time.sleep(0.2)
    listener.setblocking(True)
    streams = [listener.accept()[0] for _ in fillers]
    stream = listener.accept()[0]
    assert stream.recv(4)
    stream.sendall(b'+a OK late\r\n')
    assert client.line() == b'a OK late'
    for open_socket in (*fillers, *streams, stream, listener):
        open_socket.close()


def test_a_large_ahead_reaches_a_shard_that_reads_slowly(
    start_gate: Callable[..., Gate], tmp_path: object
) -> None:
    gate = start_gate(policy__plaintext_login=True)
    listener = address.bind(gate.state_dir, address.shard_name(0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    listener.setblocking(True)
    client = gate.client('imap')
    client.line()
    noise = b'x' * 100_000 + b'\r\n'
    client.send(b'a LOGIN alice@chat.example right\r\n' + noise)
    stream = listener.accept()[0]
    time.sleep(0.2)
    received = b''
    stream.settimeout(2)
    stream.sendall(b'+')
    while not received.endswith(b'\r\n') or len(received) < len(noise):
        received += stream.recv(1000)
    assert noise[:10000] in received
    stream.close()
    listener.close()
