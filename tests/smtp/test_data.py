"""The end of data is where we say it is, however the octets arrive."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.smtp.data import Chunks, Dots


def stuffed(message: bytes) -> bytes:
    """RFC 5321 4.5.2, the sender's side, line by line."""
    lines = message.split(b'\r\n')
    return b'\r\n'.join(b'.' + line if line.startswith(b'.') else line for line in lines)


def dots(octets: bytes, cuts: list[int]) -> tuple[bytes, bytes, Dots]:
    decoder, buffer, kept = Dots(), bytearray(), b''
    edges = [0, *sorted(min(c, len(octets)) for c in cuts), len(octets)]
    for start, end in pairwise(edges):
        buffer += octets[start:end]
        if not decoder.done:
            kept += decoder.take(buffer)
    return kept, bytes(buffer), decoder


def one_by_one(octets: bytes) -> tuple[bytes, bytes, Dots]:
    return dots(octets, list(range(len(octets))))


pieces = st.sampled_from(
    [b'\r\n', b'.', b'..', b'\r\n.', b'a', b'Subject: x', b'\r\n\r\n', b'\xff']
)
messages = st.lists(pieces, max_size=30).map(lambda parts: b''.join(parts) + b'\r\n')
noise = st.lists(
    st.sampled_from([b'\r', b'\n', b'.', b'a', b'\r\n', b'\n.\n', b'\r.\r', b'\r\n.\n']),
    max_size=20,
).map(b''.join)


@given(messages, st.lists(st.integers(0, 300), max_size=8))
def test_what_was_stuffed_comes_back_in_any_chunking(message: bytes, cuts: list[int]) -> None:
    kept, rest, decoder = dots(stuffed(message) + b'.\r\nQUIT\r\n', cuts)
    assert decoder.done
    assert not decoder.malformed
    assert (kept, rest) == (message, b'QUIT\r\n')


@given(messages)
def test_one_octet_at_a_time_gives_the_same(message: bytes) -> None:
    assert one_by_one(stuffed(message) + b'.\r\nRSET\r\n')[:2] == (message, b'RSET\r\n')


@given(noise, st.lists(st.integers(0, 80), max_size=6))
def test_chunking_never_changes_where_data_ends(octets: bytes, cuts: list[int]) -> None:
    whole = dots(octets, [])
    cut = dots(octets, cuts)
    single = one_by_one(octets)
    assert (
        whole[2].done
        == cut[2].done
        == single[2].done
        == ((b'\r\n' + octets).find(b'\r\n.\r\n') >= 0)
    )
    assert whole[1] == cut[1] == single[1]
    bare = whole[2].malformed
    if whole[2].done:
        assert bare == cut[2].malformed == single[2].malformed
    if not bare:
        assert whole[0] == cut[0] == single[0]


@given(noise)
def test_bare_line_ends_are_always_seen(octets: bytes) -> None:
    end = (b'\r\n' + octets).find(b'\r\n.\r\n')
    message = octets if end < 0 else octets[: max(end - 2, 0)]
    stripped = message.replace(b'\r\n', b'')
    _, _, decoder = dots(octets + (b'' if end >= 0 else b'x\r\n.\r\n'), [])
    if b'\r' in stripped or b'\n' in stripped:
        assert decoder.malformed


@pytest.mark.parametrize(
    'smuggled',
    [
        b'\n.\n',
        b'\n.\r\n',
        b'\r.\r',
        b'\r.\r\n',
        b'\r\n.\n',
        b'\r\n.\r',
        b'\n\n.\r\n',
        b'\r\r\n.\r\r\n',
        b'\r\n\x00.\r\n',
        b'\r\n.\x00\r\n',
        b'\n.\r',
        b'\r\n.\r\r\n',
    ],
)
@pytest.mark.parametrize('feed', [lambda o: dots(o, []), one_by_one])
def test_no_other_line_end_ends_data(smuggled: bytes, feed) -> None:
    second = b'MAIL FROM:<evil@example.org>\r\n'
    _, rest, decoder = feed(b'a: b\r\n\r\nhello' + smuggled + second)
    assert not decoder.done
    assert rest == b''
    _, rest, decoder = feed(b'a: b\r\n\r\nhello' + smuggled + second + b'\r\n.\r\nNOOP\r\n')
    assert decoder.done
    assert rest == b'NOOP\r\n'
    if b'\0' not in smuggled:
        assert decoder.malformed


@pytest.mark.parametrize(
    ('octets', 'message'),
    [
        (b'.\r\n', b''),
        (b'\r\n.\r\n', b'\r\n'),
        (b'..\r\n.\r\n', b'.\r\n'),
        (b'.a\r\n.\r\n', b'a\r\n'),
        (b'a\r\n...\r\n.\r\n', b'a\r\n..\r\n'),
        (b'a\r\n..\r\n..b\r\n.\r\n', b'a\r\n.\r\n.b\r\n'),
        (b'a.\r\n.\r\n', b'a.\r\n'),
    ],
)
def test_dots_at_line_starts(octets: bytes, message: bytes) -> None:
    assert dots(octets, [])[0] == message == one_by_one(octets)[0]


def test_nothing_comes_back_after_a_bare_line_end() -> None:
    decoder = Dots()
    assert decoder.take(bytearray(b'good\r\n')) == b'good'
    assert decoder.take(bytearray(b'bad\nworse\r\nx')) == b''
    assert decoder.take(bytearray(b'fine again\r\n.\r\n')) == b''
    assert decoder.done


def chunks(octets: bytes, cuts: list[int]) -> tuple[bytes, Chunks]:
    decoder, kept = Chunks(), b''
    edges = [0, *sorted(min(c, len(octets)) for c in cuts), len(octets)]
    for start, end in pairwise(edges):
        decoder.expect(end - start)
        buffer = bytearray(octets[start:end] + b'NEXT')
        kept += decoder.take(buffer)
        assert buffer == b'NEXT'
    decoder.finish()
    return kept, decoder


@given(messages, st.lists(st.integers(0, 300), max_size=8))
def test_chunks_pass_octets_as_they_are(message: bytes, cuts: list[int]) -> None:
    kept, decoder = chunks(message, cuts)
    assert kept == message
    assert not decoder.malformed
    assert decoder.size == len(message)


@given(noise, st.lists(st.integers(0, 80), max_size=8))
def test_chunks_refuse_exactly_bare_line_ends(octets: bytes, cuts: list[int]) -> None:
    stripped = octets.replace(b'\r\n', b'')
    assert chunks(octets, cuts)[1].malformed == (b'\r' in stripped or b'\n' in stripped)
