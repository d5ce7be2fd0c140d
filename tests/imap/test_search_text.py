"""SEARCH in headers and bodies: decoding, case, charsets."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.message import search_text
from madmail.message.search_text import decode_words, fold, header_contains, sent_day, text_contains
from madmail.message.structure import Structure

HEADER = (
    b'Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe_an?=\r\n =?UTF-8?B?IGFsbGU=?= und mehr\r\n'
    b'From: J\xc3\xbcrgen <j@x>\r\nX-Empty:\r\n'
    b'X: =?iso-8859-1?q?=E4?= =?nonsense?q?a?= =?utf-8?b?%%?=\r\n'
    b'Date: Wed, 17 Jul 1996 23:23:25 -0700 (PDT)\r\n\r\n'
)


@pytest.mark.parametrize(
    ('field', 'needle', 'found'),
    [
        ('subject', 'grüße an alle und', True),
        ('subject', 'GRÜßE', True),
        ('subject', 'GRU\u0308ßE', True),
        ('subject', 'GRÜSSE', False),
        ('subject', 'utf-8', False),
        ('from', 'jürgen', True),
        ('from', '<J@X>', True),
        ('to', '', False),
        ('x-empty', '', True),
        ('x', 'ä', True),
        ('x', 'äa', True),
    ],
)
def test_headers(field: str, needle: str, found: bool) -> None:
    assert header_contains(HEADER, field, fold(needle)) == found


def test_sent_day_ignores_time_and_zone() -> None:
    assert sent_day(HEADER) == 9694  # 1996-07-17
    for date in (b'', b'nonsense', b'99 Foo 2020', b'1 Jan 99999999999 00:00:00 +0000', b'\xff'):
        assert sent_day(b'Date: ' + date + b'\r\n\r\n') is None
    assert sent_day(b'\r\n') is None


MESSAGE = Structure(
    HEADER.removesuffix(b'\r\n') + b'Content-Type: multipart/mixed; boundary=b\r\n\r\n'
    b'preamble\r\n--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\n'
    b'Content-Transfer-Encoding: quoted-printable\r\n\r\nsch=F6n und br=\r\nav\r\n'
    b'--b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    + base64.encodebytes('Привет, мир'.encode())
    + b'\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\nbinary\r\n'
    b'--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inside\r\n\r\ndeep text\r\n--b--\r\n'
)


@pytest.mark.parametrize(
    ('needle', 'body', 'text'),
    [
        ('SCHÖN UND BRAV', True, True),
        ('привет', True, True),
        ('inside', True, True),
        ('Deep', True, True),
        ('binary', False, False),
        ('preamble', False, False),
        ('grüße', False, True),
        ('', True, True),
    ],
)
def test_bodies(needle: str, body: bool, text: bool) -> None:
    assert text_contains(MESSAGE, fold(needle), body_only=True) == body
    assert text_contains(MESSAGE, fold(needle), body_only=False) == text


def test_charsets_that_are_no_charsets_are_passed_over() -> None:
    for charset in ('punycode', 'IDNA', 'hex', 'rot13', 'unicode_escape', 'x\0', 'undefined'):
        assert search_text.to_text(rb'\x41-b', charset) == r'\x41-b'


def test_only_a_bounded_amount_of_text_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    message = Structure(b'\r\n' + b'x' * 100 + b'needle')
    assert text_contains(message, fold('needle'), body_only=True)
    monkeypatch.setattr(search_text, 'MAX_SEARCHED', 50)
    assert not text_contains(message, fold('needle'), body_only=True)


@given(st.text('aäß\u0308x', max_size=60), st.text('aäß\u0308x', min_size=1, max_size=8))
def test_text_is_folded_in_windows_without_losing_a_match(text: str, needle: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_text, 'WINDOW', 7)
        assert search_text._contains(text, fold(needle)) == (fold(needle) in fold(text))


@given(st.binary(max_size=80))
def test_any_octets_can_be_searched(value: bytes) -> None:
    decode_words(value)
    decode_words(b'=?utf-8?q?' + value + b'?= =?x?b?' + value + b'?=')
    decode_words(b'=?' + value + b'?q?a?=')
    sent_day(b'Date: ' + value)
    for encoding in (b'base64', b'quoted-printable', b'x'):
        text_contains(
            Structure(
                b'Content-Type: text/plain; charset="' + value.replace(b'\n', b'') + b'"\r\n'
                b'Content-Transfer-Encoding: ' + encoding + b'\r\n\r\n' + value
            ),
            'x',
            body_only=False,
        )


@given(st.text(max_size=30), st.text(max_size=5))
def test_a_text_is_found_in_itself_whatever_its_case(text: str, more: str) -> None:
    encoded = base64.b64encode((more + text + more).encode('utf-8', 'replace'))
    # RFC 5051: only what has one title-case character for one is the same in both cases.
    if all(fold(letter) == fold(letter.lower()) == fold(letter.upper()) for letter in text):
        assert fold(text) == fold(text.swapcase())
    if text.isascii():
        block = b'Subject: =?utf-8?b?' + encoded + b'?=\r\n'
        assert header_contains(block, 'subject', fold(text.upper()))
