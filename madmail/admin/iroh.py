"""The iroh relay: what clients are told of it, and how it is used."""

from __future__ import annotations

from typing import Any

from madmail.admin import ports, settings
from madmail.admin.relay import Relay
from madmail.realtime.iroh.url import NAME, SECURE, relay_url

ENABLED = 'iroh.enabled'


def state(relay: Relay) -> dict[str, Any]:
    """How it stands.

    `enabled`, `answers` (None: the relay does not run), `relay_url` (what clients are told,
    '' for nothing), `port` (None: reached over the web listeners only), `local_only`, and
    of now: `clients`, `connections`, `held` (octets that wait); `received` and `sent` octets
    since the process began.
    """
    processes = []
    if relay.running:
        told = relay.ask_master({'command': 'status'})
        processes = [one['statistics'] for one in told['children'] if one['kind'] == NAME]
    up = {
        NAME: any(one.get('answers') for one in processes) or not relay.running,
        SECURE: any(one.get('trusted') for one in processes),
    }

    def total(name: str) -> int:
        return sum(int(one.get(name, 0)) for one in processes)

    listener = ports.state(relay, NAME)
    octets = [one['octets'][NAME] for one in processes if 'octets' in one]
    return {
        'enabled': bool(relay.settings[ENABLED]),
        'answers': up[NAME] if relay.running else None,
        'relay_url': relay_url(relay.settings, lambda name: up[name]),
        'port': listener['port'],
        'local_only': listener['mode'] == 'local',
        'clients': total('clients'),
        'connections': total('open'),
        'held': total('held'),
        'received': sum(one['received'] for one in octets),
        'sent': sum(one['sent'] for one in octets),
    }


def turn(relay: Relay, on: bool) -> None:
    """Switch it; so on return.  Refused: invalid, failed."""
    configured = relay.settings.configured(ENABLED) == on
    settings.write(relay, ENABLED, None if configured else 'true' if on else 'false')
