"""WebSocket frames: valid, invalid, one octet at a time, and anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.web.webimap.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_TEXT,
    NORMAL,
    PING,
    PROTOCOL,
    TEXT,
    TOO_BIG,
    Broken,
    Decoder,
    Event,
    accept,
    close,
    closing,
    frame,
)

MASK = b'\x01\x02\x03\x04'


def masked(kind: int, data: bytes, *, final: bool = True) -> bytes:
    size = len(data)
    head = bytes([(0x80 if final else 0) | kind])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0x80 | 126]) + size.to_bytes(2, 'big')
    else:
        head += bytes([0x80 | 127]) + size.to_bytes(8, 'big')
    return head + MASK + bytes(octet ^ MASK[i % 4] for i, octet in enumerate(data))


def test_the_handshake_of_the_rfc() -> None:
    assert accept('dGhlIHNhbXBsZSBub25jZQ==') == 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='
    assert accept('short') is None
    assert accept('') is None
    assert accept('dGhlIHNhbXBsZSBub25jZ!==') is None


@pytest.mark.parametrize('size', [0, 1, 125, 126, 65535, 65536, 70000])
def test_sizes(size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    assert Decoder(1_000_000).feed(masked(TEXT, data)) == [Event(TEXT, data)]
    ours = frame(TEXT, data)
    assert ours.endswith(data)
    assert len(ours) - size == (2 if size < 126 else 4 if size < 65536 else 10)


def test_fragments_with_a_ping_between() -> None:
    wire = (
        masked(TEXT, b'one ', final=False)
        + masked(PING, b'?')
        + masked(CONTINUATION, b'two ', final=False)
        + masked(CONTINUATION, b'three')
        + masked(CLOSE, b'\x03\xe8')
    )
    wanted = [Event(PING, b'?'), Event(TEXT, b'one two three'), Event(CLOSE, b'\x03\xe8')]
    assert Decoder(100).feed(wire) == wanted
    decoder = Decoder(100)
    assert [event for octet in wire for event in decoder.feed(bytes([octet]))] == wanted


@pytest.mark.parametrize(
    ('wire', 'code'),
    [
        (b'\x81\x05hello', PROTOCOL),  # not masked
        (b'\xc1\x80' + MASK, PROTOCOL),  # a reserved bit
        (b'\x83\x80' + MASK, PROTOCOL),  # an unknown kind
        (b'\x8b\x80' + MASK, PROTOCOL),
        (masked(PING, b'x' * 126), PROTOCOL),
        (masked(PING, b'x', final=False), PROTOCOL),
        (masked(CONTINUATION, b'x'), PROTOCOL),  # of nothing
        (masked(TEXT, b'a', final=False) + masked(TEXT, b'b'), PROTOCOL),
        (b'\x81\xfe\x00\x05' + MASK + b'hello', PROTOCOL),  # not the shortest form
        (b'\x81\xff' + b'\x00' * 7 + b'\x7f' + MASK, PROTOCOL),
        (masked(TEXT, b'x' * 101), TOO_BIG),
        (b'\x81\xff\xff' + b'\xff' * 7 + MASK, TOO_BIG),
        (masked(TEXT, b'x' * 60, final=False) + masked(CONTINUATION, b'x' * 60), TOO_BIG),
    ],
)
def test_what_breaks_the_protocol(wire: bytes, code: int) -> None:
    with pytest.raises(Broken) as broken:
        Decoder(100).feed(wire)
    assert broken.value.code == code


@given(st.binary(max_size=300), st.integers(1, 50))
def test_anything_is_frames_or_broken(wire: bytes, cut: int) -> None:
    def all_of(step: int) -> object:
        decoder = Decoder(200)
        events = []
        try:
            for start in range(0, len(wire), step):
                events += decoder.feed(wire[start : start + step])
        except Broken as broken:
            return broken.code
        return events

    whole, pieces = all_of(1000), all_of(cut)
    assert pieces == whole or isinstance(whole, int)


@given(st.lists(st.tuples(st.sampled_from([TEXT, BINARY]), st.binary(max_size=300)), max_size=5))
def test_what_is_sent_arrives(messages: list[tuple[int, bytes]]) -> None:
    wire = b''.join(masked(kind, data) for kind, data in messages)
    assert Decoder(1000).feed(wire) == [Event(kind, data) for kind, data in messages]


def test_closing() -> None:
    assert close(1000) == b'\x88\x02\x03\xe8'


@pytest.mark.parametrize('code', [1000, 1001, 1003, 1007, 1011, 1013, 3000, 4999])
def test_a_close_is_answered_with_its_code(code: int) -> None:
    assert closing(code.to_bytes(2, 'big') + 'gé'.encode()) == code
    assert closing(b'') == NORMAL


@pytest.mark.parametrize('code', [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535])
def test_a_close_with_a_wrong_code(code: int) -> None:
    with pytest.raises(Broken) as broken:
        closing(code.to_bytes(2, 'big'))
    assert broken.value.code == PROTOCOL


def test_a_close_that_is_cut_or_no_text() -> None:
    for data, code in ((b'\x03', PROTOCOL), (b'\x03\xe8\xff', NO_TEXT)):
        with pytest.raises(Broken) as broken:
            closing(data)
        assert broken.value.code == code


def test_what_waits_for_the_rest_of_its_message_is_known() -> None:
    decoder = Decoder(1_000_000)
    wire = masked(TEXT, bytes(range(256)) * 1000)
    assert decoder.feed(wire[:3]) == []
    for start in range(3, len(wire) - 1, 4099):
        assert decoder.feed(wire[start : min(start + 4099, len(wire) - 1)]) == []
    assert decoder.held == 255_999
    assert decoder.feed(wire[-1:]) == [Event(TEXT, bytes(range(256)) * 1000)]
    assert decoder.held == 0
    decoder.feed(masked(TEXT, b'abc', final=False))
    assert decoder.held == 3
