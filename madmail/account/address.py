"""Addresses in the one form that the rest of the program compares.

An account's address is kept canonical: ASCII, lower case, exactly one `@`, an
IP-literal domain in brackets.  There is one spelling of every account, so two
accounts can never be told apart by case, by Unicode look-alikes or by the way
an IP address is written.
"""

from __future__ import annotations

import ipaddress
import re
from socket import AF_INET6, inet_ntop
from typing import Any, Protocol

# What Delta Chat and its relays make, and nothing that means anything to a
# path, a quoted string or an IMAP pattern.
_LOCAL = re.compile(r'[a-z0-9](?:[a-z0-9._+-]{0,62}[a-z0-9_+-])?\Z')
_DOMAIN = re.compile(
    r'(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?'
    r'(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?)*\Z'
)
ADDRESS_LIMIT = 320


class Settings(Protocol):
    """What of madmail.settings is needed here."""

    def __getitem__(self, name: str, /) -> Any: ...


def ip_literal(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that `text` spells: bare, `[1.2.3.4]`, `[::1]` or `[IPv6:::1]`."""
    if text.startswith('[') and text.endswith(']'):
        text = text[1:-1]
        if text[:5].lower() == 'ipv6:':
            text = text[5:]
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def mail_domain(setting: str) -> str:
    """The domain part of the relay's addresses for the `domain` setting.

    Raises ValueError for what is neither a domain name nor an IP address.
    """
    text = setting.strip().rstrip('.').lower()
    ip = ip_literal(text)
    if ip is not None:
        # inet_ntop, because `compressed` is not the same in all versions of Python.
        return f'[{ip}]' if ip.version == 4 else f'[ipv6:{inet_ntop(AF_INET6, ip.packed)}]'
    if not text.isascii():
        text = text.encode('idna').decode('ascii')
    if not _DOMAIN.match(text):
        raise ValueError('neither a domain name nor an IP address')
    return text


def hostname(settings: Settings) -> str:
    """What this host calls itself in greetings; live."""
    name: str = settings['relay.hostname'] or settings['domain']
    return name


def ehlo_name(settings: Settings) -> str:
    """The same as SMTP says it, in EHLO and in greetings."""
    return smtp_name(hostname(settings))


def smtp_name(host: str) -> str:
    """A host as SMTP says it, an address in brackets (RFC 5321 4.1.3)."""
    ip = ip_literal(host)
    if ip is None:
        return host
    return f'[{ip}]' if ip.version == 4 else f'[IPv6:{inet_ntop(AF_INET6, ip.packed)}]'


def split(address: str) -> tuple[str, str]:
    """Local part and domain of a canonical address."""
    local, _, domain = address.rpartition('@')
    return local, domain


def canonical_domain(text: str) -> str | None:
    """Any domain in canonical form, or None when it is none."""
    try:
        return mail_domain(text)
    except (ValueError, UnicodeError):
        return None


def canonical(text: str, domain: str) -> str | None:
    """`text` as an address of mail domain `domain`, or None.

    None stands for another domain as well as for a malformed name: who asks
    has the same answer for both.
    """
    if len(text) > ADDRESS_LIMIT or not text.isascii():
        return None
    local, at, host = text.strip().lower().rpartition('@')
    if not at or not _LOCAL.match(local) or '..' in local:
        return None
    if host != domain and canonical_domain(host) != domain:
        return None
    return f'{local}@{domain}'


def is_local(host: str, domain: str) -> bool:
    """Whether a domain part, in whatever spelling, is this relay's."""
    host = host.lower()
    return host == domain or canonical_domain(host) == domain
