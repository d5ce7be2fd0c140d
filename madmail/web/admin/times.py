"""Times as the admin API tells them: RFC 3339 in UTC where a text is expected."""

from __future__ import annotations

from datetime import UTC, datetime


def text(unix: int) -> str:
    """`2025-05-01T08:00:00Z`, which no browser takes for local time."""
    return datetime.fromtimestamp(unix, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')


def duration(seconds: int) -> str:
    """`1d 2h 3m 4s`; without days when there are none, without hours when neither."""
    minutes, seconds = divmod(max(seconds, 0), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f'{days}d'] if days else []
    if days or hours:
        parts.append(f'{hours}h')
    return ' '.join([*parts, f'{minutes}m', f'{seconds}s'])
