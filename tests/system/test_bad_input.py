"""Strangers at `/mxdeliv` and port 25 with bad input: each gets a right answer, and neither a
spool file nor a row of a message or of the queue stays behind.
"""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest

from tests.system import mail
from tests.web.conftest import PEER, WebRelay, answer

RECIPIENTS = 20  # that a message may have
SIZE = 400_000
IDLE = 2  # seconds port 25 waits


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRelay]:
    limits = {
        'limits.max_recipients': RECIPIENTS,
        'limits.max_message_size': SIZE,
        'limits.smtp_idle': IDLE,
    }
    with WebRelay(tmp_path_factory.mktemp('bad'), limits) as relay:
        yield relay


@pytest.fixture(scope='module')
def bob(relay: WebRelay) -> str:
    address, _ = relay.account()
    return address


@pytest.fixture(autouse=True)
def nothing_stays(relay: WebRelay) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while left := _spooled(relay):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
    assert _rows(relay) == {'messages': 0, 'bodies': 0, 'outbox': 0}


def _spooled(relay: WebRelay) -> list[str]:
    return [path.name for path in relay.state_dir.rglob('spool/*')]


def _rows(relay: WebRelay) -> dict[str, int]:
    """Over all shards."""
    counts = dict.fromkeys(('messages', 'bodies', 'outbox'), 0)
    for path in relay.state_dir.glob('shards/*/*.db'):
        with closing(sqlite3.connect(f'file:{path}?mode=ro', uri=True)) as store:
            for table in counts:
                counts[table] += store.execute(f'SELECT count(*) FROM {table}').fetchone()[0]
    return counts


def _blobs(relay: WebRelay) -> list[str]:
    return [path.name for path in relay.state_dir.glob('shards/*/blobs/**/*') if path.is_file()]


def test_a_good_message_would_be_seen(relay: WebRelay) -> None:
    """What the others look for is there when mail is taken."""
    address, password = relay.account()
    assert relay.post(mail.encrypted(PEER, address), address)[0] == 200
    assert _rows(relay) == {'messages': 1, 'bodies': 1, 'outbox': 0}
    with relay.imap(address, password) as inbox:
        inbox.select()
        inbox.store('1', '+FLAGS', r'(\Deleted)')
        inbox.expunge()


# -- messages that are wrong by what they hold; both ways


def _with(head: bytes) -> Callable[[str], bytes]:
    """Encrypted mail with more in front."""
    return lambda bob: head + mail.encrypted(PEER, bob)


def _from(line: bytes) -> Callable[[str], bytes]:
    """Encrypted mail with another From."""

    def make(bob: str) -> bytes:
        lines = mail.encrypted(PEER, bob).split(b'\r\n')
        at = next(n for n, one in enumerate(lines) if one.startswith(b'From:'))
        return b'\r\n'.join([*lines[:at], line, *lines[at + 1 :]])

    return make


MESSAGES: dict[str, Callable[[str], bytes]] = {
    'too large': lambda bob: mail.encrypted(PEER, bob, size=SIZE * 2),
    'plain': lambda bob: mail.plain(PEER, bob),
    'two authors in two fields': _with(b'From: <eve@other.example>\r\n'),
    'two authors in one': _from(b'From: <fay@[192.0.2.9]>, <eve@other.example>'),
    'an author behind a fold': _from(b'From: x\r\n <eve@other.example>'),
    'a fold before the first field': _with(b' From: <fay@[192.0.2.9]>\r\n'),
    'a blank before the colon': _from(b'From : <fay@[192.0.2.9]>'),
    'no author': _from(b'X: y'),
    'an author that is unsigned': _from(b'From: <eve@other.example>'),
    'a line without a colon': _with(b'nonsense\r\n'),
    'a NUL': _with(b'X: a\0b\r\n'),
    'a bare line feed': _with(b'X: a\nBcc: b\r\n'),
    'a bare carriage return': _with(b'X: a\rBcc: b\r\n'),
    'two content types': _with(b'Content-Type: text/plain\r\n'),
    'an endless line': _with(b'X: ' + b'y' * 300_000 + b'\r\n'),
    'an endless header': _with(b'X: y\r\n' * 60_000),
    'endless folds': _with(b'X: y\r\n' + b' z\r\n' * 60_000),
    'no header': lambda bob: b'\r\n' + mail.encrypted(PEER, bob),
    'nothing': lambda bob: b'',
}


@pytest.mark.parametrize('name', MESSAGES)
def test_a_wrong_message_is_refused_by_mxdeliv(relay: WebRelay, bob: str, name: str) -> None:
    status, text = relay.post(MESSAGES[name](bob), bob)
    assert status in (400, 403, 413), (status, text)
    assert text[:3].isdigit()
    assert text[0] == '5'
    assert text.isascii()


class Peer:
    """A server that speaks to port 25 with octets of its own."""

    def __init__(self, relay: WebRelay) -> None:
        self.stream = socket.create_connection(('127.0.0.1', relay.ports['smtp']), 20)
        self.file = self.stream.makefile('rb')
        assert self.reply() == 220
        assert self.say(b'EHLO mx.example') == 250

    def say(self, line: bytes) -> int:
        self.stream.sendall(line + b'\r\n')
        return self.reply()

    def reply(self) -> int:
        """The code; 0 at the end of the stream."""
        while line := self.file.readline():
            if line[3:4] != b'-':
                return int(line[:3])
        return 0

    def ready(self, bob: str) -> None:
        """As far as the message."""
        assert self.say(b'MAIL FROM:<%s>' % PEER.encode()) == 250
        assert self.say(b'RCPT TO:<%s>' % bob.encode()) == 250
        assert self.say(b'DATA') == 354

    def close(self) -> None:
        self.file.close()
        self.stream.close()


@pytest.fixture
def peer(relay: WebRelay) -> Iterator[Peer]:
    peer = Peer(relay)
    yield peer
    peer.close()


@pytest.mark.parametrize('name', MESSAGES)
def test_a_wrong_message_is_refused_by_port_25(peer: Peer, bob: str, name: str) -> None:
    peer.ready(bob)
    body = MESSAGES[name](bob).replace(b'\r\n.', b'\r\n..')
    code = 0
    with suppress(BrokenPipeError, ConnectionResetError):
        peer.stream.sendall(body + b'\r\n.\r\n')
    code = peer.reply()
    assert 500 <= code < 600
    # and the conversation goes on, except where the stream cannot be trusted any more
    if not name.startswith('a bare'):
        assert peer.say(b'NOOP') == 250


# -- the envelope


def test_more_recipients_than_may_be(relay: WebRelay, bob: str) -> None:
    for count in (RECIPIENTS + 1, 2000):
        names = [f'u{n}@{relay.domain}' for n in range(count)]
        status, text = relay.post(mail.encrypted(PEER, bob), *names)
        assert (status, text[:9]) == (400, '452 4.5.3')


def test_more_recipient_lines_than_fit(relay: WebRelay, bob: str) -> None:
    lines = b''.join(b'X-Mail-To: u%d@%s\r\n' % (n, b'x' * 40) for n in range(20_000))
    with relay.raw() as stream:
        with suppress(BrokenPipeError, ConnectionResetError):
            stream.sendall(b'POST /mxdeliv HTTP/1.1\r\nHost: x\r\n' + lines + b'\r\n')
        assert answer(stream).startswith(b'HTTP/1.1 431 ')


def test_more_recipients_than_may_be_at_port_25(relay: WebRelay, peer: Peer) -> None:
    assert peer.say(b'MAIL FROM:<%s>' % PEER.encode()) == 250
    domain = relay.domain.encode()
    lines = [b'RCPT TO:<u%d@%s>\r\n' % (n, domain) for n in range(3000)]
    peer.stream.sendall(b''.join(lines))
    codes = [peer.reply() for _ in lines]
    assert codes[:RECIPIENTS] == [250] * RECIPIENTS
    assert set(codes[RECIPIENTS:]) <= {452, 421, 0}
    assert codes[RECIPIENTS] == 452


@pytest.mark.parametrize(
    'recipient',
    [
        'x@y@chat.example',
        '@chat.example',
        'bob@',
        '<bob@chat.example',
        'bob@chat.example>',
        'bob@chat.example extra',
        'bob@[IPv6:::1',
        'b' * 300 + '@chat.example',
    ],
)
def test_a_wrong_recipient(relay: WebRelay, bob: str, recipient: str) -> None:
    status, text = relay.post(mail.encrypted(PEER, bob), recipient)
    assert status in (400, 403)
    assert text.startswith('5')
    with closing(Peer(relay)) as peer:
        assert peer.say(b'MAIL FROM:<%s>' % PEER.encode()) == 250
        assert 500 <= peer.say(b'RCPT TO:<%s>' % recipient.encode()) < 600


def test_mail_for_others_goes_nowhere(relay: WebRelay, bob: str, peer: Peer) -> None:
    """Answered like mail to a name that is not here, so nobody learns which are."""
    assert relay.post(mail.encrypted(PEER, bob), 'eve@elsewhere.example')[0] == 200
    assert peer.say(b'MAIL FROM:<%s>' % PEER.encode()) == 250
    assert peer.say(b'RCPT TO:<eve@elsewhere.example>') == 554


@pytest.mark.parametrize('sender', ['x', 'a b@[192.0.2.9]', 'a@b@c.example', '<>x', '@[1.2.3.4]'])
def test_a_wrong_sender(relay: WebRelay, bob: str, sender: str) -> None:
    status, text = relay.post(mail.encrypted(PEER, bob), bob, sender=sender)
    assert (status, text[0]) == (400, '5')


# -- framing


def test_what_follows_a_message_is_another_request(relay: WebRelay, bob: str) -> None:
    """A length that is too short makes the rest a request, which is none."""
    body = mail.encrypted(PEER, bob)
    with relay.raw() as stream:
        stream.sendall(
            b'POST /mxdeliv HTTP/1.1\r\nHost: x\r\nX-Mail-From: %s\r\nX-Mail-To: %s\r\n'
            b'Content-Length: 50\r\n\r\n' % (PEER.encode(), bob.encode()) + body
        )
        stream.shutdown(socket.SHUT_WR)
        received = answer(stream)
    assert received.startswith(b'HTTP/1.1 400 ')
    assert b' 200 ' not in received


def test_a_message_that_never_ends(relay: WebRelay, bob: str) -> None:
    """Chunk after chunk: it is cut off at the limit, not at the end."""
    with relay.raw() as stream:
        stream.settimeout(20)
        stream.sendall(
            b'POST /mxdeliv HTTP/1.1\r\nHost: x\r\nX-Mail-From: %s\r\nX-Mail-To: %s\r\n'
            b'Transfer-Encoding: chunked\r\n\r\n' % (PEER.encode(), bob.encode())
        )
        sent = 0
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < 200 * SIZE:
                stream.sendall(b'10000\r\n' + b'x' * 65536 + b'\r\n')
                sent += 65536
        with suppress(OSError):
            received = answer(stream)
            assert received == b'' or received.startswith(b'HTTP/1.1 413 ')
    assert sent < 200 * SIZE


@pytest.mark.parametrize(
    'end', [b'\n.\n', b'\r\n.\n', b'\n.\r\n', b'\r.\r', b'\r\n.\r', b'\r.\r\n']
)
def test_no_other_end_of_data_begins_a_second_message(peer: Peer, bob: str, end: bytes) -> None:
    peer.ready(bob)
    body = mail.encrypted(PEER, bob).removesuffix(b'\r\n')
    second = b'MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n' % (
        PEER.encode(),
        bob.encode(),
    ) + mail.encrypted(PEER, bob)
    peer.stream.sendall(body + end + second + b'.\r\n')
    peer.stream.shutdown(socket.SHUT_WR)
    assert 500 <= peer.reply() < 600
    assert peer.reply() in (0, 421)


def test_a_message_that_is_cut_off(relay: WebRelay, bob: str) -> None:
    body = mail.encrypted(PEER, bob, size=SIZE // 2)
    for part in (10, len(body) // 2, len(body)):
        with closing(Peer(relay)) as peer:
            peer.ready(bob)
            peer.stream.sendall(body[:part])
        with closing(Peer(relay)) as peer:
            peer.say(b'MAIL FROM:<%s>' % PEER.encode())
            peer.say(b'RCPT TO:<%s>' % bob.encode())
            peer.stream.sendall(b'BDAT %d LAST\r\n' % len(body) + body[: part - 1])
        with relay.raw() as stream:
            stream.sendall(
                b'POST /mxdeliv HTTP/1.1\r\nHost: x\r\nX-Mail-From: %s\r\nX-Mail-To: %s\r\n'
                b'Content-Length: %d\r\n\r\n'
                % (PEER.encode(), bob.encode(), len(body) + 1)
                + body[:part]
            )
    assert _blobs(relay) == []


def test_a_message_that_stops_in_the_middle(peer: Peer, relay: WebRelay, bob: str) -> None:
    """Silence ends the session; a large message has left its file by then."""
    peer.ready(bob)
    peer.stream.sendall(mail.encrypted(PEER, bob, size=SIZE // 2)[: SIZE // 3])
    assert peer.reply() == 421
    assert peer.reply() == 0


def test_http_at_port_25_and_smtp_at_http(relay: WebRelay, bob: str) -> None:
    with socket.create_connection(('127.0.0.1', relay.ports['smtp']), 20) as stream:
        stream.sendall(b'POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<x@y.example>\r\n')
        received = answer(stream)
        assert b'\r\n250' not in received
    with relay.raw() as stream:
        stream.sendall(b'EHLO x\r\nMAIL FROM:<x@y.example>\r\n\r\n')
        assert answer(stream).startswith(b'HTTP/1.1 400 ')
