"""Real cores whose relay dies, or whose network does, in the middle of something."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.client.core import Cores, cores_on, eventually, incoming, require_core, wait_event
from tests.client.line import Line
from tests.system.relay import Relay

FILE = 3_000_000  # octets
HALF = 1_500_000
WAIT = 120.0  # a core waits half a minute before it tries again


@pytest.fixture
def imap(relay: Relay) -> Iterator[Line]:
    with closing(Line(relay.ports['imaps'])) as line:
        yield line


@pytest.fixture
def smtp(relay: Relay) -> Iterator[Line]:
    with closing(Line(relay.ports['submissions'])) as line:
        yield line


def over(cores: Cores, name: str, imap: Line, smtp: Line) -> Any:
    """An account that reaches its relay by these lines only."""
    person = cores.relay.credentials(name)
    link = cores.relay.dclogin(*person)
    for ports, line in (('ip=', imap), ('sp=', smtp)):
        service = 'imaps' if line is imap else 'submissions'
        link = link.replace(f'{ports}{cores.relay.ports[service]}', f'{ports}{line.port}')
    account = cores.delta.add_account()
    account.add_transport_from_qr(link)
    account.bring_online()
    cores.credentials[account.id] = person
    return account


def film(directory: Path) -> tuple[Path, str]:
    path = directory / 'film.bin'
    path.write_bytes(os.urandom(FILE))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def arrived(message: Any) -> str:
    """The digest of the file of a message, once it is there."""

    def there() -> str | None:
        snapshot = message.get_snapshot()
        return snapshot.file if snapshot.download_state == 'Done' else None

    return hashlib.sha256(Path(eventually(there, 'the file', WAIT)).read_bytes()).hexdigest()


def test_an_upload_that_is_cut_is_made_again_and_leaves_nothing(
    cores: Cores, imap: Line, smtp: Line, tmp_path: Path
) -> None:
    alice, bob = over(cores, 'alice', imap, smtp), *cores.online('bob')
    path, digest = film(tmp_path)
    bob.create_chat(alice)
    smtp.cut_after(HALF, up=True)
    alice.create_chat(bob).send_message(text='The film', file=str(path))
    assert smtp.cut.wait(WAIT)
    cores.delta.maybe_network()
    event = wait_event(bob, 'IncomingMsg', wait=WAIT)
    message = bob.get_message_by_id(event['msgId'])  # the file comes in a second one
    cores.delta.maybe_network()
    assert arrived(message) == digest
    inbox = cores.relay.imap(*cores.credentials[bob.id])
    assert inbox.status('INBOX', '(UIDNEXT)')[1] == [b'"INBOX" (UIDNEXT 3)']
    inbox.logout()


def test_a_download_that_is_cut_arrives_whole_and_once(
    cores: Cores, imap: Line, smtp: Line, tmp_path: Path
) -> None:
    (alice,), bob = cores.online('alice'), over(cores, 'bob', imap, smtp)
    path, digest = film(tmp_path)
    bob.create_chat(alice)
    imap.cut_after(HALF, up=False)
    alice.create_chat(bob).send_message(text='The film', file=str(path))
    message = incoming(bob)
    assert imap.cut.wait(WAIT)
    assert arrived(message) == digest
    texts = [each.get_snapshot().text for each in message.get_snapshot().chat.get_messages()]
    assert Counter(texts)['The film'] == 1


def test_a_relay_killed_in_mid_sending_loses_and_doubles_nothing(tmp_path: Path) -> None:
    require_core()
    relay = Relay(tmp_path / 'relay', keeper=True).start()
    try:
        with cores_on(relay, tmp_path) as cores:
            alice, bob = cores.online('alice', 'bob')
            to_bob, to_alice = alice.create_chat(bob), bob.create_chat(alice)
            expected = [f'Message {number}' for number in range(30)]
            for text in expected[:15]:
                to_bob.send_text(text)
            wait_event(bob, 'IncomingMsg')
            relay.kill_master()
            for text in expected[15:]:
                last = to_bob.send_text(text)
            relay.wait_ready()
            cores.delta.maybe_network()

            def received() -> list[str]:
                snapshots = [each.get_snapshot() for each in to_alice.get_messages()]
                return sorted(each.text for each in snapshots if each.text in expected)

            eventually(lambda: len(received()) >= len(expected), 'all messages', WAIT)
            assert received() == sorted(expected)
            wait_event(alice, 'MsgDelivered', lambda e: e['msgId'] == last.id, WAIT)
    finally:
        relay.stop()
