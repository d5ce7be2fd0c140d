"""A relay that does not run, as the operations see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from madmail.cli.access import Access
from madmail.master.state import prepare
from madmail.settings import Settings

DOMAIN = 'relay.example'


@pytest.fixture
def open_relay(tmp_path: Path) -> Iterator[Callable[..., Access]]:
    """Opens one with settings in place of the defaults."""
    opened: list[Access] = []

    def make(name: str = 'state', **settings: Any) -> Access:
        directory = tmp_path / name
        prepare(directory, 2, 2, None).close()
        given = {'domain': DOMAIN, 'state_dir': directory}
        access = Access(Settings.defaults(given, **settings))
        opened.append(access)
        return access

    yield make
    for access in opened:
        access.__exit__()


@pytest.fixture
def relay(open_relay: Callable[..., Access]) -> Access:
    return open_relay()
