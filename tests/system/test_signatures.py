"""DKIM in a whole relay: at both entrances from elsewhere, and keys that change while it runs."""

from __future__ import annotations

import json
import smtplib
import time
from collections.abc import Callable, Iterator

import pytest

from madmail.message import dkim_key
from tests.delivery.name_server import NameServer
from tests.message.dkim_forms import rsa_key, with_signature
from tests.system import mail
from tests.system.relay import client_tls, wait_for
from tests.web.conftest import WebRelay

PEER = 'peer.example'
FAY = f'fay@{PEER}'
KEY = f'one._domainkey.{PEER}'


@pytest.fixture(scope='module')
def names() -> Iterator[NameServer]:
    with NameServer() as server:
        server.add(KEY, 'TXT', dkim_key.record(rsa_key()))
        yield server


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory, names: NameServer) -> Iterator[WebRelay]:
    options = {'dns': {'servers': [names.address]}}
    with WebRelay(tmp_path_factory.mktemp('relay'), options) as relay:
        yield relay


Deliver = Callable[[WebRelay, bytes, str], tuple[int, str]]


def by_smtp(relay: WebRelay, message: bytes, to: str) -> tuple[int, str]:
    with smtplib.SMTP('127.0.0.1', relay.ports['smtp'], timeout=20) as smtp:
        smtp.starttls(context=client_tls())
        smtp.ehlo('mx.peer.example')
        smtp.mail(FAY)
        smtp.rcpt(to)
        code, text = smtp.data(message)
    return code, f'{code} {text.decode()}'


def by_http(relay: WebRelay, message: bytes, to: str) -> tuple[int, str]:
    status, text = relay.post(message, to, sender=FAY)
    assert (status == 200) is text.startswith('250')
    return int(text[:3]), text


@pytest.mark.parametrize('deliver', [by_smtp, by_http], ids=['smtp', 'http'])
def test_both_entrances_want_a_signature(
    relay: WebRelay, names: NameServer, deliver: Deliver
) -> None:
    bob = relay.account('bob')
    message = mail.encrypted(FAY, bob[0])
    signed = with_signature(message, d=PEER)
    assert deliver(relay, message, bob[0])[1] == '554 5.7.1 No DKIM signature found'
    broken = signed.replace(b'Subject: [', b'Subject: x[')
    assert deliver(relay, broken, bob[0])[1] == '554 5.7.1 No valid DKIM signature found'
    forged = mail.encrypted(bob[0], bob[0])
    assert deliver(relay, forged, bob[0])[1] == '554 5.7.1 No DKIM signature found'
    troubled = with_signature(message, d=PEER, s='dead')
    names.fail(f'dead._domainkey.{PEER}')
    assert deliver(relay, troubled, bob[0])[0] == 451
    assert deliver(relay, signed, bob[0])[0] == 250
    assert deliver(relay, mail.encrypted('fay@[192.0.2.9]', bob[0]), bob[0])[0] == 250
    with relay.imap(*bob) as inbox:
        stored = wait_for(inbox, 2)
    assert sum(FAY.encode() in one for one in stored) == 1
    assert not any(b'DKIM-Signature' in one for one in stored)


def test_a_message_that_comes_again_another_way_is_stored_once(relay: WebRelay) -> None:
    bob = relay.account('bob')
    message = mail.encrypted(FAY, bob[0])
    first = with_signature(message, d=PEER)
    again = with_signature(message, d=PEER, h='from:to:subject:date')
    for deliver, signed in ((by_http, first), (by_smtp, again), (by_smtp, first), (by_http, again)):
        assert deliver(relay, signed, bob[0])[0] in (200, 250)
    by_smtp(relay, with_signature(mail.encrypted(FAY, bob[0]), d=PEER), bob[0])
    with relay.imap(*bob) as inbox:
        assert len(wait_for(inbox, 2)) == 2


def test_a_relay_that_waits_for_the_dns_serves_others(relay: WebRelay, names: NameServer) -> None:
    bob = relay.account('bob')
    names.silent(f'slow._domainkey.{PEER}')
    message = with_signature(mail.encrypted(FAY, bob[0]), d=PEER, s='slow')
    waiting = []
    for _ in range(5):
        smtp = smtplib.SMTP('127.0.0.1', relay.ports['smtp'], timeout=20)
        smtp.ehlo('mx.peer.example')
        smtp.mail(FAY)
        smtp.rcpt(bob[0])
        smtp.docmd('DATA')
        smtp.send(mail.dotted(message))
        waiting.append(smtp)
    begin = time.monotonic()
    signed = with_signature(mail.encrypted(FAY, bob[0]), d=PEER)
    assert by_smtp(relay, signed, bob[0])[0] == 250
    assert time.monotonic() - begin < 3
    assert {smtp.getreply()[0] for smtp in waiting} == {451}
    assert names.count(f'slow._domainkey.{PEER}') <= 4  # two processes, two tries each


def test_keys_are_made_at_the_first_start_and_shown(relay: WebRelay, names: NameServer) -> None:
    assert (relay.state_dir / 'dkim' / 'madmail.pem').stat().st_mode & 0o777 == 0o600
    shown = json.loads(relay.cli('--json', 'dns').stdout)['data']['records']
    (record,) = [one for one in shown if one['name'] == 'madmail._domainkey.chat.example']
    assert record['expected'].startswith('v=DKIM1;k=rsa;s=email;t=s;p=MIIBIjAN')
    checked = relay.cli('--json', 'dns', 'check', check=False)
    assert checked.returncode == 1
    for one in shown:
        if one['expected'] and one['type'] != 'PTR':
            names.add(one['name'], one['type'], one['expected'])
    names.put('chat.example', 'A', '192.0.2.1')
    found = json.loads(relay.cli('--json', 'dns', 'check', check=False).stdout)['data']['records']
    verdicts = {one['verdict'] for one in found if one['type'] not in ('A', 'AAAA', 'PTR')}
    assert verdicts == {'ok'}
