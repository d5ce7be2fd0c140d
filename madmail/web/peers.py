"""Who a client is, and how much each client address uses, in one worker.

Addresses are keys of bounded tables in memory and go nowhere else.  IPv6
counts by /64, because that is what one client is given.

Behind a reverse proxy of `web.trusted_proxies` the client is the last address
in X-Forwarded-For that is no such proxy; anybody else may write there what he
likes.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from madmail.realtime.shadowsocks.pseudonym import NETWORK
from madmail.settings import Settings

HOPS = 16  # proxies behind each other that are looked at


@lru_cache(10_000)
def peer(host: str) -> str:
    """What an address counts as; '' for the relay itself."""
    try:
        address = ip_address(host.partition('%')[0])
    except ValueError:
        return ''
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> 64 << 64))
    return str(address)


@lru_cache(10_000)
def _address(host: str) -> IPv4Address | IPv6Address | None:
    """As a socket or a proxy writes it, perhaps with a port; None if it is none."""
    host = host.strip().partition('%')[0]
    if host.startswith('['):
        host = host[1:].partition(']')[0]
    elif host.count(':') == 1:
        host = host.partition(':')[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def trusted(host: str, settings: Settings) -> bool:
    """Whether it is a reverse proxy of ours."""
    networks = settings['web.trusted_proxies']
    if not networks:
        return False
    address = _address(host)
    if address is None or address in NETWORK:
        return False
    return any(address in network for network in networks)


def client(environ: dict[str, Any], settings: Settings) -> str:
    """The address of who asks, from the WSGI environment of a request; see `peer`."""
    host: str = environ.get('REMOTE_ADDR') or ''
    if trusted(host, settings):
        hops = environ.get('HTTP_X_FORWARDED_FOR', '').split(',')
        for hop in reversed(hops[-HOPS:]):
            address = _address(hop)
            if address is None:
                break  # what is before it cannot be believed
            host = str(address)
            if not trusted(host, settings):
                break
    return peer(host)


def is_loopback(host: str) -> bool:
    """Of an address as `client` gives it; a request without one is the relay's own.

    Who comes through the Shadowsocks proxy is somebody from elsewhere.
    """
    if not host or host == '::':
        return True
    address = ip_address(host)
    return address.is_loopback and address not in NETWORK


def is_secure(environ: dict[str, Any], settings: Settings) -> bool:
    """Whether a request came over TLS, to us or to a trusted proxy."""
    if environ.get('wsgi.url_scheme') == 'https':
        return True
    if not trusted(environ.get('REMOTE_ADDR') or '', settings):
        return False
    return bool(environ.get('HTTP_X_FORWARDED_PROTO', '').strip().lower() == 'https')


class Connections:
    """Open connections by peer; bounded by the connections of the worker."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def enter(self, peer: str, limit: int) -> bool:
        """Count one more; False, and nothing is counted, when `limit` are open (0 = any)."""
        count = self._open.get(peer, 0)
        if limit and count >= limit and peer:
            return False
        self._open[peer] = count + 1
        return True

    def leave(self, peer: str) -> None:
        count = self._open.get(peer, 0) - 1
        if count > 0:
            self._open[peer] = count
        else:
            self._open.pop(peer, None)
