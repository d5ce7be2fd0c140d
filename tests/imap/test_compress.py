"""COMPRESS=DEFLATE: the same session behind deflate, small while idle, bounded on the way in."""

from __future__ import annotations

import imaplib
import socket
import zlib
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from madmail.imap import compress
from madmail.imap.compress import Compressed
from madmail.imap.session import ImapSession
from madmail.shard.wire import INPUT_LIMIT, Wire
from tests.imap.test_session_wire import Listening, in_thread
from tests.imap.wire_double import ShardDouble, message


class Client:
    """One end of a socket pair whose other end is a session in this process."""

    def __init__(self, shard: ShardDouble) -> None:
        ours, self.stream = socket.socketpair()
        ours.setblocking(False)
        self.stream.setblocking(False)
        self.failures: list[BaseException] = []
        self.wire = Wire(ours, self.failures.append)
        self.wire.attach(ImapSession(self.wire, shard, shard.account(), b''))
        self.out: Any = None
        self.into: Any = None
        self.closed = False

    def compress(self, window: int = -15) -> None:
        self.send(b'c COMPRESS DEFLATE\r\n')
        assert self.until(b'c ') == b'c OK DEFLATE active\r\n'
        self.out = zlib.compressobj(6, zlib.DEFLATED, window)
        self.into = zlib.decompressobj(-15)

    def packed(self, data: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
        return bytes(self.out.compress(data) + self.out.flush(flush))

    def send(self, data: bytes) -> None:
        self.raw(self.packed(data) if self.out is not None else data)

    def raw(self, data: bytes) -> None:
        while data:
            try:
                data = data[self.stream.send(data) :]
            except BlockingIOError:
                gevent.sleep(0.001)

    def receive(self) -> bytes:
        try:
            data = self.stream.recv(1 << 20)
        except BlockingIOError:
            return b''
        self.closed = self.closed or not data
        return bytes(self.into.decompress(data)) if self.into is not None else data

    def until(self, tag: bytes) -> bytes:
        """Everything up to a whole line that begins with `tag`."""
        data = b''
        for _ in range(4000):
            data += self.receive()
            if data.endswith(b'\r\n') and (
                data.startswith(tag) if data.count(b'\r\n') == 1 else b'\r\n' + tag in data
            ):
                return data
            if self.closed:
                break
            gevent.sleep(0.001)
        raise AssertionError(f'no {tag!r} in {data[-300:]!r}')

    @property
    def layer(self) -> Compressed:
        layer = self.wire.session
        assert isinstance(layer, Compressed)
        return layer

    def close(self) -> None:
        self.stream.close()
        self.wire.close()
        gevent.sleep(0.01)


@pytest.fixture
def client(shard: ShardDouble) -> Iterator[Client]:
    client = Client(shard)
    yield client
    client.close()
    assert client.failures == []


def test_imaplib_works_behind_it(shard: ShardDouble) -> None:
    class Deflated(imaplib.IMAP4):
        """Like a stock client that compresses: both files replaced after the OK."""

        def compress(self) -> None:
            imaplib.Commands['COMPRESS'] = ('AUTH', 'SELECTED')
            typ, data = self._simple_command('COMPRESS', 'DEFLATE')
            assert typ == 'OK', data
            self.out = zlib.compressobj(6, zlib.DEFLATED, -15)
            self.into = zlib.decompressobj(-15)
            self.ready = b''

        def send(self, data: bytes) -> None:
            if hasattr(self, 'out'):
                data = self.out.compress(data) + self.out.flush(zlib.Z_SYNC_FLUSH)
            super().send(data)

        def read(self, size: int) -> bytes:
            if not hasattr(self, 'into'):
                return super().read(size)
            while len(self.ready) < size:
                self._more()
            data, self.ready = self.ready[:size], self.ready[size:]
            return data

        def readline(self) -> bytes:
            if not hasattr(self, 'into'):
                return super().readline()
            while b'\n' not in self.ready:
                self._more()
            end = self.ready.index(b'\n') + 1
            line, self.ready = self.ready[:end], self.ready[end:]
            return line

        def _more(self) -> None:
            data = self.sock.recv(65536)
            assert data
            self.ready += self.into.decompress(data)

    server = Listening(shard)

    def dialogue() -> None:
        client = Deflated('127.0.0.1', server.port)
        assert 'COMPRESS=DEFLATE' in client.capabilities
        client.compress()
        client.tagnum = 0  # Delta Chat's library begins to count anew
        assert client.select() == ('OK', [b'0'])
        large = message(1) + b'x' * 300_000
        assert client.append('INBOX', None, None, large)[0] == 'OK'
        assert client.append('INBOX', None, None, message(2))[0] == 'OK'
        assert client.select() == ('OK', [b'2'])
        _, data = client.fetch('1:*', '(RFC822)')
        bodies = [part[1] for part in data if isinstance(part, tuple)]
        assert bodies == [imaplib.MapCRLF.sub(b'\r\n', large), message(2)]
        assert client.store('1', '+FLAGS', '\\Deleted')[0] == 'OK'
        assert client.expunge() == ('OK', [b'1'])
        assert client.logout()[0] == 'BYE'

    try:
        in_thread(dialogue)
    finally:
        server.close()


def test_nothing_else_is_a_mechanism_and_twice_is_refused(client: Client) -> None:
    client.send(b'a COMPRESS LZ4\r\n')
    assert client.until(b'a ').startswith(b'a BAD ')
    client.compress()
    client.send(b'b COMPRESS DEFLATE\r\n')
    assert client.until(b'b ').startswith(b'b NO [COMPRESSIONACTIVE]')
    client.send(b'd NOOP\r\n')
    assert client.until(b'd ') == b'd OK Noop completed\r\n'


def test_it_is_offered_as_the_setting_says(shard: ShardDouble, client: Client) -> None:
    client.send(b'a CAPABILITY\r\n')
    assert b' COMPRESS=DEFLATE' in client.until(b'a ')
    shard.settings.change('imap.compress', 'false')
    client.send(b'b CAPABILITY\r\nc COMPRESS DEFLATE\r\n')
    said = client.until(b'c ')
    assert b'COMPRESS=' not in said
    assert b'  ' not in said
    assert b'c BAD ' in said


def test_a_batch_is_answered_in_one_piece_that_can_be_read_at_once(client: Client) -> None:
    client.compress()
    client.send(b'1 NOOP\r\n2 SELECT INBOX\r\n3 NOOP\r\n')
    answer = client.until(b'3 ')
    assert answer.startswith(b'1 OK')
    assert b'2 OK' in answer


def test_input_may_come_one_octet_at_a_time(client: Client) -> None:
    client.compress()
    data = client.packed(b'1 SELECT INBOX\r\n2 APPEND INBOX {%d+}\r\n' % len(message(1)))
    data += client.packed(message(1) + b'\r\n3 NOOP\r\n')
    for octet in data:
        client.raw(bytes([octet]))
        gevent.sleep(0)
    answer = client.until(b'3 ')
    assert b'2 OK' in answer
    assert b'* 1 EXISTS' in answer


@pytest.mark.parametrize('window', [-9, -12, -15])
def test_commands_may_refer_to_what_was_sent_before_a_silence(client: Client, window: int) -> None:
    """The decompressor is given up in between; its history is not."""
    client.compress(window)
    for number in range(60):
        client.send(b'%d NOOP\r\n%da SEARCH SUBJECT "%s"\r\n' % (number, number, b'word ' * 200))
        assert b'a BAD' in client.until(b'%da ' % number)
        client.layer.tick(client.layer._heard + compress.QUIET + 1)
        assert client.layer._decompressor is None
        client.send(b'%db NOOP\r\n' % number)
        client.until(b'%db ' % number)
    assert len(client.layer._history) <= compress.WINDOW


def test_a_silence_inside_a_block_keeps_the_decompressor(client: Client) -> None:
    client.compress()
    whole = client.packed(b'1 NOOP\r\n')
    client.raw(whole[:-2])
    gevent.sleep(0.02)
    client.layer.tick(client.layer._heard + compress.QUIET + 1)
    assert client.layer._decompressor is not None
    client.raw(whole[-2:])
    client.until(b'1 ')
    # A stored block that holds the mark of a flush: the mark is data here.
    client.out = zlib.compressobj(0, zlib.DEFLATED, -15)
    stored = client.packed(b'2 NOOP \x00\x00\xff\xff\r\n')
    cut = stored.index(b'\x00\x00\xff\xff') + 4
    client.raw(stored[:cut])
    gevent.sleep(0.02)
    client.layer.tick(client.layer._heard + compress.QUIET + 1)
    assert client.layer._decompressor is not None
    client.raw(stored[cut:])
    assert client.until(b'2 ').startswith(b'2 BAD')


def test_news_in_idle_are_compressed_too(shard: ShardDouble, client: Client) -> None:
    client.compress()
    client.send(b'1 SELECT INBOX\r\n2 IDLE\r\n')
    assert client.until(b'+ ')
    client.layer.tick(client.layer._heard + compress.QUIET + 1)
    other = Client(shard)
    other.send(b'1 APPEND INBOX {%d+}\r\n%s\r\n' % (len(message(1)), message(1)))
    other.until(b'1 ')
    other.close()
    assert b'* 1 EXISTS\r\n' in client.until(b'* ')
    assert client.layer._decompressor is None


def test_few_octets_that_stand_for_many_are_bounded(client: Client) -> None:
    client.compress()
    most = 0
    bomb = client.packed(b'1 ' + bytes(100 << 20))
    for start in range(0, len(bomb), 4096):
        try:
            client.stream.send(bomb[start : start + 4096])
        except BlockingIOError:
            pass
        except OSError:
            break
        gevent.sleep(0)
        if isinstance(client.wire.session, Compressed):
            most = max(most, len(client.wire.session.input))
    for _ in range(2000):
        said = client.receive()
        if client.closed:
            break
        gevent.sleep(0.001)
    assert client.closed, said  # the framer gives up a command that is too long
    assert most <= INPUT_LIMIT + compress.STEP


@pytest.mark.parametrize('octets', [b'\xff' * 20, b'1 NOOP\r\n', b'\x03\x00'])
def test_what_is_not_deflate_ends_the_session(client: Client, octets: bytes) -> None:
    client.compress()
    client.raw(octets)
    said = b''
    for _ in range(200):
        said += client.receive()
        if client.closed:
            break
        gevent.sleep(0.005)
    assert client.closed
    assert said.startswith(b'* BYE ')


def test_it_goes_on_in_another_process(shard: ShardDouble, client: Client) -> None:
    client.compress()
    client.send(b'1 SELECT INBOX\r\n2 ENABLE CONDSTORE\r\n3 IDLE\r\n')
    client.until(b'+ ')
    state = client.layer.freeze()
    assert state is not None
    stream = client.wire.detach()
    client.wire = Wire(stream, client.failures.append)
    session = ImapSession.thaw(client.wire, shard, shard.account(), state)
    client.wire.attach(Compressed.thaw(client.wire, session, state['deflate']))
    client.send(b'DONE\r\n4 ENABLE CONDSTORE\r\n')
    answer = client.until(b'4 ')
    assert answer.startswith(b'3 OK')


def test_it_stays_where_a_client_is_inside_a_block(client: Client) -> None:
    client.compress()
    client.send(b'1 SELECT INBOX\r\n')
    client.until(b'1 ')
    client.raw(client.packed(b'2 NOOP\r\n')[:-3])
    gevent.sleep(0.02)
    assert client.layer.freeze() is None


def test_few_decompressors_live_however_many_sessions_speak(
    shard: ShardDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compress, 'LIVE', 2)
    clients = [Client(shard) for _ in range(5)]
    for each in clients:
        each.compress()
    for number in range(3):
        for each in clients:
            each.send(b'%d NOOP\r\n' % number)
            each.until(b'%d OK' % number)
        assert sum(each.layer._decompressor is not None for each in clients) == 2
    for each in clients:
        each.close()
        assert each.failures == []
    assert not compress._live
