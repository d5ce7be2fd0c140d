"""The relay's certificate, described for its operator."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from madmail.account.address import ip_literal
from madmail.tls import acme, self_signed
from madmail.tls.files import DIRECTORY


class Settings(Protocol):
    def __getitem__(self, name: str) -> object: ...


class Missing(Exception):
    """There is no certificate that could be read; the text says why."""


def path(settings: Settings, state_dir: Path) -> Path:
    """The file with the certificate and its chain."""
    if settings['tls.mode'] == 'file':
        return Path(str(settings['tls.cert_file']))
    directory = Path(state_dir) / DIRECTORY
    if settings['tls.mode'] == 'acme' and acme.held(directory) is not None:
        return acme.files(directory).certificate
    return self_signed.files(directory).certificate


def describe(settings: Settings, state_dir: Path) -> dict[str, Any]:
    """Issuer, names and times (Unix) of the relay's own certificate.  Raises Missing."""
    file = path(settings, state_dir)
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise Missing(f'{file}: {error.strerror}') from None
    except ValueError:
        raise Missing(f'{file}: not a PEM certificate') from None
    return {
        'tls_management': settings['tls.mode'],
        'cert_path': str(file),
        'cert_type': 'self-signed' if certificate.issuer == certificate.subject else 'issued',
        'issuer': certificate.issuer.rfc4514_string(),
        'subject': certificate.subject.rfc4514_string(),
        'sans': _names(certificate),
        'not_before': _unix(certificate, 'not_valid_before'),
        'not_after': _unix(certificate, 'not_valid_after'),
        'sha256': certificate.fingerprint(hashes.SHA256()).hex(),
    }


def verifiable(settings: Settings, state_dir: Path) -> bool:
    """Whether others can verify it: issued by somebody, for the domain, which is a name, and not
    ended."""
    domain = str(settings['domain'])
    if settings['tls.mode'] == 'self_signed' or ip_literal(domain) is not None:
        return False
    if settings['tls.mode'] == 'acme' and settings['tls.acme_directory'] == 'staging':
        return False  # nobody trusts that one
    try:
        found = describe(settings, state_dir)
    except Missing:
        return False
    name = domain.encode('idna').decode('ascii').lower()
    wanted = {name, f'*.{name.partition(".")[2]}'}
    return (
        found['cert_type'] == 'issued'
        and found['not_after'] > time.time()
        and not wanted.isdisjoint(one.lower() for one in found['sans'])
    )


def life(settings: Settings, state_dir: Path) -> tuple[int, int]:
    """When it begins and ends, Unix time; zeros if that cannot be told."""
    try:
        found = describe(settings, state_dir)
    except Missing:
        return 0, 0
    return found['not_before'], found['not_after']


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found]


def _unix(certificate: x509.Certificate, name: str) -> int:
    moment: datetime = getattr(certificate, f'{name}_utc')
    return int(moment.timestamp())
