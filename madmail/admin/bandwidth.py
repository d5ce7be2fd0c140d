"""How much the relay has carried."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from madmail.admin.refused import Refused
from madmail.admin.relay import Relay

# What goes through these is counted at the service it goes to as well, so not in sums.
CARRIERS = ('shadowsocks',)
DAYS, MONTHS = 31, 13  # shown without a wish


def installation(relay: Relay, by: str = 'day', count: int = 0) -> list[dict[str, Any]]:
    """Newest first: `period`, `received`, `sent`, and `services`, the same by service.

    `by` is day or month, `count` how many (0 = 31 days, 13 months).
    """
    if by not in ('day', 'month'):
        raise Refused('invalid', 'by is day or month')
    form = '%Y-%m-%d' if by == 'day' else '%Y-%m'
    found: dict[str, dict[str, Any]] = {}
    for day, service, direction, octets in relay.control.bandwidth():
        period = datetime.fromtimestamp(day * 86400, UTC).strftime(form)
        one = found.setdefault(period, {'period': period, 'received': 0, 'sent': 0, 'services': {}})
        if service not in CARRIERS:
            one[direction] += octets
        counts = one['services'].setdefault(service, {'received': 0, 'sent': 0})
        counts[direction] += octets
    count = count or (DAYS if by == 'day' else MONTHS)
    return [found[period] for period in sorted(found, reverse=True)[:count]]


def account(relay: Relay, address: str) -> list[dict[str, Any]]:
    """Of one account by month, newest first; nothing where `accounts.bandwidth` is off."""
    months: list[dict[str, Any]] = relay.call(address, 'account_bandwidth')
    return months
