"""Messages: APPEND, FETCH, STORE, SEARCH, COPY, MOVE, EXPUNGE; METADATA and QUOTA."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from madmail.store.interface import NewMessage
from tests.imap.wire_double import Client, ShardDouble, message

Fill = Callable[..., Client]
Login = Callable[..., Client]


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Client]:
    """A session of a relay with the encryption gate on, and small limits."""
    shard = ShardDouble(
        tmp_path / 'strict',
        policy__require_encryption=True,
        limits__max_message_size=100_000,
        limits__quota=50_000,
    )
    yield Client(shard, shard.account())
    shard.close()


# -- APPEND


def test_append_keeps_octets_flags_and_date(login: Login) -> None:
    client = login()
    octets = message(1, body=b'\tline \r\n\r\n' + bytes(range(1, 10)) + b'\r\n')
    answer = client.append(octets, options='(\\Seen $MDNSent) "02-Mar-2026 10:11:12 +0200"')
    assert re.fullmatch(rb't OK \[APPENDUID \d+ 1\] Append completed\r\n', answer)
    client.ask('SELECT INBOX')
    answer = client.ask('FETCH 1 (FLAGS INTERNALDATE BODY.PEEK[])')
    assert b'FLAGS (\\Seen $MDNSent \\Recent) ' in answer
    assert b'INTERNALDATE "02-Mar-2026 08:11:12 +0000"' in answer
    assert b'{%d}\r\n%s)\r\n' % (len(octets), octets) in answer


def test_append_waits_for_its_literal_and_refuses_before_it_is_sent(login: Login) -> None:
    client = login()
    client.wire.feed(b'x APPEND INBOX {11}\r\n')
    gevent.sleep(0.005)
    assert client.wire.output == b'+ OK\r\n'
    client.wire.feed(b'A: b\r\n\r\n')
    gevent.sleep(0.005)
    assert client.wire.output == b'+ OK\r\n'
    client.wire.feed(b'txt\r\n')
    assert b'x OK [APPENDUID' in client.take()
    assert client.send(b'y APPEND nothing {11}\r\n').startswith(b'y NO [TRYCREATE] ')
    assert client.send(b'z NOOP\r\n') == b'z OK Noop completed\r\n'
    assert client.send(b'w APPEND INBOX {31457281}\r\n').startswith(b'w NO [TOOBIG] ')
    assert client.send(b'v APPEND INBOX (\\Bogus {3}\r\n').startswith(b'v BAD ')


def test_a_refused_literal_that_comes_unasked_is_consumed(login: Login) -> None:
    client = login()
    answer = client.send(b'x APPEND nothing {5+}\r\nabcde\r\ny NOOP\r\n')
    assert answer.startswith(b'x NO [TRYCREATE] ')
    assert answer.endswith(b'y OK Noop completed\r\n')
    answer = client.send(b'x APPEND INBOX {0+}\r\n\r\ny NOOP\r\n')
    assert answer.startswith(b'x NO ')
    assert answer.endswith(b'y OK Noop completed\r\n')


def test_append_goes_through_the_encryption_gate(strict: Client) -> None:
    strict.ask('CREATE box')
    assert strict.append(message(1), 'box') == (
        b't NO [CANNOT] Encryption Needed: Invalid Unencrypted Mail\r\n'
    )
    assert b'MESSAGES 0' in strict.ask('STATUS box (MESSAGES)')
    assert strict.append(b'x' * 100_001, 'box').startswith(b't NO [TOOBIG] ')
    assert strict.ask('NOOP') == b't OK Noop completed\r\n'


def test_a_nul_octet_is_refused_also_without_the_gate(login: Login) -> None:
    client = login()
    assert client.append(message(1, body=b'a\0b\r\n')).startswith(b't NO ')
    assert b'MESSAGES 0' in client.ask('STATUS INBOX (MESSAGES)')


def test_append_over_quota(tmp_path: Path) -> None:
    shard = ShardDouble(tmp_path / 'small', limits__quota=10_000)
    try:
        client = Client(shard, shard.account())
        client.ask('CREATE box')
        assert client.append(message(1, body=b'x' * 20_000), 'box').startswith(b't NO [OVERQUOTA]')
        assert client.ask('NOOP').startswith(b't OK')
    finally:
        shard.close()


def test_multiappend_is_atomic(login: Login, shard: ShardDouble) -> None:
    client = login()
    one, two = message(1), message(2)
    answer = client.send(
        b'x APPEND INBOX (\\Seen) {%d+}\r\n%s (\\Flagged) {%d+}\r\n%s\r\n'
        % (len(one), one, len(two), two)
    )
    assert re.fullmatch(rb'x OK \[APPENDUID \d+ 1:2\] Append completed\r\n', answer)
    bad = message(3, body=b'\0')
    answer = client.send(
        b'x APPEND INBOX {%d+}\r\n%s {%d+}\r\n%s {%d+}\r\n%s\r\ny NOOP\r\n'
        % (len(one), one, len(bad), bad, len(two), two)
    )
    assert answer.startswith(b'x NO ')
    assert answer.endswith(b'y OK Noop completed\r\n')
    assert b'MESSAGES 2' in client.ask('STATUS INBOX (MESSAGES)')
    spool = shard.directory / 'spool'
    assert not spool.exists() or not any(spool.iterdir())


def test_a_client_that_goes_away_in_a_literal_leaves_nothing(
    login: Login, shard: ShardDouble
) -> None:
    client = login()
    client.wire.feed(b'x APPEND INBOX {1000000+}\r\n' + b'x' * 300_000)
    gevent.sleep(0.02)
    assert client.wire.busy
    client.wire.hang_up()
    client.take()
    assert b'MESSAGES 0' in login().ask('STATUS INBOX (MESSAGES)')
    assert not any((shard.directory / 'spool').iterdir())


def test_a_large_message_is_streamed_both_ways(login: Login) -> None:
    client = login()
    body = b''.join(b'%078d\r\n' % n for n in range(100_000))  # 8 MB
    octets = message(1, body=body)
    client.wire.feed(b'x APPEND INBOX {%d+}\r\n' % len(octets))
    for start in range(0, len(octets), 60_000):
        client.wire.feed(octets[start : start + 60_000])
        while len(client.wire.input) > 200_000:
            gevent.sleep(0.001)
    client.wire.feed(b'\r\n')
    assert b'x OK' in client.take()
    client.ask('SELECT INBOX')
    client.wire.most_held = 0
    answer = client.ask('UID FETCH 1 (FLAGS BODY.PEEK[] BODY.PEEK[TEXT]<100.500000>)')
    assert b'BODY[] {%d}\r\n%s BODY[TEXT]<100> {500000}\r\n%s)' % (
        len(octets), octets, body[100:500100],
    ) in answer  # fmt: skip
    assert client.wire.most_held < 1_000_000


# -- FETCH


def test_fetch_items(filled: Fill) -> None:
    client = filled(1, body=b'one\r\ntwo\r\n')
    octets = message(1, body=b'one\r\ntwo\r\n')
    head, _, text = octets.partition(b'\r\n\r\n')
    head += b'\r\n\r\n'
    for item, value in [
        ('RFC822.SIZE', b'RFC822.SIZE %d' % len(octets)),
        ('BODY.PEEK[HEADER]', b'BODY[HEADER] {%d}\r\n%s' % (len(head), head)),
        ('RFC822.HEADER', b'RFC822.HEADER {%d}\r\n%s' % (len(head), head)),
        ('BODY.PEEK[TEXT]', b'BODY[TEXT] {%d}\r\n%s' % (len(text), text)),
        ('BODY.PEEK[1]', b'BODY[1] {%d}\r\n%s' % (len(text), text)),
        ('BODY.PEEK[2]', b'BODY[2] NIL'),
        ('BODY.PEEK[]<4.6>', b'BODY[]<4> {6}\r\n' + octets[4:10]),
        ('BODY.PEEK[]<9999.6>', b'BODY[]<9999> {0}\r\n'),
        ('UID', b'UID 1'),
        ('BODY', b'BODY ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 10 2)'),
    ]:
        assert client.ask(f'FETCH 1 ({item})') == (
            b'* 1 FETCH (%s)\r\nt OK Fetch completed\r\n' % value
        ), item
    assert b'ENVELOPE (' in client.ask('FETCH 1 ALL')


def test_reading_a_body_sets_seen_and_tells_it_once(filled: Fill, login: Login) -> None:
    client = filled(2)
    other = login()
    other.ask('SELECT INBOX')
    other.ask('IDLE')
    answer = client.ask('FETCH 1 (BODY[TEXT])')
    assert answer.startswith(b'* 1 FETCH (BODY[TEXT] {6}\r\ntext\r\n FLAGS (\\Seen \\Recent))')
    assert b'FLAGS' not in client.ask('FETCH 1 (BODY[TEXT])')
    assert other.take() == b'* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n'
    assert b'FLAGS' not in client.ask('NOOP')
    assert b'\\Seen' not in client.ask('FETCH 2 (BODY.PEEK[] FLAGS)')
    assert b'FLAGS (\\Seen \\Recent)' in client.ask('FETCH 2 (RFC822 FLAGS)')


def test_fetch_of_numbers_that_do_not_exist_is_bad(filled: Fill) -> None:
    client = filled(2)
    assert client.ask('FETCH 3 (UID)').startswith(b't BAD ')
    assert client.ask('FETCH 1:3 (UID)').startswith(b't BAD ')
    assert client.ask('FETCH 3:* (UID)').startswith(b'* 2 FETCH')
    assert client.ask('UID FETCH 3 (UID)') == b't OK Fetch completed\r\n'


def test_fetch_from_an_empty_mailbox(filled: Fill) -> None:
    client = filled(0)
    assert client.ask('FETCH 1:* (RFC822)') == b't OK Fetch completed\r\n'
    assert client.ask('UID FETCH 1:* (UID FLAGS)') == b't OK Fetch completed\r\n'
    assert client.ask('SEARCH ALL').startswith(b'* SEARCH\r\n')


def test_fetching_what_another_session_has_expunged(filled: Fill, login: Login) -> None:
    client = filled(3)
    other = login()
    other.ask('SELECT INBOX')
    other.ask('STORE 2 +FLAGS (\\Deleted)')
    other.ask('EXPUNGE')
    answer = client.ask('FETCH 1:3 (UID)')
    assert re.findall(rb'\* (\d) FETCH \(UID (\d)\)', answer) == [(b'1', b'1'), (b'3', b'3')]
    assert b't OK [EXPUNGEISSUED]' in answer
    assert b't OK [EXPUNGEISSUED]' in client.ask('UID FETCH 1:3 (UID)')


@pytest.mark.parametrize(
    ('command', 'answer', 'later'),
    [
        ('SEARCH 1:3', '* SEARCH 1 3', '* SEARCH 1 2'),
        ('SEARCH RETURN (ALL) ALL', '* ESEARCH (TAG "t") ALL 1,3', '* ESEARCH (TAG "t") ALL 1:2'),
        ('SORT (ARRIVAL) UTF-8 ALL', '* SORT 1 3', '* SORT 1 2'),
        ('THREAD REFS UTF-8 ALL', '* THREAD (1)(3)', '* THREAD (1)(2)'),
    ],
)
def test_a_result_without_what_another_session_has_expunged_says_so(
    filled: Fill, login: Login, command: str, answer: str, later: str
) -> None:
    """RFC 5530 3: until the client has been told, it counts a message that is in no result."""
    client = filled(3)
    other = login()
    other.ask('SELECT INBOX')
    other.ask('STORE 2 +FLAGS (\\Deleted)')
    other.ask('EXPUNGE')
    first, status = client.lines(command)
    assert re.sub(r'"t\d+"', '"t"', first) == answer
    assert status.startswith('t OK [EXPUNGEISSUED] ')
    assert client.ask('NOOP').startswith(b'* 2 EXPUNGE\r\n')
    first, status = client.lines(command)
    assert re.sub(r'"t\d+"', '"t"', first) == later
    assert status.startswith('t OK ')
    assert 'EXPUNGEISSUED' not in status


def test_a_message_expunged_while_it_is_streamed_is_still_answered(
    filled: Fill, login: Login
) -> None:
    client = filled(2, body=b'x' * 700_000)
    other = login()
    other.ask('SELECT INBOX')
    client.wire.reading = False
    client.wire.feed(b'x UID FETCH 1:2 (FLAGS BODY.PEEK[])\r\n')
    gevent.sleep(0.01)
    other.ask('STORE 1:2 +FLAGS (\\Deleted)')
    other.ask('EXPUNGE')
    client.wire.reading = True
    answer = client.take()
    assert answer.count(b'x' * 700_000) == 1
    assert answer.endswith(b'x OK [EXPUNGEISSUED] Some of the messages are gone\r\n')
    assert client.ask('NOOP').count(b'EXPUNGE') == 2


# -- STORE


def test_store_adds_removes_and_replaces(filled: Fill) -> None:
    client = filled(2)
    for command, flags in [
        ('FLAGS (\\Seen $A)', '\\Seen $A'),
        ('+FLAGS (\\Flagged $B)', '\\Flagged \\Seen $A $B'),
        ('-FLAGS (\\Seen $A)', '\\Flagged $B'),
        ('FLAGS (\\Draft)', '\\Draft'),
        ('-FLAGS (\\Draft)', ''),
        ('+FLAGS \\Answered', '\\Answered'),
    ]:
        expected = f'* 1 FETCH (FLAGS ({flags} \\Recent))'.replace('( ', '(')
        assert expected in client.lines(f'STORE 1 {command}'), command
    assert client.ask('UID STORE 2 +FLAGS (\\Seen)').startswith(
        b'* 2 FETCH (UID 2 FLAGS (\\Seen \\Recent))\r\n'
    )
    assert client.ask('UID STORE 7 +FLAGS (\\Seen)') == b't OK Store completed\r\n'


def test_a_silent_store_tells_others_but_not_itself(filled: Fill, login: Login) -> None:
    client = filled(1)
    other = login()
    other.ask('SELECT INBOX')
    assert client.ask('STORE 1 +FLAGS.SILENT (\\Flagged)') == b't OK Store completed\r\n'
    assert client.ask('NOOP') == b't OK Noop completed\r\n'
    assert other.ask('NOOP').startswith(b'* 1 FETCH (UID 1 FLAGS (\\Flagged))\r\n')


def test_a_keyword_is_announced_before_it_is_used(filled: Fill, login: Login) -> None:
    client = filled(1)
    other = login()
    other.ask('SELECT INBOX')
    lines = client.lines('STORE 1 +FLAGS ($New)')
    assert '$New' in lines[0]
    assert lines[0].startswith('* FLAGS (')
    assert other.lines('NOOP')[0].startswith('* FLAGS (')
    assert '$New' in login().lines('SELECT INBOX')[0]
    assert client.lines('STORE 1 +FLAGS ($new)')[0] == '* 1 FETCH (FLAGS ($New \\Recent))'


def test_the_keywords_of_a_mailbox_are_bounded(filled: Fill) -> None:
    client = filled(1)
    answers = [client.ask(f'STORE 1 FLAGS (k{n})') for n in range(140)]
    assert sum(b't OK' in answer for answer in answers) == 128
    assert answers[-1].startswith(b't NO [LIMIT] ')
    assert b't OK' in client.ask('STORE 1 FLAGS (k1)')


# -- SEARCH


def test_search_keys(login: Login) -> None:
    client = login()
    dates = [
        '01-Jan-2026 10:00:00 +0000',
        '02-Jan-2026 10:00:00 +0000',
        '03-Jan-2026 10:00:00 +0000',
    ]
    for number, date in enumerate(dates, start=1):
        client.append(
            message(
                number,
                body=b'word%d in text\r\n' % number,
                Date=f'Thu, 0{number} Feb 2026 10:00:00 +0000',
            ),
            options=f'({"$Key" if number == 2 else ""}) "{date}"',
        )
    client.append(message(4, body=b'x' * 5000), options='(\\Seen \\Deleted)')
    client.ask('SELECT INBOX')
    for key, found in [
        ('ALL', '1 2 3 4'), ('SEEN', '4'), ('UNSEEN', '1 2 3'), ('DELETED', '4'),
        ('UNDELETED UNSEEN', '1 2 3'), ('KEYWORD $key', '2'), ('UNKEYWORD $Key', '1 3 4'),
        ('LARGER 5000', '4'), ('SMALLER 5000', '1 2 3'), ('BEFORE 2-Jan-2026', '1'),
        ('ON 2-Jan-2026', '2'), ('SINCE 2-Jan-2026 BEFORE 1-Feb-2026', '2 3'),
        ('SENTON 3-Feb-2026', '3'), ('SENTBEFORE 3-Feb-2026', '1 2'), ('SUBJECT "SAGE 3"', '3'),
        ('FROM bob', '1 2 3 4'), ('TO bob', ''), ('HEADER Message-ID "<2@localhost>"', '2'),
        ('HEADER X-None ""', ''), ('BODY word1', '1'), ('TEXT "in text"', '1 2 3'),
        ('TEXT localhost', '1 2 3 4'), ('NOT SEEN', '1 2 3'), ('OR SEEN SUBJECT "sage 1"', '1 4'),
        ('2:3', '2 3'), ('UID 3:*', '3 4'), ('NOT 1:2', '3 4'), ('UID 9:*', '4'), ('*', '4'),
        ('(OR 1 2) NOT (SUBJECT "message 2")', '1'), ('RECENT', '1 2 3 4'), ('OLD', ''),
        ('NEW', '1 2 3'), ('YOUNGER 3600', '4'), ('OLDER 3600', '1 2 3'), ('UID 7:8', ''),
        ('CHARSET UTF-8 TEXT word2', '2'),
    ]:  # fmt: skip
        expected = f'* SEARCH {found}'.strip()
        assert client.lines(f'SEARCH {key}')[0] == expected, key
        assert client.lines(f'UID SEARCH {key}')[0] == expected, key
    assert client.ask('SEARCH CHARSET KOI8-R TEXT x').startswith(b't NO [BADCHARSET')
    for key in ('9', '9:12', 'NOT 1:9'):
        assert client.ask(f'SEARCH {key}') == b'* SEARCH\r\nt OK Search completed\r\n'


def test_esearch_and_saved_results(filled: Fill) -> None:
    client = filled(5)
    client.ask('STORE 2,4,5 +FLAGS (\\Flagged)')
    line = client.lines('UID SEARCH RETURN (MIN MAX COUNT ALL) FLAGGED')[0]
    assert re.fullmatch(r'\* ESEARCH \(TAG "t\d+"\) UID MIN 2 MAX 5 ALL 2,4:5 COUNT 3', line)
    assert client.lines('SEARCH RETURN () SEEN')[0].endswith('")')
    assert client.ask('SEARCH RETURN (SAVE) FLAGGED') == b't OK Search completed\r\n'
    assert client.ask('FETCH $ (UID)').count(b' FETCH ') == 3
    client.ask('UID STORE $ +FLAGS.SILENT (\\Deleted)')
    client.ask('EXPUNGE')
    assert client.ask('FETCH $ (UID)') == b't OK Fetch completed\r\n'
    assert client.lines('SEARCH ALL')[0] == '* SEARCH 1 2'


# -- COPY, MOVE, EXPUNGE


def test_copy_and_move_tell_both_sides(filled: Fill, login: Login) -> None:
    client = filled(4)
    client.ask('STORE 2 +FLAGS (\\Flagged $K)')
    assert client.ask('COPY 1 box').startswith(b't NO [TRYCREATE] ')
    client.ask('CREATE box')
    watcher = login()
    watcher.ask('SELECT box')
    watcher.ask('IDLE')
    assert re.fullmatch(
        rb't OK \[COPYUID \d+ 2:3 1:2\] Copy completed\r\n', client.ask('COPY 2:3 box')
    )
    assert watcher.take() == b'* 2 EXISTS\r\n* 2 RECENT\r\n'
    answer = client.ask('UID MOVE 1,3 box')
    assert re.fullmatch(
        rb'\* OK \[COPYUID \d+ 1,3 3:4\] Moved\r\n'
        rb'\* 3 EXPUNGE\r\n\* 1 EXPUNGE\r\nt OK Move completed\r\n',
        answer,
    )
    watcher.send(b'DONE\r\n')
    assert b'FLAGS (\\Flagged $K \\Recent)' in watcher.ask('FETCH 1 (FLAGS)')
    assert client.ask('UID COPY 99 box') == b't OK No messages copied\r\n'
    assert client.ask('UID MOVE 99 box') == b't OK No messages moved\r\n'


def test_move_within_the_same_mailbox(filled: Fill) -> None:
    client = filled(2)
    answer = client.ask('MOVE 1 INBOX')
    assert answer.endswith(
        b'* 1 EXPUNGE\r\n* 2 EXISTS\r\n* 3 RECENT\r\nt OK Move completed\r\n'
    ) or (b'* 1 EXPUNGE\r\n* 2 EXISTS\r\n' in answer)
    assert client.lines('UID SEARCH ALL')[0] == '* SEARCH 2 3'


def test_uid_expunge_leaves_other_deleted_messages(filled: Fill) -> None:
    client = filled(4)
    client.ask('STORE 1:3 +FLAGS.SILENT (\\Deleted)')
    assert (
        client.ask('UID EXPUNGE 2:9') == b'* 3 EXPUNGE\r\n* 2 EXPUNGE\r\nt OK Expunge completed\r\n'
    )
    assert client.ask('EXPUNGE') == b'* 1 EXPUNGE\r\nt OK Expunge completed\r\n'
    assert client.lines('UID SEARCH ALL')[0] == '* SEARCH 4'


def test_expunges_reach_a_session_in_idle_at_once(filled: Fill, login: Login) -> None:
    client = filled(3)
    other = login()
    other.ask('SELECT INBOX')
    other.ask('IDLE')
    client.ask('STORE 1,3 +FLAGS.SILENT (\\Deleted)')
    assert other.take().count(b'\\Deleted') == 2
    client.ask('EXPUNGE')
    assert other.take() == b'* 3 EXPUNGE\r\n* 1 EXPUNGE\r\n'


def test_an_expunge_of_thousands_reaches_idle_in_order(login: Login, shard: ShardDouble) -> None:
    client, other = login(), login()
    spool = shard.spool()
    spool.append(message())
    body = spool.finish()
    client.ask('SELECT INBOX')
    box = client.session.view.box.id
    shard.store.append(box, [NewMessage(body, flags=8 if n % 3 else 0) for n in range(3000)])
    other.ask('SELECT INBOX')
    other.ask('IDLE')
    client.ask('NOOP')
    assert client.ask('EXPUNGE').count(b'EXPUNGE\r\n') == 2000
    gevent.sleep(0.05)
    answer = other.take()
    count = 3000
    for number in map(int, re.findall(rb'\* (\d+) EXPUNGE', answer)):
        assert 1 <= number <= count
        count -= 1
    assert count == 1000


# -- METADATA and QUOTA


def test_metadata_of_server_and_mailboxes(tmp_path: Path) -> None:
    shard = ShardDouble(tmp_path / 's', relay__comment='Ünser "Relay"', relay__admin='mailto:a@b')
    try:
        client = Client(shard, shard.account())
        answer = client.ask('GETMETADATA "" (/shared/comment /shared/admin)')
        comment = 'Ünser "Relay"'.encode()
        assert answer.startswith(
            b'* METADATA "" (/shared/comment {%d}\r\n%s /shared/admin {10}\r\nmailto:a@b)\r\n'
            % (len(comment), comment)
        )
        assert client.ask('SETMETADATA "" (/shared/comment "x")').startswith(b't NO [NOPERM]')
        assert client.ask('SETMETADATA nothing (/private/x "x")').startswith(b't NO [NONEXISTENT]')
        assert client.ask('GETMETADATA nothing /private/x').startswith(b't NO [NONEXISTENT]')
        client.ask('SETMETADATA INBOX (/private/a "1" /private/a/b "22" /private/a/b/c "333")')
        assert client.lines('GETMETADATA INBOX /private/a')[1] == '1)'
        assert client.ask('GETMETADATA (DEPTH 1) INBOX /private/a').count(b'/private') == 2
        answer = client.ask('GETMETADATA (DEPTH infinity MAXSIZE 2) INBOX /private/a')
        assert b'333' not in answer
        assert b't OK [METADATA LONGENTRIES 3]' in answer
        client.ask('SETMETADATA INBOX (/private/a NIL)')
        assert client.ask('GETMETADATA INBOX /private/a') == b't OK Getmetadata completed\r\n'
    finally:
        shard.close()


def test_device_tokens_are_a_bounded_set_oldest_first(login: Login) -> None:
    client = login()

    def tokens() -> list[str]:
        answer = client.ask('GETMETADATA INBOX /private/devicetoken')
        found = re.search(rb'\}\r\n(.*)\)\r\n', answer)
        return found[1].decode().split(' ') if found else []

    for token in ('one', 'two', 'one', ''):
        assert b't OK' in client.ask(f'SETMETADATA INBOX (/private/devicetoken "{token}")')
    assert tokens() == ['one', 'two']
    for number in range(25):
        client.ask(f'SETMETADATA "INBOX" (/private/devicetoken "openpgp:{number}")')
    assert tokens() == [f'openpgp:{number}' for number in range(5, 25)]
    for bad in ('"a b"', '{3+}\r\n\xc3\xbcx', '{4097+}\r\n' + 'x' * 4097):
        answer = client.ask(f'SETMETADATA INBOX (/private/devicetoken {bad})'.encode('latin-1'))
        assert answer.startswith(b't NO '), bad
    assert len(tokens()) == 20
    # One device must not silence the others.
    assert client.ask('SETMETADATA INBOX (/private/devicetoken NIL)').startswith(b't OK ')
    assert len(tokens()) == 20


def test_quota_commands(filled: Fill, tmp_path: Path) -> None:
    client = filled(1)
    assert client.ask('GETQUOTA "User quota"').startswith(b'* QUOTA "User quota" (STORAGE 1 ')
    assert client.ask('GETQUOTA "x"').startswith(b't NO ')
    assert client.ask('SETQUOTA "User quota" (STORAGE 5)').startswith(b't NO ')
    assert client.ask('GETQUOTAROOT any').startswith(b'* QUOTAROOT "any" "User quota"\r\n')
    shard = ShardDouble(tmp_path / 'free', limits__quota=0)
    try:
        free = Client(shard, shard.account())
        assert free.ask('GETQUOTAROOT INBOX').startswith(b'* QUOTAROOT INBOX\r\nt OK')
    finally:
        shard.close()
