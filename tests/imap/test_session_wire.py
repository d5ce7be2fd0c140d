"""Sessions on real wires: Python's imaplib as client, and a parked IDLE."""

from __future__ import annotations

import gc
import imaplib
import socket
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent import get_hub
from gevent.threadpool import ThreadPool

from madmail.imap.session import ImapSession
from madmail.shard.wire import Wire
from tests.imap.wire_double import ShardDouble, message


def serve(shard: ShardDouble, stream: socket.socket, tag: bytes = b'') -> Wire:
    stream.setblocking(False)
    failures: list[BaseException] = []
    wire = Wire(stream, failures.append)
    account = shard.account()
    wire.attach(ImapSession(wire, shard, account, tag))  # type: ignore[arg-type]
    return wire


class Listening:
    """A port on loopback whose connections are logged in at once (PREAUTH)."""

    def __init__(self, shard: ShardDouble) -> None:
        self._shard = shard
        shard.account()  # made here, for a callback of the loop cannot wait for the disk
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.wires: list[Wire] = []
        self._watcher = get_hub().loop.io(self.listener.fileno(), 1)
        self._watcher.start(self._accept)

    def _accept(self) -> None:
        stream, _ = self.listener.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.sendall(b'* PREAUTH ready\r\n')
        self.wires.append(serve(self._shard, stream))

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        self.listener.close()


def in_thread(function: Callable[[], Any]) -> Any:
    pool = ThreadPool(1)
    try:
        return pool.apply(function)
    finally:
        pool.kill()


def test_imaplib_can_do_everything_it_knows(shard: ShardDouble) -> None:
    server = Listening(shard)

    def dialogue() -> None:
        client = imaplib.IMAP4('127.0.0.1', server.port)
        assert 'MOVE' in client.capabilities
        assert client.select() == ('OK', [b'0'])
        for number in range(1, 4):
            date = imaplib.Time2Internaldate(time.time())
            typ, data = client.append('INBOX', '(\\Seen)', date, message(number))
            assert typ == 'OK', data
        assert client.select('INBOX') == ('OK', [b'3'])
        typ, data = client.fetch('1:*', '(RFC822)')
        assert typ == 'OK'
        assert [part[1] for part in data if isinstance(part, tuple)] == [
            message(number) for number in range(1, 4)
        ]
        assert client.search(None, 'SUBJECT', '"message 2"') == ('OK', [b'2'])
        assert client.uid('SEARCH', 'ALL') == ('OK', [b'1 2 3'])
        assert client.store('1', '+FLAGS', '\\Deleted')[0] == 'OK'
        assert client.create('Sent')[0] == 'OK'
        assert client.copy('2:3', 'Sent')[0] == 'OK'
        assert client.expunge() == ('OK', [b'1'])
        assert client.list()[1] == [
            b'(\\HasNoChildren) "/" "INBOX"',
            b'(\\HasNoChildren) "/" "Sent"',
        ]
        assert client.status('Sent', '(MESSAGES UIDNEXT)')[1] == [b'"Sent" (MESSAGES 2 UIDNEXT 3)']
        assert client.subscribe('Sent')[0] == 'OK'
        assert client.lsub()[0] == 'OK'
        assert client.getquotaroot('INBOX')[0] == 'OK'
        assert client.namespace()[1] == [b'(("" "/")) NIL NIL']
        assert client.rename('Sent', 'Gone')[0] == 'OK'
        assert client.delete('Gone')[0] == 'OK'
        assert client.noop()[0] == 'OK'
        assert client.check()[0] == 'OK'
        assert client.close()[0] == 'OK'
        assert client.logout()[0] == 'BYE'

    try:
        in_thread(dialogue)
    finally:
        server.close()


def test_a_parked_idle_has_no_greenlet_and_hears_of_mail_at_once(shard: ShardDouble) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def receive(until: bytes) -> bytes:
        data = b''
        deadline = time.monotonic() + 5
        while until not in data:
            assert time.monotonic() < deadline, data
            try:
                data += theirs.recv(65536)
            except BlockingIOError:
                gevent.sleep(0.0005)
        return data

    wire = serve(shard, ours, b'A0001')
    receive(b'Logged in\r\n')
    theirs.sendall(b'A0002 SELECT "INBOX"\r\nA0003 IDLE\r\n')
    receive(b'+ idling\r\n')
    gevent.sleep(0.01)
    session = wire.session
    greenlets = [
        each for each in gc.get_objects() if isinstance(each, gevent.Greenlet) and not each.dead
    ]
    assert not wire.busy
    assert not greenlets
    spool = shard.spool()
    spool.append(message(1))
    shard.store.deliver(spool.finish(), ['ann@chat.example'], delivery_id=b'1' * 16)
    # The octets are in the socket before the deliverer goes on.
    assert theirs.recv(65536) == b'* 1 EXISTS\r\n* 1 RECENT\r\n'
    theirs.sendall(b'DONE\r\n')
    receive(b'A0003 OK Idle completed\r\n')
    theirs.close()
    with gevent.Timeout(2):
        while wire.session is session:
            gevent.sleep(0.001)
    assert len(shard.boxes) == 0
