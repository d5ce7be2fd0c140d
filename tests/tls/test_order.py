"""The process that orders: what it makes of answers, and when an authority wants renewal."""

from __future__ import annotations

import base64
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
import requests
from acme import errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from madmail.tls import acme, acme_network, acme_schedule, challenges, order
from madmail.tls.brief import ASK, Brief
from tests.tls.authority import put

PREFIX = messages.ERROR_PREFIX


@pytest.mark.parametrize(
    ('error', 'word', 'text'),
    [
        (
            messages.Error(typ=f'{PREFIX}rateLimited', detail='too many certificates'),
            acme_schedule.RATE_LIMITED,
            'too many certificates',
        ),
        (messages.Error(typ='about:blank', title='no'), 'protocol', 'about:blank'),
        (
            messages.Error(
                typ=f'{PREFIX}rejectedIdentifier',
                detail='Error creating order',
                subproblems=(messages.Error(typ=f'{PREFIX}caa', detail='CAA forbids'),),
            ),
            'rejectedIdentifier',
            'Error creating order CAA forbids',
        ),
        (errors.IssuanceError(messages.Error(typ=f'{PREFIX}caa', detail='no')), 'caa', 'no'),
        (errors.TimeoutError(), 'timeout', 'in time'),
        (requests.exceptions.SSLError('chat.example'), 'untrusted', 'tls.acme_ca_file'),
        (requests.exceptions.ConnectTimeout('chat.example'), 'unreachable', 'does not answer'),
        (errors.ClientError('what'), 'protocol', 'ClientError'),
        (acme.Unfit('it is for another key'), 'unfit', 'another key'),
        (PermissionError(13, 'Permission denied', 'f'), 'local', 'f: Permission denied'),
        (ValueError('whatever'), 'protocol', 'ValueError'),
    ],
)
def test_failures_are_told_in_a_sentence(error: Exception, word: str, text: str) -> None:
    found = order.explain(error)
    assert found[0] == word
    assert text in found[1]


def test_a_root_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    directory, root = tmp_path / 'tls', tmp_path / 'root.pem'
    directory.mkdir()
    brief = Brief(str(directory), 'https://127.0.0.1:9/dir', ('a.example',), ca_file=str(root))
    for content, text in ((None, 'No such file'), ('nothing', 'no certificate in PEM')):
        if content is not None:
            root.write_text(content)
        order.perform(brief)
        state = acme.load(directory)
        assert state.word == 'local'
        assert state.error.startswith('tls.acme_ca_file')
        assert text in state.error


def answered(status: int) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    return response


@pytest.mark.parametrize(
    ('error', 'word'),
    [
        (errors.ClientError(answered(429)), acme_schedule.RATE_LIMITED),
        (errors.ClientError(answered(503)), 'unreachable'),
        (errors.ClientError((answered(502), ValueError())), 'unreachable'),
        (errors.ClientError(answered(404)), 'protocol'),
    ],
)
def test_an_answer_without_a_reason_is_told_by_its_status(error: Exception, word: str) -> None:
    assert order.explain(error)[0] == word


class Silent(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class Served:
    """A web server in a thread, until the context ends."""

    def __init__(self, handler: type[Silent]) -> None:
        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Refuser(Served):
    """An authority that refuses every order, as `refusals` say, and then with the last one."""

    def __init__(self, *, replaces: bool = True) -> None:
        self.refusals: list[tuple[int, str, dict[str, str]]] = []
        self.orders: list[dict[str, Any]] = []
        told = self

        class Handler(Silent):
            protocol_version = 'HTTP/1.1'

            def do_GET(self) -> None:
                names = ['newNonce', 'newAccount', 'newOrder', *['renewalInfo'] * replaces]
                self.say(200, {name: f'{told.url}/{name}' for name in names}, {})

            do_HEAD = do_GET

            def do_POST(self) -> None:
                posted = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
                if self.path == '/newAccount':
                    self.say(201, {'status': 'valid'}, {'Location': f'{told.url}/account'})
                    return
                payload = posted['payload']
                told.orders.append(
                    json.loads(base64.urlsafe_b64decode(payload + '=' * (-len(payload) % 4)))
                )
                refusals = told.refusals
                status, word, fields = refusals.pop(0) if len(refusals) > 1 else refusals[0]
                self.say(status, {'type': PREFIX + word, 'detail': 'no'}, fields)

            def say(self, status: int, body: dict[str, Any], fields: dict[str, str]) -> None:
                octets = json.dumps(body).encode()
                self.send_response(status)
                for field in {
                    'Content-Type': 'application/json',
                    'Replay-Nonce': base64.urlsafe_b64encode(os.urandom(12)).decode(),
                    'Content-Length': str(len(octets)),
                    **fields,
                }.items():
                    self.send_header(*field)
                self.end_headers()
                if self.command != 'HEAD':
                    self.wfile.write(octets)

        super().__init__(Handler)


LIMITED = 429, 'rateLimited', {'Retry-After': '36000'}


class TestRefusals:
    def place(self, tmp_path: Path) -> tuple[Path, str]:
        """Where a certificate is, and what its authority calls it."""
        directory = put(tmp_path)
        certificate = acme.certificate(directory)
        assert certificate is not None
        return directory, acme_network.identifier(certificate)

    def test_a_certificate_is_called_as_in_the_example_of_the_rfc(self) -> None:
        """RFC 9773 4.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'a.example')])
        plain = (
            x509.CertificateBuilder(name, name, key.public_key(), 0x87654321)
            .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(2030, 1, 1, tzinfo=UTC))
        )
        octets = bytes.fromhex('69885b6b87464041e1b37b847ba0ae2cde01c8d4')
        named = plain.add_extension(x509.AuthorityKeyIdentifier(octets, None, None), False)
        found = acme_network.identifier(named.sign(key, hashes.SHA256()))
        assert found == 'aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE'
        assert acme_network.identifier(plain.sign(key, hashes.SHA256())) == ''

    def test_an_authority_is_left_alone_as_long_as_it_asks(self, tmp_path: Path) -> None:
        directory = tmp_path / 'tls'
        with Refuser() as authority:
            authority.refusals = [LIMITED]
            order.perform(Brief(str(directory), f'{authority.url}/dir', ('chat.example',)))
        state = acme.load(directory)
        assert (state.word, state.failures) == (acme_schedule.RATE_LIMITED, 1)
        assert 36_000 <= state.next - state.ended <= 36_900
        assert [one.get('replaces') for one in authority.orders] == [None]

    def test_a_renewal_says_what_it_replaces_and_goes_on_without_where_that_is_not_wanted(
        self, tmp_path: Path
    ) -> None:
        directory, name = self.place(tmp_path)
        with Refuser() as authority:
            source = f'{authority.url}/dir'
            acme.store(directory, acme.State(source=source))
            for refusal in ('alreadyReplaced', 'malformed', 'unauthorized', 'serverInternal'):
                authority.orders.clear()
                authority.refusals = [(409, refusal, {}), LIMITED]
                order.perform(Brief(str(directory), source, ('chat.example',)))
                asked = {'identifiers': [{'type': 'dns', 'value': 'chat.example'}]}
                assert authority.orders == [{**asked, 'replaces': name}, asked]
                assert acme.load(directory).word == acme_schedule.RATE_LIMITED
            authority.orders.clear()
            authority.refusals = [LIMITED]
            order.perform(Brief(str(directory), source, ('chat.example',)))
            assert len(authority.orders) == 1  # that would not help

    @pytest.mark.parametrize('why', ['trial', 'other source', 'other name', 'no renewalInfo'])
    def test_what_replaces_nothing_does_not_say_so(self, tmp_path: Path, why: str) -> None:
        directory, _ = self.place(tmp_path)
        with Refuser(replaces=why != 'no renewalInfo') as authority:
            authority.refusals = [LIMITED]
            source = f'{authority.url}/dir'
            acme.store(directory, acme.State(source='' if why == 'other source' else source))
            name = 'two.example' if why == 'other name' else 'chat.example'
            order.perform(Brief(str(directory), source, (name,), trial=why == 'trial'))
        (asked,) = authority.orders
        assert 'replaces' not in asked

    def test_accounts_that_cannot_be_read_are_not_replaced(self, tmp_path: Path) -> None:
        directory = tmp_path / 'tls'
        (directory / acme.ACCOUNT_FILE).mkdir(parents=True)
        with Refuser() as authority:
            order.perform(Brief(str(directory), f'{authority.url}/dir', ('chat.example',)))
        assert acme.load(directory).word == 'local'


class Suggestions(Served):
    """A server that suggests when to renew."""

    def __init__(self) -> None:
        self.window: tuple[int, int] | None = None
        self.asked: list[str] = []
        told = self

        class Handler(Silent):
            def do_GET(self) -> None:
                told.asked.append(self.path)
                answer: dict[str, Any] = {'newNonce': f'{told.url}/nonce'}
                if told.window is not None and self.path == '/dir':
                    answer['renewalInfo'] = f'{told.url}/renewal'
                elif told.window is not None:
                    start, end = (datetime.fromtimestamp(t, UTC).isoformat() for t in told.window)
                    answer = {'suggestedWindow': {'start': start, 'end': end}}
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header('Content-Type', 'application/json')
                self.send_header('Retry-After', '7200')
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        super().__init__(Handler)


class TestSuggestions:
    @pytest.fixture
    def server(self) -> Iterator[Suggestions]:
        with Suggestions() as server:
            yield server

    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        return put(tmp_path)

    def ask(self, directory: Path, server: Suggestions) -> acme.State:
        order.perform(Brief(str(directory), f'{server.url}/dir', task=ASK))
        return acme.load(directory)

    def test_a_time_in_the_window_is_kept_for_this_certificate(
        self, directory: Path, server: Suggestions
    ) -> None:
        now = int(time.time())
        server.window = (now + 1000, now + 2000)
        state = self.ask(directory, server)
        held = acme.held(directory)
        assert held is not None
        assert state.renew_for == held.digest
        assert now + 1000 <= state.renew_at <= now + 2000
        assert now + 7100 < state.ask_at < now + 7300
        names = ['chat.example']
        assert acme_schedule.due(held, names, '', state, now) == state.renew_at
        assert server.asked[1].startswith('/renewal/')
        assert not state.tries  # it is no order

    def test_an_authority_without_suggestions_is_left_alone_for_hours(
        self, directory: Path, server: Suggestions
    ) -> None:
        now = int(time.time())
        state = self.ask(directory, server)
        assert state.renew_at == 0
        assert state.ask_at >= now + 6 * 3600

    def test_one_that_is_away_is_too(self, directory: Path, server: Suggestions) -> None:
        server.close()
        now = int(time.time())
        state = self.ask(directory, server)
        assert state.renew_at == 0
        assert state.ask_at >= now + 6 * 3600


class TestInterruption:
    """An order at an authority that accepts connections and says nothing."""

    @pytest.fixture
    def silent(self, tmp_path: Path) -> Iterator[Brief]:
        with socket.create_server(('127.0.0.1', 0)) as listener:
            source = f'http://127.0.0.1:{listener.getsockname()[1]}/dir'
            yield Brief(str(tmp_path / 'tls'), source, ('chat.example',), request='me')

    def begun(self, brief: Brief) -> subprocess.Popen[bytes]:
        (Path(brief.directory)).mkdir()
        (Path(brief.directory) / '.acme.pem.0123abcd').write_text('half a key')
        challenges.put(Path(brief.directory), 'left', 'behind')
        process = brief.start()
        end = time.monotonic() + 30
        while acme.load(Path(brief.directory)).request != 'me':
            assert time.monotonic() < end
            time.sleep(0.05)
        # Dates that authorities give are taken for local time.
        assert b'TZ=UTC' in Path(f'/proc/{process.pid}/environ').read_bytes().split(b'\0')
        assert challenges.find(Path(brief.directory), 'left') is None
        assert not list(Path(brief.directory).glob('.acme.pem.*'))
        return process

    def test_one_that_is_told_to_end_is_no_failure(self, silent: Brief) -> None:
        process = self.begun(silent)
        with pytest.raises(acme.Busy):
            order.perform(silent)
        process.terminate()
        assert process.wait(30) == 1
        state = acme.load(Path(silent.directory))
        assert (state.failures, state.next, state.ended) == (0, 0, 0)
        assert len(state.tries) == 1

    def test_one_that_dies_is(self, silent: Brief) -> None:
        process = self.begun(silent)
        process.kill()
        process.wait(30)
        state = acme.load(Path(silent.directory))
        assert (state.failures, state.word) == (1, 'interrupted')
        assert state.next > time.time() + 800
        with acme.lock(Path(silent.directory)):
            pass


def test_the_library_is_in_no_process_that_lives_long() -> None:
    modules = 'madmail.delivery.process, madmail.gate.process, madmail.web.process'
    code = (
        f'import sys; import {modules}, madmail.web.application, madmail.cli.main; '
        'sys.exit(bool({"acme", "requests", "OpenSSL", "josepy"} & set(sys.modules)))'
    )
    assert subprocess.run([sys.executable, '-c', code], timeout=60).returncode == 0
