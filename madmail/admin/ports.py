"""Ports and reach of the listeners, by the names that operators of such relays know.

A changed listener is one row, `listen.<name>`, with all its addresses.  Where the
change leads back to what the file says, the row goes.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from madmail.admin import settings
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.settings import Address
from madmail.settings.declarations import SETTINGS
from madmail.settings.network_kinds import Addresses

_NAMES = {'submissions': 'submission-tls', 'imaps': 'imap-tls', 'turns': 'turn-tls'}


def _services() -> dict[str, tuple[str, int]]:
    found = {}
    for name, setting in SETTINGS.items():
        section, _, ours = name.rpartition('.')
        if section == 'listen' and isinstance(setting.kind, Addresses):
            found[_NAMES.get(ours, ours)] = (ours, setting.kind.port)
    return found


# name → listen.<ours> and its usual port
SERVICES: dict[str, tuple[str, int]] = _services()
BY_LISTENER = {ours: name for name, (ours, _) in SERVICES.items()}
LOOPBACK = ('127.0.0.1', '::1')
EVERYWHERE = '0.0.0.0'
OURS = ('metrics',)  # for programs of the operator, which ask without a password


def state(relay: Relay, service: str) -> dict[str, Any]:
    """`name`, `port` (None = not listening), `mode` public | local, `addresses`, `enabled`."""
    addresses = _addresses(relay, service)
    return {
        'name': service,
        'port': addresses[0].port if addresses else None,
        'mode': 'local' if local_only(addresses) else 'public',
        'addresses': [str(address) for address in addresses],
        'enabled': bool(addresses),
    }


def changed(relay: Relay, service: str) -> tuple[bool, bool]:
    """Whether port and reach are other ones than the file's, by a change that is in force."""
    addresses, told = _addresses(relay, service), _configured(relay, service)
    if relay.settings.source(_setting(service)) != 'live' or not addresses:
        return False, False
    return (
        not told or addresses[0].port != told[0].port,
        local_only(addresses) != local_only(told),
    )


def local_only(addresses: tuple[Address, ...]) -> bool:
    """Whether only this host can connect."""
    return bool(addresses) and all(
        one.host == 'localhost' or ipaddress.ip_address(one.host).is_loopback for one in addresses
    )


def move(relay: Relay, service: str, port: int) -> None:
    """To another port on the same addresses.  Refused: invalid, failed."""
    if not 1 <= port <= 65535:
        raise Refused('invalid', 'a port is a number from 1 to 65535')
    hosts = [address.host for address in _addresses(relay, service)] or [_host(service)]
    _listen(relay, service, [Address(host, port) for host in dict.fromkeys(hosts)])


def move_back(relay: Relay, service: str) -> None:
    """To the port of the file; the reach stays.  Refused: failed."""
    told = _configured(relay, service)
    if not told or not _addresses(relay, service):
        reset(relay, service)
    else:
        move(relay, service, told[0].port)


def restrict(relay: Relay, service: str, local: bool) -> None:
    """Listen on loopback only, or where the file says; without that everywhere.

    Refused: invalid (it does not listen), failed.
    """
    addresses = _addresses(relay, service)
    if not addresses:
        raise Refused('invalid', f'{service} does not listen anywhere')
    if local_only(addresses) == local:
        return
    if local:
        hosts = [LOOPBACK[0]]
        if any(':' in address.host for address in addresses):
            hosts.append(LOOPBACK[1])
    else:
        told = _configured(relay, service)
        hosts = [address.host for address in told]
        if not hosts or local_only(told):
            hosts = [EVERYWHERE]
    port = addresses[0].port
    _listen(relay, service, [Address(host, port) for host in dict.fromkeys(hosts)])


def restrict_as_told(relay: Relay, service: str) -> None:
    """The reach that the file says; the port stays.  Refused: failed."""
    told = _configured(relay, service)
    if not told or not _addresses(relay, service):
        reset(relay, service)
    else:
        restrict(relay, service, local_only(told))


def enable(relay: Relay, service: str, on: bool) -> None:
    """Listen as the file says (or on the usual port), or not at all.  Refused: failed."""
    if bool(_addresses(relay, service)) == on:
        return
    addresses = list(_configured(relay, service)) if on else []
    if on and not addresses:
        addresses = [Address(_host(service), SERVICES[service][1])]
    _listen(relay, service, addresses)


def reset(relay: Relay, service: str) -> None:
    """Listen as the file says.  Refused: failed."""
    settings.write(relay, _setting(service), None)


def _host(service: str) -> str:
    """Where a service listens that nobody has given an address."""
    return LOOPBACK[0] if service in OURS else EVERYWHERE


def _setting(service: str) -> str:
    return f'listen.{SERVICES[service][0]}'


def _addresses(relay: Relay, service: str) -> tuple[Address, ...]:
    found: tuple[Address, ...] = relay.settings[_setting(service)]
    return found


def _configured(relay: Relay, service: str) -> tuple[Address, ...]:
    found: tuple[Address, ...] = relay.settings.configured(_setting(service))
    return found


def _listen(relay: Relay, service: str, addresses: list[Address]) -> None:
    name = _setting(service)
    told = set(addresses) == set(_configured(relay, service))
    text = SETTINGS[name].kind.plain(tuple(addresses))
    settings.write(relay, name, None if told else text)
