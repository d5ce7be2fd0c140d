"""Frames, handshakes and requests, on bytes alone."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from madmail.realtime.iroh import derp, handshake, messages, request
from madmail.realtime.iroh.derp import Malformed
from madmail.web.webimap import websocket
from tests.realtime.iroh.rig import masked

SECRET = Ed25519PrivateKey.from_private_bytes(b'\x2a' * 32)
KEY = bytes.fromhex('197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61')
# What iroh 0.35 says with that key.
CLIENT_INFO = bytes.fromhex(
    '020000006a52454c4159f09f9491'
    '197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61'
    '88e77b22f292ab37435da8de0bc8cb84e288f4e73b3582a52731e9ff9865465c'
    '87e05e8d427df422bb6e85e1c05f6f749837baa4a5c7eba3230d77569910430e'
    '03'
)


def test_client_info_is_octet_for_octet_that_of_iroh() -> None:
    assert handshake.introduce(SECRET) == CLIENT_INFO


def test_client_info_proves_the_key() -> None:
    assert handshake.client_info(CLIENT_INFO[5:]) == KEY


def test_client_info_may_say_more_behind_its_version() -> None:
    message = b'\x03and more'
    payload = handshake.MAGIC + KEY + SECRET.sign(message) + message
    assert handshake.client_info(payload) == KEY


@pytest.mark.parametrize('message', [b'', b'\x02', b'\x83', b'\x83' * 20, b'\x83\x01'])
def test_another_version_is_not_believed(message: bytes) -> None:
    payload = handshake.MAGIC + KEY + SECRET.sign(message) + message
    assert handshake.client_info(payload) is None


@given(st.integers(5, len(CLIENT_INFO) - 1), st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_changed_octet_is_noticed(place: int, change: int) -> None:
    data = bytearray(CLIENT_INFO)
    data[place] ^= change
    assert handshake.client_info(bytes(data[5:])) is None


@given(st.binary(max_size=300))
def test_no_client_info_out_of_anything(data: bytes) -> None:
    assert handshake.client_info(data) is None
    assert handshake.client_info(handshake.MAGIC + data) is None


def test_an_answer_holds_for_its_own_challenge_only() -> None:
    asked, other = handshake.challenge(), handshake.challenge()
    answer = handshake.answer(SECRET, asked)
    assert len(answer) == 98
    assert handshake.authentication(answer, asked) == KEY
    assert handshake.authentication(answer, other) is None
    assert handshake.authentication(answer, b'') is None


@given(st.binary(max_size=200))
def test_no_answer_out_of_anything(data: bytes) -> None:
    assert handshake.authentication(data, b'\0' * 16) is None
    assert handshake.authentication(bytes((1,)) + KEY + b'\x40' + data, b'\0' * 16) is None


# -- frames of 0.35


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=100)), max_size=20), st.data())
def test_frames_are_found_wherever_they_are_cut(
    frames: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    sound = [
        (kind, payload)
        for kind, payload in frames
        if not (kind == derp.SEND and len(payload) < derp.KEY)
        and not (kind in (derp.PING, derp.PONG) and len(payload) != 8)
    ]
    stream = b''.join(derp.frame(kind, payload) for kind, payload in sound)
    cut = data.draw(st.integers(0, len(stream)))
    found = []
    for view in (memoryview(stream[:cut]), memoryview(stream)):
        at = sum(5 + len(payload) for _, payload in found)
        while (one := derp.next_frame(view, at, derp.PAYLOAD_LIMIT)) is not None:
            kind, end = one
            found.append((kind, bytes(view[at + 5 : end])))
            at = end
    assert found == sound


@given(st.binary(max_size=200), st.integers(0, 70000))
def test_any_octets_are_a_frame_or_not_yet_one_or_none(data: bytes, limit: int) -> None:
    try:
        found = derp.next_frame(memoryview(data), 0, limit)
    except Malformed:
        return
    if found is not None:
        assert derp.HEADER.size <= found[1] <= len(data)
        assert found[1] <= derp.HEADER.size + limit


@pytest.mark.parametrize(
    'data',
    [
        derp.HEADER.pack(derp.SEND, derp.PAYLOAD_LIMIT + 1),
        derp.HEADER.pack(derp.SEND, derp.KEY - 1),
        derp.HEADER.pack(99, 0xFFFFFFFF),
        derp.HEADER.pack(derp.PING, 7),
        derp.HEADER.pack(derp.PONG, 9),
    ],
)
def test_a_wrong_length_is_noticed_before_the_payload_comes(data: bytes) -> None:
    with pytest.raises(Malformed):
        derp.next_frame(memoryview(data), 0, derp.PAYLOAD_LIMIT)


@given(st.binary(max_size=200))
def test_a_packet_is_the_same_with_the_other_key(body: bytes) -> None:
    theirs = b'\x07' * 32
    frame = bytearray(b'??' + derp.frame(derp.SEND, theirs + body))
    assert derp.readdress(memoryview(frame), 2, KEY) == theirs
    assert frame[2:] == derp.frame(derp.RECEIVE, KEY + body) == derp.packet(KEY, body)


# -- frames in messages


@given(st.binary(max_size=100))
def test_any_message_has_a_type_or_is_malformed(data: bytes) -> None:
    for check in (messages.check_old, messages.check_new):
        try:
            assert check(data) == data[0]
        except Malformed:
            pass


def test_messages_have_bounds() -> None:
    for kind, least in ((messages.DATAGRAM, 33), (messages.BATCH, 35)):
        assert messages.check_new(bytes((kind,)) + bytes(least)) == kind
        with pytest.raises(Malformed):
            messages.check_new(bytes((kind,)) + bytes(least - 1))
        with pytest.raises(Malformed):
            messages.check_new(bytes((kind,)) + bytes(messages.NEW_LIMIT + 1))
    with pytest.raises(Malformed):
        messages.check_old(bytes((derp.SEND,)) + bytes(31))
    with pytest.raises(Malformed):
        messages.check_old(b'')


def test_the_newest_protocol_that_both_know_is_chosen() -> None:
    assert messages.choose('iroh-relay-v2, iroh-relay-v1') == 'iroh-relay-v2'
    assert messages.choose('iroh-relay-v1,iroh-relay-v2') == 'iroh-relay-v2'
    assert messages.choose('iroh-relay-v9, iroh-relay-v1') == 'iroh-relay-v1'
    assert messages.choose('chat') == messages.choose('') == ''


@given(st.binary(max_size=300), st.booleans(), st.sampled_from([0, 2, 9]))
def test_websocket_frames_are_found_in_whatever_lies_before(
    data: bytes, final: bool, opcode: int
) -> None:
    if opcode == 9:
        data, final = data[:125], True
    raw = b'before' + masked(opcode, data, final=final) + b'behind'
    found = websocket.frame_at(memoryview(raw), 6, 1000)
    assert found == (opcode, final, data, len(raw) - 6)
    for cut in (6, 7, 9, len(raw) - 7):
        if cut < len(raw) - 6:
            assert websocket.frame_at(memoryview(raw[:cut]), 6, 1000) is None


@given(st.binary(max_size=200))
def test_any_octets_are_a_websocket_frame_or_broken(data: bytes) -> None:
    try:
        found = websocket.frame_at(memoryview(data), 0, 100)
    except websocket.Broken:
        return
    assert found is None or (len(found[2]) <= 125 and found[3] <= len(data))


# -- requests

NATIVE = b'GET /relay HTTP/1.1\r\nupgrade: iroh derp http\r\nhost: 203.0.113.5:3340\r\n\r\n'


def asked(data: bytes) -> request.Upgrade | bytes:
    found = request.parse(data)
    assert found is not None
    return request.answer(found[0])


def test_the_request_of_a_native_client_has_no_connection_header() -> None:
    found = request.parse(NATIVE + b'ahead')
    assert found is not None
    assert found[1] == len(NATIVE)
    assert asked(NATIVE) == request.Upgrade(
        b'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n'
        b'Upgrade: iroh derp http\r\n\r\n',
        False,
        '',
    )


@pytest.mark.parametrize(
    ('line', 'status'),
    [
        (b'GET /relay HTTP/1.1\r\nUpgrade: IROH DERP HTTP', 101),
        (b'GET /derp?x=1 HTTP/1.1\r\nUpgrade: iroh derp http', 101),
        (b'GET /relay HTTP/1.1', 400),
        (b'GET /relay HTTP/1.1\r\nUpgrade: h2c', 400),
        (b'GET /relay HTTP/1.1\r\nUpgrade: websocket', 400),
        (b'GET /relay HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13', 400),
        (b'POST /relay HTTP/1.1\r\nUpgrade: iroh derp http', 404),
        (b'GET /ping HTTP/1.1', 200),
        (b'GET /ping?x HTTP/1.0', 200),
        (b'GET /healthz HTTP/1.1', 200),
        (b'GET /generate_204 HTTP/1.1', 204),
        (b'GET / HTTP/1.1', 200),
        (b'GET /index.html HTTP/1.1', 200),
        (b'GET /robots.txt HTTP/1.1', 200),
        (b'GET /else HTTP/1.1', 404),
        (b'HEAD / HTTP/1.1', 404),
        (b'DELETE /ping HTTP/1.1', 404),
    ],
)
def test_each_path_has_its_answer(line: bytes, status: int) -> None:
    found = asked(line + b'\r\nHost: x\r\n\r\n')
    text = found.head if isinstance(found, request.Upgrade) else found
    assert text.startswith(b'HTTP/1.1 %d ' % status)
    assert b'\r\n\r\n' in text


def test_another_version_of_websocket_is_told_ours() -> None:
    found = asked(b'GET /relay HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\r\n')
    assert isinstance(found, bytes)
    assert b'\r\nSec-WebSocket-Version: 13\r\n' in found


@pytest.mark.parametrize('name', ['Tailscale', 'Iroh'])
def test_a_challenge_is_answered_under_its_own_name(name: str) -> None:
    line = f'GET /generate_204 HTTP/1.1\r\nX-{name}-Challenge: a.B_9-\r\n\r\n'
    found = asked(line.encode())
    assert isinstance(found, bytes)
    assert f'\r\nX-{name}-Response: response a.B_9-\r\n'.encode() in found


@pytest.mark.parametrize('challenge', ['', 'a b', 'x' * 64, 'é', '<x>'])
def test_what_is_no_challenge_is_not_repeated(challenge: str) -> None:
    line = f'GET /generate_204 HTTP/1.1\r\nX-Iroh-Challenge: {challenge}\r\n\r\n'
    found = asked(line.encode('latin-1'))
    assert isinstance(found, bytes)
    assert b'Response' not in found


@given(st.binary(max_size=400))
def test_any_octets_are_a_request_or_refused_or_too_few(data: bytes) -> None:
    for raw in (data, b'GET /relay HTTP/1.1\r\n' + data, NATIVE[:-2] + data + b'\r\n\r\n'):
        try:
            found = request.parse(raw)
        except request.BadRequest:
            continue
        if found is not None:
            answer = request.answer(found[0])
            text = answer.head if isinstance(answer, request.Upgrade) else answer
            head = text.partition(b'\r\n\r\n')[0]
            # Nothing of it gets into the lines of our answer.
            assert all(b'\n' not in line and b'\r' not in line for line in head.split(b'\r\n'))


def test_a_header_has_bounds() -> None:
    endless = b'GET / HTTP/1.1\r\nX: ' + b'y' * request.LIMIT
    with pytest.raises(request.BadRequest):
        request.parse(endless)
    many = b'GET / HTTP/1.1\r\n' + b'a: b\r\n' * (request.FIELDS_LIMIT + 1) + b'\r\n'
    with pytest.raises(request.BadRequest):
        request.parse(many)
    assert request.parse(b'GET /rel') is None
    with pytest.raises(request.BadRequest):
        request.parse(b'\x16\x03\x01')  # TLS
