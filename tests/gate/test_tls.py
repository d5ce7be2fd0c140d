"""Who may speak TLS to the gate, and how."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from madmail.tls.context import ServerTLS
from tests.gate.rig import Client, Gate, Shard, client_context, settings, until


@pytest.mark.parametrize('service', ['imaps', 'submissions'])
def test_neither_name_nor_alpn_is_needed(service: str, start_gate: Callable[..., Gate]) -> None:
    stream = start_gate().connect_tls(service)
    assert stream.selected_alpn_protocol() is None
    assert Client(stream).line()[:4] in (b'* OK', b'220 ')


@pytest.mark.parametrize(
    ('service', 'offered', 'chosen'),
    [
        ('imaps', ['imap'], 'imap'),
        ('submissions', ['smtp'], 'smtp'),
        ('imaps', ['h2', 'imap', 'smtp'], 'imap'),
        ('imaps', ['h2', 'http/1.1'], None),
    ],
)
def test_alpn_is_answered_on_any_port(
    service: str, offered: list[str], chosen: str | None, start_gate: Callable[..., Gate]
) -> None:
    stream = start_gate().connect_tls(service, alpn=offered)
    assert stream.selected_alpn_protocol() == chosen
    assert Client(stream).line()


def test_starttls_answers_alpn_and_a_server_name(start_gate: Callable[..., Gate]) -> None:
    client = start_gate().client('imap')
    client.line()
    client.send(b'a STARTTLS\r\n')
    assert client.line().startswith(b'a OK')
    context = client_context(alpn=['imap'])
    stream = context.wrap_socket(client.stream, server_hostname='chat.example')
    assert stream.selected_alpn_protocol() == 'imap'


@pytest.mark.parametrize('version', [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_current_versions(
    version: ssl.TLSVersion, start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    start_shard()
    stream = start_gate().connect_tls('imaps', version=version)
    client = Client(stream)
    client.line()
    client.send(b'a LOGIN alice@chat.example right\r\n')
    assert client.line() == b'a OK Logged in'
    assert stream.version() == {'TLSv1_2': 'TLSv1.2', 'TLSv1_3': 'TLSv1.3'}[version.name]


@pytest.mark.filterwarnings('ignore:ssl.TLSVersion')
def test_tls_1_1_is_refused_with_an_alert(start_gate: Callable[..., Gate]) -> None:
    gate = start_gate()
    context = client_context(version=ssl.TLSVersion.TLSv1_1)
    context.set_ciphers('ALL:@SECLEVEL=0')
    with pytest.raises(ssl.SSLError, match='PROTOCOL_VERSION'):
        context.wrap_socket(gate.connect('imaps'))
    assert until(lambda: gate.counts['handshake_failures'] == 1)


def test_a_session_ticket_is_taken_by_the_next_gate(start_gate: Callable[..., Gate]) -> None:
    one = start_gate()
    tls = one.role._tls
    two = start_gate({'tls': tls, 'index': 1})
    context = client_context()
    first = context.wrap_socket(one.connect('imaps'))
    Client(first).line()  # the ticket comes with it
    second = context.wrap_socket(two.connect('imaps'), session=first.session)
    Client(second).line()
    assert second.session_reused


def test_plain_text_on_a_tls_port_ends_it(start_gate: Callable[..., Gate]) -> None:
    gate = start_gate()
    client = Client(gate.connect('imaps'))
    client.send(b'GET / HTTP/1.1\r\n\r\n')
    client.line()  # an alert perhaps
    assert client.ended()


def test_the_greeting_does_not_wait_for_an_acknowledgement(
    start_gate: Callable[..., Gate],
) -> None:
    gate = start_gate()
    times = []
    for _ in range(5):
        stream = gate.connect_tls('imaps')
        begin = time.monotonic()
        Client(stream).line()
        times.append(time.monotonic() - begin)
    assert min(times) < 0.03  # Nagle and delayed acknowledgement make it 40 ms every time


def test_a_reload_is_for_new_connections_only(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard], tmp_path: object
) -> None:
    start_shard()
    gate = start_gate()
    old = gate.client('imaps')
    old.line()
    assert isinstance(old.stream, ssl.SSLSocket)
    shown = old.stream.getpeercert(binary_form=True)
    (gate.state_dir / 'tls' / 'self-signed.crt').unlink()
    ServerTLS(settings(), gate.state_dir)  # makes another
    gate.call(gate.role._look_at_certificate)
    with gate.connect_tls('imaps') as new:
        assert new.getpeercert(binary_form=True) != shown
    old.send(b'a LOGIN alice@chat.example right\r\necho\r\n')
    assert old.line() == b'a OK Logged in'
    assert old.line() == b'echo'


def test_an_unusable_certificate_leaves_the_old_one(start_gate: Callable[..., Gate]) -> None:
    gate = start_gate()
    (gate.state_dir / 'tls' / 'self-signed.crt').write_text('damaged')
    gate.call(gate.role._look_at_certificate)
    assert gate.client('imaps').line().startswith(b'* OK')


def test_handshakes_beyond_a_turn_s_share_are_all_served(start_gate: Callable[..., Gate]) -> None:
    gate = start_gate()
    context = client_context()
    streams = []
    for _ in range(60):
        stream = socket.create_connection(('127.0.0.1', gate.ports['imaps']), timeout=10)
        streams.append(context.wrap_socket(stream, do_handshake_on_connect=False))
        streams[-1].setblocking(False)
    for stream in streams:  # 60 hellos on the wire at about the same time
        with suppress(ssl.SSLWantReadError):
            stream.do_handshake()
    for stream in streams:
        stream.settimeout(10)
        stream.do_handshake()
        assert Client(stream).line().startswith(b'* OK')
    assert until(lambda: gate.counts['handshakes'] == 60)
