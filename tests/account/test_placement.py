"""Which shard owns an account."""

from __future__ import annotations

from madmail.account.placement import shard_of


def test_an_account_stays_where_it_is() -> None:
    assert [shard_of(f'user{n}@chat.example', 4) for n in range(8)] == [2, 2, 0, 0, 3, 0, 1, 2]


def test_one_shard_owns_all() -> None:
    assert shard_of('user@chat.example', 1) == 0


def test_names_that_no_account_can_have_do_no_harm() -> None:
    assert shard_of('jürgen@chat.example', 4) in range(4)
