"""Which names the certificate is for.

The first is what clients connect to: `relay.hostname`, or the domain.  The domain,
`mta-sts.` (where we have a policy to serve) and `www.` come along if they have no
addresses but those of the first; a name that leads elsewhere, or nowhere, would make the
whole order fail.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from madmail.account.address import ip_literal
from madmail.tls.acme import DIRECTORIES


class Settings(Protocol):
    def __getitem__(self, name: str, /) -> Any: ...


class Found(NamedTuple):
    """What the name servers say of a name."""

    addresses: Sequence[str]
    sure: bool  # False: they could not be asked


class Names(NamedTuple):
    first: str
    others: tuple[str, ...] = ()
    trouble: str = ''  # why no order can succeed


Ask = Callable[[str], Found]


def first(settings: Settings) -> str:
    """The name that the certificate has to be for."""
    name = str(settings['relay.hostname'] or settings['domain'])
    ip = ip_literal(name)
    return str(ip) if ip is not None else _ascii(name)


def names(settings: Settings, ask: Ask) -> Names:
    """What to order a certificate for."""
    name = first(settings)
    public = settings['tls.acme_directory'] in DIRECTORIES
    ip = ip_literal(name)
    if ip is not None:
        if public and not ip.is_global:
            return Names(name, trouble=f'{name} is not a public address: nobody certifies it')
        return Names(name)
    if public and not _public(name):
        return Names(name, trouble=f'{name} is not a public name: nobody certifies it')
    found = ask(name)
    if not found.addresses:
        if found.sure:
            return Names(name, trouble=f'{name} has no address in the DNS; see "madmail dns check"')
        return Names(name)  # the authority may know more than our name servers
    ours = {ipaddress.ip_address(one) for one in found.addresses}
    others = []
    for other in candidates(settings, name):
        led = {ipaddress.ip_address(one) for one in ask(other).addresses}
        if led and led <= ours:
            others.append(other)
    return Names(name, tuple(others))


def candidates(settings: Settings, name: str) -> list[str]:
    """Names besides the first that others may use for us."""
    domain = str(settings['domain'])
    if ip_literal(domain) is not None:
        return []
    domain = _ascii(domain)
    found = [domain]
    if settings['listen.https'] and settings['listen.smtp']:
        found.append(f'mta-sts.{domain}')
    found.append(f'www.{domain}')
    return [one for one in found if one != name and len(one) <= 253]


def _public(name: str) -> bool:
    labels = name.split('.')
    return len(labels) > 1 and labels[-1] not in ('localhost', 'local', 'internal', 'test', 'onion')


def _ascii(name: str) -> str:
    return name.encode('idna').decode('ascii').lower()
