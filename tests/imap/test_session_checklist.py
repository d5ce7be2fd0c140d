"""The checklist of the fact sheet, section 9, as far as it concerns IMAP: one test a rule.

These are the mistakes that make Delta Chat lose mail, hang or loop.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from madmail.imap.session import KEEPALIVE
from madmail.store.interface import NewMessage, StoreFull
from tests.imap.wire_double import Client, ShardDouble, message

PREFETCH = (
    '(UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE X-MICROSOFT-ORIGINAL-MESSAGE-ID'
    ' FROM CONTENT-TYPE SECURE-JOIN CHAT-VERSION CHAT-IS-POST-MESSAGE AUTOCRYPT-SETUP-MESSAGE)])'
)
Fill = Callable[..., Client]
Login = Callable[..., Client]


def deliver(shard: ShardDouble, octets: bytes, address: str = 'ann@chat.example') -> None:
    spool = shard.spool()
    spool.append(octets)
    identity = time.monotonic_ns().to_bytes(16, 'big')
    shard.store.deliver(spool.finish(), [address], delivery_id=identity)


# -- 1: never NO or missing messages on a temporary fault


def test_a_fetch_that_cannot_read_a_body_says_bye(
    filled: Fill, shard: ShardDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = filled(3)
    second = shard.store.messages(client.session.view.box.id, 2, 2)[0].body_id
    read = shard.store.body
    monkeypatch.setattr(shard.store, 'body', lambda n: None if n == second else read(n))
    client.wire.feed(b'x UID FETCH 1:3 (FLAGS BODY.PEEK[])\r\n')
    while client.wire.busy:
        gevent.sleep(0.001)
    answer = bytes(client.wire.output)
    assert b'* 1 FETCH' in answer
    assert answer.rstrip().split(b'\r\n')[-1].startswith(b'* BYE ')
    assert b'x NO' not in answer
    assert b'x OK' not in answer
    assert client.wire.closing


def test_a_fetch_that_fails_inside_a_literal_just_ends(
    filled: Fill, shard: ShardDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = filled(1, body=b'x' * 300_000)
    original = shard.store.body

    class Torn:
        def __init__(self, body: Any) -> None:
            self.size = body.size
            self._body = body

        def read(self, offset: int = 0, length: int = -1) -> bytes:
            if offset > 100_000:
                raise OSError('gone')
            octets: bytes = self._body.read(offset, length)
            return octets

    monkeypatch.setattr(shard.store, 'body', lambda n: Torn(original(n)))
    client.wire.feed(b'x UID FETCH 1 (FLAGS BODY.PEEK[])\r\n')
    while client.wire.busy:
        gevent.sleep(0.001)
    assert client.wire.closing
    assert b'BYE' not in client.wire.output  # it would be taken for message octets
    assert b'x ' not in client.wire.output[-10:]


def test_a_row_that_the_store_does_not_give_ends_the_connection(
    filled: Fill, shard: ShardDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = filled(3)
    read = shard.store.messages
    monkeypatch.setattr(shard.store, 'messages', lambda *a, **k: read(*a, **k)[:-1])
    client.wire.feed(b'x UID FETCH 1:500 (UID FLAGS)\r\n')
    while client.wire.busy:
        gevent.sleep(0.001)
    assert client.wire.output.rstrip().split(b'\r\n')[-1].startswith(b'* BYE ')


def test_a_select_that_cannot_read_says_bye(
    login: Login, shard: ShardDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = login()

    def fail(*arguments: Any) -> None:
        raise OSError('disk')

    monkeypatch.setattr(shard.store, 'mailbox', fail)
    client.wire.feed(b'x SELECT INBOX\r\n')
    while client.wire.busy:
        gevent.sleep(0.001)
    assert client.wire.output.startswith(b'* BYE ')
    assert client.wire.closing


def test_a_store_on_a_full_disk_says_bye_so_that_the_deletion_is_not_forgotten(
    filled: Fill, shard: ShardDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = filled(1)

    def fail(*arguments: Any) -> None:
        raise StoreFull

    monkeypatch.setattr(shard.store, 'store_flags', fail)
    assert client.ask('UID STORE 1 +FLAGS (\\Deleted)').startswith(b'* BYE ')
    assert client.wire.closing


def test_reading_works_on_a_full_disk(
    filled: Fill, shard: ShardDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = filled(1)

    def fail(*arguments: Any) -> None:
        raise StoreFull

    monkeypatch.setattr(shard.store, 'store_flags', fail)
    assert b't OK' in client.ask('UID FETCH 1 BODY[]')


# -- 2: UIDNEXT and UIDVALIDITY


def number(answer: bytes, name: bytes) -> int:
    found = re.search(rb'\[' + name + rb' (\d+)\]', answer)
    assert found is not None
    return int(found[1])


def test_uidnext_never_decreases_even_in_an_emptied_mailbox(filled: Fill) -> None:
    client = filled(3)
    client.ask('STORE 1:* +FLAGS (\\Deleted)')
    client.ask('CLOSE')
    answer = client.ask('SELECT INBOX')
    assert b'* 0 EXISTS' in answer
    assert number(answer, b'UIDNEXT') == 4


def test_uidvalidity_is_stable_and_new_for_each_incarnation(login: Login) -> None:
    client = login()
    client.ask('CREATE box')
    first = number(client.ask('SELECT box'), b'UIDVALIDITY')
    assert number(client.ask('SELECT box'), b'UIDVALIDITY') == first
    client.ask('DELETE box')
    client.ask('CREATE box')
    assert number(client.ask('SELECT box'), b'UIDVALIDITY') != first


def test_select_always_tells_exists_uidvalidity_and_uidnext(login: Login) -> None:
    for verb in ('SELECT', 'EXAMINE'):
        answer = login().ask(f'{verb} INBOX')
        assert b'* 0 EXISTS\r\n' in answer
        assert b'[UIDVALIDITY ' in answer
        assert b'[UIDNEXT 1]' in answer


# -- 3: no flag updates inside a FETCH


def test_flags_of_another_session_never_come_with_a_fetch(filled: Fill, login: Login) -> None:
    client = filled(3)
    other = login()
    other.ask('SELECT INBOX')
    other.ask('STORE 1:3 +FLAGS (\\Flagged)')
    answer = client.ask(f'UID FETCH 1:500 {PREFETCH}')
    assert b'FLAGS' not in answer
    assert answer.count(b'RFC822.SIZE') == answer.count(b' FETCH (') == 3
    assert client.ask('NOOP').count(b'FLAGS (\\Flagged') == 3


def test_no_expunge_with_fetch_store_or_search_by_number_or_uid(filled: Fill, login: Login) -> None:
    client = filled(5)
    other = login()
    other.ask('SELECT INBOX')
    other.ask('STORE 2,4 +FLAGS (\\Deleted)')
    other.ask('EXPUNGE')
    for command in (
        'FETCH 1 (FLAGS)', 'UID FETCH 1:* (FLAGS)', 'STORE 1 +FLAGS (\\Seen)',
        'UID STORE 1 -FLAGS (\\Seen)', 'SEARCH ALL', 'UID SEARCH ALL',
    ):  # fmt: skip
        assert b'EXPUNGE\r\n' not in client.ask(command)
    assert b'* 5 FETCH (UID 5 ' in client.ask('FETCH 5 (UID FLAGS)')  # numbers as they were
    assert re.findall(rb'\* (\d) EXPUNGE', client.ask('NOOP')) == [b'4', b'2']
    assert b'* 3 FETCH (UID 5 ' in client.ask('FETCH 3 (UID FLAGS)')


def test_a_flag_change_during_a_fetch_waits(filled: Fill, login: Login) -> None:
    client = filled(1, body=b'x' * 700_000)
    other = login()
    other.ask('SELECT INBOX')
    client.wire.reading = False  # the FETCH hangs in the middle of the body
    client.wire.feed(b'x UID FETCH 1 (FLAGS BODY.PEEK[])\r\n')
    gevent.sleep(0.01)
    assert client.wire.busy
    other.ask('STORE 1 +FLAGS (\\Flagged)')
    other.ask('STORE 1 +FLAGS (\\Deleted)')
    client.wire.reading = True
    answer = client.take()
    assert answer.count(b' FETCH (') == 1
    assert answer.endswith(b')\r\nx OK Fetch completed\r\n')
    assert b'FETCH (UID 1 FLAGS (\\Flagged \\Deleted' in client.ask('NOOP')


# -- 5 and 6: what the parser takes


def test_metadata_values_are_literals_and_an_empty_list_is_never_sent(login: Login) -> None:
    client = login()
    everything = (
        'GETMETADATA "" (/shared/comment /shared/admin /shared/vendor/deltachat/irohrelay'
        ' /shared/vendor/deltachat/turn /shared/vendor/deltachat/maxsmtprecipients'
        ' /shared/vendor/deltachat/appversions)'
    )
    assert client.ask(everything) == (
        b'* METADATA "" (/shared/vendor/deltachat/maxsmtprecipients {4}\r\n1000)\r\n'
        b't OK Getmetadata completed\r\n'
    )
    assert client.ask('GETMETADATA "" (/shared/comment)') == b't OK Getmetadata completed\r\n'


def test_device_tokens_are_never_volunteered(login: Login) -> None:
    client = login()
    client.ask('SETMETADATA "INBOX" (/private/devicetoken "openpgp:abc")')
    for command in (
        'GETMETADATA (DEPTH infinity) INBOX (/private)',
        'GETMETADATA (DEPTH infinity) "" (/private /shared)',
        'GETMETADATA "" (/shared/comment)',
        'NOOP',
        'SELECT INBOX',
        'IDLE',
    ):
        assert b'devicetoken' not in client.ask(command)


def test_sections_are_echoed_without_peek_and_only_what_was_asked_comes(filled: Fill) -> None:
    client = filled(2)
    answer = client.ask(f'UID FETCH 1:500 {PREFETCH}')
    assert b'PEEK' not in answer
    first = answer.split(b'\r\n')[0]
    fields = re.search(r'\[.*\]', PREFETCH)
    assert fields is not None
    assert re.fullmatch(
        rb'\* 1 FETCH \(UID 1 RFC822.SIZE \d+ BODY' + re.escape(fields[0].encode()) + rb' \{\d+\}',
        first,
    )
    assert b'\r\n\r\n)\r\n* 2 FETCH' in answer  # header ends with the empty line, then `)`
    answer = client.ask('UID FETCH 2 (FLAGS BODY.PEEK[])')
    assert re.match(rb'\* 2 FETCH \(UID 2 FLAGS \(\\Recent\) BODY\[\] \{\d+\}\r\n', answer)


def test_a_range_far_beyond_uidnext_gives_all_there_is(filled: Fill) -> None:
    client = filled(4)
    for numbers, uids in [
        ('3:502', [3, 4]), ('1:*', [1, 2, 3, 4]), ('90:*', [4]), ('*', [4]), ('*:3', [3, 4]),
        ('5:504', []), ('4,1:2', [1, 2, 4]),
    ]:  # fmt: skip
        answer = client.ask(f'UID FETCH {numbers} (UID)')
        assert [int(n) for n in re.findall(rb'\(UID (\d+)\)', answer)] == uids, numbers
        assert answer.endswith(b't OK Fetch completed\r\n')


def test_a_mailbox_of_many_thousand_is_fetched_completely(login: Login, shard: ShardDouble) -> None:
    client = login()
    body = shard.spool()
    body.append(message())
    finished = body.finish()
    box = shard.store.mailbox(client.session.account.id, 'INBOX')
    assert box is not None
    for _ in range(10):
        shard.store.append(box.id, [NewMessage(finished) for _ in range(500)])
    client.ask('SELECT INBOX')
    answer = client.ask('UID FETCH 1:* (UID FLAGS)')
    assert [int(n) for n in re.findall(rb'UID (\d+)', answer)] == list(range(1, 5001))
    assert [int(n) for n in re.findall(rb'\* (\d+) FETCH', answer)] == list(range(1, 5001))


# -- 7: capabilities


def test_capabilities_hold_what_delta_chat_looks_for_and_stand_in_the_login_answer(
    login: Login,
) -> None:
    client = login()
    words = client.ask('CAPABILITY').split(b'\r\n')[0].split()[2:]
    assert {b'IMAP4rev1', b'IDLE', b'MOVE', b'QUOTA', b'METADATA', b'ID', b'XCHATMAIL'} <= set(
        words
    )
    assert client.greeting == b'a OK [CAPABILITY %s] Logged in\r\n' % b' '.join(words)
    assert all(word == word.upper() or word in (b'IMAP4rev1', b'IMAP4rev2') for word in words)
    assert len(words) == len(set(words))


# -- 8: IDLE


def test_idle_tells_growth_at_its_start(filled: Fill, shard: ShardDouble) -> None:
    client = filled(1)
    deliver(shard, message(2))
    assert client.ask('IDLE').startswith(b'+ idling\r\n* 2 EXISTS\r\n')


def test_new_mail_reaches_idle_inside_the_delivery(filled: Fill, shard: ShardDouble) -> None:
    client = filled(0)
    assert client.ask('IDLE') == b'+ idling\r\n'
    deliver(shard, message(1))
    # Written and flushed by the event, before the deliverer went on: nothing ran since.
    assert client.wire.output.startswith(b'* 1 EXISTS\r\n')
    assert client.send(b'DONE\r\n').endswith(b'OK Idle completed\r\n')


def test_idle_is_kept_alive_every_two_minutes_and_never_ended(login: Login) -> None:
    client = login()
    client.ask('SELECT INBOX')
    client.ask('IDLE')
    now = time.monotonic()
    client.session.tick(now + KEEPALIVE - 5)
    assert client.take() == b''
    for count in range(1, 100):
        client.session.tick(now + count * (KEEPALIVE + 1))
        assert client.take() == b'* OK Still here\r\n'
    assert not client.wire.closing


def test_idle_works_without_a_mailbox(login: Login) -> None:
    client = login()
    assert client.ask('IDLE') == b'+ idling\r\n'
    assert b'OK Idle completed' in client.send(b'DONE\r\n')


def test_done_and_the_next_commands_in_one_packet(filled: Fill) -> None:
    client = filled(1)
    client.ask('IDLE')
    before = client.wire.sends
    answer = client.send(b'DONE\r\nx NOOP\r\ny UID FETCH 1 (UID)\r\nz IDLE\r\n')
    assert [line.split()[0] for line in answer.split(b'\r\n')[:-1]] == [
        b't3',
        b'x',
        b'*',
        b'y',
        b'+',
    ]
    assert client.wire.sends == before + 1  # pipelined commands, one send


def test_a_session_in_idle_has_no_greenlet(filled: Fill) -> None:
    client = filled(1)
    client.ask('IDLE')
    assert not client.wire.busy


# -- 27, 28


def test_quota_root_is_byte_equal_and_figures_are_kib(filled: Fill) -> None:
    client = filled(1, body=b'x' * 5000)
    answer = client.ask('GETQUOTAROOT "INBOX"')
    assert answer.startswith(
        b'* QUOTAROOT INBOX "User quota"\r\n* QUOTA "User quota" (STORAGE 6 512000)\r\n'
    )


def test_bare_line_feeds_end_commands(login: Login) -> None:
    client = login()
    assert client.send(b'1 SETMETADATA INBOX (/private/devicetoken "1111" )\n').startswith(
        b'1 OK Setmetadata completed'
    )
    lines = client.send(b'2 GETMETADATA INBOX /private/devicetoken\n').split(b'\r\n')
    assert lines[0].startswith(b'*')
    assert lines[0].endswith(b'{4}')
    assert lines[1] == b'1111)'
    assert b'Getmetadata completed' in lines[2]
    client.send(b'3 SETMETADATA INBOX (/private/devicetoken "2222" )\n')
    lines = client.send(b'4 GETMETADATA INBOX /private/devicetoken\n').split(b'\r\n')
    assert lines[1] == b'1111 2222)'


def test_the_id_line_is_one_write_without_a_product_name(login: Login) -> None:
    client = login()
    before = client.wire.sends
    answer = client.ask('ID ("name" "Delta Chat")')
    assert client.wire.sends == before + 1
    assert answer.startswith(b'* ID (')
    assert b'madmail' not in answer.lower()
