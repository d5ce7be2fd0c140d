"""`Retry-After` (RFC 9110 10.2.3): how long a server asks to be left alone."""

from __future__ import annotations

import email.utils
from datetime import UTC
from typing import Protocol

STATUSES = (429, 503)  # RFC 6585 4, RFC 9110 15.6.4
_DIGITS = 9  # more are more than anybody waits


class Fields(Protocol):
    """Of an answer."""

    def get(self, name: str, /) -> str | None: ...


def seconds(status: int, fields: Fields, now: float, longest: float) -> float:
    """Seconds from 0 to `longest`; 0.0 where an answer does not say it.

    `now` is Unix time, for a server that gives a date and does not say its own time.
    """
    text = (fields.get('Retry-After') or '').strip()
    if status not in STATUSES or not text:
        return 0.0
    if text.isascii() and text.isdigit():
        return min(float(text) if len(text) <= _DIGITS else longest, longest)
    until = _date(text)
    if until is None:
        return 0.0
    # By the server's clock where it says it: one of both may be wrong.
    since = _date(fields.get('Date') or '')
    return min(max(until - (now if since is None else since), 0.0), longest)


def _date(text: str) -> float | None:
    """Unix time of an HTTP-date in any of its three forms; None for what is none."""
    try:
        found = email.utils.parsedate_to_datetime(text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        return found.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
