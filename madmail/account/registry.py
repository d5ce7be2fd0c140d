"""Logins: the check of a password, and the account that the first one makes.

A shard has one registry for the accounts it owns.  A password that was right
once is remembered as a keyed hash under a key that lives as long as the
process, so a client that reconnects costs microseconds; the slow check of a
weak password runs in a thread.  First logins of one address are one after
another: Delta Chat opens SMTP and IMAP at the same moment, one of them
creates the account and the other finds it.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from hashlib import blake2b
from hmac import compare_digest
from typing import Any, NamedTuple, Protocol

from gevent.lock import RLock

from madmail.account import admission, names, password
from madmail.account.address import split
from madmail.account.flood import Origin
from madmail.settings import Settings
from madmail.store.interface import Account, StoreFull

DAY = 86400
REMEMBERED = 100_000  # right passwords, about 200 octets each
CHECKS_LIMIT = 500  # slow checks waiting for a thread: about 3 s; who comes then may try again
Offload = Callable[..., Any]


class Blocked(Protocol):
    """The blocklist, as far as a registry asks it."""

    def __contains__(self, address: object) -> bool: ...


class Gatekeeper(Protocol):
    """Says whether an account may be made now; see `admission.Admission`."""

    def enter(self, origin: Origin) -> str: ...
    def leave(self) -> None: ...


class AccountStore(Protocol):
    """The part of a Store that a registry uses."""

    def account(self, address: str) -> Account | None: ...
    def create_account(self, address: str, password: str, day: int) -> Account | None: ...
    def record_login(self, account_id: int, day: int) -> None: ...
    def replace_password(self, account_id: int, old: str, new: str) -> bool: ...


class Verdict(Enum):
    WELCOME = '+'
    CREATED = '*'
    DENIED = '-'
    TROUBLE = '!'
    FULL = '~'


class Made(Enum):
    """What came of making an account."""

    CREATED = 'created'
    NAME = 'name'  # forbidden or blocked
    PASSWORD = 'password'
    EXISTS = 'exists'
    LATER = 'later'  # too many accounts, or too fast
    SHORT = 'short'  # the host is short of disk, memory or processor
    FULL = 'full'


class Login(NamedTuple):
    verdict: Verdict
    account: Account | None = None


def today(now: float | None = None) -> int:
    """The Unix time of the last midnight UTC: the finest time kept of a login."""
    return int(time.time() if now is None else now) // DAY * DAY


class Accounts:
    """The logins of one shard."""

    def __init__(
        self,
        store: AccountStore,
        settings: Settings,
        secret: bytes,
        blocked: Blocked,
        offload: Offload,
        gatekeeper: Gatekeeper | None = None,
    ) -> None:
        """Without a `gatekeeper` there is no limit to accounts made."""
        self._gatekeeper = gatekeeper
        self._store = store
        self._settings = settings
        self._secret = secret
        self._blocked = blocked
        self._offload = offload
        self._key = os.urandom(32)
        self._right: OrderedDict[str, tuple[bytes, str]] = OrderedDict()
        self._checks = 0  # slow ones under way
        self._locks: dict[str, tuple[RLock, int]] = {}

    def login(self, address: str, given: bytes, origin: Origin = ()) -> Login:
        """Check or create canonical `address`; may block the greenlet, never the loop.

        `origin` is where the client is, see `flood.origin`.
        """
        if address in self._blocked or not given or len(given) > password.PASSWORD_LIMIT:
            return Login(Verdict.DENIED)
        account = self._store.account(address)
        if account is not None:
            return self._check(account, given)
        with self._one_at_a_time(address):
            account = self._store.account(address)
            if account is not None:
                return self._check(account, given)
            return self._first_login(address, given, origin)

    def register(self, address: str, given: bytes, origin: Origin) -> Made:
        """Make an account for a stranger who was found entitled to one."""
        with self._one_at_a_time(address):
            return self._create(address, given, origin)[0]

    def forget(self, address: str) -> None:
        """The password changed or the account is gone."""
        self._right.pop(address, None)

    def encode(self, given: bytes) -> str:
        """A verifier for a new password, made in a thread when that takes long."""
        if password.strong(given):
            return password.encode(given, self._secret)
        made: str = self._offload(password.encode, given, self._secret)
        return made

    def portable(self, verifier: str) -> str:
        """A verifier of ours as another relay can check it."""
        return password.portable(verifier, self._secret)

    def acceptable(self, given: bytes) -> bool:
        """Whether a new account may have this password."""
        shortest = self._settings['accounts.password_min_length']
        return bool(shortest <= len(given) <= password.PASSWORD_LIMIT)

    def _check(self, account: Account, given: bytes) -> Login:
        # PERF: 1.5 µs for a known password, against 3 µs (hmac) and 10 ms (scrypt).
        mark = blake2b(given, key=self._key, digest_size=16).digest()
        known = self._right.get(account.address)
        # Only while the verifier is the same; a wrong password is slow again.
        if known is not None and known[1] == account.password and compare_digest(known[0], mark):
            return self._welcome(account)
        if password.slow(account.password):
            if self._checks >= CHECKS_LIMIT:
                return Login(Verdict.TROUBLE)
            self._checks += 1
            try:
                right = self._offload(password.verify, given, account.password, self._secret)
            finally:
                self._checks -= 1
        else:
            right = password.verify(given, account.password, self._secret)
        if not right:
            return Login(Verdict.DENIED)
        if password.better(given, account.password):
            account = self._improve(account, given)
        # All that took its time, in which the account may have been changed or ended.
        current = self._store.account(account.address)
        if current is None or current.address in self._blocked:
            return Login(Verdict.DENIED)
        if current.password != account.password:
            return self._check(current, given)
        self._remember(current, mark)
        return self._welcome(current)

    def _improve(self, account: Account, given: bytes) -> Account:
        """A verifier of our own in place of one from elsewhere.

        Only in its place: the password may be changed, or the account deleted, meanwhile.
        """
        verifier = self.encode(given)
        try:
            if self._store.replace_password(account.id, account.password, verifier):
                return account._replace(password=verifier)
        except StoreFull:
            pass  # the next login tries again
        return account

    def _first_login(self, address: str, given: bytes, origin: Origin) -> Login:
        if not admission.by_login(self._settings):
            return Login(Verdict.DENIED)
        made, account = self._create(address, given, origin)
        if made is Made.EXISTS:  # made by an administrator in the meantime
            existing = self._store.account(address)
            return self._check(existing, given) if existing else Login(Verdict.TROUBLE)
        if made in (Made.NAME, Made.PASSWORD):
            return Login(Verdict.DENIED)
        if account is None:
            return Login(Verdict.TROUBLE)
        self._remember(account, blake2b(given, key=self._key, digest_size=16).digest())
        self._store.record_login(account.id, today())
        return Login(Verdict.CREATED, account)

    def _create(self, address: str, given: bytes, origin: Origin) -> tuple[Made, Account | None]:
        local, _ = split(address)
        if address in self._blocked or not names.creatable(local, self._settings):
            return Made.NAME, None
        if not self.acceptable(given):
            return Made.PASSWORD, None
        if self._store.account(address) is not None:
            return Made.EXISTS, None
        if self._gatekeeper is not None:
            reason = self._gatekeeper.enter(origin)
            if reason:
                later = reason in ('accounts', 'flood')
                return Made.LATER if later else Made.SHORT, None
        try:
            account = self._store.create_account(address, self.encode(given), today())
        except StoreFull:
            return Made.FULL, None
        finally:
            if self._gatekeeper is not None:
                self._gatekeeper.leave()
        return (Made.EXISTS, None) if account is None else (Made.CREATED, account)

    def _welcome(self, account: Account) -> Login:
        day = today()
        if account.last_login_day != day:
            self._store.record_login(account.id, day)
        return Login(Verdict.WELCOME, account)

    def _remember(self, account: Account, mark: bytes) -> None:
        self._right[account.address] = (mark, account.password)
        if len(self._right) > REMEMBERED:
            self._right.popitem(last=False)

    @contextmanager
    def _one_at_a_time(self, address: str) -> Iterator[None]:
        lock, waiting = self._locks.get(address) or (RLock(), 0)
        self._locks[address] = (lock, waiting + 1)
        try:
            with lock:
                yield
        finally:
            lock, waiting = self._locks[address]
            if waiting == 1:
                del self._locks[address]
            else:
                self._locks[address] = (lock, waiting - 1)
