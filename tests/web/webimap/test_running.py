"""What the peers' SDK calls, against a running relay; beside IMAP sessions of the same account."""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madmail.web.webimap.websocket import BINARY, CLOSE, PING, PONG, TEXT
from tests.system import mail
from tests.system.relay import fetch_all, wait_for
from tests.web.conftest import WebRelay
from tests.web.webimap.test_websocket import masked

Person = tuple[str, str]
# fmt: off
ACTIONS = (
    'send', 'fetch', 'list_mailboxes', 'list_messages', 'flags', 'delete', 'search', 'x',
    'create_mailbox', 'delete_mailbox', 'rename_mailbox', 'copy', 'move',
)
FIELDS = (
    'uid', 'mailbox', 'flags', 'op', 'to', 'body', 'query', 'name', 'old_name', 'new_name',
    'dest_mailbox', 'since_uid',
)
# fmt: on


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRelay]:
    options = {
        'webimap': {'enabled': True, 'cors_origins': ['https://app.example']},
        'websmtp': {'enabled': True},
        'limits': {'admin_failures_per_minute_per_ip': 1000},
        'log': 'stderr',
        'log_level': 'error',
    }
    with WebRelay(tmp_path_factory.mktemp('webimap'), options) as relay:
        yield relay


@pytest.fixture
def alice(relay: WebRelay) -> Person:
    return relay.account('alice')


@pytest.fixture
def bob(relay: WebRelay) -> Person:
    return relay.account('bob')


def ask(
    relay: WebRelay, who: Person, path: str, method: str = 'GET', data: Any = None, **headers: str
) -> tuple[int, Any]:
    client = relay.client('https', 60)
    fields = {'X-Email': who[0], 'X-Password': who[1], 'Content-Type': 'application/json'}
    client.request(method, path, None if data is None else json.dumps(data), {**fields, **headers})
    response = client.getresponse()
    body = response.read()
    client.close()
    return response.status, json.loads(body) if body else None


def deliver(relay: WebRelay, sender: Person, to: str, count: int = 1, size: int = 2000) -> None:
    with relay.smtp(*sender) as client:
        for _ in range(count):
            client.sendmail(sender[0], [to], mail.encrypted(sender[0], to, size=size))


class Page:
    """A page's WebSocket."""

    def __init__(self, relay: WebRelay, who: Person, since: int = 0, **headers: str) -> None:
        self.stream = relay.raw('https')
        key = base64.b64encode(os.urandom(16)).decode()
        query = f'email={quote(who[0])}&password={quote(who[1])}&mailbox=INBOX&since_uid={since}'
        lines = {
            'Host': 'chat.example',
            'Upgrade': 'websocket',
            'Connection': 'Upgrade',
            'Sec-WebSocket-Key': key,
            'Sec-WebSocket-Version': '13',
            **headers,
        }
        text = ''.join(f'{name}: {value}\r\n' for name, value in lines.items())
        self.stream.sendall(f'GET /webimap/ws?{query} HTTP/1.1\r\n{text}\r\n'.encode())
        self.input = b''
        while b'\r\n\r\n' not in self.input:
            data = self.stream.recv(65536)
            if not data:
                break
            self.input += data
        head, _, self.input = self.input.partition(b'\r\n\r\n')
        self.status = int(head.split()[1])
        self.number = 0
        self.pushed: list[dict[str, Any]] = []

    def send(self, kind: int, data: bytes) -> None:
        self.stream.sendall(masked(kind, data))

    def frame(self) -> tuple[int, bytes]:
        while True:
            if len(self.input) >= 2:
                size, at = self.input[1], 2
                if size == 126:
                    size, at = int.from_bytes(self.input[2:4], 'big'), 4
                elif size == 127:
                    size, at = int.from_bytes(self.input[2:10], 'big'), 10
                if len(self.input) >= at + size:
                    kind, data = self.input[0] & 15, self.input[at : at + size]
                    self.input = self.input[at + size :]
                    return kind, data
            more = self.stream.recv(65536)
            if not more:
                raise ConnectionError
            self.input += more

    def said(self) -> dict[str, Any]:
        """The next JSON object."""
        while True:
            kind, data = self.frame()
            if kind == TEXT:
                found: dict[str, Any] = json.loads(data)
                return found
            if kind == CLOSE:
                raise ConnectionError(int.from_bytes(data[:2], 'big'))

    def ask(self, action: str, data: Any = None) -> Any:
        self.number += 1
        request = {'req_id': str(self.number), 'action': action, 'data': data or {}}
        self.send(TEXT, json.dumps(request).encode())
        while True:
            said = self.said()
            if said.get('req_id') == str(self.number):
                return said['data'] if said['action'] == 'result' else (said['data'],)
            self.pushed.append(said)

    def push(self) -> dict[str, Any]:
        said = self.pushed.pop(0) if self.pushed else self.said()
        assert said['action'] == 'new_message'
        found: dict[str, Any] = said['data']
        return found

    def close(self) -> None:
        self.stream.close()


def test_reading(relay: WebRelay, alice: Person, bob: Person) -> None:
    deliver(relay, alice, bob[0], 3)
    wait_for(relay.imap(*bob), 3)
    status, boxes = ask(relay, bob, '/webimap/mailboxes')
    assert status == 200
    inbox = next(box for box in boxes if box['name'] == 'INBOX')
    assert (inbox['messages'], inbox['unseen']) == (3, 3)
    assert '\\Inbox' in inbox['attributes']
    _, found = ask(relay, bob, '/webimap/messages')
    assert [one['uid'] for one in found] == [1, 2, 3]
    assert [one['seq_num'] for one in found] == [1, 2, 3]
    assert found[0]['flags'] == []
    author = found[0]['envelope']['from'][0]
    assert f'{author["mailbox"]}@{author["host"]}' == alice[0]
    assert found[0]['date'].endswith('Z')
    assert [one['uid'] for one in ask(relay, bob, '/webimap/messages?since_uid=2')[1]] == [3]
    status, one = ask(relay, bob, '/webimap/message/2?mailbox=INBOX')
    assert status == 200
    assert one['body'].encode() == fetch_all(relay.imap(*bob))[2]
    assert one['size'] == len(one['body'])
    assert ask(relay, bob, '/webimap/message/9')[0] == 404
    assert ask(relay, bob, '/webimap/messages?mailbox=Nothing') == (
        400,
        {'error': 'unknown mailbox'},
    )


def test_flags_are_seen_by_others_and_stay(relay: WebRelay, alice: Person, bob: Person) -> None:
    deliver(relay, alice, bob[0])
    other = relay.imap(*bob)
    wait_for(other, 1)
    change = {'mailbox': 'INBOX', 'uid': 1, 'flags': ['\\Seen', '$Mine'], 'op': 'add'}
    assert ask(relay, bob, '/webimap/message/flags', 'POST', change) == (200, {'status': 'ok'})
    other.select()
    _, rows = other.uid('FETCH', '1', '(FLAGS)')
    assert b'\\Seen' in rows[0]
    assert b'$Mine' in rows[0]
    assert ask(relay, bob, '/webimap/messages')[1][0]['flags'] == ['\\Seen', '$Mine']
    assert ask(relay, bob, '/webimap/mailboxes')[1][0]['unseen'] == 0
    for wrong in ({'op': 'x'}, {'uid': 'x'}, {'flags': 'x'}, {'flags': ['a b']}, {'mailbox': 'No'}):
        answer = ask(relay, bob, '/webimap/message/flags', 'POST', {**change, **wrong})
        assert answer[0] == 400, wrong
    assert ask(relay, bob, '/webimap/message/flags', 'POST', {**change, 'uid': 5})[0] == 404
    assert ask(relay, bob, '/webimap/message/1', 'DELETE') == (200, {'status': 'deleted'})
    assert ask(relay, bob, '/webimap/messages/INBOX/1', 'DELETE')[0] == 404
    assert fetch_all(other) == {}


def test_sending_by_the_rules_of_all(relay: WebRelay, alice: Person, bob: Person) -> None:
    text = mail.encrypted(alice[0], bob[0])
    body = text.decode() if isinstance(text, bytes) else text
    said = {'from': 'ignored', 'to': [bob[0]], 'body': body}
    for path in ('/webimap/send', '/websmtp/send'):
        assert ask(relay, alice, path, 'POST', said) == (200, {'status': 'sent'})
    wait_for(relay.imap(*bob), 2)
    plain = f'From: {alice[0]}\nTo: {bob[0]}\nSubject: x\n\nplain\n'
    status, told = ask(relay, alice, '/webimap/send', 'POST', {**said, 'body': plain})
    assert status == 400
    assert 'Encryption' in told['error']
    forged = mail.encrypted(bob[0], bob[0])
    forged = forged.decode() if isinstance(forged, bytes) else forged
    assert ask(relay, alice, '/webimap/send', 'POST', {**said, 'body': forged})[0] == 403
    for wrong in (
        {'to': []},
        {'to': 'x'},
        {'to': ['x']},
        {'to': ['a@b>\r\nRCPT TO:<c@d']},
        {'body': ''},
    ):
        assert ask(relay, alice, '/webimap/send', 'POST', {**said, **wrong})[0] == 400, wrong
    wait_for(relay.imap(*bob), 2)
    relay.cli('settings', 'set', 'websmtp.enabled', 'false')
    assert ask(relay, alice, '/webimap/send', 'POST', said) == (404, {'error': 'not found'})
    relay.cli('settings', 'reset', 'websmtp.enabled')


def test_who_may_ask(relay: WebRelay, alice: Person) -> None:
    path = '/webimap/mailboxes'
    assert ask(relay, (alice[0], 'wrong-password'), path) == (401, {'error': 'invalid credentials'})
    assert ask(relay, ('', alice[1]), path) == (401, {'error': 'missing X-Email header'})
    assert ask(relay, (alice[0], ''), path) == (401, {'error': 'missing X-Password header'})
    assert ask(relay, ('nobody', 'x'), path)[0] == 400
    assert ask(relay, ('a@other.example', 'x' * 12), path)[0] == 401
    relay.cli('settings', 'set', 'webimap.enabled', 'false')
    assert ask(relay, alice, path) == (404, {'error': 'not found'})
    assert Page(relay, alice).status == 404
    relay.cli('settings', 'reset', 'webimap.enabled')


@pytest.mark.parametrize(
    ('method', 'path', 'body', 'wanted'),
    [
        ('GET', '/webimap/message/0', '', (404, 'message not found')),
        ('DELETE', '/webimap/message/0', '', (404, 'message not found')),
        ('DELETE', '/webimap/messages/INBOX/0', '', (404, 'message not found')),
        ('GET', '/webimap/message/4294967295', '', (404, 'message not found')),
        ('GET', '/webimap/message/4294967296', '', (400, 'invalid uid')),
        ('GET', '/webimap/messages?since_uid=4294967295', '', (200, None)),
        ('GET', '/webimap/messages?since_uid=', '', (200, None)),
        ('POST', '/webimap/message/flags', '{"uid":0,"op":"add"}', (404, 'message not found')),
        (
            'POST',
            '/webimap/message/flags',
            '{"uid":1,"mailbox":"\\ud800","flags":[],"op":"add"}',
            (400, 'invalid JSON'),
        ),
        ('POST', '/webimap/send', '{"to":["\\ud800@x.example"],"body":"x"}', (400, 'invalid JSON')),
        ('POST', '/webimap/message/flags', '[' * 60_000, (400, 'invalid JSON')),
        ('POST', '/webimap/message/flags', ' ' * 70_000, (413, 'message too large')),
        ('POST', '/webimap/send', '[' * 900_000, (413, 'message too large')),
        ('GET', '/webimap/nothing', '', (404, 'not found')),
        ('GET', '/webimap', '', (404, 'not found')),
        ('POST', '/websmtp/receive', '', (404, 'not found')),
        ('GET', '/webimap/ws', '', (404, 'not found')),
        ('POST', '/webimap/mailboxes', '', (405, '405 Method Not Allowed')),
    ],
)
def test_every_refusal_is_told_in_json(
    relay: WebRelay,
    alice: Person,
    method: str,
    path: str,
    body: str,
    wanted: tuple[int, str | None],
) -> None:
    client = relay.client()
    client.request(method, path, body or None, {'X-Email': alice[0], 'X-Password': alice[1]})
    answer = client.getresponse()
    told = json.loads(answer.read())
    client.close()
    status, text = wanted
    assert answer.status == status
    assert told == ([] if text is None else {'error': text})


def test_nothing_large_is_kept_for_who_does_not_know_the_password(
    relay: WebRelay, alice: Person
) -> None:
    with relay.raw('https') as stream:
        head = (
            f'POST /websmtp/send HTTP/1.1\r\nHost: chat.example\r\nX-Email: {alice[0]}\r\n'
            'X-Password: wrong-password\r\nContent-Length: 20000000\r\n\r\n'
        )
        stream.sendall(head.encode())
        # The answer comes before a single octet of the message.
        assert stream.recv(65536).startswith(b'HTTP/1.1 401 ')


def test_a_large_message_goes_and_comes(relay: WebRelay, alice: Person, bob: Person) -> None:
    message = mail.encrypted(alice[0], bob[0], size=3_000_000).decode()
    page = Page(relay, alice)
    assert page.ask('send', {'to': [bob[0]], 'body': message}) == {'status': 'sent'}
    page.close()
    said = {'from': alice[0], 'to': [bob[0]], 'body': message}
    assert ask(relay, alice, '/websmtp/send', 'POST', said) == (200, {'status': 'sent'})
    page = Page(relay, bob)
    for uid in (1, 2):
        status, told = ask(relay, bob, f'/webimap/message/{uid}')
        assert status == 200
        body = message.partition('\r\n\r\n')[2]
        assert told['body'].partition('\r\n\r\n')[2] == body
        assert page.ask('fetch', {'uid': uid}) == told
    page.close()


def test_pages_of_other_origins(relay: WebRelay, alice: Person) -> None:
    client = relay.client()
    for origin, status in (('https://app.example', 204), ('https://evil.example', 403)):
        client.request('OPTIONS', '/webimap/send', headers={'Origin': origin})
        answer = client.getresponse()
        answer.read()
        assert answer.status == status
        shared = answer.headers['Access-Control-Allow-Origin']
        assert shared == (origin if status == 204 else None)
    for origin, shared in (
        ('https://app.example', 'https://app.example'),
        ('https://b.example', None),
    ):
        client.request('POST', '/new', headers={'Origin': origin})
        answer = client.getresponse()
        assert set(json.loads(answer.read())) == {'email', 'password', 'dclogin_url'}
        assert answer.headers['Access-Control-Allow-Origin'] == shared, 'as the SDK registers'
    assert Page(relay, alice, Origin='https://evil.example').status == 403
    assert Page(relay, alice, Origin='https://app.example').status == 101
    assert Page(relay, alice, Origin='https://chat.example').status == 101, 'our own pages'


def test_a_long_poll_ends_with_the_message(relay: WebRelay, alice: Person, bob: Person) -> None:
    import threading

    found: list[Any] = []

    def poll() -> None:
        found.append(ask(relay, bob, '/webimap/messages?wait=30&since_uid=0'))

    thread = threading.Thread(target=poll)
    thread.start()
    time.sleep(0.5)
    assert not found
    deliver(relay, alice, bob[0])
    thread.join(20)
    assert [one['uid'] for one in found[0][1]] == [1]
    assert ask(relay, bob, '/webimap/messages?wait=1&since_uid=1') == (200, [])


def test_a_page_is_told_of_new_messages(relay: WebRelay, alice: Person, bob: Person) -> None:
    deliver(relay, alice, bob[0], 2)
    wait_for(relay.imap(*bob), 2)
    page = Page(relay, bob)
    assert page.status == 101
    assert [page.push()['uid'] for _ in range(2)] == [1, 2]
    deliver(relay, alice, bob[0], 3)
    told = [page.push() for _ in range(3)]
    assert [one['uid'] for one in told] == [3, 4, 5]
    assert told[0]['envelope']['from']
    later = Page(relay, bob, since=4)
    assert later.push()['uid'] == 5
    page.close()
    later.close()


def test_actions(relay: WebRelay, alice: Person, bob: Person) -> None:
    page = Page(relay, alice)
    text = mail.encrypted(alice[0], bob[0])
    body = text.decode() if isinstance(text, bytes) else text
    assert page.ask('send', {'from': 'x', 'to': [bob[0]], 'body': body}) == {'status': 'sent'}
    wait_for(relay.imap(*bob), 1)
    page = Page(relay, bob)
    uid = page.push()['uid']
    assert page.ask('fetch', {'uid': uid})['uid'] == uid
    assert page.ask('fetch', {'uid': 77}) == ('message not found',)
    assert page.ask('create_mailbox', {'name': 'Grüße/été'}) == {'status': 'created'}
    assert page.ask('create_mailbox', {'name': 'Grüße/été'}) == ('mailbox already exists',)
    names = [box['name'] for box in page.ask('list_mailboxes')]
    assert 'Grüße/été' in names
    moved = {'uid': uid, 'dest_mailbox': 'Grüße/été'}
    assert page.ask('copy', moved) == {'status': 'copied'}
    assert page.ask('copy', {**moved, 'dest_mailbox': 'No'}) == ('unknown mailbox',)
    assert [
        m['uid'] for m in page.ask('list_messages', {'mailbox': 'Grüße/été', 'since_uid': 0})
    ] == [1]
    assert page.ask('list_messages', {}) == (
        'invalid list_messages payload: since_uid is required',
    )
    flags = {'uid': uid, 'flags': ['\\Flagged'], 'op': 'set'}
    assert page.ask('flags', flags) == {'status': 'ok'}
    assert page.ask('search', {'query': alice[0].partition('@')[0]})[0]['uid'] == uid
    assert page.ask('search', {'query': 'nothing of the kind'}) == []
    assert page.ask('search', {}) == ('empty query',)
    assert page.ask('move', {'uid': uid, 'destination': 'Grüße/été'}) == {'status': 'moved'}
    assert page.ask('list_messages', {'since_uid': 0}) == []
    assert page.ask('rename_mailbox', {'oldName': 'Grüße/été', 'new_name': 'Neu'}) == {
        'status': 'renamed'
    }
    assert page.ask('delete_mailbox', {'name': 'INBOX'}) == ('cannot delete INBOX',)
    for name in ('', '..', '../x', 'a' * 300, 'a\r\nb LOGOUT', None, 5):
        page.ask('delete_mailbox', {'name': name})
    assert page.ask('delete_mailbox', {'name': 'Neu'}) == {'status': 'deleted'}
    assert page.ask('delete_mailbox', {'name': 'Neu'}) == ('unknown mailbox',)
    assert page.ask('nonsense') == ('unknown action',)
    page.send(TEXT, b'{"type":"ping"}')
    assert page.said() == {'action': 'pong', 'data': {}}
    page.send(TEXT, b'not json')
    assert page.said() == {'action': 'error', 'data': 'invalid JSON'}
    page.send(PING, b'hello')
    assert page.frame() == (PONG, b'hello')
    page.send(CLOSE, b'\x03\xe8')
    assert page.frame()[0] == CLOSE
    page.close()


def test_a_page_that_breaks_the_protocol_is_closed(relay: WebRelay, alice: Person) -> None:
    page = Page(relay, alice)
    page.stream.sendall(b'\x81\x05hello')
    assert page.frame() == (CLOSE, (1002).to_bytes(2, 'big'))
    refused = Page(relay, (alice[0], 'wrong-password'))
    assert refused.status == 401
    assert Page(relay, alice, Sec_WebSocket_Key='x').status in (101, 400)


def test_a_page_ends_with_its_account(relay: WebRelay, alice: Person) -> None:
    page = Page(relay, alice)
    assert page.ask('list_mailboxes')
    relay.cli('accounts', 'delete', alice[0], '-y')
    with pytest.raises((ConnectionError, socket.timeout)):
        page.said()


def test_nothing_follows_a_close(relay: WebRelay, alice: Person) -> None:
    page = Page(relay, alice)
    relay.cli('accounts', 'delete', alice[0], '-y')
    assert page.frame() == (CLOSE, (1001).to_bytes(2, 'big'))
    page.send(TEXT, b'{"type":"ping"}')
    with pytest.raises(OSError) as gone:
        page.frame()
    assert not isinstance(gone.value, TimeoutError)


def test_a_socket_does_not_outlive_the_switch(relay: WebRelay, alice: Person, bob: Person) -> None:
    asks, rests = Page(relay, alice), Page(relay, bob)
    relay.cli('settings', 'set', 'websmtp.enabled', 'false')
    try:
        told = asks.ask('send', {'to': [bob[0]], 'body': 'x'})
        assert told == ('send is not enabled',)
        relay.cli('settings', 'set', 'webimap.enabled', 'false')
        asks.send(TEXT, b'{"action":"list_mailboxes"}')
        assert asks.frame() == (CLOSE, (1008).to_bytes(2, 'big'))
        deliver(relay, alice, bob[0])
        assert rests.frame() == (CLOSE, (1001).to_bytes(2, 'big'))
    finally:
        relay.cli('settings', 'reset', 'webimap.enabled')
        relay.cli('settings', 'reset', 'websmtp.enabled')


def test_closes_are_answered_by_the_rules(relay: WebRelay, alice: Person) -> None:
    for kind, data, code in (
        (CLOSE, (3001).to_bytes(2, 'big') + b'bye', 3001),
        (CLOSE, b'\x03', 1002),
        (CLOSE, (1005).to_bytes(2, 'big'), 1002),
        (TEXT, b'{"a":"\xff"}', 1007),
        (BINARY, b'{}', 1003),
    ):
        page = Page(relay, alice)
        page.send(kind, data)
        assert page.frame() == (CLOSE, code.to_bytes(2, 'big'))
        page.stream.close()
    page = Page(relay, alice)
    page.stream.sendall(b'\x81\xff' + (2**32).to_bytes(8, 'big') + b'mask' + bytes(200_000))
    assert page.frame() == (CLOSE, (1009).to_bytes(2, 'big')), 'unread input is no reset'
    page.stream.close()


def test_half_of_a_character_is_answered(relay: WebRelay, alice: Person) -> None:
    page = Page(relay, alice)
    for text in (
        '{"req_id":"\\ud800","action":"x"}',
        '{"action":"search","data":{"query":"\\udfff"}}',
    ):
        page.send(TEXT, text.encode())
        assert page.said() == {'action': 'error', 'data': 'invalid JSON'}
    page.close()


def test_handshakes_that_are_refused(relay: WebRelay, alice: Person) -> None:
    with relay.raw('https') as stream:
        query = '&'.join(['a=b'] * 100)
        stream.sendall(
            f'GET /webimap/ws?{query} HTTP/1.1\r\nHost: chat.example\r\nUpgrade: websocket\r\n'
            'Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
            'Sec-WebSocket-Version: 8\r\n\r\n'.encode()
        )
        received = stream.recv(65536)
    assert received.startswith(b'HTTP/1.1 426 ')
    assert b'\r\nSec-WebSocket-Version: 13\r\n' in received  # RFC 6455 4.4


@settings(max_examples=120, deadline=None)
@given(
    action=st.sampled_from(ACTIONS),
    data=st.dictionaries(
        st.sampled_from(FIELDS),
        st.none()
        | st.integers()
        | st.text(max_size=30)
        | st.lists(st.text(max_size=10), max_size=3)
        | st.sampled_from(['INBOX', '\\Seen', 'add', '1', '..']),
    ),
)
def test_nothing_that_is_asked_breaks_it(
    relay: WebRelay, page: Page, action: str, data: dict[str, Any]
) -> None:
    page.ask(action, data)  # answers or refuses


@pytest.fixture(scope='module')
def page(relay: WebRelay) -> Iterator[Page]:
    page = Page(relay, relay.account('fuzz'))
    yield page
    page.close()


def test_no_exception_was_counted(relay: WebRelay) -> None:
    for child in relay.status()['data']['children']:
        assert sum(child['statistics']['exceptions'].values()) == 0
    assert 'exception=' not in relay.text(), 'nor in a web worker, which is no child'
    assert 'Traceback' not in relay.text()


def test_kept_for_last(relay: WebRelay, tmp_path: Path) -> None:
    """The CLI's switches."""
    for name in ('webimap', 'websmtp'):
        told = json.loads(relay.cli('--json', name, 'status').stdout)['data']
        assert told == {'enabled': True}
        relay.cli(name, 'disable')
        relay.cli(name, 'enable')


def test_guessing_is_slowed(tmp_path: Path) -> None:
    options = {
        'webimap': {'enabled': True},
        'limits': {'admin_failures_per_minute_per_ip': 3},
    }
    with WebRelay(tmp_path, options) as relay:
        alice = relay.account('alice')
        wrong = (alice[0], 'wrong-password')
        statuses = [ask(relay, wrong, '/webimap/mailboxes')[0] for _ in range(8)]
        assert statuses[0] == 401
        assert statuses[-1] == 429


def test_a_page_at_rest_stays_and_is_told_when_the_server_goes(tmp_path: Path) -> None:
    options = {'webimap': {'enabled': True}, 'limits': {'imap_idle': 1}}
    with WebRelay(tmp_path, options) as relay:
        alice, bob = relay.account('alice'), relay.account('bob')
        page = Page(relay, alice)
        with relay.connect('imaps', 60) as other:
            other.sendall(f'a LOGIN {bob[0]} {bob[1]}\r\n'.encode())
            while b'* BYE' not in other.recv(65536):
                pass  # so the shards have ended whoever is silent for too long
        deliver(relay, bob, alice[0])
        assert page.said()['action'] == 'new_message'
        relay.reload()
        page.stream.settimeout(60)
        kind, data = page.frame()
        assert (kind, data) == (CLOSE, (1001).to_bytes(2, 'big'))
