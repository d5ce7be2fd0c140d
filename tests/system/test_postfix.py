"""A relay and a Postfix with OpenDKIM exchange mail; the zone is the one the relay prints."""

from __future__ import annotations

import email
import re
from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any

import dns.rdatatype
import dns.zonefile
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from madmail.message import dkim_key
from tests.delivery.name_server import NameServer
from tests.message.dkim_forms import rsa_key
from tests.system import mail
from tests.system.postfix import SELECTOR, Postfix, require
from tests.system.relay import ROOT, Relay, fetch_all, free_ports, wait_for

DOMAIN = 'chat.example'
FAR = 'postfix.example'
FAY = f'fay@{FAR}'
BROKEN = 'broken.example'  # signed with another key than it publishes
DEAD = 'dead.example'  # its name server fails
CORPUS = ROOT / 'tests' / 'corpora' / 'gate' / 'valid'


def publish(names: NameServer, relay: Relay) -> None:
    """All that `madmail dns` prints, filled in as an operator would."""
    text = relay.cli('dns').stdout
    placeholder = f'; {DOMAIN}. 3600 IN A <IPv4 address>'
    assert placeholder in text.splitlines(), 'there is no public address here to be printed'
    text = text.replace(placeholder, placeholder[2:].replace('<IPv4 address>', '127.0.0.1'))
    sets = dns.zonefile.read_rrsets(text, rdclass=None, default_ttl=None)
    assert {dns.rdatatype.to_text(one.rdtype) for one in sets} >= {'A', 'MX', 'TXT', 'SRV'}
    for one in sets:
        kind = dns.rdatatype.to_text(one.rdtype)
        names.add(one.name.to_text(), kind, *(record.to_text() for record in one))


@pytest.fixture(scope='module')
def names() -> Iterator[NameServer]:
    with NameServer() as server:
        server.add(FAR, 'MX', f'10 mx.{FAR}.')
        server.add(f'mx.{FAR}', 'A', '127.0.0.1')
        server.add(f'{SELECTOR}._domainkey.{FAR}', 'TXT', dkim_key.record(rsa_key()))
        other = rsa.generate_private_key(65537, 2048)
        server.add(f'{SELECTOR}._domainkey.{BROKEN}', 'TXT', dkim_key.record(other))
        server.fail(f'{SELECTOR}._domainkey.{DEAD}')
        yield server


@pytest.fixture(scope='module')
def ports() -> dict[str, int]:
    """Of the relay, before either side is there; nobody listens on `closed`."""
    return dict(zip(('smtp', 'closed'), free_ports(2), strict=True))


@pytest.fixture(scope='module')
def far(names: NameServer, ports: dict[str, int]) -> Iterator[Postfix]:
    require()
    routes = {DOMAIN: ports['smtp']}
    with Postfix(FAR, names.address, signs=[BROKEN, DEAD], routes=routes) as postfix:
        yield postfix


@pytest.fixture(scope='module')
def relay(
    tmp_path_factory: pytest.TempPathFactory,
    names: NameServer,
    ports: dict[str, int],
    far: Postfix,
) -> Iterator[Relay]:
    options: dict[str, Any] = {
        'domain': DOMAIN,
        'dns': {'servers': [names.address]},
        'listen.smtp': [f'127.0.0.1:{ports["smtp"]}'],
        # Postfix serves no HTTPS, so SMTP is what is left.
        'federation': {'smtp_port': far.ports['mx'], 'https_port': ports['closed']},
        'queue': {'first_retry': 1},
    }
    relay = Relay(tmp_path_factory.mktemp('relay'), options)
    relay.ports['smtp'] = ports['smtp']
    with relay:
        publish(names, relay)
        yield relay


# -- to Postfix


def post(relay: Relay, sender: tuple[str, str], to: str, **kinds: Any) -> str:
    """An encrypted message; its id."""
    ident = mail.message_id()
    with relay.smtp(*sender) as client:
        text = mail.encrypted(sender[0], to, ident=ident, **kinds)
        assert client.sendmail(sender[0], [to], text) == {}
    return ident


def results(message: Message) -> str:
    """What OpenDKIM says, on one line."""
    return re.sub(r'\s+', ' ', str(message['Authentication-Results']))


@pytest.mark.parametrize('size', [3000, 900_000])
def test_our_signature_passes_opendkim(relay: Relay, far: Postfix, size: int) -> None:
    alice = relay.account('alice')
    ident = post(relay, alice, FAY, size=size)
    message = email.message_from_bytes(far.wait_mail('fay', ident.encode()))
    found = results(message)
    assert 'dkim=pass (2048-bit key' in found
    assert f'header.d={DOMAIN}' in found
    assert 'header.s=madmail' in found
    assert message['Return-Path'] == f'<{alice[0]}>'
    assert 'TLSv1.3' in str(message['Received']), 'STARTTLS was offered'
    assert len(message.as_bytes()) > size * 0.95


def test_signatures_pass_while_keys_rotate(relay: Relay, far: Postfix, names: NameServer) -> None:
    alice = relay.account('alice')
    relay.cli('dkim', 'rotate')
    assert relay.cli('dkim', 'activate', check=False).returncode, 'nobody could look it up'
    publish(names, relay)
    relay.cli('dkim', 'activate')
    for number in range(3):
        ident = post(relay, alice, FAY)
        message = email.message_from_bytes(far.wait_mail('fay', ident.encode()))
        assert 'dkim=pass' in results(message), number
    assert 'header.s=madmail ' not in results(message), 'the new key is in use'


def test_the_zone_that_is_printed_is_complete(relay: Relay) -> None:
    text = relay.cli('dns', 'check').stdout
    assert 'All that is required is there.' in text
    assert 'missing' not in text
    assert 'different' not in text


def report_for(relay: Relay, sender: tuple[str, str]) -> list[Message]:
    """The parts of the one report in a mailbox."""
    with relay.imap(*sender) as inbox:
        [text] = wait_for(inbox, 1, 30)
    report = email.message_from_bytes(text)
    assert report.get_content_type() == 'multipart/report'
    parts = report.get_payload()
    assert isinstance(parts, list)
    return [part for part in parts if isinstance(part, Message)]


def test_an_unknown_recipient_comes_back_with_the_words_of_postfix(relay: Relay) -> None:
    alice = relay.account('alice')
    ident = post(relay, alice, f'nobody@{FAR}')
    text, status, original = report_for(relay, alice)
    assert 'User unknown' in str(text.get_payload())
    recipient = status.get_payload()[1]
    assert isinstance(recipient, Message)
    assert recipient['Action'] == 'failed'
    assert recipient['Status'] == '5.1.1'
    assert 'smtp; 550' in str(recipient['Diagnostic-Code'])
    assert ident in original.as_string()


def test_a_report_that_postfix_writes_later_arrives(relay: Relay) -> None:
    alice = relay.account('alice')
    ident = post(relay, alice, f'late@{FAR}')
    _, status, original = report_for(relay, alice)  # the words are not those of a stranger
    assert 'Action: failed' in status.as_string()
    assert f'rfc822; late@{FAR}' in status.as_string()
    assert ident in original.as_string()


# -- from Postfix


def from_corpus(name: str, sender: str) -> tuple[bytes, bytes]:
    """A message as a core wrote it, from another address, with a fresh id; the id."""
    text = (CORPUS / name).read_bytes().replace(b'\r\n', b'\n').replace(b'\n', b'\r\n')
    head, _, body = text.partition(b'\r\n\r\n')
    ident = mail.message_id().encode()
    head = re.sub(rb'(?m)^From: .*\r$', b'From: <%s>\r' % sender.encode(), head)
    head = re.sub(rb'(?m)^Message-ID: .*\r$', b'Message-ID: <%s>\r' % ident, head)
    return head + b'\r\n\r\n' + body, ident


@pytest.mark.parametrize(
    'name', ['core-text.eml', 'core-file-2.eml', 'core-group.eml', 'core-securejoin-v3-1.eml']
)
def test_signed_mail_of_postfix_arrives(relay: Relay, far: Postfix, name: str) -> None:
    bob = relay.account('bob')
    message, ident = from_corpus(name, FAY)
    far.submit('signed', FAY, bob[0], message)
    with relay.imap(*bob) as inbox:
        [text] = wait_for(inbox, 1)
    assert ident in text
    assert text.partition(b'\r\n\r\n')[2] == message.partition(b'\r\n\r\n')[2]
    lower = text.lower()
    assert not any(word in lower for word in (b'dkim-signature:', b'received:', b'127.0.0.1'))


def inbox_of(relay: Relay, person: tuple[str, str]) -> dict[int, bytes]:
    with relay.imap(*person) as inbox:
        return fetch_all(inbox)


Make = Callable[[str], bytes]


@pytest.mark.parametrize(
    ('port', 'sender', 'make', 'words'),
    [
        ('unsigned', FAY, None, '554 5.7.1 No DKIM signature found'),
        ('signed', f'eve@{BROKEN}', None, '554 5.7.1 No valid DKIM signature found'),
        ('signed', FAY, mail.plain, '523 Encryption Needed: Invalid Unencrypted Mail'),
        ('unsigned', FAY, mail.plain, '523 Encryption Needed: Invalid Unencrypted Mail'),
    ],
    ids=['unsigned', 'badly-signed', 'plain', 'plain-and-unsigned'],
)
def test_other_mail_of_postfix_is_refused(
    relay: Relay,
    far: Postfix,
    port: str,
    sender: str,
    make: Callable[[str, str], bytes] | None,
    words: str,
) -> None:
    bob = relay.account('bob')
    before = len(far.text())
    message = make(sender, bob[0]) if make else from_corpus('core-text.eml', sender)[0]
    far.submit(port, sender, bob[0], message)
    far.wait_log(words, before)
    [line] = [one for one in far.text().splitlines() if f'to=<{bob[0]}>' in one]
    assert words in line
    assert 'status=bounced' in line
    assert inbox_of(relay, bob) == {}
    if sender == FAY:
        assert words.encode() in re.sub(rb'\s+', b' ', far.wait_mail('fay', bob[0].encode()))


def test_a_key_that_cannot_be_looked_up_defers_the_mail(
    relay: Relay, far: Postfix, names: NameServer
) -> None:
    bob = relay.account('bob')
    before = len(far.text())
    message, ident = from_corpus('core-text.eml', f'dan@{DEAD}')
    far.submit('signed', f'dan@{DEAD}', bob[0], message)
    log = far.wait_log('status=deferred', before)
    assert '451 4.4.3 The DKIM key could not be looked up' in log
    assert inbox_of(relay, bob) == {}
    # The key first: to be told that there is none would be final.
    names.put(f'{SELECTOR}._domainkey.{DEAD}', 'TXT', dkim_key.record(rsa_key()))
    names.heal(f'{SELECTOR}._domainkey.{DEAD}')
    with relay.imap(*bob) as inbox:
        [text] = wait_for(inbox, 1, 60)
    assert ident in text
