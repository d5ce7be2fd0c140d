"""The web role in a running relay: gunicorn under the master, over real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from madmail.settings import Settings
from madmail.tls import self_signed
from madmail.tls.context import ServerTLS, Unusable
from tests.system import mail
from tests.system.relay import client_tls, free_ports, wait_for
from tests.web.conftest import PEER, WebRelay, answer

HEAD = b'POST /mxdeliv HTTP/1.1\r\nHost: x\r\nX-Mail-From: fay@[192.0.2.9]\r\n'


def _statistics(relay: WebRelay) -> dict[str, int]:
    children = relay.status()['data']['children']
    found: dict[str, int] = {}
    for child in children:
        if child['kind'] == 'web':
            found.update(child['statistics'])
    return found


def _web(relay: WebRelay) -> list[int]:
    return [child['pid'] for child in relay.status()['data']['children'] if child['kind'] == 'web']


def _gunicorn(relay: WebRelay) -> list[int]:
    """The arbiter of gunicorn and its workers."""
    return relay.pids('madmail-http')


def _spooled(relay: WebRelay) -> list[Path]:
    return list((relay.state_dir / 'web').rglob('spool/*'))


@pytest.mark.parametrize('scheme', ['http', 'https'])
def test_a_message_posted_is_a_message_fetched(relay: WebRelay, scheme: str) -> None:
    address, password = relay.account()
    body = mail.encrypted(PEER, address)
    status = relay.post(body, address.upper(), 'nobody@chat.example', client=relay.client(scheme))
    assert status == (200, '250 OK')
    with relay.imap(address, password) as inbox:
        (found,) = wait_for(inbox, 1)
    assert found.partition(b'\r\n\r\n')[2] == body.partition(b'\r\n\r\n')[2]


def test_all_shards_get_theirs_and_nobody_twice(relay: WebRelay) -> None:
    accounts = [relay.account() for _ in range(6)]  # on both shards
    names = [address for address, _ in accounts]
    body = mail.encrypted(PEER)
    for _ in range(3):
        assert relay.post(body, *names, *names) == (200, '250 OK')
    for address, password in accounts:
        with relay.imap(address, password) as inbox:
            time.sleep(0.1)
            assert len(wait_for(inbox, 1)) == 1


def test_a_connection_carries_many_messages(relay: WebRelay) -> None:
    address, password = relay.account()
    client = relay.client()
    client.connect()
    stream = client.sock
    for number in range(20):
        body = mail.encrypted(PEER, address)
        if number % 4 == 1:
            body = mail.plain(PEER, address)
        sender = 'wrong' if number % 4 == 2 else PEER
        status, _ = relay.post(body, address, sender=sender, client=client)
        assert status == (200 if number % 4 in (0, 3) else 400)
        assert client.sock is stream
    with relay.imap(address, password) as inbox:
        assert len(wait_for(inbox, 10)) == 10


def test_a_thousand_recipients_a_line_each(relay: WebRelay) -> None:
    address, password = relay.account()
    client = relay.client()
    import http.client

    names = [f'some-rather-long-user-name-{n:020}@chat.example' for n in range(999)]
    assert http.client._MAXHEADERS < 1000  # type: ignore[attr-defined]  # of answers only
    assert relay.post(mail.encrypted(PEER), *names, address, client=client)[0] == 200
    assert relay.post(mail.encrypted(PEER), *names, address, 'x@chat.example')[0] == 400
    with relay.imap(address, password) as inbox:
        assert len(wait_for(inbox, 1)) == 1


def test_a_name_that_no_account_can_have_keeps_nobody_from_the_mail(relay: WebRelay) -> None:
    address, password = relay.account()
    odd = 'jürgen@chat.example'.encode().decode('latin-1')
    assert relay.post(mail.encrypted(PEER), odd) == (200, '250 OK')
    assert relay.post(mail.encrypted(PEER), odd, address) == (200, '250 OK')
    with relay.imap(address, password) as inbox:
        assert len(wait_for(inbox, 1)) == 1


def test_a_large_message_is_streamed(relay: WebRelay) -> None:
    address, password = relay.account()
    body = mail.encrypted(PEER, address, size=8_000_000)

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    assert relay.post(body, address)[0] == 200
    other = mail.encrypted(PEER, address, size=8_000_000)
    body = other
    assert relay.post(pieces(), address)[0] == 200
    with relay.imap(address, password, timeout=60) as inbox:
        assert len(wait_for(inbox, 2)) == 2
    assert _spooled(relay) == []


def test_workers_hold_little_of_a_large_message(relay: WebRelay) -> None:
    address, _ = relay.account()
    bodies = [mail.encrypted(PEER, address, size=30_000_000) for _ in range(2)]
    assert relay.post(mail.encrypted(PEER, address), address)[0] == 200

    def peak() -> int:
        found = []
        for pid in _gunicorn(relay):
            text = Path(f'/proc/{pid}/status').read_text()
            found.append(int(text.split('VmHWM:')[1].split()[0]))
        return max(found)

    before = peak()
    for body in bodies:
        assert relay.post(body, address)[0] == 200
    assert peak() - before < 12_000  # KiB


def test_too_much_is_refused_before_it_is_sent(relay: WebRelay) -> None:
    with relay.raw() as stream:
        stream.sendall(HEAD + b'X-Mail-To: bob@chat.example\r\nContent-Length: 900000000\r\n\r\n')
        received = stream.recv(65536)
        assert received.startswith(b'HTTP/1.1 413 ')
        assert b'Connection: close' in received


def test_too_much_in_chunks_is_refused_on_the_way(room: Path) -> None:
    with WebRelay(room, {'limits.max_message_size': 200_000}) as relay:
        address, _ = relay.account()
        body = mail.encrypted(PEER, address, size=3_000_000)
        answered = relay.post((body[n : n + 50_000] for n in range(0, len(body), 50_000)), address)
        assert answered == (413, '552 5.3.4 Message exceeds maximum size')
        # who sends it all before reading still gets the answer
        assert relay.post(body, address)[0] == 413
        assert _spooled(relay) == []
        assert _statistics(relay)['too_big'] == 2


SMUGGLING = {
    'length-and-chunked': b'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'two-lengths': b'Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef',
    'lengths-in-a-list': b'Content-Length: 5, 5\r\n\r\nabcde',
    'signed-length': b'Content-Length: +5\r\n\r\nabcde',
    'negative-length': b'Content-Length: -5\r\n\r\nabcde',
    'chunked-twice': b'Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n',
    'chunked-not-last': b'Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n',
    'unknown-coding': b'Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n',
    'blank-before-colon': b'Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n',
    'folded': b'X-Mail-To: a@x.example\r\n ,b@x.example\r\nContent-Length: 0\r\n\r\n',
    'folded-coding': b'Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n',
    'bare-lf': b'X: y\nContent-Length: 0\r\n\r\n',
    'nul': b'X: \0\r\nContent-Length: 0\r\n\r\n',
    'no-colon': b'Nothing\r\nContent-Length: 0\r\n\r\n',
    'vertical-tab-coding': b'Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n',
}


@pytest.mark.parametrize('name', sorted(SMUGGLING))
def test_a_request_that_could_be_read_in_two_ways_ends_the_connection(
    relay: WebRelay, name: str
) -> None:
    with relay.raw() as stream:
        stream.sendall(HEAD + SMUGGLING[name] + b'GET /second HTTP/1.1\r\nHost: x\r\n\r\n')
        stream.shutdown(socket.SHUT_WR)
        received = answer(stream)
    assert received.split()[1] in (b'400', b'501')
    assert received.count(b'HTTP/1.1') == 1
    assert b'chunked' not in received  # nothing of the request in the answer


@pytest.mark.parametrize(
    ('chunks', 'why'),
    [
        (b'zz\r\n', 'size'),
        (b'5\r\nabcdefgh\r\n0\r\n\r\n', 'end'),
        (b'5\nabcde\n0\n\n', 'line ends'),
        (b'-5\r\nabcde\r\n0\r\n\r\n', 'sign'),
        (b'0x5\r\nabcde\r\n0\r\n\r\n', 'prefix'),
        (b'5' * 10000, 'length'),
    ],
)
def test_wrong_chunks_end_the_connection(relay: WebRelay, chunks: bytes, why: str) -> None:
    with relay.raw() as stream:
        stream.sendall(
            HEAD + b'X-Mail-To: bob@chat.example\r\nTransfer-Encoding: chunked\r\n\r\n' + chunks
        )
        stream.shutdown(socket.SHUT_WR)
        received = answer(stream)
    assert received.startswith(b'HTTP/1.1 400 ')
    assert received.count(b'HTTP/1.1') == 1


def test_a_message_that_was_cut_off_is_not_delivered(relay: WebRelay) -> None:
    address, password = relay.account()
    body = mail.encrypted(PEER, address, size=500_000)
    before = _statistics(relay)['cut_off']
    for framing in (
        b'Content-Length: %d\r\n\r\n' % len(body),
        b'Transfer-Encoding: chunked\r\n\r\n',
    ):
        with relay.raw() as stream:
            stream.sendall(HEAD + b'X-Mail-To: %s\r\n' % address.encode() + framing)
            stream.sendall(
                body[:400_000] if b'Length' in framing else b'61a80\r\n' + body[:400_000]
            )
    deadline = time.monotonic() + 5
    while _statistics(relay)['cut_off'] < before + 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with relay.imap(address, password) as inbox:
        assert wait_for(inbox, 0) == []
    assert _spooled(relay) == []


@pytest.mark.parametrize(
    ('head', 'status'),
    [
        (b'GET /' + b'x' * 10_000 + b' HTTP/1.1\r\nHost: x\r\n\r\n', 414),
        (b'GET / HTTP/1.1\r\n' + b'A: b\r\n' * 5000 + b'\r\n', 431),
        (b'GET / HTTP/1.1\r\n' + (b'A: ' + b'b' * 60_000 + b'\r\n') * 20 + b'\r\n', 431),
        (b'GET / HTTP/1.1\r\nA: ' + b'b' * 100_000 + b'\r\n\r\n', 431),
        (b'GARBAGE\r\n\r\n', 400),
        (b'EHLO mx.example\r\n', 400),
        (b'GET / HTTP/9.9\r\n\r\n', 400),
        (b'GET / HTTP/1.1\r\nExpect: miracles\r\n\r\n', 417),
        (b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', 400),
    ],
)
def test_headers_are_bounded(relay: WebRelay, head: bytes, status: int) -> None:
    with relay.raw() as stream:
        with suppress(BrokenPipeError, ConnectionResetError):
            stream.sendall(head)
        with suppress(OSError):
            stream.shutdown(socket.SHUT_WR)
        received = answer(stream)
    assert received.startswith(b'HTTP/1.1 %d ' % status)


def test_a_peer_is_asked_to_go_on(relay: WebRelay) -> None:
    address, _ = relay.account()
    body = mail.encrypted(PEER, address)
    with relay.raw() as stream:
        stream.sendall(
            HEAD
            + b'X-Mail-To: %s\r\nExpect: 100-continue\r\nConnection: close\r\n' % address.encode()
            + b'Content-Length: %d\r\n\r\n' % len(body)
        )
        assert stream.recv(100).startswith(b'HTTP/1.1 100 ')
        stream.sendall(body)
        assert answer(stream).startswith(b'HTTP/1.1 200 ')


def test_tls_is_only_where_it_belongs(relay: WebRelay) -> None:
    with relay.raw('https') as stream:
        assert isinstance(stream, ssl.SSLSocket)
        assert stream.version() in ('TLSv1.2', 'TLSv1.3')
    plain = socket.create_connection(('127.0.0.1', relay.web['http']), 20)
    with plain, pytest.raises(OSError):
        client_tls().wrap_socket(plain)
    with socket.create_connection(('127.0.0.1', relay.web['https']), 20) as bare:
        bare.sendall(b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
        assert b'200 OK' not in answer(bare)


def test_alpn_is_answered(relay: WebRelay) -> None:
    context = client_tls()
    context.set_alpn_protocols(['h2', 'http/1.1'])
    plain = socket.create_connection(('127.0.0.1', relay.web['https']), 20)
    with context.wrap_socket(plain) as stream:
        assert stream.selected_alpn_protocol() == 'http/1.1'


def test_answers_do_not_wait_for_acknowledgements(relay: WebRelay) -> None:
    """Nagle against delayed acknowledgement would make every connection take 40 ms more.

    One that did not is enough, so that a busy machine proves nothing.
    """
    for _ in range(200):
        began = time.monotonic()
        client = relay.client()
        client.request('GET', '/')
        client.getresponse().read()
        client.close()
        if time.monotonic() - began < 0.035:
            return
    pytest.fail('all of them waited')


def test_the_heartbeat_is_not_for_everybody(relay: WebRelay) -> None:
    client = relay.client('http')
    client.request('GET', '/-/alive')
    assert client.getresponse().status == 404


def test_rules_changed_by_the_command_line_hold_at_the_next_request(relay: WebRelay) -> None:
    address, _ = relay.account()
    body = mail.encrypted(PEER, address)
    relay.cli('federation', 'block', '192.0.2.9')
    assert relay.post(body, address) == (403, '554 5.7.1 Policy Rejection')
    relay.cli('federation', 'remove', '[192.0.2.9]')
    assert relay.post(body, address)[0] == 200
    relay.cli('federation', 'disable')
    assert relay.post(body, address)[0] == 403
    relay.cli('federation', 'enable')
    assert relay.post(body, address)[0] == 200


def test_the_counts_are_in_the_status(relay: WebRelay) -> None:
    address, _ = relay.account()
    before = _statistics(relay)
    relay.post(mail.encrypted(PEER, address), address)
    relay.post(mail.plain(PEER, address), address)
    after = _statistics(relay)
    assert after['delivered'] == before['delivered'] + 1
    assert after['rejected_content'] == before['rejected_content'] + 1


def test_a_shard_that_is_away_parks_or_delays_and_nothing_is_doubled(room: Path) -> None:
    with WebRelay(room) as relay:
        accounts = [relay.account() for _ in range(4)]
        names = [address for address, _ in accounts]
        body = mail.encrypted(PEER)
        stopped = relay.pids('shard')[0]
        os.kill(stopped, signal.SIGSTOP)
        first: list[tuple[int, str]] = []
        poster = threading.Thread(
            target=lambda: first.append(relay.post(body, *names, client=relay.client(timeout=60)))
        )
        poster.start()
        time.sleep(1.0)
        os.kill(stopped, signal.SIGCONT)
        poster.join()
        assert first == [(200, '250 OK')]
        assert relay.post(body, *names)[0] == 200
        for address, password in accounts:
            with relay.imap(address, password) as inbox:
                wait_for(inbox, 1)
                time.sleep(0.2)
                assert len(wait_for(inbox, 1)) == 1


def test_a_killed_worker_and_a_killed_gunicorn_are_replaced(room: Path) -> None:
    with WebRelay(room) as relay:
        address, _ = relay.account()
        (child,) = _web(relay)
        arbiter, worker = _gunicorn(relay)
        os.kill(worker, signal.SIGKILL)
        _until_served(relay, address)
        assert _web(relay) == [child]  # gunicorn's own affair
        assert worker not in _gunicorn(relay)
        os.kill(arbiter, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while arbiter in relay.processes() or _web(relay) == [child] or not _web(relay):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        _until_served(relay, address)
        (fresh,) = _web(relay)
        os.kill(fresh, signal.SIGKILL)  # takes gunicorn along
        _until_served(relay, address)
        deadline = time.monotonic() + 30
        while len(_gunicorn(relay)) != 2:  # those that were killed are gone soon
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _until_served(relay: WebRelay, address: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        with suppress(OSError):
            if relay.post(mail.encrypted(PEER, address), address)[0] == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_nothing_is_left_when_the_relay_is_killed(room: Path) -> None:
    with WebRelay(room) as relay:
        assert len(_gunicorn(relay)) == 2
        relay.kill_master()
        deadline = time.monotonic() + 10
        while relay.processes():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_reload_renews_settings_and_drops_no_request(room: Path) -> None:
    with WebRelay(room) as relay:
        address, password = relay.account()
        old = _gunicorn(relay)
        body = mail.encrypted(PEER, address, size=300_000)
        slow = relay.raw('https')
        slow.sendall(
            HEAD
            + b'X-Mail-To: %s\r\nContent-Length: %d\r\n\r\n' % (address.encode(), len(body))
            + body[:1000]
        )
        idle = relay.client()
        idle.request('GET', '/')
        idle.getresponse().read()
        failures: list[object] = []
        sent = 0
        over = threading.Event()

        def press() -> None:
            nonlocal sent
            while not over.is_set():
                try:
                    status = relay.post(mail.encrypted(PEER, address), address)
                    sent += 1
                    if status[0] != 200:
                        failures.append(status)
                except OSError as error:
                    failures.append(error)

        presser = threading.Thread(target=press)
        presser.start()
        (port,) = free_ports(1)
        relay.write_config(**{'limits.max_message_size': 400_000})
        relay.write_config(**{'listen.http': [f'127.0.0.1:{port}']})
        relay.cli('reload')
        over.set()
        presser.join()
        assert failures == []
        slow.sendall(body[1000:])
        assert slow.recv(100).startswith(b'HTTP/1.1 200 ')
        slow.close()
        relay.web['http'] = port
        assert (
            relay.post(mail.encrypted(PEER, address), address, client=relay.client('http'))[0]
            == 200
        )
        assert relay.post(mail.encrypted(PEER, address, size=500_000), address)[0] == 413
        deadline = time.monotonic() + 20
        while set(old) & set(relay.processes()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with relay.imap(address, password, timeout=60) as inbox:
            assert len(wait_for(inbox, sent + 2)) == sent + 2


def test_a_relay_without_web_listeners_runs_no_gunicorn(room: Path) -> None:
    with WebRelay(room) as relay:
        listen = dict(relay.options['listen'])
        for name in relay.web:
            del listen[name]
        relay.options['listen'] = listen
        relay.write_config()
        relay.cli('reload')
        deadline = time.monotonic() + 20
        while _gunicorn(relay) or _web(relay):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_an_operator_can_tune_gunicorn(room: Path) -> None:
    relay = WebRelay(room)
    (relay.directory / 'gunicorn.py').write_text("keepalive = 1\nworkers = 7\nbind = 'x'\n")
    with relay:
        assert len(_gunicorn(relay)) == 2
        with relay.raw() as stream:
            began = time.monotonic()
            assert stream.recv(1) == b''
            assert 0.5 < time.monotonic() - began < 5


def test_a_renewed_certificate_is_served_without_dropping_connections(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WebRelay(room) as relay:
        client = relay.client()
        client.request('GET', '/')
        client.getresponse().read()
        before = ssl.get_server_certificate(('127.0.0.1', relay.web['https']))
        for file in (relay.state_dir / 'tls').iterdir():
            file.unlink()
        relay.cli('reload')
        deadline = time.monotonic() + 20
        while ssl.get_server_certificate(('127.0.0.1', relay.web['https'])) == before:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_the_log_names_nobody(room: Path) -> None:
    relay = WebRelay(room, {'log': 'stderr', 'log_level': 'debug'})
    with relay:
        address, _ = relay.account('verysecretname')
        relay.post(mail.encrypted(PEER, address), address)
        relay.post(mail.plain(PEER, address), address)
        relay.post(b'', 'secretwrong', sender='secretsender@x y')
        for head in (b'GET /secretpath HTTP/9\r\n\r\n', b'secretgarbage\r\n\r\n'):
            with relay.raw() as stream:
                stream.sendall(head)
                answer(stream)
        text = relay.text()
    assert 'message refused' in text
    text = text.partition('dclogin:')[0] + text.partition('dclogin:')[2].partition('\n')[2]
    assert 'secret' not in text
    assert json.dumps('192.0.2.9')[1:-1] not in text


def test_the_log_is_reopened_in_all_processes(room: Path) -> None:
    log = room / 'relay.log'
    relay = WebRelay(room, {'log': str(log), 'log_level': 'info'})
    with relay:
        address, _ = relay.account()
        relay.post(mail.plain(PEER, address), address)
        assert log.read_text().count('web message refused') == 1
        log.rename(room / 'old.log')
        os.kill(relay.pids('master')[0], signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while not log.exists() or 'web message refused' not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.2)
            relay.post(mail.plain(PEER, address), address)


def test_one_address_holds_a_bounded_number_of_connections(room: Path) -> None:
    with WebRelay(room, {'limits.connections_per_ip': 5}) as relay:
        held = []
        for _ in range(5):
            stream = relay.raw()
            stream.sendall(b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
            assert stream.recv(65536).startswith(b'HTTP/1.1 200 ')
            held.append(stream)
        with relay.raw() as sixth:
            assert answer(sixth) == b''
        held.pop().close()
        deadline = time.monotonic() + 5
        while True:
            with relay.raw() as stream:
                stream.sendall(b'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
                if answer(stream).startswith(b'HTTP/1.1 200 '):
                    break
            assert time.monotonic() < deadline
        for stream in held:
            stream.close()


def test_several_workers_share_the_work(room: Path) -> None:
    with WebRelay(room, {'processes.web': 3}) as relay:
        assert len(_gunicorn(relay)) == 4
        address, password = relay.account()
        before = _statistics(relay)['delivered']
        for _ in range(30):
            assert relay.post(mail.encrypted(PEER, address), address)[0] == 200
        assert _statistics(relay)['delivered'] == before + 30
        with relay.imap(address, password) as inbox:
            assert len(wait_for(inbox, 30)) == 30


def test_a_certificate_from_files_is_served_even_when_they_cannot_be_read_again(
    tmp_path: Path,
) -> None:
    files = self_signed.ensure(tmp_path / 'tls', 'chat.example')
    spare = self_signed.ensure(tmp_path / 'spare', 'chat.example')
    for path in files:
        path.unlink()
    settings = Settings.defaults(
        {'tls.mode': 'file', 'tls.cert_file': str(files[0]), 'tls.key_file': str(files[1])}
    )
    with pytest.raises(Unusable):
        ServerTLS(settings, tmp_path)
    tls = ServerTLS(settings, tmp_path, spare)
    assert tls.context('http/1.1').get_ca_certs() == []
    assert not tls.changed()
