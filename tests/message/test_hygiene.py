"""What of a header block leaves the relay or enters a mailbox."""

import forms as f
import pytest
from gate_corpus import CORPUS, inspect

from madmail.message import autocrypt, hygiene
from madmail.message.inspection import Direction, Inspection, Rules


def passed(message: bytes, direction: Direction = Direction.OUT, **more: bool) -> bytes:
    own = f.ALICE if direction is Direction.OUT else ''
    inspection = Inspection(direction, Rules(), reverse_path=f.ALICE, recipients=1, own=own, **more)
    verdict, kept = inspect(inspection, [message])
    assert verdict.reply is None, verdict.reply
    return kept


def with_fields(fields: bytes) -> bytes:
    return f.encrypted().replace(b'Chat-Version: 1.0\r\n', fields)


def test_current_message_leaves_untouched() -> None:
    assert passed(f.encrypted()) == f.encrypted()


def test_sample_of_the_relay_is_reduced_to_the_known_fields() -> None:
    sample = (CORPUS / 'valid/relay-sample.eml').read_bytes()
    kept = passed(sample)
    block, _, body = kept.partition(b'\r\n\r\n')
    was, _, was_body = sample.partition(b'\r\n\r\n')
    assert body == was_body
    assert block == was.replace(b'Subject: some free subject', b'Subject: [...]')


REVEALING = (
    b'Received: from laptop ([198.51.100.23])\r\n\tby relay\r\n'
    b'X-Originating-IP: [198.51.100.23]\r\n'
    b'x-forwarded-for: 198.51.100.23\r\n'
    b'X-Mailer: 198.51.100.23\r\n'
    b'User-Agent: 198.51.100.23\r\n'
    b'Bcc: <198.51.100.23@example.org>\r\n'
    b'Return-Path: <198.51.100.23@example.org>\r\n'
    b'DKIM-Signature: 198.51.100.23\r\n'
    b'X-Unheard-Of: 198.51.100.23\r\n'
    b'Sender: 198.51.100.23@example.org\r\n'
    b'Comments: 198.51.100.23\r\n'
    b'Resent-From: 198.51.100.23@example.org\r\n'
)


def test_nothing_that_reveals_the_client_leaves() -> None:
    assert b'198.51.100.23' not in passed(with_fields(REVEALING))


def test_subject_and_display_name_are_rewritten() -> None:
    kept = passed(
        f.encrypted()
        .replace(b'Subject: [...]', b'Subject: Secret plans\r\n about Friday')
        .replace(b'From: <', b'From: "Alice A." <')
    )
    assert b'Secret' not in kept
    assert b'Friday' not in kept
    assert b'Alice A.' not in kept
    assert b'\r\nSubject: [...]\r\n' in kept
    assert kept.startswith(b'From: <alice@example.org>\r\n')


@pytest.mark.parametrize(
    ('value', 'kept'),
    [
        (b' "hidden-recipients": ;', b' "hidden-recipients": ;'),
        (b' <a@x.org>, <b@y.org>', b' <a@x.org>, <b@y.org>'),
        (b' a@x.org', b' a@x.org'),
        (b' a@x.org,\r\n b@y.org', b' a@x.org,\r\n b@y.org'),
        (b' Bob B. <a@x.org>, b@y.org', b' <a@x.org>,\r\n <b@y.org>'),
        (b' (see you at nine) <a@x.org>', b' <a@x.org>'),
        (b' see you at nine: ;', b' "hidden-recipients": ;'),
        (b' see you: <a@x.org>;', b' <a@x.org>'),
        (b' see you at nine', b' "hidden-recipients": ;'),
        (b' b\xc3\xb6b@x.org', b' "hidden-recipients": ;'),
        (b'', b' "hidden-recipients": ;'),
    ],
)
def test_to_keeps_addresses_only(value: bytes, kept: bytes) -> None:
    assert hygiene.recipients(value) == kept


@pytest.mark.parametrize(
    'field',
    [
        b'Chat-Version: 1.0\r\n',
        b'Chat-Is-Post-Message: 1\r\n',
        b'References: <a@b> <c@d>\r\n\t<e@f>\r\n',
        b'In-Reply-To: <a@b>\r\n',
        b'Auto-Submitted: auto-generated\r\n',
        b'Chat-Disposition-Notification-To: <alice@example.org>\r\n',
        b'Secure-Join: vc-request-with-auth\r\n',
    ],
)
def test_known_fields_of_known_form_are_kept(field: bytes) -> None:
    assert field in passed(with_fields(field))


@pytest.mark.parametrize(
    'field',
    [
        b'Chat-Version: see you at nine\r\n',
        b'Chat-Is-Post-Message: yes, at nine\r\n',
        b'References: see you at nine\r\n',
        b'References: <a@b> see you <c@d>\r\n',
        b'In-Reply-To: <see you at nine>\r\n',
        b'Auto-Submitted: auto-replied (see you)\r\n',
        b'Chat-Disposition-Notification-To: <bob@example.org>\r\n',
        b'Secure-Join: see you at nine\r\n',
        b'Autocrypt: addr=alice@example.org; keydata=c2VlIHlvdQ==\r\n',
        b'Cc: <carol@example.org>\r\n',
    ],
)
def test_known_fields_of_other_form_are_dropped(field: bytes) -> None:
    assert field.split(b':')[0] not in passed(with_fields(field))


def test_autocrypt_is_kept_once_and_only_for_the_sender() -> None:
    good = f.autocrypt()
    assert good in passed(with_fields(good))
    assert passed(with_fields(good + good)).count(b'Autocrypt:') == 1
    assert b'Autocrypt' not in passed(with_fields(f.autocrypt(f.BOB)))


@pytest.mark.parametrize(
    'change',
    [
        (b'addr=', b'address='),
        (b'keydata=', b'_note=see you at nine; keydata='),
        (b'mutual', b'see you at nine'),
        (b'addr=', b'addr=alice@example.org; addr='),
        (b'keydata=', b'keydata=!'),
    ],
)
def test_autocrypt_of_other_form_is_none(change: tuple[bytes, bytes]) -> None:
    value = f.autocrypt().partition(b':')[2].rstrip()
    assert autocrypt.valid(value, f.ALICE)
    assert not autocrypt.valid(value.replace(*change), f.ALICE)


def test_autocrypt_key_must_be_packets_of_a_key() -> None:
    key = f.packet(6, b'\4' + f.octets(50))
    assert autocrypt.public_key(key)
    assert autocrypt.public_key(f.old_packet(6, b'\4' + f.octets(50)))
    for data in (
        b'',
        b'see you at nine o clock',
        key[:-1],
        key + b'x',
        key + key,
        f.packet(13, b'<a@x.org>'),
        key + f.packet(11, b'see you'),
        key + f.packet(13, b'x' * 400),
        f.packet(6, b'\4' + b'text' * 20),
        f.PACKETS_1,
    ):
        assert not autocrypt.public_key(data)


def test_trace_fields_end_at_local_delivery() -> None:
    message = with_fields(REVEALING.replace(b'Sender', b'X-Sender') + b'List-Id: <l.example>\r\n')
    kept = passed(message, Direction.IN)
    for name in (b'Received:', b'DKIM-Signature:', b'X-Originating-IP:', b'Return-Path:', b'Bcc:'):
        assert name not in kept
    assert b'List-Id: <l.example>\r\n' in kept
    assert b'X-Mailer:' in kept
    assert passed(message, Direction.IN, local_delivery=False) == message


def test_foreign_part_headers_are_left_out_of_incoming_mail() -> None:
    kept = passed((CORPUS / 'valid/foreign-file-name.eml').read_bytes(), Direction.IN)
    assert b'letter' not in kept
    assert b'Content-Type: application/octet-stream\r\n' in kept


def test_thunderbird_preamble_and_armor_headers_are_left_out() -> None:
    kept = passed((CORPUS / 'valid/thunderbird.eml').read_bytes(), Direction.IN)
    assert b'This is an' not in kept
    assert b'User-Agent' in kept
    kept = passed((CORPUS / 'valid/armor-version-header.eml').read_bytes(), Direction.IN)
    assert b'-----BEGIN PGP MESSAGE-----\r\n\r\n' in kept
