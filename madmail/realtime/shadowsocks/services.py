"""What can be reached through the proxy: listeners of this relay, and nothing else.

A client names a host and a port.  The port must be that of a listener for mail from users or for
the web, and the host must be this relay: its domain, its name, or an address that is its domain
or one of this host.  A client that has accounts elsewhere is refused and not sent to the wrong
relay.  Nothing is looked up and nothing is connected to outside.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import NamedTuple

from madmail.realtime.shadowsocks.destination import Destination
from madmail.settings import Address, Settings

# Not smtp, where other relays deliver, nor metrics.
REACHABLE = ('imaps', 'imap', 'submissions', 'submission', 'https', 'http')
LISTENERS = tuple(f'listen.{name}' for name in REACHABLE)


class Way(NamedTuple):
    """To a listener of ours."""

    family: int
    host: str
    port: int


class Services:
    """Of one configuration."""

    __slots__ = ('_names', '_ways', 'first')

    def __init__(self, settings: Settings) -> None:
        names = {str(settings['domain']), str(settings['relay.hostname']), 'localhost'}
        self._names = {name.strip('[]').lower() for name in names if name}
        self._ways: dict[int, Way] = {}
        self.first: int | None = None  # a port that can be reached; one that greets if there is
        for name in REACHABLE:
            for address in settings[f'listen.{name}']:
                way = _way(address)
                if name == 'http' and way.host == '::1':
                    continue  # for the web server that is somebody on this host
                known = self._ways.get(way.port)
                # IPv6 where nothing else is: there all clients have one loopback address.
                if way.port and (known is None or known.family == socket.AF_INET6):
                    self._ways[way.port] = way
        for name in ('imap', 'submission', *REACHABLE):
            ports = [one.port for one in settings[f'listen.{name}'] if one.port in self._ways]
            if ports:
                self.first = ports[0]
                break

    def find(self, wanted: Destination) -> Way | None:
        """The way to what a client wants; None when it is not ours."""
        way = self._ways.get(wanted.port)
        return way if way is not None and self._is_us(wanted.host) else None

    def _is_us(self, host: str) -> bool:
        host = host.rstrip('.')
        if host in self._names:
            return True
        try:
            address = ipaddress.ip_address(host.strip('[]'))
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return str(address) in self._names or is_local(address)


def is_local(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it is an address of this host."""
    if address.is_loopback:
        return True
    if address.is_unspecified or address.is_multicast or str(address) == '255.255.255.255':
        return False  # what a socket may be bound to all the same
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        # A socket that nobody connects to; it sends nothing.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _way(address: Address) -> Way:
    host = {'0.0.0.0': '127.0.0.1', 'localhost': '127.0.0.1', '::': '::1'}.get(
        address.host, address.host
    )
    return Way(socket.AF_INET6 if ':' in host else socket.AF_INET, host, address.port)
