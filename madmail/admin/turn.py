"""The TURN server: how it is used, switching it, and its secret."""

from __future__ import annotations

import secrets
from typing import Any

from madmail.account.secret import load as load_secret
from madmail.admin import ports, settings
from madmail.admin.relay import Relay
from madmail.realtime.turn import offer

NAME = 'turn'
ENABLED = 'turn.enabled'
SECRET, FORMER = 'turn.secret', 'turn.former_secret'


def usage(told: dict[str, Any]) -> dict[str, int]:
    """Out of the master's status: `relays` that clients have now."""
    found = _processes(told)
    return {'relays': sum(int(one.get('relays', 0)) for one in found)}


def state(relay: Relay) -> dict[str, Any]:
    """How it stands.

    `enabled`, `answers` (None: the relay does not run), `host` that clients are told,
    `port` and `tls_port` (None: not listening), `relay_ports`, `own_secret` (whether the
    operator gave one), `ttl` in seconds; of now `relays` and `connections` (TCP and TLS);
    `received` and `sent` octets since the processes began.
    """
    processes = _processes(relay.ask_master({'command': 'status'})) if relay.running else []

    def total(name: str) -> int:
        return sum(int(one.get(name, 0)) for one in processes)

    def octets(direction: str) -> int:
        return sum(one['octets'][NAME][direction] for one in processes if 'octets' in one)

    found = relay.settings
    return {
        'enabled': bool(found[ENABLED]),
        'answers': any(one.get('answers') for one in processes) if relay.running else None,
        'host': offer.host(found),
        'port': ports.state(relay, NAME)['port'],
        'tls_port': ports.state(relay, 'turn-tls')['port'],
        'relay_ports': [found['turn.relay_port_min'], found['turn.relay_port_max']],
        'own_secret': bool(found[SECRET]),
        'ttl': found['turn.ttl'],
        'relays': total('relays'),
        'connections': total('streams'),
        'received': octets('received'),
        'sent': octets('sent'),
    }


def turn(relay: Relay, on: bool) -> None:
    """Switch it; so on return.  Refused: invalid, failed."""
    configured = relay.settings.configured(ENABLED) == on
    settings.write(relay, ENABLED, None if configured else 'true' if on else 'false')


def rotate(relay: Relay, *, forget: bool = False) -> None:
    """Another secret.  What clients were told before counts until its time is over, unless
    `forget`, for a secret that others know; they then have no calls through us until they ask
    anew.
    """
    former = ''
    if not forget:
        former = relay.settings[SECRET] or offer.derived(load_secret(relay.state_dir))
    settings.write_together(relay, {SECRET: secrets.token_hex(32), FORMER: former})


def _processes(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [one['statistics'] for one in told['children'] if one['kind'] == NAME]
