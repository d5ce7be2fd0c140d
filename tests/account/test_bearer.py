from __future__ import annotations

import secrets

import pytest

from madmail.account import bearer


def test_a_fresh_word_is_an_argument_and_not_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(['-dash', '_line', 'a-b_c'])
    monkeypatch.setattr(secrets, 'token_urlsafe', lambda octets: next(drawn))
    assert bearer.fresh(18) == 'a-b_c'


def test_words_are_as_long_as_asked_and_differ() -> None:
    words = {bearer.fresh(18) for _ in range(1000)}
    assert len(words) == 1000
    assert {len(word) for word in words} == {24}
    assert all(word[0].isalnum() for word in words)
