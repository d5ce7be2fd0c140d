"""Fixtures: one relay shared by the tests of a module, and a room to make others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.relay import Relay


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    with Relay(tmp_path_factory.mktemp('relay')) as relay:
        yield relay


@pytest.fixture
def room(tmp_path: Path) -> Path:
    return tmp_path / 'relay'
