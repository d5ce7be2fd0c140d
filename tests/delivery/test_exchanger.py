"""Exchangers: what goes by which, both dialects, and a poller against any answer."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.delivery import pulling
from madmail.delivery.exchanger import BadUrl, Exchangers, place, token_key
from madmail.delivery.exchanger_dialects import (
    BadAnswer,
    Given,
    acknowledged,
    answer_a,
    answer_b,
    page,
    request,
)
from madmail.delivery.federation import Federation, matcher
from madmail.delivery.policy import Policy
from madmail.delivery.pull_client import Answer, Failed
from madmail.delivery.pulling import Poller
from madmail.delivery.router import FULL, TROUBLE
from madmail.settings import Settings
from madmail.smtp.reply import Reply
from madmail.store.control import Control
from madmail.store.exchangers import Exchanger
from madmail.store.interface import Body
from madmail.store.spool import MemoryBody, Spool
from tests.system import mail

OWN = 'relay.example'
FAY = 'fay@[192.0.2.9]'
BOB = f'bob@{OWN}'
OK = Reply(250, '2.0.0', 'Ok')


def exchanger(name: str = 'x', **fields: Any) -> Exchanger:
    row = Exchanger(
        *(name, 'https://x.example', True, True, 60, 'b', 'token', (), (), 'push', False, b''),
        verify=None,
    )
    return row._replace(**fields)


# -- what goes by which


def test_the_most_exact_domain_decides() -> None:
    view = Exchangers(
        [
            exchanger('all', domains=('*',)),
            exchanger('b', domains=('b.example', '*.b.example'), mode='pull'),
            exchanger('c', domains=('c.example',), mode='both', carries=True),
            exchanger('off', domains=('d.example',), mode='pull', enabled=False),
        ],
        matcher,
    )
    names = {
        domain: (way.name if (way := view.via(domain)) else None)
        for domain in ('b.example', 'a.b.example', 'c.example', 'd.example', '[192.0.2.1]')
    }
    assert list(names.values()) == ['b', 'b', 'c', 'all', 'all']
    assert view.waits('a.b.example')
    assert not view.waits('c.example')
    assert view.shared('c.example')
    assert view.carries('c.example')
    assert not view.carries('b.example')
    assert set(view.pushed()) == {'*', 'c.example'}


def test_an_exchanger_fetches_what_goes_by_it_and_nothing_else() -> None:
    view = Exchangers(
        [
            exchanger('b', domains=('*.example',), mode='pull', pull_key=token_key('b-token')),
            exchanger('c', domains=('c.example',), mode='pull', pull_key=token_key('c-token')),
            exchanger('d', domains=('d.test',), pull_key=token_key('d-token')),
        ],
        matcher,
    )
    present = ['a.example', 'c.example', 'd.test']
    assert view.fetched_by('b', '*', present) == ['a.example']
    assert view.fetched_by('c', '*', present) == ['c.example']
    assert view.fetched_by('b', 'c.example', ['c.example']) == []
    assert view.fetched_by('d', '*', present) == []
    assert view.fetched_by('nobody', '*', present) == []
    named = view.by_token('c-token')
    assert named is not None
    assert named.name == 'c'
    assert view.by_token('c-toke') is None
    assert view.by_token('') is None


@pytest.mark.parametrize(
    ('url', 'expected'),
    [
        ('https://X.example', ('https', 'x.example', 443, '')),
        ('http://192.0.2.1:8080/a/b/', ('http', '192.0.2.1', 8080, '/a/b')),
        ('https://[2001:db8::1]/exchanger', ('https', '2001:db8::1', 443, '/exchanger')),
    ],
)
def test_urls(url: str, expected: tuple[Any, ...]) -> None:
    assert place(url) == expected


@pytest.mark.parametrize(
    'url',
    [
        *('x.example', 'ftp://x.example', 'https://', 'https://x.example/?a=b', 'https://a b'),
        *('https://u:p@x.example', 'https://x.example:99999', 'https://x.example/#f'),
        *('https://x.example/\r\nHost: y', 'https://' + 'x' * 600, 'https://x.example:0/'),
    ],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(BadUrl):
        place(url)


def test_the_federation_takes_exchangers_over_and_endpoints_hold(tmp_path: Path) -> None:
    control = Control(tmp_path)
    control.set_exchanger(exchanger('x', domains=('b.example', 'c.example')))
    control.set_endpoint('c.example', 'https://other.example', None, '', 0)
    federation = Federation(tmp_path, Settings.defaults(domain=OWN), OWN)
    found = federation.override('B.example')
    assert found is not None
    assert (found.scheme, found.host, found.port, found.path) == (
        *('https', 'x.example', 443),
        '/mxdeliv',
    )
    other = federation.override('c.example')
    assert other is not None
    assert other.host == 'other.example'
    control.set_exchanger(exchanger('x', domains=('*',), mode='pull', carries=True))
    federation.reload()
    assert federation.override('b.example') is None
    assert federation.waits('b.example')
    assert not federation.waits(OWN)
    assert not federation.carries(OWN)
    control.add_rule('b.example', 0)
    federation.reload()
    assert not federation.carries('b.example'), 'what may not leave is not taken'


# -- dialects


TEXT = b'From: <a@b.example>\r\n\r\n' + bytes(range(128, 256)) + b'"\\\r\n' * 30_000


def given_out(number: int, body: bytes = TEXT, prefix: bytes = b'Signed: yes\r\n') -> Given:
    names = ('bob@relay.example', 'eve@relay.example')
    return Given(number, OWN, FAY, names, 0, prefix, MemoryBody(body))


@pytest.mark.parametrize('protocol', ['a', 'b'])
def test_what_is_answered_is_understood(protocol: str) -> None:
    messages = [given_out(7), given_out(8, b'short', b'')]
    if protocol == 'a':
        text = b''.join(answer_a(messages, 25, True))
    else:
        text = b''.join(answer_b(OWN, messages, 25, True))
    found = page(protocol, text)
    assert found.ack
    assert found.waited
    assert [str(one.id) for one in found.messages] == ['7', '8']
    for one, sent in zip(found.messages, messages, strict=True):
        assert (one.sender, one.recipients) == (sent.sender, sent.recipients)
        assert b''.join(one.pieces()) == sent.prefix + sent.body.read()
        assert one.sound


def test_clients_of_others_find_their_fields() -> None:
    body = 'Grüße\r\n"\x01\r\n'.encode()
    answer = json.loads(b''.join(answer_b('D', [given_out(7, body)], 0, False)))
    assert (answer['domain'], answer['count']) == ('D', 1)
    [one] = answer['messages']
    assert one['body'].encode() == b'Signed: yes\r\n' + body
    assert base64.b64decode(one['body_b64']) == b'Signed: yes\r\n' + body
    assert one['mail_to'] == 'bob@relay.example'
    assert one['created_at'] == '1970-01-01T00:00:00Z'
    answer = json.loads(b''.join(answer_a([given_out(7, body)], 0, False)))
    [one] = answer['messages']
    assert base64.b64decode(one['body']) == b'Signed: yes\r\n' + body
    assert (one['size'], one['to']) == (13 + len(body), list(given_out(7).recipients))
    assert json.loads(b''.join(answer_a([], 25, True)))['messages'] == []


@pytest.mark.parametrize(
    'data',
    [b'', b'<html>', b'[]', b'{}', b'{"messages": {}}', b'{"count": 3}', b'[' * 100_000, b'\xff'],
)
@pytest.mark.parametrize('protocol', ['a', 'b'])
def test_what_is_no_answer(protocol: str, data: bytes) -> None:
    with pytest.raises(BadAnswer):
        page(protocol, data)


VALUES = st.none() | st.integers() | st.text() | st.lists(st.text() | st.none(), max_size=2)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.none()
            | st.integers()
            | st.text()
            | st.lists(st.text() | st.none(), max_size=2)
            for name in ('id', 'from', 'to', 'body', 'mail_from', 'mail_to', 'recipients')
        },
    ),
    st.sampled_from('ab'),
)
def test_messages_of_any_form_are_sound_or_not(one: dict[str, Any], protocol: str) -> None:
    [found] = page(protocol, json.dumps({'messages': [one]}).encode()).messages
    if found.sound:
        assert found.recipients
        assert isinstance(found.text, str)


def test_requests() -> None:
    assert request('b', '/exchanger', '[192.0.2.1]', 25)[0] == (
        '/exchanger/pull?domain=%5B192.0.2.1%5D&wait=25&group=1'
    )
    assert request('a', '/exchanger/secret', '', 25)[0] == '/exchanger/secret/me/full'
    assert acknowledged(b'{"acked": 1}')
    for data in (b'{"acked": 0}', b'[]', b'', b'{"acked": "1"}'):
        assert not acknowledged(data)


# -- a poller


class Desk:
    """Where mail goes."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.settings = Settings.defaults(domain=OWN, **settings)
        self.federation = Federation(directory, self.settings, OWN)
        self.policy = Policy(OWN, self.settings, self.federation)
        self.origin = None
        self.directory = directory
        self.received: list[tuple[tuple[str, ...], bytes, bytes]] = []
        self.held: list[tuple[str, tuple[str, ...], bytes, bytes]] = []
        self.replies: list[Reply] = []

    def spool(self) -> Spool:
        return Spool(self.directory)

    def receive(
        self, body: Body, recipients: list[str], message_id: bytes, origin: str = ''
    ) -> Reply:
        reply = self.replies.pop(0) if self.replies else OK
        if reply.positive:
            self.received.append((tuple(recipients), body.read(), message_id))
        return reply

    def hold(self, sender: str, body: Body, recipients: list[str], message_id: bytes) -> Reply:
        self.held.append((sender, tuple(recipients), body.read(), message_id))
        return OK


class Client:
    """An exchanger with the answers it was given."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, Any]] = []

    def ask(
        self, method: str, target: str, fields: dict[str, str], body: Any = None, **_: Any
    ) -> Answer:
        self.asked.append((method, target, json.loads(body) if body else fields))
        if method == 'POST':
            return Answer(200, b'{"acked": %d}' % len(json.loads(body)['ids']))
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Failed):
            raise answer
        if isinstance(answer, int):
            return Answer(answer, b'no')
        if isinstance(answer, list):
            answer = {'count': len(answer), 'messages': answer}
        return Answer(200, json.dumps(answer).encode())

    @property
    def acked(self) -> list[Any]:
        return [one for method, _, body in self.asked if method == 'POST' for one in body['ids']]


class Rig:
    def __init__(self, directory: Path, *answers: Any, **fields: Any) -> None:
        self.desk = Desk(directory)
        self.client = Client(*answers)
        self.slept: list[float] = []
        self.now = 0.0
        self.poller = Poller(
            exchanger(**fields),
            self.desk,  # type: ignore[arg-type]
            self.client,  # type: ignore[arg-type]
            clock=lambda: 1_000_000 + self.now,
            monotonic=lambda: self.now,
            sleep=self._sleep,
        )

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def b(number: int, text: bytes | None = None, **fields: Any) -> dict[str, Any]:
    body = (mail.encrypted(FAY, BOB) if text is None else text).decode()
    return {'id': number, 'mail_from': FAY, 'mail_to': BOB, 'body': body, **fields}


def test_what_is_stored_or_can_never_be_is_acknowledged(tmp_path: Path) -> None:
    good = mail.encrypted(FAY, BOB)
    rig = Rig(
        tmp_path,
        [
            b(1, good),
            b(2, b'From: <fay@[192.0.2.9]>\r\nSubject: x\r\n\r\nclear\r\n'),
            b(3, good.replace(b'\r\n', b'\n')),
            b(4, mail_to='bob@elsewhere.example'),
            b(5, mail_to='not an address'),
            b(6, mail_from='not an address'),
            b(7, body=None),
            b(8, body_b64='***'),
            b(9, mail_to=f'<BOB+tag@{OWN.upper()}>'),
        ],
    )
    rig.poller.poll()
    assert rig.client.acked == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [names for names, _, _ in rig.desk.received] == [(BOB,), (BOB,)]
    polled = rig.poller.take_polled()
    assert (polled.pulled, polled.refused, polled.last_error) == (2, 7, '')
    assert polled.last_success_at == polled.last_poll_at == 1_000_000


def test_halves_of_characters_are_no_address(tmp_path: Path) -> None:
    half = f'\ud800@{OWN}'
    rig = Rig(tmp_path, [b(1, mail_to=half), b(2, mail_from='\udfff@[192.0.2.9]'), b(3)])
    rig.poller.poll()
    assert rig.client.acked == [1, 2, 3]
    assert [names for names, _, _ in rig.desk.received] == [(BOB,)]


def test_what_breaks_over_one_message_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, [b(1), b(2), b(3)], [b(2)])
    receive, seen = rig.desk.receive, []

    def breaking(*arguments: Any) -> Reply:
        seen.append(1)
        if len(seen) == 2:
            raise KeyError('a bug')
        return receive(*arguments)

    monkeypatch.setattr(rig.desk, 'receive', breaking)
    rig.poller.poll()
    assert rig.client.acked == [1, 3]
    assert rig.poller.last_error == ''
    rig.poller.poll()
    assert rig.client.acked == [1, 3, 2]


def test_the_policy_holds_for_fetched_mail(tmp_path: Path) -> None:
    Control(tmp_path).add_rule('[192.0.2.9]', 0)
    rig = Rig(tmp_path, [b(1), b(2, mail_from='')])
    rig.poller.poll()
    assert rig.desk.received == []
    assert rig.poller.refused == 2


def test_nothing_is_fetched_while_all_would_be_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [b(1)])
    off = Settings.defaults(domain=OWN, federation__enabled=False)
    rig.desk.settings = off
    rig.poller.poll()
    assert rig.client.asked == []
    assert 'off' in rig.poller.last_error


@pytest.mark.parametrize('reply', [TROUBLE, FULL])
def test_what_cannot_be_stored_now_comes_again(tmp_path: Path, reply: Reply) -> None:
    rig = Rig(tmp_path, [b(1), b(2)], [b(1)])
    rig.desk.replies = [reply]
    rig.poller.poll()
    assert rig.client.acked == [2]
    rig.poller.poll()
    assert rig.client.acked == [2, 1]
    assert rig.poller.take_polled().pulled == 2
    assert rig.slept == []


def test_without_acknowledgement_a_message_is_stored_before_anything_else(tmp_path: Path) -> None:
    text = base64.b64encode(mail.encrypted(FAY, BOB)).decode()
    message = {'id': 'm1', 'from': FAY, 'to': [BOB], 'body': text}
    rig = Rig(tmp_path, [message], protocol='a')
    rig.desk.replies = [TROUBLE] * 5
    assert rig.poller.poll() is False
    assert len(rig.desk.received) == 1
    assert rig.slept == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert [method for method, _, _ in rig.client.asked] == ['GET']


def test_a_message_again_has_the_same_id_for_the_store(tmp_path: Path) -> None:
    text = mail.encrypted(FAY, BOB)
    encoded = base64.b64encode(text).decode()
    rig = Rig(
        tmp_path, [b(1, text), b(2, text, body_b64=encoded)], [b(3, b'X-Trace: y\r\n' + text)]
    )
    rig.poller.poll()
    first, second = (number for _, _, number in rig.desk.received)
    assert first == second


def test_mail_for_others_goes_on_as_it_came(tmp_path: Path) -> None:
    control = Control(tmp_path)
    control.set_exchanger(
        exchanger('b', domains=('b.example',), mode='pull', carries=True, polls=False)
    )
    text = b'DKIM-Signature: v=1; kept\r\n' + mail.encrypted(FAY, BOB)
    names = {'recipients': [BOB, 'carol@B.example', 'dave@c.example'], 'mail_to': BOB}
    rig = Rig(tmp_path, [b(1, text, **names), b(2, text, **names, mail_from='other@[192.0.2.9]')])
    rig.poller.poll()
    (sender, recipients, kept, _), (hidden, *_) = rig.desk.held
    assert (sender, recipients) == (FAY, ('carol@b.example',))
    assert kept == text
    assert hidden == '', 'who is not the author gets no report'
    assert b'DKIM-Signature' not in rig.desk.received[0][1]
    assert rig.desk.received[0][0] == (BOB,)


@pytest.mark.parametrize(
    ('answer', 'error'),
    [
        (401, 'the token is wrong'),
        (404, 'nothing to fetch at this URL'),
        (302, 'it answered 302'),
        (Failed('its certificate is not right'), 'certificate'),
        ({'nothing': 1}, 'no list of messages'),
    ],
)
def test_failures_are_told_and_double_the_pause(tmp_path: Path, answer: Any, error: str) -> None:
    rig = Rig(tmp_path, answer, answer, answer, [])
    pauses = []
    for _ in range(3):
        assert rig.poller.poll() is False
        pauses.append(rig.poller._pause())
    assert error in rig.poller.last_error
    assert rig.poller.failures == 3
    for pause, expected in zip(pauses, (120, 240, 480), strict=True):
        assert 0.89 * expected < pause < 1.11 * expected
    rig.poller.failures = 50
    assert rig.poller._pause() <= pulling.LONGEST * 1.1
    rig.poller.poll()
    assert (rig.poller.failures, rig.poller.last_error) == (0, '')


def test_dialect_a_may_have_no_queue_yet(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 404, protocol='a')
    assert rig.poller.poll() is False
    assert rig.poller.last_error == ''


def test_an_exchanger_that_waits_is_asked_again_and_no_other(tmp_path: Path) -> None:
    empty = {'count': 0, 'messages': [], 'wait': 25}
    full = [b(n) for n in range(50)]
    rig = Rig(tmp_path, empty, {**empty, 'messages': [b(1)]}, [b(2)], full)
    assert rig.poller.poll() is False, 'it said that it waits, and did not'
    assert rig.poller.poll() is True
    assert rig.poller.poll() is False
    assert rig.poller.poll() is True, 'a full page'


def test_intervals_have_a_floor(tmp_path: Path) -> None:
    assert Rig(tmp_path, poll_interval=0).poller._pause() >= 1


def test_what_could_not_be_written_is_counted_later(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [b(1)])
    rig.poller.poll()
    polled = rig.poller.take_polled()
    assert not rig.poller.changed
    rig.poller.give_back(polled)
    assert rig.poller.changed
    assert rig.poller.take_polled() == polled
