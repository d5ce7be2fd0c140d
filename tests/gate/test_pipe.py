"""An established session: every octet, in order, in bounded memory, and its ends."""

from __future__ import annotations

import gc
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from madmail.gate.pipe import Pipe
from tests.gate.rig import Client, Gate, Shard, until

SIZE = 30 * 1024 * 1024
BLOCK = bytes(range(256)) * 401


def stream_of(size: int) -> Any:
    """Blocks that differ, `size` octets in all."""
    number = 0
    while size > 0:
        block = (number.to_bytes(8, 'big') + BLOCK)[:size]
        size -= len(block)
        number += 1
        yield block


def digest_of(size: int) -> bytes:
    digest = hashlib.blake2b()
    for block in stream_of(size):
        digest.update(block)
    return digest.digest()


def logged_in(gate: Gate, service: str = 'imaps') -> Client:
    client = gate.client(service)
    client.line()
    client.send(b'a LOGIN alice@chat.example right\r\n')
    assert client.line() == b'a OK Logged in'
    return client


def pipes() -> list[Pipe]:
    return [found for found in gc.get_objects() if isinstance(found, Pipe)]


def held(pipe: Pipe) -> int:
    return len(pipe._to_client or b'') + len(pipe._to_shard or b'')


@pytest.mark.parametrize('service', ['imaps', 'imap'])
def test_thirty_megabytes_each_way_at_once_with_slow_readers(
    service: str, start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    result: dict[str, bytes] = {}
    greeted = threading.Event()  # the client reads ahead of its line until then

    def swallow(receive: Callable[[int], bytes], name: str) -> None:
        digest, left, reads = hashlib.blake2b(), SIZE, 0
        while left:
            data = receive(min(left, 150_000))
            assert data, f'{name}: {left} octets short'
            digest.update(data)
            left -= len(data)
            reads += 1
            if reads % 40 == 0:
                time.sleep(0.01)
        result[name] = digest.digest()

    def session(stream: socket.socket, frame: dict[str, Any]) -> None:
        stream.sendall(b'a OK Logged in\r\n')
        reader = threading.Thread(target=swallow, args=(stream.recv, 'shard'))
        reader.start()
        assert greeted.wait(30)
        for block in stream_of(SIZE):
            stream.sendall(block)
        reader.join()

    start_shard(session=session)
    gate = start_gate(policy__plaintext_login=True)
    client = logged_in(gate, service)
    greeted.set()
    (pipe,) = [pipe for pipe in pipes() if pipe._gate is gate.role.gate]
    most = [0]

    def write() -> None:
        for block in stream_of(SIZE):
            client.stream.sendall(block)
            most[0] = max(most[0], held(pipe))

    # One TLS object must not be used by two threads at once, so the client is one process less
    # parallel than the gate: it writes in slices between reads.
    if service == 'imaps':
        client.stream.setblocking(False)
        outgoing, pending = stream_of(SIZE), memoryview(b'')
        digest, left, unsent = hashlib.blake2b(), SIZE, SIZE
        limit = time.monotonic() + 240
        while left or unsent:
            assert time.monotonic() < limit
            most[0] = max(most[0], held(pipe))
            if unsent and not pending:
                pending = memoryview(next(outgoing))
            if pending:
                try:
                    sent = client.stream.send(pending[:16384])
                    pending, unsent = pending[sent:], unsent - sent
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    pass
            try:
                data = client.stream.recv(min(left, 50_000)) if left else b''
                digest.update(data)
                left -= len(data)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
        result['client'] = digest.digest()
    else:
        writer = threading.Thread(target=write)
        writer.start()
        swallow(client.stream.recv, 'client')
        writer.join()
    assert until(lambda: len(result) == 2, 30)
    assert result == {'client': digest_of(SIZE), 'shard': digest_of(SIZE)}
    assert most[0] <= 2 * 65536
    assert until(lambda: gate.counts['octets']['imap']['received'] == SIZE)
    assert held(pipe) == 0


def test_a_client_that_does_not_read_holds_its_shard_back(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    sent = [0]

    def session(stream: socket.socket, frame: dict[str, Any]) -> None:
        stream.sendall(b'a OK Logged in\r\n')
        for block in stream_of(SIZE):
            stream.sendall(block)
            sent[0] += len(block)

    start_shard(session=session)
    gate = start_gate()
    client = logged_in(gate)
    (pipe,) = [pipe for pipe in pipes() if pipe._gate is gate.role.gate]
    assert until(lambda: held(pipe) > 0)
    time.sleep(0.2)
    before = sent[0]
    time.sleep(0.2)
    assert sent[0] == before < SIZE
    assert held(pipe) <= 65536
    digest, left = hashlib.blake2b(client._buffer), SIZE - len(client._buffer)
    while left:
        data = client.stream.recv(65536)
        digest.update(data)
        left -= len(data)
    assert digest.digest() == digest_of(SIZE)


@pytest.mark.parametrize('service', ['imaps', 'imap'])
def test_the_end_of_the_shard_ends_the_client_after_the_last_words(
    service: str, start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    def session(stream: socket.socket, frame: dict[str, Any]) -> None:
        stream.sendall(b'a OK Logged in\r\n')
        stream.recv(100)
        stream.sendall(b'x' * 500_000 + b'\r\n* BYE\r\n')

    start_shard(session=session)
    gate = start_gate(policy__plaintext_login=True)
    client = logged_in(gate, service)
    client.send(b'go\r\nunheard\r\n')
    time.sleep(0.2)
    assert len(client.line()) == 500_000
    assert client.line() == b'* BYE'
    # Strict about the end: with TLS it must be a close_notify.
    assert client.ended()
    client.close()
    assert until(lambda: gate.counts['pipes'] == 0)
    assert until(lambda: gate.counts['before_login'] == 0)


def test_the_end_is_a_close_notify(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    shard = start_shard()
    gate = start_gate()
    stream = gate.connect_tls('imaps')
    stream.suppress_ragged_eofs = False  # a bare FIN raises
    client = Client(stream)
    client.line()
    client.send(b'a LOGIN alice@chat.example right\r\n')
    client.line()
    shard.streams[0].shutdown(socket.SHUT_RDWR)
    assert stream.recv(100) == b''


def test_a_killed_shard_ends_its_clients(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    shard = start_shard()
    gate = start_gate()
    clients = [logged_in(gate) for _ in range(5)]
    shard.close()
    assert all(client.ended() for client in clients)


def test_what_a_client_says_before_it_closes_arrives(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    heard: list[bytes] = []
    done = threading.Event()

    def session(stream: socket.socket, frame: dict[str, Any]) -> None:
        stream.sendall(b'a OK Logged in\r\n')
        while data := stream.recv(65536):
            heard.append(data)
            time.sleep(0.001)
        done.set()

    start_shard(session=session)
    gate = start_gate()
    client = logged_in(gate)
    for block in stream_of(2_000_000):
        client.send(block)
    client.close()
    assert done.wait(10)
    assert hashlib.blake2b(b''.join(heard)).digest() == digest_of(2_000_000)
    assert until(lambda: gate.counts['pipes'] == 0)


def test_a_half_closed_client_still_gets_its_answer(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    def session(stream: socket.socket, frame: dict[str, Any]) -> None:
        stream.sendall(b'a OK Logged in\r\n')
        heard = b''
        while data := stream.recv(65536):
            heard += data
        stream.sendall(b'heard ' + heard)

    start_shard(session=session)
    gate = start_gate(policy__plaintext_login=True)
    client = logged_in(gate, 'imap')
    client.send(b'LOGOUT\r\n')
    client.stream.shutdown(socket.SHUT_WR)
    assert client.line() == b'heard LOGOUT'
    assert client.ended()


def test_a_client_may_say_everything_at_once_and_close_its_half(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    start_shard()
    gate = start_gate(policy__plaintext_login=True)
    client = gate.client('imap')
    client.send(b'a LOGIN alice@chat.example right\r\nb LOGOUT\r\n')
    client.stream.shutdown(socket.SHUT_WR)
    client.line()
    assert client.line() == b'a OK Logged in'
    assert client.line() == b'b LOGOUT'
    assert client.ended()


def test_a_client_that_vanishes_ends_the_session(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    gone = threading.Event()

    def session(stream: socket.socket, frame: dict[str, Any]) -> None:
        stream.sendall(b'a OK Logged in\r\n')
        while stream.recv(100):
            pass
        gone.set()

    start_shard(session=session)
    gate = start_gate()
    client = logged_in(gate)
    # a reset in place of an end
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    client.close()
    assert gone.wait(10)
    assert until(lambda: gate.counts['pipes'] == 0)


def test_a_client_that_never_reads_its_last_words_is_dropped(
    start_gate: Callable[..., Gate],
    start_shard: Callable[..., Shard],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('madmail.gate.pipe.LINGER', 0.3)

    def session(stream: socket.socket, frame: dict[str, Any]) -> None:
        stream.sendall(b'a OK Logged in\r\n')
        stream.settimeout(0.5)
        try:
            while True:
                stream.sendall(bytes(65536))
        except TimeoutError:
            pass

    start_shard(session=session)
    gate = start_gate()
    logged_in(gate)
    assert until(lambda: gate.counts['pipes'] == 0)


def test_records_of_any_size_pass_whole(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    start_shard()
    gate = start_gate()
    client = logged_in(gate)
    for size in (1, 5, 16383, 16384, 16385, 65536, 200_000):
        line = b'y' * size + b'\r\n'
        client.send(line)
        assert len(client.line()) == size
