"""Mailboxes: SELECT and its relatives, CREATE to RENAME, LIST, LSUB, STATUS, sessions' ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import gevent
import msgpack
import pytest

from madmail.imap.session import ImapSession
from madmail.store.interface import NewMessage
from tests.imap.wire_double import Client, ShardDouble, message

Fill = Callable[..., Client]
Login = Callable[..., Client]


def test_select_tells_flags_counts_and_unseen(filled: Fill) -> None:
    client = filled(2)
    assert client.lines('SELECT INBOX')[:5] == [
        '* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)',
        '* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] Flags permitted',
        '* 2 EXISTS',
        '* 0 RECENT',
        '* OK [UNSEEN 1] First unseen',
    ]
    assert client.lines('SELECT INBOX')[-1] == 't OK [READ-WRITE] Select completed'


def test_examine_is_read_only(filled: Fill) -> None:
    client = filled(1)
    assert client.lines('EXAMINE INBOX')[-1] == 't OK [READ-ONLY] Examine completed'
    for command in ('STORE 1 +FLAGS (\\Seen)', 'EXPUNGE', 'UID EXPUNGE 1', 'MOVE 1 INBOX'):
        assert client.ask(command).startswith(b't NO [READ-ONLY] ')
    assert b'\\Seen' not in client.ask('FETCH 1 (BODY[] FLAGS)')
    client.ask('CLOSE')
    assert b'* 1 EXISTS' in client.ask('SELECT INBOX')


def test_close_expunges_silently_and_examine_close_does_not(filled: Fill) -> None:
    client = filled(3)
    client.ask('STORE 2 +FLAGS (\\Deleted)')
    client.ask('EXAMINE INBOX')
    assert client.ask('CLOSE') == b't OK Close completed\r\n'
    client.ask('SELECT INBOX')
    assert client.ask('UNSELECT') == b't OK Unselect completed\r\n'
    assert b'* 3 EXISTS' in client.ask('SELECT INBOX')
    assert client.ask('CLOSE') == b't OK Close completed\r\n'
    assert b'* 2 EXISTS' in client.ask('SELECT INBOX')


def test_a_failed_select_leaves_nothing_selected(filled: Fill) -> None:
    client = filled(1)
    assert client.ask('SELECT nothing').startswith(b't NO [NONEXISTENT]')
    assert client.ask('FETCH 1 (FLAGS)') == b't BAD No mailbox is selected\r\n'


def test_the_first_session_gets_recent(filled: Fill, login: Login, shard: ShardDouble) -> None:
    first = filled(0)
    second = login()
    second.ask('SELECT INBOX')
    login('bob@chat.example').ask('NOOP')
    writer = login()
    writer.append(message(1))
    assert first.ask('NOOP').startswith(b'* 1 EXISTS\r\n* 1 RECENT\r\n')
    assert second.ask('NOOP').startswith(b'* 1 EXISTS\r\nt OK')
    assert b'\\Recent' in first.ask('FETCH 1 (FLAGS)')
    assert b'\\Recent' not in second.ask('FETCH 1 (FLAGS)')
    writer.append(message(2))
    assert b'RECENT 1' in writer.ask('STATUS INBOX (RECENT)')
    examiner = login()
    assert b'* 1 RECENT' in examiner.ask('EXAMINE INBOX')
    assert b'* 1 RECENT' in login().ask('SELECT INBOX')
    assert b'* 0 RECENT' in login().ask('SELECT INBOX')


def test_create_delete_and_the_rules_of_inbox(login: Login) -> None:
    client = login()
    assert client.ask('CREATE a/b/').startswith(b't OK')
    assert client.ask('CREATE a/b').startswith(b't NO [ALREADYEXISTS]')
    assert client.ask('CREATE inbox').startswith(b't NO [ALREADYEXISTS]')
    assert client.ask('DELETE INBOX').startswith(b't NO [CANNOT]')
    assert client.ask('DELETE a').startswith(b't NO [CANNOT]')
    assert client.ask('DELETE c').startswith(b't NO [NONEXISTENT]')
    assert client.ask('CREATE a').startswith(b't OK')
    assert client.ask('DELETE a').startswith(b't OK')  # its inferiors stay
    assert client.lines('LIST "" a*')[:-1] == [
        '* LIST (\\Noselect \\HasChildren) "/" "a"',
        '* LIST (\\HasNoChildren) "/" "a/b"',
    ]


def test_the_number_of_mailboxes_is_limited(tmp_path: Path) -> None:
    shard = ShardDouble(tmp_path / 's', limits__mailboxes_per_account=3)
    try:
        client = Client(shard, shard.account())
        assert client.ask('CREATE a').startswith(b't OK')
        assert client.ask('CREATE b').startswith(b't OK')
        assert client.ask('CREATE c').startswith(b't NO [LIMIT]')
        assert client.ask('RENAME INBOX c').startswith(b't NO [LIMIT]')
    finally:
        shard.close()


def test_rename_takes_inferiors_along(login: Login) -> None:
    client = login()
    for name in ('a', 'a/b', 'a/b/c', 'ab', 'x/y', 'x/z/q'):
        client.ask(f'CREATE {name}')
    client.ask('SELECT a/b')
    client.append(message(1), 'a/b')
    assert client.ask('RENAME a n').startswith(b't OK')
    assert b'* 1 FETCH' in client.ask('FETCH 1 (FLAGS)')  # the selected mailbox is the same one
    assert client.ask('RENAME x n').startswith(b't NO [ALREADYEXISTS]')
    assert client.ask('RENAME x w').startswith(b't OK')  # x is only implied
    assert client.ask('RENAME n n/m').startswith(b't NO [CANNOT]')
    assert client.ask('RENAME gone other').startswith(b't NO [NONEXISTENT]')
    names = [line.split('"')[3] for line in client.lines('LIST "" *')[:-1]]
    assert names == ['INBOX', 'ab', 'n', 'n/b', 'n/b/c', 'w', 'w/y', 'w/z', 'w/z/q']


def test_renaming_inbox_moves_its_messages(filled: Fill) -> None:
    client = filled(2)
    answer = client.ask('RENAME INBOX old')
    assert answer.count(b'EXPUNGE') == 2
    assert b'MESSAGES 2' in client.ask('STATUS old (MESSAGES)')
    assert b'MESSAGES 0' in client.ask('STATUS INBOX (MESSAGES)')


def test_list_patterns_and_the_delimiter(login: Login) -> None:
    client = login()
    for name in ('foo/bar', 'foo/bar/baz', 'foobar'):
        client.ask(f'CREATE {name}')
    assert client.lines('LIST "" ""')[0] == '* LIST (\\Noselect) "/" ""'

    def names(command: str) -> list[str]:
        return [line.split('"')[3] for line in client.lines(command)[:-1]]

    assert names('LIST "" %') == ['INBOX', 'foo', 'foobar']
    assert names('LIST "" "*"') == ['INBOX', 'foo', 'foo/bar', 'foo/bar/baz', 'foobar']
    assert names('LIST foo/ %') == ['foo/bar']
    assert names('LIST "" foo/%/baz') == ['foo/bar/baz']
    assert names('LIST "" inbox') == ['INBOX']
    assert names('LIST "" nothing') == []


def test_lsub_and_subscriptions(login: Login) -> None:
    client = login()
    assert client.lines('LSUB "" *')[:-1] == ['* LSUB () "/" "INBOX"']
    client.ask('UNSUBSCRIBE INBOX')
    client.ask('CREATE foo/bar')
    assert client.ask('SUBSCRIBE foo/bar').startswith(b't OK')
    assert client.ask('SUBSCRIBE nothing').startswith(b't NO [NONEXISTENT]')
    assert client.lines('LSUB "" *')[:-1] == ['* LSUB () "/" "foo/bar"']
    # RFC 3501 6.3.9
    assert client.lines('LSUB "" %')[:-1] == ['* LSUB (\\Noselect) "/" "foo"']
    client.ask('DELETE foo/bar')
    assert client.lines('LSUB "" *')[:-1] == ['* LSUB () "/" "foo/bar"']
    assert client.lines('LIST (SUBSCRIBED) "" *')[:-1] == [
        '* LIST (\\NonExistent \\HasNoChildren \\Subscribed) "/" "foo/bar"'
    ]
    client.ask('UNSUBSCRIBE foo/bar')
    assert client.lines('LSUB "" *')[:-1] == []


def test_extended_list_with_status_and_special_use(filled: Fill) -> None:
    client = filled(2)
    client.ask('UNSUBSCRIBE INBOX')
    assert client.ask('CREATE Sent (USE (\\Sent))').startswith(b't OK')
    assert client.ask('CREATE Sent2 (USE (\\Sent))').startswith(b't NO [USEATTR]')
    client.ask('SUBSCRIBE Sent')
    client.ask('CREATE top/sub')
    client.ask('SUBSCRIBE top/sub')
    assert client.lines('LIST (SPECIAL-USE) "" *')[:-1] == [
        '* LIST (\\HasNoChildren \\Sent) "/" "Sent"'
    ]
    assert client.lines('LIST "" (INBOX Sent) RETURN (SUBSCRIBED STATUS (MESSAGES SIZE))')[:-1] == [
        '* LIST (\\HasNoChildren) "/" "INBOX"',
        f'* STATUS "INBOX" (MESSAGES 2 SIZE {2 * len(message(1))})',
        '* LIST (\\HasNoChildren \\Subscribed \\Sent) "/" "Sent"',
        '* STATUS "Sent" (MESSAGES 0 SIZE 0)',
    ]
    assert client.lines('LIST (SUBSCRIBED RECURSIVEMATCH) "" %')[:-1] == [
        '* LIST (\\HasNoChildren \\Subscribed \\Sent) "/" "Sent"',
        '* LIST (\\NonExistent \\HasChildren) "/" "top" ("CHILDINFO" ("SUBSCRIBED"))',
    ]


def test_status_counts_also_of_the_selected_mailbox(filled: Fill) -> None:
    client = filled(3)
    client.ask('STORE 1 +FLAGS (\\Seen \\Deleted)')
    assert client.lines('STATUS INBOX (MESSAGES UIDNEXT UNSEEN DELETED SIZE APPENDLIMIT)')[0] == (
        f'* STATUS "INBOX" (MESSAGES 3 UIDNEXT 4 UNSEEN 2 DELETED 1 SIZE {3 * len(message(1))}'
        ' APPENDLIMIT 31457280)'
    )
    assert client.ask('STATUS nothing (MESSAGES)').startswith(b't NO [NONEXISTENT]')


def test_namespace_and_names_in_modified_utf_7(login: Login) -> None:
    client = login()
    assert client.lines('NAMESPACE')[0] == '* NAMESPACE (("" "/")) NIL NIL'
    assert client.ask('CREATE "Entw&APw-rfe"').startswith(b't OK')
    assert client.lines('LIST "" Entw*')[0] == '* LIST (\\HasNoChildren) "/" "Entw&APw-rfe"'
    assert client.ask('CREATE "a\\"b"').startswith(b't OK')
    assert client.lines('LIST "" a*')[0] == '* LIST (\\HasNoChildren) "/" "a\\"b"'


# -- the ends of sessions


def test_a_deleted_mailbox_ends_the_sessions_of_others(login: Login) -> None:
    one, two, three = login(), login(), login()
    one.ask('CREATE box')
    one.ask('SELECT box')
    two.ask('SELECT box')
    two.ask('IDLE')
    three.ask('SELECT INBOX')
    assert one.ask('DELETE box') == b't OK Delete completed\r\n'
    assert one.ask('FETCH 1 (FLAGS)') == b't BAD No mailbox is selected\r\n'
    assert two.take().startswith(b'* BYE ')
    assert two.wire.closing
    assert three.ask('NOOP').startswith(b't OK')


def test_a_removed_account_ends_its_sessions(filled: Fill, shard: ShardDouble) -> None:
    client = filled(1)
    client.ask('IDLE')
    shard.store.delete_account(client.session.account.id)
    assert client.take().startswith(b'* BYE ')
    assert client.wire.closing


def test_retire_says_bye_at_a_command_boundary(filled: Fill) -> None:
    client = filled(1, body=b'x' * 700_000)
    client.wire.reading = False
    client.wire.feed(b'x FETCH 1 (BODY.PEEK[])\r\ny NOOP\r\n')
    gevent.sleep(0.01)
    client.session.retire()
    client.wire.reading = True
    answer = client.take()
    assert b')\r\nx OK Fetch completed\r\n* BYE ' in answer or b')\r\n* BYE ' in answer
    assert b'y OK' not in answer
    assert client.wire.closing


def test_a_session_without_commands_ends_after_the_idle_time(login: Login) -> None:
    client = login()
    client.session.tick(time.monotonic() + 1790)
    assert not client.wire.closing
    client.session.tick(time.monotonic() + 1801)
    assert client.take().startswith(b'* BYE ')
    assert client.wire.closing


def test_ten_bad_commands_in_a_row_end_the_session(login: Login) -> None:
    client = login()
    for _ in range(9):
        assert client.ask('NONSENSE').startswith(b't BAD ')
    client.ask('NOOP')
    for _ in range(9):
        assert client.ask('FETCH').startswith(b't BAD ')
    assert client.ask('LOGIN a b').split(b'\r\n')[-2].startswith(b'* BYE ')
    assert client.wire.closing


def test_logout(login: Login) -> None:
    client = login()
    assert client.ask('LOGOUT') == b'* BYE Logging out\r\nt OK Logout completed\r\n'
    assert client.wire.closing


def moved(client: Client, shard: ShardDouble, meanwhile: Callable[[], object]) -> bytes:
    """The session goes through msgpack into a new object, as at a reload; what it then says."""
    account = client.session.account
    state = client.session.freeze()
    assert state is not None
    meanwhile()
    state = msgpack.unpackb(msgpack.packb(state, use_bin_type=True), raw=False)
    client.session = ImapSession.thaw(client.wire, shard, account, state)  # type: ignore[arg-type]
    client.wire.attach(client.session)
    gevent.sleep(0.005)
    return client.take()


def test_a_session_in_idle_moves_to_another_process(
    filled: Fill, login: Login, shard: ShardDouble
) -> None:
    client, other = filled(4), login()
    other.ask('SELECT INBOX')
    client.ask('IDLE')

    def meanwhile() -> None:
        other.append(message(5))
        other.ask('STORE 2 +FLAGS (\\Deleted)')
        other.ask('STORE 4 +FLAGS (\\Flagged)')
        other.ask('EXPUNGE')

    lines = moved(client, shard, meanwhile).split(b'\r\n')
    assert lines[0] == b'* 2 EXPUNGE'
    assert lines[1] == b'* 4 EXISTS'
    assert b'* 3 FETCH (UID 4 FLAGS (\\Flagged \\Recent))' in lines
    assert client.send(b'DONE\r\n').endswith(b't6 OK Idle completed\r\n')
    assert moved(client, shard, lambda: None) == b''
    assert b'* 4 FETCH (UID 5 ' in client.ask('FETCH 4 (UID FLAGS)')


def test_a_session_whose_mailbox_is_deleted_on_the_way_says_bye(
    login: Login, shard: ShardDouble
) -> None:
    client, other = login(), login()
    client.ask('CREATE box')
    client.ask('SELECT box')
    assert moved(client, shard, lambda: other.ask('DELETE box')).startswith(b'* BYE ')


def test_only_a_session_at_a_command_boundary_can_move(filled: Fill) -> None:
    client = filled(1)
    client.send(b'x SEARCH SUBJECT {7}\r\n')
    assert client.session.freeze() is None
    client.send(b'message\r\n')
    client.send(b'y NO')
    assert client.session.freeze() is None


def test_a_long_fetch_leaves_turns_to_others(login: Login, shard: ShardDouble) -> None:
    long, short = login(), login()
    spool = shard.spool()
    spool.append(message())
    body = spool.finish()
    box = shard.store.mailbox(long.session.account.id, 'INBOX')
    assert box is not None
    for _ in range(8):
        shard.store.append(box.id, [NewMessage(body) for _ in range(500)])
    long.ask('SELECT INBOX')
    long.wire.feed(b'x UID FETCH 1:* (FLAGS BODY.PEEK[])\r\n')
    answered = 0
    while long.wire.busy:
        short.ask('NOOP')
        answered += 1
    assert answered >= 5
    assert bytes(long.wire.output).endswith(b'x OK Fetch completed\r\n')


def test_mailboxes_are_forgotten_when_nobody_has_them_selected(
    filled: Fill, shard: ShardDouble
) -> None:
    client = filled(3)
    assert len(shard.boxes) == 1
    client.ask('UID FETCH 1:* (FLAGS)')
    client.wire.hang_up()
    client.take()
    assert len(shard.boxes) == 0
    assert shard.boxes._loaded == 0


def test_too_long_a_command_is_refused_and_the_dialogue_goes_on(login: Login) -> None:
    client = login()
    assert client.ask('SEARCH TEXT ' + 'x' * 70_000).startswith(b't BAD [TOOBIG]')
    assert client.ask('NOOP').startswith(b't OK')


@pytest.mark.parametrize('step', [1, 3])
def test_a_client_that_sends_octet_by_octet(filled: Fill, step: int) -> None:
    client = filled(1)
    data = b'x SEARCH BODY {4}\r\ntext\r\ny SEARCH SUBJECT {7+}\r\nmessage\r\nz IDLE\r\nDONE\r\n'
    answer = b''
    for start in range(0, len(data), step):
        answer += client.send(data[start : start + step])
    assert answer.split(b'\r\n')[-3:] == [b'+ idling', b'z OK Idle completed', b'']
    assert b'* SEARCH 1\r\ny OK' in answer
