"""What servers say about when to come back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madmail.delivery.retry_after import seconds

NOW = 784_111_777.0  # 1994-11-06 08:49:37 UTC
LONGEST = 1800.0


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('120', 120),
        (' 0 ', 0),
        ('1801', LONGEST),
        ('9' * 5000, LONGEST),
        ('Sun, 06 Nov 1994 08:50:37 GMT', 60),
        ('Sunday, 06-Nov-94 08:50:37 GMT', 60),  # RFC 9110 5.6.7: all three forms
        ('Sun Nov  6 08:50:37 1994', 60),
        ('Sun, 06 Nov 1994 08:00:00 GMT', 0),
        ('Sat, 31 Dec 9999 23:59:59 GMT', LONGEST),
        ('', 0),
        ('-5', 0),
        ('1.5', 0),
        ('\N{SUPERSCRIPT TWO}', 0),
        ('soon', 0),
        ('Sun, 31 Feb 1994 08:50:37 GMT', 0),
    ],
)
def test_both_forms_and_nonsense(text: str, found: float) -> None:
    for status in (429, 503):
        assert seconds(status, {'Retry-After': text}, NOW, LONGEST) == found


def test_a_date_counts_from_the_servers_own() -> None:
    fields = {
        'Retry-After': 'Sun, 06 Nov 1994 08:50:37 GMT',
        'Date': 'Sun, 06 Nov 1994 08:50:07 GMT',
    }
    assert seconds(503, fields, NOW + 1e6, LONGEST) == 30
    assert seconds(503, {**fields, 'Date': 'today'}, NOW, LONGEST) == 60


@pytest.mark.parametrize('status', [200, 301, 404, 410, 500, 502])
def test_other_answers_do_not_ask_for_anything(status: int) -> None:
    assert seconds(status, {'Retry-After': '60'}, NOW, LONGEST) == 0


def test_nothing_is_asked_for_where_nothing_is_said() -> None:
    assert seconds(429, {}, NOW, LONGEST) == 0


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_is_said_it_is_bounded(text: str, date: str) -> None:
    fields = {'Retry-After': text, 'Date': date}
    assert 0 <= seconds(429, fields, NOW, LONGEST) <= LONGEST
