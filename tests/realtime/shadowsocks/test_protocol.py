"""The wire format: known answers, all methods both ways, and what is no such format."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madmail.realtime import blake3
from madmail.realtime.shadowsocks import destination
from madmail.realtime.shadowsocks.destination import Destination, Malformed
from madmail.realtime.shadowsocks.handshake import (
    CLOCK,
    Call,
    Late,
    Reception,
    Replayed,
    Request,
    Response,
)
from madmail.realtime.shadowsocks.methods import CONTEXT, METHODS, TAG, Method
from madmail.realtime.shadowsocks.stream import SIZE, Broken, Opener, Sealer
from madmail.settings.declared_realtime import CIPHERS

NOW = 1_800_000_000
WANTED = Destination('mail.example', 993)
UP32, UP16 = bytes(range(32)), bytes(range(16))

methods = pytest.mark.parametrize('method', METHODS.values(), ids=METHODS)
pieces = st.lists(st.integers(1, 4000), min_size=1, max_size=40)


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Into pieces of these sizes, again and again."""
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        yield data[at : at + size]
        at, turn = at + size, turn + 1


class Server:
    """Feeds a reception, then the opener that it hands on."""

    def __init__(self, method: Method, password: str, now: float = NOW) -> None:
        self.seen: set[bytes] = set()
        self.method, self.key = method, method.key(password)
        self.reception = Reception(method, self.key, self.fresh, lambda: now)
        self.request: Request | None = None
        self.heard = b''

    def fresh(self, salt: bytes) -> bool:
        known = salt in self.seen
        self.seen.add(salt)
        return not known

    def feed(self, data: bytes) -> None:
        if self.request is None:
            self.request = self.reception.feed(data)
            if self.request is not None:
                self.heard = self.request.data
        else:
            self.heard += self.request.opener.feed(data)

    def feed_all(self, data: bytes, sizes: list[int]) -> None:
        for piece in cut(data, sizes):
            self.feed(piece)


def test_the_settings_know_all_methods() -> None:
    assert tuple(METHODS) == CIPHERS


# -- known answers


def test_keys_of_passwords() -> None:
    short, rest = '8fc83302c44fcb68b793ceca1d376996', 'd264d5455d66778e9330cfe296448bbc'
    assert METHODS['aes-128-gcm'].key('pw123').hex() == short
    assert METHODS['aes-256-gcm'].key('pw123').hex() == short + rest
    assert METHODS['chacha20-ietf-poly1305'].key('pw123').hex() == short + rest


def test_aead_streams() -> None:
    address = destination.pack(WANTED)
    assert address.hex() == '030c6d61696c2e6578616d706c6503e1'
    small = METHODS['aes-128-gcm']
    sealed = Sealer(small, small.key('pw123'), UP16).chunks(address)
    assert sealed[:SIZE].hex() == '1deb09c5ec5fdb3602298526ea3e87b4a331'
    assert sealed[SIZE:].hex() == 'ddf79b1df337ac32810a0cf34f168b1fae133afdf0840f75ab9b24ee158d97b4'
    for name, size in (
        ('aes-256-gcm', '99c105d173f8481a06a27c8a57897e51e012'),
        ('chacha20-ietf-poly1305', '81a4cf47879b04201ae564e3fda5070f8c43'),
    ):
        method = METHODS[name]
        assert Sealer(method, method.key('pw123'), UP32).chunks(address)[:SIZE].hex() == size


def test_session_keys_of_2022() -> None:
    small = blake3.derive_key(CONTEXT, UP16 + bytes(range(0x64, 0x74)), 16)
    assert small.hex() == '7e504e78da28b14d4fb48f08430baf79'
    large = blake3.derive_key(CONTEXT, UP32 + bytes(range(0x64, 0x84)), 32)
    assert large.hex() == '1cb1daec0bd7d02d913a22b60d39e518259adb8f0b63c445b8a5e04a8e52bf65'


@given(st.text('abc 0', max_size=64), st.binary(max_size=64), st.integers(1, 64))
@settings(max_examples=50, deadline=None)
def test_blake3_is_that_of_others(context: str, material: bytes, size: int) -> None:
    other = pytest.importorskip('blake3')
    expected = other.blake3(material, derive_key_context=context).digest(size)
    assert blake3.derive_key(context, material, size) == expected


def test_blake3_takes_one_block() -> None:
    with pytest.raises(ValueError, match='block'):
        blake3.derive_key('x', bytes(65), 32)
    with pytest.raises(ValueError, match='block'):
        blake3.derive_key('x' * 65, b'', 32)


# -- both ways


@methods
@given(sizes=pieces, first=st.sampled_from((0, 1, 20, 20_000, 70_000)), seed=st.binary(max_size=9))
@settings(max_examples=15, deadline=None)
def test_arrives_however_it_is_cut(
    method: Method, sizes: list[int], first: int, seed: bytes
) -> None:
    password = method.fresh_password()
    call, server = Call(method, password), Server(method, password)
    data = (seed or b'x') * (first // len(seed or b'x'))
    sent = call.request(WANTED, data, NOW) + call.seal(b'more')
    for piece in cut(sent, sizes):
        server.feed(piece)
    assert server.request is not None
    assert server.request.destination == WANTED
    assert server.heard == data + b'more'
    response = Response(method, server.key, server.request.salt)
    back = response.seal(data or b'hello', NOW) + response.seal(b'bye', NOW)
    heard = b''.join(call.feed(piece, NOW) for piece in cut(back, sizes))
    assert heard == (data or b'hello') + b'bye'


def test_an_address_over_several_chunks() -> None:
    for name in ('aes-128-gcm', 'chacha20-ietf-poly1305'):
        method = METHODS[name]
        key, salt = method.key('pw123'), os.urandom(method.size)
        sealer, server = Sealer(method, key, salt), Server(method, 'pw123')
        server.feed(salt)
        for octet in destination.pack(WANTED) + b'hi':
            server.feed(sealer.chunks(bytes((octet,))))
        assert server.request is not None
        assert (server.request.destination, server.heard) == (WANTED, b'hi')


@methods
def test_the_first_words_are_in_one_piece(method: Method) -> None:
    password = method.fresh_password()
    response = Response(method, method.key(password), bytes(method.size))
    first = response.seal(b'* OK', NOW)
    overhead = method.size + (1 + 8 + method.size + 2 + TAG if method.modern else SIZE)
    assert len(first) == overhead + 4 + TAG
    assert first.startswith(response.salt)


@settings(deadline=None)
@given(st.one_of(st.ip_addresses().map(str), st.from_regex(r'[a-z0-9.-]{1,255}', fullmatch=True)))
def test_destinations_both_ways(host: str) -> None:
    packed = destination.pack(Destination(host, 65535))
    assert destination.parse(packed + b'rest') == (Destination(host, 65535), len(packed))
    for end in range(len(packed)):
        assert destination.parse(packed[:end]) is None


# -- what is refused


@methods
def test_replay_and_reflection(method: Method) -> None:
    password = method.fresh_password()
    call, server = Call(method, password), Server(method, password)
    request = call.request(WANTED, b'hello', NOW)
    server.feed(request)
    assert server.request is not None
    server.reception, server.request = (
        Reception(method, server.key, server.fresh, lambda: NOW),
        None,
    )
    with pytest.raises(Replayed):
        server.feed(request)
    # Our own stream, sent back to us: a 2022 one says that it is an answer.
    response = Response(method, server.key, bytes(method.size))
    server.fresh(response.salt)
    server.reception = Reception(method, server.key, server.fresh, lambda: NOW)
    with pytest.raises(Broken):
        server.feed(response.seal(destination.pack(WANTED) + b'x', NOW))


@methods
def test_a_replay_with_something_else_behind_is_one(method: Method) -> None:
    password = method.fresh_password()
    call, server = Call(method, password), Server(method, password)
    request = call.request(WANTED, b'hello', NOW)
    server.feed(request)
    front = method.size + (11 + TAG if method.modern else SIZE)
    again = Reception(method, server.key, server.fresh, lambda: NOW)
    with pytest.raises(Replayed):
        again.feed(request[:front] + os.urandom(400))


def test_clocks_of_2022() -> None:
    for method in METHODS.values():
        if not method.modern:
            continue
        password = method.fresh_password()
        for skew in (-CLOCK, 0, CLOCK):
            server = Server(method, password, NOW + skew)
            server.feed(Call(method, password).request(WANTED, b'', NOW))
            assert server.request is not None
        for skew in (-CLOCK - 1, CLOCK + 1, 10**6):
            server = Server(method, password, NOW + skew)
            with pytest.raises(Late):
                server.feed(Call(method, password).request(WANTED, b'', NOW))
            assert not server.seen, 'nothing is remembered of it'


@methods
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_request_with_one_other_bit_is_none(method: Method, data: st.DataObject) -> None:
    """It is broken, or waits for more: there is no third way, and nothing is remembered of a
    request whose first box does not open.
    """
    password = method.fresh_password()
    server = Server(method, password)
    request = bytearray(Call(method, password).request(WANTED, b'hello', NOW))
    at = data.draw(st.integers(0, len(request) * 8 - 1))
    request[at >> 3] ^= 1 << (at & 7)
    sizes = data.draw(pieces)
    with pytest.raises(Broken):
        server.feed_all(bytes(request), sizes)
    assert server.request is None
    front = method.size + (11 + TAG if method.modern else SIZE)
    assert len(server.seen) == (at >> 3 >= front)


@methods
@given(st.lists(st.binary(max_size=400), max_size=12))
@settings(max_examples=60, deadline=None)
def test_noise_is_broken_and_leaves_nothing(method: Method, noise: list[bytes]) -> None:
    server = Server(method, method.fresh_password())
    front = method.size + (11 + TAG if method.modern else SIZE)
    fed = 0
    try:
        for piece in noise:
            fed += len(piece)
            server.feed(piece)
            assert server.reception.held == fed < front
    except Broken:
        assert fed >= front, 'who has not said enough to be judged is not judged'
    assert not server.seen
    assert server.request is None


@methods
@given(plain=st.binary(max_size=700), sizes=pieces)
@settings(max_examples=80, deadline=None)
def test_whoever_knows_the_key_may_say_anything(
    method: Method, plain: bytes, sizes: list[int]
) -> None:
    """What is sealed well and means nothing is broken, waits, or is a destination."""
    password = method.fresh_password()
    key, salt = method.key(password), os.urandom(method.size)
    sealer, server = Sealer(method, key, salt), Server(method, password)
    if method.modern:
        header = bytes((0,)) + NOW.to_bytes(8) + len(plain).to_bytes(2)
        sent = salt + sealer.box(header) + sealer.box(plain)
    else:
        sent = salt + sealer.chunks(plain)
    try:
        for piece in cut(sent, sizes):
            server.feed(piece)
            assert server.reception.held < 200_000
    except Broken:
        return
    if server.request is not None:
        host, port = server.request.destination
        assert 0 < len(host) < 256
        assert 0 <= port < 65536


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_destinations_of_noise(noise: bytes) -> None:
    try:
        found = destination.parse(noise)
    except Malformed:
        return
    if found is not None:
        (host, port), end = found
        assert end <= min(len(noise), destination.LONGEST)
        assert destination.parse(noise[:end]) == ((host, port), end)


@methods
@given(st.binary(max_size=300), pieces)
@settings(max_examples=40, deadline=None)
def test_a_client_is_not_told_anything_by_noise(
    method: Method, noise: bytes, sizes: list[int]
) -> None:
    call = Call(method, method.fresh_password())
    try:
        assert b''.join(call.feed(piece, NOW) for piece in cut(noise, sizes)) == b''
    except Broken:
        pass


@methods
def test_sizes_of_chunks(method: Method) -> None:
    key = bytes(method.size)
    for size in (0, *((0x4000, 0xFFFF) if not method.modern else ())):
        sealer, opener = Sealer(method, key, key), Opener(method, key, key)
        with pytest.raises(Broken):
            opener.feed(sealer.box(size.to_bytes(2)))
    sealer, opener = Sealer(method, key, key), Opener(method, key, key)
    sealed = sealer.chunks(bytes(method.largest))
    assert opener.feed(sealed[:-1]) == b''
    assert opener.held <= method.largest + TAG
    assert opener.feed(sealed[-1:]) == bytes(method.largest)
    assert opener.held == 0


def test_2022_padding_is_there_where_no_data_is() -> None:
    method = METHODS['2022-blake3-aes-128-gcm']
    password = method.fresh_password()
    key = method.key(password)

    def opened(second: bytes) -> Request | None:
        salt = os.urandom(16)
        sealer, server = Sealer(method, key, salt), Server(method, password)
        header = bytes((0,)) + NOW.to_bytes(8) + len(second).to_bytes(2)
        server.feed(salt + sealer.box(header) + sealer.box(second))
        return server.request

    address = destination.pack(WANTED)
    assert opened(address + b'\0\3abc') is not None
    assert opened(address + b'\0\0data') is not None
    for wrong in (b'', b'\0', b'\0\0', b'\0\4abc', b'\xff\xff'):
        with pytest.raises(Broken):
            opened(address + wrong)


def test_passwords() -> None:
    for method in METHODS.values():
        fresh = method.fresh_password()
        assert method.fits(fresh)
        assert fresh != method.fresh_password()
        assert not method.fits('')
        if method.modern:
            assert len(base64.b64decode(fresh)) == method.size
            for wrong in ('pw123', fresh[:-4], fresh + 'AAAA', fresh.replace(fresh[0], '-')):
                assert not method.fits(wrong)
        else:
            assert method.fits('anything')
            assert len(fresh) >= 22, '128 bits'
