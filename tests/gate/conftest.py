from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gate.rig import Gate, Shard, settings


@pytest.fixture
def start_gate(tmp_path: Path) -> Iterator[Callable[..., Gate]]:
    """Start gates in one state directory; settings as keywords, `options` for the rig."""
    started: list[Gate] = []

    def start(options: dict[str, Any] | None = None, **overrides: object) -> Gate:
        gate = Gate(tmp_path, settings(**overrides), **(options or {}))
        started.append(gate)
        return gate

    yield start
    for gate in started:
        gate.close()


@pytest.fixture
def start_shard(tmp_path: Path) -> Iterator[Callable[..., Shard]]:
    started: list[Shard] = []
    (tmp_path / 'run').mkdir(exist_ok=True)

    def start(index: int = 0, **options: Any) -> Shard:
        shard = Shard(tmp_path, index, **options)
        started.append(shard)
        return shard

    yield start
    for shard in started:
        shard.close()
