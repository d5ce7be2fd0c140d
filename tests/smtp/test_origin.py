"""On port 25 a domain must have signed what it sends; a login needs no signature."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from madmail.delivery.dns import Resolver
from madmail.delivery.origin import Origins
from madmail.message import dkim_key
from tests.delivery.double import MemoryStore
from tests.delivery.name_server import NameServer
from tests.message.dkim_forms import rsa_key, with_signature
from tests.smtp.double import ALICE, BOB, DOMAIN, Client, TestingShard
from tests.smtp.double import MESSAGE as OWN_MESSAGE
from tests.system import mail

PEER = 'peer.example'
FAY = f'fay@{PEER}'
NAME = f'one._domainkey.{PEER}'
ENVELOPE = f'MAIL FROM:<{FAY}>\r\nRCPT TO:<{BOB}>\r\n'


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as server:
        server.add(NAME, 'TXT', dkim_key.record(rsa_key()))
        yield server


@pytest.fixture
def shard(tmp_path: Path, names: NameServer) -> TestingShard:
    shard = TestingShard(
        tmp_path,
        MemoryStore(ALICE, BOB),
        policy__require_encryption=True,
        federation__dkim='require',
    )
    resolver = Resolver([names.address], timeout=0.5)
    shard.origin = Origins(shard.settings, DOMAIN, resolver)
    return shard


def signed(message: bytes, **tags: str) -> bytes:
    return with_signature(message, d=PEER, **tags)


def boxes(shard: TestingShard) -> list[bytes]:
    return shard.store.boxes[BOB]


def delivered(shard: TestingShard, message: bytes, sender: str = FAY) -> str:
    return Client(shard, '').mail(BOB, sender=sender, data=message)


def test_a_signed_message_is_stored_without_its_signature(shard: TestingShard) -> None:
    message = b'Received: from x\r\n' + signed(mail.encrypted(FAY, BOB))
    assert delivered(shard, message).startswith('250')
    (stored,) = boxes(shard)
    assert b'DKIM-Signature' not in stored
    assert b'From: <fay@peer.example>' in stored


def test_what_the_relay_changes_does_not_break_a_signature(shard: TestingShard) -> None:
    # A preamble is blanked and traces are removed, but only after the signature was seen.
    message = mail.encrypted(FAY, BOB).replace(b'\r\n\r\n', b'\r\nX-Received: y\r\n\r\n', 1)
    message = signed(message, h='from:to:x-received:subject')
    assert delivered(shard, message).startswith('250')
    assert b'X-Received' not in boxes(shard)[0]


@pytest.mark.parametrize('sender', [FAY, '', 'other@elsewhere.example'])
def test_an_unsigned_message_is_refused_whatever_the_envelope_says(
    shard: TestingShard, sender: str
) -> None:
    said = delivered(shard, mail.encrypted(FAY, BOB), sender)
    assert said == '554 5.7.1 No DKIM signature found'
    assert not boxes(shard)


def test_a_wrong_signature_is_refused(shard: TestingShard) -> None:
    broken = signed(mail.encrypted(FAY, BOB)).replace(b'Subject: [', b'Subject: x[')
    assert delivered(shard, broken) == '554 5.7.1 No valid DKIM signature found'
    assert not boxes(shard)


def test_a_key_that_cannot_be_looked_up_puts_off(shard: TestingShard, names: NameServer) -> None:
    names.fail(NAME)
    assert delivered(shard, signed(mail.encrypted(FAY, BOB))).startswith('451 4.4.3 ')
    assert not boxes(shard)


def test_nobody_sends_in_the_name_of_our_users(shard: TestingShard) -> None:
    forged = mail.encrypted(ALICE, BOB)
    assert delivered(shard, forged) == '554 5.7.1 No DKIM signature found'
    assert delivered(shard, forged, ALICE) == '554 5.7.1 No DKIM signature found'
    assert delivered(shard, signed(forged)).endswith('No valid DKIM signature found')
    assert not boxes(shard)


def test_a_relay_on_an_ip_address_needs_no_signature(shard: TestingShard) -> None:
    assert delivered(shard, mail.encrypted('fay@[192.0.2.1]', BOB)).startswith('250')
    assert len(boxes(shard)) == 1


def test_a_message_in_chunks_is_looked_at_as_a_whole(shard: TestingShard) -> None:
    message = signed(mail.encrypted(FAY, BOB))
    half = len(message) // 2
    chunks = (
        f'{ENVELOPE}BDAT {half}\r\n'.encode()
        + message[:half]
        + f'BDAT {len(message) - half} LAST\r\n'.encode()
    )
    assert Client(shard, '').codes(chunks + message[half:])[-1] == 250
    assert Client(shard, '').codes(chunks + message[half:-1] + b'x')[-1] == 554
    assert len(boxes(shard)) == 1


def test_the_encryption_gate_comes_first(shard: TestingShard, names: NameServer) -> None:
    assert delivered(shard, signed(mail.plain(FAY, BOB))).startswith('523')
    assert not names.asked


def test_a_login_needs_no_signature(shard: TestingShard, names: NameServer) -> None:
    assert Client(shard).mail(BOB, data=mail.encrypted(ALICE, BOB)).startswith('250')
    assert not names.asked


def test_without_the_requirement_unsigned_mail_passes(shard: TestingShard) -> None:
    shard.settings.change('federation.dkim', 'off')
    assert delivered(shard, mail.encrypted(FAY, BOB)).startswith('250')
    assert OWN_MESSAGE not in boxes(shard)
