"""Which of a host's addresses is tried first, and which way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket

from madmail.delivery import relaying as relaying_module
from madmail.delivery.dns import Answer, Status
from madmail.delivery.relaying import (
    ADDRESSES_LIMIT,
    MEMORY_TIME,
    Relaying,
    Unreachable,
    alternating,
)
from madmail.delivery.route import Router
from madmail.delivery.tracker import Tracker
from madmail.settings import Settings
from madmail.store.interface import OutboxEntry
from madmail.store.spool import MemoryBody
from tests.delivery.test_transport_http import Server as Web
from tests.delivery.test_transport_http import answer, six
from tests.smtp.test_client import Server

TEXT = b'Subject: x\r\n\r\nwords\r\n'
ENTRY = OutboxEntry(1, 'a@one.example', 'two.example', ('b@two.example',), 0)


class Names:
    """A resolver that knows one host."""

    def __init__(self, *addresses: str) -> None:
        self.values = addresses

    def mx(self, domain: str) -> Answer[tuple[int, str]]:
        return Answer(Status.NO_DATA, (), 60, False)

    def addresses(self, host: str) -> Answer[str]:
        return Answer(Status.FOUND, self.values, 60, False)

    def txt(self, name: str) -> Answer[bytes]:
        return Answer(Status.NO_NAME, (), 60, False)

    def tlsa(self, name: str) -> Answer[Any]:
        return Answer(Status.NO_NAME, (), 60, False)


class NoKeys:
    def sign(self, body: object) -> bytes:
        return b''


def relaying(port: int, now: list[float], *addresses: str, web: int = 0) -> Relaying:
    settings = Settings.defaults(
        federation__transports=['http', 'smtp'] if web else ['smtp'],
        federation__plain_http=True,
        federation__http_port=web or 80,
        federation__smtp_port=port,
    )
    names: Any = Names(*addresses)
    return Relaying(
        Router(names, lambda domain: None, settings),
        names,
        NoKeys(),  # type: ignore[arg-type]
        Tracker(),
        ehlo=lambda: 'one.example',
        monotonic=lambda: now[0],
    )


def test_families_take_turns() -> None:
    assert alternating(('::1', '::2', '1.1.1.1', '2.2.2.2', '3.3.3.3')) == [
        '::1', '1.1.1.1', '::2', '2.2.2.2', '3.3.3.3',
    ]  # fmt: skip
    assert alternating(('1.1.1.1',)) == ['1.1.1.1']
    assert alternating(()) == []
    assert len(alternating([f'10.0.0.{n}' for n in range(99)])) == ADDRESSES_LIMIT


def test_the_address_that_worked_is_tried_first_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server()
    tried: list[str] = []
    real = socket.create_connection

    def connect(address: tuple[str, int], *arguments: Any) -> Any:
        tried.append(address[0])
        return real(address, *arguments)

    monkeypatch.setattr(socket, 'create_connection', connect)
    now = [1000.0]
    way = relaying(server.port, now, '2001:db8::1', '127.0.0.2', '127.0.0.1')
    order = []
    for step in (0.0, 100.0, MEMORY_TIME + 1):
        now[0] += step
        with gevent.Timeout(60):
            (reply,) = way.send(ENTRY, MemoryBody(TEXT))
        assert reply.code == 250
        order.append(tried[:])
        tried.clear()
        way.close()
    whole = ['2001:db8::1', '127.0.0.2', '127.0.0.1']
    assert order == [whole, ['127.0.0.1'], whole]
    server.close()


def test_smtp_over_ipv6() -> None:
    host = six()
    listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    listener.bind((host, 0))
    listener.listen(4)
    server = Server(listener=listener)
    way = relaying(server.port, [0.0], '::1')
    (reply,) = way.send(ENTRY, MemoryBody(TEXT))
    assert reply.code == 250
    literal = OutboxEntry(1, 'a@one.example', '[ipv6:::1]', ('b@[ipv6:::1]',), 0)
    (reply,) = way.send(literal, MemoryBody(TEXT))
    assert reply.code == 250
    assert [line for line in server.seen if line.startswith('RCPT')] == [
        'RCPT TO:<b@two.example>',
        'RCPT TO:<b@[ipv6:::1]>',
    ]
    way.close()
    server.close()


def test_connections_are_kept_for_a_few_hosts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying_module, 'SMTP_KEPT_LIMIT', 2)
    server = Server()
    way = relaying(server.port, [0.0], '127.0.0.1')
    for _ in range(2):
        for number in range(4):
            entry = OutboxEntry(1, 'a@one.example', f'{number}.example', ('b@x.example',), 0)
            assert way.send(entry, MemoryBody(TEXT))[0].code == 250
    assert server.connections == 2 + 2 * 2
    way.close()
    server.close()


# -- another way


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


@pytest.mark.parametrize(
    'status',
    [
        '200 OK',
        '403 Forbidden',
        '404 X',
        '413 X',
        '500 X',
        '502 Bad Gateway',
        '503 Service Unavailable',
    ],
)
def test_a_web_server_that_is_no_relay_does_not_keep_mail_from_smtp(web: Web, status: str) -> None:
    web.answers = [answer(status, '<html>no</html>')]
    server = Server()
    way = relaying(server.port, [0.0], '127.0.0.1', web=web.port)
    assert [reply.code for reply in way.send(ENTRY, MemoryBody(TEXT))] == [250]
    assert len(web.requests) == len(server.mails) == 1
    way.close()
    server.close()


def test_a_decision_over_http_is_not_asked_for_again_over_smtp(web: Web) -> None:
    web.answers = [answer('403 Forbidden', '554 5.7.1 no'), answer('503 Busy', '451 4.3.0 later')]
    server = Server()
    way = relaying(server.port, [0.0], '127.0.0.1', web=web.port)
    codes = [way.send(ENTRY, MemoryBody(TEXT))[0].code for _ in range(2)]
    assert codes == [554, 451]
    assert server.connections == 0
    way.close()
    server.close()


def test_a_message_too_large_for_one_way_with_the_other_closed_is_no_dead_relay(web: Web) -> None:
    web.answers = [answer('413 Content Too Large'), answer('404 Not Found'), answer('502 X')]
    way = relaying(_closed(), [0.0], '127.0.0.1', web=web.port)
    (reply,) = way.send(ENTRY, MemoryBody(TEXT))
    assert (reply.code, reply.text) == (451, 'http: status 413')
    met = []
    for _ in range(2):
        with pytest.raises(Unreachable) as unreachable:
            way.send(ENTRY, MemoryBody(TEXT))
        met.append(unreachable.value.met)
    assert met == [False, True]
    way.close()


def _closed() -> int:
    """A port where nobody listens."""
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        port: int = one.getsockname()[1]
    return port
