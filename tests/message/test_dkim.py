"""What a signature has to be, which keys count, and what is left out of one."""

from __future__ import annotations

import base64
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from madmail.message import dkim_key, header
from madmail.message.canonicalization import BodyHash
from madmail.message.dkim import (
    ALIGNED_LIMIT,
    OVERSIGNED,
    RECORDS_LIMIT,
    Outcome,
    Result,
    Signer,
    Verification,
)
from tests.message.dkim_forms import DOMAIN, MESSAGE, ed_key, rsa_key, with_signature

RECORD = dkim_key.record(rsa_key()).encode()
NAME = f'one._domainkey.{DOMAIN}'
VALID = Outcome.VALID, ''


class Names:
    """TXT records, and who asked for them."""

    def __init__(self, records: dict[str, list[bytes] | None] | None = None) -> None:
        self.records = {NAME: [RECORD]} if records is None else records
        self.asked: list[str] = []

    def __call__(self, name: str) -> list[bytes] | None:
        self.asked.append(name)
        return self.records.get(name, [])


def judge(message: bytes, *records: bytes, names: Names | None = None, now: float = 0) -> Result:
    names = names or (Names({NAME: list(records)}) if records else Names())
    verification = Verification()
    end = message.index(b'\r\n\r\n') + 4
    verification.feed_header(message[:end])
    verification.feed(message[end:])
    return verification.finish(names, now)


def test_the_test_signer_signs() -> None:
    assert judge(with_signature()) == VALID


# -- which signatures


@pytest.mark.parametrize(
    ('tags', 'cause'),
    [
        ({'v': '2'}, 'syntax'),
        ({'v': None}, 'syntax'),
        ({'a': None}, 'syntax'),
        ({'a': 'rsa-sha1'}, 'algorithm'),
        ({'a': 'rsa-sha512'}, 'algorithm'),
        ({'bh': None}, 'syntax'),
        ({'bh': '*'}, 'syntax'),
        ({'d': None}, 'syntax'),
        ({'d': 'relay..example'}, 'syntax'),
        ({'s': None}, 'syntax'),
        ({'s': 'a b'}, 'syntax'),
        ({'s': r'a\046b'}, 'syntax'),
        ({'h': None}, 'syntax'),
        ({'h': 'to:subject'}, 'from_unsigned'),
        ({'l': '7'}, 'partial'),
        ({'l': '0'}, 'partial'),
        ({'c': 'nowsp'}, 'canonicalization'),
        ({'c': 'relaxed/other'}, 'canonicalization'),
        ({'q': 'http'}, 'query'),
        ({'i': 'alice'}, 'identity'),
        ({'i': '@other.example'}, 'identity'),
        ({'i': '@notrelay.example'}, 'identity'),
        ({'t': 'now'}, 'syntax'),
        ({'x': 'never'}, 'syntax'),
        ({'t': '2000', 'x': '2000'}, 'syntax'),
    ],
)
def test_signatures_of_another_form_are_none(tags: dict[str, str | None], cause: str) -> None:
    names = Names()
    assert judge(with_signature(**tags), names=names) == (Outcome.INVALID, cause)
    assert not names.asked


@pytest.mark.parametrize(
    'tags',
    [
        {'q': 'dns/txt'},
        {'q': 'other:dns/txt'},
        {'i': f'@{DOMAIN}'},
        {'i': f'alice@{DOMAIN.upper()}'},
        {'c': 'Relaxed/Simple'},
        {'d': DOMAIN.upper()},
        {'s': 'ONE'},
        {'t': '1000', 'x': '2000'},
        {'z': 'From:someone', 'unknown': 'x'},
        {'h': 'From : TO:subject:cc:cc'},
        {'h': 'from:from:from:to:subject'},
    ],
)
def test_signatures_of_an_unusual_form_hold(tags: dict[str, str | None]) -> None:
    assert judge(with_signature(**tags), now=1500) == VALID


def test_a_tag_given_twice_makes_a_signature_none() -> None:
    message = with_signature().replace(b'v=1;', b'v=1; v=1;')
    assert judge(message) == (Outcome.INVALID, 'syntax')


def test_an_expired_signature_is_none() -> None:
    message = with_signature(t='1000', x='2000')
    assert judge(message, now=2000) == VALID
    assert judge(message, now=2001) == (Outcome.INVALID, 'expired')


def test_no_signature_is_told_apart_from_bad_ones() -> None:
    assert judge(MESSAGE) == (Outcome.MISSING, '')
    assert judge(b'DKIM-Signature: rubbish\r\n' + MESSAGE) == (Outcome.INVALID, 'syntax')


# -- whose signatures


@pytest.mark.parametrize(
    'sender',
    [
        b'alice@sub.relay.example',
        b'alice@example',
        b'alice@other.example',
        b'alice@relay.example.',
        b'alice@[192.0.2.1]',
    ],
)
def test_only_the_very_domain_of_from_counts(sender: bytes) -> None:
    message = MESSAGE.replace(b'alice@relay.example', sender)
    names = Names()
    assert judge(with_signature(message), names=names).outcome is Outcome.INVALID
    assert not names.asked


def test_the_signature_of_a_parent_domain_does_not_count_with_its_own_key() -> None:
    names = Names({'one._domainkey.example': [RECORD]})
    assert judge(with_signature(d='example'), names=names) == (Outcome.INVALID, 'foreign')


def test_two_from_fields_have_no_domain() -> None:
    message = with_signature(b'From: <mallory@relay.example>\r\n' + MESSAGE)
    assert judge(message) == (Outcome.INVALID, 'foreign')


@pytest.mark.parametrize(
    'sender',
    [
        b'"alice@other.example" <alice@relay.example>',
        b'alice@relay.example (alice@other.example)',
        b'=?utf-8?q?alice=40other=2Eexample?= <alice@RELAY.example>',
    ],
)
def test_the_domain_is_that_of_the_address_and_not_of_a_name(sender: bytes) -> None:
    assert judge(with_signature(MESSAGE.replace(b'<alice@relay.example>', sender))) == VALID


def test_several_senders_in_one_from_have_no_domain() -> None:
    sender = b'<alice@relay.example>, <bob@other.example>'
    message = with_signature(MESSAGE.replace(b'<alice@relay.example>', sender))
    assert judge(message) == (Outcome.INVALID, 'foreign')


# -- several signatures


def test_one_valid_signature_among_others_is_enough() -> None:
    good = with_signature()
    foreign = with_signature(d='list.example').removesuffix(MESSAGE)
    broken = with_signature(s='two').removesuffix(MESSAGE)
    assert judge(foreign * 20 + broken + good) == VALID
    assert judge(broken * (ALIGNED_LIMIT - 1) + good) == VALID


def test_no_more_than_a_few_signatures_are_tried() -> None:
    broken = with_signature(s='two').removesuffix(MESSAGE)
    names = Names()
    message = broken * 30 + with_signature()
    assert judge(message, names=names) == (Outcome.INVALID, 'key_missing')
    assert len(names.asked) == ALIGNED_LIMIT


# -- what was changed


@pytest.mark.parametrize(
    ('before', 'after', 'cause'),
    [
        (b'hello', b'hellp', 'body'),
        (b'hello\r\n', b'hello\r\nmore\r\n', 'body'),
        (b'hello\r\n', b'hello \r\n', 'body'),
        (b'Subject: [...]', b'Subject: [..]', 'signature'),
        (b'<alice@', b'<mallory@', 'signature'),
        (b'To: <bob@other.example>\r\n', b'', 'signature'),
        (b's=one; h=', b's=one;  x=9; h=', 'signature'),
    ],
)
def test_a_changed_message_has_no_valid_signature(before: bytes, after: bytes, cause: str) -> None:
    message = with_signature()
    assert message.count(before) == 1
    assert judge(message.replace(before, after)) == (Outcome.INVALID, cause)


def test_a_wrong_body_hash_makes_nobody_ask() -> None:
    names = Names()
    judge(with_signature() + b'more', names=names)
    assert not names.asked


@pytest.mark.parametrize('name', sorted(OVERSIGNED))
def test_nobody_can_add_a_field_that_is_signed_once_more_than_it_stands(name: bytes) -> None:
    end = MESSAGE.index(b'\r\n\r\n') + 4
    body = BodyHash()
    body.feed(MESSAGE[end:])
    signature = Signer(DOMAIN, 'one', rsa_key()).sign(MESSAGE[:end], body.digest())
    assert judge(signature + MESSAGE) == VALID
    added = name + b': <mallory@other.example>\r\n'
    assert judge(signature + added + MESSAGE).outcome is Outcome.INVALID
    assert judge(added + signature + MESSAGE).outcome is Outcome.INVALID
    below = MESSAGE.replace(b'\r\n\r\n', b'\r\n' + added + b'\r\n', 1)
    assert judge(signature + below).outcome is Outcome.INVALID


# -- keys


def public(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, form: PublicFormat) -> bytes:
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, form))


P = RECORD.rpartition(b'p=')[2]


@pytest.mark.parametrize(
    'record',
    [
        b'p=' + P,
        b'v=DKIM1; k=rsa; p=' + P + b';',
        b'v=DKIM1; p=' + P[:100] + b' ' + P[100:200] + b'\t\r\n ' + P[200:],
        b'v=DKIM1; h=sha1:sha256; s=*; t=y; n=note; g=*; p=' + P,
        b'v=DKIM1; s=other:email; p=' + P,
        b'"v=DKIM1;k=rsa;p=' + P[:100] + b'" "' + P[100:] + b'"',
        b'v=DKIM1; p=' + public(rsa_key(), PublicFormat.PKCS1),
    ],
)
def test_usable_key_records(record: bytes) -> None:
    assert judge(with_signature(), record) == VALID


@pytest.mark.parametrize(
    ('record', 'cause'),
    [
        (b'', 'key_syntax'),
        (b'v=spf1 -all', 'key_version'),
        (b'v=DKIM1; k=rsa', 'key_syntax'),
        (b'v=DKIM1; k=rsa; p=', 'key_revoked'),
        (b'v=DKIM1; p=%%%', 'key_syntax'),
        (b'v=DKIM1; p=AAAA', 'key_syntax'),
        (b'v=DKIM1; p=' + P[:-8], 'key_syntax'),
        (b'v=DKIM2; p=' + P, 'key_version'),
        (b'p=' + P + b'; v=DKIM1', 'key_version'),
        (b'v=DKIM1; p=' + P + b'; p=' + P, 'key_syntax'),
        (b'v=DKIM1; h=sha1; p=' + P, 'key_hash'),
        (b'v=DKIM1; s=other; p=' + P, 'key_service'),
        (b'v=DKIM1; k=dsa; p=' + P, 'key_kind'),
        (b'v=DKIM1; k=ed25519; p=' + P, 'key_syntax'),
        (
            b'v=DKIM1; p='
            + public(ec.generate_private_key(ec.SECP256R1()), PublicFormat.SubjectPublicKeyInfo),
            'key_kind',
        ),
        (b'v=DKIM1; n=' + b'x' * 5000 + b'; p=' + P, 'key_size'),
        (dkim_key.record(ed_key()).encode(), 'signature'),
    ],
)
def test_unusable_key_records(record: bytes, cause: str) -> None:
    assert judge(with_signature(), record) == (Outcome.INVALID, cause)


def test_a_missing_key_is_told_apart_from_one_that_could_not_be_looked_up() -> None:
    assert judge(with_signature(), names=Names({})) == (Outcome.INVALID, 'key_missing')
    assert judge(with_signature(), names=Names({NAME: None})) == (Outcome.FAILED, 'dns')


def test_trouble_with_one_key_does_not_hide_a_valid_one() -> None:
    names = Names({'two' + NAME[3:]: None, NAME: [RECORD]})
    troubled = with_signature(s='two').removesuffix(MESSAGE)
    assert judge(troubled + with_signature(), names=names) == VALID
    broken = with_signature().replace(b'Subject: [', b'Subject: (').removesuffix(MESSAGE)
    assert judge(troubled + broken, names=names).outcome is Outcome.FAILED


def test_of_several_records_some_are_tried() -> None:
    other = dkim_key.record(ed_key()).encode()
    assert judge(with_signature(), b'v=spf1 -all', other, RECORD) == VALID
    late = [other] * RECORDS_LIMIT + [RECORD]
    assert judge(with_signature(), *late) == (Outcome.INVALID, 'signature')


def test_small_keys_are_refused() -> None:
    least = rsa.generate_private_key(65537, 1024)
    assert isinstance(dkim_key.parse(dkim_key.record(least).encode()), dkim_key.Key)
    for bits in (512, 768, 1023):
        numbers = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) + 643)
        assert isinstance(dkim_key.parse(public_numbers_record(numbers)), dkim_key.Unusable)


@pytest.mark.parametrize(
    ('modulus', 'exponent'), [((1 << 8191) + 1, 65537), ((1 << 2047) + 1, (1 << 2040) + 1)]
)
def test_keys_that_only_cost_time_are_refused(modulus: int, exponent: int) -> None:
    record = public_numbers_record(rsa.RSAPublicNumbers(exponent, modulus))
    assert isinstance(dkim_key.parse(record), dkim_key.Unusable)


def public_numbers_record(numbers: rsa.RSAPublicNumbers) -> bytes:
    """PKCS#1 by hand, because a library would not let us make some of them."""

    def tlv(tag: int, body: bytes) -> bytes:
        size = len(body)
        length = bytes([size]) if size < 128 else b'\x82' + size.to_bytes(2, 'big')
        return bytes([tag]) + length + body

    def integer(value: int) -> bytes:
        return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, 'big'))

    body = tlv(0x30, integer(numbers.n) + integer(numbers.e))
    return b'v=DKIM1; p=' + base64.b64encode(body)


def test_a_strict_key_signs_for_no_subdomain() -> None:
    sub = with_signature(i=f'@sub.{DOMAIN}')
    assert b't=s' in RECORD
    assert judge(sub) == (Outcome.INVALID, 'identity')
    assert judge(sub, b'v=DKIM1; p=' + P) == VALID


def test_ed25519() -> None:
    message = with_signature(a='ed25519-sha256')
    assert judge(message, dkim_key.record(ed_key()).encode()) == VALID
    assert judge(message) == (Outcome.INVALID, 'signature')


# -- what we write


def signed(block: bytes) -> bytes:
    return Signer(DOMAIN, 'one', rsa_key()).sign(block, BodyHash().digest())


def test_a_signature_tells_nothing_about_when_and_covers_all() -> None:
    field = signed(MESSAGE[: MESSAGE.index(b'\r\n\r\n') + 4])
    found = dkim_key.tags(header.parse_loosely(field)[0].value)
    assert found is not None
    assert found.keys() == {b'v', b'a', b'c', b'd', b's', b'h', b'bh', b'b'}
    names = dkim_key.unblanked(found[b'h']).split(b':')
    for name in (b'from', b'to', b'subject'):
        assert names.count(name) == 2
    for name in (b'autocrypt', b'content-type', b'cc', b'date', b'reply-to', b'list-id'):
        assert names.count(name) == 1
    assert max(len(line) for line in field.split(b'\r\n')) <= 78
    assert header.parse(field + b'\r\n') is not None


def test_every_field_of_a_name_is_signed() -> None:
    field = signed(b'From: <a@relay.example>\r\nAutocrypt: a\r\nAutocrypt: b\r\n\r\n')
    names = re.sub(rb'\s', b'', field).split(b'h=')[1].split(b';')[0].split(b':')
    assert names.count(b'autocrypt') == 3


def test_the_record_is_of_the_form_that_others_read() -> None:
    assert RECORD.startswith(b'v=DKIM1;k=rsa;s=email;t=s;p=MIIBIjAN')
    assert dkim_key.record(ed_key()).startswith('v=DKIM1;k=ed25519;s=email;t=s;p=')
    assert (
        len(dkim_key.decoded(dkim_key.record(ed_key()).rpartition('p=')[2].encode()) or b'') == 32
    )
