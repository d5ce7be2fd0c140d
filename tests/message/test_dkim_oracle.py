"""Our signatures hold for dkimpy and its signatures for us, whatever the message looks like."""

from __future__ import annotations

import base64
import hashlib
import re

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from madmail.message import dkim_key
from madmail.message.canonicalization import BodyHash
from madmail.message.dkim import Outcome, Signer, Verification

DOMAIN = 'relay.example'
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()
RECORDS = {
    f'rsa._domainkey.{DOMAIN}': [dkim_key.record(RSA).encode()],
    f'ed._domainkey.{DOMAIN}': [dkim_key.record(ED).encode()],
}
RSA_PEM = RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
ED_SEED = base64.b64encode(ED.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
HEAD = f'From: Alice <alice@{DOMAIN}>\r\nTo: <bob@other.example>\r\nSubject: hello\r\n'.encode()


def signed(message: bytes, *, ed: bool = False, cut: int = 0) -> bytes:
    """By us."""
    end = message.index(b'\r\n\r\n') + 4
    body = BodyHash()
    for piece in pieces(message[end:], cut):
        body.feed(piece)
    signer = Signer(DOMAIN, 'ed' if ed else 'rsa', ED if ed else RSA)
    return signer.sign(message[:end], body.digest()) + message


def pieces(octets: bytes, cut: int) -> list[bytes]:
    return [octets[i : i + cut] for i in range(0, len(octets), cut)] if cut else [octets]


def outcome(message: bytes, cut: int = 0) -> Outcome:
    end = message.index(b'\r\n\r\n') + 4
    verification = Verification()
    verification.feed_header(message[:end])
    for piece in pieces(message[end:], cut):
        verification.feed(piece)
    return verification.finish(lambda name: RECORDS.get(name, [])).outcome


def holds_for_dkimpy(message: bytes) -> bool:
    def txt(name: bytes, timeout: int = 5) -> bytes | None:
        found = RECORDS.get(name.decode().rstrip('.'))
        return found[0] if found else None

    return bool(dkim.verify(message, dnsfunc=txt))


def signed_by_dkimpy(message: bytes, form: str, *, ed: bool = False, **options: object) -> bytes:
    header, body = (word.encode() for word in form.split('/'))
    return (
        dkim.sign(
            message,
            b'ed' if ed else b'rsa',
            DOMAIN.encode(),
            ED_SEED if ed else RSA_PEM,
            canonicalize=(header, body),
            signature_algorithm=b'ed25519-sha256' if ed else b'rsa-sha256',
            **options,
        )
        + message
    )


BODIES = {
    'empty': b'',
    'one-empty-line': b'\r\n',
    'only-empty-lines': b'\r\n\r\n\r\n',
    'only-blanks': b'  \t \r\n \r\n',
    'no-final-line-end': b'hello',
    'trailing-empty-lines': b'hello\r\n\r\n\r\n',
    'trailing-blank-lines': b'hello \t\r\n \r\n\t\r\n',
    'blanks-within': b'a  b\t\tc \t d\r\n\r\n\r\nend\r\n',
    'leading-blanks': b'\r\n\r\n  \thello\r\n',
    'blanks-at-the-end': b'hello\r\nworld   ',
    'eight-bit': 'grüße\r\n'.encode(),
    'dots': b'.\r\n..\r\n',
}
HEADS = {
    'plain': HEAD,
    'folded': b'From:\r\n Alice\r\n\t<alice@relay.example>\r\nSubject: a\r\n  b\r\n \tc\r\n',
    'folded-empty-looking': b'From: <alice@relay.example>\r\nSubject:\r\n \r\n x\r\n',
    'blank-before-colon': b'From : <alice@relay.example>\r\nSubject\t: x  y\r\n',
    'duplicates': HEAD + b'Received: one\r\nReceived: two\r\nComments: a\r\nComments: b\r\n',
    'two-subjects': HEAD + b'Subject: second\r\nTo: <carol@other.example>\r\n',
    'upper-case': b'FROM: <alice@RELAY.EXAMPLE>\r\nSUBJECT:X\r\n',
    'empty-values': b'From: <alice@relay.example>\r\nSubject:\r\nTo: \r\nCc:\t\r\n',
    'eight-bit': 'From: Zoë <alice@relay.example>\r\nSubject: ü\r\n'.encode(),
    'many': HEAD + b''.join(b'X-%d: %d\r\n' % (n, n) for n in range(60)),
}


FORMS = ['simple/simple', 'simple/relaxed', 'relaxed/simple', 'relaxed/relaxed']
# dkimpy signs no field whose name has a blank behind it, and keeps blanks at the end of a
# last line that has no line end.
KNOWN_TO_DKIMPY = {name: head for name, head in HEADS.items() if name != 'blank-before-colon'}


@pytest.mark.parametrize('ed', [False, True], ids=['rsa', 'ed25519'])
@pytest.mark.parametrize('body', BODIES.values(), ids=BODIES)
@pytest.mark.parametrize('head', KNOWN_TO_DKIMPY.values(), ids=KNOWN_TO_DKIMPY)
def test_what_we_sign_holds_for_dkimpy_and_for_us(head: bytes, body: bytes, ed: bool) -> None:
    message = signed(head + b'\r\n' + body, ed=ed)
    assert outcome(message) is Outcome.VALID
    assert outcome(message, cut=1) is Outcome.VALID
    assert holds_for_dkimpy(message)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('body', BODIES.values(), ids=BODIES)
@pytest.mark.parametrize('head', KNOWN_TO_DKIMPY.values(), ids=KNOWN_TO_DKIMPY)
def test_what_dkimpy_signs_holds_for_us(head: bytes, body: bytes, form: str) -> None:
    if body.endswith(b' '):
        body += b'\r\n'
    message = signed_by_dkimpy(head + b'\r\n' + body, form)
    assert holds_for_dkimpy(message)
    assert outcome(message) is Outcome.VALID
    assert outcome(message, cut=1) is Outcome.VALID


def test_a_blank_before_the_colon_changes_nothing() -> None:
    message = signed(HEADS['blank-before-colon'] + b'\r\nhello\r\n')
    assert outcome(message) is Outcome.VALID
    tight = message.replace(b'From :', b'From:').replace(b'Subject\t:', b'Subject:')
    assert outcome(tight) is Outcome.VALID
    assert holds_for_dkimpy(tight)


def test_ed25519_of_dkimpy_holds_for_us() -> None:
    message = HEAD + b'\r\nhello\r\n'
    assert outcome(signed_by_dkimpy(message, 'relaxed/simple', ed=True)) is Outcome.VALID


def test_two_signatures_hold_each_alone() -> None:
    message = HEAD + b'\r\nhello\r\n'
    first, second = signed(message), signed(message, ed=True)
    both = first[: first.index(b'From:')] + second
    assert both.count(b'DKIM-Signature:') == 2
    assert outcome(both) is Outcome.VALID
    for broken in (b'd=relay.example; s=ed', b'd=relay.example; s=rsa'):
        assert outcome(both.replace(broken, b'd=relay.example; s=gone')) is Outcome.VALID


WORDS = st.text(alphabet=' \ta.:;=é', max_size=12)
LINES = st.lists(WORDS, max_size=8).map(
    lambda lines: ''.join(line + '\r\n' for line in lines).encode()
)
# A folded line must have something on it besides blanks to be one everywhere.
VALUES = st.lists(WORDS.map(lambda word: word + 'x'), min_size=1, max_size=4).map(
    lambda lines: '\r\n '.join(lines).encode()
)
NAMES = st.sampled_from(
    [b'Subject', b'To', b'DATE', b'cc', b'X-Other', b'Received', b'Autocrypt', b'List-Id']
)
BLOCKS = st.lists(st.tuples(NAMES, VALUES), max_size=8).map(
    lambda fields: b''.join(b'%b:%b\r\n' % field for field in fields)
)


@given(BLOCKS, BLOCKS, LINES, st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_anything_we_sign_holds(above: bytes, below: bytes, body: bytes, cut: int) -> None:
    message = signed(above + HEAD + below + b'\r\n' + body, cut=cut)
    assert outcome(message, cut) is Outcome.VALID
    assert holds_for_dkimpy(message)


@given(BLOCKS, BLOCKS, LINES, st.integers(0, 5), st.sampled_from(FORMS))
@settings(max_examples=150, deadline=None)
def test_anything_dkimpy_signs_holds_for_us(
    above: bytes, below: bytes, body: bytes, cut: int, form: str
) -> None:
    message = signed_by_dkimpy(above + HEAD + below + b'\r\n' + body, form)
    assert outcome(message, cut) is Outcome.VALID


@given(st.binary(max_size=40).map(lambda octets: octets.replace(b'\0', b'\r\n')), st.integers(1, 7))
@settings(max_examples=400, deadline=None)
def test_cutting_changes_no_body_hash(body: bytes, cut: int) -> None:
    for relaxed in (False, True):
        whole, cut_up = BodyHash(relaxed=relaxed), BodyHash(relaxed=relaxed)
        whole.feed(body)
        for piece in pieces(body, cut):
            cut_up.feed(piece)
        assert whole.digest() == cut_up.digest()


@given(st.text(alphabet=' \t\r\na', max_size=30).map(str.encode), st.integers(1, 5))
@settings(max_examples=400, deadline=None)
def test_the_simple_body_is_that_of_the_definition(body: bytes, cut: int) -> None:
    streamed = BodyHash()
    for piece in pieces(body, cut):
        streamed.feed(piece)
    assert (
        streamed.digest()
        == hashlib.sha256(re.sub(rb'(?:\r\n)*\Z', b'', body, count=1) + b'\r\n').digest()
    )


@given(st.lists(st.text(alphabet=' \ta', max_size=6), max_size=8), st.integers(1, 5))
@settings(max_examples=400, deadline=None)
def test_the_relaxed_body_is_that_of_the_definition(lines: list[str], cut: int) -> None:
    streamed = BodyHash(relaxed=True)
    for piece in pieces('\r\n'.join(lines).encode(), cut):
        streamed.feed(piece)
    reduced = [re.sub(r'[ \t]+', ' ', line).removesuffix(' ') for line in lines]
    while reduced and not reduced[-1]:
        reduced.pop()
    wanted = ''.join(line + '\r\n' for line in reduced).encode()
    assert streamed.digest() == hashlib.sha256(wanted).digest()
