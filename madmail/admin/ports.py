"""Ports and reach of the listeners, by the names that operators of such relays know."""

from __future__ import annotations

from typing import Any

from madmail.admin import settings
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.settings import Address
from madmail.settings.declarations import LISTENERS, SETTINGS

# name → listen.<ours> and its usual port
SERVICES: dict[str, tuple[str, int]] = {
    {'submissions': 'submission-tls', 'imaps': 'imap-tls'}.get(ours, ours): (ours, port)
    for ours, (port, _) in LISTENERS.items()
}
LOOPBACK = ('127.0.0.1', '::1')
EVERYWHERE = '0.0.0.0'


def state(relay: Relay, service: str) -> dict[str, Any]:
    """`name`, `port` (None = not listening), `mode` public | local, `addresses`, `enabled`."""
    addresses = _addresses(relay, service)
    return {
        'name': service,
        'port': addresses[0].port if addresses else None,
        'mode': 'local' if settings.local_only(addresses) else 'public',
        'addresses': [str(address) for address in addresses],
        'enabled': bool(addresses),
    }


def move(relay: Relay, service: str, port: int) -> None:
    """To another port on the same addresses.  Refused: invalid, failed."""
    if not 1 <= port <= 65535:
        raise Refused('invalid', 'a port is a number from 1 to 65535')
    hosts = [address.host for address in _addresses(relay, service)] or [EVERYWHERE]
    _listen(relay, service, [Address(host, port) for host in dict.fromkeys(hosts)])


def restrict(relay: Relay, service: str, local: bool) -> None:
    """Listen on loopback only, or where the file says; without that everywhere."""
    addresses = _addresses(relay, service)
    if settings.local_only(addresses) == local and addresses:
        return
    port = addresses[0].port if addresses else SERVICES[service][1]
    if local:
        hosts = [LOOPBACK[0]]
        if any(':' in address.host for address in addresses):
            hosts.append(LOOPBACK[1])
    else:
        name = f'listen.{SERVICES[service][0]}'
        told = relay.settings.given.get(name, SETTINGS[name].default)
        assert isinstance(told, tuple)
        hosts = [address.host for address in told]
        if not hosts or settings.local_only(told):
            hosts = [EVERYWHERE]
    _listen(relay, service, [Address(host, port) for host in hosts])


def enable(relay: Relay, service: str, on: bool) -> None:
    """Listen as the file says (or on the usual port), or not at all."""
    if bool(_addresses(relay, service)) == on:
        return
    if not on:
        _listen(relay, service, [])
        return
    reset(relay, service)
    if not _addresses(relay, service):
        _listen(relay, service, [Address(EVERYWHERE, SERVICES[service][1])])


def reset(relay: Relay, service: str) -> None:
    """Listen as the file says."""
    settings.write(relay, f'listen.{SERVICES[service][0]}', None)


def _addresses(relay: Relay, service: str) -> tuple[Address, ...]:
    found: tuple[Address, ...] = relay.settings[f'listen.{SERVICES[service][0]}']
    return found


def _listen(relay: Relay, service: str, addresses: list[Address]) -> None:
    name = f'listen.{SERVICES[service][0]}'
    settings.write(relay, name, SETTINGS[name].kind.plain(tuple(addresses)))
