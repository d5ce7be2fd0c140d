"""The DNS records that this relay needs, and whether they are published."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Any

from madmail.delivery import zone
from madmail.delivery.dkim import Keys
from madmail.delivery.zone import Finding, Record
from madmail.settings import Settings
from madmail.settings.declarations import LISTENERS
from madmail.tls import certificate

# Root servers.  Nothing is sent to them: a connected UDP socket shows our own address.
FAR = ((socket.AF_INET, '198.41.0.4'), (socket.AF_INET6, '2001:503:ba3e::2:30'))
UNVERIFIABLE = (
    'The certificate is self-signed or not for this domain: other relays use SMTP instead of '
    'HTTPS, and those that want a right certificate send nothing; see tls.mode.'
)


def wanted(settings: Settings, state_dir: Path, keys: Keys) -> list[Record]:
    """What there should be; nothing for a relay on an IP address.  Raises what `keys` raises."""
    if not keys.needed:
        return []
    addresses = own_addresses(settings)
    return zone.zone(settings, keys, addresses, verifiable=verifiable(settings, state_dir))


def verifiable(settings: Settings, state_dir: Path) -> bool:
    return certificate.verifiable(settings, state_dir)


def warnings(settings: Settings, state_dir: Path) -> list[str]:
    return [] if verifiable(settings, state_dir) else [UNVERIFIABLE]


def look(settings: Settings) -> zone.Look:
    """Asks the configured name servers."""
    from madmail.delivery.dns import Resolver, Status  # takes a while, and few commands need it

    resolver = Resolver.configured(settings)

    def ask(name: str, kind: str) -> tuple[str, ...] | None:
        if kind == 'TXT':
            texts = resolver.txt(name)
            if texts.status is Status.FAILED:
                return None
            return tuple(text.decode(errors='replace') for text in texts.values)
        answer = resolver.records(name, kind)
        return None if answer.status is Status.FAILED else answer.values

    return ask


def own_addresses(settings: Settings) -> list[str]:
    """The public addresses of this host, as far as it knows them."""
    found = [one.host for name in LISTENERS for one in settings[f'listen.{name}']]
    for family, far in FAR:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
                datagrams.connect((far, 53))
                found.append(datagrams.getsockname()[0])
        except OSError:
            continue  # no way there
    public = [one for one in found if one != 'localhost' and ipaddress.ip_address(one).is_global]
    return list(dict.fromkeys(public))


def as_data(record: Record) -> dict[str, Any]:
    return {
        'name': record.name,
        'type': record.kind,
        'ttl': zone.TTL,
        'expected': record.data,
        'need': record.need.value,
        'note': record.note,
        'line': record.line(),
    }


def found_as_data(finding: Finding) -> dict[str, Any]:
    """With `seen`, what is published, and `verdict`: ok, missing, different or unknown."""
    verdict = finding.verdict.value
    return {**as_data(finding.record), 'seen': list(finding.seen), 'verdict': verdict}
