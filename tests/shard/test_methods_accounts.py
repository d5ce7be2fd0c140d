"""What ends with an account, and in which order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from madmail.shard.methods_accounts import AccountMethods
from madmail.store.interface import Account

ANN = Account(7, 'ann@chat.example', 'verifier', 0, 0, -1)


class Told:
    """As much of a shard as these methods use."""

    def __init__(self, *blocked: str) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.blocklist = blocked
        self.sessions = SimpleNamespace(dismiss=lambda one: self.told.append(('dismissed', one)))
        self.turn = SimpleNamespace(ended=lambda *one: self.told.append(('ended', *one)))
        self.accounts = SimpleNamespace(forget=lambda address: None)
        self.store = SimpleNamespace(
            account=lambda address: ANN if address == ANN.address else None,
            set_password=lambda account_id, verifier: None,
        )

    def reload_blocklist(self) -> None:
        self.told.append(('reloaded',))


@pytest.mark.parametrize(
    ('method', 'first'), [('account_dismiss', [('reloaded',)]), ('account_lock', [])]
)
def test_who_is_dismissed_is_told_nothing_more_that_counts(
    method: str, first: list[tuple[str]]
) -> None:
    """Or a client could ask for other credentials before its session ends."""
    shard = Told(ANN.address)
    AccountMethods(shard).methods[method](ANN.address)  # type: ignore[arg-type]
    assert shard.told == [*first, ('dismissed', 7), ('ended', 7, ANN.address)]


def test_who_is_unblocked_keeps_what_it_is_told() -> None:
    shard = Told()
    AccountMethods(shard).methods['account_dismiss'](ANN.address)  # type: ignore[arg-type]
    assert shard.told == [('reloaded',), ('dismissed', 7)]
