"""Verifiers that other relays made: all forms are checked, and only ever replaced upwards."""

from __future__ import annotations

import base64
import hashlib
import subprocess

import bcrypt
import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given, settings
from hypothesis import strategies as st

from madmail.account import foreign, password, sha_crypt

SECRET = bytes(range(32))
WORD = b'correct horse'


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sha256(given: bytes = WORD, salt: bytes = bytes(32)) -> str:
    return f'sha256:{b64(salt)}:{b64(hashlib.sha256(salt + given).digest())}'


def argon2(time: int, memory: int, lanes: int, given: bytes = WORD) -> str:
    salt = bytes(16)
    made = Argon2id(salt=salt, length=64, iterations=time, lanes=lanes, memory_cost=memory)
    return f'argon2:{time}:{memory}:{lanes}:{b64(salt)}:{b64(made.derive(given))}'


def bcrypt_of(cost: int, given: bytes = WORD) -> str:
    return bcrypt.hashpw(given, bcrypt.gensalt(cost)).decode()


# Of the specification (Drepper, 2007), confirmed with libcrypt.
SHA_CRYPT = [
    ('$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5', 'Hello world!'),
    (
        '$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA',
        'Hello world!',
    ),
    (
        '$5$rounds=1400$anotherlongsalts$Rx.j8H.h8HjEDGomFU8bDkXm3XIUnzyxf12oP84Bnq1',
        'a very much longer text to encrypt.  This one even stretches over morethan one line.',
    ),
    (
        '$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8v'
        'OuZeHBy/YTBmSK6H9qs/y3RnOaw5v.',
        'Hello world!',
    ),
    (
        '$6$rounds=5000$toolongsaltstrin$lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1'
        'yxdYcz/e1JSbq3y6JMxxl8audkUEm0',
        'This is just a test',
    ),
]


@pytest.mark.parametrize(('verifier', 'text'), SHA_CRYPT)
def test_sha_crypt_by_its_specification(verifier: str, text: str) -> None:
    assert password.verify(text.encode(), password.importable(verifier), SECRET)
    assert not password.verify(text.encode() + b'.', verifier, SECRET)


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from('56'),
    salt=st.text('abcXYZ019./', min_size=1, max_size=16),
    text=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=150),
)
def test_sha_crypt_as_openssl_makes_it(kind: str, salt: str, text: str) -> None:
    done = subprocess.run(
        ['openssl', 'passwd', f'-{kind}', '-salt', salt, '-stdin'],
        input=text.encode() + b'\n',
        capture_output=True,
        check=True,
    )
    verifier = done.stdout.decode().strip()
    assert foreign.verify(text.encode(), verifier)
    assert not foreign.verify(text.encode()[1:] + b'x!', verifier)


@pytest.mark.parametrize(
    'verifier',
    [
        sha256(),
        sha256().replace('=', ''),
        bcrypt_of(4),
        'bcrypt:' + bcrypt_of(5),
        bcrypt_of(4).replace('$2b$', '$2y$'),
        argon2(3, 1024, 1),
        argon2(1, 64, 4),
    ],
)
def test_every_form_accepts_its_password_only(verifier: str) -> None:
    kept = password.importable(verifier)
    assert password.slow(kept)
    assert password.verify(WORD, kept, SECRET)
    assert not password.verify(WORD + b'x', kept, SECRET)
    assert not password.verify(b'', kept, SECRET)


def test_argon2_of_the_reference_implementation() -> None:
    # phc-winner-argon2, test.c, version 0x13: t=2, m=2^16 (KiB), p=1, "password", "somesalt"
    raw = bytes.fromhex('09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7')
    verifier = f'argon2:2:65536:1:{b64(b"somesalt")}:{b64(raw)}'
    assert password.verify(b'password', password.importable(verifier), SECRET)


def test_bcrypt_looks_at_72_octets() -> None:
    verifier = password.importable(bcrypt_of(4, b'x' * 72))
    assert password.verify(b'x' * 100, verifier, SECRET)
    assert not password.verify(b'x' * 71, verifier, SECRET)
    assert not password.verify(b'x\0' * 36, verifier, SECRET)


@pytest.mark.parametrize(
    'verifier',
    [
        '',
        'plain',
        'plain:secret',
        '$1$abc$def',
        '$2b$15$' + 'a' * 53,
        '$2b$10$short',
        'bcrypt:',
        'argon2:1:64:1:AAAA',
        'argon2:99:64:1:' + b64(bytes(16)) + ':' + b64(bytes(32)),
        'argon2:1:9999999:1:' + b64(bytes(16)) + ':' + b64(bytes(32)),
        'argon2:0:64:1:' + b64(bytes(16)) + ':' + b64(bytes(32)),
        'argon2:1:64:-1:' + b64(bytes(16)) + ':' + b64(bytes(32)),
        'sha256:!!:??',
        'sha256:' + b64(bytes(16)) + ':' + b64(bytes(31)),
        '$6$rounds=900000$salt$' + 'a' * 86,
        '$5$salt$' + 'a' * 86,
        'hmac:1:x:y',
        'hmac:1:AAAAAAAAAAAAAAAAAAAAAA:AAAA',
        'scrypt:30:8:1:AAAA:AAAA',
    ],
)
def test_what_cannot_or_should_not_be_checked_is_not_taken_over(verifier: str) -> None:
    with pytest.raises(foreign.Unusable) as refusal:
        password.importable(verifier)
    assert not verifier or verifier not in str(refusal.value)


@pytest.mark.parametrize(
    ('verifier', 'better'),
    [
        (sha256(), True),
        (bcrypt_of(6), True),
        ('bcrypt:' + '$2b$12$' + 'a' * 53, False),
        (SHA_CRYPT[0][0], True),
        ('$6$rounds=90000$salt$' + 'a' * 86, False),
        (argon2(1, 64, 1), True),
        (argon2(3, 65536, 1), False),
    ],
)
def test_a_weak_password_is_never_weakened(verifier: str, better: bool) -> None:
    assert password.better(WORD, password.importable(verifier)) is better


def test_a_strong_password_gets_our_keyed_verifier_whatever_it_had() -> None:
    strong = b'x9QmZp2LrT7vKw4NcY8bHd'
    assert password.better(strong, 'bcrypt:' + '$2b$12$' + 'a' * 53)
    assert password.better(strong, argon2(1, 64, 1))


@pytest.mark.parametrize('given', [WORD, b'x9QmZp2LrT7vKw4NcY8bHd'])
def test_our_own_verifiers_move_to_another_relay_and_become_its_own(given: bytes) -> None:
    ours = password.encode(given, SECRET)
    assert not password.better(given, ours)
    moved = password.importable(password.portable(ours, SECRET))
    other = bytes(32)
    assert password.verify(given, moved, other)
    assert not password.verify(given + b'x', moved, other)
    if password.strong(given):
        with pytest.raises(foreign.Unusable):
            password.importable(ours)  # nothing to check it with
        assert password.better(given, moved)


def test_rounds_below_the_least_count_as_the_least() -> None:
    digest = sha_crypt.digest(WORD, '5', sha_crypt.LEAST_ROUNDS, b'salt')
    assert foreign.verify(WORD, f'$5$rounds=10$salt${digest}')
