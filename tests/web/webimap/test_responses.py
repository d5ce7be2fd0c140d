"""What a server says, parsed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.web.webimap.responses import Malformed, parse, pending


@pytest.mark.parametrize(
    ('pieces', 'wanted'),
    [
        ([b'* 3 EXISTS'], ['*', 3, 'EXISTS']),
        (
            [b'* LIST (\\HasNoChildren) "/" INBOX'],
            ['*', 'LIST', ['\\HasNoChildren'], b'/', 'INBOX'],
        ),
        ([b'* LIST () "/" "a \\"b\\" \\\\"'], ['*', 'LIST', [], b'/', b'a "b" \\']),
        (
            [b'* 1 FETCH (UID 7 BODY[] {5}', b'he(lo', b' FLAGS (\\Seen $F))'],
            ['*', 1, 'FETCH', ['UID', 7, 'BODY[]', b'he(lo', 'FLAGS', ['\\Seen', '$F']]],
        ),
        ([b'* X (NIL ((a) "b"))'], ['*', 'X', [None, [['a'], b'b']]]),
        ([b'* SEARCH'], ['*', 'SEARCH']),
        ([b'* X BODY[HEADER.FIELDS (A B)]<0> {0}', b'', b''], None),
    ],
)
def test_responses(pieces: list[bytes], wanted: object) -> None:
    found = parse(pieces)
    if wanted is not None:
        assert found == wanted


@pytest.mark.parametrize('line', [b'* (', b'* )', b'* "open', b'* "\\', b'* {', b'(' * 100])
def test_what_makes_no_sense(line: bytes) -> None:
    with pytest.raises(Malformed):
        parse([line])


def test_literals_are_announced() -> None:
    assert pending(b'* 1 FETCH (BODY[] {12}') == 12
    assert pending(b'* 1 FETCH (BODY[] {12} ') is None


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5))
def test_anything_is_parsed_or_malformed(pieces: list[bytes]) -> None:
    try:
        parse(pieces)
    except Malformed:
        pass
