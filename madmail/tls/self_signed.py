"""The certificate that the relay makes for itself.

Layout: `<state_dir>/tls/self-signed.key` (P-256, PKCS #8, PEM) and
`self-signed.crt` (PEM), both mode 0600, and `lock`, held while either is made.

Delta Chat goes on accepting a certificate whose public key it has seen before,
so the key is made once and kept: renewal and a change of the domain only sign
a new certificate.  800 days is the longest that every TLS client accepts
even for a certificate its user trusts by hand (some stop at 825).
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from madmail.account.address import ip_literal
from madmail.tls.files import Files, give_to_owner, make_directory, tidy, write

LIFETIME = datetime.timedelta(days=800)
RENEWAL = datetime.timedelta(days=90)  # renewed when less is left
BACKDATED = datetime.timedelta(days=1)  # for clients whose clock is behind

KEY_FILE = 'self-signed.key'
CERTIFICATE_FILE = 'self-signed.crt'


class Unusable(Exception):
    """A key file is there but cannot be read; it is never overwritten."""


def names(domain: str, host: str = '') -> list[x509.GeneralName]:
    """What the certificate is for: the settings `domain` and `relay.hostname`, the `host` that
    clients connect to where that is another one, and for a local relay this machine.

    Raises ValueError when a name can stand in no certificate.
    """
    found = [_name(domain)]
    if host and _name(host) not in found:
        found.append(_name(host))
    ip = ip_literal(domain)
    if domain == 'localhost' or domain.endswith('.localhost') or (ip and ip.is_loopback):
        for name in (
            x509.DNSName('localhost'),
            x509.IPAddress(ipaddress.IPv4Address('127.0.0.1')),
            x509.IPAddress(ipaddress.IPv6Address('::1')),
        ):
            if name not in found:
                found.append(name)
    return found


def _name(text: str) -> x509.GeneralName:
    ip = ip_literal(text)
    if ip is not None:
        return x509.IPAddress(ip)
    return x509.DNSName(text.encode('idna').decode('ascii').lower())


def files(directory: Path) -> Files:
    """Where the two files are, whether or not they exist."""
    return Files(directory / CERTIFICATE_FILE, directory / KEY_FILE)


def due(
    directory: Path, domain: str, now: datetime.datetime | None = None, *, host: str = ''
) -> bool:
    """Whether `ensure` would sign: no certificate, near its end, other names, other key."""
    found = files(directory)
    if not found.key.exists():
        return True
    return _due(found, names(domain, host), now or datetime.datetime.now(datetime.UTC), None)


def ensure(
    directory: Path, domain: str, now: datetime.datetime | None = None, *, host: str = ''
) -> Files:
    """The files, made or renewed as needed.  Writes to disk; raises OSError and Unusable.

    Safe to call from several processes at once.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    make_directory(directory)
    found = files(directory)
    lock = os.open(directory / 'lock', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        give_to_owner(directory / 'lock', directory)
        tidy(directory, 'self-signed')
        if found.key.exists():
            key = _read_key(found.key)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            pem = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            write(found.key, pem)
        if _due(found, names(domain, host), now, key):
            certificate = sign(key, domain, now, host)
            write(found.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    finally:
        os.close(lock)
    return found


def sign(
    key: ec.EllipticCurvePrivateKey, domain: str, now: datetime.datetime, host: str = ''
) -> x509.Certificate:
    """A self-signed server certificate (RFC 5280) for `names(domain, host)`."""
    # RFC 5280 A.1: a common name has at most 64 characters; clients read only the SANs.
    common = domain if len(domain) <= 64 else 'mail relay'
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now - BACKDATED + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names(domain, host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise Unusable(f'{path.name} is not a private key in PEM; move it away') from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Unusable(f'{path.name} is not an elliptic-curve key; move it away')
    return key


def _due(
    found: Files,
    wanted: list[x509.GeneralName],
    now: datetime.datetime,
    key: ec.EllipticCurvePrivateKey | None,
) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(found.certificate.read_bytes())
        present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return True  # a certificate holds nothing that the key does not give again
    if certificate.not_valid_after_utc - now < RENEWAL or certificate.not_valid_before_utc > now:
        return True
    if list(present.value) != wanted:
        return True
    return key is not None and certificate.public_key() != key.public_key()
