"""CRC-24: the folds are right and the sum is the one of RFC 9580 6.1."""

import random

import pytest

from madmail.message import crc24


def bit_by_bit(data: bytes, crc: int = crc24.INITIAL) -> int:
    """The sample code of RFC 9580 6.1.1."""
    for octet in data:
        crc ^= octet << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= crc24.POLYNOMIAL
    return crc


def remainder(exponent: int) -> int:
    """x^exponent modulo the polynomial."""
    value = 1
    for _ in range(exponent):
        value <<= 1
        if value >> 24:
            value ^= crc24.POLYNOMIAL
    return value


@pytest.mark.parametrize(('a', 'b', 'c'), crc24.FOLDS)
def test_folds_are_multiples_of_the_polynomial(a: int, b: int, c: int) -> None:
    assert remainder(a) == remainder(b) ^ remainder(c) ^ 1


def test_last_folds_are_multiples_of_the_polynomial() -> None:
    for a, terms in ((494, (36, 15, 7, 1)), (231, (25, 12, 9, 7))):
        total = 1
        for term in terms:
            total ^= remainder(term)
        assert remainder(a) == total


def test_sum_of_123456789_is_the_published_one() -> None:
    assert crc24.update(crc24.INITIAL, b'123456789') == 0x21CF02


@pytest.mark.parametrize('size', [*range(64), 127, 500, 2000, 49151, 49152, 49153, 100000])
def test_any_length_gives_the_sum_of_the_sample_code(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert crc24.update(crc24.INITIAL, data) == bit_by_bit(data)


def test_sum_continues_over_pieces() -> None:
    data = random.Random(7).randbytes(5000)
    for at in (0, 1, 39, 40, 41, 2500, 4999):
        first = crc24.update(crc24.INITIAL, data[:at])
        assert crc24.update(first, data[at:]) == crc24.update(crc24.INITIAL, data)


def test_octets_of_zero_and_ones() -> None:
    for octet in (b'\0', b'\xff'):
        assert crc24.update(crc24.INITIAL, octet * 3000) == bit_by_bit(octet * 3000)
