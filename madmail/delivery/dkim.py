"""The keys this relay signs with, `<state_dir>/dkim/`, and their rotation.

    keys.json                 {"version": 1, "keys": [{"selector", "state", "since", "records"}]}
    <selector>.pem            RSA-2048 private key, PKCS#8, mode 0600
    <selector>-ed25519.pem    the second key where `dkim.ed25519` is on

One key is `active`.  A rotation makes one that is `next`, to be published in
the DNS beside it; when it is activated, the old one becomes `retired`: its
private key is gone, and its record should stay for a week, because mail under
way still refers to it.  `since` is a day in Unix seconds, `records` has the TXT
records by their selectors.  A PEM file that is there when the first key is made
is taken instead, so a relay can keep the key that its domain has published.

Every process that signs has its own `Keys`; it sees a change at the next
message, because it looks at the date of keys.json each time.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import gevent
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from madmail.account.address import ip_literal, is_local
from madmail.message import addresses, dkim_key, header
from madmail.message.canonicalization import BodyHash
from madmail.message.dkim import Signer
from madmail.message.dkim_key import PrivateKey
from madmail.settings import Settings
from madmail.store.interface import Body

DIRECTORY = 'dkim'
INDEX = 'keys.json'
VERSION = 1
BITS = 2048
DAY = 86400
RETIRED_TIME = 7 * DAY  # seconds the record of a retired key should stay published
ED25519 = '-ed25519'  # behind a selector: that of its second key
WINDOW = 128 * 1024  # octets of a body hashed at once, 0.2 ms

ACTIVE, NEXT, RETIRED = 'active', 'next', 'retired'


class Damaged(Exception):
    """The directory is not as this program left it; the text is for the operator."""


class Refused(Exception):
    """A change that does not fit the state of the keys; the text is for the operator."""


@dataclass
class Known:
    """A key as the index has it."""

    selector: str
    state: str
    since: int  # Unix seconds, a whole day
    records: dict[str, str] = field(default_factory=dict)  # selector → TXT record


class Keys:
    """The signing keys of one relay; `domain` as `mail_domain` spells it.

    Methods raise Damaged, and OSError where a file cannot be read or written.
    """

    def __init__(self, state_dir: Path, domain: str, settings: Settings) -> None:
        self.domain = domain
        self.directory = state_dir / DIRECTORY
        self._settings = settings
        self._stamp: object = None
        self._known: list[Known] = []
        self._signers: list[Signer] = []

    @property
    def needed(self) -> bool:
        """A relay on an IP address has nowhere to publish a key and signs nothing."""
        return ip_literal(self.domain) is None

    # -- signing

    def sign(self, body: Body) -> bytes:
        """The fields to put before a message that leaves; b'' on an IP address.

        Nor is anything signed that only passes here: a signature of another domain
        than that of From says nothing.
        Reads the message in windows and lets others run in between.
        """
        if not self.needed:
            return b''
        self.refresh()
        start = body.read(0, header.BLOCK_LIMIT + WINDOW)
        end = header.end_of_block(bytearray(start), 0) or len(start)
        if not self._ours(start[:end]):
            return b''
        digest = BodyHash()
        digest.feed(start[end:])
        offset = len(start)
        while offset < body.size:
            gevent.sleep(0)
            piece = body.read(offset, WINDOW)
            if not piece:
                raise OSError('a message is shorter than it was')
            digest.feed(piece)
            offset += len(piece)
        block, body_hash = start[:end], digest.digest()
        return b''.join([signer.sign(block, body_hash) for signer in self._signers])

    def _ours(self, block: bytes) -> bool:
        """Whether a header names no other domain as the author's.  PERF: 25 us."""
        for one in header.parse_loosely(block):
            if one.name == b'from':
                author = addresses.sole(one.value)
                return author is None or is_local(author.address.rpartition('@')[2], self.domain)
        return True

    def refresh(self) -> None:
        """Take notice of what another process has changed; makes what is missing."""
        if not self.needed:
            return
        stamp = self._stamp_now()
        if stamp is not None and stamp == self._stamp:
            return
        with self._changing() as known:
            self._complete(known)
            active = next(one for one in known if one.state == ACTIVE)
            # While nobody can take the file away.
            self._signers = [
                Signer(self.domain, name, self._private(name))
                for name in self._names(active.selector)
            ]
        self._known = known
        self._stamp = stamp  # from before: a change meanwhile is found the next time

    # -- what there is, and changes

    def known(self) -> list[Known]:
        """All keys, the oldest first."""
        self.refresh()
        return list(self._known)

    def records(self, one: Known) -> list[tuple[str, str]]:
        """(DNS name, text) of the TXT records of a key."""
        return [
            (f'{name}._domainkey.{self.domain}', one.records[name])
            for name in self._names(one.selector)
            if name in one.records
        ]

    def published(self, now: float | None = None) -> list[Known]:
        """The keys whose records belong into the DNS: active, next, and not long retired."""
        oldest = (time.time() if now is None else now) - RETIRED_TIME - DAY
        return [one for one in self.known() if one.state != RETIRED or one.since > oldest]

    def rotate(self) -> Known:
        """Make the key that is next.  Raises Refused."""
        self.refresh()
        with self._changing() as known:
            if any(one.state == NEXT for one in known):
                raise Refused('there is a next key already; publish and activate that one')
            base = self._settings['dkim.selector']
            used = {one.selector for one in known}
            selector, number = base, 1
            while selector in used:
                number += 1
                selector = f'{base}{number}'
            one = Known(selector, NEXT, _today())
            known.append(one)
            self._complete(known)
        self._stamp = None
        return one

    def activate(self) -> Known:
        """Sign with the next key from now on.  Raises Refused."""
        self.refresh()
        with self._changing() as known:
            fresh = next((one for one in known if one.state == NEXT), None)
            if fresh is None:
                raise Refused('there is no next key; "madmail dkim rotate" makes one')
            for one in known:
                if one.state == ACTIVE:
                    one.state, one.since = RETIRED, _today()
            fresh.state, fresh.since = ACTIVE, _today()
        self._stamp = None
        for one in known:
            if one.state == RETIRED:
                for name in one.records:
                    self._file(name).unlink(missing_ok=True)
        return fresh

    # -- inside

    def _names(self, selector: str) -> list[str]:
        return [selector, selector + ED25519] if self._settings['dkim.ed25519'] else [selector]

    def _complete(self, known: list[Known]) -> None:
        """Make the keys that should be there and are not."""
        if not known:
            known.append(Known(self._settings['dkim.selector'], ACTIVE, _today()))
        for one in known:
            if one.state != RETIRED:
                for name in self._names(one.selector):
                    if name not in one.records:
                        one.records[name] = dkim_key.record(self._make(name))

    def _make(self, name: str) -> PrivateKey:
        key: PrivateKey
        if self._file(name).exists():
            key = self._private(name, foreign=True)
            self._file(name).chmod(0o600)
            return key
        if name.endswith(ED25519):
            key = ed25519.Ed25519PrivateKey.generate()
        else:
            key = rsa.generate_private_key(65537, BITS)
        _write(
            self._file(name),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )
        return key

    def _private(self, name: str, *, foreign: bool = False) -> PrivateKey:
        path = self._file(name)
        try:
            # PERF: the mathematical check of an RSA key takes 40 ms; ours had it when it was made.
            key = load_pem_private_key(
                path.read_bytes(), None, unsafe_skip_rsa_key_validation=not foreign
            )
        except FileNotFoundError:
            raise Damaged(f'{path} is missing') from None
        except (ValueError, TypeError):
            raise Damaged(f'{path} is no private key') from None
        if not isinstance(key, (rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
            raise Damaged(f'{path} is neither an RSA nor an Ed25519 key')
        return key

    def _file(self, name: str) -> Path:
        return self.directory / f'{name}.pem'

    def _stamp_now(self) -> object:
        try:
            status = os.stat(self.directory / INDEX)
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino, self._settings['dkim.ed25519']

    @contextmanager
    def _changing(self) -> Iterator[list[Known]]:
        """The keys, alone; written back when they were changed."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = self._read()
            known = self._read()
            yield known
            if known != before:
                index = {'version': VERSION, 'keys': [asdict(one) for one in known]}
                _write(self.directory / INDEX, json.dumps(index, indent=1).encode() + b'\n')
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _read(self) -> list[Known]:
        path = self.directory / INDEX
        try:
            index = json.loads(path.read_bytes())
            if index['version'] != VERSION:
                raise Damaged(f'{path} is of another version of madmail')
            known = [Known(**one) for one in index['keys']]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError):
            raise Damaged(f'{path} is damaged') from None
        if [one.state for one in known].count(ACTIVE) != 1:
            raise Damaged(f'{path} does not have one active key')
        return known


def _today() -> int:
    return int(time.time()) // DAY * DAY


def _write(path: Path, octets: bytes) -> None:
    """Whole or not at all, for us alone, on disk when this returns."""
    fresh = path.with_name(f'{path.name}.{os.getpid()}')
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, octets)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
