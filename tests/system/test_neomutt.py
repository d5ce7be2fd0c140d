"""NeoMutt, a mail program of people, at a terminal: it reads, flags, moves, deletes and sends."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.relay import Relay, fetch_all, running, wait_for

TIME = 40.0  # seconds, in case it asks something that nobody answers

SETTINGS = """
set imap_user = "{address}"
set imap_pass = "{password}"
set smtp_url = "smtps://{local}@127.0.0.1:{submissions}/"
set smtp_user = "{address}"
set smtp_pass = "{password}"
set folder = "imaps://127.0.0.1:{imaps}/"
set spool_file = "imaps://127.0.0.1:{imaps}/INBOX"
set record = "=Sent"
set postponed = "=Drafts"
set from = "{address}"
set use_from = yes
set realname = "Bob"
set hostname = "chat.example"
set editor = "/bin/true"
set certificate_file = "{certificate}"
set ssl_verify_host = no
set ssl_verify_dates = no
set header_cache = ""
set tmpdir = "{directory}"
set sort = mailbox-order
set wait_key = no
set confirm_append = no
set confirm_create = no
set delete = yes
set quit = yes
set mark_old = no
set resolve = no
set abort_nosubject = no
set abort_unmodified = no
set fast_reply = yes
set include = yes
set imap_idle = yes
set imap_condstore = yes
set imap_qresync = yes
set pipe_decode = yes
set sleep_time = 0
set mail_check = 1
"""


class NeoMutt:
    """One account's; every call of `do` starts it, types, and waits for its end."""

    def __init__(self, relay: Relay, person: tuple[str, str], directory: Path) -> None:
        self.settings = directory / 'neomuttrc'
        self.directory = directory
        self.folder = f'imaps://127.0.0.1:{relay.ports["imaps"]}/'
        certificate = directory / 'relay.pem'
        certificate.write_text(ssl.get_server_certificate(('127.0.0.1', relay.ports['imaps'])))
        self.settings.write_text(
            SETTINGS.format(
                address=person[0],
                local=person[0].replace('@', '%40'),
                password=person[1],
                certificate=certificate,
                directory=directory,
                **relay.ports,
            )
        )

    def send(self, to: str, subject: str, text: str) -> None:
        """Without a terminal."""
        done = subprocess.run(
            ['neomutt', '-n', '-F', str(self.settings), '-s', subject, '--', to],
            input=text,
            env={**os.environ, 'HOME': str(self.directory)},
            capture_output=True,
            text=True,
            timeout=TIME,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def do(self, keys: str, last: tuple[bytes, bytes] | None = None) -> str:
        """Type `keys` (in the language of its `push` command) at the inbox; the screen's octets.

        An editor makes it forget the keys behind; `last` are those to type when something
        has appeared.
        """
        command = ['neomutt', '-n', '-F', str(self.settings), '-e', f"push '{keys}'"]
        command += ('-f', self.folder + 'INBOX')
        child, terminal = pty.fork()
        if child == 0:
            environment = {
                'HOME': str(self.directory),
                'TERM': 'vt100',
                'PATH': os.environ['PATH'],
                'LANG': 'C.UTF-8',
                'LINES': '40',
                'COLUMNS': '120',
            }
            os.execvpe(command[0], command, environment)
        screen = b''
        end = time.monotonic() + TIME
        try:
            while True:
                ready, _, _ = select.select([terminal], [], [], 0.5)
                if not ready:
                    if time.monotonic() > end:
                        os.kill(child, signal.SIGKILL)
                        seen = screen[-2000:].decode('utf-8', 'replace')
                        pytest.fail(f'NeoMutt does not end: {seen}')
                    if last is not None and last[0] in screen:
                        os.write(terminal, last[1])  # again, should it be forgotten too
                    continue
                try:
                    data = os.read(terminal, 4096)
                except OSError:
                    break  # it has closed the terminal
                if not data:
                    break
                screen += data
        finally:
            os.close(terminal)
            _, status = os.waitpid(child, 0)
        text = screen.decode('utf-8', 'replace')
        assert os.waitstatus_to_exitcode(status) == 0, text[-2000:]
        return text


@pytest.fixture(scope='module')
def open_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One that takes mail in clear."""
    if shutil.which('neomutt') is None:
        reason = 'neomutt is not installed (Debian packages neomutt and libsasl2-modules)'
        if os.environ.get('CI') == 'true':
            pytest.fail(reason)
        pytest.skip(reason)
    options = {'policy.require_encryption': False}
    with running(tmp_path_factory.mktemp('relay'), options) as relay:
        yield relay


def letter(sender: str, subject: str, text: str) -> bytes:
    return (
        f'From: <{sender}>\r\nTo: <someone@chat.example>\r\nSubject: {subject}\r\n'
        f'Message-ID: <{subject}.{time.monotonic_ns()}@chat.example>\r\n'
        f'Date: Fri, 02 Jan 2026 03:04:05 +0000\r\n\r\n{text}\r\n'
    ).encode()


def test_read_flag_move_delete_and_expunge(open_relay: Relay, tmp_path: Path) -> None:
    alice, bob = open_relay.account('alice'), open_relay.account('bob')
    with open_relay.smtp(*alice) as smtp:
        for number in range(1, 7):
            smtp.sendmail(
                alice[0], [bob[0]], letter(alice[0], f'letter-{number}', f'The text {number}.')
            )
    inbox = open_relay.imap(*bob)
    wait_for(inbox, 6)
    inbox.create('Kept')
    mutt = NeoMutt(open_relay, bob, tmp_path)

    text = tmp_path / 'read.txt'
    screen = mutt.do(
        '<jump>2<enter><display-message><exit>'
        f'<jump>3<enter><pipe-message>cat >{text}<enter>'
        '<jump>4<enter><flag-message>'
        '<jump>5<enter><delete-message>'
        '<sync-mailbox><quit>'
    )
    assert 'letter-6' in screen
    assert 'The text 3.' in text.read_text()
    assert len(fetch_all(inbox)) == 5
    inbox.select('INBOX')
    assert inbox.search(None, 'SEEN')[1] == [b'2']
    assert inbox.search(None, 'FLAGGED')[1] == [b'4']
    assert inbox.search(None, 'SUBJECT letter-5')[1] == [b'']

    # into another mailbox, one that is there and one that is made for it
    mutt.do(
        '<jump>1<enter><save-message>=Kept<enter>'
        '<jump>2<enter><copy-message>=Made<enter>'
        '<sync-mailbox><quit>'
    )
    assert len(fetch_all(inbox)) == 4
    (kept,) = fetch_all(inbox, 'Kept').values()
    assert b'The text 1.' in kept
    (made,) = fetch_all(inbox, 'Made').values()
    assert b'The text 2.' in made

    # what another client does meanwhile is seen
    inbox.select('INBOX')
    inbox.store('1', '+FLAGS', '(\\Deleted)')
    inbox.expunge()
    screen = mutt.do(f'<search>letter-6<enter><pipe-message>cat >{text}<enter><quit>')
    assert 'The text 6.' in text.read_text()
    assert 'letter-2' not in screen
    inbox.logout()


def test_write_and_answer(open_relay: Relay, tmp_path: Path) -> None:
    alice, bob = open_relay.account('alice'), open_relay.account('bob')
    here, there = tmp_path / 'alice', tmp_path / 'bob'
    here.mkdir()
    there.mkdir()
    NeoMutt(open_relay, alice, here).send(bob[0], 'greeting', 'Hello Bob.\n')
    inbox = open_relay.imap(*bob)
    (message,) = wait_for(inbox, 1)
    assert b'Subject: greeting' in message
    assert b'Hello Bob.' in message
    inbox.create('Sent')

    NeoMutt(open_relay, bob, there).do(
        '<jump>1<enter><reply><send-message>', last=(b'Mail sent', b'q')
    )
    home = open_relay.imap(*alice)
    (answer,) = wait_for(home, 1)
    assert b'Subject: Re: greeting' in answer
    assert b'> Hello Bob.' in answer
    assert b'In-Reply-To: ' in answer
    inbox.select('INBOX')
    assert inbox.search(None, 'ANSWERED')[1] == [b'1']
    (copy,) = fetch_all(inbox, 'Sent').values()
    assert b'> Hello Bob.' in copy
    inbox.logout()
    home.logout()
