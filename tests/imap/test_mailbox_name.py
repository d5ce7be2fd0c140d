"""Modified UTF-7, the rules for names, and LIST patterns against a naive model."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.imap import mailbox_name
from madmail.imap.mailbox_name import Pattern
from madmail.imap.syntax import Bad

texts = st.text(st.characters(exclude_categories=['Cs']), max_size=40)


@given(texts)
def test_a_name_reads_back_from_modified_utf7(name: str) -> None:
    octets = mailbox_name.encode(name)
    assert re.fullmatch(rb'[\x20-\x7e]*', octets)
    assert mailbox_name.decode(octets) == mailbox_name.fold_inbox(name)
    assert mailbox_name.decode(mailbox_name.encode(name, utf8=True), utf8=True) == (
        mailbox_name.fold_inbox(name)
    )


@given(st.binary(max_size=30))
def test_any_octets_give_a_name_or_bad(octets: bytes) -> None:
    try:
        name = mailbox_name.decode(octets)
    except Bad:
        return
    if octets.isascii():
        assert mailbox_name.encode(name).lower() == octets.lower()


@pytest.mark.parametrize(
    ('octets', 'name'),
    [
        (b'~peter/mail/&U,BTFw-/&ZeVnLIqe-', '~peter/mail/台北/日本語'),  # RFC 3501 5.1.3
        (b'&AOQ-bc', 'äbc'),
        (b'a&-b', 'a&b'),
        (b'&2D3eAA-', '\U0001f600'),
        (b'iNbOx', 'INBOX'),
        (b'inbox/x', 'INBOX/x'),
        (b'inboxes', 'inboxes'),
    ],
)
def test_known_names(octets: bytes, name: str) -> None:
    assert mailbox_name.decode(octets) == name
    assert mailbox_name.decode(mailbox_name.encode(name)) == name


@pytest.mark.parametrize(
    'octets',
    [b'&', b'a&b', b'&AGE-', b'&AA-', b'&AOQ-&AOQ-', b'&2AA-', b'&AOR-', b'\xff', b'x\x00', b'&=-'],
)
def test_forms_that_are_not_canonical_are_refused(octets: bytes) -> None:
    with pytest.raises(Bad):
        mailbox_name.decode(octets)


def test_names_against_the_rules_are_refused() -> None:
    for name in ('', '/', 'a//b', '/a', 'a\nb', 'a\x85', 'a*', '%', 'ä' * 128, '/'.join('a' * 40)):
        with pytest.raises(Bad):
            mailbox_name.check(name)
    assert mailbox_name.check('inbox/a b/') == 'INBOX/a b'
    assert mailbox_name.check('ä' * 127) == 'ä' * 127


letters = st.text('ab/*%', max_size=8)


@given(letters, st.lists(letters, min_size=1, max_size=3), st.text('ab/', max_size=10))
def test_patterns_match_what_the_naive_model_matches(
    reference: str, patterns: list[str], name: str
) -> None:
    def model(pattern: str) -> bool:
        text = re.sub(r'\*+', '.*', re.sub(r'[*%]*\*[*%]*', '*', reference + pattern))
        return re.fullmatch(re.sub('%+', '[^/]*', text), name) is not None

    assert Pattern(reference, patterns).matches(name) == any(map(model, patterns))


def test_inbox_matches_in_any_case() -> None:
    for pattern in ('inbox', 'InBox', 'i%', '*x', 'INB*'):
        assert Pattern('', [pattern]).matches('INBOX')
    assert Pattern('', ['inbox/%']).matches('INBOX/a')
    assert not Pattern('', ['inbox/A']).matches('INBOX/a')
    assert not Pattern('', ['i%']).matches('Ix')


def test_many_wildcards_do_not_explode() -> None:
    pattern = Pattern('', ['*a%' * 80 + 'b'])
    begun = time.process_time()
    assert not pattern.matches('a' * 255)
    assert time.process_time() - begun < 1  # a backtracking matcher would take years
