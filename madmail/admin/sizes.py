"""How large messages may be: of users, and of what other relays deliver over HTTP.

Sizes are written as operators write them: `100M`, `1G 512M`; units are powers of
1024.
"""

from __future__ import annotations

import re
from typing import Any

from madmail.admin.refused import Refused
from madmail.admin.relay import Relay

MESSAGE = 'limits.max_message_size'
FEDERATION = 'limits.max_federation_size'
UNITS = {'B': 1, 'K': 1024, 'M': 1024**2, 'G': 1024**3}
LEAST = 64 * 1024  # octets; below it no encrypted message would pass
MOST = 4 * 1024**3

_TOKEN = re.compile(r'([0-9]{1,12})([BKMG]?)(?:I?B)?')


def parse(text: str) -> int:
    """Octets.  Refused: invalid."""
    total = 0
    for word in text.upper().split():
        match = _TOKEN.fullmatch(word)
        if match is None:
            raise Refused('invalid', 'a size is a number and a unit, such as 64M or 500K')
        total += int(match[1]) * UNITS[match[2] or 'B']
    if not LEAST <= total <= MOST:
        raise Refused('invalid', f'a size is from {show(LEAST)} to {show(MOST)}')
    return total


def show(octets: int) -> str:
    """With the largest unit that divides it; `0B` is no limit."""
    for unit in 'GMK':
        if octets and octets % UNITS[unit] == 0:
            return f'{octets // UNITS[unit]}{unit}'
    return f'{octets}B'


def state(relay: Relay, name: str) -> dict[str, Any]:
    """Of MESSAGE or FEDERATION: what is in force, the row if there is one, what it hides."""
    configured: int = relay.settings.configured(name)
    effective: int = relay.settings[name]
    own = relay.settings.source(name) == 'live'
    return {
        'effective_bytes': effective,
        'effective': show(effective),
        'row': show(effective) if own else None,
        'config_bytes': configured,
        'config': show(configured),
    }


def set_(relay: Relay, name: str, text: str) -> None:
    """At once.  Refused: invalid."""
    relay.control.set_setting(name, str(parse(text)))
    relay.publish('settings', {})


def reset(relay: Relay, name: str) -> None:
    """Back to what the configuration says."""
    relay.control.remove_setting(name)
    relay.publish('settings', {})
