"""A real core gives its token to the relay, and each message to it is one notification.

The token comes from the system of a phone, so no RPC sets it; the core as a library does
(package `deltachat`).
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.core import Cores, cores_on, eventually, incoming, require_core
from tests.realtime.push.double import NotificationService
from tests.system.relay import Relay

MESSAGES = 4
SELF = 1  # contact id


class Phone:
    """One account of a core in this process."""

    def __init__(self, directory: Path, token: str) -> None:
        capi = pytest.importorskip('deltachat.capi')
        self._ffi, self._lib = capi.ffi, capi.lib
        path = str(directory).encode()
        self._accounts = self._lib.dc_accounts_new(path, 1)
        assert self._accounts != self._ffi.NULL
        self._rpc = self._lib.dc_jsonrpc_init(self._accounts)
        self._numbers = itertools.count(1)
        self._lib.dc_accounts_set_push_device_token(self._accounts, token.encode())
        known = self.call('get_all_account_ids')
        self.account: int = known[0] if known else self.call('add_account')

    def call(self, method: str, *params: Any) -> Any:
        request = {'jsonrpc': '2.0', 'id': next(self._numbers), 'method': method, 'params': params}
        answer = self._lib.dc_jsonrpc_blocking_call(self._rpc, json.dumps(request).encode())
        told = json.loads(self._ffi.string(answer))
        self._lib.dc_str_unref(answer)
        assert 'error' not in told, told['error']
        return told.get('result')

    def own(self, method: str, *params: Any) -> Any:
        return self.call(method, self.account, *params)

    def has(self, text: str, chat: int) -> bool:
        """Whether a message has come."""
        numbers = self.own('get_message_ids', chat, False, False)
        return any(self.own('get_message', number)['text'] == text for number in numbers)

    @property
    def push_state(self) -> int:
        """0 = no notifications, 1 = heartbeats, 2 = told by a relay."""
        context = self._lib.dc_accounts_get_account(self._accounts, self.account)
        try:
            state: int = self._lib.dc_get_push_state(context)
        finally:
            self._lib.dc_context_unref(context)
        return state

    def close(self) -> None:
        self.call('stop_io_for_all_accounts')
        self._lib.dc_jsonrpc_unref(self._rpc)
        self._lib.dc_accounts_unref(self._accounts)


@pytest.fixture
def service() -> Iterator[NotificationService]:
    with NotificationService() as made:
        yield made


def tokens(relay: Relay, person: tuple[str, str]) -> list[str]:
    """What the relay has, as it tells who asks."""
    client = relay.imap(*person)
    try:
        client.send(b'm GETMETADATA INBOX (/private/devicetoken)\r\n')
        answer = b''
        while b'\r\nm ' not in b'\r\n' + answer:
            answer += client.readline()
    finally:
        client.logout()
    found = re.search(rb'\}\r\n(.*)\)\r\n', answer)
    return found[1].decode().split(' ') if found else []


def test_each_message_to_a_phone_is_one_notification(
    tmp_path: Path, service: NotificationService
) -> None:
    require_core()
    pytest.importorskip('deltachat.capi')
    with (
        Relay(tmp_path / 'relay', {'push': {'url': service.url}}) as relay,
        cores_on(relay, tmp_path / 'cores') as cores,
    ):
        person = relay.credentials('bob')
        phone = Phone(tmp_path / 'phone', 'fcm-chat.delta:the-token-of-this-phone')
        try:
            phone.own('add_transport_from_qr', relay.dclogin(*person))
            phone.own('start_io')
            (token,) = eventually(lambda: tokens(relay, person), 'the token')
            assert token.startswith('openpgp:')
            eventually(lambda: phone.push_state == 2, 'the core believes in notifications')
            _told_of_each(cores, phone, service, token)
        finally:
            phone.close()
        # The same bytes after a new start: it is one device, not two.
        again = Phone(tmp_path / 'phone', 'fcm-chat.delta:the-token-of-this-phone')
        try:
            again.own('start_io')
            eventually(lambda: again.push_state == 2, 'it is told again')
            assert tokens(relay, person) == [token]
        finally:
            again.close()
        assert token not in relay.text()


def _told_of_each(
    cores: Cores,
    phone: Phone,
    service: NotificationService,
    token: str,
) -> None:
    (alice,) = cores.online('alice')
    (contact,) = alice.import_vcard(phone.own('make_vcard', [SELF]))
    chat = contact.create_chat()
    (friend,) = phone.own('import_vcard_contents', alice.make_vcard([alice.self_contact]))
    answers = phone.own('create_chat_by_contact_id', friend)
    for number in range(1, MESSAGES + 1):
        chat.send_text(f'message {number}')
        eventually(lambda number=number: phone.has(f'message {number}', answers), 'the message')
        service.wait(number)
    time.sleep(1.0)
    assert service.tokens == [token] * MESSAGES
    # What the phone does itself is no news to it.
    phone.own('misc_send_text_message', answers, 'an answer')
    assert incoming(alice, 'an answer')
    time.sleep(1.0)
    assert len(service.requests) == MESSAGES
