"""ENABLE, CONDSTORE, QRESYNC, IMAP4rev2, UIDONLY, NOTIFY by dialogue.

Every dialogue is played twice: commands in one piece, and octet by octet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from madmail.imap import session as session_module
from madmail.imap.session import ImapSession
from tests.imap.wire_double import Client, ShardDouble, message

Login = Callable[..., Client]


class Dripping(Client):
    """A client whose commands arrive one octet at a time."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        feed = self.wire.feed

        def drip(data: bytes) -> None:
            for octet in data:
                feed(bytes((octet,)))
                gevent.sleep(0)

        self.wire.feed = drip  # type: ignore[method-assign]


@pytest.fixture(params=[Client, Dripping], ids=['whole', 'octets'])
def login(request: pytest.FixtureRequest, shard: ShardDouble) -> Login:
    def log_in(address: str = 'ann@chat.example') -> Client:
        client: Client = request.param(shard, shard.account(address))
        return client

    return log_in


@pytest.fixture
def other(shard: ShardDouble) -> Client:
    """Another session of the account, that has selected INBOX with four messages."""
    client = Client(shard, shard.account())
    for number in range(1, 5):
        client.append(message(number))
    client.ask('SELECT INBOX')
    return client


def modseq(answer: list[str]) -> int:
    found = re.search(r'HIGHESTMODSEQ (\d+)', '\n'.join(answer))
    assert found is not None, answer
    return int(found[1])


def validity(answer: list[str]) -> int:
    found = re.search(r'UIDVALIDITY (\d+)', '\n'.join(answer))
    assert found is not None
    return int(found[1])


# -- ENABLE


def test_enable_answers_what_it_has_enabled_and_nothing_else(login: Login) -> None:
    client = login()
    answer = client.lines('ENABLE qresync X-NOTHING IMAP4rev2')
    assert answer == ['* ENABLED QRESYNC IMAP4rev2', 't OK Enable completed']
    assert client.session.enabled == {'QRESYNC', 'CONDSTORE', 'IMAP4REV2'}
    assert client.lines('ENABLE X-NOTHING')[0] == '* ENABLED'


def test_without_enable_nothing_of_an_extension_is_sent(other: Client, login: Login) -> None:
    client = login()
    said = client.ask('SELECT INBOX')
    other.ask('STORE 2:3 +FLAGS (\\Seen)')
    other.ask('STORE 1 +FLAGS.SILENT (\\Deleted)')
    other.ask('EXPUNGE')
    other.append(message(9))
    said += client.ask('UID FETCH 1:* (FLAGS)')
    said += client.ask('NOOP') + client.ask('SEARCH ALL') + client.ask('STORE 1 +FLAGS (a)')
    said += client.ask('CREATE x') + client.ask('RENAME x y') + client.ask('SELECT y')
    for word in (b'MODSEQ (', b'VANISHED', b'ESEARCH', b'LIST', b'OLDNAME', b'CLOSED', b'UIDFETCH'):
        assert word not in said, word


# -- CONDSTORE


def test_condstore_is_enabled_by_its_commands(other: Client, login: Login) -> None:
    for command in (
        'FETCH 1 (MODSEQ)',
        'FETCH 1 (FLAGS) (CHANGEDSINCE 1)',
        'STORE 1 (UNCHANGEDSINCE 1) +FLAGS.SILENT (\\Seen)',
        'SEARCH MODSEQ 1',
        'STATUS INBOX (HIGHESTMODSEQ)',
        'ENABLE CONDSTORE',
    ):
        client = login()
        client.ask('SELECT INBOX')
        answer = client.ask(command)
        assert b'* OK [HIGHESTMODSEQ ' in answer, command
        assert b'MODSEQ (' in client.ask('STORE 1 FLAGS (\\Seen)')


def test_flag_changes_carry_a_mod_sequence(other: Client, login: Login) -> None:
    client = login()
    start = modseq(client.lines('SELECT INBOX (CONDSTORE)'))
    assert client.lines('STORE 1 +FLAGS (\\Seen)')[0] == (
        f'* 1 FETCH (FLAGS (\\Seen) MODSEQ ({start + 1}))'
    )
    # RFC 7162 3.1.3: also for .SILENT
    assert client.lines('UID STORE 2 +FLAGS.SILENT (\\Seen)')[0] == (
        f'* 2 FETCH (UID 2 MODSEQ ({start + 2}))'
    )
    other.ask('STORE 3 +FLAGS (\\Flagged)')
    assert client.lines('NOOP')[0] == (f'* 3 FETCH (UID 3 FLAGS (\\Flagged) MODSEQ ({start + 3}))')
    assert client.lines('FETCH 4 (FLAGS)')[0] == f'* 4 FETCH (FLAGS () MODSEQ ({start}))'
    assert client.lines('FETCH 3 (UID MODSEQ)')[0] == f'* 3 FETCH (UID 3 MODSEQ ({start + 3}))'
    assert client.lines('FETCH 3 (BODY[TEXT])')[0].startswith('* 3 FETCH (BODY[TEXT] {6}')
    assert client.ask('STATUS INBOX (HIGHESTMODSEQ)').count(b'HIGHESTMODSEQ %d' % (start + 4)) == 1


def test_changedsince_shows_what_has_changed(other: Client, login: Login) -> None:
    client = login()
    start = modseq(client.lines('SELECT INBOX (CONDSTORE)'))
    other.ask('STORE 2,4 +FLAGS (\\Seen)')
    other.ask('STORE 3 +FLAGS (\\Seen)')
    client.ask('NOOP')
    answer = client.lines(f'UID FETCH 1:3 (FLAGS) (CHANGEDSINCE {start})')
    assert answer[:-1] == [
        f'* 2 FETCH (UID 2 FLAGS (\\Seen) MODSEQ ({start + 1}))',
        f'* 3 FETCH (UID 3 FLAGS (\\Seen) MODSEQ ({start + 2}))',
    ]
    assert len(client.lines(f'FETCH 1:* (UID) (CHANGEDSINCE {start + 2})')) == 1
    answer = client.lines('UID FETCH 1:* (RFC822.SIZE BODY[]) (CHANGEDSINCE 1)')
    assert sum(' FETCH (' in line for line in answer) == 4  # each once, though it sets \Seen
    assert b't BAD ' in client.ask('UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)')


def test_unchangedsince_leaves_changed_messages_alone(other: Client, login: Login) -> None:
    client = login()
    start = modseq(client.lines('SELECT INBOX (CONDSTORE)'))
    other.ask('STORE 2 +FLAGS (\\Seen)')
    answer = client.lines(f'STORE 1:3 (UNCHANGEDSINCE {start}) +FLAGS (\\Flagged)')
    assert answer[0] == f'* 1 FETCH (FLAGS (\\Flagged) MODSEQ ({start + 2}))'
    assert answer[-1].startswith('t OK [MODIFIED 2] ')
    assert f'* 2 FETCH (UID 2 FLAGS (\\Seen) MODSEQ ({start + 1}))' in answer
    answer = client.lines('UID STORE 1:4 (UNCHANGEDSINCE 0) FLAGS.SILENT (\\Draft)')
    assert answer[-1].startswith('t OK [MODIFIED 1:4] ')
    assert b'Draft' not in client.ask('FETCH 1:* (FLAGS)')


def test_search_by_mod_sequence(other: Client, login: Login) -> None:
    client = login()
    start = modseq(client.lines('SELECT INBOX (CONDSTORE)'))
    other.ask('STORE 3 +FLAGS (\\Seen)')
    other.ask('STORE 2 +FLAGS (\\Seen)')
    assert client.lines(f'SEARCH MODSEQ {start + 1}')[0] == f'* SEARCH 2 3 (MODSEQ {start + 2})'
    assert client.lines(f'SEARCH MODSEQ "/flags/\\\\seen" all {start + 3}')[0] == '* SEARCH'
    answer = client.lines(f'SEARCH RETURN (MAX) MODSEQ {start + 1}')[0]
    assert answer.endswith(f' MAX 3 MODSEQ {start + 1}')


def test_highestmodseq_never_hides_what_was_held_back(other: Client, login: Login) -> None:
    """FETCH tells no expunges: a client that went by its MODSEQ would never learn of them."""
    client = login()
    client.ask('ENABLE QRESYNC')
    start = modseq(client.lines('SELECT INBOX'))
    other.ask('STORE 1 +FLAGS (\\Deleted)')
    other.ask('EXPUNGE')
    other.ask('STORE 3 +FLAGS (\\Seen)')
    answer = client.lines('FETCH 4 (FLAGS MODSEQ)')
    assert f'MODSEQ ({start + 3})' in answer[0]
    assert modseq(answer[-2:]) <= start + 1  # before the expunge
    answer = client.lines('NOOP')
    assert answer[0] == '* VANISHED 1'
    assert answer[-1] == f't OK [HIGHESTMODSEQ {start + 3}] Noop completed'
    assert client.lines('NOOP') == ['t OK Noop completed']


# -- expunged messages that the client does not know of


def test_expunged_messages_are_no_error(other: Client, login: Login) -> None:
    client = login()
    client.ask('SELECT INBOX')
    other.ask('STORE 2 +FLAGS (\\Deleted)')
    other.ask('EXPUNGE')
    assert client.lines('FETCH 1:2 (UID)')[-1].startswith('t OK [EXPUNGEISSUED] ')
    answer = client.lines('STORE 1:3 +FLAGS (\\Seen)')
    assert [line[:10] for line in answer[:2]] == ['* 1 FETCH ', '* 3 FETCH ']
    assert answer[-1].startswith('t OK [EXPUNGEISSUED] ')
    assert client.lines('COPY 1:3 INBOX')[-1] != 't OK'
    assert '* 2 EXPUNGE' in client.lines('NOOP')


# -- QRESYNC


def test_qresync_tells_what_happened_since(other: Client, login: Login) -> None:
    client = login()
    client.ask('ENABLE QRESYNC')
    selected = client.lines('SELECT INBOX')
    start, uid_validity = modseq(selected), validity(selected)
    client.ask('UNSELECT')
    other.ask('STORE 1,3 +FLAGS (\\Deleted)')
    other.ask('EXPUNGE')
    other.ask('STORE 1 +FLAGS (blue)')
    other.append(message(5))
    answer = client.lines(f'SELECT INBOX (QRESYNC ({uid_validity} {start}))')
    assert '* VANISHED (EARLIER) 1,3' in answer
    assert '* 3 EXISTS' in answer
    now = modseq(answer)
    fetched = [line for line in answer if ' FETCH ' in line]
    assert f'* 1 FETCH (UID 2 FLAGS (blue) MODSEQ ({now - 1}))' in fetched
    assert any(line.startswith('* 3 FETCH (UID 5 FLAGS ') for line in fetched)
    assert len(fetched) == 2
    # Only for UIDs that the client knows
    answer = client.lines(f'SELECT INBOX (QRESYNC ({uid_validity} {start} 3:4))')
    assert answer[0] == '* OK [CLOSED] Previous mailbox closed'
    assert '* VANISHED (EARLIER) 3' in answer
    assert not any(' FETCH ' in line for line in answer)
    # Another UID validity: nothing of it
    answer = client.lines(f'SELECT INBOX (QRESYNC ({uid_validity + 1} 1))')
    assert not any('VANISHED' in line or ' FETCH ' in line for line in answer)
    # Pairs that still agree tell where nothing is missing
    answer = client.lines(f'SELECT INBOX (QRESYNC ({uid_validity} 1 1:4 (1,2 2,4)))')
    assert not any('VANISHED' in line for line in answer)


def test_qresync_needs_enable(other: Client, login: Login) -> None:
    assert login().ask('SELECT INBOX (QRESYNC (1 1))').startswith(b't BAD ')


def test_with_qresync_expunges_are_told_by_uid(other: Client, login: Login) -> None:
    client = login()
    client.ask('ENABLE QRESYNC')
    client.ask('SELECT INBOX')
    start = modseq(client.lines('STATUS INBOX (HIGHESTMODSEQ)'))
    client.ask('IDLE')
    other.ask('STORE 2,3 +FLAGS.SILENT (\\Deleted)')
    client.take()
    other.ask('EXPUNGE')
    assert client.take().startswith(b'* VANISHED 2:3\r\n')
    client.send(b'DONE\r\n')
    client.ask('STORE 1 +FLAGS (\\Deleted)')
    answer = client.lines('EXPUNGE')
    assert answer[0] == '* VANISHED 1'
    assert re.fullmatch(r't OK \[HIGHESTMODSEQ \d+\] Expunge completed', answer[-1])
    assert client.lines('FETCH 1 (UID)')[0] == '* 1 FETCH (UID 4)'
    answer = client.lines(f'UID FETCH 1:* (FLAGS) (CHANGEDSINCE {start} VANISHED)')
    assert answer[0] == '* VANISHED (EARLIER) 1:3'
    assert not any(' FETCH ' in line for line in answer)


# -- IMAP4rev2


def test_rev2_behaves_so_only_when_it_is_enabled(other: Client, login: Login) -> None:
    client = login()
    other.append(message(5))
    client.ask('ENABLE IMAP4rev2')
    answer = client.lines('SELECT inbox')
    assert '* LIST () "/" "INBOX"' in answer
    assert not any('RECENT' in line or 'Recent' in line for line in answer)
    assert client.lines('FETCH 5 (FLAGS)')[0] == '* 5 FETCH (FLAGS ())'
    other.append(message(6))
    assert client.lines('NOOP')[0:2] == ['* 6 EXISTS', 't OK Noop completed']
    assert re.fullmatch(r'\* ESEARCH \(TAG "t\d+"\) ALL 1:6', client.lines('SEARCH ALL')[0])
    assert re.fullmatch(r'\* ESEARCH \(TAG "t\d+"\)', client.lines('SEARCH SEEN')[0])
    client.ask('STORE 1 +FLAGS (\\Deleted)')
    assert b'(DELETED 1 SIZE ' in client.ask('STATUS INBOX (DELETED SIZE)')
    client.ask('CREATE one')
    client.ask('CREATE one/two')
    answer = client.lines('RENAME one three')
    assert '* LIST () "/" "three" ("OLDNAME" ("one"))' in answer
    assert '* LIST () "/" "three/two" ("OLDNAME" ("one/two"))' in answer
    assert client.lines('SELECT three')[0] == '* OK [CLOSED] Previous mailbox closed'
    assert client.lines('SELECT nothing')[0] == '* OK [CLOSED] Previous mailbox closed'
    assert client.ask('NOOP') == b't OK Noop completed\r\n'


def test_rev2_takes_no_recent_flag_from_others(login: Login) -> None:
    client = login()
    client.ask('ENABLE IMAP4rev2')
    client.ask('SELECT INBOX')
    assert b'* 1 EXISTS' in client.append(message(1))
    assert b'* 1 RECENT' in login().ask('SELECT INBOX')


# -- UIDONLY


def test_with_uidonly_there_are_no_message_numbers(other: Client, login: Login) -> None:
    client = login()
    client.ask('ENABLE UIDONLY')
    client.ask('SELECT INBOX')
    for command in (
        'FETCH 1 (FLAGS)',
        'STORE 1 +FLAGS (\\Seen)',
        'SEARCH ALL',
        'COPY 1 INBOX',
        'MOVE 1 INBOX',
        'UID SEARCH 1:2',
    ):
        assert client.ask(command).startswith(b't BAD [UIDREQUIRED] '), command
    assert client.lines('UID FETCH 3 (FLAGS)')[0] == '* 3 UIDFETCH (UID 3 FLAGS ())'
    other.ask('STORE 1 +FLAGS (\\Deleted)')
    other.ask('EXPUNGE')
    assert client.lines('NOOP')[0] == '* VANISHED 1'
    assert client.lines('UID STORE 3 +FLAGS (\\Seen)')[0] == '* 3 UIDFETCH (UID 3 FLAGS (\\Seen))'
    assert b'UIDFETCH' not in other.ask('NOOP')


# -- NOTIFY


def test_notify_tells_of_other_mailboxes_by_status(other: Client, login: Login) -> None:
    other.ask('CREATE a')
    client = login()
    answer = client.lines('NOTIFY SET STATUS (PERSONAL (MessageNew MessageExpunge FlagChange))')
    assert re.fullmatch(
        r'\* STATUS "INBOX" \(MESSAGES 4 UIDNEXT 5 UIDVALIDITY \d+ HIGHESTMODSEQ \d+\)', answer[0]
    )
    assert answer[1].startswith('* STATUS "a" (MESSAGES 0 UIDNEXT 1 ')
    other.ask('COPY 1:2 a')
    assert client.take().startswith(b'* STATUS "a" (MESSAGES 2 UIDNEXT 3 ')
    other.ask('STORE 1 +FLAGS (\\Seen)')
    assert client.take().startswith(b'* STATUS "INBOX" (MESSAGES 4 ')
    other.ask('STORE 1 +FLAGS (\\Deleted)')
    other.ask('EXPUNGE')
    assert b'* STATUS "INBOX" (MESSAGES 3 ' in client.take()
    assert client.lines('NOTIFY NONE') == ['t OK Notify completed']
    other.ask('COPY 1 a')
    assert client.take() == b''
    assert not client.session.shard.boxes.subscribers


def test_notify_filters(other: Client, login: Login) -> None:
    for name in ('a', 'a/b', 'c', 'd', 'd/e'):
        other.ask(f'CREATE {name}')
    other.ask('SUBSCRIBE c')
    cases = [
        ('(INBOXES %s)', {'INBOX'}),
        ('(SUBTREE a %s)', {'a', 'a/b'}),
        ('(SUBTREE (a d) %s)', {'a', 'a/b', 'd', 'd/e'}),
        ('(MAILBOXES (a d/e) %s)', {'a', 'd/e'}),
        ('(SUBSCRIBED %s)', {'INBOX', 'c'}),
        ('(MAILBOXES a NONE) (PERSONAL %s)', {'INBOX', 'a/b', 'c', 'd', 'd/e'}),
    ]
    client = login()
    for text, names in cases:
        groups = text % '(MessageNew MessageExpunge)'
        answer = client.ask(f'NOTIFY SET STATUS {groups}').decode()
        assert set(re.findall(r'STATUS "([^"]+)"', answer)) == names, text
    client.ask('NOTIFY SET (SUBSCRIBED (MessageNew MessageExpunge))')
    other.ask('SUBSCRIBE d')
    other.ask('COPY 1 d')
    assert client.take().startswith(b'* STATUS "d" ')


def test_notify_of_the_selected_mailbox_comes_at_once(other: Client, login: Login) -> None:
    client = login()
    client.ask('SELECT INBOX')
    client.ask('NOTIFY SET (SELECTED (MessageNew MessageExpunge FlagChange))')
    other.append(message(5))
    assert client.take().startswith(b'* 5 EXISTS\r\n')
    other.ask('STORE 2 +FLAGS (\\Deleted)')
    assert client.take() == b'* 2 FETCH (UID 2 FLAGS (\\Deleted))\r\n'
    other.ask('EXPUNGE')
    assert client.take() == b'* 2 EXPUNGE\r\n'
    client.ask('NOTIFY SET (SELECTED-DELAYED (MessageNew MessageExpunge FlagChange))')
    other.ask('STORE 1 +FLAGS (\\Deleted)')
    client.take()
    other.ask('EXPUNGE')
    assert client.take() == b''
    assert client.lines('NOOP')[0] == '* 1 EXPUNGE'
    client.ask('NOTIFY NONE')
    other.ask('STORE 1 +FLAGS (\\Flagged)')
    other.append(message(6))
    assert client.lines('NOOP') == ['t OK Noop completed']
    # Its own expunge is told all the same
    client.ask('STORE 3 +FLAGS.SILENT (\\Deleted)')
    assert '* 3 EXPUNGE' in client.lines('EXPUNGE')


def test_notify_fetches_of_new_messages(other: Client, login: Login) -> None:
    client = login()
    client.ask('SELECT INBOX')
    client.ask(
        'NOTIFY SET (SELECTED (MessageNew (UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (SUBJECT)])'
        ' MessageExpunge))'
    )
    other.append(message(5))
    client.take(lambda: b'FETCH' in client.wire.output)
    other.append(message(6))
    answer = client.take(lambda: b'FETCH' in client.wire.output)
    assert answer.startswith(b'* 6 EXISTS\r\n')
    assert re.search(
        rb'\* 6 FETCH \(UID 6 RFC822.SIZE \d+ BODY\[HEADER.FIELDS \(SUBJECT\)\] \{\d+\}\r\n'
        rb'Subject: message 6\r\n\r\n\)\r\n',
        answer,
    )
    assert b'Seen' not in client.ask('FETCH 5:6 (FLAGS)')


def test_notify_of_names_subscriptions_and_metadata(other: Client, login: Login) -> None:
    client = login()
    client.ask(
        'NOTIFY SET (PERSONAL (MailboxName SubscriptionChange MailboxMetadataChange'
        ' ServerMetadataChange))'
    )
    other.ask('CREATE a (USE (\\Sent))')
    assert client.take() == b'* LIST (\\Sent) "/" "a"\r\n'
    other.ask('RENAME a b')
    assert client.take() == b'* LIST (\\Sent) "/" "b" ("OLDNAME" ("a"))\r\n'
    other.ask('SUBSCRIBE b')
    assert client.take() == b'* LIST (\\Subscribed) "/" "b"\r\n'
    other.ask('SETMETADATA b (/private/comment "x")')
    assert client.take() == b'* METADATA "b" /private/comment\r\n'
    other.ask('SETMETADATA "" (/private/comment "x")')
    assert client.take() == b'* METADATA "" /private/comment\r\n'
    other.ask('SETMETADATA INBOX (/private/devicetoken "x")')
    assert client.take() == b''  # told to nobody who does not ask for it
    other.ask('UNSUBSCRIBE b')
    assert client.take() == b'* LIST () "/" "b"\r\n'
    other.ask('DELETE b')
    assert client.take() == b'* LIST (\\NonExistent) "/" "b"\r\n'


def test_notify_refuses_what_it_does_not_know(login: Login) -> None:
    client = login()
    for arguments, answer in [
        ('', b't BAD '),
        ('SET', b't BAD '),
        ('SET (PERSONAL)', b't BAD '),
        ('SET (PERSONAL ())', b't BAD '),
        ('SET (EVERYWHERE (MessageNew))', b't BAD '),
        ('SET (PERSONAL (MessageNew (UID) MessageExpunge))', b't BAD '),
        ('SET (SELECTED (MailboxName))', b't BAD '),
        ('SET (SELECTED NONE) (SELECTED-DELAYED NONE)', b't BAD '),
        ('SET (PERSONAL (AnnotationChange))', b't NO [BADEVENT (MessageNew '),
        ('SET ' + '(PERSONAL NONE) ' * 40, b't NO [NOTIFICATIONOVERFLOW] '),
    ]:
        if answer.startswith(b't BAD'):
            client.ask('NOOP')
        assert client.ask(f'NOTIFY {arguments}'.strip()).startswith(answer), arguments


def test_a_client_that_does_not_read_gets_no_more_notifications(
    other: Client, login: Login
) -> None:
    client = login()
    client.ask('NOTIFY SET (PERSONAL (MailboxName))')
    client.wire.unsent = 1 << 20  # as if nothing had been taken for long
    other.ask('CREATE a')
    client.wire.unsent = 0
    assert b'* OK [NOTIFICATIONOVERFLOW] ' in client.send(b'x NOOP\r\n')
    other.ask('CREATE b')
    assert client.take() == b''
    assert not client.session.shard.boxes.subscribers


def test_extensions_survive_a_move_to_another_process(other: Client, login: Login) -> None:
    client = login()
    client.ask('ENABLE QRESYNC')
    client.ask('SELECT INBOX')
    client.ask(
        'NOTIFY SET (SELECTED (MessageNew (UID BODY.PEEK[HEADER]) MessageExpunge))'
        ' (PERSONAL (MailboxName))'
    )
    state = client.session.freeze()
    assert state is not None
    client.wire.attach(client.session)
    account = client.session.account
    shard = client.session.shard
    client.session = ImapSession.thaw(client.wire, shard, account, state)  # type: ignore[arg-type]
    client.wire.attach(client.session)
    client.take()
    other.ask('STORE 2 +FLAGS (\\Deleted)')
    other.ask('EXPUNGE')
    assert client.take().startswith(b'* VANISHED 2\r\n')
    other.ask('CREATE new')
    assert client.take() == b'* LIST () "/" "new"\r\n'
    other.append(message(7))
    assert b'BODY[HEADER]' in client.take(lambda: b'FETCH' in client.wire.output)


# -- INPROGRESS


def test_long_commands_show_progress(
    other: Client, login: Login, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = login()
    client.ask('SELECT INBOX')
    assert b'INPROGRESS' not in client.ask('STORE 1:* +FLAGS (\\Seen)')
    monkeypatch.setattr(session_module, 'PROGRESS', -1.0)
    answer = client.ask('STORE 1:* -FLAGS (\\Seen)')
    assert re.search(rb'\* OK \[INPROGRESS \("t\d+" 0 4\)\] ', answer)
