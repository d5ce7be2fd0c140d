"""A backup of a relay under load, restored elsewhere, compared over IMAP."""

from __future__ import annotations

import imaplib
import json
import os
import re
import signal
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system import mail
from tests.system.relay import ROOT, Relay, fetch_all

Person = tuple[str, str]


def restored(relay: Relay, directory: Path, archive: Path) -> Relay:
    """The relay of a backup in a new directory, with the same configuration but this."""
    other = Relay(directory, {**relay.options, 'state_dir': str(directory / 'state')})
    other.ports = relay.ports
    other.write_config(listen=relay.options['listen'])
    other.cli('backup', 'restore', str(archive))
    return other


def numbers(client: imaplib.IMAP4) -> dict[str, int]:
    _, data = client.status('INBOX', '(UIDVALIDITY UIDNEXT HIGHESTMODSEQ MESSAGES)')
    pairs = re.findall(r'([A-Z]+) (\d+)', data[0].decode())
    return {name: int(value) for name, value in pairs}


def flags(client: imaplib.IMAP4) -> dict[int, set[bytes]]:
    client.select('INBOX')
    _, rows = client.uid('FETCH', '1:*', '(UID FLAGS)')
    found = {}
    for row in rows:
        if row is not None:
            uid = int(re.search(rb'UID (\d+)', row)[1])  # type: ignore[index]
            found[uid] = set(imaplib.ParseFlags(row)) - {b'\\Recent'}
    return found


@contextmanager
def load(relay: Relay, people: list[Person]) -> Iterator[list[bytes]]:
    """Somebody sends to everybody as long as this lasts; the texts that were accepted."""
    ended = threading.Event()
    accepted: list[bytes] = []

    def work() -> None:
        sender = people[0]
        with relay.smtp(*sender) as client:
            while not ended.is_set():
                size = 200_000 if len(accepted) % 10 == 0 else 2_000
                text = mail.encrypted(sender[0], people[1][0], size=size)
                try:
                    client.sendmail(sender[0], [who for who, _ in people[1:]], text)
                except smtplib.SMTPException:
                    return
                accepted.append(text)
                time.sleep(0.005)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield accepted
    finally:
        ended.set()
        thread.join()


def test_a_backup_under_load_is_one_state(tmp_path: Path) -> None:
    archive = tmp_path / 'relay.backup'
    with Relay(tmp_path / 'one') as relay:
        people = [relay.account(name) for name in ('alice', 'bob', 'carol', 'dave')]
        clients = [relay.imap(*person) for person in people[1:]]
        with load(relay, people) as accepted:
            while len(accepted) < 30:
                time.sleep(0.02)
            for client in clients:
                client.select('INBOX')
                client.uid('STORE', '3:9', '+FLAGS', r'(\Seen $Forwarded)')
                client.uid('STORE', '1:2', '+FLAGS', r'(\Deleted)')
                client.expunge()
            certain = len(accepted)
            made = relay.cli('--json', 'backup', 'create', str(archive))
            data = json.loads(made.stdout)['data']
            assert data['written'] == archive.stat().st_size
            assert archive.stat().st_mode & 0o077 == 0
            later = len(accepted) + 10
            while len(accepted) < later:
                time.sleep(0.02)
        assert not list((relay.state_dir / 'shards').glob('*/backup'))
        before = [(fetch_all(client), flags(client), numbers(client)) for client in clients]
        for client in clients:
            client.logout()
    assert 'It is whole.' in relay.cli('backup', 'verify', str(archive)).stdout
    with restored(relay, tmp_path / 'two', archive) as other:
        for person, (messages, marks, counts) in zip(people[1:], before, strict=True):
            client = other.imap(*person)
            found, found_marks, found_counts = fetch_all(client), flags(client), numbers(client)
            assert certain - 2 <= len(found) <= len(messages)
            # A prefix of what there was later, message by message, as it was.
            assert found == {uid: messages[uid] for uid in sorted(messages)[: len(found)]}
            assert found_marks == {uid: marks[uid] for uid in found}
            assert found_counts['UIDVALIDITY'] == counts['UIDVALIDITY']
            assert found_counts['UIDNEXT'] > counts['UIDNEXT']
            assert found_counts['HIGHESTMODSEQ'] > counts['HIGHESTMODSEQ']
            client.logout()
        with other.smtp(*people[0]) as client:
            text = mail.encrypted(people[0][0], people[1][0])
            client.sendmail(people[0][0], [people[1][0]], text)


def test_a_stopped_relay_and_a_pipe(tmp_path: Path) -> None:
    with Relay(tmp_path / 'one') as relay:
        alice, bob = relay.account('alice'), relay.account('bob')
        with relay.smtp(*alice) as client:
            client.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0], bob[0]))
    command = [sys.executable, '-m', 'madmail', '--config', str(relay.config), 'backup']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    whole = subprocess.run([*command, 'create', '-'], capture_output=True, env=environment)
    assert (whole.returncode, whole.stderr) == (0, b'')
    proof = subprocess.run(
        [*command, 'verify', '-'], input=whole.stdout, capture_output=True, env=environment
    )
    assert proof.returncode == 0
    archive = tmp_path / 'relay.backup'
    archive.write_bytes(whole.stdout)
    with restored(relay, tmp_path / 'two', archive) as other:
        client = other.imap(*bob)
        assert len(fetch_all(client)) == 1
        client.logout()


def test_refusals_are_clear(tmp_path: Path) -> None:
    with Relay(tmp_path / 'one') as relay:
        archive = tmp_path / 'relay.backup'
        relay.cli('backup', 'create', str(archive))

        def refused(*arguments: str) -> str:
            answer = relay.cli('backup', *arguments, check=False)
            assert answer.returncode == 1
            assert answer.stderr.startswith('Error: ')
            assert 'Traceback' not in answer.stderr
            return answer.stderr

        assert 'is there already' in refused('create', str(archive))
        assert 'is not empty' in refused('restore', str(archive))
        assert 'No such file' in refused('restore', str(tmp_path / 'nothing'))
        (tmp_path / 'cut').write_bytes(archive.read_bytes()[:-50])
        assert 'cut off' in refused('verify', str(tmp_path / 'cut'))
        assert 'No such file' in refused('create', str(tmp_path / 'no' / 'such'))
        relay.account('alice')  # still there
    assert not list(tmp_path.glob('*.partial'))


@pytest.mark.parametrize('delay', [0.0, 0.15, 0.3])
def test_a_restore_that_is_killed_leaves_nothing_half(tmp_path: Path, delay: float) -> None:
    with Relay(tmp_path / 'one') as relay:
        alice, bob = relay.account('alice'), relay.account('bob')
        with relay.smtp(*alice) as client:
            for _ in range(20):
                text = mail.encrypted(alice[0], bob[0], size=1_000_000)
                client.sendmail(alice[0], [bob[0]], text)
        archive = tmp_path / 'relay.backup'
        relay.cli('backup', 'create', str(archive))
    there = tmp_path / 'two' / 'state'
    command = [sys.executable, '-m', 'madmail', '--config', str(relay.config)]
    command += ['--state-dir', str(there), 'backup', 'restore', str(archive)]
    process = subprocess.Popen(command, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    while process.poll() is None and not list(there.parent.glob('.state.restore-*')):
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if there.exists():  # it was faster than the signal
        assert (there / 'control.db').exists()
    else:
        relay.cli('--state-dir', str(there), 'backup', 'restore', str(archive))
    other = Relay(tmp_path / 'two', {**relay.options, 'state_dir': str(there)})
    other.ports = relay.ports
    with other:
        client = other.imap(*bob)
        assert len(fetch_all(client)) == 20
        client.logout()
