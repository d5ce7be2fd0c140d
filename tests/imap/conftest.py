from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.imap.wire_double import Client, ShardDouble, message


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[ShardDouble]:
    double = ShardDouble(tmp_path / 'shard')
    yield double
    double.close()


@pytest.fixture
def login(shard: ShardDouble) -> Callable[..., Client]:
    """Sessions of one account, or of the address given."""

    def log_in(address: str = 'ann@chat.example') -> Client:
        return Client(shard, shard.account(address))

    return log_in


@pytest.fixture
def filled(login: Callable[..., Client]) -> Callable[[int], Client]:
    """A session that has selected INBOX with so many messages."""

    def fill(count: int, **options: Any) -> Client:
        client = login()
        for number in range(1, count + 1):
            assert b' OK ' in client.append(message(number, **options))
        client.ask('SELECT INBOX')
        return client

    return fill
