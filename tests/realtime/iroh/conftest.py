from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.realtime.iroh.rig import Service


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts a service with these settings."""
    services: list[Service] = []

    def start(**settings: object) -> Service:
        service = Service(tmp_path, **settings)
        services.append(service)
        return service

    yield start
    for service in services:
        service.close()


@pytest.fixture
def service(serve: Callable[..., Service]) -> Service:
    return serve()
