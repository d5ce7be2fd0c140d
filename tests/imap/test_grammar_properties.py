"""Parsers under arbitrary octets: nothing but Bad escapes, and round trips hold."""

from __future__ import annotations

import datetime
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from madmail.imap import grammar, responses
from madmail.imap.framing import Framer
from madmail.imap.grammar_append import Messages
from madmail.imap.sequence_set import SequenceSet
from madmail.imap.syntax import (
    AppendStart,
    Bad,
    Continue,
    Fetch,
    Flags,
    Frame,
    Login,
    Store,
    TooLong,
)
from madmail.imap.tokens import Reader, sequence_set

WORDS = [
    'a',
    'UID',
    'FETCH',
    'STORE',
    'SEARCH',
    'SELECT',
    'LIST',
    'APPEND',
    'REPLACE',
    'CATENATE',
    'TEXT',
    'URL',
    'UTF8',
    'STATUS',
    'CREATE',
    'LOGIN',
    'GETMETADATA',
    'SETMETADATA',
    'ID',
    'ENABLE',
    'RETURN',
    'CHARSET',
    'UTF-8',
    'NOT',
    'OR',
    '(',
    ')',
    '((',
    '))',
    '1:*',
    '$',
    '1,2',
    '*',
    '0',
    '"x"',
    '""',
    '"',
    '\\',
    '\\Seen',
    '(\\Seen)',
    '+',
    '-',
    'FLAGS',
    '+FLAGS',
    'BODY[',
    'BODY[]',
    'BODY.PEEK[HEADER.FIELDS',
    ']',
    '<0.1>',
    '[',
    'ALL',
    'KEYWORD',
    'NIL',
    '{3}',
    '{2+}',
    '~{1}',
    '\x00',
    '~\x00',
    '/shared/x',
    'MAXSIZE',
    'DEPTH',
    'QRESYNC',
    'CHANGEDSINCE',
    '%',
    '&',
    '&-',
    '1-Jan-2020',
    'INBOX',
    '9999999999',
]
soup = st.lists(st.sampled_from(WORDS), max_size=12).map(lambda words: ' '.join(words).encode())
lines = st.one_of(
    soup,
    soup.map(lambda line: b'a ' + line),
    st.binary(max_size=60),
    st.binary(max_size=60).map(lambda octets: b'a UID FETCH 1 ' + octets),
    st.binary(max_size=60).map(lambda octets: b'a SEARCH ' + octets),
)


@given(lines, st.lists(st.binary(max_size=10), max_size=3), st.booleans())
@settings(max_examples=600, deadline=None)
def test_a_command_parses_or_is_bad(line: bytes, literals: list[bytes], utf8: bool) -> None:
    frame = Frame(line, tuple(literals))
    for parse in (grammar.parse, grammar.parse_append):
        try:
            parse(frame, utf8=utf8)
        except Bad as bad:
            answer = bad.line()
            assert answer.isascii()
            assert answer.endswith(b'\r\n')
            assert answer.count(b'\n') == 1
    messages = Messages(single=utf8)
    for _ in range(3):
        try:
            messages.more(frame)
        except Bad:
            break
    try:
        messages.end(line)
    except Bad:
        pass


@given(st.lists(st.one_of(soup, st.binary(max_size=40)), max_size=6), st.integers(1, 7))
@settings(max_examples=300, deadline=None)
def test_cutting_does_not_depend_on_how_octets_arrive(pieces: list[bytes], step: int) -> None:
    octets = b'\r\n'.join(pieces) + b'\r\n'

    def outcomes(chunks: list[bytes]) -> list[object]:
        framer = Framer(limit=200)
        buffer = bytearray()
        seen: list[object] = []
        for chunk in chunks:
            buffer += chunk
            while (outcome := framer.next(buffer)) is not None:
                seen.append(outcome)
                if isinstance(outcome, AppendStart):
                    framer.abandon()
        return seen

    whole = outcomes([octets])
    assert outcomes([octets[i : i + step] for i in range(0, len(octets), step)]) == whole


# -- sequence sets

star = st.none()
number = st.one_of(star, st.integers(1, 30))
ranges = st.lists(st.tuples(number, number), min_size=1, max_size=6)


def written(pairs: list[tuple[int | None, int | None]]) -> bytes:
    def one(value: int | None) -> str:
        return '*' if value is None else str(value)

    return ','.join(one(a) if a == b else f'{one(a)}:{one(b)}' for a, b in pairs).encode()


@given(ranges, st.integers(0, 25))
@example([(None, None)], 0)
@example([(7, None)], 5)
def test_a_sequence_set_selects_what_the_naive_model_selects(
    pairs: list[tuple[int | None, int | None]], largest: int
) -> None:
    model: set[int] = set()
    for a, b in pairs:
        if largest == 0 and (a is None or b is None):
            continue
        low, high = sorted(largest if x is None else x for x in (a, b))
        model.update(range(low, high + 1))
    resolved = sequence_set(written(pairs)).resolve(largest)
    assert {n for low, high in resolved for n in range(low, high + 1)} == model
    # ascending, disjoint and not even adjacent
    assert all(b[0] > a[1] + 1 for a, b in pairwise(resolved))


@given(ranges, st.sets(st.integers(1, 40)))
def test_positions_are_the_indexes_of_the_selected_uids(
    pairs: list[tuple[int | None, int | None]], uids: set[int]
) -> None:
    ordered = sorted(uids)
    chosen = sequence_set(written(pairs))
    inside = {
        n
        for low, high in chosen.resolve(ordered[-1] if ordered else 0)
        for n in range(low, high + 1)
    }
    positions = [index for span in chosen.positions(ordered) for index in span]
    assert [ordered[index] for index in positions] == sorted(uids & inside)


def test_a_set_over_all_numbers_costs_nothing() -> None:
    chosen = sequence_set(b'1:4294967295,5:*')
    assert chosen.resolve(10) == [(1, 4294967295)]
    assert chosen.positions([3, 9]) == [range(2)]
    assert chosen.highest == 4294967295
    assert chosen.has_star
    assert SequenceSet((), saved=True).resolve(5) == []


@given(st.lists(st.integers(1, 50), max_size=30))
def test_a_number_set_reads_back(numbers: list[int]) -> None:
    text = responses.number_set(numbers)
    if not numbers:
        assert text == b''
        return
    back = []
    for low, high in sequence_set(text).ranges:
        back += range(low, high + 1)
    assert back == numbers


# -- strings, flags, dates


@given(st.binary(max_size=80).filter(lambda octets: b'\0' not in octets))
def test_a_string_reads_back_through_the_framer(value: bytes) -> None:
    framer = Framer()
    buffer = bytearray(b'a LOGIN %s %s\r\n' % (responses.string(value), responses.literal(value)))
    outcome = framer.next(buffer)
    while isinstance(outcome, Continue):
        outcome = framer.next(buffer)
    assert isinstance(outcome, Frame)
    assert grammar.parse(outcome).arguments == Login(value, value)


keywords = st.from_regex(r'[A-Za-z$][A-Za-z0-9_.-]{0,12}', fullmatch=True)


@given(st.integers(0, 31), st.lists(keywords, max_size=5, unique_by=str.lower))
def test_a_flag_list_reads_back(bits: int, words: list[str]) -> None:
    line = b'a STORE 1 FLAGS ' + responses.flag_list(bits, words)
    arguments = grammar.parse(Frame(line)).arguments
    assert isinstance(arguments, Store)
    assert arguments.flags == Flags(bits, tuple(words))


@given(st.integers(-62135596800, 253402300799))
def test_an_internal_date_reads_back(unix: int) -> None:
    assert Reader(Frame(responses.internal_date(unix))).date_time() == unix


@given(
    st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1)),
    st.integers(-14 * 60, 14 * 60),
)
def test_a_zone_moves_the_internal_date(when: datetime.datetime, minutes: int) -> None:
    zoned = when.replace(
        microsecond=0, tzinfo=datetime.timezone(datetime.timedelta(minutes=minutes))
    )
    months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
    sign = '-' if minutes < 0 else '+'
    zone = f'{sign}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}'
    text = (
        f'"{zoned.day:2d}-{months[zoned.month - 1]}-{zoned.year:04d} '
        f'{zoned.hour:02d}:{zoned.minute:02d}:{zoned.second:02d} {zone}"'
    )
    assert Reader(Frame(text.encode())).date_time() == int(zoned.timestamp())


# -- FETCH items

item_texts = st.sampled_from(
    (
        'FLAGS', 'INTERNALDATE', 'RFC822.SIZE', 'ENVELOPE', 'BODY', 'BODYSTRUCTURE', 'MODSEQ',
        'RFC822', 'RFC822.HEADER', 'RFC822.TEXT', 'BODY[]', 'BODY[1.2.MIME]', 'BODY[TEXT]<0>',
        'BODY[HEADER.FIELDS (A B)]', 'BODY[3.HEADER.FIELDS.NOT ("x y")]<17>', 'BODY[2.HEADER]',
    )
)  # fmt: skip


@given(st.lists(item_texts, min_size=1, max_size=8, unique=True))
def test_response_names_of_items_are_the_items_asked_for(items: list[str]) -> None:
    asked = [text.replace('>', '.5>') for text in items]
    line = f'a FETCH 1 ({" ".join(asked)})'.encode()
    for _ in range(2):  # the second time from the table of known lists
        arguments = grammar.parse(Frame(line)).arguments
        assert isinstance(arguments, Fetch)
        assert [item.name.decode() for item in arguments.items] == items


def test_rest_behind_known_items_is_still_refused() -> None:
    for line in (b'a FETCH 1 FLAGS', b'a FETCH 1 FLAGS)', b'a FETCH 1 FLAGS)'):
        if line.endswith(b')'):
            with pytest.raises(Bad):
                grammar.parse(Frame(line))
        else:
            grammar.parse(Frame(line))


def test_uid_fetch_always_answers_the_uid() -> None:
    arguments = grammar.parse(Frame(b'a UID FETCH 1 (FLAGS)')).arguments
    assert isinstance(arguments, Fetch)
    assert [item.kind for item in arguments.items] == ['UID', 'FLAGS']


# -- limits of the framer


def test_a_large_synchronizing_literal_is_refused_before_it_is_sent() -> None:
    framer = Framer(limit=1000)
    buffer = bytearray(b'a LOGIN {2000}\r\n')
    assert framer.next(buffer) == TooLong(b'a', hopeless=False)
    buffer += b'b NOOP\r\n'
    assert framer.next(buffer) == Frame(b'b NOOP')


def test_a_large_literal_sent_unasked_is_swallowed() -> None:
    framer = Framer(limit=1000)
    buffer = bytearray(b'a LOGIN {2000+}\r\n')
    assert framer.next(buffer) is None
    for _ in range(20):
        buffer += b'b NOOP\r\n'.ljust(100, b'x')
        assert framer.next(buffer) is None
        assert not buffer
    buffer += b' x\r\nc NOOP\r\n'
    assert framer.next(buffer) == TooLong(b'a', hopeless=False)
    assert framer.next(buffer) == Frame(b'c NOOP')


def test_a_line_without_end_is_never_kept() -> None:
    framer = Framer(limit=1000)
    buffer = bytearray(b'a LOGIN ')
    for _ in range(100):
        buffer += b'x' * 500
        assert framer.next(buffer) is None
        assert len(buffer) < 1600
    buffer += b'\nb NOOP\n'
    assert framer.next(buffer) == TooLong(b'a', hopeless=False)
    assert framer.next(buffer) == Frame(b'b NOOP')


def test_who_announces_absurd_amounts_is_given_up() -> None:
    framer = Framer()
    buffer = bytearray(b'a LOGIN {%d+}\r\n' % (1 << 40))
    assert framer.next(buffer) == TooLong(b'a', hopeless=True)


def test_many_small_literals_count_towards_the_limit() -> None:
    framer = Framer(limit=1000)
    buffer = bytearray(b'a SEARCH ' + b'TEXT {0+}\r\n ' * 100 + b'ALL\r\n')
    assert framer.next(buffer) == TooLong(b'a', hopeless=False)
    assert not buffer


def test_a_message_literal_is_left_to_the_session() -> None:
    framer = Framer(limit=100)
    buffer = bytearray(b'a APPEND INBOX {1000000+}\r\nfirst octets')
    start = framer.next(buffer)
    assert start == AppendStart(Frame(b'a APPEND INBOX '), 1000000, False, False, first=True)
    assert buffer == b'first octets'
    assert not framer.idle
    framer.abandon()
    assert framer.idle


def test_bare_lines_come_without_their_ends() -> None:
    framer = Framer(limit=100)
    buffer = bytearray(b'DONE\r')
    assert framer.line(buffer) is None
    buffer += b'\nAGE=\n' + b'x' * 300
    assert framer.line(buffer) == b'DONE'
    assert framer.line(buffer) == b'AGE='
    assert framer.line(buffer) is None
    buffer += b'\r\n*\r\n'
    assert framer.line(buffer) == TooLong(b'*', hopeless=False)
    assert framer.line(buffer) == b'*'
