"""The sending side of SMTP against servers that do everything servers do, and worse."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer
from gevent.ssl import SSLContext
from hypothesis import given
from hypothesis import strategies as st

from madmail.smtp import client as client_module
from madmail.smtp.client import Broken, Connection, Phase, Security, stuffed
from madmail.smtp.reply import Reply
from madmail.store.spool import MemoryBody
from madmail.tls import self_signed

SENDER = 'a@one.example'
TEXT = b'Subject: x\r\n\r\n.dot\r\nwords\r\n'
NAMES = ['x@two.example', 'y@two.example', 'z@two.example']


def unverified() -> SSLContext:
    context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Server:
    """A scripted server: `answers` by verb, or by whole line, win over what is usual.

    An answer is octets to send, an exception to hang up with, or a function of
    the server.  `seen` are the lines of all connections, `mails` the messages.
    """

    def __init__(self, *extensions: str, listener: socket.socket | None = None) -> None:
        self.extensions = list(extensions)
        self.answers: dict[str, bytes | Callable[[Server], bytes] | None] = {}
        self.greeting: bytes | None = b'220 two.example ESMTP\r\n'
        self.seen: list[str] = []
        self.mails: list[bytes] = []
        self.blocks: list[bytes] = []
        self.connections = 0
        self.tls: SSLContext | None = None
        self.after_starttls = b''
        self.cut_after = -1  # octets of a message
        self._server = StreamServer(listener or ('127.0.0.1', 0), self._serve)
        self._server.start()

    @property
    def port(self) -> int:
        port: int = self._server.server_port
        return port

    def close(self) -> None:
        self._server.stop(0.1)

    def usual(self, verb: str, encrypted: bool = False) -> bytes:
        if verb == 'EHLO':
            offered = [e for e in self.extensions if not (encrypted and e == 'STARTTLS')]
            lines = ['two.example', *offered]
            return b''.join(
                f'250{"-" if n < len(lines) - 1 else " "}{line}\r\n'.encode()
                for n, line in enumerate(lines)
            )
        return {'DATA': b'354 Go\r\n', 'QUIT': b'221 Bye\r\n', 'STARTTLS': b'220 Go\r\n'}.get(
            verb, b'250 2.0.0 Ok\r\n'
        )

    def _serve(self, stream: socket.socket, address: object) -> None:
        self.connections += 1
        try:
            if self.greeting is None:
                return
            stream.sendall(self.greeting)
            buffer = b''
            encrypted = False
            while True:
                while b'\r\n' not in buffer:
                    data = stream.recv(65536)
                    if not data:
                        return
                    self.blocks.append(data)
                    buffer += data
                line, _, buffer = buffer.partition(b'\r\n')
                text = line.decode()
                self.seen.append(text)
                verb = text.split(' ')[0].upper()
                answer = self.answers.get(text, self.answers.get(verb, self.usual(verb, encrypted)))
                if callable(answer):
                    answer = answer(self)
                if answer is None:
                    return
                if verb == 'STARTTLS' and answer.startswith(b'220'):
                    assert self.tls is not None
                    stream.sendall(answer + self.after_starttls)
                    stream = self.tls.wrap_socket(stream, server_side=True)
                    encrypted = True
                    continue
                stream.sendall(answer)
                if answer.startswith(b'354'):
                    mail = b'\r\n' + buffer
                    while b'\r\n.\r\n' not in mail:
                        if 0 <= self.cut_after < len(mail):
                            words = self.answers.get('early')
                            if isinstance(words, bytes):
                                stream.sendall(words)
                                gevent.sleep(0.1)
                            return
                        data = stream.recv(65536)
                        if not data:
                            return
                        mail += data
                    mail, _, buffer = mail.partition(b'\r\n.\r\n')
                    self.mails.append(mail[2:] + b'\r\n' if mail else b'')
                    final = self.answers.get('.', b'250 2.0.0 Queued\r\n')
                    if callable(final):
                        final = final(self)
                    if final is None:
                        return
                    stream.sendall(final)
        except OSError:
            pass
        finally:
            stream.close()


@pytest.fixture(params=[True, False], ids=['pipelining', 'step by step'])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    made = Server(*(['PIPELINING'] if request.param else []), '8BITMIME')
    yield made
    made.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('CONNECT', 'GREETING', 'COMMAND', 'FINAL', 'BLOCK', 'LAST_WORDS'):
        monkeypatch.setattr(client_module, f'{name}_TIME', 0.2)


def connect(server: Server, security: Security | None = None) -> Connection:
    return Connection.open(
        '127.0.0.1',
        server.port,
        ehlo='one.example',
        security=security or Security(unverified()),
    )


def send(server: Server, *names: str, body: bytes = TEXT) -> list[Reply]:
    connection = connect(server)
    try:
        return connection.send(SENDER, names or NAMES, MemoryBody(body))
    finally:
        connection.quit()


def codes(replies: list[Reply]) -> list[int]:
    return [reply.code for reply in replies]


def test_a_message_arrives_as_it_was(server: Server) -> None:
    assert codes(send(server)) == [250, 250, 250]
    gevent.sleep(0.02)
    assert server.mails == [TEXT.replace(b'\r\n.', b'\r\n..')]
    assert server.seen == [
        'EHLO one.example',
        f'MAIL FROM:<{SENDER}> BODY=8BITMIME',
        *[f'RCPT TO:<{name}>' for name in NAMES],
        'DATA',
        'QUIT',
    ]


def test_a_signature_goes_before(server: Server) -> None:
    connection = connect(server)
    connection.send(SENDER, NAMES, MemoryBody(TEXT), b'DKIM-Signature: x\r\n')
    connection.close()
    assert server.mails[0].startswith(b'DKIM-Signature: x\r\nSubject: x\r\n')


def test_the_group_is_one_write() -> None:
    server = Server('PIPELINING')
    assert codes(send(server)) == [250, 250, 250]
    assert sum(block.startswith(b'MAIL') for block in server.blocks) == 1
    [group] = [block for block in server.blocks if block.startswith(b'MAIL')]
    assert group.endswith(b'DATA\r\n')
    server.close()


def test_recipients_are_refused_one_by_one(server: Server) -> None:
    server.answers['RCPT TO:<y@two.example>'] = b'550 5.1.1 Nobody\r\n'
    server.answers['RCPT TO:<z@two.example>'] = b'450 4.2.0 Busy\r\n'
    server.answers['RCPT TO:<x@two.example>'] = b'251 elsewhere\r\n'
    replies = send(server)
    assert codes(replies) == [250, 550, 450]
    assert replies[1] == Reply(550, '5.1.1', 'Nobody', 'peer', replies[1].fault)
    assert len(server.mails) == 1


@pytest.mark.parametrize('data', [b'354 Go\r\n', b'554 5.5.1 No recipients\r\n'])
def test_nobody_left_means_no_message(server: Server, data: bytes) -> None:
    server.answers['RCPT'] = b'550 5.1.1 Nobody\r\n'
    server.answers['DATA'] = data
    connection = connect(server)
    assert codes(connection.send(SENDER, NAMES, MemoryBody(TEXT))) == [550] * 3
    assert all(mail == b'' for mail in server.mails)
    server.answers.clear()
    assert codes(connection.send(SENDER, NAMES, MemoryBody(TEXT))) == [250] * 3
    connection.close()
    assert [mail for mail in server.mails if mail] == [TEXT.replace(b'\r\n.', b'\r\n..')]


@pytest.mark.parametrize('data', [b'354 Go\r\n', b'503 5.5.1 MAIL first\r\n'])
def test_a_refused_sender_is_refused_for_all(server: Server, data: bytes) -> None:
    server.answers['MAIL'] = b'554 5.7.1 Policy Rejection\r\n'
    server.answers['RCPT'] = b'503 5.5.1 MAIL first\r\n'
    server.answers['DATA'] = data
    connection = connect(server)
    replies = connection.send(SENDER, NAMES, MemoryBody(TEXT))
    assert codes(replies) == [554] * 3
    server.answers.clear()
    assert codes(connection.send(SENDER, NAMES, MemoryBody(TEXT))) == [250] * 3
    connection.close()
    assert len([mail for mail in server.mails if mail]) == 1


def test_who_refuses_the_sender_and_hangs_up_has_decided(server: Server) -> None:
    server.answers['MAIL'] = b'554 5.7.1 Blocked\r\n'
    for verb in ('RCPT', 'RSET'):
        server.answers[verb] = None
    connection = connect(server)
    replies = connection.send(SENDER, NAMES, MemoryBody(TEXT))
    assert {(reply.code, reply.text) for reply in replies} == {(554, 'Blocked')}
    assert connection.lost
    connection.close()


@pytest.mark.parametrize('verb', ['DATA', 'RSET'])
def test_who_refuses_all_recipients_and_hangs_up_has_decided(server: Server, verb: str) -> None:
    server.answers['RCPT'] = b'550 5.1.1 Nobody\r\n'
    server.answers['DATA'] = b'503 5.5.1 No recipients\r\n'
    server.answers[verb] = None
    server.answers['RSET'] = None
    connection = connect(server)
    assert codes(connection.send(SENDER, NAMES, MemoryBody(TEXT))) == [550] * 3
    assert connection.lost
    connection.close()


def test_who_hangs_up_with_some_accepted_has_decided_nothing(server: Server) -> None:
    server.answers['RCPT TO:<y@two.example>'] = b'550 5.1.1 Nobody\r\n'
    server.answers['DATA'] = None
    connection = connect(server)
    with pytest.raises(Broken):
        connection.send(SENDER, NAMES, MemoryBody(TEXT))
    connection.close()


def test_the_final_word_is_for_those_who_were_accepted(server: Server) -> None:
    server.answers['RCPT TO:<y@two.example>'] = b'550 5.1.1 Nobody\r\n'
    server.answers['.'] = b'523-5.7.1 Encryption\r\n523 5.7.1 Needed\r\n'
    replies = send(server)
    assert codes(replies) == [523, 550, 523]
    assert replies[0].enhanced == '5.7.1'
    assert 'Needed' in replies[0].text


def test_many_recipients_go_in_groups(server: Server) -> None:
    names = [f'{n}@two.example' for n in range(250)]
    server.answers['RCPT TO:<177@two.example>'] = b'550 5.1.1 Nobody\r\n'
    replies = send(server, *names, names[3])
    assert codes(replies) == [250] * 177 + [550] + [250] * 73
    assert len(server.mails) == 3


class Picky:
    """Takes `most` recipients at once; `word` answers the others."""

    def __init__(self, server: Server, most: int, word: bytes = b'452 4.5.3 Too many') -> None:
        self.server = server
        self.most = most
        self.word = word
        self.named = 0
        self.taken: list[list[str]] = []
        server.answers['MAIL'] = self.mail
        server.answers['RCPT'] = self.rcpt

    def mail(self, server: Server) -> bytes:
        self.named = 0
        self.taken.append([])
        return b'250 2.1.0 Ok\r\n'

    def rcpt(self, server: Server) -> bytes:
        name = server.seen[-1].partition('<')[2].rstrip('>')
        if name.startswith('nobody'):
            return b'550 5.1.1 Nobody\r\n'
        if self.named >= self.most:
            return self.word + b'\r\n'
        self.named += 1
        self.taken[-1].append(name)
        return b'250 2.1.5 Ok\r\n'


@pytest.mark.parametrize('word', [b'452 4.5.3 Too many', b'552 5.5.3 Too many'])
def test_too_many_at_once_go_in_parts_and_at_once(server: Server, word: bytes) -> None:
    names = [f'{n}@two.example' for n in range(25)]
    names[7] = 'nobody@two.example'
    picky = Picky(server, 10, word)
    assert codes(send(server, *names)) == [250] * 7 + [550] + [250] * 17
    assert sorted(name for some in picky.taken for name in some) == sorted(
        name for name in names if not name.startswith('nobody')
    )
    assert len(server.mails) == 3
    assert server.connections == 1


def test_the_size_of_a_part_is_remembered(server: Server) -> None:
    picky = Picky(server, 4)
    connection = connect(server)
    names = [f'{n}@two.example' for n in range(8)]
    for _ in range(2):
        assert codes(connection.send(SENDER, names, MemoryBody(TEXT))) == [250] * 8
    connection.close()
    assert [len(some) for some in picky.taken] == [4] * 4
    assert sum(line.startswith('RCPT') for line in server.seen) == 8 + 4 + 4 + 4


def test_a_peer_that_takes_nobody_is_asked_a_few_times(server: Server) -> None:
    Picky(server, 0)
    names = [f'{n}@two.example' for n in range(100)]
    replies = send(server, *names)
    assert codes(replies) == [452] * 100
    assert sum(line.startswith('MAIL') for line in server.seen) < 10
    assert not any(server.mails)


def test_too_many_for_the_message_as_a_whole(server: Server) -> None:
    def data(server: Server) -> bytes:
        names = 0
        for line in reversed(server.seen):
            if line.startswith('MAIL'):
                break
            names += line.startswith('RCPT')
        return b'354 Go\r\n' if names <= 2 else b'452 4.5.3 Too many\r\n'

    server.answers['DATA'] = data
    assert codes(send(server, *(f'{n}@two.example' for n in range(9)))) == [250] * 9
    assert len(server.mails) == 5


def test_another_452_is_for_its_recipient(server: Server) -> None:
    server.answers['RCPT TO:<y@two.example>'] = b'452 4.2.2 Full\r\n'
    assert codes(send(server)) == [250, 452, 250]
    assert len(server.mails) == 1


@pytest.mark.parametrize('trouble', [None, b'421 4.3.2 Going down\r\n', b'554 5.0.0 No\r\n'])
def test_who_has_it_keeps_it_when_a_later_part_fails(server: Server, trouble: bytes | None) -> None:
    picky = Picky(server, 2)
    mail = picky.mail

    def first_only(server: Server) -> bytes | None:
        return trouble if picky.taken else mail(server)

    server.answers['MAIL'] = first_only  # type: ignore[assignment]
    connection = connect(server)
    replies = connection.send(SENDER, [*NAMES, 'nobody@two.example'], MemoryBody(TEXT))
    assert codes(replies)[:2] == [250, 250]
    assert codes(replies)[3] == 550
    refused = 554 if trouble and trouble.startswith(b'5') else 421
    assert codes(replies)[2] == refused
    assert connection.lost is (refused == 421)
    connection.close()
    assert len([mail for mail in server.mails if mail]) == 1


# -- trouble


NONSENSE = {
    'no code': b'hello\r\n',
    'html': b'<html>\r\n',
    'odd code': b'199 x\r\n',
    'two codes': b'250-a\r\n550 b\r\n',
    'endless': b'250-a\r\n' * 500,
    'long': b'250 ' + b'a' * 10_000,
    'binary': bytes(range(256)) * 4 + b'\r\n',
}


@pytest.mark.parametrize('what', NONSENSE)
@pytest.mark.parametrize('verb', ['greeting', 'EHLO', 'MAIL', 'RCPT', 'DATA', '.'])
@pytest.mark.usefixtures('quick')
def test_nonsense_is_never_a_delivery(server: Server, verb: str, what: str) -> None:
    if verb == 'greeting':
        server.greeting = NONSENSE[what]
    else:
        server.answers[verb] = NONSENSE[what]
    with pytest.raises(Broken) as caught:
        send(server)
    assert caught.value.reply.code == 421
    early = verb in ('greeting', 'EHLO')
    expected = Phase.GREETING if early else Phase.DATA if verb == '.' else Phase.TRANSACTION
    assert caught.value.phase is expected


@pytest.mark.parametrize('verb', ['greeting', 'EHLO', 'MAIL', 'RCPT', 'DATA', '.'])
@pytest.mark.parametrize('trouble', ['cut', 'silent', '421'])
@pytest.mark.usefixtures('quick')
def test_it_is_known_how_far_it_came(server: Server, verb: str, trouble: str) -> None:
    def silent(_: Server) -> bytes:
        gevent.sleep(0.4)
        return b'250 late\r\n'

    answer = {'cut': None, 'silent': silent, '421': b'421 4.3.2 Shutting down\r\n'}[trouble]
    if verb == 'greeting':
        if trouble == 'silent':
            server.greeting = b''
        else:
            server.greeting = answer  # type: ignore[assignment]
    else:
        server.answers[verb] = answer
    with pytest.raises(Broken) as caught:
        send(server)
    early = verb in ('greeting', 'EHLO')
    expected = Phase.GREETING if early else Phase.DATA if verb == '.' else Phase.TRANSACTION
    assert caught.value.phase is expected
    assert caught.value.reply.code == 421
    assert '127.0.0.1' not in str(caught.value)
    if trouble == '421':
        assert caught.value.reply.text == 'Shutting down'


@pytest.mark.parametrize('verb', ['MAIL', 'RCPT', '.'])
def test_354_where_nobody_asked_is_no_success(server: Server, verb: str) -> None:
    server.answers[verb] = b'354 Go\r\n'
    with pytest.raises(Broken):
        send(server)


def test_250_to_data_is_no_delivery(server: Server) -> None:
    server.answers['DATA'] = b'250 Fine\r\n'
    with pytest.raises(Broken) as caught:
        send(server)
    assert caught.value.phase is Phase.TRANSACTION
    assert server.mails == []


@pytest.mark.usefixtures('quick')
def test_cut_in_the_midst_of_the_message_is_not_in_doubt(server: Server) -> None:
    server.cut_after = 200_000
    with pytest.raises(Broken) as caught:
        send(server, body=b'x' * 70 + b'\r\n' + (b'y' * 70 + b'\r\n') * 400_000)
    assert caught.value.phase is Phase.TRANSACTION


def test_a_refusal_before_the_message_has_left_is_heard(server: Server) -> None:
    server.cut_after = 200_000
    server.answers['early'] = b'552 5.3.4 Too big\r\n'
    connection = connect(server)
    body = MemoryBody((b'y' * 70 + b'\r\n') * 400_000)
    try:
        answers = set(codes(connection.send(SENDER, NAMES, body)))
    except Broken as broken:  # a reset may overtake the words
        answers = {broken.reply.code}
    else:
        assert connection.lost
    assert answers in ({552}, {421})
    connection.close()


def test_nobody_listens() -> None:
    server = Server()
    server.close()
    with pytest.raises(Broken) as caught:
        connect(server)
    assert caught.value.phase is Phase.CONNECT
    assert '127.0.0.1' not in str(caught.value)


@pytest.mark.parametrize('greeting', [b'554 Go away\r\n', b'450 Later\r\n'])
def test_a_greeting_may_refuse(server: Server, greeting: bytes) -> None:
    server.greeting = greeting
    with pytest.raises(Broken) as caught:
        connect(server)
    assert caught.value.phase is Phase.GREETING
    assert caught.value.reply.code == int(greeting[:3])


def test_an_old_server_is_greeted_in_the_old_way(server: Server) -> None:
    server.answers['EHLO'] = b'502 What?\r\n'
    assert codes(send(server)) == [250] * 3
    assert 'HELO one.example' in server.seen
    assert f'MAIL FROM:<{SENDER}>' in server.seen


def test_replies_may_have_many_lines_and_come_in_pieces(server: Server) -> None:
    server.greeting = b'220-Welcome\r\n220-to\r\n220 two\r\n'
    server.answers['MAIL'] = b'250-a\r\n250-b\r\n250\r\n'
    server.answers['.'] = b'250-2.6.0 one\n250 2.6.0 two\n'
    assert codes(send(server)) == [250] * 3


def test_what_the_peer_says_is_made_harmless(server: Server) -> None:
    server.answers['MAIL'] = b'550 5.7.1 \x1b[2J\xff\x00' + b'w' * 2000 + b'\r\n'
    [reply, *_] = send(server)
    assert reply.text.isascii()
    assert reply.text.isprintable()
    assert len(reply.text) <= 400


# -- extensions


def test_a_size_limit_is_known_before_anything_is_sent() -> None:
    server = Server('SIZE 1000', 'PIPELINING')
    assert codes(send(server, body=b'x' * 1001)) == [552] * 3
    assert not any(line.startswith('MAIL') for line in server.seen)
    assert codes(send(server)) == [250] * 3
    assert f'MAIL FROM:<{SENDER}> SIZE={len(TEXT)}' in server.seen
    server.close()


@pytest.mark.parametrize('words', ['SIZE', 'SIZE 0', 'SIZE lots', 'size'])
def test_no_size_limit(words: str) -> None:
    server = Server(words)
    assert codes(send(server, body=b'x' * 10_000)) == [250] * 3
    server.close()


def test_utf8_addresses_need_the_extension() -> None:
    server = Server('8BITMIME')
    assert codes(send(server, 'jürgen@two.example')) == [553]
    server.extensions.append('SMTPUTF8')
    assert codes(send(server, 'jürgen@two.example')) == [250]
    assert f'MAIL FROM:<{SENDER}> BODY=8BITMIME SMTPUTF8' in server.seen
    server.close()


# -- TLS


@pytest.fixture(scope='module')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> SSLContext:
    directory: Path = tmp_path_factory.mktemp('tls')
    files = self_signed.ensure(directory, 'two.example')
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


@pytest.fixture
def secure(certificate: SSLContext) -> Iterator[Server]:
    made = Server('STARTTLS', 'PIPELINING')
    made.tls = certificate
    yield made
    made.close()


def test_starttls_is_used_where_it_is_offered(secure: Server) -> None:
    connection = connect(secure)
    assert connection.encrypted
    assert codes(connection.send(SENDER, NAMES, MemoryBody(TEXT))) == [250] * 3
    assert secure.seen[:3] == ['EHLO one.example', 'STARTTLS', 'EHLO one.example']
    connection.close()


def test_words_in_the_clear_behind_starttls_are_an_attack(secure: Server) -> None:
    secure.after_starttls = b'250 two.example\r\n'
    with pytest.raises(Broken) as caught:
        connect(secure)
    assert caught.value.phase is Phase.TLS


def test_extensions_from_before_tls_are_forgotten(secure: Server) -> None:
    def bare(server: Server) -> bytes:
        return b'250 two.example\r\n' if server.seen.count('STARTTLS') else server.usual('EHLO')

    secure.answers['EHLO'] = bare
    connection = connect(secure)
    assert connection.extensions == {}
    connection.close()


def test_required_tls_is_required(server: Server) -> None:
    with pytest.raises(Broken) as caught:
        connect(server, Security(unverified(), required=True))
    assert caught.value.reply.enhanced == '4.7.5'
    assert not any(line.startswith('MAIL') for line in server.seen)


def test_refused_starttls_is_fatal_only_where_tls_is_required(secure: Server) -> None:
    secure.answers['STARTTLS'] = b'454 4.7.0 Not now\r\n'
    connection = connect(secure)
    assert not connection.encrypted
    connection.close()
    with pytest.raises(Broken):
        connect(secure, Security(unverified(), required=True))


def test_a_wrong_certificate_is_refused_where_it_has_to_be_right(secure: Server) -> None:
    with pytest.raises(Broken) as caught:
        connect(secure, Security(ssl_verified(), 'two.example', required=True))
    assert caught.value.phase is Phase.TLS
    assert 'self-signed' in str(caught.value).replace(' ', '-')


def ssl_verified() -> SSLContext:
    return SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def test_a_certificate_that_is_not_the_published_one(secure: Server) -> None:
    with pytest.raises(Broken) as caught:
        connect(secure, Security(unverified(), 'two.example', True, lambda der: False))
    assert caught.value.phase is Phase.TLS
    secure.extensions = ['STARTTLS', 'PIPELINING']
    connect(secure, Security(unverified(), None, True, lambda der: len(der) > 100)).close()


# -- octets


def unstuffed(data: bytes) -> bytes:
    """What a receiver makes of DATA (RFC 5321 4.5.2)."""
    assert (b'\r\n' + data).endswith(b'\r\n.\r\n')
    data = (b'\r\n' + data)[:-3]
    assert b'\r\n.\r\n' not in data
    return data.replace(b'\r\n.', b'\r\n')[2:]


pieces = st.lists(
    st.sampled_from([b'\r\n', b'.', b'a', b'\r', b'\n', b'..', b'\r\n.', b'\r\n.\r\n', b'word'])
)


@given(pieces.map(b''.join), pieces.map(b''.join), st.integers(1, 7))
def test_a_receiver_reads_what_was_meant(head: bytes, tail: bytes, slice_: int) -> None:
    before = client_module.SLICE
    client_module.SLICE = slice_
    try:
        prefix = head + b'\r\n' if head else b''
        whole = prefix + tail
        sent = b''.join(stuffed(MemoryBody(tail), prefix))
    finally:
        client_module.SLICE = before
    got = unstuffed(sent)
    assert got == whole or got == whole + b'\r\n'
    if whole.endswith(b'\r\n'):
        assert got == whole
