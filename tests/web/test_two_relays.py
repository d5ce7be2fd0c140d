"""Two relays and their operators: what the commands change is what the mail does."""

from __future__ import annotations

import json
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import mail
from tests.system.relay import wait_for
from tests.web.conftest import WebRelay

OPTIONS = {'federation.dkim': 'off'}  # no DNS here


@pytest.fixture(scope='module')
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WebRelay, WebRelay]]:
    room = tmp_path_factory.mktemp('pair')
    with (
        WebRelay(room / 'a', {'domain': 'a.example', **OPTIONS}) as ours,
        WebRelay(room / 'b', {'domain': 'b.example', **OPTIONS}) as theirs,
    ):
        target = f'https://127.0.0.1:{theirs.web["https"]}'
        ours.cli('endpoint-cache', 'set', 'B.example', target)
        yield ours, theirs


def _send(relay: WebRelay, account: tuple[str, str], *recipients: str) -> bytes:
    message = mail.encrypted(account[0])
    with relay.smtp(*account) as client:
        client.sendmail(account[0], recipients, message)
    return message


def test_an_endpoint_leads_to_the_other_relay(pair: tuple[WebRelay, WebRelay]) -> None:
    ours, theirs = pair
    alice, bob, eve = ours.account(), theirs.account(), theirs.account()
    sent = _send(ours, alice, bob[0], eve[0])
    for account in (bob, eve):
        with theirs.imap(*account) as inbox:
            (found,) = wait_for(inbox, 1)
        assert found.partition(b'\r\n\r\n')[2] == sent.partition(b'\r\n\r\n')[2]


def test_the_peers_policy_comes_back_as_a_bounce(pair: tuple[WebRelay, WebRelay]) -> None:
    ours, theirs = pair
    alice, bob = ours.account(), theirs.account()
    theirs.cli('federation', 'block', 'A.example.')
    try:
        _send(ours, alice, bob[0])
        with ours.imap(*alice) as inbox:
            (report,) = wait_for(inbox, 1)
        assert b'Diagnostic-Code: smtp; 554 5.7.1 Policy Rejection' in report
    finally:
        theirs.cli('federation', 'remove', 'a.example')
    _send(ours, alice, bob[0])
    with theirs.imap(*bob) as inbox:
        assert len(wait_for(inbox, 1)) == 1


@pytest.mark.parametrize(
    ('close', 'reopen', 'text'),
    [
        (['block', 'b.example'], ['remove', 'b.example'], b'5.7.1 Policy Rejection'),
        (['policy', 'reject'], ['policy', 'accept'], b'5.7.1 Policy Rejection'),
        (['disable'], ['enable'], b'5.7.1 This relay sends no mail to other servers'),
    ],
)
def test_our_policy_is_told_at_rcpt(
    pair: tuple[WebRelay, WebRelay], close: list[str], reopen: list[str], text: bytes
) -> None:
    ours, theirs = pair
    alice, bob = ours.account(), theirs.account()
    ours.cli('federation', *close)
    try:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            _send(ours, alice, bob[0])
        assert refused.value.recipients == {bob[0]: (550, text)}
        _send(ours, alice, alice[0])  # ourselves it does not touch
    finally:
        ours.cli('federation', *reopen)
    _send(ours, alice, bob[0])
    with theirs.imap(*bob) as inbox:
        assert len(wait_for(inbox, 1)) == 1


def test_dismissed_mail_vanishes_without_a_word(pair: tuple[WebRelay, WebRelay]) -> None:
    ours, theirs = pair
    alice, bob = ours.account(), theirs.account()
    ours.cli('federation', 'dismiss', 'b.example')
    try:
        _send(ours, alice, bob[0])
    finally:
        ours.cli('federation', 'undismiss', 'b.example')
    _send(ours, alice, bob[0])
    with theirs.imap(*bob) as inbox:
        assert len(wait_for(inbox, 1)) == 1
        time.sleep(0.5)
        assert len(wait_for(inbox, 1)) == 1
    with ours.imap(*alice) as inbox:
        assert wait_for(inbox, 0) == []


def test_who_sent_is_counted_when_the_origin_was_proved(room: Path) -> None:
    """By /mxdeliv and port 25; what is refused for its origin counts nowhere."""
    with WebRelay(room) as relay:
        bob, _ = relay.account()
        for number in range(3):
            sender = f'fay{number % 2}@[192.0.2.9]'
            assert relay.post(mail.encrypted(sender, bob), bob, sender=sender)[0] == 200
        for sender in ('eve@named.example', f'eve@{relay.domain}'):
            assert relay.post(mail.encrypted(sender, bob), bob, sender=sender)[0] in (400, 403)
        with smtplib.SMTP('127.0.0.1', relay.ports['smtp'], timeout=20) as client:
            sender = 'gil@[IPv6:2001:db8::9]'
            client.sendmail(sender, [bob], mail.encrypted(sender, bob))
    servers = json.loads(relay.cli('--json', 'federation', 'servers').stdout)['data']['servers']
    assert [(one['domain'], one['inbound_deliveries']) for one in servers] == [
        ('[192.0.2.9]', 3),
        ('[ipv6:2001:db8::9]', 1),
    ]
