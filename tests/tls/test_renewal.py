"""The one who renews, and who asks him for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import gevent
import pytest

from madmail.delivery.dns import Resolver
from madmail.settings import Settings
from madmail.tls import acme, renewal
from madmail.tls.renewal import Renewals
from tests.tls.authority import put

SOURCE = 'https://127.0.0.1:9/dir'


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        gevent.sleep(0.01)


def test_who_asks_while_another_order_is_under_way_is_answered_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, 'SOON', 600.0)
    monkeypatch.setattr(renewal, 'LEAST', 0.05)
    directory = put(tmp_path, '192.0.2.1')
    acme.store(directory, acme.State(source=SOURCE))
    settings = Settings.defaults(
        {'domain': '192.0.2.1', 'tls.mode': 'acme', 'tls.acme_directory': SOURCE}
    )
    looks: list[int] = []
    renewals = Renewals(settings, tmp_path, cast(Resolver, None), lambda *told: None)
    look = renewals._look

    def counted(wish: Any) -> None:
        looks.append(1)
        look(wish)

    monkeypatch.setattr(renewals, '_look', counted)
    renewals.start()
    try:
        with acme.lock(directory):
            renewals.asked({'request': 'me'})
            until(lambda: len(looks) >= 3)
            assert acme.load(directory).request == ''
        until(lambda: acme.load(directory).request == 'me')
        assert acme.load(directory).error == ''  # it is not due
    finally:
        renewals.stop()
