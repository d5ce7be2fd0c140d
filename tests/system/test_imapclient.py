"""IMAPClient, the library of many programs, through the extensions it knows."""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientError

from tests.system import mail
from tests.system.relay import Relay, client_tls, running


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One that takes mail in clear, so that subjects can be sorted."""
    with running(tmp_path_factory.mktemp('relay'), {'policy.require_encryption': False}) as relay:
        yield relay


def connected(relay: Relay, person: tuple[str, str]) -> IMAPClient:
    client = IMAPClient('127.0.0.1', relay.ports['imaps'], ssl_context=client_tls(), timeout=20)
    client.login(*person)
    return client


@pytest.fixture
def person(relay: Relay) -> tuple[str, str]:
    return relay.account('reader')


@pytest.fixture
def client(relay: Relay, person: tuple[str, str]) -> Iterator[IMAPClient]:
    client = connected(relay, person)
    yield client
    client.shutdown()


LETTERS = [  # Message-ID, In-Reply-To, subject, sender
    ('a@x', '', 'Tea', 'carol'),
    ('b@x', '', 'Apples', 'alice'),
    ('c@x', 'a@x', 'Re: Tea', 'bob'),
]


def letters(client: IMAPClient, person: tuple[str, str]) -> None:
    for number, (ident, parent, subject, sender) in enumerate(LETTERS):
        reply = f'In-Reply-To: <{parent}>\r\n' if parent else ''
        text = (
            f'From: <{sender}@other.example>\r\nTo: <{person[0]}>\r\nSubject: {subject}\r\n'
            f'Message-ID: <{ident}>\r\n{reply}Date: Fri, 0{number + 1} Jan 2026 03:04:05 +0000\r\n'
            f'\r\nText {subject} {"." * 100 * number}\r\n'
        )
        when = datetime(2026, 1, 5 - number, 12, tzinfo=UTC)
        answer = client.append('INBOX', text.encode(), flags=[b'\\Seen'], msg_time=when)
        assert b'APPENDUID' in answer


def test_folders(client: IMAPClient) -> None:
    assert client.folder_exists('INBOX')
    assert client.namespace().personal == (('', '/'),)
    client.create_folder('Entwürfe/Überall')
    client.subscribe_folder('Entwürfe/Überall')
    names = {name: flags for flags, _, name in client.list_folders()}
    assert {'INBOX', 'Entwürfe', 'Entwürfe/Überall'} <= set(names)
    assert b'\\HasChildren' in names['Entwürfe']
    assert [name for _, _, name in client.list_sub_folders('E%/%')] == ['Entwürfe/Überall']
    client.rename_folder('Entwürfe/Überall', 'Plan & "Ziel"')
    assert client.folder_exists('Plan & "Ziel"')
    client.delete_folder('Plan & "Ziel"')
    assert not client.folder_exists('Plan & "Ziel"')
    with pytest.raises(IMAPClientError):
        client.select_folder('Plan & "Ziel"')


def test_append_fetch_flags_and_expunge(client: IMAPClient, person: tuple[str, str]) -> None:
    letters(client, person)
    selected = client.select_folder('INBOX')
    assert selected[b'EXISTS'] == 3
    assert selected[b'UIDVALIDITY'] > 0
    uids = client.search('ALL')
    rows = client.fetch(uids, ['ENVELOPE', 'FLAGS', 'INTERNALDATE', 'RFC822.SIZE', 'BODYSTRUCTURE'])
    first = rows[uids[0]]
    assert first[b'ENVELOPE'].subject == b'Tea'
    assert first[b'ENVELOPE'].from_[0].mailbox == b'carol'
    assert b'\\Seen' in first[b'FLAGS']
    assert first[b'INTERNALDATE'].astimezone(UTC).day == 5
    assert first[b'BODYSTRUCTURE'][0] == b'text'
    body = client.fetch(uids[:1], ['BODY.PEEK[]', 'BODY.PEEK[HEADER.FIELDS (SUBJECT)]'])[uids[0]]
    assert len(body[b'BODY[]']) == first[b'RFC822.SIZE']
    assert body[b'BODY[HEADER.FIELDS (SUBJECT)]'] == b'Subject: Tea\r\n\r\n'
    client.add_flags(uids[0], [b'\\Flagged', b'$Important'])
    client.remove_flags(uids[0], [b'\\Seen'])
    flags = set(client.get_flags(uids[0])[uids[0]])
    assert flags - {b'\\Recent'} == {b'\\Flagged', b'$Important'}
    client.set_flags(uids[1], [b'\\Deleted'])
    client.uid_expunge([uids[1]])
    assert client.search('ALL') == [uids[0], uids[2]]
    client.create_folder('Kept')
    client.copy([uids[0]], 'Kept')
    client.move([uids[2]], 'Kept')
    assert client.search('ALL') == [uids[0]]
    assert client.folder_status('Kept', ['MESSAGES', 'UNSEEN', 'UIDNEXT'])[b'MESSAGES'] == 2
    client.unselect_folder()
    assert client.multiappend('Kept', [b'Subject: 1\r\n\r\n1\r\n', b'Subject: 2\r\n\r\n2\r\n'])
    assert client.folder_status('Kept', ['MESSAGES'])[b'MESSAGES'] == 4


def test_search_sort_and_thread(client: IMAPClient, person: tuple[str, str]) -> None:
    letters(client, person)
    client.select_folder('INBOX')
    tea, apples, answer = client.search('ALL')
    assert client.search(['SUBJECT', 'tea']) == [tea, answer]
    assert client.search(['OR', 'FROM', 'alice', 'LARGER', 300]) == [apples, answer]
    assert client.search(['NOT', ['SUBJECT', 'tea']]) == [apples]
    assert client.search(['SUBJECT', 'Tee für zwei'], 'UTF-8') == []
    assert client.sort('SUBJECT') == [apples, tea, answer]
    assert client.sort(['REVERSE DATE']) == [answer, apples, tea]
    assert client.sort('ARRIVAL') == [answer, apples, tea]
    assert client.sort(['REVERSE', 'SIZE']) == [answer, apples, tea]
    assert client.thread('REFERENCES') == ((tea, answer), (apples,))
    assert client.thread('ORDEREDSUBJECT') == ((tea, answer), (apples,))


def test_condstore(client: IMAPClient, person: tuple[str, str]) -> None:
    letters(client, person)
    client.enable('CONDSTORE')
    selected = client.select_folder('INBOX')
    uids = client.search('ALL')
    before = selected[b'HIGHESTMODSEQ']
    client.add_flags(uids[1], b'\\Flagged')
    changed = client.fetch(uids, ['FLAGS'], [f'CHANGEDSINCE {before}'])
    assert list(changed) == [uids[1]]
    assert changed[uids[1]][b'MODSEQ'][0] > before
    found = client.search(['MODSEQ', str(before + 1)])
    assert found == [uids[1]]
    assert found.modseq == changed[uids[1]][b'MODSEQ'][0]


def test_idle(relay: Relay, client: IMAPClient, person: tuple[str, str]) -> None:
    client.select_folder('INBOX')
    client.idle()
    with relay.smtp(*person) as smtp:
        smtp.sendmail(person[0], [person[0]], mail.encrypted(person[0]))
    told = client.idle_check(timeout=20)
    assert (1, b'EXISTS') in told
    client.idle_done()
    assert client.search('ALL') == [1]


def test_quota_and_identity(client: IMAPClient) -> None:
    roots, quotas = client.get_quota_root('INBOX')
    assert len(roots.quota_roots) == 1
    assert quotas[0].resource == 'STORAGE'
    assert 0 <= quotas[0].usage < quotas[0].limit
    with pytest.raises(IMAPClientError):
        client.set_quota(quotas)
    assert client.has_capability('ID')
    assert client.id_({'name': 'test'})


def test_compressed(client: IMAPClient, person: tuple[str, str]) -> None:
    """It has no COMPRESS of its own; a layer below it does as well."""
    letters(client, person)
    imap = client._imap
    tag = imap._new_tag()
    imap.send(tag + b' COMPRESS DEFLATE\r\n')
    assert imap.readline().startswith(tag + b' OK')
    deflate, inflate = zlib.compressobj(wbits=-15), zlib.decompressobj(wbits=-15)
    plain = bytearray()
    stream: ssl.SSLSocket = imap.sock

    def more() -> None:
        data = stream.recv(65536)
        assert data
        plain.extend(inflate.decompress(data))

    def read(size: int) -> bytes:
        while len(plain) < size:
            more()
        data = bytes(plain[:size])
        del plain[:size]
        return data

    def readline() -> bytes:
        while b'\n' not in plain:
            more()
        return read(plain.index(b'\n') + 1)

    def send(data: bytes) -> None:
        stream.sendall(deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))

    imap.read, imap.readline, imap.send = read, readline, send
    client.select_folder('INBOX')
    uids = client.search('ALL')
    rows = client.fetch(uids, ['BODY[]'])
    assert rows[uids[2]][b'BODY[]'].endswith(b'.' * 200 + b'\r\n')
    assert client.append('INBOX', rows[uids[0]][b'BODY[]'])
    assert len(client.search('ALL')) == 4
