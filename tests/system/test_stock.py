"""Clients that were not written for us: Python's, and mbsync."""

from __future__ import annotations

import imaplib
import os
import re
import shutil
import smtplib
import subprocess
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system import mail
from tests.system.relay import Relay, client_tls, fetch_all, running, wait_for


def test_round_trip_with_imaplib_and_smtplib(relay: Relay) -> None:
    alice, bob = relay.account('alice'), relay.account('bob')
    idents = [mail.message_id() for _ in range(5)]
    with relay.smtp(*alice) as smtp:
        for ident in idents:
            assert smtp.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0], ident=ident)) == {}
    inbox = relay.imap(*bob)
    received = wait_for(inbox, 5)
    for ident, message in zip(idents, received, strict=True):
        assert ident.encode() in message
    assert inbox.select('INBOX')[1] == [b'5']
    assert inbox.search(None, 'ALL') == ('OK', [b'1 2 3 4 5'])
    assert inbox.search(None, f'HEADER MESSAGE-ID "{idents[2]}"') == ('OK', [b'3'])
    status, rows = inbox.fetch('1:*', '(RFC822)')
    assert status == 'OK'
    assert [row[1] for row in rows if isinstance(row, tuple)] == received
    assert inbox.search(None, 'UNSEEN') == ('OK', [b''])
    assert inbox.store('2', '+FLAGS', '(\\Deleted \\Flagged)')[0] == 'OK'
    assert inbox.copy('1,3', 'Kept')[0] == 'NO'
    assert inbox.create('Kept')[0] == 'OK'
    assert inbox.copy('1,3', 'Kept')[0] == 'OK'
    assert inbox.expunge() == ('OK', [b'2'])
    assert inbox.status('Kept', '(MESSAGES)')[1] == [b'"Kept" (MESSAGES 2)']
    when = imaplib.Time2Internaldate(time.time() - 86400)
    assert inbox.append('Kept', '(\\Seen)', when, mail.encrypted(bob[0]))[0] == 'OK'
    assert len(fetch_all(inbox, 'Kept')) == 3
    names = [re.search(rb'"?([^" ]+)"?$', line)[1] for line in inbox.list()[1]]  # type: ignore[index, arg-type]
    assert {b'INBOX', b'Kept'} <= set(names)
    assert inbox.rename('Kept', 'Gone')[0] == 'OK'
    assert inbox.delete('Gone')[0] == 'OK'
    assert inbox.getquotaroot('INBOX')[0] == 'OK'
    assert inbox.namespace()[0] == 'OK'
    assert inbox.noop()[0] == 'OK'
    assert inbox.select('INBOX')[0] == 'OK'
    assert inbox.check()[0] == 'OK'
    assert inbox.close()[0] == 'OK'
    assert inbox.logout()[0] == 'BYE'


def test_starttls_on_both_protocols(relay: Relay) -> None:
    person = relay.credentials('alice')
    inbox = imaplib.IMAP4('127.0.0.1', relay.ports['imap'], timeout=20)
    with pytest.raises(imaplib.IMAP4.error):
        inbox.login(*person)
    inbox.starttls(client_tls())
    assert inbox.login(*person)[0] == 'OK'
    inbox.logout()
    with smtplib.SMTP('127.0.0.1', relay.ports['submission'], timeout=20) as smtp:
        smtp.ehlo()
        assert not smtp.has_extn('auth')
        smtp.starttls(context=client_tls())
        smtp.login(*person)
        assert smtp.sendmail(person[0], [person[0]], mail.encrypted(person[0])) == {}


def test_authenticate_with_imaplib(relay: Relay) -> None:
    address, password = relay.account('alice')
    inbox = imaplib.IMAP4_SSL(
        '127.0.0.1', relay.ports['imaps'], ssl_context=client_tls(), timeout=20
    )
    token = f'\0{address}\0{password}'
    assert inbox.authenticate('PLAIN', lambda _: token.encode())[0] == 'OK'
    inbox.logout()


def test_thirty_accounts_log_in_for_the_first_time_at_once(relay: Relay) -> None:
    people = [relay.credentials('crowd') for _ in range(30)]

    def both(person: tuple[str, str]) -> None:
        with ThreadPoolExecutor(2) as pair:
            first, second = pair.submit(relay.imap, *person), pair.submit(relay.smtp, *person)
            smtp = second.result()
            smtp.sendmail(person[0], [person[0]], mail.encrypted(person[0]))
            smtp.quit()
            wait_for(first.result(), 1)
            first.result().logout()

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(both, people))


def test_clients_come_and_go(relay: Relay) -> None:
    alice = relay.account('alice')
    before = len(relay.processes())
    for number in range(60):
        inbox = relay.imap(*alice)
        if number % 3 == 0:
            inbox.select('INBOX')
            inbox.shutdown()  # no LOGOUT, as Delta Chat leaves
        elif number % 3 == 1:
            inbox.send(b'a1 IDLE\r\n')
            inbox.readline()
            inbox.shutdown()
        else:
            inbox.logout()
    relay.imap(*alice).logout()
    assert len(relay.processes()) == before


def test_compress_deflate(relay: Relay) -> None:
    bob = relay.account('bob')
    inbox = relay.imap(*bob)
    listed = inbox.capability()[1][0]  # imaplib itself only asks before login
    if b'COMPRESS=DEFLATE' not in listed:
        with pytest.raises(imaplib.IMAP4.error):
            inbox.xatom('COMPRESS', 'DEFLATE')
        inbox.logout()
        return
    inbox.send(b'z1 COMPRESS DEFLATE\r\n')
    assert inbox.readline().startswith(b'z1 OK')
    deflate = zlib.compressobj(wbits=-15)
    inflate = zlib.decompressobj(wbits=-15)
    inbox.send(deflate.compress(b'z2 NOOP\r\n') + deflate.flush(zlib.Z_SYNC_FLUSH))
    answer = b''
    while b'z2 OK' not in answer:
        data = inbox.socket().recv(4096)
        assert data
        answer += inflate.decompress(data)
    inbox.shutdown()


# -- mbsync

MBSYNC = """
IMAPAccount relay
Host 127.0.0.1
Port {port}
User {address}
Pass {password}
{tls} IMAPS
SystemCertificates no
CertificateFile {certificate}

IMAPStore far
Account relay

MaildirStore near
Path {near}/
Inbox {near}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
SyncState *
"""


def mbsync(relay: Relay, person: tuple[str, str], directory: Path) -> None:
    import ssl

    certificate = directory / 'relay.pem'
    certificate.write_text(ssl.get_server_certificate(('127.0.0.1', relay.ports['imaps'])))
    for tls in ('SSLType', 'TLSType'):  # the key was renamed in mbsync 1.5
        settings = directory / 'mbsyncrc'
        settings.write_text(
            MBSYNC.format(
                port=relay.ports['imaps'],
                address=person[0],
                password=person[1],
                near=directory / 'near',
                certificate=certificate,
                tls=tls,
            )
        )
        done = subprocess.run(
            ['mbsync', '-c', str(settings), '-a'],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if 'unknown keyword' not in done.stderr:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'rror' not in done.stderr, done.stderr


def test_mbsync_there_and_back(relay: Relay, tmp_path: Path) -> None:
    if shutil.which('mbsync') is None:
        reason = 'mbsync is not installed (Debian package isync)'
        if os.environ.get('CI') == 'true':
            pytest.fail(reason)
        pytest.skip(reason)
    alice, bob = relay.account('alice'), relay.account('bob')
    near = tmp_path / 'near'
    near.mkdir()
    with relay.smtp(*alice) as smtp:
        for size in (3000, 3000, 3000, 400_000):
            smtp.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0], size=size))
    inbox = relay.imap(*bob)
    originals = wait_for(inbox, 4)
    inbox.store('2', '+FLAGS', '(\\Seen \\Flagged)')
    inbox.create('Archive')

    mbsync(relay, bob, tmp_path)
    files = sorted((near / 'INBOX').glob('*/*'))
    assert len(files) == 4
    # mbsync adds its own X-TUID and stores LF line ends.
    local = {re.sub(rb'X-TUID: .*\n', b'', file.read_bytes()) for file in files}
    assert local == {message.replace(b'\r\n', b'\n') for message in originals}
    flags = sorted(file.name.rpartition(':2,')[2] for file in files)
    assert flags == ['', '', '', 'FS']
    assert (near / 'Archive').is_dir()

    # back: a flag, a deletion, an upload
    (big,) = (file for file in files if file.stat().st_size > 100_000)
    (seen,) = (file for file in files if file.name.endswith('FS'))
    seen.rename(seen.with_name(seen.name + 'T'))
    big.rename(near / 'INBOX' / 'cur' / (big.name.partition(':')[0] + ':2,RS'))
    ident = mail.message_id()
    (near / 'Archive' / 'new' / '1700000000.1_1.here').write_bytes(
        mail.encrypted(bob[0], ident=ident).replace(b'\r\n', b'\n')
    )
    mbsync(relay, bob, tmp_path)
    assert len(fetch_all(inbox)) == 3
    assert inbox.search(None, 'ANSWERED SEEN LARGER 100000')[1] == [b'3']
    (uploaded,) = fetch_all(inbox, 'Archive').values()
    assert ident.encode() in uploaded

    # there again: a deletion and a flag from the relay's side
    inbox.select('INBOX')
    inbox.store('1', '+FLAGS', '(\\Deleted)')
    inbox.expunge()
    inbox.store('1', '+FLAGS', '(\\Answered)')
    mbsync(relay, bob, tmp_path)
    names = [file.name.rpartition(':2,')[2] for file in (near / 'INBOX').glob('*/*')]
    assert sorted(names) == ['R', 'RS']
    inbox.logout()


def test_connection_limit_of_an_ip_address(tmp_path: Path) -> None:
    with running(tmp_path / 'relay', {'limits': {'connections_per_ip': 5}}) as relay:
        person = relay.account('alice')
        held = [relay.imap(*person) for _ in range(5)]
        with pytest.raises((imaplib.IMAP4.error, OSError)):
            relay.imap(*person)
        held.pop().logout()
        deadline = time.monotonic() + 5
        while True:
            try:
                held.append(relay.imap(*person))
                break
            except (imaplib.IMAP4.error, OSError):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        for client in held:
            client.shutdown()
