"""The operator's notice: whole, readable, and not a way to forge header fields."""

from __future__ import annotations

import email
from email.header import decode_header, make_header
from email.policy import SMTP
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.message import header
from madmail.message.notice import SUBJECT_LIMIT, body_trouble, notice, subject_trouble

FIELDS = {
    'From',
    'To',
    'Subject',
    'Date',
    'Message-ID',
    'Auto-Submitted',
    'MIME-Version',
    'Content-Type',
    'Content-Transfer-Encoding',
}
NOW = 1_800_000_000.0


def read(octets: bytes) -> tuple[str, str]:
    """Subject and text as a reader gets them."""
    message = email.message_from_bytes(octets)
    text = message.get_payload(decode=True).decode('utf-8')
    return str(make_header(decode_header(message['Subject']))), text.replace('\r\n', '\n')


def test_the_fields_are_those_and_no_others() -> None:
    octets = notice('chat.example', 'bob@chat.example', 'Hello', 'One\nTwo', NOW)
    message = email.message_from_bytes(octets, policy=SMTP)
    assert set(message.keys()) == FIELDS
    assert message['From'] == 'Admin <admin@chat.example>'
    assert message['To'] == 'bob@chat.example'
    assert parsedate_to_datetime(message['Date']).timestamp() == NOW
    assert octets.endswith(b'\r\n\r\nOne\r\nTwo\r\n')


def test_a_relay_on_an_ip_address_has_an_admin_too() -> None:
    octets = notice('[192.0.2.1]', 'bob@[192.0.2.1]', 'Hello', 'Text', NOW)
    assert b'From: Admin <admin@[192.0.2.1]>\r\n' in octets
    assert b'To: <bob@[192.0.2.1]>\r\n' in octets


@pytest.mark.parametrize(
    'subject',
    [
        '',
        '  ',
        'a\r\nBcc: eve@example.org',
        'a\nb',
        'a\rb',
        'a\0b',
        'a\x85b',
        'a\u2028b',
        '\udc00',
        'x' * (SUBJECT_LIMIT + 1),
    ],
)
def test_subjects_that_cannot_be(subject: str) -> None:
    assert subject_trouble(subject)
    with pytest.raises(ValueError, match='subject'):
        notice('chat.example', 'bob@chat.example', subject, 'Text', NOW)


@pytest.mark.parametrize('body', ['', ' \n ', 'a\0b', 'a\x1bb', '\udc00', 'x' * 70_000])
def test_bodies_that_cannot_be(body: str) -> None:
    assert body_trouble(body)
    with pytest.raises(ValueError, match='text'):
        notice('chat.example', 'bob@chat.example', 'Hello', body, NOW)


@given(st.text(max_size=600), st.text(max_size=3000))
def test_whatever_is_taken_comes_out_again(subject: str, body: str) -> None:
    if subject_trouble(subject) or body_trouble(body):
        return
    octets = notice('chat.example', 'bob@chat.example', subject, body, NOW)
    head, _, _ = octets.partition(b'\r\n\r\n')
    fields = header.parse(head + b'\r\n\r\n')
    assert fields is not None
    assert {field.name for field in fields} == {name.lower().encode() for name in FIELDS}
    assert octets.isascii()
    assert all(len(line) <= 998 for line in octets.split(b'\r\n'))
    assert b'\n' not in octets.replace(b'\r\n', b'')
    shown, text = read(octets)
    assert shown.split() == subject.split()
    assert text.rstrip('\n') == body.replace('\r\n', '\n').replace('\r', '\n').rstrip('\n')
