"""What people do with Delta Chat, done by its real core on a real relay."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.client.core import Cores, cores_on, eventually, incoming, wait_event
from tests.system import mail
from tests.system.relay import Relay, fetch_all, wait_for


def failed(message: Any) -> str:
    """The text that the user sees with a failed message."""
    snapshot = message.get_snapshot()
    return snapshot.error or ''


def befriend(first: Any, second: Any) -> tuple[Any, Any]:
    """Accepted chats on both sides; keys travel by vCard."""
    return first.create_chat(second), second.create_chat(first)


def test_configure_creates_the_account(cores: Cores) -> None:
    (alice,) = cores.online('alice')
    info = alice.get_info()
    assert cores.address(alice) in str(alice.list_transports())
    assert info
    cores.relay.imap(*cores.credentials[alice.id]).logout()


def test_wrong_password_is_refused_and_said(cores: Cores) -> None:
    address, _ = cores.relay.account('alice')
    account = cores.delta.add_account()
    with pytest.raises(Exception, match=r'(?i)login|authentication|password'):
        account.add_transport_from_qr(cores.relay.dclogin(address, 'a-wrong-password'))
    assert not account.is_configured()


def test_messages_both_ways(cores: Cores) -> None:
    alice, bob = cores.online('alice', 'bob')
    to_bob, to_alice = befriend(alice, bob)
    times = []
    for number in range(5):
        for chat, receiver in ((to_bob, bob), (to_alice, alice)):
            text = f'Hello {number}'
            began = time.monotonic()
            chat.send_text(text)
            message = incoming(receiver, text)
            times.append(time.monotonic() - began)
            snapshot = message.get_snapshot()
            assert snapshot.text == text
            assert snapshot.show_padlock
    times.sort()
    print(
        f'\ndelivery, send to event, {len(times)} messages: '
        f'median {times[len(times) // 2] * 1000:.0f} ms, slowest {times[-1] * 1000:.0f} ms'
    )


def test_secure_join(cores: Cores) -> None:
    alice, bob = cores.online('alice', 'bob')
    bob.secure_join(alice.get_qr_code())
    wait_event(bob, 'SecurejoinJoinerProgress', lambda e: e['progress'] == 1000)
    wait_event(alice, 'SecurejoinInviterProgress', lambda e: e['progress'] == 1000)
    bob.create_chat(alice).send_text('Joined')
    assert incoming(alice, 'Joined').get_snapshot().show_padlock


def test_group_of_four(cores: Cores) -> None:
    alice, *others = cores.online('alice', 'bob', 'carol', 'dave')
    group = alice.create_group('Four')
    for other in others:
        group.add_contact(other)
    group.send_text('Welcome all')
    chats = []
    for other in others:
        snapshot = incoming(other, 'Welcome all').get_snapshot()
        snapshot.chat.accept()
        chats.append(snapshot.chat)
        assert len(snapshot.chat.get_contacts()) == 4
    chats[0].send_text('Hello from Bob')
    for receiver in (alice, *others[1:]):
        assert incoming(receiver, 'Hello from Bob')


def test_file_of_three_megabytes_arrives_unchanged(cores: Cores, tmp_path: Path) -> None:
    alice, bob = cores.online('alice', 'bob')
    to_bob, _ = befriend(alice, bob)
    path = tmp_path / 'film.bin'
    path.write_bytes(os.urandom(3_000_000))
    to_bob.send_message(text='The film', file=str(path))
    message = incoming(bob)  # the pre-message; the file follows in a second one

    def arrived() -> str | None:
        snapshot = message.get_snapshot()
        return snapshot.file if snapshot.download_state == 'Done' else None

    received = eventually(arrived, 'download')
    digest = hashlib.sha256(Path(received).read_bytes()).hexdigest()
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_read_receipts_and_reactions(cores: Cores) -> None:
    alice, bob = cores.online('alice', 'bob')
    to_bob, to_alice = befriend(alice, bob)
    sent = to_bob.send_text('Seen?')
    received = incoming(bob, 'Seen?')
    to_alice.mark_noticed()
    received.mark_seen()
    wait_event(alice, 'MsgRead', lambda e: e['msgId'] == sent.id)
    received.send_reaction('👍')
    wait_event(alice, 'IncomingReaction')
    reactions = sent.get_reactions()
    assert reactions is not None
    assert '👍' in str(reactions)


def test_second_device_sees_what_the_first_sends(cores: Cores, tmp_path: Path) -> None:
    alice, bob = cores.online('alice', 'bob')
    to_bob, to_alice = befriend(alice, bob)
    alice.set_config('bcc_self', '1')
    alice.stop_io()
    alice.export_backup(tmp_path)
    (backup,) = tmp_path.glob('*.tar')
    second = cores.delta.add_account()
    second.import_backup(backup)
    second.set_config('bcc_self', '1')
    alice.start_io()
    second.bring_online()
    to_bob.send_text('From the first device')
    assert incoming(bob, 'From the first device')

    def copied() -> bool:
        for chat in second.get_chatlist():
            for message in chat.get_messages():
                if message.get_snapshot().text == 'From the first device':
                    return True
        return False

    eventually(copied, 'copy on the second device')
    to_alice.send_text('To both')
    assert incoming(alice, 'To both')
    assert incoming(second, 'To both')


def test_plaintext_is_refused_and_the_client_says_so(cores: Cores) -> None:
    (alice,) = cores.online('alice')
    alice.set_config('force_encryption', '0')
    stranger, _ = cores.relay.account('bob')
    chat = alice.create_contact(stranger, 'Stranger').create_chat()
    sent = chat.send_text('In the clear')
    wait_event(alice, 'MsgFailed', lambda e: e['msgId'] == sent.id)
    assert 'Invalid Unencrypted Mail' in failed(sent)


def test_message_by_a_stranger_with_a_stock_client_stays_out(cores: Cores) -> None:
    (bob,) = cores.online('bob')
    alice = cores.relay.account('alice')
    with cores.relay.smtp(*alice) as smtp:
        with pytest.raises(Exception, match='523'):
            smtp.sendmail(alice[0], [cores.address(bob)], mail.plain(alice[0], cores.address(bob)))
        # undecipherable but well formed: the core takes it from the mailbox and goes on
        smtp.sendmail(alice[0], [cores.address(bob)], mail.encrypted(alice[0]))
    inbox = cores.relay.imap(*cores.credentials[bob.id])
    eventually(lambda: fetch_all(inbox) == {}, 'download and deletion by the core')
    inbox.logout()


def test_a_message_to_nobody_comes_back(cores: Cores) -> None:
    alice, bob = cores.online('alice', 'bob')
    to_bob, _ = befriend(alice, bob)
    bob.stop_io()
    cores.relay.cli('accounts', 'delete', '-y', cores.address(bob))
    alice.stop_io()
    to_bob.send_text('Anyone there?')
    inbox = cores.relay.imap(*cores.credentials[alice.id])
    alice.start_io()
    wait_event(alice, 'MsgDelivered')
    alice.stop_io()
    # The core may have fetched the bounce before it stopped: then the mailbox is empty again.
    _, rows = inbox.status('INBOX', '(UIDNEXT)')
    assert rows != [b'"INBOX" (UIDNEXT 1)']
    inbox.logout()


def test_connectivity_shows_the_quota(cores: Cores) -> None:
    (alice,) = cores.online('alice')

    def shown() -> str | None:
        html: str = alice._rpc.get_connectivity_html(alice.id)
        return html if '500' in html and '%' in html else None

    html = eventually(shown, 'quota in the connectivity view')
    assert 'not supported' not in html.lower()
    assert alice._rpc.get_connectivity(alice.id) == 4000


def test_reload_and_restart_are_not_noticed(tmp_path: Path) -> None:
    relay = Relay(tmp_path / 'relay').start()
    try:
        with cores_on(relay, tmp_path) as cores:
            alice, bob = cores.online('alice', 'bob')
            to_bob, _ = befriend(alice, bob)
            to_bob.send_text('Before')
            assert incoming(bob, 'Before')
            relay.reload()
            to_bob.send_text('After the reload')
            assert incoming(bob, 'After the reload')
            relay.stop()
            relay.start()
            cores.delta.maybe_network()
            to_bob.send_text('After the restart')
            assert incoming(bob, 'After the restart')
    finally:
        relay.stop()


def test_ip_literal_relay(tmp_path: Path) -> None:
    relay = Relay(tmp_path / 'relay', {'domain': '127.0.0.1'}).start()
    try:
        with cores_on(relay, tmp_path) as cores:
            alice, bob = cores.online('alice', 'bob')
            assert cores.address(bob).endswith('@[127.0.0.1]')
            to_bob, _ = befriend(alice, bob)
            to_bob.send_text('By number')
            assert incoming(bob, 'By number')
    finally:
        relay.stop()


def test_mail_waits_while_the_phone_is_off(cores: Cores) -> None:
    alice, bob = cores.online('alice', 'bob')
    to_bob, _ = befriend(alice, bob)
    bob.stop_io()
    for number in range(10):
        sent = to_bob.send_text(f'Waiting {number}')
    wait_event(alice, 'MsgDelivered', lambda e: e['msgId'] == sent.id)
    inbox = cores.relay.imap(*cores.credentials[bob.id])
    wait_for(inbox, 10)
    bob.start_io()
    for number in range(10):
        assert incoming(bob, f'Waiting {number}')
    eventually(lambda: fetch_all(inbox) == {}, 'deletion after download')
    # UIDs go on where they were
    assert inbox.status('INBOX', '(UIDNEXT)')[1] == [b'"INBOX" (UIDNEXT 11)']
    inbox.logout()
