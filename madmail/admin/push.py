"""Push notifications: the mode, and how sending goes."""

from __future__ import annotations

from typing import Any

from madmail.admin import settings, status
from madmail.admin.relay import Relay
from madmail.realtime.push.schedule import THRESHOLD

MODES = ('auto', 'on', 'off')
MODE = 'push.mode'


def state(relay: Relay, told: dict[str, Any] | None = None) -> dict[str, Any]:
    """How it stands; `told` is the master's status where it is known.

    `mode`; `running`, whether notifications are sent just now: not while off, nor while the
    service is left alone because it does not answer or wants it; `paused`, only the latter; `sent`
    since the relay exists; `failures` in a row; `threshold`, how many of them pause;
    `waiting`, devices that are to be told; `counts` of answers since the sending process
    began.
    """
    if told is None:
        told = status.processes(relay) if relay.running else {'children': []}
    couriers, shards = _statistics(told, 'courier'), _statistics(told, 'shard')
    counts: dict[str, int] = {}
    for one in couriers:
        for name, count in one.get('push', {}).items():
            counts[name] = counts.get(name, 0) + count
    mode = str(relay.settings[MODE])
    paused = any(one.get('push_paused', False) for one in couriers)
    return {
        'mode': mode,
        'running': mode != 'off' and not paused,
        'paused': paused,
        'sent': status.traffic(relay, told).get('notified', 0),
        'failures': sum(one.get('push_failures', 0) for one in couriers),
        'threshold': THRESHOLD,
        'waiting': sum(one.get('push_waiting', 0) for one in shards),
        'counts': counts,
    }


def switch(relay: Relay, mode: str) -> None:
    """In force on return.  Refused: invalid, failed."""
    settings.write(relay, MODE, None if relay.settings.configured(MODE) == mode else mode)


def _statistics(told: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [one['statistics'] for one in told['children'] if one['kind'] == kind]
