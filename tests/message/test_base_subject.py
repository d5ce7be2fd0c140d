"""Base subjects (RFC 5256 2.1), sort keys and the collation they are compared by."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.message import sort_key
from madmail.message.base_subject import base_subject
from madmail.message.collation import casemap

CORPUS = Path(__file__).parent.parent / 'corpora' / 'sort' / 'base_subjects.txt'


def entries() -> list[tuple[str, str, bool]]:
    lines = [line for line in CORPUS.read_text().splitlines() if not line.startswith('#')]
    triples = [line.split('|') for line in lines]
    return [
        (subject.replace('\\t', '\t').replace('_hello_', ' hello '), base, reply == 'R')
        for subject, base, reply in triples
    ]


@pytest.mark.parametrize(('subject', 'base', 'reply'), entries())
def test_base_subjects(subject: str, base: str, reply: bool) -> None:
    found = base_subject(subject.encode())
    assert (found.text, found.reply) == (base, reply)


@given(st.text('reRfwd[]():- \tax=?', max_size=60))
def test_a_base_subject_is_its_own_base_subject(subject: str) -> None:
    once = base_subject(subject.encode()).text
    assert base_subject(once.encode()).text == once


@pytest.mark.parametrize(
    'subject',
    [b'[a]' * 100000, b're:' * 100000, b'[fwd: ' * 50000 + b']' * 50000, b' (fwd)' * 50000],
)
def test_no_subject_takes_long(subject: bytes) -> None:
    started = time.process_time()
    base_subject(subject)
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize(
    ('date', 'unix'),
    [
        (b'Fri, 22 Feb 2008 22:00:10 +0200', 1203710410),
        (b'Fri, 22 Feb 2008 20:00:10 +0000', 1203710410),
        (b'22 Feb 2008 20:00:10', 1203710410),  # no zone is UTC
        (b'Fri, 22 Feb 2008 20:00:10 NONSENSE', 1203710410),
        (b'Fri, 22 Feb 2008 15:00:10 EST', 1203710410),
        (b'Fri, 22 Feb 2008 20:00 +0000', 1203710400),
        (b'22 Feb 2008', 1203638400),  # no time is midnight
        (b'Fri, 22 Feb 2008 25:61:00 +0000', 1203638400),
        (b'nonsense', None),
        (b'99 Feb 2008 00:00:00 +0000', None),
        (b'', None),
    ],
)
def test_sent_dates(date: bytes, unix: int | None) -> None:
    assert sort_key.sent_date({b'date': date}) == unix


@given(st.binary(max_size=60))
def test_any_octets_make_keys(value: bytes) -> None:
    values = dict.fromkeys((b'date', b'subject', b'from'), value)
    sort_key.sent_date(values)
    sort_key.subject(values)
    sort_key.mailbox(values, b'from')
    sort_key.display(values, b'from')


@pytest.mark.parametrize(
    ('field', 'mailbox', 'display'),
    [
        (b'Ann Lee <ann@x>, bob@y', 'ANN', 'ANN LEE'),
        (b'"Lee, Ann" <ann@x>', 'ANN', 'LEE, ANN'),
        (b'bob@y', 'BOB', 'BOB@Y'),
        (b'<bob@y> (Bob)', 'BOB', 'BOB'),
        (b'=?utf-8?q?J=C3=BCrgen?= <j@x>', 'J', 'JU\u0308RGEN'),
        (b'team: ann@x, bob@y;', 'TEAM', 'TEAM'),
        (b'', '', ''),
    ],
)
def test_addresses(field: bytes, mailbox: str, display: str) -> None:
    assert sort_key.mailbox({b'from': field}, b'from') == mailbox
    assert sort_key.display({b'from': field}, b'from') == display


def test_casemap_is_that_of_rfc_5051() -> None:
    assert casemap('abc[_') == 'ABC[_'
    assert casemap('ä') == casemap('Ä') == 'A\u0308'
    assert casemap('ß') == 'ß'
    assert casemap('\ufb01') == 'fi'  # no title case of one character, but a decomposition
    assert casemap('\u01c6') == casemap('\u01c4') == 'Dz\u030c'  # title case is not upper case
    assert casemap('ς') == casemap('σ') == 'Σ'
