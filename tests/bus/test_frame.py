"""Frames survive any chunking, and garbage is refused."""

from __future__ import annotations

import socket
import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.bus import frame

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
maps = st.dictionaries(st.text(), values, max_size=5)


@given(st.lists(maps, max_size=5), st.lists(st.integers(1, 40), max_size=20))
def test_frames_come_out_as_they_went_in_however_chunked(
    objects: list[dict], cuts: list[int]
) -> None:
    stream = b''.join(frame.pack(item) for item in objects)
    unframer = frame.Unframer()
    out = []
    for cut in cuts:
        out += unframer.feed(stream[:cut])
        stream = stream[cut:]
    out += unframer.feed(stream)
    assert out == objects
    assert unframer.rest() == b''


@given(maps, maps)
def test_one_byte_at_a_time(first: dict, second: dict) -> None:
    unframer = frame.Unframer()
    out = []
    for octet in frame.pack(first) + frame.pack(second):
        out += unframer.feed(bytes([octet]))
    assert out == [first, second]


@given(st.binary(max_size=200))
def test_garbage_gives_frames_or_frame_error_and_nothing_else(data: bytes) -> None:
    try:
        frames = frame.Unframer().feed(data)
    except frame.FrameError:
        return
    assert all(isinstance(item, dict) for item in frames)


def test_next_leaves_what_follows_for_the_stream() -> None:
    unframer = frame.Unframer()
    assert unframer.next(frame.pack({'kind': 'session'}) + b'a1 NOOP\r\n') == {'kind': 'session'}
    assert unframer.rest() == b'a1 NOOP\r\n'


def test_octets_and_text_stay_apart() -> None:
    item = {'password': b'\xff\x00', 'user': 'a@b'}
    assert frame.Unframer().feed(frame.pack(item)) == [item]


def test_too_long_a_frame_is_refused_from_its_length_alone() -> None:
    with pytest.raises(frame.FrameError):
        frame.Unframer().feed(struct.pack('>I', frame.LIMIT + 1))
    with pytest.raises(frame.FrameError):
        frame.Unframer().next(struct.pack('>I', frame.LIMIT + 1))
    with pytest.raises(frame.FrameError):
        frame.pack({'body': bytes(frame.LIMIT)})


def test_only_maps_are_frames() -> None:
    data = msgpack.packb([1, 2])
    with pytest.raises(frame.FrameError):
        frame.Unframer().feed(struct.pack('>I', len(data)) + data)


def test_blocking_ends() -> None:
    left, right = socket.socketpair()
    with left, right:
        frame.send(left, {'n': 1})
        frame.send(left, {'n': 2})
        unframer = frame.Unframer()
        assert frame.receive(right, unframer) == {'n': 1}
        assert frame.receive(right, unframer) == {'n': 2}
        left.close()
        assert frame.receive(right, unframer) is None
