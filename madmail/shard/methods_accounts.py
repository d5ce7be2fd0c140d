"""The calls about accounts: list, make, change, delete, carry over from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from madmail.account import foreign, names
from madmail.account import password as verifiers
from madmail.account.address import split
from madmail.account.registry import Made, today
from madmail.shard.calls import CallRefused
from madmail.store.interface import Account

if TYPE_CHECKING:
    from madmail.shard.process import Shard

PAGE = 1000  # accounts in one answer
IMPORT_PAGE = 100  # accounts imported by one call, in one commit

_WORDS = {
    Made.NAME: 'name',
    Made.PASSWORD: 'password',
    Made.EXISTS: 'exists',
    Made.LATER: 'later',
    Made.SHORT: 'short',
    Made.FULL: 'full',
}


class AccountMethods:
    """Those of one shard."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.methods: dict[str, Callable[..., Any]] = {
            'account_list': self.account_list,
            'account_info': self.account_info,
            'account_bandwidth': self.account_bandwidth,
            'account_create': self.account_create,
            'account_register': self.account_register,
            'account_delete': self.account_delete,
            'account_expire': self.account_expire,
            'account_logins': self.account_logins,
            'account_password': self.account_password,
            'account_lock': self.account_lock,
            'account_dismiss': self.account_dismiss,
            'account_export': self.account_export,
            'account_import': self.account_import,
        }

    def account_list(self, after: str = '', limit: int = PAGE) -> list[dict[str, Any]]:
        """In order of address, behind `after`."""
        return [
            {
                'address': account.address,
                'created': account.created_day,
                'first_login': account.first_login_day,
                'last_login': account.last_login_day,
                'locked': account.password == verifiers.LOCKED,
            }
            for account in self._shard.store.accounts(after, min(limit, PAGE))
        ]

    def account_info(self, address: str) -> dict[str, Any]:
        account = self._account(address)
        boxes = self._shard.store.mailboxes(account.id)
        return {
            'address': account.address,
            'created': account.created_day,
            'first_login': account.first_login_day,
            'last_login': account.last_login_day,
            'locked': account.password == verifiers.LOCKED,
            'quota': self._shard.settings['limits.quota'] if account.quota < 0 else account.quota,
            'used': sum(box.size for box in boxes),
            'messages': sum(box.messages for box in boxes),
            'mailboxes': len(boxes),
            'sessions': self._shard.sessions.count(account.id),
            'blocked': address in self._shard.blocklist,
        }

    def account_bandwidth(self, address: str) -> list[dict[str, Any]]:
        """Octets by month, newest first; what is under way counts."""
        store = self._shard.store
        account = store.account(address)
        if account is None:
            raise CallRefused('missing')
        bandwidth = getattr(self._shard, 'bandwidth', None)
        if bandwidth is not None:  # not in a stopped relay
            bandwidth.write()
        return [
            {'month': month, 'received': received, 'sent': sent}
            for month, received, sent in store.bandwidth(account.id)
        ]

    def account_create(self, address: str, password: bytes) -> dict[str, Any]:
        """The operator makes an account: only the rules of names and passwords count."""
        accounts = self._shard.accounts
        local, _ = split(address)
        if not names.creatable(local, self._shard.settings):
            raise CallRefused('name')
        if not accounts.acceptable(password):
            raise CallRefused('password')
        if self._shard.store.account(address) is not None:
            raise CallRefused('exists')
        verifier = accounts.encode(password)
        if self._shard.store.create_account(address, verifier, today()) is None:
            raise CallRefused('exists')
        return {'address': address}

    def account_register(
        self, address: str, password: bytes, origin: Sequence[int]
    ) -> dict[str, Any]:
        """A stranger gets an account, if the relay has room: `later` or `short` if not now."""
        made = self._shard.accounts.register(address, password, tuple(origin))
        if made is not Made.CREATED:
            raise CallRefused(_WORDS[made])
        return {'address': address}

    def account_delete(self, address: str) -> dict[str, Any]:
        account = self._account(address)
        self._shard.turn.ended(account.id, address)
        self._shard.store.delete_account(account.id)
        self._shard.accounts.forget(address)
        return {'address': address}

    def account_expire(self, address: str) -> bool:
        """Delete an account that nobody has ever logged in to; whether it was so."""
        account = self._shard.store.account(address)
        if account is None or account.last_login_day or self._shard.sessions.count(account.id):
            return False
        gone = self._shard.store.delete_account(account.id, unused_only=True)
        if gone:
            self._shard.accounts.forget(address)
        return gone

    def account_logins(self, addresses: Sequence[str]) -> list[int | None]:
        """The first login of each: Unix time, 0 never, None no such account."""
        found = [self._shard.store.account(address) for address in addresses[:PAGE]]
        return [None if account is None else account.first_login_day for account in found]

    def account_password(self, address: str, password: bytes) -> dict[str, Any]:
        account = self._account(address)
        if not self._shard.accounts.acceptable(password):
            raise CallRefused('password')
        self._shard.store.set_password(account.id, self._shard.accounts.encode(password))
        self._shard.accounts.forget(address)
        self._shard.sessions.dismiss(account.id)  # who has the old password must show the new
        return {'address': address}

    def account_lock(self, address: str) -> dict[str, Any]:
        """Nobody can log in any more, until there is a new password; the mail stays."""
        account = self._account(address)
        self._shard.store.set_password(account.id, verifiers.LOCKED)
        self._shard.accounts.forget(address)
        self._shard.sessions.dismiss(account.id)
        self._shard.turn.ended(account.id, address)
        return {'address': address}

    def account_dismiss(self, address: str) -> dict[str, Any]:
        """End the sessions of an account, because it was banned."""
        self._shard.reload_blocklist()
        account = self._shard.store.account(address)
        if account is not None:
            self._shard.sessions.dismiss(account.id)
            if address in self._shard.blocklist:
                self._shard.turn.ended(account.id, address)  # also what was told until just now
        return {'address': address}

    def account_export(self, after: str = '', limit: int = PAGE) -> list[list[str]]:
        """Address and verifier ('' = locked), in order of address, behind `after`."""
        portable = self._shard.accounts.portable
        locked = verifiers.LOCKED
        return [
            [account.address, '' if account.password == locked else portable(account.password)]
            for account in self._shard.store.accounts(after, min(limit, PAGE))
        ]

    def account_import(self, entries: Sequence[Sequence[Any]]) -> list[str]:
        """Accounts from elsewhere: [address, verifier, password], one of the last two empty.

        For each '' (made), or the word of why not: `exists`, `name`, `password`,
        or `hash: …`.
        """
        accounts, store = self._shard.accounts, self._shard.store
        words: list[str] = []
        fresh: list[tuple[str, str]] = []
        for address, verifier, given in entries[:IMPORT_PAGE]:
            word = ''
            if not names.creatable(split(address)[0], self._shard.settings):
                word = 'name'
            elif store.account(address) is not None:
                word = 'exists'
            elif not verifier and not accounts.acceptable(given):
                word = 'password'
            else:
                try:
                    kept = verifiers.importable(verifier) if verifier else accounts.encode(given)
                    fresh.append((address, kept))
                except foreign.Unusable as error:
                    word = f'hash: {error}'
            words.append(word)
        made = iter(store.create_accounts(fresh, today()) if fresh else ())
        return [word or ('' if next(made) else 'exists') for word in words]

    def _account(self, address: str) -> Account:
        account = self._shard.store.account(address)
        if account is None:
            raise CallRefused('missing')
        return account
