"""/mxdeliv as an application: what is answered to what, and what is stored."""

from pathlib import Path

import pytest

from madmail.delivery.federation import key
from madmail.settings import Settings
from madmail.smtp.reply import Reply
from tests.system import mail
from tests.web.double import BOB, EVE, FAY, OWN, Room

MESSAGE = mail.encrypted(FAY, BOB)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return _strict(tmp_path)


def _strict(directory: Path, **settings: object) -> Room:
    return Room(directory, Settings.defaults({'domain': OWN}, **settings))


@pytest.mark.parametrize('path', ['/mxdeliv', '/mxdeliv/'])
def test_an_encrypted_message_is_delivered(room: Room, path: str) -> None:
    assert room.post(MESSAGE, BOB, path=path) == (200, '250 OK')
    (stored,) = room.inbox()
    assert stored.endswith(MESSAGE.partition(b'\r\n\r\n')[2])
    assert room.counted() == {'delivered': 1}


@pytest.mark.parametrize('method', ['GET', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH'])
def test_nothing_but_post(room: Room, method: str) -> None:
    result = room.client.simulate_request(method, '/mxdeliv')
    assert result.status_code == 405
    assert 'POST' in result.headers['allow']


def test_nothing_else_is_here(room: Room) -> None:
    assert room.client.simulate_get('/mxdeliv').status_code == 405
    assert room.client.simulate_post('/', body=MESSAGE).status_code == 405
    assert room.client.simulate_post('/mxdeliv/x', body=MESSAGE).status_code == 404


@pytest.mark.parametrize(
    'spelling',
    [BOB, BOB.upper(), f'<{BOB}>', f'  {BOB} ', f'bob+tag@{OWN}', f'"bob"@{OWN}', f'Bob@{OWN}'],
)
def test_recipients_are_known_in_every_spelling(room: Room, spelling: str) -> None:
    assert room.post(MESSAGE, spelling)[0] == 200
    assert len(room.inbox()) == 1


@pytest.mark.parametrize('domain', ['[192.0.2.1]', '192.0.2.1'])
def test_literals_are_known_with_and_without_brackets(tmp_path: Path, domain: str) -> None:
    room = Room(tmp_path, Settings.defaults(domain='192.0.2.1'))
    seen = []
    room.services.receive = lambda body, names, ident, origin: (  # type: ignore[method-assign]
        seen.append(names) or Reply(250, '', 'Ok')
    )
    assert room.post(MESSAGE, f'Bob@{domain}')[0] == 200
    assert seen == [['bob@[192.0.2.1]']]


def test_a_recipient_named_often_gets_one_copy(room: Room) -> None:
    names = [BOB, BOB.upper(), f'bob+x@{OWN}', EVE, BOB]
    assert room.post(MESSAGE, *names)[0] == 200
    assert len(room.inbox(BOB)) == len(room.inbox(EVE)) == 1
    assert room.services.received[0][0] == [BOB, EVE]


def test_a_comma_inside_quotes_is_no_separator(room: Room) -> None:
    assert room.post(MESSAGE, f'"a,b"@{OWN}', BOB, f'"c\\",d"@{OWN}')[0] == 200
    assert room.services.policy.ownable(f'"a,b"@{OWN}') is False
    assert len(room.inbox(BOB)) == 1


@pytest.mark.parametrize(
    'names',
    [
        [f'nobody@{OWN}'],
        [f'admin@{OWN}', f'root@{OWN}', f'postmaster@{OWN}', f'mailer-daemon@{OWN}'],
        ['bob@wrong.example'],
        ['bob@[203.0.113.99]'],
        [f'nobody@{OWN}', 'bob@wrong.example', f'abuse@{OWN}'],
    ],
)
def test_who_is_not_here_looks_like_who_is(room: Room, names: list[str]) -> None:
    """For a good message and for each that is refused."""
    other = mail.plain(FAY, BOB)
    for body in (MESSAGE, other, MESSAGE.replace(b'\r\n', b'\n'), b''):
        assert room.post(body, *names) == room.post(body, BOB)
    long = MESSAGE + b'x' * 100
    room.services.settings.change('limits.max_message_size', str(len(MESSAGE)))
    assert room.post(long, *names) == room.post(long, BOB)
    room.services.settings.change('federation.policy', 'reject')
    assert room.post(MESSAGE, *names) == room.post(MESSAGE, BOB)
    assert room.post(MESSAGE, *names)[0] == 403


def test_a_mixed_list_reaches_those_who_are_here(room: Room) -> None:
    names = [f'nobody@{OWN}', BOB, 'x@wrong.example', f'admin@{OWN}', EVE]
    assert room.post(MESSAGE, *names) == (200, '250 OK')
    assert len(room.inbox(BOB)) == len(room.inbox(EVE)) == 1


@pytest.mark.parametrize(
    'names',
    [
        [],
        [''],
        [','],
        ['no-at-sign'],
        ['@' + OWN],
        [BOB, 'a b@' + OWN],
        [BOB, f'<{BOB}'],
        [f'"unclosed@{OWN}'],
        [f'bo\x85b@{OWN}'],
        ['a' * 65 + '@' + OWN],
        [f'b\xffb@{OWN}'],
    ],
)
def test_wrong_recipients_are_named_wrong(room: Room, names: list[str]) -> None:
    status, text = room.post(MESSAGE, *names)
    assert (status, text[:9]) == (400, '501 5.1.3')
    assert room.inbox() == []


@pytest.mark.parametrize('sender', ['no-at-sign', 'a@b.example,c@d.example', 'a b@c.example', '<'])
def test_a_wrong_sender_is_named_wrong(room: Room, sender: str) -> None:
    status, text = room.post(MESSAGE, BOB, sender=sender)
    assert (status, text[:9]) == (400, '501 5.1.7')


@pytest.mark.parametrize('sender', [None, '', '<>', ' '])
def test_the_null_sender_comes_in_every_form(room: Room, sender: str | None) -> None:
    assert room.post(MESSAGE, BOB, sender=sender) == (200, '250 OK')


def test_a_sender_that_is_not_the_author_passes(room: Room) -> None:
    assert room.post(MESSAGE, BOB, sender='bounces@elsewhere.example')[0] == 200


def test_many_recipients_up_to_the_limit(tmp_path: Path) -> None:
    room = _strict(tmp_path, limits__max_recipients=100)
    names = [f'user{n}@{OWN}' for n in range(99)]
    assert room.post(MESSAGE, *names, BOB)[0] == 200
    assert len(room.inbox()) == 1
    status, text = room.post(MESSAGE, *names, BOB, EVE)
    assert (status, text) == (400, '452 4.5.3 Too many recipients')
    assert room.inbox(EVE) == []


def test_plain_mail_is_refused_in_the_words_of_the_gate(room: Room) -> None:
    answer = room.post(mail.plain(FAY, BOB), BOB)
    assert answer == (400, '523 Encryption Needed: Invalid Unencrypted Mail')
    assert room.inbox() == []
    assert room.counted() == {'rejected_content': 1}


LONG_LINE = 'line-of-2000-octets'  # judged on the way out only


@pytest.mark.parametrize('name', sorted(mail.forgeries(FAY, BOB).keys() - {LONG_LINE}))
def test_no_forgery_passes(room: Room, name: str) -> None:
    assert room.post(mail.forgeries(FAY, BOB)[name], BOB)[0] == 400
    assert room.inbox() == []


@pytest.mark.parametrize(
    'body',
    [
        MESSAGE.replace(b'\r\n', b'\n'),
        MESSAGE.replace(b'\r\n', b'\r'),
        MESSAGE[:-2] + b'\r',
        MESSAGE.replace(b'\r\n\r\n', b'\r\n\n', 1),
        MESSAGE + b'.\r\n\nMAIL FROM:<x@y>\n',
    ],
)
def test_only_crlf_ends_a_line(room: Room, body: bytes) -> None:
    assert room.post(body, BOB) == (400, '554 5.6.0 Malformed data')
    assert room.inbox() == []


def test_a_dot_means_nothing(tmp_path: Path) -> None:
    room = _strict(tmp_path, policy__require_encryption=False)
    body = b'From: <%s>\r\n\r\n..\r\n.\r\n.x\r\n' % FAY.encode()
    assert room.post(body, BOB)[0] == 200
    assert room.inbox()[0].endswith(b'\r\n..\r\n.\r\n.x\r\n')


@pytest.mark.parametrize('setting', ['limits__max_message_size', 'limits__max_federation_size'])
def test_the_smaller_size_limit_holds(tmp_path: Path, setting: str) -> None:
    room = _strict(tmp_path, **{setting: len(MESSAGE)})
    assert room.post(MESSAGE, BOB)[0] == 200
    status, text = room.post(MESSAGE + b'x', BOB)
    assert (status, text) == (413, '552 5.3.4 Message exceeds maximum size')


def test_the_policy_says_who_may_deliver(room: Room) -> None:
    room.control.add_rule(key('192.0.2.9'), 1)
    assert room.post(MESSAGE, BOB) == (403, '554 5.7.1 Policy Rejection')
    assert room.post(MESSAGE, BOB, sender='x@192.0.2.9')[0] == 403
    assert room.post(MESSAGE, BOB, sender='x@good.example') == (403, '554 5.7.1 Policy Rejection')
    assert room.post(MESSAGE, BOB, sender=None) == (403, '554 5.7.1 Policy Rejection')
    assert room.inbox() == []
    room.control.remove_rule(key('192.0.2.9'))
    assert room.post(MESSAGE, BOB)[0] == 200


def test_the_switch_closes_the_door(room: Room) -> None:
    room.control.set_setting('federation.enabled', 'false')
    for sender in (FAY, None, f'x@{OWN}'):
        status, text = room.post(MESSAGE, BOB, sender=sender)
        assert (status, text[:9]) == (403, '554 5.7.1')
    room.control.remove_setting('federation.enabled')
    assert room.post(MESSAGE, BOB)[0] == 200


def test_a_repeated_message_is_stored_once(room: Room) -> None:
    other = MESSAGE.replace(b'From:', b'X-Trace: 1\r\nFrom:', 1)
    for body in (MESSAGE, MESSAGE, b'Received: from x\r\n' + MESSAGE):
        assert room.post(body, BOB)[0] == 200
    assert len(room.inbox()) == 1
    assert room.post(MESSAGE, BOB, EVE)[0] == 200  # other recipients: another message
    assert room.post(other, BOB)[0] == 200
    assert len(room.inbox()) == 3


def test_what_could_not_be_stored_is_not_taken(room: Room) -> None:
    room.store.disk_full = True
    assert room.post(MESSAGE, BOB) == (503, '451 4.3.0 Temporary trouble, try again later')
    room.store.disk_full = False
    room.services.away = True
    assert room.post(MESSAGE, BOB)[0] == 503
    room.services.away = False
    assert room.post(MESSAGE, BOB)[0] == 200
    assert len(room.inbox()) == 1


def test_breakage_is_told_as_trouble(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.services.router, 'receive', lambda *_: 1 / 0)
    assert room.post(MESSAGE, BOB)[0] == 503


def test_full_mailboxes_are_told_only_when_nobody_was_served(room: Room) -> None:
    room.store.full = {BOB}
    assert room.post(MESSAGE, BOB) == (507, '452 4.2.2 Mailbox is full')
    assert room.post(MESSAGE, BOB, EVE)[0] == 200
    assert room.inbox(BOB) == []
    assert len(room.inbox(EVE)) == 1


def test_one_address_has_a_rate_and_others_have_theirs(tmp_path: Path) -> None:
    now = [1000.0]
    room = Room(
        tmp_path,
        Settings.defaults(domain=OWN, limits__federation_per_minute_per_ip=3),
        monotonic=lambda: now[0],
    )
    statuses = [room.post(MESSAGE, BOB)[0] for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    assert room.post(MESSAGE, BOB)[1].startswith('450 4.7.1')
    assert room.post(MESSAGE, BOB, address='192.0.2.10')[0] == 200
    now[0] += 21
    assert room.post(MESSAGE, BOB)[0] == 200


def test_ipv6_counts_by_network(tmp_path: Path) -> None:
    room = _strict(tmp_path, limits__federation_per_minute_per_ip=1)
    assert room.post(MESSAGE, BOB, address='2001:db8::1')[0] == 200
    assert room.post(MESSAGE, BOB, address='2001:db8::2')[0] == 429
    assert room.post(MESSAGE, BOB, address='2001:db8:0:1::1')[0] == 200


class Verdict:
    """An origin check that has its answer."""

    def __init__(self, reply: Reply | None, fed: bytearray) -> None:
        self._reply = reply
        self._fed = fed

    def feed(self, octets: bytes) -> None:
        self._fed += octets

    def finish(self) -> Reply | None:
        return self._reply


@pytest.mark.parametrize(
    ('reply', 'status'),
    [
        (None, 200),
        (Reply(554, '5.7.1', 'No DKIM signature found'), 400),
        (Reply(451, '4.7.1', 'DNS does not answer'), 503),
    ],
)
def test_the_origin_is_asked_with_the_message_as_it_came(
    tmp_path: Path, reply: Reply | None, status: int
) -> None:
    fed = bytearray()
    room = Room(tmp_path, Settings.defaults(domain=OWN), origin=lambda: Verdict(reply, fed))
    body = b'Received: from x\r\n' + MESSAGE
    assert room.post(body, BOB)[0] == status
    assert fed == body
    assert len(room.inbox()) == (1 if reply is None else 0)
    assert room.post(mail.plain(FAY, BOB), BOB)[0] == 400  # the gate speaks first


def test_a_large_message_goes_through_a_file_that_is_removed(room: Room) -> None:
    body = mail.encrypted(FAY, BOB, size=3_000_000)
    seen = []
    receive = room.services.receive

    def spy(message, names, ident, origin):  # type: ignore[no-untyped-def]
        seen.append(len(list(room.spools.rglob('spool/*'))))
        return receive(message, names, ident, origin)

    room.services.receive = spy  # type: ignore[method-assign]
    assert room.post(body, BOB)[0] == 200
    assert seen == [1]
    assert len(room.inbox()[0]) > 3_000_000
    assert room.post(body + b'trailer\r\n', BOB)[0] == 400
    assert list(room.spools.rglob('spool/*')) == []
