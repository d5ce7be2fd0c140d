"""What was used before is known, within bounds, also after a restart."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from madmail.realtime.shadowsocks import salts as module
from madmail.realtime.shadowsocks.salts import SIZE, Salts


def test_each_salt_once() -> None:
    salts = Salts(None)
    fresh = [os.urandom(16 if n % 2 else 32) for n in range(3000)]
    assert all(salts.add(salt) for salt in fresh)
    assert not any(salts.add(salt) for salt in fresh)
    salts.close()


def test_the_last_ones_are_known_however_many_there_were() -> None:
    salts = Salts(None, capacity=100)
    fresh = [os.urandom(32) for _ in range(1050)]
    for index, salt in enumerate(fresh):
        assert salts.add(salt)
        assert not salts.add(fresh[max(index - 100, 0)]), 'the last hundred at least'
    assert salts.add(fresh[0]), 'and the oldest make room'
    salts.close()


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    fresh = [os.urandom(32) for _ in range(250)]
    for lives in range(3):
        for begin in range(0, 250, 50):
            salts = Salts(tmp_path / 'x', capacity=200)
            for salt in fresh[begin : begin + 50]:
                assert salts.add(salt) == (not lives)
            salts.close()
    path = tmp_path / 'x' / 'salts'
    assert path.stat().st_size == SIZE
    assert path.stat().st_mode & 0o077 == 0


def test_the_file_has_no_salts(tmp_path: Path) -> None:
    salts = Salts(tmp_path)
    salt = os.urandom(32)
    salts.add(salt)
    salts.close()
    octets = (tmp_path / 'salts').read_bytes()
    assert salt not in octets
    assert salt[:8] not in octets


@pytest.mark.parametrize('damage', ['short', 'empty', 'noise', 'long'])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / 'salts'
    path.write_bytes(
        {
            'short': b'salts 1\n',
            'empty': b'',
            'noise': os.urandom(64) + b'\xff' * (SIZE - 64),
            'long': bytes(SIZE + 1),
        }[damage]
    )
    salts = Salts(tmp_path)
    salt = os.urandom(32)
    assert salts.add(salt)
    assert not salts.add(salt)
    salts.close()


def test_a_new_salt_is_hardly_ever_taken_for_an_old_one() -> None:
    full = 1 - math.exp(-16 * module.CAPACITY / (module.FILTER * 8))  # share of set bits
    assert full < 0.3875
    salts = Salts(None)
    noise = [int.from_bytes(os.urandom(2 * module.FILTER)) for _ in range(5)]
    a, b, c, d, e = noise
    bits = a & (b | c & (d | e))  # a share of 0.34375 …
    bits |= a & b & c & d  # … and nearly 0.36
    salts._bits[-2 * module.FILTER :] = bits.to_bytes(2 * module.FILTER)
    assert sum(not salts.add(os.urandom(32)) for _ in range(20_000)) <= 1
    salts.close()
