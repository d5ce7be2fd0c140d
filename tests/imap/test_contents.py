"""FETCH BINARY, object ids, save dates; and transfer encodings in slices."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from binascii import b2a_qp
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from madmail.message import transfer_encoding
from madmail.message.content import content
from madmail.message.structure import Structure
from madmail.message.transfer_encoding import LINE_LIMIT, Unknown, decode, decoder
from madmail.store.spool import MemoryBody
from tests.imap.wire_double import Client, ShardDouble, message

Login = Callable[..., Client]

HEAD = b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n'


def mixed(*parts: tuple[bytes, bytes]) -> bytes:
    """Each part is (encoding, body as it stands)."""
    return HEAD + b''.join(
        [b'--b\r\nContent-Transfer-Encoding: %s\r\n\r\n%s\r\n' % part for part in parts]
    ) + b'--b--\r\n'  # fmt: skip


# -- transfer encodings

cuts = st.lists(st.integers(1, 9), max_size=40)


def sliced(octets: bytes, encoding: bytes, sizes: list[int]) -> bytes:
    found = decoder(encoding)
    assert found is not None
    out, at = b'', 0
    for size in sizes:
        out += found.feed(octets[at : at + size])
        at += size
    return out + found.feed(octets[at:]) + found.finish()


@given(st.binary(max_size=200), cuts)
def test_base64_is_the_same_in_any_slices(octets: bytes, sizes: list[int]) -> None:
    lines = b''.join([b' %s \r\n' % octets[i : i + 8] for i in range(0, len(octets), 8)])
    assert sliced(lines, b'base64', sizes) == decode(lines, b'base64')
    text = b64encode(octets)
    wrapped = b'\r\n'.join([text[i : i + 7] for i in range(0, len(text), 7)])
    assert sliced(wrapped, b'BASE64', sizes) == octets


@given(st.text('ab=3D \t\r\n', max_size=120).map(str.encode), st.binary(max_size=100), cuts)
@example(b'a = \t\r\nb=\r\nc  \r\nd', b'', [1, 1, 1, 1])
def test_quoted_printable_is_the_same_in_any_slices(
    octets: bytes, data: bytes, sizes: list[int]
) -> None:
    assert sliced(octets, b'quoted-printable', sizes) == decode(octets, b'quoted-printable')
    assert sliced(b2a_qp(data, istext=False), b'quoted-printable', sizes) == data


def test_blanks_before_a_line_end_are_no_content() -> None:
    text = b'hello  \r\nbar=\r\n\r\nfoo\t \t= \r\n=62\r\nlast \t'
    assert decode(text, b'quoted-printable') == b'hello\r\nbar\r\nfoo\t \tb\r\nlast'


def test_an_endless_line_is_not_held() -> None:
    found = transfer_encoding.QuotedPrintable()
    out = b''
    for _ in range(40):
        out += found.feed(b'=41' * 4000)
        assert len(found._held) <= LINE_LIMIT
    assert out + found.finish() == b'A' * 160_000


def test_unknown_encodings_are_said() -> None:
    with pytest.raises(Unknown):
        decoder(b'x-uuencode')
    assert decoder(b'8Bit') is None


@given(st.binary(max_size=300), st.integers(0, 320), st.integers(1, 320))
@settings(max_examples=60)
def test_a_partial_is_a_slice_of_the_content(data: bytes, origin: int, length: int) -> None:
    octets = mixed((b'base64', b64encode(data)), (b'quoted-printable', b2a_qp(data, istext=False)))
    body = MemoryBody(octets)
    for number in (1, 2):
        found = content(Structure(body), body, (number,))
        assert found is not None
        assert b''.join(found.pieces()) == data
        assert b''.join(found.pieces((origin, length))) == data[origin : origin + length]
    assert content(Structure(body), body, (3,)) is None


# -- FETCH BINARY (RFC 3516)


@pytest.fixture
def box(login: Login) -> Client:
    client = login()
    inner = b'Subject: inner\r\n\r\nbody\r\n'
    octets = HEAD + (
        b'--b\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8g\r\n d29ybGQ=\r\n'
        b'--b\r\nContent-Transfer-Encoding: base64\r\n\r\n%s\r\n'
        b'--b\r\nContent-Type: message/rfc822\r\n\r\n%s\r\n'
        b'--b\r\nContent-Transfer-Encoding: x-odd\r\n\r\nodd\r\n'
        b'--b\r\n\r\nplain\r\n--b--\r\n' % (b64encode(b'\0\1\2'), inner)
    )
    assert b' OK ' in client.append(octets)
    client.ask('SELECT INBOX')
    return client


def test_parts_come_decoded(box: Client) -> None:
    answer = box.ask('FETCH 1 (BINARY.PEEK[1] BINARY.SIZE[1] BINARY.PEEK[5] BINARY.SIZE[5])')
    assert answer.startswith(
        b'* 1 FETCH (BINARY[1] {11}\r\nhello world BINARY.SIZE[1] 11'
        b' BINARY[5] {5}\r\nplain BINARY.SIZE[5] 5)\r\n'
    )
    # NUL fits into a literal8 only.
    assert b'BINARY[2] ~{3}\r\n\0\1\2)\r\n' in box.ask('FETCH 1 BINARY.PEEK[2]')
    assert b'BINARY[2]<1> {2}\r\n\1\2)\r\n' in box.ask('FETCH 1 BINARY.PEEK[2]<1.9>')
    assert b'BINARY[1]<6> {3}\r\nwor)' in box.ask('FETCH 1 BINARY.PEEK[1]<6.3>')
    assert b'BINARY[1]<99> {0}\r\n)' in box.ask('FETCH 1 BINARY.PEEK[1]<99.3>')
    assert b'BINARY[5]<1> {2}\r\nla)' in box.ask('FETCH 1 BINARY.PEEK[5]<1.2>')


def test_what_holds_parts_comes_as_it_is(box: Client) -> None:
    answer = box.ask('FETCH 1 (BINARY.PEEK[3] BINARY.PEEK[3.1])')
    assert (
        b'BINARY[3] {24}\r\nSubject: inner\r\n\r\nbody\r\n BINARY[3.1] {6}\r\nbody\r\n)' in answer
    )
    whole = box.ask('FETCH 1 (RFC822.SIZE BINARY.SIZE[])')
    size = re.search(rb'RFC822.SIZE (\d+)', whole)
    assert size
    assert b'BINARY.SIZE[] ' + size[1] + b')' in whole


def test_missing_parts_and_unknown_encodings(box: Client) -> None:
    answer = box.ask('FETCH 1 (BINARY.PEEK[9] BINARY.SIZE[9])')
    assert answer.startswith(b'* 1 FETCH (BINARY[9] NIL BINARY.SIZE[9] 0)\r\n')
    for item in ('BINARY.PEEK[4]', 'BINARY.SIZE[4]', '(UID BODY.PEEK[1] BINARY[4])'):
        assert re.fullmatch(rb't NO \[UNKNOWN-CTE\] .*\r\n', box.ask(f'FETCH 1 {item}'))
    assert box.ask('FETCH 1 BINARY[1.MIME]').startswith(b't BAD ')


def test_binary_without_peek_sets_seen(box: Client) -> None:
    box.ask('FETCH 1 BINARY.PEEK[1]')
    assert b'\\Seen' not in box.ask('FETCH 1 FLAGS')
    assert b'FLAGS (\\Seen' in box.ask('FETCH 1 BINARY[1]')


def test_a_large_part_is_decoded_in_pieces(login: Login) -> None:
    client = login()
    data = bytes(range(256)) * 8000  # 2 MB
    text = b64encode(data)
    lines = b''.join([text[i : i + 76] + b'\r\n' for i in range(0, len(text), 76)])
    client.append(mixed((b'base64', lines)))
    client.ask('SELECT INBOX')
    client.wire.most_held = 0
    answer = client.ask('FETCH 1 (BINARY.SIZE[1] BINARY.PEEK[1])')
    head = b'* 1 FETCH (BINARY.SIZE[1] %d BINARY[1] ~{%d}\r\n' % (len(data), len(data))
    assert answer.startswith(head)
    assert answer[len(head) :].startswith(data + b')\r\n')
    assert client.wire.most_held < 400_000
    answer = client.ask('FETCH 1 BINARY.PEEK[1]<1000000.100000>')
    assert data[1_000_000:1_100_000] + b')\r\n' in answer


# -- OBJECTID (RFC 8474)


def ids(client: Client, command: str, name: str) -> list[bytes]:
    return re.findall(rb'%s \(([A-Za-z0-9_-]+)\)' % name.encode(), client.ask(command))


def test_an_email_keeps_its_id_when_it_is_copied_or_moved(filled: Callable[[int], Client]) -> None:
    client = filled(2)
    client.ask('CREATE box')
    one, two = ids(client, 'FETCH 1:2 EMAILID', 'EMAILID')
    assert one != two
    client.ask('COPY 1 box')
    client.ask('MOVE 1 box')
    client.ask('SELECT box')
    assert ids(client, 'FETCH 1:* (EMAILID)', 'EMAILID') == [one, one]
    assert b'THREADID NIL' in client.ask('FETCH 1 THREADID')
    assert client.lines(f'SEARCH EMAILID {one.decode()}')[0] == '* SEARCH 1 2'
    assert client.lines(f'SEARCH EMAILID {two.decode()}')[0] == '* SEARCH'
    assert client.lines('SEARCH THREADID Tx')[0] == '* SEARCH'
    assert client.ask('SEARCH EMAILID "a b"').startswith(b't BAD ')


def test_ids_say_nothing_about_other_accounts(login: Login, shard: ShardDouble) -> None:
    ann, bob = login(), login('bob@chat.example')
    shard.store.deliver(
        MemoryBody(message(1)), ['ann@chat.example', 'bob@chat.example'], delivery_id=b'x' * 16
    )
    found, bodies = [], []
    for client in (ann, bob):
        client.ask('SELECT INBOX')
        found += ids(client, 'FETCH 1 EMAILID', 'EMAILID')
        inbox = shard.store.mailbox(client.session.account.id, 'INBOX')
        assert inbox is not None
        bodies += [row.body_id for row in shard.store.messages(inbox.id, 1, 1)]
    assert bodies[0] == bodies[1]
    assert found[0] != found[1]


def test_a_mailbox_keeps_its_id_when_it_is_renamed(login: Login) -> None:
    client = login()
    made = ids(client, 'CREATE one', 'MAILBOXID')
    assert len(made) == 1
    assert ids(client, 'SELECT one', 'MAILBOXID') == made
    assert ids(client, 'STATUS one (MAILBOXID)', 'MAILBOXID') == made
    client.ask('RENAME one two')
    assert ids(client, 'EXAMINE two', 'MAILBOXID') == made
    assert ids(client, 'CREATE one', 'MAILBOXID') != made
    client.ask('DELETE two')
    assert ids(client, 'CREATE two', 'MAILBOXID') != made
    assert b'OBJECTID' in client.ask('CAPABILITY')


# -- SAVEDATE (RFC 8514)


def test_the_save_date_is_when_a_message_came_into_its_mailbox(login: Login) -> None:
    client = login()
    client.append(message(1), options='"02-Mar-2020 10:00:00 +0000"')
    client.ask('SELECT INBOX')
    today = time.strftime('%d-%b-%Y', time.gmtime())
    answer = client.ask('FETCH 1 (INTERNALDATE SAVEDATE)').decode()
    assert 'INTERNALDATE "02-Mar-2020' in answer
    assert f'SAVEDATE "{today}' in answer
    assert client.lines(f'SEARCH SAVEDON {today}')[0] == '* SEARCH 1'
    assert client.lines(f'SEARCH SAVEDSINCE {today}')[0] == '* SEARCH 1'
    assert client.lines('SEARCH SAVEDBEFORE 1-Jan-2021')[0] == '* SEARCH'
    assert client.lines('SEARCH BEFORE 1-Jan-2021 SAVEDATESUPPORTED')[0] == '* SEARCH 1'


# -- QUOTA (RFC 9208)


def test_status_tells_what_expunge_would_free(filled: Callable[[int], Client]) -> None:
    client = filled(3)
    size = len(message(1))
    client.ask('STORE 1,3 +FLAGS.SILENT (\\Deleted)')
    answer = client.ask('STATUS INBOX (DELETED DELETED-STORAGE SIZE)')
    assert b'(DELETED 2 DELETED-STORAGE %d SIZE %d)' % (2 * size, 3 * size) in answer


def test_nothing_of_these_is_told_unasked(filled: Callable[[int], Client]) -> None:
    client = filled(1)
    answer = client.ask('FETCH 1 (FLAGS UID RFC822.SIZE BODY.PEEK[])')
    for word in (b'EMAILID', b'SAVEDATE', b'THREADID', b'BINARY', b'~{'):
        assert word not in answer
