"""JSON with long strings is what json says it is, and nothing else may be long."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madmail.web.webimap import document
from madmail.web.webimap.document import LONG, SKELETON, Excessive, Malformed
from madmail.web.webimap.operations import PIECE, Refused, _lines
from madmail.web.webimap.room import FREE, Room

# Of each, more than fits into a slice; at the cuts stand all kinds of characters.
BODIES = {
    'ascii': 'x' * (3 * LONG),
    'lines': 'From: a\r\n"\\' * (LONG // 4),
    'umlauts': 'é' * LONG,
    'beyond': '😀' * LONG,
    'beyond-shifted': 'a' + '😀' * LONG,
    'controls': '\x00\x1f\u2028\x7f' * LONG,
}


@pytest.mark.parametrize('escaped', [True, False])
@pytest.mark.parametrize('name', sorted(BODIES))
def test_long_strings(name: str, escaped: bool) -> None:
    sent = {'to': ['a@b.example'], 'body': BODIES[name], 'more': [1, {'x': None}]}
    for said in (sent, {'req_id': '1', 'action': 'send', 'data': sent}):
        octets = json.dumps(said, ensure_ascii=escaped).encode()
        assert document.read(bytearray(octets)) == said
        assert json.loads(document.write(said)) == said


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.integers(0, 12), st.booleans())
def test_any_text_at_any_cut(text: str, before: int, escaped: bool) -> None:
    said = {'body': 'x' * (LONG - before) + text + 'y' * LONG}
    try:
        octets = json.dumps(said, ensure_ascii=escaped).encode()
    except UnicodeEncodeError:
        return
    assert document.read(octets) == said
    assert json.loads(document.write(said)) == said


@pytest.mark.parametrize(
    'wire',
    [
        b'',
        b'{',
        b'\xff\xfe',
        b'"\\ud800"',
        b'{"a":"\\udc00\\ud800"}',
        b'[' * 20_000,
        b'{"a":"' + b'x' * 2 * LONG,
        b'{"a":"' + b'x' * 2 * LONG + b'\\q"}',
        b'{"a":"' + b'x' * 2 * LONG + b'\\u12"}',
        b'{"a":"' + b'\\ud83d' * LONG + b'"}',
        b'{"a":"' + b'\xff' * 2 * LONG + b'"}',
        b'{"a":"' + b'\n' * 2 * LONG + b'"}',
        b'"' * 2 * LONG,
        b'\\"' * 2 * LONG,
        b'"' + b'x' * 2 * LONG + b'"',
    ],
    ids=range(15),
)
def test_what_is_no_document(wire: bytes) -> None:
    with pytest.raises(Malformed):
        document.read(wire)


@pytest.mark.parametrize(
    'wire',
    [
        b'[' * 2 * SKELETON,
        b' ' * 2 * SKELETON,
        b'{"a":[' + b'{},' * SKELETON + b'{}]}',
        b'{"a":[' + b'"",' * SKELETON + b'""]}',
        b'{"a":["' + b'x' * 2 * LONG + b'"]}',
        b'{"' + b'x' * 2 * LONG + b'":1}',
    ],
    ids=range(6),
)
def test_only_text_may_be_long(wire: bytes) -> None:
    with pytest.raises(Excessive):
        document.read(wire)


def test_lines_end_as_in_mail_wherever_they_are_cut() -> None:
    for before in range(PIECE - 3, PIECE + 2):
        for end in ('\r\n', '\r', '\n', '\r\r\n', '\n\r'):
            body = 'x' * before + end + 'é' * PIECE + end
            wanted = body.replace('\r\n', '\n').replace('\r', '\n').replace('\n', '\r\n')
            if not wanted.endswith('\r\n'):
                wanted += '\r\n'
            assert _lines(body) == wanted.encode()
    with pytest.raises(Refused):
        _lines('\ud800')


def test_large_requests_share_a_room() -> None:
    room = Room(limit=10 * FREE, share=6 * FREE)
    with room.place('a') as first, room.place('a') as second, room.place('b') as third:
        assert first.holds(4 * FREE)
        assert not second.holds(3 * FREE), 'one account has its share'
        assert second.holds(FREE), 'little is not counted'
        assert second.holds(2 * FREE)
        assert not third.holds(5 * FREE), 'all together have a limit'
        assert third.holds(4 * FREE)
        assert first.holds(0)
        assert second.holds(6 * FREE)
        assert room.used == 10 * FREE
    assert room.used == 0
    assert room.change('a', 6 * FREE)
