"""An authority of our own, so that certificates can be right and wrong."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from madmail.tls import acme

DAY = datetime.timedelta(days=1)


class Pair(NamedTuple):
    """Files of a certificate and its key, PEM."""

    certificate: Path
    key: Path


class Authority:
    """Its own certificate is `root`, PEM."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject('Test Authority')
        self._number = 0
        certificate = (
            _builder(self._name, self._name, self._key.public_key(), 0, 30)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False),
                critical=True,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        self.root = directory / 'root.pem'
        self.root.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, *names: str, begins: int = -1, days: int = 30, signed: bool = True) -> Pair:
        """For DNS names or IP addresses; without `signed` by itself."""
        self._number += 1
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(names[0])
        issuer = self._name if signed else subject
        certificate = (
            _builder(subject, issuer, key.public_key(), begins, days)
            .add_extension(
                x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    (self._key if signed else key).public_key()
                ),
                critical=False,
            )
            .sign(self._key if signed else key, hashes.SHA256())
        )
        pair = Pair(
            self._directory / f'{self._number}.crt', self._directory / f'{self._number}.key'
        )
        pair.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return pair


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: int, days: int
) -> x509.CertificateBuilder:
    begin = datetime.datetime.now(datetime.UTC) + begins * DAY
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + days * DAY)
    )


def put(tmp_path: Path, name: str = 'chat.example') -> Path:
    """The directory where a certificate of an authority is in place."""
    directory = tmp_path / 'tls'
    directory.mkdir()
    pair = Authority(tmp_path).issue(name)
    key = load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    acme.put(directory, pair.certificate.read_bytes(), key, [name])
    return directory
