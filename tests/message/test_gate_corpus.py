"""The gate corpus: every message as expected, however it is cut."""

from __future__ import annotations

import random

import pytest
from gate_corpus import CORPUS, Case, cases, cut, inspect

from madmail.message.inspection import Direction

CASES = cases()
IDS = [f'{case.message}-{case.direction.value}' for case in CASES]


def expected(case: Case, chunks: list[bytes]) -> tuple[object, bytes]:
    verdict, kept = inspect(case.inspection(), chunks)
    if case.code:
        assert verdict.reply is not None, 'accepted'
        assert verdict.reply.code == case.code, verdict.reply
    else:
        assert verdict.reply is None, verdict.reply
        assert verdict.kind == case.kind
        assert verdict.null_sender is case.null_sender
    return verdict, kept


@pytest.mark.parametrize('case', CASES, ids=IDS)
def test_verdict_is_as_expected_and_independent_of_cuts(case: Case) -> None:
    data = case.octets
    verdict, kept = expected(case, [data])
    seed = random.Random(case.message)
    middle = seed.randrange(len(data) + 1)
    for chunks in (
        cut(data, 1 if len(data) < 20000 else 1021),
        cut(data, seed.randrange(2, 200)),
        [data[:middle], data[middle:]],
    ):
        again, kept_again = expected(case, chunks)
        assert again == verdict
        if verdict.reply is None:
            assert kept_again == kept


@pytest.mark.parametrize(
    'case',
    [c for c in CASES if c.direction is Direction.APPEND and c.kind],
    ids=lambda c: c.message,
)
def test_append_keeps_every_octet(case: Case) -> None:
    _, kept = inspect(case.inspection(), [case.octets])
    assert kept == case.octets


@pytest.mark.parametrize(
    'case',
    [c for c in CASES if c.kind and c.direction is not Direction.APPEND],
    ids=lambda c: f'{c.message}-{c.direction.value}',
)
def test_what_is_kept_passes_again_unchanged(case: Case) -> None:
    _, kept = inspect(case.inspection(), [case.octets])
    verdict, again = inspect(case.inspection(), [kept])
    assert verdict.reply is None
    assert again == kept


def test_every_message_of_the_corpus_is_in_the_index() -> None:
    listed = {case.message for case in CASES}
    there = {str(path.relative_to(CORPUS)) for path in CORPUS.glob('*/*.eml')}
    assert listed == there
    assert len(listed) >= 90
