"""MTA-STS and DANE: what other domains say of their own hosts, and how long that holds."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import socket
from gevent.server import StreamServer
from gevent.ssl import SSLContext

from madmail.delivery import tls_policy
from madmail.delivery.dns import Answer, Status, Tlsa
from madmail.delivery.route import Hop
from madmail.delivery.tls_policy import (
    ABSENT_TIME,
    LOOK_TIME,
    REFRESH_TIME,
    RETRY_TIME,
    NotKnown,
    TlsPolicies,
    contexts,
    parse_policy,
)
from tests.tls.authority import Authority

DAY = 86400
ENFORCE = 'version: STSv1\r\nmode: enforce\r\nmx: {}\r\nmax_age: {}\r\n'
HOP = Hop('smtp', 'mx.two.example', 25, relay='two.example')


class Names:
    """A resolver: the id of the policy in the DNS, addresses and TLSA records."""

    def __init__(self) -> None:
        self.ident: str | None = None
        self.status = Status.FOUND
        self.secure = True
        self.records: Answer[Tlsa] = Answer(Status.NO_NAME, (), 60, True)
        self.asked: list[str] = []

    def txt(self, name: str) -> Answer[bytes]:
        assert name == '_mta-sts.two.example'
        if self.status is not Status.FOUND or self.ident is None:
            return Answer(self.status if self.ident else Status.NO_NAME)
        return Answer(Status.FOUND, (b'unrelated', f'v=STSv1; id={self.ident};'.encode()))

    def addresses(self, host: str) -> Answer[str]:
        return Answer(Status.FOUND, ('127.0.0.1',), 60, self.secure)

    def tlsa(self, name: str) -> Answer[Tlsa]:
        self.asked.append(name)
        return self.records


class Policies(TlsPolicies):
    """With a web server in memory: `text` is the policy, None while it is down."""

    def __init__(self, names: Names) -> None:
        self.now = 1_000_000.0
        self.text: str | None = None
        self.fetched = 0
        resolver: Any = names
        super().__init__(resolver, *contexts(), lambda: self.now)

    def _fetch(self, host: str) -> str | None:
        assert host == 'mta-sts.two.example'
        self.fetched += 1
        return self.text


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def policies(names: Names) -> Policies:
    return Policies(names)


def promised(policies: Policies, names: Names, host: str = 'mx.two.example') -> None:
    """Let the domain have a policy for four weeks, and look at it."""
    policies.now += LOOK_TIME
    names.ident = names.ident or '1'
    policies.text = ENFORCE.format(host, 28 * DAY)
    assert policies.allowed(HOP) is (host == HOP.host)


# -- MTA-STS


def test_a_policy_in_force_asks_for_a_right_certificate(names: Names, policies: Policies) -> None:
    assert not policies.security(HOP).required
    promised(policies, names)
    security = policies.security(HOP)
    assert security.required
    assert security.context.verify_mode is ssl.CERT_REQUIRED
    assert security.name == HOP.host
    assert not policies.allowed(HOP._replace(host='evil.example'))


def test_a_new_id_brings_the_new_policy_at_once(names: Names, policies: Policies) -> None:
    promised(policies, names, 'old.two.example')
    policies.text = ENFORCE.format('mx.two.example', 28 * DAY)
    policies.now += LOOK_TIME
    assert not policies.allowed(HOP), 'the id is the same'
    names.ident = '2'
    policies.now += LOOK_TIME - 1
    assert not policies.allowed(HOP), 'nobody has looked'
    policies.now += 1
    assert policies.allowed(HOP)
    assert policies.fetched == 2


def test_a_policy_is_not_fetched_for_each_message(names: Names, policies: Policies) -> None:
    for _ in range(10):
        promised(policies, names)
    assert policies.fetched == 1
    policies.now += REFRESH_TIME + 1
    for _ in range(10):
        assert policies.allowed(HOP)
    assert policies.fetched == 2


@pytest.mark.parametrize('trouble', ['web', 'dns', 'record'])
def test_a_promise_holds_to_its_end_and_no_longer(
    names: Names, policies: Policies, trouble: str
) -> None:
    promised(policies, names)
    evil = HOP._replace(host='evil.example')
    if trouble == 'web':
        policies.text, names.ident = None, '2'
    elif trouble == 'dns':
        names.status = Status.FAILED
    else:
        names.ident = None
    for _ in range(27):
        policies.now += DAY
        assert not policies.allowed(evil)
    policies.now += DAY + 1
    assert policies.allowed(evil)


def test_what_cannot_be_fetched_is_not_asked_for_all_the_time(
    names: Names, policies: Policies
) -> None:
    promised(policies, names)
    policies.text, names.ident = None, '2'
    for _ in range(4):
        policies.now += LOOK_TIME
        assert policies.allowed(HOP)
    assert policies.fetched == 2
    policies.now += RETRY_TIME
    policies.text = ENFORCE.format('other.two.example', DAY)
    assert not policies.allowed(HOP)


def test_a_domain_that_gets_a_policy_is_seen_to_have_one(names: Names, policies: Policies) -> None:
    assert policies.allowed(HOP)
    assert policies.fetched == 0
    promised(policies, names, 'other.two.example')
    names.ident = '2'
    policies.now += LOOK_TIME
    policies.text = ENFORCE.format('x', DAY).replace('enforce', 'none')
    assert policies.allowed(HOP)


def test_no_policy_is_asked_again_after_a_while(names: Names, policies: Policies) -> None:
    names.ident = '1'
    assert policies.allowed(HOP)
    policies.now += ABSENT_TIME + 1
    promised(policies, names, 'other.two.example')


def test_policies_do_not_concern_hosts_of_the_operator(names: Names, policies: Policies) -> None:
    promised(policies, names, 'other.two.example')
    for hop in (HOP._replace(relay=''), HOP._replace(host='192.0.2.1'), HOP._replace(verify=False)):
        assert policies.allowed(hop)


@pytest.mark.parametrize(
    ('text', 'hosts'),
    [
        ('version: STSv1\nmode: enforce\nmx: A.example\nmx: *.b.example\nmax_age: 1', True),
        ('version: STSv1\nmode: enforce\nmax_age: 1', None),
        ('version: STSv2\nmode: enforce\nmx: a.example\nmax_age: 1', None),
        ('version: STSv1\nmode: enforce\nmx: a.example\nmax_age: soon', None),
        ('version: STSv1\nmode: force\nmx: a.example\nmax_age: 1', None),
        ('version: STSv1\nmode: none\nmax_age: 1', False),
        ('', None),
    ],
)
def test_what_a_policy_is(text: str, hosts: bool | None) -> None:
    found = parse_policy(text)
    if hosts is None:
        assert found is None
        return
    assert found is not None
    policy, age = found
    assert age == tls_policy.SHORTEST
    assert policy.allows('a.example') is hosts
    assert policy.allows('x.b.example') is hosts
    assert not policy.allows('b.example')
    assert not policy.allows('x.y.b.example')


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[StreamServer, SSLContext, list[bytes]]]:
    authority = Authority(tmp_path)
    pair = authority.issue('mta-sts.two.example')
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    verified = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    verified.load_verify_locations(authority.root)
    answers: list[bytes] = []

    def serve(stream: Any, _: object) -> None:
        stream.recv(4096)
        stream.sendall(answers.pop(0))
        stream.shutdown(socket.SHUT_RDWR)
        stream.close()

    server = StreamServer(('127.0.0.1', 0), serve, ssl_context=context)
    server.start()
    yield server, verified, answers
    server.stop(0)


def test_a_policy_comes_over_verified_https_without_redirects(
    web: tuple[StreamServer, SSLContext, list[bytes]], names: Names
) -> None:
    server, verified, answers = web
    text = ENFORCE.format('other.two.example', DAY)
    names.ident = '1'
    for head, context, allowed in (
        ('200 OK', verified, False),
        ('301 Moved', verified, True),
        ('404 Not Found', verified, True),
        ('200 OK', contexts()[0], True),  # its roots do not know this certificate
    ):
        answers[:] = [f'HTTP/1.1 {head}\r\n\r\n{text}'.encode()]
        resolver: Any = names
        policies = TlsPolicies(
            resolver, context, contexts()[1], lambda: 0.0, port=server.server_port
        )
        assert policies.allowed(HOP) is allowed


# -- DANE


PROVED = HOP._replace(secure=True)


def tlsa(usage: int, selector: int = 1, matching: int = 1) -> Tlsa:
    return Tlsa(usage, selector, matching, b'x' * 32)


def test_published_certificates_are_what_counts(names: Names, policies: Policies) -> None:
    names.records = Answer(Status.FOUND, (tlsa(3), tlsa(2)), 60, True)
    security = policies.security(PROVED)
    assert security.required
    assert security.accept is not None
    assert not security.accept(b'another')
    assert names.asked == ['_25._tcp.mx.two.example']


@pytest.mark.parametrize('records', [(tlsa(2),), (tlsa(3, selector=2),), (tlsa(3, matching=9),)])
def test_records_that_nobody_can_use_still_ask_for_tls(
    names: Names, policies: Policies, records: tuple[Tlsa, ...]
) -> None:
    names.records = Answer(Status.FOUND, records, 60, True)
    security = policies.security(PROVED)
    assert security.required
    assert security.accept is None


def test_records_that_are_hidden_stop_the_mail(names: Names, policies: Policies) -> None:
    names.records = Answer(Status.FAILED)
    with pytest.raises(NotKnown):
        policies.security(PROVED)
    assert not policies.security(HOP).required, 'nobody proves that there could be any'
    names.secure = False
    assert not policies.security(PROVED).required


def test_records_without_proof_are_none(names: Names, policies: Policies) -> None:
    names.records = Answer(Status.FOUND, (tlsa(3),), 60, False)
    assert not policies.security(PROVED).required
    names.records = Answer(Status.NO_NAME, (), 60, True)
    assert not policies.security(PROVED).required


# -- the operator


def test_an_endpoint_of_the_operator_must_be_right_where_he_says_so(policies: Policies) -> None:
    for host in ('smart.example', '192.0.2.1'):
        security = policies.security(Hop('smtp', host, 587, insist=True))
        assert security.required
        assert security.name == host
        assert security.context.verify_mode is ssl.CERT_REQUIRED
    assert not policies.security(Hop('smtp', 'smart.example', 587, verify=False)).required
