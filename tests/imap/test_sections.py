"""Sections of messages: generated trees, RFC 3501 6.4.5's numbering, and garbage."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madmail.imap import responses_body
from madmail.message import header_fields
from madmail.message.parts import MAX_DEPTH, MAX_PARTS
from madmail.message.structure import Span, Structure

CORPUS = Path(__file__).parent.parent / 'corpora' / 'structure'


def octets(
    structure: Structure,
    part: tuple[int, ...],
    text: str = '',
    fields: tuple[bytes, ...] = (),
    partial: tuple[int, int] | None = None,
) -> bytes | None:
    found = structure.section(part, text, fields, partial)
    if isinstance(found, Span):
        return structure.octets.read(found.offset, found.offset + found.length)
    return found


# RFC 3501 6.4.5 numbers the parts of a message of this shape.
NESTED = Structure((CORPUS / 'nested.eml').read_bytes())


@pytest.mark.parametrize(
    ('part', 'text', 'expected'),
    [
        ((1, 1), '', b'plain'),
        ((1, 1), 'MIME', b'\r\n'),
        ((1, 2), '', b'<p>=20</p>\r\n'),
        ((3,), '', b'AAAA'),
        ((3,), 'MIME', b'Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n'
         b'Content-Language: en\r\n\r\n'),
        ((2,), 'HEADER', b'From: c@z\r\nSubject: inner\r\n'
         b'Content-Type: multipart/mixed; boundary=deep\r\n\r\n'),
        ((2, 1), '', b'one'),
        ((2, 2), '', b'Subject: innermost\r\n\r\nbody\r\nof two'),
        ((2, 2), 'HEADER', b'Subject: innermost\r\n\r\n'),
        ((2, 2), 'TEXT', b'body\r\nof two'),
        ((2, 2, 1), '', b'body\r\nof two'),
        ((2, 2, 1), 'MIME', b'Subject: innermost\r\n\r\n'),
        ((4,), '', None),
        ((1, 3), '', None),
        ((1, 1, 1), '', None),
        ((2, 2, 2), '', None),
        ((1,), 'HEADER', None),
        ((3,), 'TEXT', None),
        ((1, 1), 'HEADER.FIELDS', None),
    ],
)  # fmt: skip
def test_part_numbers(part: tuple[int, ...], text: str, expected: bytes | None) -> None:
    assert octets(NESTED, part, text) == expected


def test_sections_of_the_whole_message() -> None:
    whole = (CORPUS / 'nested.eml').read_bytes()
    header, _, body = whole.partition(b'\r\n\r\n')
    assert octets(NESTED, ()) == whole
    assert octets(NESTED, (), 'HEADER') == header + b'\r\n\r\n'
    assert octets(NESTED, (), 'TEXT') == body
    fields = (b'subject', b'nothing', b'from')
    assert octets(NESTED, (), 'HEADER.FIELDS', fields) == (b'From: a@x\r\nSubject: outer\r\n\r\n')
    assert octets(NESTED, (2,), 'HEADER.FIELDS.NOT', (b'content-type',)) == (
        b'From: c@z\r\nSubject: inner\r\n\r\n'
    )
    assert octets(NESTED, (), 'HEADER.FIELDS', (b'nothing',)) == b'\r\n'


def test_partial_ranges_are_cut_to_what_is_there() -> None:
    message = Structure(b'Subject: x\r\n\r\n0123456789')
    assert octets(message, (), 'TEXT', (), (2, 3)) == b'234'
    assert octets(message, (), 'TEXT', (), (8, 30)) == b'89'
    assert octets(message, (), 'TEXT', (), (10, 1)) == b''
    assert octets(message, (), 'TEXT', (), (4294967295, 1)) == b''
    assert octets(message, (), 'HEADER.FIELDS', (b'subject',), (9, 2)) == b'x\r'


def test_a_single_part_message_is_its_part_one() -> None:
    message = Structure(b'Subject: x\r\n\r\nbody')
    assert octets(message, (1,)) == b'body'
    assert octets(message, (1,), 'MIME') == b'Subject: x\r\n\r\n'
    assert octets(message, (2,)) is None
    assert octets(message, (1, 1)) is None


def test_a_message_at_the_root_numbers_its_parts_below_one() -> None:
    message = Structure((CORPUS / 'message_root.eml').read_bytes())
    assert octets(message, (1,), 'HEADER') == b'From: in@side\r\nContent-Type: text/plain\r\n\r\n'
    assert octets(message, (1, 1)) == b'x\r\ny\r\n'


# -- header fields

names = st.sampled_from([b'From', b'X-a', b'SUBJECT', b'To', b'X-A-B'])
values = st.lists(
    st.text('ab: \t=?"', max_size=8).map(lambda text: b' ' + text.encode()), min_size=1, max_size=3
)
blocks = st.lists(st.tuples(names, values), max_size=6)


@given(blocks, st.lists(names, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_selected_fields_are_the_original_octets(
    fields: list[tuple[bytes, list[bytes]]], wanted: list[bytes], inverted: bool, crlf: bool
) -> None:
    end = b'\r\n' if crlf else b'\n'
    written = [(name, name + b':' + end.join(lines) + end) for name, lines in fields]
    block = b''.join(text for _, text in written) + end
    lower = tuple(name.lower() for name in wanted)
    expected = b''.join(text for name, text in written if (name.lower() in lower) != inverted)
    assert header_fields.select(block, lower, inverted) == expected + b'\r\n'


def test_a_header_without_end_still_gets_its_empty_line() -> None:
    assert header_fields.select(b'From: a', (b'from',)) == b'From: a\r\n\r\n'
    assert header_fields.select(b'', (b'from',)) == b'\r\n'


# -- generated trees: what was put in comes out under its number

leaves = st.binary(max_size=30).map(lambda text: text.replace(b'-', b'+').replace(b'\r', b'~'))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, min_size=1, max_size=4), st.tuples(inner)),
    max_leaves=12,
)


def build(node: object, path: tuple[int, ...], at_root: bool) -> tuple[bytes, bytes]:
    """(header fields, body) of a tree: bytes are text, lists multiparts, tuples messages."""
    if isinstance(node, bytes):
        return b'Content-Type: text/plain\r\n', node
    if isinstance(node, tuple):
        fields, body = build(node[0], path, at_root=True)
        return b'Content-Type: message/rfc822\r\n', fields + b'\r\n' + body
    assert isinstance(node, list)
    boundary = b'=' + b'.'.join(b'%d' % number for number in path) + b'='
    boundary += b'm' * at_root
    body = b'preamble\r\n'
    for number, child in enumerate(node, start=1):
        fields, text = build(child, (*path, number), at_root=False)
        body += b'--' + boundary + b'\r\n' + fields + b'\r\n' + text + b'\r\n'
    body += b'--' + boundary + b'--\r\n'
    return b'Content-Type: multipart/mixed; boundary="' + boundary + b'"\r\n', body


def check(
    structure: Structure, node: object, number: tuple[int, ...], path: tuple[int, ...]
) -> int:
    """Compare everything below `node`, which stands at `number`; the count of leaves."""
    fields, body = build(node, path, at_root=False)
    assert octets(structure, number) == body
    assert octets(structure, number, 'MIME') == fields + b'\r\n'
    if isinstance(node, bytes):
        assert octets(structure, (*number, 2)) is None
        return 1
    if isinstance(node, list):
        return sum(
            check(structure, child, (*number, index), (*path, index))
            for index, child in enumerate(node, start=1)
        )
    assert isinstance(node, tuple)
    inner = node[0]
    fields, body = build(inner, path, at_root=True)
    assert octets(structure, number, 'HEADER') == fields + b'\r\n'
    assert octets(structure, number, 'TEXT') == body
    if isinstance(inner, list):
        return sum(
            check(structure, child, (*number, index), (*path, index))
            for index, child in enumerate(inner, start=1)
        )
    assert octets(structure, (*number, 1)) == body
    return 1


@given(st.lists(trees, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_generated_parts_are_found_under_their_numbers(nodes: list[object]) -> None:
    fields, body = build(nodes, (), at_root=False)
    structure = Structure(b'Subject: x\r\n' + fields + b'\r\n' + body)
    for index, node in enumerate(nodes, start=1):
        assert check(structure, node, (index,), (index,)) >= 1
    assert octets(structure, (len(nodes) + 1,)) is None
    responses_body.body_structure(structure.root)


# -- garbage

samples = [path.read_bytes() for path in sorted(CORPUS.glob('*.eml'))]


@given(st.sampled_from(samples), st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_messages_never_raise(sample: bytes, data: st.DataObject) -> None:
    damaged = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        length = data.draw(st.integers(0, 8))
        damaged[at : at + length] = data.draw(st.binary(max_size=6))
    look_at(bytes(damaged))


@given(st.binary(max_size=200))
def test_arbitrary_octets_never_raise(message: bytes) -> None:
    look_at(message)
    look_at(b'Content-Type: multipart/mixed; boundary=b\n\n' + message)
    look_at(b'From: ' + message.replace(b'\n', b'\n '))


def look_at(message: bytes) -> None:
    structure = Structure(message)
    responses_body.envelope(structure.envelope())
    responses_body.body(structure.root)
    responses_body.body_structure(structure.root)
    for part in ((), (1,), (1, 1), (2, 1), (2,)):
        for text in ('', 'HEADER', 'TEXT', 'MIME', 'HEADER.FIELDS', 'HEADER.FIELDS.NOT'):
            found = structure.section(part, text or 'TEXT', (b'from',))
            if isinstance(found, Span):
                assert 0 <= found.offset <= found.offset + found.length <= len(message)


def test_deep_and_wide_messages_are_bounded() -> None:
    deep = b''.join(
        b'Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n' % (n, n) for n in range(200)
    )
    rendered = responses_body.body_structure(Structure(deep).root)
    assert rendered.count(b'"mixed"') == MAX_DEPTH
    embedded = b'Content-Type: message/rfc822\r\n\r\n' * 200
    assert responses_body.body(Structure(embedded).root).count(b'"rfc822"') == MAX_DEPTH
    wide = b'Content-Type: multipart/mixed; boundary=b\r\n\r\n' + b'--b\r\n\r\n\r\n' * 5000
    assert len(Structure(wide).root.children) <= MAX_PARTS
