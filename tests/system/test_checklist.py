"""The implementer's checklist of the protocol fact sheet, point by point.

The number in a test's name is the point's.  Points that cannot be seen from
outside, or only after minutes (IDLE keepalive) or days (retention), are proved
by the rooms' own tests.
"""

from __future__ import annotations

import contextlib
import imaplib
import os
import re
import signal
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.system import mail
from tests.system.relay import Relay, client_tls, fetch_all, plain_token, running, wait_for


class Wire:
    """A TLS connection spoken to by hand."""

    def __init__(self, relay: Relay, listener: str) -> None:
        self.stream = relay.connect(listener)
        self.file = self.stream.makefile('rb')

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.stream.close()

    def send(self, data: bytes) -> None:
        self.stream.sendall(data)

    def line(self) -> bytes:
        return self.file.readline()

    def until(self, prefix: bytes) -> list[bytes]:
        """Lines up to the one that begins with `prefix`; literals are read as octets."""
        lines: list[bytes] = []
        while True:
            line = self.line()
            if not line:
                raise ConnectionResetError(f'closed before {prefix!r}; got {lines[-3:]!r}')
            while literal := re.search(rb'\{(\d+)\}\r\n$', line):
                line += self.file.read(int(literal[1])) + self.line()
            lines.append(line)
            if line.startswith(prefix):
                return lines

    def command(self, text: str, tag: bytes = b'x') -> list[bytes]:
        self.send(tag + b' ' + text.encode('latin-1') + b'\r\n')
        return self.until(tag + b' ')


def imap(relay: Relay, address: str, password: str) -> Wire:
    wire = Wire(relay, 'imaps')
    wire.line()
    assert wire.command(f'LOGIN "{address}" "{password}"')[-1].startswith(b'x OK')
    return wire


def send(relay: Relay, sender: tuple[str, str], to: list[str], message: bytes) -> None:
    with relay.smtp(*sender) as smtp:
        assert smtp.sendmail(sender[0], to, message) == {}


def refusal(call: Callable[[], object]) -> tuple[int, bytes]:
    with pytest.raises(smtplib.SMTPResponseException) as caught:
        call()
    assert isinstance(caught.value.smtp_error, bytes)
    return caught.value.smtp_code, caught.value.smtp_error


def test_checklist_01_a_fetch_cut_short_never_ends_in_ok_or_no(room: Path) -> None:
    with running(room, {'processes': {'gates': 1, 'shards': 1}}) as relay:
        alice = relay.account('alice')
        bob = relay.account('bob')
        with relay.smtp(*alice) as smtp:
            for _ in range(20):
                smtp.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0], size=2_000_000))
        with imap(relay, *bob) as wire:
            wire.command('SELECT INBOX')
            wire.send(b'y UID FETCH 1:* (FLAGS BODY.PEEK[])\r\n')
            assert b'FETCH' in wire.line()
            (shard,) = relay.pids('shard')
            os.kill(shard, signal.SIGKILL)
            rest = b''
            with contextlib.suppress(OSError):
                while data := wire.file.read1(65536):
                    rest = rest[-200:] + data
            assert b'\r\ny OK' not in rest
            assert b'\r\ny NO' not in rest


def test_checklist_02_uidnext_never_falls_and_a_new_account_has_a_new_uidvalidity(
    relay: Relay,
) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    send(relay, alice, [bob[0]], mail.encrypted(alice[0]))

    def state() -> tuple[bytes, bytes]:
        with imap(relay, *bob) as wire:
            said = b''.join(wire.command('SELECT INBOX'))
        validity = re.search(rb'\[UIDVALIDITY (\d+)\]', said)
        following = re.search(rb'\[UIDNEXT (\d+)\]', said)
        assert validity
        assert following
        return validity[1], following[1]

    validity, following = state()
    assert following == b'2'
    with imap(relay, *bob) as wire:
        wire.command('SELECT INBOX')
        wire.command('UID STORE 1:* +FLAGS (\\Deleted)')
        wire.command('CLOSE')
    assert state() == (validity, b'2')
    relay.cli('accounts', 'delete', '-y', '--no-block', bob[0])
    deadline = time.monotonic() + 5
    while True:
        try:
            relay.imap(*bob).logout()
            break
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    again, first = state()
    assert first == b'1'
    assert again != validity


def test_checklist_03_no_flag_updates_of_requested_messages_inside_a_fetch(relay: Relay) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    with relay.smtp(*alice) as smtp:
        for _ in range(30):
            smtp.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0]))
    stop = threading.Event()

    def disturb() -> None:
        with imap(relay, *bob) as other:
            other.command('SELECT INBOX')
            while not stop.is_set():
                other.command('UID STORE 1:30 +FLAGS (\\Seen)')
                other.command('UID STORE 1:30 -FLAGS (\\Seen)')

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        with imap(relay, *bob) as wire:
            wire.command('SELECT INBOX')
            for _ in range(40):
                lines = wire.command(
                    'UID FETCH 1:500 (UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])'
                )
                rows = [line for line in lines if b' FETCH (' in line]
                assert len(rows) == 30
                assert all(b'RFC822.SIZE' in row for row in rows)
    finally:
        stop.set()
        thread.join()


def test_checklist_04_nul_is_refused_at_every_entrance(relay: Relay) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    bad = mail.forgeries(alice[0], bob[0])['nul-octet']
    with Wire(relay, 'submissions') as wire:
        wire.line()
        wire.send(b'EHLO [127.0.0.1]\r\n')
        wire.until(b'250 ')
        wire.send(f'AUTH PLAIN {plain_token(*alice)}\r\n'.encode())
        wire.until(b'235')
        envelope = f'MAIL FROM:<{alice[0]}>\r\nRCPT TO:<{bob[0]}>\r\n'.encode()
        wire.send(envelope + b'DATA\r\n')
        wire.until(b'354')
        wire.send(mail.dotted(bad))
        assert wire.line().startswith(b'5')
        wire.send(envelope + b'BDAT %d LAST\r\n' % len(bad) + bad)
        wire.until(b'250 2.1.5')
        assert wire.line().startswith(b'5')
    foreign = mail.forgeries('fay@[127.0.0.1]', bob[0])['nul-octet']
    with Wire(relay, 'smtp') as wire:
        wire.line()
        wire.send(b'EHLO mx.example\r\n')
        wire.until(b'250 ')
        wire.send(f'MAIL FROM:<fay@[127.0.0.1]>\r\nRCPT TO:<{bob[0]}>\r\nDATA\r\n'.encode())
        wire.until(b'354')
        wire.send(mail.dotted(foreign))
        assert wire.line().startswith(b'5')
    with imap(relay, *bob) as wire:
        wire.send(b'y APPEND INBOX {%d+}\r\n' % len(bad) + bad + b'\r\n')
        assert not wire.until(b'y ')[-1].startswith(b'y OK')
        assert b'* 0 EXISTS\r\n' in wire.command('SELECT INBOX')


def test_checklist_05_status_text_is_seven_bit_and_metadata_are_literals(room: Path) -> None:
    comment = 'Grüße "an\\alle"'
    with running(room, {'relay': {'comment': comment}}) as relay:
        bob = relay.account('bob')
        with imap(relay, *bob) as wire:
            for command in (
                'SELECT "Entw\xfcrfe"',
                'SELECT {8+}\r\nEntw\xc3\xbcrf',
                'XYZ\xfc',
                'STATUS "\xe4" (MESSAGES)',
                'SEARCH SUBJECT "\xfc"',
            ):
                for line in wire.command(command):
                    assert line.isascii(), line
            said = b''.join(wire.command('GETMETADATA "" (/shared/comment)'))
            octets = comment.encode()
            assert said.startswith(
                b'* METADATA "" (/shared/comment {%d}\r\n%s)\r\n' % (len(octets), octets)
            )
            said = b''.join(wire.command('GETMETADATA "" (/shared/vendor/deltachat/turn)'))
            assert b'()' not in said


def test_checklist_06_and_07_sections_without_peek_and_capabilities_in_login(
    relay: Relay,
) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    send(relay, alice, [bob[0]], mail.encrypted(alice[0]))
    with Wire(relay, 'imaps') as wire:
        wire.line()
        ok = wire.command(f'LOGIN {bob[0]} {bob[1]}')[-1]
        assert ok.startswith(b'x OK [CAPABILITY ')
        atoms = ok[: ok.index(b']')].split()
        assert b'IMAP4rev1' in atoms
        assert {b'IDLE', b'MOVE', b'QUOTA', b'METADATA', b'ID', b'XCHATMAIL'} <= set(atoms)
        wire.command('SELECT INBOX')
        said = b''.join(wire.command('UID FETCH 1 (BODY.PEEK[HEADER.FIELDS (FROM)] BODY.PEEK[])'))
        assert b'PEEK' not in said
        assert b'BODY[]' in said
        assert b'FLAGS' not in said


def test_checklist_08_idle_tells_at_once_what_came_before(relay: Relay) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    with imap(relay, *bob) as wire:
        wire.command('SELECT INBOX')
        send(relay, alice, [bob[0]], mail.encrypted(alice[0]))
        wire.send(b'y IDLE\r\n')
        wire.until(b'* 1 EXISTS')


def test_checklist_09_a_login_limit_is_not_called_an_authentication_failure(room: Path) -> None:
    with running(room, {'limits': {'logins_per_minute_per_ip': 3}}) as relay:
        answers = []
        for number in range(8):
            with contextlib.suppress(ConnectionResetError), Wire(relay, 'imaps') as wire:
                wire.line()
                answers.append(
                    wire.command(f'LOGIN someone{number}@chat.example pass-word-{number}')
                )
        said = [lines[-1] for lines in answers]
        assert said[0].startswith(b'x OK')
        refused = [line for line in said if not line.startswith(b'x OK')]
        assert refused, 'no limit was felt'
        assert all(b'authentication' not in line.lower() for line in refused), refused


def test_checklist_10_parallel_first_logins_make_one_account(relay: Relay) -> None:
    for _ in range(5):
        person = relay.credentials('racer')
        with ThreadPoolExecutor(8) as pool:
            kinds = [relay.imap, relay.smtp] * 4
            clients = list(pool.map(lambda kind, person=person: kind(*person), kinds))
        for client in clients:
            client.logout() if hasattr(client, 'logout') else client.quit()
        with pytest.raises(Exception, match='AUTHENTICATIONFAILED'):
            relay.imap(person[0], 'another-password')


def test_checklist_11_full_or_unknown_recipients_are_accepted_and_bounce(room: Path) -> None:
    options = {'limits': {'quota': 400_000, 'quota_trim_percent': 0}}
    with running(room, options) as relay:
        alice, bob = relay.account('alice'), relay.account('bob')
        with relay.smtp(*alice) as smtp:
            for _ in range(3):
                big = mail.encrypted(alice[0], size=180_000)
                assert smtp.sendmail(alice[0], [bob[0]], big) == {}
            stranger = f'nobody-at-all@{relay.domain}'
            assert smtp.sendmail(alice[0], [stranger, bob[0]], mail.encrypted(alice[0])) == {}
        with relay.imap(*alice) as inbox:
            bounces = b'\n'.join(wait_for(inbox, 2))
        assert b'MAILER-DAEMON' in bounces.upper()
        assert b'nobody-at-all' in bounces
        assert bob[0].encode() in bounces


def test_checklist_12_a_large_message_is_answered_within_seconds(relay: Relay) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    message = mail.encrypted(alice[0], size=29_000_000)
    with relay.smtp(*alice, timeout=60) as smtp:
        smtp.mail(alice[0])
        smtp.rcpt(bob[0])
        assert smtp.docmd('DATA')[0] == 354
        data = mail.dotted(message)
        smtp.send(data[:-3])
        began = time.monotonic()
        smtp.send(data[-3:])
        assert smtp.getreply()[0] == 250
        assert time.monotonic() - began < 10
    with relay.imap(*bob) as inbox:
        (received,) = wait_for(inbox, 1, 30)
        assert received.partition(b'\r\n\r\n')[2] == message.partition(b'\r\n\r\n')[2]


def test_checklist_12_the_end_of_the_connection_is_not_the_end_of_data(relay: Relay) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    for cut in (1, 3, 5, 500):
        smtp = relay.smtp(*alice)
        smtp.mail(alice[0])
        smtp.rcpt(bob[0])
        smtp.docmd('DATA')
        smtp.send(mail.dotted(mail.encrypted(alice[0]))[:-cut])
        smtp.close()
    time.sleep(0.5)
    with relay.imap(*bob) as inbox:
        assert fetch_all(inbox) == {}


def test_checklist_13_rate_limit_and_sender_are_refused_at_rcpt(room: Path) -> None:
    with running(room, {'limits': {'send_per_minute': 6, 'send_burst': 3}}) as relay:
        alice, bob = relay.account('alice'), relay.account('bob')
        with relay.smtp(*alice) as smtp:
            for _ in range(3):
                smtp.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0]))
            with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
                smtp.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0]))
            code, text = caught.value.recipients[bob[0]]
            assert code == 450
            assert b'4.7.1: Too much mail from' in text
        with relay.smtp(*bob) as smtp:
            with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
                smtp.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0]))
            assert caught.value.recipients[bob[0]][0] == 553


def test_checklist_14_plaintext_gets_the_words_that_the_client_looks_for(relay: Relay) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    code, text = refusal(lambda: send(relay, alice, [bob[0]], mail.plain(alice[0], bob[0])))
    assert code == 523
    assert b'invalid unencrypted mail' in text.lower()


def test_checklist_15_three_hundred_recipients_in_one_transaction(relay: Relay) -> None:
    alice = relay.account('alice')
    people = [relay.account('member') for _ in range(12)]
    to = [address for address, _ in people]
    to += [f'stranger-{n}@{relay.domain}' for n in range(288)]
    ident = mail.message_id()
    send(relay, alice, to, mail.encrypted(alice[0], ident=ident, keys=300, size=40_000))
    for person in people:
        with relay.imap(*person) as inbox:
            (received,) = wait_for(inbox, 1)
            assert ident.encode() in received


def test_checklist_16_and_26_headers_are_kept_or_dropped_and_tell_nothing(relay: Relay) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    old = formatdate(time.time() - 40 * 86400)
    ident = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee@localhost'
    message = mail.encrypted(alice[0], ident=ident)
    message = re.sub(rb'Date: [^\r]+', b'Date: ' + old.encode(), message, count=1)
    message = message.replace(b'Subject: [...]', b'Subject: my dear friend')
    secrets = b'Received: from laptop.home ([10.9.8.7])\r\nUser-Agent: Bird/1\r\nX-Mailer: Me\r\n'
    began = int(time.time())
    send(relay, alice, [bob[0]], secrets + message)
    with relay.imap(*bob) as inbox:
        (received,) = wait_for(inbox, 1)
        _, rows = inbox.fetch('1', '(INTERNALDATE)')
    head, _, body = received.partition(b'\r\n\r\n')
    assert f'Message-ID: <{ident}>'.encode() in head
    assert b'Date: ' + old.encode() in head
    assert b'To: "hidden-recipients": ;' in head
    assert b'Subject: [...]' in head
    assert body == message.partition(b'\r\n\r\n')[2]
    for trace in (b'dear friend', b'laptop', b'10.9.8.7', b'127.0.0.1', b'Bird', b'X-Mailer'):
        assert trace not in head
    # 17: the arrival is what counts, not the Date header
    stamp = imaplib.Internaldate2tuple(rows[0])
    assert stamp is not None
    assert time.mktime(stamp) >= began - 1


def test_checklist_18_duplicate_from_is_refused(relay: Relay) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    good = mail.encrypted(alice[0])
    for trick in (
        f'From: <{bob[0]}>\r\n'.encode() + good,
        good.replace(b'Subject:', f'From: <{bob[0]}>\r\nSubject:'.encode(), 1),
        good.replace(f'From: <{alice[0]}>'.encode(), f'From: "<{alice[0]}>" <{bob[0]}>'.encode()),
        good.replace(f'From: <{alice[0]}>'.encode(), f'From:\r\n <{bob[0]}>'.encode()),
        good.replace(f'From: <{alice[0]}>'.encode(), f'From: <{alice[0]}>, <{bob[0]}>'.encode()),
    ):
        code, _ = refusal(lambda trick=trick: send(relay, alice, [bob[0]], trick))  # type: ignore[misc]
        assert 500 <= code < 600


@pytest.mark.parametrize('trick', sorted(mail.forgeries('a@chat.example', 'b@chat.example')))
def test_checklist_19_forgeries_are_refused_at_every_entrance(relay: Relay, trick: str) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    forged = mail.forgeries(alice[0], bob[0])[trick]
    with Wire(relay, 'submissions') as wire:
        wire.line()
        wire.send(b'EHLO [127.0.0.1]\r\n')
        wire.until(b'250 ')
        wire.send(f'AUTH PLAIN {plain_token(*alice)}\r\n'.encode())
        wire.until(b'235')
        wire.send(f'MAIL FROM:<{alice[0]}>\r\nRCPT TO:<{bob[0]}>\r\nDATA\r\n'.encode())
        wire.until(b'354')
        wire.send(mail.dotted(forged))
        assert wire.line()[:1] == b'5'
    outside = 'fay@[127.0.0.1]'
    with Wire(relay, 'smtp') as wire:
        wire.line()
        wire.send(b'EHLO mx.example\r\n')
        wire.until(b'250 ')
        wire.send(f'MAIL FROM:<{outside}>\r\nRCPT TO:<{bob[0]}>\r\nDATA\r\n'.encode())
        wire.until(b'354')
        wire.send(mail.dotted(mail.forgeries(outside, bob[0])[trick]))
        reply = wire.line()
        # Port 25 tolerates header lines up to 8 KiB.
        assert reply[:1] == b'5' or trick == 'line-of-2000-octets', reply
    with imap(relay, *alice) as wire:
        wire.send(b'y APPEND INBOX {%d+}\r\n' % len(forged) + forged + b'\r\n')
        refused = wire.until(b'y ')[-1]
        assert not refused.startswith(b'y OK') or trick == 'line-of-2000-octets', refused
    with relay.imap(*bob) as inbox:
        for body in fetch_all(inbox).values():
            assert mail.SECRET.encode() not in body


@pytest.mark.parametrize('form', ['v1', 'v2', 'symmetric', 'post', 'no-checksum', 'old'])
def test_checklist_20_and_21_every_real_form_passes(relay: Relay, form: str) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    messages = []
    if form in ('v1', 'v2', 'symmetric'):
        messages = [mail.encrypted(alice[0], form=form, size=n) for n in (900, 3000, 200_000)]
    elif form == 'post':
        messages = [mail.encrypted(alice[0], post=True, size=300_000)]
    elif form == 'old':
        messages = [mail.old_style(alice[0], bob[0])]
    else:
        for spare in range(3):  # padding '', '=' and '=='
            data = mail.pkesk3() + mail.packet(18, b'\x01' + os.urandom(299 + spare))
            armored = b''.join(
                line
                for line in mail.armor(data).splitlines(keepends=True)
                if not re.fullmatch(rb'=.{4}\r\n', line)
            )
            messages.append(mail.sealed(mail.outer(alice[0]), armored))
    for message in messages:
        send(relay, alice, [bob[0]], message)
    with relay.imap(*bob) as inbox:
        received = wait_for(inbox, len(messages))
    for before, after in zip(messages, received, strict=True):
        assert before.partition(b'\r\n\r\n')[2] == after.partition(b'\r\n\r\n')[2]


@pytest.mark.parametrize(('listener', 'own'), [('imaps', 'imap'), ('submissions', 'smtp')])
@pytest.mark.parametrize('others', [None, [], ['http/1.1', 'h2']])
@pytest.mark.parametrize('name', [None, 'chat.example', 'unknown.example'])
def test_checklist_23_no_alpn_or_sni_is_needed_and_any_is_taken(
    relay: Relay, listener: str, own: str, others: list[str] | None, name: str | None
) -> None:
    context = client_tls()
    if others is not None:
        context.set_alpn_protocols([*others, own])
    with (
        socket.create_connection(('127.0.0.1', relay.ports[listener]), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as stream,
    ):
        assert stream.recv(100).startswith((b'* OK', b'220 '))
        assert stream.version() in ('TLSv1.2', 'TLSv1.3')


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_checklist_23_old_tls_is_refused(relay: Relay) -> None:
    context = client_tls()
    context.set_ciphers('ALL:@SECLEVEL=0')
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(('127.0.0.1', relay.ports['imaps']), 10) as plain,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        context.wrap_socket(plain)


def test_checklist_24_accounts_of_an_ip_literal(room: Path) -> None:
    with running(room, {'domain': '127.0.0.1'}) as relay:
        alice, bob = relay.account('alice'), relay.account('bob')
        assert bob[0].endswith('@[127.0.0.1]')
        send(relay, alice, [bob[0]], mail.encrypted(alice[0]))
        bare = bob[0].replace('[', '').replace(']', '')
        with relay.imap(bare, bob[1]) as inbox:
            (received,) = wait_for(inbox, 1)
        assert f'From: <{alice[0]}>'.encode() in received


def test_checklist_27_quota_in_kib_and_trimming_before_any_warning(room: Path) -> None:
    quota = 1024 * 1024
    with running(room, {'limits': {'quota': quota}}) as relay:
        alice, bob = relay.account('alice'), relay.account('bob')
        old = [mail.message_id() for _ in range(12)]
        new = [mail.message_id() for _ in range(6)]
        with relay.imap(*bob) as inbox:
            for age, ident in enumerate(old):
                # Only what is older than a day may be given up.
                when = imaplib.Time2Internaldate(time.time() - (30 - age) * 86400)
                message = mail.encrypted(bob[0], ident=ident, size=50_000)
                assert inbox.append('INBOX', '', when, message)[0] == 'OK'
        with relay.smtp(*alice) as smtp:
            for ident in new:
                message = mail.encrypted(alice[0], ident=ident, size=50_000)
                assert smtp.sendmail(alice[0], [bob[0]], message) == {}
        with imap(relay, *bob) as wire:
            root, used = wire.command('GETQUOTAROOT "INBOX"')[:2]
            match = re.fullmatch(rb'\* QUOTA ("[^"]+") \(STORAGE (\d+) (\d+)\)\r\n', used)
            assert match, used
            assert root.endswith(b' ' + match[1] + b'\r\n')
            assert int(match[3]) == quota // 1024
            assert 0.5 * int(match[3]) < int(match[2]) <= 0.76 * int(match[3])
        with relay.imap(*bob) as inbox:
            kept = b''.join(fetch_all(inbox).values())
        assert all(ident.encode() in kept for ident in new)
        present = [ident.encode() in kept for ident in old]
        assert not present[0]
        assert present[-1]
        assert present == sorted(present), 'the oldest go first'


def test_checklist_28_bare_lf_is_fine_in_imap_and_refused_in_smtp(relay: Relay) -> None:
    bob = relay.account('bob')
    with imap(relay, *bob) as wire:
        wire.send(b'y NOOP\n')
        assert wire.until(b'y ')[-1].startswith(b'y OK')
    with Wire(relay, 'smtp') as wire:
        wire.line()
        wire.send(b'EHLO mx.example\r\n')
        wire.until(b'250 ')
        wire.send(b'NOOP\nNOOP\r\n')
        assert wire.line()[:1] in (b'5', b'4')


def test_lines_without_end_are_cut_off_before_and_after_login(relay: Relay) -> None:
    bob = relay.account('bob')

    def flood(wire: Wire, octets: int) -> bytes:
        answer = b''
        try:
            wire.stream.settimeout(10)
            for _ in range(octets // 65536):
                wire.send(b'x' * 65536)
            answer = wire.line()
        except (OSError, ssl.SSLError):
            pass  # closed on us: as good
        return answer

    with Wire(relay, 'imaps') as wire:
        wire.line()
        assert b' OK' not in flood(wire, 8 << 20)
    with Wire(relay, 'smtp') as wire:
        wire.line()
        assert flood(wire, 8 << 20)[:1] in (b'', b'4', b'5')
    with imap(relay, *bob) as wire:
        assert b' OK' not in flood(wire, 8 << 20)
    relay.imap(*bob).logout()


def test_command_literals_are_bounded_before_login(relay: Relay) -> None:
    with Wire(relay, 'imaps') as wire:
        wire.line()
        wire.send(b'x LOGIN {999999999}\r\n')
        assert not wire.line().startswith(b'+')
