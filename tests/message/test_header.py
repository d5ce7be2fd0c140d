"""Header blocks on octets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.message import header


def test_fields_keep_their_octets() -> None:
    block = b'From: <a@x>\r\nX-Long:\r\n\tone\r\n two\r\nsubject:\r\n\r\n'
    fields = header.parse(block)
    assert fields is not None
    assert [field.name for field in fields] == [b'from', b'x-long', b'subject']
    assert b''.join(field.raw for field in fields) + b'\r\n' == block
    assert header.unfold(fields[1].value) == b'one two'


@pytest.mark.parametrize(
    'block',
    [
        b'\r\n',
        b'From: x\r\n',
        b'From: x\n\n',
        b' From: x\r\n\r\n',
        b'From : x\r\n\r\n',
        b': x\r\n\r\n',
        b'no colon\r\n\r\n',
        b'A: b\0c\r\n\r\n',
        b'A: b\rc\r\n\r\n',
        b'A: b\nc: d\r\n\r\n',
        b'N\xc3\xa4me: x\r\n\r\n',
        b'N' * 77 + b': x\r\n\r\n',
        b'A: ' + b'x' * 996 + b'\r\n\r\n',
        b'A: b\r\n' * 201 + b'\r\n',
    ],
)
def test_malformed_blocks_are_refused(block: bytes) -> None:
    assert header.parse(block) is None


def test_limits_are_met_exactly() -> None:
    assert header.parse(b'A: ' + b'x' * 995 + b'\r\n\r\n') is not None
    assert header.parse(b'A: b\r\n' * 200 + b'\r\n') is not None
    assert header.parse(b'N' * 76 + b': x\r\n\r\n') is not None


@pytest.mark.parametrize('size', [0, 1, 997, 998])
def test_lines_up_to_998_are_short(size: int) -> None:
    line = b'x' * size + b'\r\n'
    assert header.clean(line * 5)
    assert header.clean(line * 5 + b'x' * size)


@pytest.mark.parametrize('size', [999, 1000, 1001, 5000])
def test_longer_lines_are_not(size: int) -> None:
    long = b'x' * size
    for data in (long, long + b'\r\n', b'a\r\n' * 700 + long + b'\r\n' + b'a\r\n' * 700):
        assert not header.clean(data)


@given(st.text('ab\r\n\0', max_size=30).map(str.encode))
def test_clean_agrees_with_its_definition(data: bytes) -> None:
    rest = data.replace(b'\r\n', b'')
    assert header.clean(data) is not any(octet in rest for octet in b'\r\n\0')


@given(
    st.lists(st.sampled_from(['a: b', ' c', 'd', ':', '', 'E:f\x00']), max_size=8), st.booleans()
)
def test_loose_parsing_loses_nothing(lines: list[str], crlf: bool) -> None:
    block = ('\r\n' if crlf else '\n').join(lines).encode()
    assert b''.join(field.raw for field in header.parse_loosely(block)) == block


def test_duplicates_of_single_fields_are_seen() -> None:
    for name in header.SINGLE:
        fields = header.parse(name + b': a\r\nX: y\r\n' + name.title() + b': b\r\n\r\n')
        assert fields is not None
        assert header.duplicated(fields)
    fields = header.parse(b'Received: a\r\nReceived: b\r\n\r\n')
    assert fields is not None
    assert not header.duplicated(fields)
