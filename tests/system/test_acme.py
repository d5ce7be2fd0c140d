"""Certificates from an authority: a real relay, and Pebble as the authority."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from madmail.tls import acme
from tests.delivery.name_server import NameServer
from tests.system import pebble
from tests.system.pebble import Pebble
from tests.system.relay import Relay, free_ports

pytestmark = pytest.mark.skipif(
    pebble.PROGRAM is None, reason='there is no pebble, the ACME server for tests'
)

NAME = 'chat.example'
PATIENCE = 60.0  # seconds; only a hang takes as long


class Place:
    """A relay, its name server and its authority."""

    def __init__(self, directory: Path, names: NameServer) -> None:
        self.directory = directory
        self.names = names
        self.http, self.https = free_ports(2)
        self.authority: Pebble
        self.relay: Relay

    def pebble(self, names: NameServer | None = None, **how: Any) -> Pebble:
        at = (names or self.names).address
        self.authority = Pebble(self.directory / 'pebble', at, self.http, **how)
        return self.authority

    def options(self, **more: Any) -> dict[str, Any]:
        return {
            'listen.http': [f'127.0.0.1:{self.http}'],
            'listen.https': [f'127.0.0.1:{self.https}'],
            'dns.servers': [self.names.address],
            'tls.mode': 'acme',
            'tls.acme_directory': self.authority.url,
            'tls.acme_ca_file': str(self.authority.root),
            'tls.acme_email': 'admin@chat.example',
            **more,
        }

    def make(self, **more: Any) -> Relay:
        self.relay = Relay(self.directory / 'relay', self.options(**more))
        return self.relay

    def state(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(
                (self.relay.state_dir / 'tls' / 'acme-state.json').read_text()
            )
        except FileNotFoundError:
            return {}
        return found

    def served(self, name: str, host: str = NAME) -> x509.Certificate:
        """What a listener presents; verified if it was issued."""
        ports = {**self.relay.ports, 'https': self.https}
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(('127.0.0.1', ports[name]), 10) as plain,
            context.wrap_socket(plain, server_hostname=host) as stream,
        ):
            der = stream.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der)

    def verify(self, name: str, host: str = NAME) -> None:
        """As a strict client that trusts the authority alone."""
        ports = {**self.relay.ports, 'https': self.https}
        context = ssl.create_default_context(cadata=self.authority.issuer().decode())
        with (
            socket.create_connection(('127.0.0.1', ports[name]), 10) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            pass

    def cli(self, *arguments: str, good: bool = True) -> dict[str, Any]:
        done = self.relay.cli('--json', *arguments, check=False, timeout=120)
        assert (done.returncode == 0) == good, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads((done.stdout if good else done.stderr).splitlines()[-1])
        return answer


def until(what: Callable[[], Any], patience: float = PATIENCE) -> Any:
    end = time.monotonic() + patience
    while not (found := what()):
        assert time.monotonic() < end, 'it did not come true'
        time.sleep(0.1)
    return found


def issued(certificate: x509.Certificate) -> bool:
    return certificate.issuer != certificate.subject


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with NameServer() as names:
        names.add(NAME, 'A', '127.0.0.1')
        place = Place(tmp_path, names)
        try:
            yield place
        finally:
            if hasattr(place, 'relay'):
                place.relay.stop()
            if hasattr(place, 'authority'):
                place.authority.stop()


def test_a_relay_without_a_certificate_gets_one_and_all_ports_present_it(place: Place) -> None:
    place.names.add(f'mta-sts.{NAME}', 'CNAME', f'{NAME}.')
    place.names.add(f'www.{NAME}', 'A', '127.0.0.9')  # somebody else's
    place.pebble(environment={'PEBBLE_WFE_NONCEREJECT': '30'}).start()
    place.make().start()
    until(lambda: place.state().get('obtained'))
    for name in ('https', 'imaps', 'submissions'):
        until(lambda name=name: issued(place.served(name)))
        place.verify(name)
        place.verify(name, f'mta-sts.{NAME}')
        with pytest.raises(ssl.SSLCertVerificationError):
            place.verify(name, f'www.{NAME}')


def test_renewal_disturbs_nobody_and_keeps_the_key(place: Place) -> None:
    place.pebble().start()
    relay = place.make().start()
    first = until(lambda: (c := place.served('imaps')) and issued(c) and c)
    with relay.imap(*relay.credentials()) as session:
        assert place.cli('certificate', 'get')['data']['action'] == 'kept'
        task = place.cli('tasks', 'run', 'renew-cert')['data']
        assert task == {
            'task': 'renew-certificate',
            'skipped': False,
            'renewed': False,
            'detail': 'not due yet',
        }
        again = place.cli('certificate', 'regenerate')['data']
        assert (again['action'], again['domain']) == ('issued', NAME)
        second = until(
            lambda: (c := place.served('imaps')).serial_number != first.serial_number and c
        )
        assert second.public_key() == first.public_key()
        place.cli('certificate', 'regenerate', '--new-key')
        third = until(
            lambda: (c := place.served('imaps')).serial_number != second.serial_number and c
        )
        assert third.public_key() != first.public_key()
        assert session.noop()[0] == 'OK'

        tested = place.cli('certificate', 'get', '--staging')
        assert tested['data']['action'] == 'tested'
        assert place.served('imaps') == third

        # Authorities lock out who asks too often.
        refusal = place.cli('certificate', 'regenerate', good=False)['error']
        assert '4 tries within an hour' in refusal
        assert session.noop()[0] == 'OK'
    told = place.cli('certificate', 'autocert', 'status')['data']
    assert told['enabled']
    assert told['error'] is None
    assert told['renew_within_days'] > 0
    assert not list((relay.state_dir / 'tls' / 'challenges').iterdir())
    for name in ('acme.pem', 'acme-account.json', 'acme-state.json'):
        assert (relay.state_dir / 'tls' / name).stat().st_mode & 0o777 == 0o600

    # A process that is born later does not have what the master had read.
    (gate,) = relay.pids('gate')
    os.kill(gate, signal.SIGKILL)
    until(lambda: relay.pids('gate') not in ([], [gate]))
    relay.wait_ready()
    assert place.served('imaps') == third


def test_it_is_switched_on_while_the_relay_runs_and_renews_what_is_due(place: Place) -> None:
    place.pebble(life=8).start()
    relay = place.make(**{'tls.mode': 'self_signed'}).start()
    assert place.cli('certificate', 'autocert', 'status')['data'] == {
        'enabled': False,
        'tls_mode': 'self_signed',
    }
    with relay.imap(*relay.credentials()) as session:
        enable = ('certificate', 'autocert', 'enable', '--email', 'admin@chat.example')
        data = place.cli(*enable, '--obtain')['data']
        assert data == {
            'enabled': True,
            'domain': NAME,
            'acme_email': 'admin@chat.example',
            'obtained': True,
        }
        assert len(place.state()['tries']) == 1
        first = until(lambda: (c := place.served('imaps')) and issued(c) and c)
        ends = first.not_valid_after_utc.timestamp()
        time.sleep(max(0.0, ends - time.time()))
        relay.reload()
        second = until(
            lambda: (c := place.served('imaps')).serial_number != first.serial_number and c
        )
        assert second.not_valid_after_utc > first.not_valid_after_utc
        assert session.noop()[0] == 'OK'


def test_a_refused_challenge_is_told_and_not_repeated(place: Place) -> None:
    place.names.put(NAME, 'A', '127.0.0.2')  # where nobody answers
    place.pebble().start()
    relay = place.make().start()
    state = until(lambda: (s := place.state()).get('ended') and s)
    assert state['word'] == 'connection'
    assert NAME in state['error']
    assert state['failures'] == 1
    assert 800 < state['next'] - state['ended'] < 1300
    assert not issued(place.served('imaps'))

    told = place.cli('certificate', 'status')['data']
    assert told['renewal']['error'] == state['error']
    assert told['cert_type'] == 'self-signed'
    assert 'the relay serves its own' in relay.cli('status').stdout
    (row,) = [
        one
        for one in place.cli('tasks', 'list')['data']['tasks']
        if one['name'] == 'renew-certificate'
    ]
    assert (row['last_run'], row['next_run']) == (state['began'], state['next'])
    checks = json.loads(relay.cli('--json', 'doctor', check=False).stdout)['data']['checks']
    (finding,) = [one for one in checks if one['name'] == 'certificate' and one['level'] == 'bad']
    assert state['error'] in finding['seen']

    relay.stop()
    relay.start()
    time.sleep(4)  # it would have tried by now
    assert place.state() == state

    place.names.put(NAME, 'A', '127.0.0.1')
    assert place.cli('certificate', 'get')['data']['action'] == 'issued'
    until(lambda: issued(place.served('submissions')))
    state = place.state()
    assert (state['failures'], state['error']) == (0, '')


def test_a_name_that_is_refused_does_not_hold_up_the_one_that_matters(place: Place) -> None:
    place.names.add(f'www.{NAME}', 'A', '127.0.0.1')
    with NameServer() as others:  # where the authority is, the name leads elsewhere
        others.add(NAME, 'A', '127.0.0.1')
        others.add(f'www.{NAME}', 'A', '127.0.0.2')
        place.pebble(names=others).start()
        place.make().start()
        until(lambda: place.state().get('obtained'))
    certificate = until(lambda: (c := place.served('imaps')) and issued(c) and c)
    assert acme.names_of(certificate) == {NAME}
    assert list(place.state()['refused']) == [f'www.{NAME}']

    # And what is there stays while nobody answers.
    place.authority.stop()
    refusal = place.cli('certificate', 'regenerate', good=False)
    assert refusal['error'] == 'the authority does not answer'
    assert place.served('imaps') == certificate
    state = place.state()
    assert (state['failures'], state['word']) == (1, 'unreachable')


def test_an_address_as_domain(place: Place) -> None:
    place.pebble().start()
    place.make(domain='127.0.0.1').start()
    until(lambda: issued(place.served('imaps', '127.0.0.1')))
    place.verify('imaps', '127.0.0.1')


def test_a_stopped_relay_gets_one_on_port_80_itself_with_an_account_made_before(
    place: Place,
) -> None:
    secret = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip('=')
    place.pebble(accounts={'key-1': secret}).start()
    relay = place.make()
    relay.cli('init')
    refusal = place.cli('certificate', 'get', good=False)
    assert 'tls.acme_eab_id' in refusal['error']
    relay.write_config(tls={'acme_eab_id': 'key-1', 'acme_eab_secret': secret})

    with socket.create_server(('127.0.0.1', place.http)):
        refusal = place.cli('certificate', 'get', good=False)
    assert f'127.0.0.1:{place.http}' in refusal['error']

    assert place.cli('certificate', 'get', '--domain', NAME)['data']['action'] == 'issued'
    assert (
        'not the domain' in place.cli('certificate', 'get', '--domain', 'x.y', good=False)['error']
    )
    relay.start()
    for name in ('https', 'imaps', 'submissions'):
        place.verify(name)
    assert place.state()['failures'] == 0
