"""The messages of the tests are what they claim to be."""

from __future__ import annotations

import base64
import email
import email.policy
import re
import warnings

import pytest

from tests.system import mail


def decoded(armored: bytes) -> tuple[bytes, bytes]:
    lines = armored.split(b'\r\n')
    return base64.b64decode(b''.join(lines[2:-3]), validate=True), lines[-3]


@pytest.mark.parametrize('form', ['v1', 'v2', 'symmetric'])
@pytest.mark.parametrize('size', [800, 3000, 120_000, 700_000])
def test_the_checksum_is_right_for_every_way_to_make_it(form: str, size: int) -> None:
    data, line = decoded(mail.payload(size, 2, form))
    assert line == b'=' + base64.b64encode(mail.crc24(data).to_bytes(3, 'big'))


def test_the_checksum_is_that_of_the_standard() -> None:
    assert mail.crc24(b'123456789') == 0x21CF02  # the catalogue's check value of CRC-24/OPENPGP


def test_pgpy_reads_the_packets() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        pgpy = pytest.importorskip('pgpy', exc_type=ImportError)
        message = pgpy.PGPMessage.from_blob(mail.payload(3000, 3).decode())
    assert message.is_encrypted
    assert len(message.encrypters) >= 1


@pytest.mark.parametrize('size', [1500, 3000, 250_000])
def test_the_outer_form_is_that_of_current_cores(size: int) -> None:
    raw = mail.encrypted('alice@chat.example', size=size)
    assert raw.isascii()
    assert re.search(rb'[^\r]\n|\r[^\n]', raw) is None
    assert abs(len(raw) - size) < max(0.1 * size, 300)
    message = email.message_from_bytes(raw, policy=email.policy.compat32)
    assert message.keys() == [
        'From', 'Date', 'Message-ID', 'MIME-Version', 'To', 'Subject', 'Chat-Version',
        'Content-Type',
    ]  # fmt: skip
    first, second = message.get_payload()
    assert first.get_payload(decode=True).strip() == b'Version: 1'
    assert second.get_payload(decode=True).endswith(b'-----END PGP MESSAGE-----\r\n')


def test_dots_are_stuffed() -> None:
    assert mail.dotted(b'.a\r\n.\r\n..b\r\n') == b'..a\r\n..\r\n...b\r\n.\r\n'


def test_forgeries_carry_what_must_not_pass() -> None:
    forged = mail.forgeries('a@chat.example', 'b@chat.example')
    assert len(forged) > 15
    assert len(set(forged.values())) == len(forged)
