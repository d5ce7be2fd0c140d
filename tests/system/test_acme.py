"""Certificates from an authority: a real relay, and Pebble as the authority."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

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

    def pebble(self, **how: Any) -> Pebble:
        self.authority = Pebble(self.directory / 'pebble', self.names.address, self.http, **how)
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
