"""Binding the listening sockets, and saying who is in the way when one is taken."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from madmail.master.exits import PORT, Stop
from madmail.settings import Address, Settings

BACKLOG = 4096
DATAGRAM_BUFFER = 4 * 1024 * 1024  # octets that may wait at a listener
SO_RCVBUFFORCE = 33  # as Linux numbers it
_LISTEN = '0A'  # TCP_LISTEN as /proc/net/tcp writes it
_UNCONNECTED = '07'  # a UDP socket without a peer, in /proc/net/udp


class Listeners:
    """The listeners of a relay by name; kept open over reloads.

    A name with /udp means datagrams at the addresses of the setting without it.  Where
    several processes share them, each has a socket of its own, NAME/udp#1 and so on: the
    kernel then gives all datagrams of a peer to the same one.
    """

    def __init__(self) -> None:
        self._sockets: dict[tuple[str, Address], socket.socket] = {}

    def named(
        self, names: Iterable[str], settings: Settings, index: int = 0
    ) -> dict[str, list[socket.socket]]:
        """The sockets of `names` that `settings` wants, in the form child `index` gets them."""
        return {
            name: [
                self._sockets.get((share(name, index), address)) or self._sockets[name, address]
                for address in _addresses(settings, name)
            ]
            for name in names
        }

    def all(self) -> list[socket.socket]:
        return list(self._sockets.values())

    def bind(self, settings: Settings, names: Iterable[str]) -> None:
        """Bind what `settings` wants of listen.`names` and is not bound yet.

        All or nothing: raises Stop and has bound none.
        """
        fresh: dict[tuple[str, Address], socket.socket] = {}
        try:
            for name in names:
                for address in _addresses(settings, name):
                    if (name, address) not in self._sockets:
                        beside = self._beside(name, address)
                        if '#' in name:
                            own = name.partition('#')[0]
                            beside += [
                                listener
                                for (other, theirs), listener in fresh.items()
                                if other.partition('#')[0] == own and theirs == address
                            ]
                        fresh[name, address] = bind(name, address, beside)
        except Stop:
            for listener in fresh.values():
                listener.close()
            raise
        self._sockets.update(fresh)

    def _beside(self, name: str, address: Address) -> list[socket.socket]:
        """Ours of the same service and port at other addresses, such as the wildcard."""
        own = name.partition('#')[0]
        return [
            listener
            for (other, theirs), listener in self._sockets.items()
            if other.partition('#')[0] == own and theirs.port == address.port and address.port
        ]

    def keep(self, settings: Settings, names: Iterable[str]) -> None:
        """Close what `settings` does not want any more, for the children that hold it as well."""
        wanted = {(name, a) for name in names for a in _addresses(settings, name)}
        for key in [key for key in self._sockets if key not in wanted]:
            listener = self._sockets.pop(key)
            with contextlib.suppress(OSError):  # a datagram socket has nothing to shut down
                # A retiring child would accept until it has heard of it.
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def addresses(self) -> list[tuple[str, Address]]:
        """What is bound, with the ports the kernel chose for port 0."""
        return [
            (name, Address(address.host, listener.getsockname()[1]))
            for (name, address), listener in self._sockets.items()
        ]

    def close(self) -> None:
        for listener in self._sockets.values():
            listener.close()
        self._sockets.clear()


def share(name: str, index: int) -> str:
    """The name of the sockets that process `index` of a kind has for `name`."""
    return f'{name}#{index}' if index and name.endswith('/udp') else name


def _addresses(settings: Settings, name: str) -> tuple[Address, ...]:
    found: tuple[Address, ...] = settings[f'listen.{name.partition("/")[0]}']
    return found


def bind(name: str, address: Address, beside: Sequence[socket.socket] = ()) -> socket.socket:
    """A non-blocking listening socket.  Raises Stop with the reason.

    `beside` may overlap: 0.0.0.0:143 is still open when 127.0.0.1:143 replaces it.
    """
    datagrams = '/udp' in name
    setting = f'listen.{name.partition("/")[0]}'
    host = '127.0.0.1' if address.host == 'localhost' else address.host
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
    except OSError as error:
        raise Stop(PORT, f'{setting}: {address}: {error.strerror}') from None
    try:
        if datagrams:
            with contextlib.suppress(OSError):  # only root may go above net.core.rmem_max
                listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, DATAGRAM_BUFFER)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if '#' in name:
            # For as long as they live: it is what makes the kernel choose by the peer.
            for each in (listener, *beside):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            _open(listener, (host, address.port), datagrams)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not beside:
                raise
            # For this one moment only: with the option left on, anybody of our user could
            # share the port, a second relay by mistake for example.
            for each in (listener, *beside):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                _open(listener, (host, address.port), datagrams)
            finally:
                for each in (listener, *beside):
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise Stop(PORT, f'{setting}: {address}: {_reason(error, address, datagrams)}') from None
    return listener


def _open(listener: socket.socket, at: tuple[str, int], datagrams: bool) -> None:
    listener.bind(at)
    if not datagrams:
        listener.listen(BACKLOG)


def _reason(error: OSError, address: Address, datagrams: bool) -> str:
    if error.errno == errno.EADDRINUSE:
        return f'the port is taken by {holder(address.port, datagrams)}'
    if error.errno == errno.EACCES and address.port < 1024:
        return 'ports below 1024 need root or the capability CAP_NET_BIND_SERVICE'
    if error.errno == errno.EADDRNOTAVAIL:
        return 'this host does not have that address'
    return error.strerror or 'cannot be bound'


def holder(port: int, datagrams: bool = False) -> str:
    """The processes that listen on a TCP (or UDP) `port`: `dovecot (process 4711)`."""
    inodes = set()
    protocol, state = ('udp', _UNCONNECTED) if datagrams else ('tcp', _LISTEN)
    for table in (f'/proc/net/{protocol}', f'/proc/net/{protocol}6'):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == state and int(fields[1].rpartition(':')[2], 16) == port:
                inodes.add(fields[9])
    found = {}
    for pid in filter(str.isdigit, os.listdir('/proc')) if inodes else ():
        try:
            for entry in os.scandir(f'/proc/{pid}/fd'):
                match = re.fullmatch(r'socket:\[(\d+)\]', os.readlink(entry.path))
                if match and match[1] in inodes:
                    found[int(pid)] = Path(f'/proc/{pid}/comm').read_text().strip()
                    break
        except OSError:
            continue  # gone, or somebody else's
    if os.getpid() in found:
        return 'another listener of this configuration'
    if not found:
        return 'another process (root can see which)'
    first = min(found)
    more = f' and {len(found) - 1} more' if len(found) > 1 else ''
    return f'{found[first]} (process {first}{more})'
