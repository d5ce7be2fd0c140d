"""Fixtures: one relay for a module, and Delta Chat cores that use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.core import Cores, cores_on, require_core
from tests.system.relay import Relay


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    require_core()
    with Relay(tmp_path_factory.mktemp('relay')) as relay:
        yield relay


@pytest.fixture
def cores(relay: Relay, tmp_path: Path) -> Iterator[Cores]:
    with cores_on(relay, tmp_path) as cores:
        yield cores
