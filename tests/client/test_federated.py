"""People of two relays talk: real cores, real relays, signed mail, every transport."""

from __future__ import annotations

import email
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.client.core import Cores, cores_on, eventually, incoming, require_core, wait_event
from tests.delivery.name_server import NameServer
from tests.system import mail
from tests.system.relay import fetch_all, wait_for
from tests.web.conftest import WebRelay


class Pair(NamedTuple):
    """one.example and two.example, and a core on each."""

    one: Cores
    two: Cores

    def join(self, transport: str) -> None:
        """Each finds the other by this transport and no other."""
        for cores, far in ((self.one, self.two), (self.two, self.one)):
            other = far.relay
            assert isinstance(other, WebRelay)
            port = other.ports['smtp'] if transport == 'smtp' else other.web[transport]
            target = f'{transport}://127.0.0.1:{port}'
            cores.relay.cli('endpoint-cache', 'set', other.domain, target)


class People(NamedTuple):
    alice: Any  # of relay one
    carol: Any
    bob: Any  # of relay two


@pytest.fixture(scope='module')
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    require_core()
    directory = tmp_path_factory.mktemp('pair')
    with ExitStack() as stack:
        names = stack.enter_context(NameServer())
        options: dict[str, Any] = {
            'processes': {'gates': 1, 'shards': 2},
            'dns': {'servers': [names.address]},
        }
        both = []
        for name in ('one', 'two'):
            domain = {'domain': f'{name}.example'}
            relay = stack.enter_context(WebRelay(directory / name, {**options, **domain}))
            for one in json.loads(relay.cli('--json', 'dns').stdout)['data']['records']:
                if '_domainkey' in one['name']:
                    names.add(one['name'], one['type'], one['expected'])
            both.append(stack.enter_context(cores_on(relay, directory / name)))
        yield Pair(*both)


@pytest.fixture(scope='module', params=['https', 'http', 'smtp'])
def people(request: pytest.FixtureRequest, pair: Pair) -> Iterator[People]:
    pair.join(request.param)
    alice, carol = pair.one.online('alice', 'carol')
    (bob,) = pair.two.online('bob')
    yield People(alice, carol, bob)
    for account in (alice, carol, bob):
        account.stop_io()


def test_secure_join_and_chat_both_ways(people: People) -> None:
    alice, _, bob = people
    bob.secure_join(alice.get_qr_code())
    wait_event(bob, 'SecurejoinJoinerProgress', lambda e: e['progress'] == 1000)
    wait_event(alice, 'SecurejoinInviterProgress', lambda e: e['progress'] == 1000)
    bob.create_chat(alice).send_text('Hello over there')
    received = incoming(alice, 'Hello over there').get_snapshot()
    assert received.show_padlock
    received.chat.send_text('And back')
    assert incoming(bob, 'And back').get_snapshot().show_padlock


def test_a_group_across_both(people: People) -> None:
    alice, carol, bob = people
    group = alice.create_group('Both')
    for other in (carol, bob):
        group.add_contact(other)
    group.send_text('Welcome')
    chats = []
    for other in (carol, bob):
        snapshot = incoming(other, 'Welcome').get_snapshot()
        snapshot.chat.accept()
        chats.append(snapshot.chat)
        assert len(snapshot.chat.get_contacts()) == 3
    # Bob's relay has to hand this to two people of the other one.
    chats[1].send_text('Hello from Bob')
    for receiver in (alice, carol):
        assert incoming(receiver, 'Hello from Bob').get_snapshot().show_padlock


def test_a_file_of_three_megabytes(people: People, tmp_path: Path) -> None:
    alice, _, bob = people
    path = tmp_path / 'film.bin'
    path.write_bytes(os.urandom(3_000_000))
    bob.create_chat(alice)
    alice.create_chat(bob).send_message(text='The film', file=str(path))
    message = incoming(bob)  # without the file, which comes in a second one

    def arrived() -> str | None:
        snapshot = message.get_snapshot()
        return snapshot.file if snapshot.download_state == 'Done' else None

    received = eventually(arrived, 'the file')
    digest = hashlib.sha256(Path(received).read_bytes()).hexdigest()
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def blocked(pair: Pair) -> Iterator[None]:
    """Relay two wants nothing of relay one."""
    pair.two.relay.cli('federation', 'block', pair.one.relay.domain)
    yield
    pair.two.relay.cli('federation', 'remove', pair.one.relay.domain)


@pytest.mark.usefixtures('blocked')
def test_mail_that_is_refused_for_good_is_shown_as_failed(people: People) -> None:
    alice, _, bob = people
    alice.set_config('force_encryption', '0')  # with it the core throws all plain mail away
    sent = alice.create_chat(bob).send_text('Do you read me?')
    wait_event(alice, 'MsgDelivered', lambda e: e['msgId'] == sent.id)
    wait_event(alice, 'MsgFailed', lambda e: e['msgId'] == sent.id)
    assert 'Policy Rejection' in (sent.get_snapshot().error or '')


@pytest.mark.usefixtures('blocked')
def test_a_report_reaches_any_mail_program(pair: Pair, people: People) -> None:
    relay = pair.one.relay
    dan = relay.account('dan')
    to = pair.two.address(people.bob)
    ident = mail.message_id()
    with relay.smtp(*dan) as client:
        assert client.sendmail(dan[0], [to], mail.encrypted(dan[0], to, ident=ident)) == {}
    with relay.imap(*dan) as inbox:
        [text] = wait_for(inbox, 1)
        assert len(fetch_all(inbox)) == 1
    report = email.message_from_bytes(text)
    assert report.get_content_type() == 'multipart/report'
    assert f'mailer-daemon@{relay.domain}' in str(report['From']).lower()
    _, status, original = report.get_payload()  # type: ignore[misc]
    recipient = status.get_payload()[1]  # type: ignore[union-attr,index]
    assert recipient['Action'] == 'failed'
    assert recipient['Final-Recipient'] == f'rfc822; {to}'
    assert recipient['Status'] == '5.7.1'
    assert ident.encode() in original.as_bytes()  # type: ignore[union-attr]
