"""Which of a host's addresses is tried first, and which way."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent import socket

from madmail.delivery.dns import Answer, Status
from madmail.delivery.relaying import ADDRESSES_LIMIT, MEMORY_TIME, Relaying, alternating
from madmail.delivery.route import Router
from madmail.delivery.tracker import Tracker
from madmail.settings import Settings
from madmail.store.interface import OutboxEntry
from madmail.store.spool import MemoryBody
from tests.delivery.test_transport_http import six
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


def relaying(port: int, now: list[float], *addresses: str) -> Relaying:
    settings = Settings.defaults(federation__transports=['smtp'], federation__smtp_port=port)
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
