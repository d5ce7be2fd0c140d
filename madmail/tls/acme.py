"""The certificate that an authority issues to the relay by ACME (RFC 8555), and its files.

    <state_dir>/tls/acme.pem           the certificate, its chain, then the private key
                    acme-account.json  our accounts, one for each authority, with their keys
                    acme-state.json    the last try and what follows from it, see `State`
                    acme.lock          held while an order is under way
                    challenges/TOKEN   what port 80 answers the authority meanwhile

Chain and key are one file, so that they are replaced in one step and always fit: no
process ever sees the one without the other, whenever a machine loses its power.

The key stays from one certificate to the next.  Delta Chat goes on accepting a
certificate that has ended if it has seen its key in a valid one, and a published TLSA
record of the key stays right; `madmail certificate regenerate --new-key` is for a key
that others may know.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from madmail.tls.files import Files, give_to_owner, make_directory, write

PEM_FILE = 'acme.pem'
ACCOUNT_FILE = 'acme-account.json'
STATE_FILE = 'acme-state.json'
LOCK_FILE = 'acme.lock'

# What `tls.acme_directory` says in a word.
DIRECTORIES = {
    'letsencrypt': 'https://acme-v02.api.letsencrypt.org/directory',
    'staging': 'https://acme-staging-v02.api.letsencrypt.org/directory',
}
KEPT_TRIES = 20  # their times
ERROR_LIMIT = 600  # characters of an authority's words that are kept


class Busy(Exception):
    """Another order is under way."""


class Unfit(Exception):
    """What an authority sent cannot be used; the text says why."""


class Held(NamedTuple):
    """The certificate we have from an authority."""

    not_before: int  # Unix time
    not_after: int
    names: frozenset[str]
    digest: str  # SHA-256, hexadecimal


@dataclass
class State:
    """What is remembered of orders.  Times are Unix seconds, 0 = never.

    A try is written down as a failure when it begins, and again when it ends, so one that
    was interrupted counts as what it is.
    """

    began: int = 0  # the last try, trials included
    ended: int = 0  # 0 while it is under way, or if it was interrupted
    request: str = ''  # who asked for it
    word: str = ''  # what kind of failure it was, '' = none
    error: str = ''  # the same in a sentence
    failures: int = 0  # in a row
    next: int = 0  # no try before
    obtained: int = 0  # the last success
    source: str = ''  # URL of the directory it came from
    setup: str = ''  # a digest of the settings the failures are about
    renew_at: int = 0  # suggested by the authority (RFC 9773) …
    renew_for: str = ''  # … for the certificate with this digest
    ask_at: int = 0  # when to ask for that again
    tries: list[int] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)  # names besides the first, and when


def files(directory: Path) -> Files:
    """Where chain and key are, whether or not they exist."""
    return Files(directory / PEM_FILE, directory / PEM_FILE)


def held(directory: Path) -> Held | None:
    """What is to be known of `certificate`; None if there is none."""
    found = certificate(directory)
    if found is None:
        return None
    try:
        return Held(
            _unix(found.not_valid_before_utc),
            _unix(found.not_valid_after_utc),
            names_of(found),
            found.fingerprint(hashes.SHA256()).hex(),
        )
    except ValueError:
        return None


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Domain names and IP addresses it is for, in lower case."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(str(name.value).lower() for name in found)


def certificate(directory: Path) -> x509.Certificate | None:
    """The certificate in place; None if there is none that can be read."""
    try:
        return x509.load_pem_x509_certificate((directory / PEM_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def key(directory: Path) -> ec.EllipticCurvePrivateKey | None:
    """The key in use; None if there is none of the kind we make.

    Raises OSError for a file that is there and cannot be read: no other key must take its
    place for that.
    """
    try:
        pem = (directory / PEM_FILE).read_bytes()
        found = serialization.load_pem_private_key(pem[pem.rindex(b'-----BEGIN') :], None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return found if isinstance(found, ec.EllipticCurvePrivateKey) else None


def key_pem(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def put(
    directory: Path,
    chain: bytes,
    private: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    now: float | None = None,
) -> Held:
    """Put a certificate in place, if it is for this key, these names, and now.

    Raises Unfit, and OSError; what was there stays then.
    """
    checked(chain, private, names, time.time() if now is None else now)
    write(directory / PEM_FILE, chain.strip() + b'\n' + key_pem(private))
    found = held(directory)
    assert found is not None
    return found


def checked(
    chain: bytes, private: ec.EllipticCurvePrivateKey, names: Sequence[str], now: float
) -> x509.Certificate:
    """The first certificate of a chain that can be used.  Raises Unfit."""
    try:
        certificate = x509.load_pem_x509_certificates(chain)[0]
    except ValueError:
        raise Unfit('what the authority sent is no certificate') from None
    if certificate.public_key() != private.public_key():
        raise Unfit('the certificate is for another key')
    missing = {name.lower() for name in names} - names_of(certificate)
    if missing:
        raise Unfit(f'the certificate is not for {", ".join(sorted(missing))}')
    if _unix(certificate.not_valid_after_utc) <= now:
        raise Unfit('the certificate has ended already; is the clock right?')
    return certificate


# -- the state


def load(directory: Path) -> State:
    """What is remembered; nothing if it cannot be read."""
    try:
        kept = json.loads((directory / STATE_FILE).read_text())
        state = State()
        for one in fields(State):
            value = kept.get(one.name, getattr(state, one.name))
            if type(value) is not type(getattr(state, one.name)):
                return State()
            setattr(state, one.name, value)
        if not all(type(n) is int for n in (*state.tries, *state.refused.values())):
            return State()
    except (OSError, ValueError, AttributeError):
        return State()
    return state


def store(directory: Path, state: State) -> None:
    """Remember it; by who holds the lock."""
    state.tries = state.tries[-KEPT_TRIES:]
    state.error = readable(state.error)
    write(directory / STATE_FILE, json.dumps(asdict(state), indent=1).encode())


def readable(text: str) -> str:
    """One line of bounded length, from words that somebody else chose."""
    line = ' '.join(''.join(c if c.isprintable() else ' ' for c in text).split())
    return line if len(line) <= ERROR_LIMIT else f'{line[: ERROR_LIMIT - 1]}…'


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Nobody else orders meanwhile.  Raises Busy."""
    make_directory(directory)
    descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_to_owner(directory / LOCK_FILE, directory)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy from None
        yield
    finally:
        os.close(descriptor)


def _unix(moment: datetime) -> int:
    return int(moment.timestamp())
