"""Three whole relays in a row: one.example and two.example never reach each other."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from madmail.cli.main import main
from tests.delivery.name_server import NameServer
from tests.system import mail
from tests.system.relay import fetch_all, free_ports
from tests.system.test_federation import exactly, identity, post, records
from tests.web.conftest import WebRelay

NOWHERE = '127.0.0.1:1'  # no name server
HOUR = '3600'


class Row:
    """one.example, the exchanger between, two.example."""

    def __init__(self, directory: Path, **options: Any) -> None:
        shared: dict[str, Any] = {
            'processes': {'gates': 1, 'shards': 2},
            'federation': {'dkim': 'off'},
            'dns': {'servers': [NOWHERE]},
            'queue': {'first_retry': 1},
            'exchanger': {'lease': 2},
            **options,
        }
        self.one, self.between, self.two = (
            WebRelay(directory / name, {**shared, 'domain': f'{name}.example'})
            for name in ('one', 'between', 'two')
        )
        self.relays = (self.one, self.between, self.two)

    def __enter__(self) -> Row:
        for relay in self.relays:
            relay.start()
        return self

    def __exit__(self, *_: object) -> None:
        for relay in self.relays:
            relay.stop()

    def clear(self) -> None:
        for relay in self.relays:
            for one in data(relay, 'list')['exchangers']:
                data(relay, 'remove', one['name'])

    def hold(self) -> str:
        """The exchanger keeps mail for two.example until it is fetched; the token."""
        words = ('add', 'two', '--domain', 'two.example', '--mode', 'pull', '--carry')
        return str(data(self.between, *words)['pull_token'])

    def fetch(self, token: str, protocol: str = 'b', interval: str = HOUR) -> None:
        """two.example fetches its mail."""
        base = f'{url(self.between)}/exchanger'
        if protocol == 'a':
            data(self.two, 'add', 'x', f'{base}/{token}', '--interval', interval)
        else:
            data(self.two, 'add', 'x', base, '--token', token, '--interval', interval)


def url(relay: WebRelay) -> str:
    return f'https://127.0.0.1:{relay.web["https"]}'


def data(relay: WebRelay, *words: str) -> Any:
    """A command of the family, in this process."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(['--config', str(relay.config), '--json', 'exchanger', *words]) == 0
    return json.loads(said.getvalue())['data']


def ask(relay: WebRelay, method: str, path: str, token: str = '', body: str = '') -> Any:
    """Status and answer of a request to a relay's pull endpoints."""
    client = relay.client()
    fields = {'Authorization': f'Bearer {token}'} if token else {}
    client.request(method, f'/exchanger/{path}', body or None, fields)
    response = client.getresponse()
    text = response.read()
    client.close()
    return response.status, json.loads(text) if response.status == 200 else None


def until(test: Any, patience: float = 20.0) -> Any:
    end = time.monotonic() + patience
    while not (found := test()):
        assert time.monotonic() < end, 'it did not come'
        time.sleep(0.05)
    return found


def waiting(relay: WebRelay) -> int:
    return int(data(relay, 'status')['waiting'])


@pytest.fixture(scope='module')
def shared_row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    with Row(tmp_path_factory.mktemp('row')) as row:
        yield row


@pytest.fixture
def row(shared_row: Row) -> Iterator[Row]:
    yield shared_row
    shared_row.clear()


def arrives(row: Row, alice: tuple[str, str], *sizes: int) -> None:
    """Messages of alice to two accounts of two.example, each once and whole."""
    bob, carol = row.two.account(), row.two.account()
    sent = [post(row.one, alice, bob[0], carol[0], size=size) for size in sizes]
    for account in (bob, carol):
        with row.two.imap(*account) as client:
            found = {identity(one): one for one in exactly(client, len(sent))}
        for text in sent:
            assert found[identity(text)].partition(b'\r\n\r\n')[2] == text.partition(b'\r\n\r\n')[2]


def test_push_push(row: Row) -> None:
    ways = ('--domain', 'two.example', '--mode', 'push')
    data(row.one, 'add', 'x', url(row.between), *ways)
    data(row.between, 'add', 'two', url(row.two), *ways, '--carry')
    arrives(row, row.one.account(), 3000, 400_000)


@pytest.mark.parametrize('protocol', ['a', 'b'])
def test_push_pull_and_a_waiting_message_leaves_at_once(row: Row, protocol: str) -> None:
    data(row.one, 'add', 'x', url(row.between), '--domain', '*')
    row.fetch(row.hold(), protocol)
    # An interval of an hour: what comes now, comes by a request that has waited for it.
    arrives(row, row.one.account(), 3000, 400_000, 3000)
    until(lambda: data(row.between, 'status', 'two')['exchangers'][0]['given_total'] >= 3)
    assert waiting(row.between) == 0


def test_pull_pull(row: Row) -> None:
    gate = data(row.one, 'add', 'x', '--domain', 'two.example', '--mode', 'pull')
    base = f'{url(row.one)}/exchanger'
    data(
        row.between,
        *('add', 'one', base, '--token', gate['pull_token'], '--interval', HOUR),
        *('--fetch', 'two.example'),
    )
    row.fetch(row.hold())
    arrives(row, row.one.account(), 3000, 400_000)
    assert waiting(row.one) == waiting(row.between) == 0


def test_what_is_held_is_not_sent_until_the_operator_says_so(row: Row) -> None:
    data(row.between, 'add', 'two', url(row.two), '--domain', 'two.example', '--carry')
    gate = data(row.one, 'add', 'x', '--domain', 'two.example', '--mode', 'pull')
    alice, bob = row.one.account(), row.two.account()
    text = post(row.one, alice, bob[0])
    status, page = ask(row.one, 'GET', 'pull?domain=TWO.example.&wait=5', gate['pull_token'])
    assert (status, page['count']) == (200, 1)
    with row.two.imap(*bob) as client:
        assert fetch_all(client) == {}
        data(row.one, 'update', 'x', '--url', url(row.between), '--mode', 'push')
        assert [identity(one) for one in exactly(client, 1)] == [identity(text)]


def test_both_ways_at_once_deliver_once(row: Row) -> None:
    words = ('--domain', 'two.example', '--mode', 'both', '--carry')
    token = data(row.between, 'add', 'two', url(row.two), *words)['pull_token']
    data(row.one, 'add', 'x', url(row.between), '--domain', 'two.example')
    row.fetch(token)
    alice, bob = row.one.account(), row.two.account()
    sent = {identity(post(row.one, alice, bob[0])) for _ in range(20)}
    with row.two.imap(*bob) as client:
        assert {identity(one) for one in exactly(client, 20)} == sent


def test_a_stranger_gets_and_removes_nothing(row: Row) -> None:
    data(row.one, 'add', 'x', url(row.between), '--domain', 'two.example')
    token = row.hold()
    other = data(row.between, 'add', 'other', '--domain', 'other.example', '--mode', 'pull')
    alice, bob = row.one.account(), row.two.account()
    text = post(row.one, alice, bob[0])
    until(lambda: waiting(row.between) == 1)
    for wrong in ('', 'x' * 32, token + 'x', token[:-1]):
        assert ask(row.between, 'GET', 'pull?domain=two.example', wrong)[0] in (401, 429)
        assert ask(row.between, 'GET', f'{wrong or "x"}/me/full')[0] in (401, 429)
    for domain in ('two.example', '*'):
        status, page = ask(row.between, 'GET', f'pull?domain={domain}', other['pull_token'])
        assert (status, page['count']) == (200, 0)
    status, page = ask(row.between, 'GET', 'pull?domain=two.example', token)
    [message] = page['messages']
    ids = json.dumps({'ids': [message['id']]})
    status, said = ask(row.between, 'POST', 'pull/ack', other['pull_token'], ids)
    assert (status, said['acked']) == (200, 0)
    assert ask(row.between, 'POST', 'pull/ack', 'x' * 32, ids)[0] in (401, 429)
    row.fetch('x' * 32, interval='1')
    said = row.two.cli('--json', 'exchanger', 'poll', 'x', check=False)
    assert said.returncode == 1
    error = json.loads(said.stdout)['data']['last_error']
    assert 'answered 401' in error or 'answered 429' in error
    with row.two.imap(*bob) as client:
        assert fetch_all(client) == {}
        data(row.two, 'update', 'x', '--token', token)
        assert [identity(one) for one in exactly(client, 1)] == [identity(text)]


def test_a_lease_ends_and_an_acknowledgement_ends_it_all(row: Row) -> None:
    data(row.one, 'add', 'x', url(row.between), '--domain', 'two.example')
    token = row.hold()
    alice = row.one.account()
    post(row.one, alice, 'bob@two.example', 'eve@two.example')

    def pull() -> list[dict[str, Any]]:
        status, page = ask(row.between, 'GET', 'pull?domain=two.example', token)
        assert status == 200
        found: list[dict[str, Any]] = page['messages']
        return found

    until(lambda: waiting(row.between) == 1)
    first = pull()
    assert sorted(one['mail_to'] for one in first) == ['bob@two.example', 'eve@two.example']
    assert pull() == []
    again = until(lambda: pull())
    assert {one['id'] for one in again} == {one['id'] for one in first}
    ids = [one['id'] for one in again]
    body = json.dumps({'ids': ids})
    assert ask(row.between, 'POST', 'pull/ack', token, body)[1] == {'status': 'ok', 'acked': 2}
    assert ask(row.between, 'POST', 'pull/ack', token, body)[1] == {'status': 'ok', 'acked': 0}
    assert waiting(row.between) == 0


def test_clients_of_others_get_what_their_dialect_says(row: Row) -> None:
    data(row.one, 'add', 'x', url(row.between), '--domain', 'two.example')
    token = row.hold()
    alice = row.one.account()
    large = post(row.one, alice, 'bob@two.example', size=300_000)
    until(lambda: waiting(row.between) == 1)
    [one] = ask(row.between, 'GET', 'pull?domain=two.example', token)[1]['messages']
    assert (one['mail_from'], one['mail_to']) == (alice[0], 'bob@two.example')
    text = one['body'].encode()
    assert base64.b64decode(one['body_b64']) == text
    assert text.partition(b'\r\n\r\n')[2] == large.partition(b'\r\n\r\n')[2]
    # The other dialect has nobody to say that it is safe: it is, once it was said.
    page = until(lambda: next(iter(ask(row.between, 'GET', f'{token}/me/full')[1]['messages']), 0))
    assert base64.b64decode(page['body']) == text
    assert page['to'] == ['bob@two.example']
    until(lambda: waiting(row.between) == 0)
    assert ask(row.between, 'GET', f'{token}/me/full')[1]['count'] == 0
    assert ask(row.between, 'GET', 'pull', token)[0] == 400
    assert ask(row.between, 'POST', 'pull/ack', token, '{"ids": "x"}')[0] == 400
    assert ask(row.between, 'POST', 'pull/ack', token, '{"ids": [0]}')[0] == 400
    data(row.between, 'update', 'two', '--url', url(row.two), '--mode', 'push')
    assert ask(row.between, 'GET', 'pull?domain=two.example', token)[0] == 401


def kill(relay: WebRelay) -> None:
    """SIGKILL to all of it at once, as a power cut would."""
    for pid in relay.processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    assert relay.process is not None
    relay.process.wait(10)
    until(lambda: not relay.processes())


def test_an_exchanger_killed_with_leases_out_loses_and_doubles_nothing(row: Row) -> None:
    data(row.one, 'add', 'x', url(row.between), '--domain', 'two.example')
    token = row.hold()
    alice, bob = row.one.account(), row.two.account()
    sent = [identity(post(row.one, alice, bob[0])) for _ in range(8)]
    until(lambda: waiting(row.between) == 8)
    leased = ask(row.between, 'GET', 'pull?domain=two.example&group=1', token)[1]
    assert leased['count'] == 8
    kill(row.between)
    row.between.start()
    row.fetch(token, interval='1')
    with row.two.imap(*bob) as client:
        assert sorted(map(identity, exactly(client, 8))) == sorted(sent)
        # And while it works, in the middle of whatever it does.
        with row.one.smtp(*alice) as sender:
            for number in range(60):
                text = mail.encrypted(alice[0], bob[0], size=3000)
                assert sender.sendmail(alice[0], [bob[0]], text) == {}
                sent.append(identity(text))
                if number in (20, 45):
                    kill(row.between)
                    row.between.start()
        assert sorted(map(identity, exactly(client, 68, 40.0))) == sorted(sent)


class Liar(BaseHTTPRequestHandler):
    """An exchanger that gives out what it likes, once."""

    page: bytes = b''
    acked: list[int]

    def do_GET(self) -> None:
        page, type(self).page = self.page, b'{"count": 0, "messages": []}'
        self._answer(page)

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers['Content-Length']))
        self.acked.extend(json.loads(text)['ids'])
        self._answer(b'{"status": "ok", "acked": 1}')

    def _answer(self, text: bytes) -> None:
        self.send_response(200)
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


def test_an_exchanger_cannot_lie_about_the_sender(tmp_path: Path) -> None:
    with NameServer() as names:
        options = {'dns': {'servers': [names.address]}, 'federation': {'dkim': 'require'}}
        with Row(tmp_path, **options) as row:
            for line in records(row.one):
                names.add(*line)
            alice, bob = row.one.account(), row.two.account()
            # The signature of one.example holds behind the exchanger.
            data(row.one, 'add', 'x', url(row.between), '--domain', 'two.example')
            row.fetch(row.hold())
            text = post(row.one, alice, bob[0])
            with row.two.imap(*bob) as client:
                assert [identity(one) for one in exactly(client, 1)] == [identity(text)]
            # What nobody has signed passes neither the exchanger nor the end.
            forged = mail.encrypted(alice[0], bob[0])
            status, said = row.between.post(forged, bob[0], sender=alice[0])
            assert (status, said) == (400, '554 5.7.1 No DKIM signature found')
            plain = b'From: <a@[192.0.2.9]>\r\nSubject: hi\r\n\r\nin the clear\r\n'
            honest = mail.encrypted('fay@[192.0.2.9]', bob[0])
            Liar.acked = []
            Liar.page = json.dumps(
                {
                    'messages': [
                        {'id': n, 'mail_from': sender, 'mail_to': bob[0], 'body': body.decode()}
                        for n, (sender, body) in enumerate(
                            [
                                (alice[0], forged),
                                ('', forged),
                                ('a@[192.0.2.9]', plain),
                                ('fay@[192.0.2.9]', honest),
                                ('fay@[192.0.2.9]', honest),
                            ]
                        )
                    ]
                }
            ).encode()
            [port] = free_ports(1)
            server = HTTPServer(('127.0.0.1', port), Liar)
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                base = f'http://127.0.0.1:{port}'
                data(row.two, 'add', 'liar', base, '--token', 'known', '--interval', HOUR)
                until(lambda: len(Liar.acked) == 5)
            finally:
                server.shutdown()
                thread.join()
                server.server_close()
            with row.two.imap(*bob) as client:
                found = [identity(one) for one in exactly(client, 2)]
            assert sorted(found) == sorted([identity(text), identity(honest)])
            until(
                lambda: (
                    [
                        one['refused_total']
                        for one in data(row.two, 'status')['exchangers']
                        if one['name'] == 'liar'
                    ]
                    == [3]
                )
            )
