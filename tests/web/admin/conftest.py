"""The desk of an operator, without and with a running relay behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.relay import free_ports
from tests.web.admin.double import Desk
from tests.web.admin.office import Office
from tests.web.conftest import WebRelay


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture(scope='module')
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    (proxy,) = free_ports(1)
    options = {
        'processes.web': 2,
        'processes.gates': 2,
        'listen.shadowsocks': f'127.0.0.1:{proxy}',
    }
    with WebRelay(tmp_path_factory.mktemp('relay'), options) as relay:
        yield Office(relay)
