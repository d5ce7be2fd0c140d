"""Where clients are told that the relay is.

They trust the certificates that browsers trust and nothing else, so an address with https
is good only where one of those is in use; the service finds that out by asking (`probe`).
With any other certificate plain http is what works, and loses little: nodes encrypt what
they say to each other whatever lies between them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from madmail.account.address import hostname, ip_literal
from madmail.settings import Address, Settings

NAME = 'iroh'  # of the service, see realtime.presence
SECURE = 'iroh/https'  # it is reached by https, and clients trust the certificate


def relay_url(settings: Settings, has: Callable[[str], bool]) -> str:
    """The URL for clients; '' if there is none.  `has` says which services answer."""
    if not settings['iroh.enabled'] or not has(NAME):
        return ''
    given: str = settings['iroh.relay_url']
    if given:
        return given
    host = hostname(settings)
    ip = ip_literal(host)
    if ip is not None:
        host = f'[{ip}]' if ip.version == 6 else str(ip)
    # With https clients of 0.35 take no IPv6 address for the name of a server.
    if has(SECURE) and not (ip is not None and ip.version == 6):
        return _url('https', host, settings['listen.https'], 443)
    for name in ('iroh', 'http'):
        if settings[f'listen.{name}']:
            return _url('http', host, settings[f'listen.{name}'], 80)
    return ''


def _url(scheme: str, host: str, addresses: tuple[Address, ...], usual: int) -> str:
    public = [one for one in addresses if not _local(one)]
    port = (public or addresses)[0].port
    return f'{scheme}://{host}' if port == usual else f'{scheme}://{host}:{port}'


def _local(address: Address) -> bool:
    return address.host == 'localhost' or ipaddress.ip_address(address.host).is_loopback
