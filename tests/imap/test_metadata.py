"""METADATA (RFC 5464): entries of server and mailboxes, options and limits; QUOTA's refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from madmail.imap.commands import metadata
from tests.imap.wire_double import Client, message

Login = Callable[..., Client]


def set_(client: Client, mailbox: str, entry: str, value: bytes) -> bytes:
    return client.ask(
        b'SETMETADATA %s (%s {%d+}\r\n%s)' % (mailbox.encode(), entry.encode(), len(value), value)
    )


def test_entries_of_a_mailbox_private_and_shared(login: Login) -> None:
    client = login()
    client.ask('CREATE box')
    assert client.ask(
        'SETMETADATA box (/private/comment "mine" /shared/comment "ours" /shared/vendor/x/y "z")'
    ) == (b't OK Setmetadata completed\r\n')
    answer = client.ask('GETMETADATA box (/private/comment /shared/comment /shared/nothing)')
    assert answer == (
        b'* METADATA "box" (/private/comment {4}\r\nmine /shared/comment {4}\r\nours)\r\n'
        b't OK Getmetadata completed\r\n'
    )
    # Case does not matter (RFC 5464 3.1), NIL removes, and the other mailbox has none of it.
    client.ask('SETMETADATA box (/PRIVATE/Comment NIL)')
    assert b'private' not in client.ask('GETMETADATA box (/private/comment)')
    assert client.ask('GETMETADATA INBOX /shared/comment') == b't OK Getmetadata completed\r\n'
    client.ask('RENAME box moved')
    assert b'{4}\r\nours)' in client.ask('GETMETADATA moved /shared/comment')
    client.ask('DELETE moved')
    client.ask('CREATE moved')
    assert b'ours' not in client.ask('GETMETADATA moved /shared/comment')
    assert client.ask('GETMETADATA nothing /shared/comment').startswith(b't NO [NONEXISTENT] ')
    assert client.ask('SETMETADATA nothing (/shared/a "")').startswith(b't NO [NONEXISTENT] ')


def test_depth_and_maxsize(login: Login) -> None:
    client = login()
    client.ask('SETMETADATA INBOX (/private/f "1" /private/f/a "22" /private/f/a/b "333")')

    def names(command: str) -> list[str]:
        return [
            word
            for line in client.lines(command)
            for word in line.replace('(', ' ').split()
            if word.startswith('/')
        ]

    assert names('GETMETADATA (DEPTH 0) INBOX (/private/f)') == ['/private/f']
    assert names('GETMETADATA (DEPTH 1) INBOX (/private/f)') == ['/private/f', '/private/f/a']
    every = ['/private/f', '/private/f/a', '/private/f/a/b']
    assert names('GETMETADATA (DEPTH infinity) INBOX (/private)') == every
    answer = client.ask('GETMETADATA (MAXSIZE 2 DEPTH infinity) INBOX (/private/f)')
    assert b'/private/f/a/b' not in answer
    assert answer.endswith(b't OK [METADATA LONGENTRIES 3] Getmetadata completed\r\n')
    answer = client.ask('GETMETADATA (MAXSIZE 3 DEPTH infinity) INBOX (/private/f)')
    assert answer.endswith(b't OK Getmetadata completed\r\n')
    for wrong in ('(DEPTH 2)', '(MAXSIZE x)', '(SIZE 3)'):
        assert client.ask(f'GETMETADATA {wrong} INBOX (/private/f)').startswith(b't BAD ')


def test_entries_of_the_server_are_the_operators(login: Login) -> None:
    client = login()
    for entry in ('/shared/comment', '/shared/admin', '/shared/vendor/x/y'):
        assert client.ask(f'SETMETADATA "" ({entry} "x")').startswith(b't NO [NOPERM] ')
    assert client.ask('SETMETADATA "" (/private/comment "own")').startswith(b't OK')
    assert b'{3}\r\nown)' in client.ask('GETMETADATA "" /private/comment')
    # Private is the account's.
    other = login('bob@chat.example')
    assert b'own' not in other.ask('GETMETADATA "" /private/comment')


@pytest.mark.parametrize(
    'entry', ['/other/x', 'private/x', '/private/', '/private//x', '/private/a*', '/private/a%']
)
def test_names_that_cannot_be(login: Login, entry: str) -> None:
    answer = login().ask(f'SETMETADATA INBOX ("{entry}" "x")')
    assert answer.startswith((b't BAD ', b't NO '))


def test_a_value_is_bounded_and_utf8(login: Login) -> None:
    client = login()
    assert set_(client, 'INBOX', '/private/a', 'Grüße "\\\r\n'.encode()).startswith(b't OK')
    assert 'Grüße "\\\r\n)'.encode() in client.ask('GETMETADATA INBOX /private/a')
    assert set_(client, 'INBOX', '/private/a', b'\xff').startswith(b't NO ')
    assert set_(client, 'INBOX', '/private/a', b'a\0').startswith(b't BAD ')
    # The framer's limit is for the command, so the longest value needs a command as long.
    client.session._framer._limit = 1 << 20
    long = b'x' * metadata.MAX_VALUE
    assert set_(client, 'INBOX', '/private/a', long).startswith(b't OK')
    answer = set_(client, 'INBOX', '/private/a', long + b'x')
    assert answer.startswith(b't NO [METADATA MAXSIZE 65536] ')
    assert b'{65536}' in client.ask('GETMETADATA INBOX /private/a')


def test_entries_of_one_mailbox_are_bounded(login: Login) -> None:
    client = login()
    for start in range(0, metadata.MAX_ENTRIES, 50):
        entries = ' '.join(f'/private/n{n} "x"' for n in range(start, start + 50))
        assert client.ask(f'SETMETADATA INBOX ({entries})').startswith(b't OK')
    assert client.ask('SETMETADATA INBOX (/private/more "x")').startswith(
        b't NO [METADATA TOOMANY] '
    )
    # A push token always finds room, what is there can change and go, and then there is room.
    assert client.ask('SETMETADATA INBOX (/private/devicetoken "t")').startswith(b't OK')
    assert client.ask('SETMETADATA INBOX (/private/n1 "y")').startswith(b't OK')
    assert client.ask('SETMETADATA INBOX (/private/n1 NIL /private/more "x")').startswith(b't OK')


def test_octets_and_entries_of_an_account_are_bounded(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, 'MAX_ACCOUNT_OCTETS', 1000)
    monkeypatch.setattr(metadata, 'MAX_ACCOUNT_ENTRIES', 5)
    client = login()
    client.ask('CREATE one')
    client.ask('CREATE two')
    assert set_(client, 'one', '/private/a', b'x' * 600).startswith(b't OK')
    assert set_(client, 'two', '/private/a', b'x' * 401).startswith(b't NO [METADATA TOOMANY] ')
    assert set_(client, 'two', '/private/a', b'x' * 400).startswith(b't OK')
    assert set_(client, 'one', '/private/a', b'x' * 600).startswith(b't OK')
    assert set_(client, 'one', '/private/a', b'x').startswith(b't OK')
    entries = ' '.join(f'/private/n{n} "x"' for n in range(3))
    assert client.ask(f'SETMETADATA one ({entries})').startswith(b't OK')
    assert set_(client, 'two', '/private/b', b'x').startswith(b't NO [METADATA TOOMANY] ')
    # Another account is not touched by that.
    assert set_(login('bob@chat.example'), 'INBOX', '/private/b', b'x').startswith(b't OK')
    client.ask('DELETE one')
    assert set_(client, 'two', '/private/b', b'x').startswith(b't OK')


def test_a_change_is_told_to_nobody(login: Login) -> None:
    client, other = login(), login()
    client.ask('SELECT INBOX')
    other.ask('SELECT INBOX')
    other.wire.feed(b'i IDLE\r\n')
    assert other.take().startswith(b'+')
    client.ask('SETMETADATA INBOX (/shared/comment "x")')
    assert client.ask('NOOP') == b't OK Noop completed\r\n'
    assert other.send(b'DONE\r\n') == b'i OK Idle completed\r\n'


def test_quota_is_read_and_never_set(login: Login) -> None:
    client = login()
    client.append(message(1, body=b'x' * 3000))
    answer = client.ask('GETQUOTAROOT INBOX')
    assert answer.startswith(b'* QUOTAROOT INBOX "User quota"\r\n* QUOTA "User quota" (STORAGE 4 ')
    assert client.ask('SETQUOTA "User quota" (STORAGE 1)').startswith(b't NO [NOPERM] ')
    assert client.ask('GETQUOTA "other"').startswith(b't NO [NONEXISTENT] ')
    words = client.ask('CAPABILITY').split()
    assert b'QUOTA' in words
    assert b'QUOTA=RES-STORAGE' in words
    assert b'QUOTASET' not in words


def test_the_iroh_relay_is_told_while_it_answers(login: Login) -> None:
    client = login()
    ask = 'GETMETADATA "" (/shared/vendor/deltachat/irohrelay)'
    assert client.ask(ask) == b't OK Getmetadata completed\r\n'
    told = client.session.shard.bus.arrived
    told('service', {'name': 'iroh', 'up': True})
    assert b'irohrelay {' in (answer := client.ask(ask))
    assert b'\r\nhttp://' in answer
    told('service', {'name': 'iroh/https', 'up': True})
    assert b'\r\nhttps://' in client.ask(ask)
    told('service', {'name': 'iroh', 'up': False})
    assert client.ask(ask) == b't OK Getmetadata completed\r\n'
