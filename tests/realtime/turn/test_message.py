"""STUN messages: the vectors of RFC 5769, and that nothing malformed gets by or breaks."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from madmail.realtime.turn import message
from madmail.realtime.turn.message import (
    INDICATION,
    REQUEST,
    SUCCESS,
    Address,
    Malformed,
    build,
    error_code,
    parse,
    read_error_code,
    read_xor_address,
    xor_address,
)

SHORT_TERM = b'VOkJxbRl1RmTxUk/WvJxBt'

# RFC 5769 2.1
SAMPLE_REQUEST = bytes.fromhex(
    '000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74'
    '002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149a'
    'eaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf'
)
# RFC 5769 2.2
SAMPLE_IPV4 = bytes.fromhex(
    '0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147'
    'e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96'
)
# RFC 5769 2.3
SAMPLE_IPV6 = bytes.fromhex(
    '010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a147'
    '0113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004'
    'c8fb0b4c'
)
# RFC 5769 2.4
SAMPLE_LONG_TERM = bytes.fromhex(
    '000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382af'
    'e382b900000015001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b65'
    '78616d706c652e6f72670000080014f67024656dd64a3e02b8e0712e85c9a28ca89666'
)


def test_rfc5769_request() -> None:
    found = parse(SAMPLE_REQUEST)
    assert (found.kind, found.method) == (REQUEST, message.BINDING)
    assert found.get(message.USERNAME) == b'evtj:h6vY'
    assert found.verifies(SHORT_TERM)
    assert not found.verifies(b'another')


@pytest.mark.parametrize(
    ('sample', 'address'),
    [
        (SAMPLE_IPV4, Address('192.0.2.1', 32853)),
        (SAMPLE_IPV6, Address('2001:db8:1234:5678:11:2233:4455:6677', 32853)),
    ],
)
def test_rfc5769_responses(sample: bytes, address: Address) -> None:
    found = parse(sample)
    assert (found.kind, found.method) == (SUCCESS, message.BINDING)
    value = found.get(message.XOR_MAPPED_ADDRESS)
    assert value is not None
    assert read_xor_address(value, found.transaction) == address
    assert xor_address(address, found.transaction) == value
    assert found.verifies(SHORT_TERM)
    # What we write is the same to the octet, but for the padding of SOFTWARE.
    attributes = [pair for pair in found.attributes if pair[0] != message.MESSAGE_INTEGRITY]
    ours = build(SUCCESS, message.BINDING, found.transaction, attributes, SHORT_TERM)
    assert len(ours) == len(sample)
    assert parse(ours).attributes[:-1] == attributes


def test_rfc5769_long_term_credentials() -> None:
    found = parse(SAMPLE_LONG_TERM)
    key = message.long_term_key('\u30de\u30c8\u30ea\u30c3\u30af\u30b9', 'example.org', 'TheMatrIX')
    assert key.hex() == 'e8ca7ad59d5eb0518e312911d2dab2a9'
    assert found.verifies(key)


@pytest.mark.parametrize('sample', [SAMPLE_REQUEST, SAMPLE_IPV4, SAMPLE_IPV6])
def test_any_changed_bit_is_noticed(sample: bytes) -> None:
    for at in range(len(sample) - 8):
        changed = bytearray(sample)
        changed[at] ^= 0x01
        with pytest.raises(Malformed):
            parse(bytes(changed))


def test_a_changed_bit_without_fingerprint_fails_the_signature() -> None:
    for at in range(len(SAMPLE_LONG_TERM)):
        changed = bytearray(SAMPLE_LONG_TERM)
        changed[at] ^= 0x01
        try:
            found = parse(bytes(changed))
        except Malformed:
            continue
        key = message.long_term_key(
            '\u30de\u30c8\u30ea\u30c3\u30af\u30b9', 'example.org', 'TheMatrIX'
        )
        assert not found.verifies(key), at


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=300))
@example(SAMPLE_REQUEST[:-1])
@example(b'\0\1\0\4' + message.COOKIE.to_bytes(4, 'big') + bytes(12) + b'\0\6\xff\xff')
def test_nothing_but_malformed_is_raised(data: bytes) -> None:
    try:
        parse(data)
    except Malformed:
        pass


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 0x3FFF))
def test_what_has_a_right_header_is_read_or_malformed(body: bytes, first: int) -> None:
    body = body[: len(body) // 4 * 4]
    head = first.to_bytes(2, 'big') + len(body).to_bytes(2, 'big')
    try:
        found = parse(head + message.COOKIE.to_bytes(4, 'big') + bytes(12) + body)
    except Malformed:
        return
    found.verifies(b'key')
    found.unknown()
    for number, value in found.attributes:
        assert 0 <= number <= 0xFFFF
        for read in (lambda v: read_xor_address(v, bytes(12)), read_error_code):
            try:
                read(value)
            except Malformed:
                pass


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([REQUEST, INDICATION, SUCCESS, message.ERROR]),
    st.integers(0, 0xFFF),
    st.lists(
        st.tuples(
            st.integers(0, 0xFFFF).filter(
                lambda n: n not in (message.MESSAGE_INTEGRITY, message.FINGERPRINT)
            ),
            st.binary(max_size=40),
        ),
        max_size=8,
    ),
    st.one_of(st.none(), st.binary(min_size=16, max_size=16)),
    st.booleans(),
)
def test_what_is_written_is_read_again(
    kind: int,
    method: int,
    attributes: list[tuple[int, bytes]],
    key: bytes | None,
    fingerprint: bool,
) -> None:
    transaction = os.urandom(12)
    found = parse(build(kind, method, transaction, attributes, key, fingerprint=fingerprint))
    assert (found.kind, found.method, found.transaction) == (kind, method, transaction)
    signature = [] if key is None else [found.attributes.pop()]
    assert found.attributes == attributes
    assert found.signed is bool(signature)
    if key is not None:
        assert found.verifies(key)


def test_attributes_behind_the_signature_do_not_count() -> None:
    signed = build(REQUEST, message.REFRESH, bytes(12), [], b'k' * 16, fingerprint=False)
    smuggled = bytes.fromhex('000d000400000000')
    length = (len(signed) - 20 + len(smuggled)).to_bytes(2, 'big')
    found = parse(signed[:2] + length + signed[4:] + smuggled)
    assert found.get(message.LIFETIME) is None


def test_the_first_of_two_attributes_counts() -> None:
    found = parse(
        build(REQUEST, 3, bytes(12), [(message.LIFETIME, b'a'), (message.LIFETIME, b'b')])
    )
    assert found.get(message.LIFETIME) == b'a'
    assert found.all(message.LIFETIME) == [b'a', b'b']


def test_error_codes() -> None:
    number, value = error_code(438, 'Stale Nonce')
    assert number == message.ERROR_CODE
    assert value == b'\0\0\x04\x26Stale Nonce'
    assert read_error_code(value) == 438


@pytest.mark.parametrize(
    'value',
    [
        b'',
        b'\0',
        b'\0\1\0\0',
        b'\0\2\0\0\1\1\1\1',
        b'\0\1\0\0\1\1\1\1\1',
        b'\0\3\0\0' + bytes(16),
    ],
)
def test_addresses_of_the_wrong_form_are_malformed(value: bytes) -> None:
    with pytest.raises(Malformed):
        read_xor_address(value, bytes(12))


def test_an_ipv4_address_in_disguise_is_malformed() -> None:
    value = xor_address(Address('::ffff:7f00:1', 80), bytes(12))
    with pytest.raises(Malformed):
        read_xor_address(value, bytes(12))
