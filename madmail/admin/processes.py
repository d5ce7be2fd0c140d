"""The processes of the relay: what runs, reload and restart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from madmail.admin import status
from madmail.admin.relay import Relay

RELOAD_TIME = 60.0  # seconds that somebody waits for a reload


def running(relay: Relay) -> dict[str, Any]:
    """Processes and listeners, what is wrong with them, and how busy the host is.

    Refused: unavailable.
    """
    told = status.processes(relay)
    cores = os.cpu_count() or 1
    return {
        'domain': told['domain'],
        'complete': told['complete'],
        'listeners': told['listeners'],
        'processes': [
            {
                'kind': one['kind'],
                'index': one['index'],
                'state': one['state'],
                'uptime_seconds': one['uptime_seconds'],
                'resident_bytes': one['statistics'].get('resident_bytes', 0),
                'cpu_seconds': one['statistics'].get('cpu_seconds', 0.0),
            }
            for one in told['children']
        ],
        'trouble': told['trouble'],
        'unusable': told['unusable'],
        'memory': memory(),
        'load': [round(one / cores, 2) for one in os.getloadavg()],
    }


def memory() -> dict[str, int]:
    """Octets of the host's memory: `total_bytes` and `available_bytes`."""
    facts = {}
    for line in Path('/proc/meminfo').read_text().splitlines():
        name, _, value = line.partition(':')
        facts[name] = int(value.split()[0]) * 1024
    return {
        'total_bytes': facts.get('MemTotal', 0),
        'available_bytes': facts.get('MemAvailable', 0),
    }


def reload(relay: Relay, *, wait: bool = True) -> None:
    """Apply the configuration anew, as SIGHUP does; nobody is disconnected.

    Refused: busy (another one waits already), failed (everything stays as it was, and
    the text says why), unavailable.
    """
    request = {'command': 'reload', 'alone': True, 'wait': wait}
    relay.ask_master(request, timeout=RELOAD_TIME)


def restart(relay: Relay) -> None:
    """Stop gracefully and begin again.  Returns when that has begun."""
    relay.ask_master({'command': 'restart'})
