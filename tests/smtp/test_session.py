"""Transactions after the hand-over, typed at a session without sockets."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madmail.store.interface import Account, StoreFull
from tests.delivery.double import MemoryStore
from tests.smtp.double import ALICE, BOB, DOMAIN, MESSAGE, Client, TestingShard

ACCOUNT = Account(1, ALICE, '', 0, 0, -1)
BEGIN = f'MAIL FROM:<{ALICE}>\r\nRCPT TO:<{BOB}>\r\n'


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(ALICE, BOB)


@pytest.fixture
def shard(tmp_path: Path, store: MemoryStore) -> Iterator[TestingShard]:
    shard = TestingShard(tmp_path, store)
    yield shard
    assert not list(tmp_path.glob('spool/*')), 'a spool file was left behind'


def client(shard: TestingShard, **settings: object) -> Client:
    for name, value in settings.items():
        shard.settings.replace(name.replace('__', '.'), value)
    return Client(shard)


# -- the dialogue


def test_says_that_the_login_succeeded_first(shard: TestingShard) -> None:
    assert Client(shard).said == '235 2.7.0 Authentication successful\n'


def test_says_nothing_at_first_on_port_25(shard: TestingShard) -> None:
    assert Client(shard, '').said == ''


def test_ehlo_lists_extensions_and_no_login(shard: TestingShard) -> None:
    lines = Client(shard).send('EHLO [127.0.0.1]\r\n').splitlines()
    assert lines[0] == f'250-{DOMAIN}'
    assert {line[4:] for line in lines[1:]} == {
        'PIPELINING',
        'SIZE 31457280',
        '8BITMIME',
        'SMTPUTF8',
        'ENHANCEDSTATUSCODES',
        'CHUNKING',
    }
    assert all(line[3] == '-' for line in lines[:-1])
    assert lines[-1][3] == ' '


def test_small_verbs(shard: TestingShard) -> None:
    assert Client(shard).codes(
        'NOOP\r\nnoop with words\r\nVRFY bob\r\nHELP\r\nRSET\r\nSTARTTLS\r\nAUTH PLAIN AAAA\r\n'
        'BURP\r\nHELO x\r\nQUIT\r\n'
    ) == [250, 250, 252, 214, 250, 503, 503, 500, 250, 221]


def test_quit_closes(shard: TestingShard) -> None:
    peer = Client(shard)
    assert peer.send('QUIT\r\nNOOP\r\n') == '221 2.0.0 Bye\n'
    assert peer.wire.closing


def test_wrong_order_is_503(shard: TestingShard) -> None:
    assert Client(shard).codes(f'RCPT TO:<{BOB}>\r\nDATA\r\n{BEGIN}MAIL FROM:<{ALICE}>\r\n') == [
        503,
        503,
        250,
        250,
        503,
    ]


def test_data_without_recipients(shard: TestingShard) -> None:
    assert Client(shard).codes(f'MAIL FROM:<{ALICE}>\r\nDATA\r\n') == [250, 554]


@pytest.mark.parametrize('verb', ['RSET', 'EHLO x', 'HELO x'])
def test_a_transaction_is_forgotten(shard: TestingShard, verb: str) -> None:
    assert Client(shard).codes(f'{BEGIN}{verb}\r\nDATA\r\n')[-1] == 503


def test_twenty_errors_close_with_421(shard: TestingShard) -> None:
    peer = Client(shard)
    assert peer.codes('WHAT\r\n' * 40) == [500] * 20 + [421]
    assert peer.wire.closing


@pytest.mark.parametrize('line', [b'NOOP\nQUIT\r\n', b'NO\rOP\r\n', b'\n', b'NOOP\r\r\n'])
def test_bare_line_end_in_a_command_closes(shard: TestingShard, line: bytes) -> None:
    peer = Client(shard)
    assert peer.send(line).startswith('500 5.5.2 ')
    assert peer.wire.closing


def test_endless_line_closes(shard: TestingShard) -> None:
    peer = Client(shard)
    assert peer.send(b'A' * 4096).startswith('500 5.5.2 ')
    assert peer.wire.closing


def test_http_closes_at_once(shard: TestingShard) -> None:
    peer = Client(shard, '')
    body = 'EHLO x\r\nMAIL FROM:<a@b>\r\n'
    assert peer.codes(f'POST / HTTP/1.1\r\nHost: x\r\n\r\n{body}') == [500]
    assert peer.wire.closing


def test_idle_session_ends_by_the_clock(shard: TestingShard) -> None:
    peer = Client(shard)
    peer.session.tick(time.monotonic() + 299)
    assert not peer.wire.closing
    peer.session.tick(time.monotonic() + 301)
    assert peer.said.endswith('421 4.4.2 Idle too long\n')
    assert peer.wire.closing


def test_retirement_says_421(shard: TestingShard) -> None:
    peer = Client(shard)
    peer.session.retire()
    assert '421 4.3.2' in peer.said
    assert peer.wire.closing


def test_a_flood_of_commands_is_drained_in_turns(
    shard: TestingShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('madmail.smtp.session.share', lambda: 0.0)  # each command takes longer
    peer = Client(shard)
    peer.send('NOOP\r\n' * 1000)
    assert peer.wire.drains >= 500


# -- submission


def test_a_message_arrives(shard: TestingShard, store: MemoryStore) -> None:
    assert Client(shard).mail(BOB) == '250 2.0.0 Ok: queued'
    [text] = store.boxes[BOB]
    assert text.endswith(b'\r\n\r\nhello\r\n')


def test_one_connection_serves_many_transactions(shard: TestingShard, store: MemoryStore) -> None:
    peer = Client(shard)
    for _ in range(5):
        assert peer.mail(BOB).startswith('250')
    assert len(store.boxes[BOB]) == 5


def test_pipelined_replies_go_out_in_one_write(shard: TestingShard) -> None:
    peer = Client(shard)
    peer.send(f'{BEGIN}DATA\r\n', MESSAGE + b'.\r\n')
    assert [sent.count(b'\r\n') for sent in peer.wire.sent] == [3, 1]


def test_next_commands_may_follow_the_final_dot(shard: TestingShard) -> None:
    begin = BEGIN.encode()
    assert Client(shard).codes(
        begin + b'DATA\r\n' + MESSAGE + b'.\r\n' + begin + b'DATA\r\n', MESSAGE + b'.\r\nQUIT\r\n'
    ) == [250, 250, 354, 250, 250, 250, 354, 250, 221]


def test_data_may_come_one_octet_at_a_time(shard: TestingShard, store: MemoryStore) -> None:
    octets = MESSAGE + b'..dot\r\n.\r\n'
    last = Client(shard).send(f'{BEGIN}DATA\r\n', *(octets[i : i + 1] for i in range(len(octets))))
    assert last.endswith('250 2.0.0 Ok: queued\n')
    assert store.boxes[BOB][0].endswith(b'hello\r\n.dot\r\n')


def one_octet_at_a_time(peer: Client, octets: bytes) -> str:
    wire, said = peer.wire, ''
    wire.script.extend(octets[i : i + 1] for i in range(len(octets)))
    while wire.script and not wire.closing:
        wire.input += wire.script.pop(0)
        said += peer.run()
    return said


def test_a_session_is_the_same_one_octet_at_a_time(shard: TestingShard) -> None:
    begin = BEGIN.encode()
    octets = (
        b'EHLO x\r\nNOOP\r\nWHAT\r\n' + begin + b'DATA\r\n' + MESSAGE + b'..\r\n.\r\n'
        b'RCPT TO:<x@y>\r\n'
        + begin
        + b'BDAT %d LAST\r\n' % len(MESSAGE)
        + MESSAGE
        + begin
        + b'DATA\r\nbad\nend\r\n.\r\nRSET\r\nQUIT\r\n'
    )
    at_once = Client(shard).send(octets)
    assert at_once.endswith('221 2.0.0 Bye\n')
    assert one_octet_at_a_time(Client(shard), octets) == at_once


words = st.sampled_from(
    [
        b'EHLO x',
        b'HELO y',
        f'MAIL FROM:<{ALICE}>'.encode(),
        f'RCPT TO:<{BOB}>'.encode(),
        b'RCPT TO:<@>',
        b'DATA',
        b'RSET',
        b'.',
        b'a: b',
        b'',
        b'NOOP',
        b'BDAT 7',
        b'BDAT 0 LAST',
        b'BDAT x',
        b'QUIT',
        b'WHAT',
        b'\xff',
        b'x\ny',
        b'GET / HTTP/1.1',
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(words, max_size=25).map(lambda lines: b''.join(line + b'\r\n' for line in lines)))
def test_no_dialogue_depends_on_how_it_arrives(octets: bytes) -> None:
    shard = TestingShard(Path('/nonexistent'), MemoryStore(ALICE, BOB))
    assert one_octet_at_a_time(Client(shard), octets) == Client(shard).send(octets)


def test_checklist_12_end_of_stream_in_data_stores_nothing(
    shard: TestingShard, store: MemoryStore
) -> None:
    peer = Client(shard)
    assert peer.codes(f'{BEGIN}DATA\r\n', MESSAGE) == [250, 250, 354]
    assert peer.wire.closing
    assert store.boxes[BOB] == []


def test_quit_that_lands_in_data_stores_nothing(shard: TestingShard, store: MemoryStore) -> None:
    """The client pipelines DATA, sees a refused RCPT and says QUIT into the data."""
    peer = Client(shard)
    codes = peer.codes(f'{BEGIN}RCPT TO:<@>\r\nDATA\r\n', b'QUIT\r\n')
    assert codes == [250, 250, 501, 354]
    assert peer.wire.closing
    assert store.boxes[BOB] == []


def test_pipelined_data_without_recipients_takes_no_data(shard: TestingShard) -> None:
    """QUIT is a command again, because 354 was never said."""
    assert Client(shard).codes(f'MAIL FROM:<{ALICE}>\r\nRCPT TO:<@>\r\nDATA\r\nQUIT\r\n') == [
        250,
        501,
        554,
        221,
    ]


def test_silence_in_data_is_421(shard: TestingShard, store: MemoryStore) -> None:
    peer = Client(shard)
    peer.wire.silent = True
    assert peer.send(f'{BEGIN}DATA\r\n', MESSAGE).endswith('421 4.4.2 Timeout while reading data\n')
    assert peer.wire.closing
    assert store.boxes[BOB] == []


@pytest.mark.parametrize('end', [b'\n.\n', b'\n.\r\n', b'\r.\r', b'\r\n.\n', b'\r\n.\r'])
def test_checklist_28_smuggled_end_of_data_is_refused(
    shard: TestingShard, store: MemoryStore, end: bytes
) -> None:
    second = b'MAIL FROM:<evil@relay.example>\r\nRCPT TO:<bob@relay.example>\r\nDATA\r\nevil'
    peer = Client(shard)
    last = peer.send(f'{BEGIN}DATA\r\n', MESSAGE + b'x' + end + second + b'\r\n.\r\nNOOP\r\n')
    assert last.splitlines()[-2:] == ['554 5.6.0 Malformed data', '250 2.0.0 Ok']
    assert store.boxes[BOB] == []


def test_checklist_13_too_much_mail_is_450_at_rcpt(shard: TestingShard) -> None:
    peer = client(shard, limits__send_per_minute=60, limits__send_burst=2)
    assert peer.mail(BOB).startswith('250')
    assert peer.mail(BOB, ALICE).startswith('250'), 'recipients do not count'
    said = peer.send(f'{BEGIN}DATA\r\n').splitlines()
    assert said[0].startswith('250')
    assert said[1] == f'450 4.7.1: Too much mail from {ALICE}'
    assert said[2].startswith('554')


def test_rate_is_shared_by_the_connections_of_an_account(shard: TestingShard) -> None:
    first = client(shard, limits__send_per_minute=60, limits__send_burst=1)
    assert first.mail(BOB).startswith('250')
    assert Client(shard).codes(BEGIN) == [250, 450]
    assert Client(shard, BOB).codes(f'MAIL FROM:<{BOB}>\r\nRCPT TO:<{BOB}>\r\n') == [250, 250]


@pytest.mark.parametrize('sender', [BOB, '', 'alice@elsewhere.example', f'alice+tag@{DOMAIN}'])
def test_checklist_13_foreign_sender_is_553_at_rcpt(shard: TestingShard, sender: str) -> None:
    said = Client(shard).send(f'MAIL FROM:<{sender}>\r\nRCPT TO:<{BOB}>\r\n').splitlines()
    assert said[0].startswith('250')
    assert said[1].startswith('553 5.7.1 ')


def test_sender_may_be_spelled_in_capitals(shard: TestingShard) -> None:
    assert Client(shard).mail(BOB, sender=f'Alice@{DOMAIN.upper()}').startswith('250')


def test_checklist_11_no_local_recipient_is_refused(
    shard: TestingShard, store: MemoryStore
) -> None:
    store.full.add(BOB)
    names = [
        BOB,
        f'nobody-here@{DOMAIN}',
        f'postmaster@{DOMAIN}',
        f'"a b"@{DOMAIN}',
        f'a!b@{DOMAIN}',
    ]
    assert Client(shard).mail(ALICE, *names).startswith('250')
    own, bounce = sorted(store.boxes[ALICE], key=lambda text: b'multipart/report' in text)
    assert own.endswith(b'hello\r\n')
    for name in names:
        assert name.encode() in bounce


def test_tag_is_removed_and_copies_are_one(shard: TestingShard, store: MemoryStore) -> None:
    assert Client(shard).mail(BOB, f'bob+news@{DOMAIN}', f'BOB@{DOMAIN}').startswith('250')
    assert len(store.boxes[BOB]) == 1


def test_remote_recipients_are_queued_by_domain(shard: TestingShard, store: MemoryStore) -> None:
    assert Client(shard).mail(BOB, 'x@a.example', 'y@A.example', 'z@b.example').startswith('250')
    assert {(e.domain, e.recipients, e.sender) for e in store.outbox} == {
        ('a.example', ('x@a.example', 'y@a.example'), ALICE),
        ('b.example', ('z@b.example',), ALICE),
    }
    assert store.transactions == 1, 'delivery and queue are one transaction'


def test_too_many_recipients_is_452(shard: TestingShard) -> None:
    peer = client(shard, limits__max_recipients=2)
    rcpt = ''.join(f'RCPT TO:<n{i}@x.example>\r\n' for i in range(3))
    assert peer.codes(f'MAIL FROM:<{ALICE}>\r\n{rcpt}') == [250, 250, 250, 452]


def test_announced_size_is_refused_at_mail(shard: TestingShard) -> None:
    peer = client(shard, limits__max_message_size=100000)
    said = peer.send(f'MAIL FROM:<{ALICE}> SIZE=100001\r\nMAIL FROM:<{ALICE}> SIZE=100000\r\n')
    assert [line[:9] for line in said.splitlines()] == ['552 5.3.4', '250 2.1.0']


def test_size_is_counted_while_reading(shard: TestingShard, store: MemoryStore) -> None:
    peer = client(shard, limits__max_message_size=100000)
    line = b'x' * 70 + b'\r\n'
    last = peer.send(f'{BEGIN}DATA\r\n', MESSAGE, *[line * 500] * 5, b'.\r\nNOOP\r\n')
    assert last.splitlines()[-2][:9] == '552 5.3.4'
    assert last.splitlines()[-1][:3] == '250'
    assert store.boxes[BOB] == []


def test_endless_data_is_cut_off(shard: TestingShard) -> None:
    peer = client(shard, limits__max_message_size=100000)
    line = (b'x' * 70 + b'\r\n') * 900
    last = peer.send(f'{BEGIN}DATA\r\n', MESSAGE, *[line] * 100)
    assert last.splitlines()[-1][:9] == '552 5.3.4'
    assert peer.wire.closing
    assert len(peer.wire.script) > 50


def test_full_disk_is_451_and_the_session_goes_on(shard: TestingShard, store: MemoryStore) -> None:
    store.disk_full = True
    peer = Client(shard)
    assert peer.mail(BOB).startswith('451 4.3.0 ')
    store.disk_full = False
    assert peer.mail(BOB).startswith('250')
    assert len(store.boxes[BOB]) == 1


def test_full_disk_while_spooling_is_451(
    shard: TestingShard, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreFull

    monkeypatch.setattr('madmail.store.spool.Spool.append', refuse)
    peer = Client(shard)
    assert peer.mail(BOB).startswith('451 4.3.0 ')
    assert peer.codes('NOOP\r\n') == [250]


def test_breakage_is_451_and_loses_nothing(
    shard: TestingShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(shard.router, 'submit', break_down)
    assert Client(shard).mail(BOB).startswith('451 4.3.0 ')


def test_large_message_goes_through_a_file(shard: TestingShard, store: MemoryStore) -> None:
    line = b'x' * 70 + b'\r\n'
    body = MESSAGE + line * 5000
    pieces = [body[i : i + 60000] for i in range(0, len(body), 60000)]
    last = Client(shard).send(f'{BEGIN}DATA\r\n', *pieces, b'.\r\n')
    assert last.endswith('250 2.0.0 Ok: queued\n')
    assert store.boxes[BOB][0].endswith(line * 5000)


# -- the encryption gate, as it is heard in SMTP


def test_checklist_14_plaintext_is_523(shard: TestingShard, store: MemoryStore) -> None:
    last = client(shard, policy__require_encryption=True).mail(BOB)
    assert last.startswith('523 ')
    assert 'Encryption Needed: Invalid Unencrypted Mail' in last
    assert store.boxes[BOB] == []


def test_forged_header_from_is_refused_with_500(shard: TestingShard) -> None:
    forged = MESSAGE.replace(f'From: <{ALICE}>'.encode(), f'From: <{BOB}>'.encode())
    last = Client(shard).mail(BOB, data=forged)
    assert last[0] == '5'
    assert '500' in last


def request(to: str = BOB) -> bytes:
    return (
        f'From: <{ALICE}>\r\nTo: <{to}>\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n'
        'Message-ID: <two@localhost>\r\nMIME-Version: 1.0\r\nSubject: [...]\r\n'
        'Chat-Version: 1.0\r\nSecure-Join: vc-request\r\n'
        'Secure-Join-Invitenumber: abcdefghijk\r\n'
        'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
        '--b\r\nContent-Type: text/plain; charset="utf-8"\r\n'
        'Content-Transfer-Encoding: 7bit\r\n\r\nSecure-Join: vc-request\r\n\r\n--b--\r\n'
    ).encode()


def test_securejoin_request_passes_until_its_own_rate(shard: TestingShard) -> None:
    peer = client(shard, policy__require_encryption=True, limits__securejoin_per_hour=2)
    for _ in range(2):
        assert peer.mail(BOB, data=request()).startswith('250')
    assert peer.mail(BOB, data=request()).startswith('450 4.7.1 ')


def test_securejoin_request_goes_to_one_contact(shard: TestingShard) -> None:
    peer = client(shard, policy__require_encryption=True)
    relays = [f'bob@r{i}.example' for i in range(5)]
    assert peer.mail(ALICE, *relays, data=request()).startswith('250')
    assert peer.mail(BOB, *relays, data=request()).startswith('523 ')


# -- BDAT


def test_bdat_in_chunks(shard: TestingShard, store: MemoryStore) -> None:
    head, tail = MESSAGE[:100], MESSAGE[100:]
    said = Client(shard).send(
        BEGIN.encode()
        + b'BDAT 100\r\n'
        + head
        + b'BDAT %d LAST\r\n' % len(tail)
        + tail
        + b'QUIT\r\n'
    )
    assert [line[:3] for line in said.splitlines()] == ['250', '250', '250', '250', '221']
    assert store.boxes[BOB][0].endswith(b'hello\r\n')


def test_bdat_takes_dots_as_they_are(shard: TestingShard, store: MemoryStore) -> None:
    body = MESSAGE + b'..\r\n.\r\n.x\r\n'
    Client(shard).send(BEGIN.encode() + b'BDAT %d LAST\r\n' % len(body), body)
    assert store.boxes[BOB][0].endswith(b'hello\r\n..\r\n.\r\n.x\r\n')


def test_chunk_of_a_refused_transaction_is_not_read_as_commands(shard: TestingShard) -> None:
    chunk = b'NOOP\r\nNOOP\r\n'
    assert Client(shard).codes(b'BDAT %d LAST\r\n' % len(chunk) + chunk + b'QUIT\r\n') == [503, 221]


def test_data_cannot_follow_bdat(shard: TestingShard) -> None:
    peer = Client(shard)
    assert peer.codes(BEGIN.encode() + b'BDAT 4\r\na: bDATA\r\n') == [250, 250, 250, 503]
    assert peer.codes('RSET\r\nDATA\r\n') == [250, 503]


def test_bdat_that_is_too_big_is_swallowed(shard: TestingShard, store: MemoryStore) -> None:
    peer = client(shard, limits__max_message_size=100000)
    said = peer.codes(BEGIN.encode() + b'BDAT 100001\r\n', b'x' * 100001 + b'NOOP\r\n')
    assert said == [250, 250, 552, 250]
    assert store.boxes[BOB] == []


def test_unbelievable_bdat_closes(shard: TestingShard) -> None:
    peer = Client(shard)
    assert peer.codes(BEGIN.encode() + b'BDAT 99999999999\r\n') == [250, 250, 552]
    assert peer.wire.closing


def test_malformed_bdat_closes(shard: TestingShard) -> None:
    peer = Client(shard)
    assert peer.codes(BEGIN.encode() + b'BDAT x\r\nNOOP\r\n') == [250, 250, 501]
    assert peer.wire.closing


def test_end_of_stream_in_bdat_stores_nothing(shard: TestingShard, store: MemoryStore) -> None:
    peer = Client(shard)
    peer.send(BEGIN.encode() + b'BDAT %d LAST\r\n' % (len(MESSAGE) + 1) + MESSAGE)
    assert peer.wire.closing
    assert store.boxes[BOB] == []


def test_bare_line_feed_in_bdat_is_refused(shard: TestingShard, store: MemoryStore) -> None:
    body = MESSAGE + b'x\ny\r\n'
    codes = Client(shard).codes(BEGIN.encode() + b'BDAT %d LAST\r\n' % len(body) + body)
    assert codes[-1] == 554
    assert store.boxes[BOB] == []


# -- port 25


def inbound(shard: TestingShard, *recipients: str, sender: str = 'x@y.example') -> str:
    data = MESSAGE.replace(ALICE.encode(), b'x@y.example')
    return Client(shard, '').mail(*recipients, sender=sender, data=data)


def test_inbound_message_arrives(shard: TestingShard, store: MemoryStore) -> None:
    assert inbound(shard, BOB) == '250 2.0.0 Ok: queued'
    assert len(store.boxes[BOB]) == 1


def test_inbound_null_reverse_path_is_a_sender(shard: TestingShard) -> None:
    assert Client(shard, '').codes(f'MAIL FROM:<>\r\nRCPT TO:<{BOB}>\r\nDATA\r\n') == [
        250,
        250,
        354,
    ]


def test_port_25_does_not_relay(shard: TestingShard) -> None:
    said = Client(shard, '').send('MAIL FROM:<x@y.example>\r\nRCPT TO:<z@y.example>\r\n')
    assert said.splitlines()[1] == '554 5.7.1 Relay access denied'


def test_port_25_has_no_auth(shard: TestingShard) -> None:
    assert Client(shard, '').codes('AUTH PLAIN AAAA\r\n') == [503]


def test_a_server_that_comes_again_delivers_once(shard: TestingShard, store: MemoryStore) -> None:
    data = MESSAGE.replace(ALICE.encode(), b'x@y.example')
    begin = f'MAIL FROM:<x@y.example>\r\nRCPT TO:<{BOB}>\r\nDATA\r\n'
    transcripts = {Client(shard, '').send(begin, data + b'.\r\n') for _ in range(2)}
    assert len(transcripts) == 1
    assert len(store.boxes[BOB]) == 1
    Client(shard, '').send(begin, data.replace(b'hello', b'hallo') + b'.\r\n')
    assert len(store.boxes[BOB]) == 2


def test_nobody_learns_which_names_exist(shard: TestingShard, store: MemoryStore) -> None:
    names = [BOB, f'nobody-here@{DOMAIN}', f'abuse@{DOMAIN}', f'mailer-daemon@{DOMAIN}']
    names += [f'"quoted name"@{DOMAIN}', f'bob+tag@{DOMAIN}', 'postmaster']
    transcripts = set()
    for number, name in enumerate(names):
        peer = Client(shard, '')
        data = MESSAGE.replace(ALICE.encode(), b'x@y.example')
        data = data.replace(b'<one@', b'<%d@' % number)
        begin = f'MAIL FROM:<x@y.example>\r\nRCPT TO:<{name}>\r\nDATA\r\n'
        transcripts.add(peer.send(begin, data + b'.\r\n'))
    assert len(transcripts) == 1
    assert len(store.boxes[BOB]) == 2
    assert store.outbox == []


def test_inbound_full_mailbox_is_452_only_when_nobody_was_served(
    shard: TestingShard, store: MemoryStore
) -> None:
    store.full.add(BOB)
    assert inbound(shard, BOB).startswith('452 4.2.2 ')
    assert inbound(shard, BOB, ALICE).startswith('250')
    assert len(store.boxes[ALICE]) == 1


def test_inbound_failure_never_makes_mail(shard: TestingShard, store: MemoryStore) -> None:
    inbound(shard, f'nobody-here@{DOMAIN}', sender=ALICE)
    assert store.boxes[ALICE] == []
    assert store.outbox == []


def test_tls_may_be_demanded_on_port_25(shard: TestingShard) -> None:
    shard.settings.replace('policy.inbound_require_tls', True)
    mail = 'MAIL FROM:<x@y.example>\r\n'
    plain = Client(shard, '', tls=False).send(mail)
    assert plain == '530 5.7.0 Must issue a STARTTLS command first\n'
    assert Client(shard, '').codes(mail) == [250]


# -- a life in two processes


def test_a_frozen_session_goes_on_elsewhere(shard: TestingShard, store: MemoryStore) -> None:
    peer = Client(shard)
    peer.send(f'{BEGIN}RCPT TO:<{ALICE}>\r\nWHAT\r\n')
    state = peer.session.freeze()
    assert state is not None
    assert state['protocol'] == 'smtp'
    heir = Client(shard)
    heir.session = heir.session.thaw(heir.wire, shard, ACCOUNT, state)  # type: ignore[arg-type]
    assert heir.codes('DATA\r\n', MESSAGE + b'.\r\n') == [354, 250]
    assert len(store.boxes[BOB]) == len(store.boxes[ALICE]) == 1


def test_a_frozen_refusal_stays_one(shard: TestingShard) -> None:
    peer = Client(shard)
    peer.send(f'MAIL FROM:<{BOB}>\r\n')
    state = msgpack.unpackb(msgpack.packb(peer.session.freeze()), strict_map_key=False)
    heir = Client(shard)
    heir.session = heir.session.thaw(heir.wire, shard, ACCOUNT, state)  # type: ignore[arg-type]
    assert heir.codes(f'RCPT TO:<{BOB}>\r\n') == [553]


def test_half_a_message_cannot_move(shard: TestingShard) -> None:
    peer = Client(shard)
    peer.send(BEGIN.encode() + b'BDAT 4\r\na: b')
    assert peer.session.freeze() is None
    peer.session.retire()


def _account(address: str):
    from madmail.store.interface import Account

    return Account(1, address, '', 0, 0, -1)


# -- an account's own limit of size


def test_an_account_with_a_limit_of_its_own_is_held_to_it(
    shard: TestingShard, store: MemoryStore
) -> None:
    one = client(shard)
    store.account = ACCOUNT._replace(message_size=5000)  # set while the session lives
    assert '250-SIZE 5000\n' in one.send('EHLO [127.0.0.1]\r\n')
    assert one.codes(f'MAIL FROM:<{ALICE}> SIZE=5001\r\n') == [552]
    assert one.codes(f'MAIL FROM:<{ALICE}> SIZE=5000\r\nRSET\r\n') == [250, 250]
    large = MESSAGE + b'x' * 70 + b'\r\n'
    large += (b'x' * 70 + b'\r\n') * (5000 // 72)
    assert one.mail(BOB, data=large).startswith('552 5.3.4')
    assert one.codes(f'{BEGIN}BDAT 5001 LAST\r\n', b'x' * 5001)[-1] == 552
    assert store.boxes[BOB] == []
    store.account = ACCOUNT
    assert '250-SIZE 31457280\n' in one.send('EHLO [127.0.0.1]\r\n')


def test_an_account_cannot_have_more_than_the_relay_takes(
    shard: TestingShard, store: MemoryStore
) -> None:
    store.account = ACCOUNT._replace(message_size=10**9)
    assert '250-SIZE 9000\n' in client(shard, limits__max_message_size=9000).send('EHLO x.y\r\n')
    assert '250-SIZE 1000000000\n' in client(shard, limits__max_message_size=0).send('EHLO x.y\r\n')
