"""`POST /mxdeliv` against servers that answer as servers do, and worse."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer
from gevent.ssl import SSLContext

from madmail.delivery import transport_http
from madmail.delivery.route import Hop
from madmail.delivery.tls_policy import contexts
from madmail.delivery.transport_http import HttpClient, NotHere, Unsure
from madmail.smtp.reply import Reply
from madmail.store.interface import Body
from madmail.store.spool import MemoryBody
from tests.tls.authority import Authority, Pair

SENDER = 'a@one.example'
BOB = 'bob@two.example'
TEXT = b'Subject: x\r\n\r\nwords\r\n'
SIGNATURE = b'DKIM-Signature: s\r\n'
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOK\n'

Answer = bytes | Callable[[Any], bytes | None] | None


def answer(status: str, text: str = '', *fields: str) -> bytes:
    lines = [f'HTTP/1.1 {status}', f'Content-Length: {len(text)}', *fields, '', text]
    return '\r\n'.join(lines).encode()


class Request:
    def __init__(self, head: bytes, body: bytes, connection: int) -> None:
        first, *fields = head.decode().split('\r\n')
        self.line = first
        self.fields = [tuple(field.split(': ', 1)) for field in fields]
        self.body = body
        self.connection = connection

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


class Server:
    """Each request takes the next of `answers`: octets, None to hang up without a word, or a
    function of the stream that may return octets; after them `OK`.

    With `early` it answers when it has the head.
    """

    def __init__(self, tls: SSLContext | None = None, host: str = '127.0.0.1') -> None:
        self.answers: list[Answer] = []
        self.requests: list[Request] = []
        self.connections = 0
        self.open: list[Any] = []
        self.early = False
        self.close_after = False
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, 0))
        listener.listen(16)
        options = {'ssl_context': tls} if tls else {}
        self._server = StreamServer(listener, self._serve, **options)
        self._server.start()
        self.port: int = listener.getsockname()[1]

    def close(self) -> None:
        self._server.stop(0)

    def _serve(self, stream: Any, _: object) -> None:
        self.connections += 1
        number = self.connections
        self.open.append(stream)
        buffer = b''
        try:
            while True:
                while b'\r\n\r\n' not in buffer:
                    data = stream.recv(65536)
                    if not data:
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b'\r\n\r\n')
                request = Request(head, b'', number)
                size = int(request.all('Content-Length')[0])
                while len(buffer) < size and not self.early:
                    data = stream.recv(65536)
                    if not data:
                        return
                    buffer += data
                request.body, buffer = buffer[:size], buffer[size:]
                self.requests.append(request)
                said = self.answers.pop(0) if self.answers else OK
                if callable(said):
                    said = said(stream)
                if said is None:
                    return
                stream.sendall(said)
                if self.close_after:
                    return
        except OSError:
            pass
        finally:
            stream.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def client() -> Iterator[HttpClient]:
    client = HttpClient(*contexts())
    yield client
    client.close()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would take minutes takes parts of a second."""
    for name in ('ANSWER_TIME', 'TEXT_TIME', 'CONNECT_TIME', 'BLOCK_TIME'):
        monkeypatch.setattr(transport_http, name, 0.3)


def plain(server: Server, host: str = 'two.example', **more: Any) -> Hop:
    return Hop('http', host, server.port, **more)


def send(
    client: HttpClient,
    hop: Hop,
    *recipients: str,
    body: Body | bytes = TEXT,
    sender: str = SENDER,
    addresses: tuple[str, ...] = ('127.0.0.1',),
) -> list[Reply]:
    message = MemoryBody(body) if isinstance(body, bytes) else body
    with gevent.Timeout(30):
        return client.send(hop, addresses, sender, recipients or (BOB,), message, SIGNATURE)


def codes(replies: list[Reply]) -> list[int]:
    return [reply.code for reply in replies]


# -- what is sent


def test_a_message_arrives_as_it_was(server: Server, client: HttpClient) -> None:
    replies = send(client, plain(server), BOB, 'eve@two.example')
    assert codes(replies) == [250, 250]
    (request,) = server.requests
    assert request.line == 'POST /mxdeliv HTTP/1.1'
    assert request.fields == [
        ('Host', f'two.example:{server.port}'),
        ('Content-Type', 'message/rfc822'),
        ('Content-Length', str(len(SIGNATURE + TEXT))),
        ('X-Mail-From', SENDER),
        ('X-Mail-To', BOB),
        ('X-Mail-To', 'eve@two.example'),
    ]
    assert request.body == SIGNATURE + TEXT


@pytest.mark.parametrize(
    ('hop', 'host'),
    [
        (Hop('https', 'two.example', 443), 'two.example'),
        (Hop('http', '2001:db8::1', 80), '[2001:db8::1]'),
        (Hop('http', 'two.example', 443), 'two.example:443'),
        (Hop('https', 'two.example', 8443), 'two.example:8443'),
    ],
)
def test_a_usual_port_is_not_named(hop: Hop, host: str) -> None:
    lines = transport_http._request(hop, SENDER, [BOB], 1).split(b'\r\n')
    assert f'Host: {host}'.encode() in lines


def test_a_bounce_has_no_sender(server: Server, client: HttpClient) -> None:
    send(client, plain(server), sender='')
    assert server.requests[0].all('X-Mail-From') == []


def test_a_large_message_goes_in_pieces(server: Server, client: HttpClient) -> None:
    body = bytes(range(256)) * 4096 + b'tail'
    assert codes(send(client, plain(server), body=body)) == [250]
    assert server.requests[0].body == SIGNATURE + body


def test_many_recipients_go_in_batches(server: Server, client: HttpClient) -> None:
    names = [f'u{n}@two.example' for n in range(200)]
    server.answers = [OK, answer('403 Forbidden', '550 5.1.1 No such user'), OK]
    replies = send(client, plain(server), *names)
    assert [len(request.all('X-Mail-To')) for request in server.requests] == [90, 90, 20]
    assert codes(replies) == [250] * 90 + [550] * 90 + [250] * 20
    assert [name for request in server.requests for name in request.all('X-Mail-To')] == names


@pytest.mark.parametrize('failure', [None, answer('404 Not Found')])
def test_a_batch_that_fails_leaves_those_before_it_delivered(
    server: Server, client: HttpClient, failure: Answer
) -> None:
    names = [f'u{n}@two.example' for n in range(200)]
    server.answers = [OK, failure]
    assert codes(send(client, plain(server), *names)) == [250] * 90 + [451] * 110
    assert len(server.requests) == 2


def test_a_message_that_shrank_is_not_delivered(server: Server, client: HttpClient) -> None:
    shrunk = MemoryBody(TEXT)
    shrunk.size += 100_000
    with pytest.raises(NotHere):
        send(client, plain(server), body=shrunk)
    assert server.requests == []


@pytest.mark.parametrize(
    'wrong',
    [
        'x@two.example\r\nX-Mail-To: y@two.example',
        'x@two.example\n',
        'x@two.example\r',
        'x\x00@two.example',
        '"a b"@two.example',
        '"a,b"@two.example',
        'x@two.example\t',
    ],
)
def test_no_address_becomes_another_field(server: Server, client: HttpClient, wrong: str) -> None:
    for change in (
        {'sender': wrong},
        {'hop': plain(server, path=f'/{wrong}')},
        {'hop': plain(server, host=wrong)},
    ):
        with pytest.raises(NotHere):
            send(client, change.pop('hop', plain(server)), **change)  # type: ignore[arg-type]
    with pytest.raises(NotHere):
        send(client, plain(server), BOB, wrong)
    assert server.connections == 0


# -- what answers mean


@pytest.mark.parametrize('status', ['200 OK', '201 Created', '202 Accepted', '250', '299 X Y'])
@pytest.mark.parametrize('text', ['', 'OK\n', '{"status": "ok"}', '550 5.7.1 not at all'])
def test_all_of_2xx_is_success(server: Server, client: HttpClient, status: str, text: str) -> None:
    server.answers = [answer(status, text)]
    assert codes(send(client, plain(server))) == [250]


@pytest.mark.parametrize('text', ['<!DOCTYPE html>\n<html>', ' \n<html><body>Hello</body></html>'])
def test_a_page_is_no_success(server: Server, client: HttpClient, text: str) -> None:
    server.answers = [answer('200 OK', text)] * 2
    with pytest.raises(NotHere):
        send(client, plain(server, relay='two.example'))
    assert codes(send(client, plain(server))) == [250], 'the operator has set it'


def test_no_content_ends_with_its_head(server: Server, client: HttpClient) -> None:
    server.answers = [b'HTTP/1.1 204 No Content\r\n\r\n', b'HTTP/1.1 204 No Content\r\n\r\n']
    for _ in range(2):
        assert codes(send(client, plain(server))) == [250]
    assert server.connections == 1


@pytest.mark.parametrize(
    ('status', 'text', 'code', 'enhanced'),
    [
        ('403 Forbidden', '554 5.7.1 No DKIM signature found', 554, '5.7.1'),
        ('400 Bad Request', '550 5.1.1 No such user', 550, '5.1.1'),
        ('400 Bad Request', '523 Encryption Needed', 523, ''),
        ('400 Bad Request', '451-4.3.0 later', 451, '4.3.0'),
        ('503 Busy', '452 4.2.2 Full', 452, '4.2.2'),
        ('507 Full', '552 5.2.2 Full', 552, '5.2.2'),
        ('403 Forbidden', 'Forbidden', 550, '5.7.1'),
        ('403 Forbidden', 'Encryption Needed: Invalid Unencrypted Mail', 550, '5.7.1'),
        ('429 Too Many', '550 5.7.1 never', 451, '4.3.0'),
        ('504 Gateway Timeout', '', 451, '4.3.0'),
        ('507 Full', 'quota', 451, '4.3.0'),
    ],
)
def test_a_decision_of_the_peer(
    server: Server, client: HttpClient, status: str, text: str, code: int, enhanced: str
) -> None:
    server.answers = [answer(status, text)]
    (reply,) = send(client, plain(server))
    assert (reply.code, reply.enhanced) == (code, enhanced)


def test_what_the_peer_says_is_made_harmless(server: Server, client: HttpClient) -> None:
    server.answers = [answer('403 No', '550 5.7.1 a\tb\x1b[31m\x7fc' + 'd' * 1000)]
    (reply,) = send(client, plain(server))
    assert reply.text.startswith('a?b?[31m?cdd')
    assert len(reply.text) <= 300


@pytest.mark.parametrize(
    'status',
    [
        '400 Bad Request',
        '401 Unauthorized',
        '403 Forbidden',
        '404 Not Found',
        '405 Method Not Allowed',
        '408 Request Timeout',
        '411 Length Required',
        '413 Content Too Large',
        '431 Too Large',
        '500 Oops',
        '501 Not Implemented',
        '502 Bad Gateway',
        '503 Busy',
        '599 Odd',
    ],
)
def test_there_is_no_such_service_here(server: Server, client: HttpClient, status: str) -> None:
    server.answers = [answer(status, '250 2.0.0 Ok')]
    with pytest.raises(NotHere):
        send(client, plain(server))
    assert len(server.requests) == 1


@pytest.mark.parametrize('status', ['300 X', '301 X', '302 X', '303 X', '304 X', '307 X', '308 X'])
def test_a_redirect_is_never_followed(server: Server, client: HttpClient, status: str) -> None:
    other = Server()
    for place in (
        f'http://two.example:{server.port}/mxdeliv',  # to itself: a loop
        f'http://127.0.0.1:{other.port}/mxdeliv',
        '//evil.example/mxdeliv',
        '/elsewhere',
    ):
        server.answers = [answer(status, '', f'Location: {place}')]
        with pytest.raises(NotHere):
            send(client, plain(server))
    assert len(server.requests) == 4
    assert other.connections == 0
    other.close()


def test_an_answer_before_the_message_has_left_is_heard(server: Server, client: HttpClient) -> None:
    server.early = server.close_after = True
    server.answers = [answer('413 Too Large'), answer('403 No', '550 5.7.1 no'), OK]
    large = b'x' * 8_000_000
    with pytest.raises(NotHere):
        send(client, plain(server), body=large)
    # The system may lose the answer with the connection; then another transport is tried.
    try:
        assert codes(send(client, plain(server), body=large)) == [550]
    except NotHere:
        pass
    with pytest.raises(NotHere):
        send(client, plain(server), body=large)
    assert len(server.requests) == 3


# -- shapes of answers


def test_interim_answers_come_before(server: Server, client: HttpClient) -> None:
    server.answers = [b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n' + OK]
    assert codes(send(client, plain(server))) == [250]
    server.answers = [b'HTTP/1.1 100 Continue\r\n\r\n' * 1000 + OK]
    with pytest.raises(NotHere):
        send(client, plain(server))


@pytest.mark.parametrize(
    'pieces',
    [
        [b'H', b'TTP/1.1 403 No\r', b'\nContent-Length: 1', b'0\r\n\r', b'\n550 5.', b'7.1 x'],
        [b'HTTP/1.1 403 No\nContent-Length: 10\n\n550 5.7.1 x'],
        [b'HTTP/1.0 403 No\r\n\r\n', b'550 5.7.1 x'],
        [b'HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n550 5\r\n', b'6;x=y\r\n.7.1 x'
         b'\r\n0\r\n\r\n'],
        [b'HTTP/1.1 403\r\nTransfer-Encoding: chunked\r\n\r\n',
         b'B\r\n550 5.7.1 x\r\n0\r\nA: b\r\n\r\n'],
    ],
)  # fmt: skip
def test_answers_in_pieces(
    server: Server, client: HttpClient, hurry: None, pieces: list[bytes]
) -> None:
    def say(stream: Any) -> None:
        for piece in pieces:
            stream.sendall(piece)
            gevent.sleep(0.01)

    server.answers = [say]
    (reply,) = send(client, plain(server))
    assert (reply.code, reply.enhanced, reply.text) == (550, '5.7.1', 'x')


@pytest.mark.parametrize(
    'shape',
    [
        b'HTTP/1.1 200 OK\r\nX: ' + b'y' * 100_000 + b'\r\n\r\n',
        b'HTTP/1.1 200 OK\r\n' + b'X: y\r\n' * 10_000 + b'\r\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n' + b'z' * 100_000,
        b'HTTP/1.1 200 OK\r\nContent-Length: ' + b'9' * 5000 + b'\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nOK\n',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nOK\n',
        b'HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nOK\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOK\nHTTP/1.1 200 smuggled\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nOK',
        b'HTTP/1.1 200 OK\r\nContent-',
        b'HTTP/1.1 200 OK\r\n',
    ],
)
@pytest.mark.parametrize('ends', [True, False])
def test_the_status_counts_whatever_follows_and_the_connection_is_not_used_again(
    server: Server, client: HttpClient, hurry: None, shape: bytes, ends: bool
) -> None:
    server.answers = [shape]
    server.close_after = ends
    assert codes(send(client, plain(server))) == [250]
    assert codes(send(client, plain(server))) == [250]
    assert [request.connection for request in server.requests] == [1, 2]


@pytest.mark.parametrize(
    'nonsense',
    [
        b'220 two.example ESMTP\r\n',
        b'SSH-2.0-OpenSSH\r\n',
        b'HTTP/2 200\r\n\r\n',
        b'HTTP/1.1 999 x\r\n\r\n',
        b'HTTP/1.1 20 x\r\n\r\n',
        b'HTTP/1.1 2000\r\n\r\n',
        b'\x00' * 100_000,
    ],
)
def test_what_is_no_http_took_no_message(
    server: Server, client: HttpClient, nonsense: bytes
) -> None:
    server.answers = [nonsense]
    server.close_after = True
    with pytest.raises(NotHere):
        send(client, plain(server))


@pytest.mark.parametrize('cut', [b'', b'HTTP/1.1 200', b'HTTP/1.1 100 Continue\r\n\r\n', b'HTTP'])
def test_a_cut_answer_leaves_it_unsure(server: Server, client: HttpClient, cut: bytes) -> None:
    server.answers = [cut]
    server.close_after = True
    with pytest.raises(Unsure) as caught:
        send(client, plain(server))
    assert not caught.value.waited
    assert len(server.requests) == 1, 'it must not go again at once'


def test_no_answer_in_time(server: Server, client: HttpClient, hurry: None) -> None:
    server.answers = [b'', b'HTTP/1.1 2']
    for _ in range(2):
        with pytest.raises(Unsure) as caught:
            send(client, plain(server))
        assert caught.value.waited


def test_drops_of_an_answer_do_not_hold_for_ever(
    server: Server, client: HttpClient, hurry: None
) -> None:
    def drip(stream: Any) -> None:
        for octet in b'HTTP/1.1 ' + b'X' * 10_000:
            stream.sendall(bytes((octet,)))
            gevent.sleep(0.1)

    server.answers = [drip]
    with pytest.raises(Unsure):
        send(client, plain(server))


def test_a_peer_that_does_not_read(client: HttpClient, hurry: None) -> None:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen(1)
        hop = Hop('http', 'two.example', listener.getsockname()[1])
        with pytest.raises(NotHere):
            send(client, hop, body=b'x' * 20_000_000)


# -- connections


def test_a_connection_is_used_again(server: Server, client: HttpClient) -> None:
    for number in range(3):
        assert codes(send(client, plain(server), f'u{number}@two.example')) == [250]
    assert server.connections == 1
    assert [r.all('X-Mail-To') for r in server.requests] == [
        [f'u{number}@two.example'] for number in range(3)
    ]


def test_each_place_has_its_own(server: Server, client: HttpClient) -> None:
    for host in ('two.example', 'three.example', 'two.example'):
        send(client, plain(server, host))
    assert [request.connection for request in server.requests] == [1, 2, 1]


def test_side_by_side_messages_have_a_connection_each(server: Server, client: HttpClient) -> None:
    def late(stream: Any) -> bytes:
        gevent.sleep(0.05)
        return OK

    server.answers = [late] * 6
    jobs = [gevent.spawn(send, client, plain(server)) for _ in range(6)]
    gevent.joinall(jobs, 10, raise_error=True)
    assert server.connections == 6
    gevent.sleep(0.01)
    for _ in range(5):
        send(client, plain(server))
    assert server.connections == 6


def test_one_that_the_peer_closed_meanwhile_is_not_used(server: Server, client: HttpClient) -> None:
    send(client, plain(server))
    server.open[0].close()
    gevent.sleep(0.01)
    assert codes(send(client, plain(server))) == [250]
    assert (server.connections, len(server.requests)) == (2, 2)


def test_one_on_which_the_peer_spoke_out_of_turn_is_not_used(
    server: Server, client: HttpClient
) -> None:
    send(client, plain(server))
    server.open[0].sendall(OK)
    gevent.sleep(0.01)
    server.answers = [answer('403 No', '550 5.7.1 no')]
    assert codes(send(client, plain(server))) == [550]
    assert server.connections == 2


def test_closed_while_we_write_goes_again_at_once(
    server: Server, client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer saw nothing of the request, so it is no failure."""
    send(client, plain(server))
    server.open[0].close()
    monkeypatch.setattr(transport_http, '_spoken_to', lambda stream: False)
    assert codes(send(client, plain(server))) == [250]
    assert len(server.requests) == 2


def test_closed_after_it_was_read_does_not_go_again_at_once(
    server: Server, client: HttpClient
) -> None:
    """The peer may have stored it: it is for the schedule, and for the peer's memory."""
    send(client, plain(server))
    server.answers = [None]
    with pytest.raises(Unsure):
        send(client, plain(server))
    assert (server.connections, len(server.requests)) == (1, 2)


def test_no_answer_on_a_kept_connection_does_not_go_again_at_once(
    server: Server, client: HttpClient, hurry: None
) -> None:
    send(client, plain(server))
    server.answers = [b'']
    with pytest.raises(Unsure):
        send(client, plain(server))
    assert (server.connections, len(server.requests)) == (1, 2)


def test_idle_connections_end(
    server: Server, client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(client, plain(server))
    client.tidy()
    assert len(client._kept) == 1
    monkeypatch.setattr(transport_http, 'KEEP_TIME', -1.0)
    client.tidy()
    assert client._kept == {}
    assert server.open[0].fileno() < 0 or server.open[0].recv(1) == b''


def test_what_is_kept_is_bounded(
    server: Server, client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_http, 'HOSTS_LIMIT', 3)
    for number in range(10):
        send(client, plain(server, f'h{number}.example'))
    assert len(client._kept) == 3
    assert all(client._kept.values())


def test_addresses_are_tried_in_order(server: Server) -> None:
    told: list[tuple[str, str]] = []
    client = HttpClient(*contexts(), on_address=lambda *which: told.append(which))
    assert codes(send(client, plain(server), addresses=('127.0.0.2', '127.0.0.1'))) == [250]
    assert told == [('two.example', '127.0.0.1')]
    client.close()
    with pytest.raises(NotHere):
        send(client, plain(server), addresses=())


# -- certificates


@pytest.fixture(scope='module')
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp('authority'))


def trusting(authority: Authority) -> HttpClient:
    verified, unverified = contexts()
    verified.load_verify_locations(authority.root)
    return HttpClient(verified, unverified)


def over_tls(pair: Pair, host: str = '127.0.0.1') -> Server:
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return Server(context, host)


@pytest.mark.parametrize(
    ('host', 'names', 'how', 'verify', 'delivered'),
    [
        ('two.example', ('two.example',), {}, True, True),
        ('mx.two.example', ('*.two.example',), {}, True, True),
        ('two.example', ('other.example',), {}, True, False),
        ('two.example', ('two.example',), {'signed': False}, True, False),
        ('two.example', ('two.example',), {'begins': -9, 'days': 5}, True, False),
        ('two.example', ('two.example',), {'begins': 2}, True, False),
        ('two.example', ('other.example',), {'signed': False}, False, True),
        ('_two.example', ('other.example',), {'signed': False}, False, True),
        ('127.0.0.1', ('other.example',), {'signed': False}, False, True),
        ('127.0.0.1', ('127.0.0.1',), {}, True, True),
        ('127.0.0.1', ('127.0.0.2',), {}, True, False),
        ('127.0.0.1', ('two.example',), {}, True, False),
    ],
)
def test_certificates(
    authority: Authority,
    host: str,
    names: tuple[str, ...],
    how: dict[str, Any],
    verify: bool,
    delivered: bool,
) -> None:
    server, client = over_tls(authority.issue(*names, **how)), trusting(authority)
    hop = Hop('https', host, server.port, verify=verify)
    try:
        for _ in range(2):
            if delivered:
                assert codes(send(client, hop)) == [250]
            else:
                with pytest.raises(NotHere):
                    send(client, hop)
        assert len(server.requests) == (2 if delivered else 0)
        if delivered:
            assert server.connections == 1
    finally:
        client.close()
        server.close()


def test_a_connection_that_proved_nothing_is_not_taken_for_one_that_has_to(
    authority: Authority,
) -> None:
    server, client = over_tls(authority.issue('other.example')), trusting(authority)
    loose = Hop('https', 'two.example', server.port, verify=False)
    assert codes(send(client, loose)) == [250]
    with pytest.raises(NotHere):
        send(client, loose._replace(verify=True))
    assert len(server.requests) == 1
    client.close()
    server.close()


def test_tls_that_never_ends_its_handshake(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each octet comes in time; the handshake does not."""
    monkeypatch.setattr(transport_http, 'CONNECT_TIME', 0.5)

    def drip(stream: Any, _: object) -> None:
        try:
            stream.recv(4096)
            # A record of a handshake, whose 16,000 octets come one by one.
            for octet in b'\x16\x03\x03\x3e\x80' + b'\x02' * 16_000:
                stream.sendall(bytes((octet,)))
                gevent.sleep(0.05)
        except OSError:
            pass

    dripping = StreamServer(('127.0.0.1', 0), drip)
    dripping.start()
    with pytest.raises(NotHere):
        send(client, Hop('https', 'two.example', dripping.server_port))
    dripping.stop(0)


def test_plain_http_where_tls_was_meant(server: Server, client: HttpClient, hurry: None) -> None:
    with pytest.raises(NotHere):
        send(client, Hop('https', 'two.example', server.port, verify=False))
    assert server.requests == []


# -- IPv6


def six() -> str:
    """The loopback address, or a reason to skip."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(('::1', 0))
    except OSError:
        pytest.skip('this host has no ::1')
    return '::1'


def test_an_ipv6_literal(authority: Authority) -> None:
    host = six()
    server, client = over_tls(authority.issue('::1'), host), trusting(authority)
    for verify in (False, True):
        hop = Hop('https', '::1', server.port, verify=verify)
        assert codes(send(client, hop, addresses=('::1',))) == [250]
    assert [r.all('Host') for r in server.requests] == [[f'[::1]:{server.port}']] * 2
    client.close()
    server.close()


def test_a_name_with_an_ipv6_address(client: HttpClient) -> None:
    server = Server(host=six())
    assert codes(send(client, plain(server), addresses=('127.0.0.1', '::1'))) == [250]
    assert server.requests[0].all('Host') == [f'two.example:{server.port}']
    server.close()
