"""The real core through expiry, trimming and a notice of the operator."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from tests.client.core import Cores, eventually, incoming, wait_event


def told(cores: Cores, *words: str) -> Any:
    return json.loads(cores.relay.cli('--json', *words).stdout)['data']


def age(cores: Cores, user: str) -> None:
    """Make everything in an account's INBOX two days old: new copies, and the others go."""
    relay = cores.relay
    client = relay.imap(*next(p for p in cores.credentials.values() if p[0] == user))
    client.select('INBOX')
    for uid in client.uid('SEARCH', 'ALL')[1][0].split():
        octets = client.uid('FETCH', uid, '(BODY.PEEK[])')[1][0][1]
        date = time.strftime('"%d-%b-%Y %H:%M:%S +0000"', time.gmtime(time.time() - 2 * 86_400))
        client.append('INBOX', '', date, octets)
        client.uid('STORE', uid, '+FLAGS', '\\Deleted')
    client.expunge()
    client.logout()


def test_goes_on_after_everything_has_expired(cores: Cores) -> None:
    alice, bob = cores.online('alice', 'bob')
    bob.set_config('bcc_self', '1')  # else it deletes what it has fetched
    to_bob, to_alice = alice.create_chat(bob), bob.create_chat(alice)
    for number in range(3):
        to_bob.send_text(f'before {number}')
        incoming(bob, f'before {number}')
    age(cores, cores.address(bob))
    assert told(cores, 'tasks', 'run', 'retention', '--retention', '24h')['deleted'] >= 3
    assert told(cores, 'quota', 'get', cores.address(bob))['used_bytes'] == 0
    for chat, receiver in ((to_bob, bob), (to_alice, alice)):
        chat.send_text('after')
        assert incoming(receiver, 'after').get_snapshot().show_padlock
    # What was received stays with its receiver.
    texts = [message.get_snapshot().text for message in to_alice.get_messages()]
    assert 'before 0' in texts


def test_goes_on_while_its_account_is_trimmed(cores: Cores, tmp_path: Path) -> None:
    alice, bob = cores.online('alice', 'bob')
    bob.set_config('bcc_self', '1')  # else it deletes what it has fetched
    to_bob, _ = alice.create_chat(bob), bob.create_chat(alice)
    address = cores.address(bob)
    told(cores, 'quota', 'set', address, '400K')
    picture = tmp_path / 'noise.bin'
    for number in range(4):
        picture.write_bytes(os.urandom(100_000))
        to_bob.send_message(text=f'file {number}', file=str(picture))
        message = incoming(bob, f'file {number}')
        eventually(lambda message=message: message.get_snapshot().file, 'the file', 30)
        age(cores, address)
    used = told(cores, 'quota', 'get', address)['used_bytes']
    assert used <= 400 * 1024
    to_bob.send_text('last')
    assert incoming(bob, 'last').get_snapshot().show_padlock


def test_shows_a_notice_of_the_operator_to_who_takes_unencrypted_mail(cores: Cores) -> None:
    (alice,) = cores.online('alice')
    alice.set_config('force_encryption', '0')
    words = ('-s', 'Wartung am Abend – ä', '-b', 'Bis später!', '--to', cores.address(alice))
    assert told(cores, 'notice', 'send', *words) == {'sent': 1, 'failed': 0}
    event = wait_event(alice, 'IncomingMsg')
    snapshot = alice.get_message_by_id(event['msgId']).get_snapshot()
    assert snapshot.text == 'Wartung am Abend – ä – Bis später!'
    assert not snapshot.show_padlock
    assert snapshot.sender.get_snapshot().address == f'admin@{cores.relay.domain}'
