"""Two devices of one account see the same, whichever of them is used."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.client.core import Cores, eventually
from tests.system.relay import fetch_all


class Devices(NamedTuple):
    first: Any
    second: Any  # of the same account
    bob: Any  # somebody else
    to_bob: Any
    from_bob: Any


@pytest.fixture
def devices(cores: Cores, tmp_path: Path) -> Devices:
    first, bob = cores.online('alice', 'bob')
    to_bob, from_bob = first.create_chat(bob), bob.create_chat(first)
    first.set_config('bcc_self', '1')
    first.stop_io()
    first.export_backup(tmp_path)
    (backup,) = tmp_path.glob('*.tar')
    second = cores.delta.add_account()
    second.import_backup(backup)
    first.start_io()
    second.bring_online()
    return Devices(first, second, bob, to_bob, from_bob)


def find(account: Any, text: str) -> Any:
    """The message with this text, if the account has it."""
    for chat in account.get_chatlist():
        for message in chat.get_messages():
            with contextlib.suppress(Exception):  # JsonRpcError: deleted since it was listed
                if message.get_snapshot().text == text:
                    return message
    return None


def found(account: Any, text: str) -> Any:
    return eventually(lambda: find(account, text), text)


def gone(account: Any, text: str) -> None:
    eventually(lambda: find(account, text) is None, f'no more {text}')


def test_what_is_read_on_one_is_read_on_the_other(devices: Devices) -> None:
    devices.from_bob.send_text('Read me')
    here, there = found(devices.first, 'Read me'), found(devices.second, 'Read me')
    assert len(devices.second.get_fresh_messages()) == 1
    here.mark_seen()
    eventually(lambda: devices.second.get_fresh_messages() == [], 'read on the other device')
    assert there.get_snapshot().text == 'Read me'


def test_what_is_deleted_on_one_is_gone_on_the_other(devices: Devices) -> None:
    devices.from_bob.send_text('Forget me')
    here = found(devices.first, 'Forget me')
    found(devices.second, 'Forget me')
    devices.first.delete_messages([here])
    gone(devices.second, 'Forget me')
    assert find(devices.bob, 'Forget me')


def test_what_is_taken_back_is_gone_everywhere(devices: Devices, cores: Cores) -> None:
    sent = devices.to_bob.send_text('Never mind')
    for account in (devices.second, devices.bob):
        found(account, 'Never mind')
    devices.first._rpc.delete_messages_for_all(devices.first.id, [sent.id])
    for account in (devices.second, devices.bob):
        gone(account, 'Never mind')
    inbox = cores.relay.imap(*cores.credentials[devices.bob.id])
    eventually(lambda: fetch_all(inbox) == {}, 'download and deletion by the core')
    inbox.logout()
