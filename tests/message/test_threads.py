"""THREAD algorithms: golden threads, and what holds for any messages."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.message import slices, threads
from madmail.message.slices import run, stable_sort
from madmail.message.threads import Linked, linked


def message(name: str = '', parents: str = '', subject: str = '', date: int = 0) -> Linked:
    """Names are letters; `R` in front of a subject marks a reply."""
    values = {
        b'message-id': f'<{name}@x>'.encode() if name else b'',
        b'references': ' '.join(f'<{parent}@x>' for parent in parents).encode(),
        b'subject': subject.encode(),
    }
    return linked(values, date)


def written(listed: Sequence[Linked], algorithm: str = 'REFERENCES') -> str:
    messages = threads.Messages()
    for each in listed:
        messages.add(each)
    if algorithm == 'ORDEREDSUBJECT':
        forest = run(threads.ordered_subject(messages))
    else:
        forest = run(threads.references(messages, subjects=algorithm == 'REFERENCES'))
    return run(threads.written(forest, lambda index: index + 1)).decode()


GOLDEN = {
    'a chain': ([('a', ''), ('b', 'a'), ('c', 'ab')], '(1 2 3)'),
    'two replies': ([('a', ''), ('b', 'a'), ('c', 'a')], '(1 (2)(3))'),
    'the parent comes last': ([('c', 'ab'), ('b', 'a'), ('a', '')], '(3 2 1)'),
    'a missing parent of one': ([('b', 'a')], '(1)'),
    'a missing parent of two': ([('b', 'a'), ('c', 'a')], '((1)(2))'),
    'a missing link within': ([('a', ''), ('c', 'ab'), ('d', 'ab')], '(1 (2)(3))'),
    'a missing grandparent': ([('c', 'ab'), ('d', 'ab'), ('e', 'a')], '((1)(2)(3))'),
    'a message refers to itself': ([('a', 'a'), ('b', 'ab')], '(1)(2)'),
    'a loop of two': ([('a', 'b'), ('b', 'a')], '(2 1)'),
    'a loop in the references': ([('a', ''), ('b', 'aca'), ('c', 'b')], '(1 2 3)'),
    'a reference cut short is corrected': ([('c', 'a'), ('d', 'abc'), ('b', 'a')], '((1 2)(3))'),
    'a duplicate is another message': ([('a', ''), ('a', ''), ('b', 'a')], '(1 3)(2)'),
    'no message-id at all': ([('', ''), ('', 'a'), ('a', '')], '(1)(3 2)'),
    'nothing': ([], ''),
}


@pytest.mark.parametrize('name', GOLDEN)
def test_threads_by_references(name: str) -> None:
    messages, expected = GOLDEN[name]
    assert written([message(*each) for each in messages]) == expected


@pytest.mark.parametrize(
    ('messages', 'expected'),
    [
        # A reply goes below the message, whichever comes first.
        ([('a', '', 'tea', 1), ('b', '', 'Re: tea', 2)], '(1 2)'),
        ([('a', '', 'Re: tea', 1), ('b', '', 'tea', 2)], '(2 1)'),
        # Neither is a reply, or both are: siblings below nothing.
        ([('a', '', 'tea', 1), ('b', '', 'tea', 2)], '((1)(2))'),
        (
            [('a', '', 'Re: tea', 1), ('b', '', 'Re: tea', 2), ('c', '', 'RE: tea', 3)],
            '((1)(2)(3))',
        ),
        # A dummy takes them as children.
        ([('b', 'a', 'tea', 1), ('c', 'a', 'tea', 2), ('d', '', 'Re: tea', 3)], '((1)(2)(3))'),
        (
            [('b', 'a', 'tea', 1), ('c', 'a', 'x', 2), ('e', 'd', 'tea', 3), ('f', 'd', 'y', 4)],
            '((1)(2)(3)(4))',
        ),
        # An empty subject joins nothing.
        ([('a', '', '', 1), ('b', '', 'Re:', 2)], '(1)(2)'),
        # By date, and by number where dates are equal.
        (
            [('a', '', 'x', 5), ('b', '', 'y', 3), ('c', 'a', '', 2), ('d', 'a', '', 1)],
            '(2)(1 (4)(3))',
        ),
        ([('a', '', 'x', 5), ('b', '', 'y', 5)], '(1)(2)'),
        # A thread without its root is as old as its oldest.
        ([('b', 'a', 'x', 9), ('c', 'a', 'x', 2), ('d', '', 'y', 3)], '((2)(1))(3)'),
    ],
)
def test_threads_join_by_subject_and_stand_by_date(
    messages: list[tuple[str, str, str, int]], expected: str
) -> None:
    assert written([message(*each) for each in messages]) == expected


def test_refs_looks_at_no_subject_and_puts_the_latest_thread_last() -> None:
    messages = [
        message('a', '', 'tea', 1),
        message('b', '', 'tea', 2),
        message('c', 'a', 'tea', 3),
    ]
    assert written(messages, 'REFS') == '(2)(1 3)'


def test_ordered_subject() -> None:
    subjects = [('b', 3), ('Re: b', 9), ('a', 5), ('a', 4), ('Fwd: b', 8), ('c', 6)]
    messages = [message('', '', subject, date) for subject, date in subjects]
    assert written(messages, 'ORDEREDSUBJECT') == '(1 (5)(2))(4 3)(6)'


def test_message_ids_are_compared_in_normal_form() -> None:
    values = {
        b'message-id': b'<"a b"@x>',
        b'references': b'text <> <nothing> <a@b> (c) <c\r\n d@x>',
        b'in-reply-to': b'<e@f>',
    }
    found = linked(values, 0)
    assert (found.message_id, found.parents) == (b'ab@x', (b'a@b', b'cd@x'))
    assert linked({b'in-reply-to': b'Ann <a@b> <c@d>'}, 0).parents == (b'a@b',)


NAMES = st.text('abcdefgh', max_size=1)
MESSAGES = st.lists(
    st.builds(
        message,
        NAMES,
        st.text('abcdefghij', max_size=4),
        st.sampled_from(('', 'x', 'y', 'Re: x', 'Re: y', 'Re:')),
        st.integers(0, 5),
    ),
    max_size=12,
)


@given(MESSAGES, st.sampled_from(('REFERENCES', 'REFS', 'ORDEREDSUBJECT')))
def test_every_message_is_in_exactly_one_place(messages: list[Linked], algorithm: str) -> None:
    text = written(messages, algorithm)
    assert sorted(map(int, re.findall('[0-9]+', text))) == list(range(1, len(messages) + 1))
    depth = 0
    for mark in re.sub('[^()]', '', text):
        depth += 1 if mark == '(' else -1
        assert depth >= 0
    assert depth == 0
    assert '()' not in text
    assert ') ' not in text
    # RFC 5256 5: thread-nested is at least two lists; here leaves only, the rest follows.
    assert not re.search(r'(?<!\))\([0-9]+\)\)', text)


@given(MESSAGES)
def test_a_reply_is_below_the_parent_it_names_last(messages: list[Linked]) -> None:
    """Unless that would make a loop, which one of the two has to give way to."""
    text = written(messages, 'REFS')
    if len({m.message_id for m in messages}) < len(messages):
        return
    for index, each in enumerate(messages):
        if len(each.parents) != 1 or len(messages) != 2:
            continue
        other = messages[1 - index]
        if each.parents[0] == other.message_id and not other.parents:
            assert text == f'({2 - index} {index + 1})'


def test_a_hundred_thousand_in_a_chain_take_a_moment_in_short_slices() -> None:
    count = 100_000
    messages = [
        Linked(b'%d@x' % n, (b'%d@x' % (n - 1),) if n else (), '', False, n) for n in range(count)
    ]
    started = time.process_time()
    text = written(messages)
    assert text == '(' + ' '.join(map(str, range(1, count + 1))) + ')'
    assert written(messages[::-1]).count('(') == 1
    assert time.process_time() - started < 10


@given(
    st.lists(st.tuples(st.integers(0, 3), st.text('abc', max_size=2)), max_size=60),
    st.booleans(),
    st.integers(1, 70),
)
def test_a_sliced_sort_is_a_stable_sort(
    items: list[tuple[int, str]], reverse: bool, whole: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, 'WHOLE', whole)
        patch.setattr(slices, 'STEP', 3)
        patch.setattr(slices, '_SAMPLE', 1)
        for column in ([number for number, _ in items], [text for _, text in items]):
            order = list(range(len(items)))[::-1]
            expected = sorted(order, key=column.__getitem__, reverse=reverse)
            assert list(run(stable_sort(order, column, reverse))) == expected
