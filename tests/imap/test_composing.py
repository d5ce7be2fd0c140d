"""Dialogues: CATENATE, REPLACE, MULTIAPPEND, literal8 and UTF8; each whole and octet by octet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from tests.imap.wire_double import Client, ShardDouble, message

Login = Callable[..., Client]
Say = Callable[[Client, bytes], bytes]

HEAD = b'From: bob@chat.example\r\nSubject: parts\r\n'


@pytest.fixture(params=['whole', 'octets'])
def say(request: pytest.FixtureRequest) -> Say:
    """Send what a client says without waiting, in one piece or octet by octet."""

    def whole(client: Client, octets: bytes) -> bytes:
        return client.send(octets)

    def singly(client: Client, octets: bytes) -> bytes:
        for i in range(len(octets)):
            client.wire.feed(octets[i : i + 1])
            if i % 7 == 0:
                gevent.sleep(0)
        return client.take()

    return whole if request.param == 'whole' else singly


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Client]:
    """A session of a relay that requires encryption."""
    shard = ShardDouble(tmp_path / 'strict', policy__require_encryption=True)
    yield Client(shard, shard.account())
    shard.close()


def literal(octets: bytes, prefix: bytes = b'') -> bytes:
    return prefix + b'{%d+}\r\n' % len(octets) + octets


def whole(client: Client, uid: int, mailbox: str = 'INBOX') -> bytes:
    client.ask(f'SELECT {mailbox}')
    answer = client.ask(f'UID FETCH {uid} BODY.PEEK[]')
    found = re.search(rb'BODY\[\] \{(\d+)\}\r\n', answer)
    assert found, answer
    return answer[found.end() : found.end() + int(found[1])]


def multipart(*parts: tuple[bytes, bytes]) -> bytes:
    """Each part is (encoding, body)."""
    pieces = [
        b'--b\r\nContent-Type: application/octet-stream\r\n'
        b'Content-Transfer-Encoding: %s\r\n\r\n%s\r\n' % part
        for part in parts
    ]
    return (
        HEAD + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n'
        b'%s--b--\r\n' % b''.join(pieces)
    )


# -- CATENATE


def test_a_message_is_put_together_from_texts_and_urls(login: Login, say: Say) -> None:
    client = login()
    client.append(message(1, body=b'first body\r\n'))
    client.ask('CREATE "a b"')
    validity = re.search(rb'UIDVALIDITY (\d+)', client.ask('STATUS INBOX (UIDVALIDITY)'))
    assert validity
    answer = say(
        client,
        b'x APPEND "a b" (\\Seen) CATENATE (URL "/INBOX;UIDVALIDITY=%s/;UID=1/;SECTION=HEADER" '
        % validity[1]
        + literal(b'added\r\n', b'TEXT ')
        + b' URL "/INBOX/;UID=1/;SECTION=TEXT/;PARTIAL=6.4" '
        + literal(b'\r\n', b'TEXT ')
        + b')\r\n',
    )
    assert re.fullmatch(rb'x OK \[APPENDUID \d+ 1\] Append completed\r\n', answer)
    header = message(1, body=b'')
    assert whole(client, 1, '"a b"') == header + b'added\r\nbody\r\n'
    assert b'\\Seen' in client.ask('FETCH 1 FLAGS')


def test_urls_alone_make_a_message(login: Login, say: Say) -> None:
    client = login()
    client.append(message(1))
    assert say(client, b'x APPEND INBOX CATENATE (URL "/INBOX/;UID=1")\r\n').startswith(
        b'x OK [APPENDUID'
    )
    url = b'imap://ann@chat.example/INBOX/;UID=1'
    answer = say(client, b'y APPEND INBOX CATENATE (URL ' + literal(url) + b')\r\n')
    assert answer.startswith(b'y OK [APPENDUID')
    assert whole(client, 3) == message(1)


def test_several_catenated_messages_are_stored_together(login: Login, say: Say) -> None:
    client = login()
    client.append(message(1))
    answer = say(
        client,
        b'x APPEND INBOX CATENATE (URL "/INBOX/;UID=1") (\\Flagged) '
        + literal(message(2))
        + b' CATENATE ('
        + literal(HEAD, b'TEXT ')
        + literal(b'\r\nend\r\n', b' TEXT ')
        + b')\r\n',
    )
    assert re.fullmatch(rb'x OK \[APPENDUID \d+ 2:4\] Append completed\r\n', answer)
    assert whole(client, 4) == HEAD + b'\r\nend\r\n'
    answer = say(
        client,
        b'x APPEND INBOX ' + literal(message(9)) + b' CATENATE (URL "/INBOX/;UID=77")\r\n',
    )
    assert answer == b'x NO [BADURL "/INBOX/;UID=77"] No such message or section\r\n'
    assert b'MESSAGES 4' in client.ask('STATUS INBOX (MESSAGES)')


@pytest.mark.parametrize(
    'url',
    [
        b'/INBOX;UIDVALIDITY=1/;UID=1',
        b'/INBOX/;UID=2',
        b'/nothing/;UID=1',
        b'/INBOX/;UID=1/;SECTION=5',
        b'/INBOX/;UID=1/;SECTION=2.HEADER',
        b'imap://bob@chat.example/INBOX/;UID=1',
        b'imap://other.example/INBOX/;UID=1',
        b'nonsense',
    ],
)
def test_a_bad_url_is_named_and_what_follows_is_consumed(login: Login, url: bytes) -> None:
    client = login()
    client.append(message(1))
    for rest in (b')\r\n', b' ' + literal(b'more', b'TEXT ') + b')\r\n'):
        answer = client.send(b'x APPEND INBOX CATENATE (URL "%s"' % url + rest + b'y NOOP\r\n')
        assert answer.startswith(b'x NO [BADURL "%s"] ' % url)
        assert answer.endswith(b'y OK Noop completed\r\n')
    # A client that waits is refused before it sends.
    answer = client.send(b'x APPEND INBOX CATENATE (URL "%s" TEXT {5}\r\n' % url)
    assert answer.startswith(b'x NO [BADURL ')
    assert client.ask('NOOP').startswith(b't OK')
    assert b'MESSAGES 1' in client.ask('STATUS INBOX (MESSAGES)')


def test_mail_of_others_cannot_be_named(login: Login) -> None:
    bob = login('bob@chat.example')
    bob.append(message(1))
    ann = login()
    for url in ('/INBOX/;UID=1', 'imap://bob@chat.example/INBOX/;UID=1'):
        answer = ann.ask(f'APPEND INBOX CATENATE (URL "{url}")')
        assert answer.startswith(b't NO [BADURL ')


def test_what_is_put_together_passes_the_encryption_gate(strict: Client) -> None:
    answer = strict.send(
        b'x APPEND INBOX CATENATE ('
        + literal(HEAD, b'TEXT ')
        + literal(b'\r\nplain\r\n', b' TEXT ')
        + b')\r\n'
    )
    assert answer == b'x NO [CANNOT] Encryption Needed: Invalid Unencrypted Mail\r\n'
    assert b'MESSAGES 0' in strict.ask('STATUS INBOX (MESSAGES)')


def test_the_size_limit_counts_what_is_put_together(tmp_path: Path) -> None:
    shard = ShardDouble(tmp_path / 'small', limits__max_message_size=1000)
    try:
        client = Client(shard, shard.account())
        client.append(message(1, body=b'x' * 400))
        url = b'URL "/INBOX/;UID=1"'
        answer = client.send(b'x APPEND INBOX CATENATE (%s %s)\r\n' % (url, url))
        assert answer.startswith(b'x NO [TOOBIG] ')
        answer = client.send(b'x APPEND INBOX CATENATE (%s TEXT {500}\r\n' % url)
        assert answer.startswith(b'x NO [TOOBIG] ')
        assert b'STATUS "INBOX" (APPENDLIMIT 1000)' in client.ask('STATUS INBOX (APPENDLIMIT)')
        assert b' APPENDLIMIT=1000' in client.ask('CAPABILITY')
    finally:
        shard.close()


def test_large_parts_are_streamed(login: Login) -> None:
    client = login()
    body = b''.join(b'%078d\r\n' % n for n in range(20_000))  # 1.6 MB
    client.wire.feed(b'x APPEND INBOX {%d+}\r\n' % (len(HEAD) + 2 + len(body)))
    client.wire.feed(HEAD + b'\r\n')
    for start in range(0, len(body), 60_000):
        client.wire.feed(body[start : start + 60_000])
        gevent.sleep(0.002)
    client.wire.feed(b'\r\n')
    assert client.take().startswith(b'x OK')
    url = 'URL "/INBOX/;UID=1"'
    assert client.ask(f'APPEND INBOX CATENATE ({url} {url})').startswith(b't OK')
    assert whole(client, 2) == (HEAD + b'\r\n' + body) * 2


# -- REPLACE


def test_replace_stores_and_expunges_at_once(filled: Callable[[int], Client], say: Say) -> None:
    client = filled(3)
    other = Client(client.session.shard, client.session.account)
    other.ask('SELECT INBOX')
    answer = say(client, b'x REPLACE 2 INBOX (\\Draft) ' + literal(message(9)) + b'\r\n')
    assert re.match(rb'\* OK \[APPENDUID \d+ 4\] ', answer)
    assert b'\r\n* 2 EXPUNGE\r\n' in answer
    assert b'EXISTS\r\n' in answer
    assert answer.endswith(b'x OK Replace completed\r\n')
    assert b'* 2 EXPUNGE\r\n' in other.ask('NOOP')
    assert client.lines('UID SEARCH ALL')[0] == '* SEARCH 1 3 4'
    assert whole(client, 4) == message(9)


def test_uid_replace_may_move_to_another_mailbox(filled: Callable[[int], Client]) -> None:
    client = filled(2)
    client.ask('CREATE Drafts')
    answer = client.ask(
        b'UID REPLACE 1 Drafts CATENATE (URL "/INBOX/;UID=1/;SECTION=HEADER" '
        + literal(b'new', b'TEXT ')
        + b')'
    )
    assert b'* 1 EXPUNGE\r\n' in answer
    assert answer.endswith(b't OK Replace completed\r\n')
    assert client.lines('UID SEARCH ALL')[0] == '* SEARCH 2'
    assert whole(client, 1, 'Drafts') == message(1, body=b'new')


def test_a_replace_that_fails_keeps_the_old_message(filled: Callable[[int], Client]) -> None:
    client = filled(1)
    assert client.send(b'x REPLACE 2 INBOX {3+}\r\nabc\r\n').startswith(b'x BAD ')
    assert client.send(b'x UID REPLACE 9 INBOX {3}\r\n').startswith(b'x NO [NONEXISTENT] ')
    assert client.send(b'x REPLACE 1 nothing {3}\r\n').startswith(b'x NO [TRYCREATE] ')
    nul = message(2, body=b'\0')
    assert client.send(b'x REPLACE 1 INBOX ' + literal(nul) + b'\r\n').startswith(b'x NO ')
    assert client.send(b'x REPLACE 1 INBOX {3+}\r\nabc {3+}\r\nabc\r\n').startswith(b'x BAD ')
    assert client.lines('UID SEARCH ALL')[0] == '* SEARCH 1'
    client.ask('EXAMINE INBOX')
    assert client.send(b'x REPLACE 1 INBOX {3}\r\n').startswith(b'x NO [READ-ONLY] ')
    client.ask('UNSELECT')
    assert client.send(b'x REPLACE 1 INBOX {3}\r\n').startswith(b'x BAD ')


# -- literal8 (RFC 3516) and UTF8 (RFC 6855)


def test_a_literal8_without_nul_is_stored_as_it_is(login: Login, say: Say) -> None:
    client = login()
    octets = message(1, body=b'\xff\xfe\r\n', Content_Transfer_Encoding='binary')
    assert say(client, b'x APPEND INBOX ' + literal(octets, b'~') + b'\r\n').startswith(b'x OK')
    assert whole(client, 1) == octets


def test_binary_parts_with_nul_are_stored_in_base64(login: Login, say: Say) -> None:
    client = login()
    data = bytes(range(256))
    octets = multipart((b'binary', data), (b'7bit', b'text'))
    assert say(client, b'x APPEND INBOX ' + literal(octets, b'~') + b'\r\n').startswith(b'x OK')
    stored = whole(client, 1)
    assert b'\0' not in stored
    assert stored.count(b'Content-Transfer-Encoding: base64\r\n') == 1
    assert max(map(len, stored.split(b'\r\n'))) <= 78
    answer = client.ask('FETCH 1 (BINARY.SIZE[1] BINARY.PEEK[1] BINARY.PEEK[2])')
    assert b'BINARY.SIZE[1] 256 BINARY[1] ~{256}\r\n%s BINARY[2] {4}\r\ntext)' % data in answer


def test_nul_outside_of_binary_parts_is_refused(login: Login, say: Say) -> None:
    client = login()
    for octets in (
        message(1, body=b'a\0b\r\n'),
        multipart((b'8bit', b'\0')),
        message(1, Subject='a\0b'),
    ):
        answer = say(client, b'x APPEND INBOX ' + literal(octets, b'~') + b'\r\ny NOOP\r\n')
        assert answer.startswith(b'x NO [UNKNOWN-CTE] ')
        assert answer.endswith(b'y OK Noop completed\r\n')
    catenated = b'x APPEND INBOX CATENATE (' + literal(HEAD + b'\r\n\0', b'TEXT ~') + b')\r\n'
    assert say(client, catenated).startswith(b'x NO [UNKNOWN-CTE] ')
    assert b'MESSAGES 0' in client.ask('STATUS INBOX (MESSAGES)')


def test_binary_parts_do_not_pass_the_encryption_gate(strict: Client) -> None:
    octets = multipart((b'binary', b'\0\1'))
    answer = strict.send(b'x APPEND INBOX ' + literal(octets, b'~') + b'\r\n')
    assert answer.startswith(b'x NO ')
    assert b'MESSAGES 0' in strict.ask('STATUS INBOX (MESSAGES)')


def test_a_large_binary_message_is_recoded_in_pieces(login: Login) -> None:
    client = login()
    data = bytes(range(256)) * 3000
    octets = multipart((b'binary', data))
    client.wire.feed(b'x APPEND INBOX ~{%d+}\r\n' % len(octets))
    for start in range(0, len(octets), 60_000):
        client.wire.feed(octets[start : start + 60_000])
        gevent.sleep(0.002)
    client.wire.feed(b'\r\n')
    assert client.take().startswith(b'x OK')
    client.ask('SELECT INBOX')
    assert b'~{%d}\r\n%s)' % (len(data), data) in client.ask('FETCH 1 BINARY.PEEK[1]')


def test_utf8_append_needs_enabling(login: Login, say: Say) -> None:
    client = login()
    octets = message(1, Subject='Grüße')
    command = b'x APPEND INBOX UTF8 (' + literal(octets, b'~') + b')\r\n'
    assert say(client, command).startswith(b'x BAD ')
    assert client.ask('ENABLE UTF8=ACCEPT').startswith(b'* ENABLED UTF8=ACCEPT\r\n')
    assert say(client, command).startswith(b'x OK')
    assert whole(client, 1) == octets


def test_utf8_names_go_both_ways_once_enabled(login: Login) -> None:
    client = login()
    assert b'OK' in client.ask('CREATE "Gr&APwA3w-e"')
    assert b'"Gr&APwA3w-e"' in client.ask('LIST "" *')
    client.ask('ENABLE UTF8=ACCEPT')
    assert client.ask('ENABLE UTF8=ACCEPT') == b'* ENABLED\r\nt OK Enable completed\r\n'
    assert '"Grüße"'.encode() in client.ask('LIST "" *')
    assert '* STATUS "Grüße" (MESSAGES 0)'.encode() in client.ask('STATUS "Grüße" (MESSAGES)')
    assert b'OK [MAILBOXID' in client.ask('CREATE "☃"')
    assert b'OK' in client.ask('CREATE "A&B"')
    assert b'"A&B"' in client.ask('LIST "" A*')
    assert b'"A&-B"' in login().ask('LIST "" A*')


# -- limits


def test_pieces_and_messages_of_one_command_are_bounded(login: Login) -> None:
    client = login()
    client.append(message(1))
    urls = b' '.join([b'URL "/INBOX/;UID=1"'] * 201)
    answer = client.send(b'x APPEND INBOX CATENATE (%s)\r\n' % urls)
    assert answer == b'x BAD Too many pieces in one command\r\n'
    many = b' '.join([literal(message(1))] * 65)
    answer = client.send(b'x APPEND INBOX ' + many + b'\r\ny NOOP\r\n')
    assert answer.startswith(b'x NO [LIMIT] ')
    assert answer.endswith(b'y OK Noop completed\r\n')
    answer = client.send(b'x APPEND INBOX CATENATE (URL {9000+}\r\n' + b'u' * 9000 + b')\r\n')
    assert answer == b'x BAD URL is too long\r\n'
    assert b'MESSAGES 1' in client.ask('STATUS INBOX (MESSAGES)')
    assert not list((client.session.shard.directory / 'spool').glob('*'))  # type: ignore[attr-defined]
