"""Octets of the whole relay by day, service and direction, kept in the control database.

The master's sums never go back while it lives (`ledger`).  What they have grown by
since they were looked at last is added to today; the last look is kept beside, with
the start of the master that it was of, so that nobody counts anything twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from madmail.metrics.ledger import add
from madmail.store.control import Control

DAYS = 400  # kept


def octets(told: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """Sums by service and direction, out of the master's status."""
    found: dict[tuple[str, str], int] = {}
    kept = [past.get('octets', {}) for past in told['past'].values()]
    kept += [child['statistics'].get('octets', {}) for child in told['children']]
    total: dict[str, dict[str, int]] = {}
    for one in kept:
        total = add(total, one)
    for service, directions in total.items():
        for direction, count in directions.items():
            found[service, direction] = count
    return found


def record(control: Control, told: Mapping[str, Any], now: float | None = None) -> None:
    """Add what has come since the last time to today's figures."""
    day = int((time.time() if now is None else now) // 86400)
    control.add_bandwidth(day, int(told['boot_time']), octets(told), keep=DAYS)
