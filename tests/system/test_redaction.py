"""No-log is a promise: whatever the relay writes names nobody and no message."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import pytest

from tests.system import mail
from tests.system.relay import Relay, fetch_all, plain_token, running, wait_for

ADDRESS = re.compile(rb'[A-Za-z0-9._%+-]+@[A-Za-z0-9\[][A-Za-z0-9.\]-]*')
IPV4 = re.compile(rb'(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])')


def exercise(relay: Relay) -> list[str]:
    """Good and bad use of everything; the personal strings that were involved."""
    alice, bob = relay.account('alice'), relay.account('bob')
    ident = mail.message_id()
    marks = [ident, 'Very-Private-Subject', 'wrong-password-77', 'evil-name', alice[1], bob[1]]
    with relay.smtp(*alice) as smtp:
        good = mail.encrypted(alice[0], ident=ident)
        smtp.sendmail(alice[0], [bob[0]], good.replace(b'[...]', b'Very-Private-Subject'))
        for bad in mail.forgeries(alice[0], bob[0]).values():
            with contextlib.suppress(Exception):
                smtp.sendmail(alice[0], [bob[0]], bad)
        with contextlib.suppress(Exception):
            smtp.sendmail(bob[0], [bob[0]], good)
        unknown = f'evil-name@{relay.domain}'
        smtp.sendmail(alice[0], [unknown], mail.encrypted(alice[0]))
        elsewhere = mail.encrypted(alice[0], 'evil-name@unreachable.invalid')
        with contextlib.suppress(Exception):
            smtp.sendmail(alice[0], ['evil-name@unreachable.invalid'], elsewhere)
    for password in ('wrong-password-77', bob[1]):
        with contextlib.suppress(Exception):
            inbox = relay.imap(bob[0], password)
            wait_for(inbox, 1)
            for line in ('FETCH 1 (NONSENSE evil-name)', 'SELECT "evil-name@chat.example"', 'XYZ'):
                inbox.send(f'z {line}\r\n'.encode())
                inbox.readline()
            inbox.append('INBOX', '', '', mail.plain(bob[0], alice[0]))
            fetch_all(inbox)
            inbox.logout()
    for name in ('smtp', 'submission', 'imap', 'submissions', 'imaps'):
        with contextlib.suppress(OSError), relay.connect(name) as stream:
            stream.settimeout(1)
            token = plain_token(*alice).encode()
            stream.sendall(
                b'EHLO evil-name@helo.example\r\nMAIL FROM:<evil-name@other.example>\r\n'
                b'RCPT TO:<evil-name@chat.example>\r\nAUTH PLAIN ' + token + b'\r\n\xff\xfe\0\r\n'
            )
            while stream.recv(4096):
                pass
    relay.cli('accounts', 'delete', '-y', bob[0], check=False)
    return [*marks, alice[0], bob[0], alice[0].partition('@')[0], bob[0].partition('@')[0]]


def written(relay: Relay) -> bytes:
    """Everything of the relay that is text for people: output and logs, no databases or keys."""
    found = relay.output.read_bytes()
    for path in relay.directory.rglob('*'):
        if path.is_file() and (path.suffix in ('.log', '.txt', '.out') or 'log' in path.parts):
            found += path.read_bytes()
    return found


@pytest.mark.parametrize('log', ['stderr', 'file'])
def test_the_debug_log_names_nobody(room: Path, log: str) -> None:
    target = 'stderr' if log == 'stderr' else str(room / 'relay.log')
    with running(room, {'log': target, 'log_level': 'debug'}) as relay:
        marks = exercise(relay)
    text = written(relay)
    assert len(text) > 500, 'the log was to be on'
    # What the operator configured, and the link he is shown at the start, are no secrets.
    text = re.sub(rb'(?m)^dclogin:.*$', b'', text)
    for port in relay.ports.values():
        text = text.replace(f'127.0.0.1:{port}'.encode(), b'')
    for mark in marks:
        assert mark.encode() not in text, mark
    assert ADDRESS.findall(text) == []
    assert IPV4.findall(text) == []


def test_with_the_log_off_nothing_is_written(room: Path) -> None:
    with running(room) as relay:
        relay.status()
        time.sleep(1)  # for the operator's welcome with ports and link
        quiet = len(relay.text())
        marks = exercise(relay)
        said = relay.text()[quiet:]
    assert said.strip() == ''
    for mark in marks:
        assert mark not in relay.text()
    logs = [path for path in relay.directory.rglob('*') if path.suffix == '.log']
    assert logs == []


def test_names_of_files_name_nobody(room: Path) -> None:
    with running(room) as relay:
        alice, bob = relay.account('alice'), relay.account('bob')
        with relay.smtp(*alice) as smtp:
            smtp.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0], size=500_000))
        names = ' '.join(str(path) for path in relay.state_dir.rglob('*'))
        for address in (alice[0], bob[0]):
            assert address.partition('@')[0] not in names
