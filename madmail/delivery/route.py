"""Where mail for a domain can be handed over: the hops, in the order to try them.

An endpoint that the operator has set comes alone, and what the domain says of
its own hosts does not concern it.  An IP literal is its own host.  Any other
domain is its mail exchangers in order of preference, equal ones in an order of
chance, or itself where it names none (RFC 5321 5.1).  At every host the
transports of `federation.transports` are tried in their order.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from madmail.account.address import ip_literal
from madmail.delivery.dns import Resolver, Status
from madmail.delivery.federation import PATH, Override, trusts_names
from madmail.settings import Settings
from madmail.smtp.reply import Fault, Reply

HOSTS_LIMIT = 5  # mail exchangers tried

NULL_MX = Reply(556, '5.1.10', 'This domain takes no mail', 'null_mx', Fault.PEER)  # RFC 7505
NO_DOMAIN = Reply(550, '5.1.2', 'There is no such mail domain', 'no_domain', Fault.PEER)
NO_HOST = Reply(550, '5.4.4', 'This domain has no mail server', 'no_host', Fault.PEER)
BAD_DOMAIN = Reply(550, '5.1.2', 'There can be no such mail domain', 'bad_domain', Fault.PEER)
NO_DNS = Reply(451, '4.4.3', 'The domain could not be looked up', 'dns', Fault.PEER)

_NAME = re.compile(r'[a-z0-9_-]+(?:\.[a-z0-9_-]+)+\Z')


class Hop(NamedTuple):
    """One way to one host."""

    transport: str  # 'https', 'http' or 'smtp'
    host: str  # name, or IP address without brackets
    port: int
    path: str = PATH
    verify: bool = True  # whether its certificate must be right
    secure: bool = False  # whether DNSSEC proves that this host is meant
    relay: str = ''  # the mail domain, for policies that are published under it
    insist: bool = False  # no SMTP unless TLS has proved the host: the operator says so

    @property
    def literal(self) -> bool:
        return ip_literal(self.host) is not None


class Router(NamedTuple):
    """Finds hops.  Blocks the greenlet while names are looked up."""

    resolver: Resolver
    override: Callable[[str], Override | None]
    settings: Settings

    def hops(self, domain: str) -> Sequence[Hop] | Reply:
        """At least one, or why there can be none (5xx) or none now (4xx)."""
        override = self.override(domain)
        if override is not None:
            return self._overridden(override)
        address = ip_literal(domain)
        if address is not None:
            return self._at(str(address), domain, verify=False, plain=True)
        if not _NAME.match(domain):
            return BAD_DOMAIN
        answer = self.resolver.mx(domain)
        if answer.status is Status.FAILED:
            return NO_DNS
        if answer.status is Status.NO_NAME:
            return NO_DOMAIN
        # RFC 5321 5.1: equal ones share the load.
        found = sorted(answer.values, key=lambda one: (one[0], random.random()))
        hosts = [host for _, host in found]
        if hosts == ['']:
            return NULL_MX
        hosts = [host for host in hosts if host][:HOSTS_LIMIT]
        if not hosts:
            address_of = self.resolver.addresses(domain)
            if address_of.status is not Status.FOUND:
                return NO_DNS if address_of.status is Status.FAILED else NO_HOST
        hops: list[Hop] = []
        for host in hosts or [domain]:
            hops += self._at(
                host, domain, verify=trusts_names(host), plain=False, secure=answer.secure
            )
        return hops

    def _at(
        self, host: str, domain: str, *, verify: bool, plain: bool, secure: bool = False
    ) -> list[Hop]:
        hops = []
        for transport in self.settings['federation.transports']:
            if transport == 'http' and not (plain or self.settings['federation.plain_http']):
                continue
            hops.append(Hop(transport, host, self._port(transport), PATH, verify, secure, domain))
        return hops

    def _overridden(self, override: Override) -> list[Hop]:
        host, path, verify = override.host, override.path or PATH, override.verify
        if override.scheme:
            port = override.port or self._port(override.scheme)
            return [Hop(override.scheme, host, port, path, verify, insist=verify)]
        hops = [hop._replace(path=path) for hop in self._at(host, '', verify=verify, plain=True)]
        if not override.port:
            return hops
        return [hop._replace(port=override.port) for hop in hops if hop.transport != 'smtp'] or hops

    def _port(self, transport: str) -> int:
        port: int = self.settings[f'federation.{transport}_port']
        return port
