"""The user names that one shard gave, whose they were, and those that ended before their time.

A name says nothing of whose it is, so it is remembered, to add what was carried under it to
its account and to end it with the account.  After a restart names are known again when
clients ask anew; until then an account that is blocked or deleted has at least those ended
that it would be given first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from madmail.realtime.turn.credentials import expiry

LIMIT = 100_000  # remembered, of either kind
TRIES = 1000  # names looked at until one is free


class Names:
    """In memory alone."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}  # → account id
        self._of: dict[int, list[str]] = {}  # the same by account
        self._ended: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._given)

    def whose(self, name: str) -> int | None:
        """The id of its account."""
        return self._given.get(name)

    def choose(self, account_id: int, names: Iterator[str], now: float) -> str:
        """The first of `names` that is nobody else's and has not ended, and remember it."""
        first = ''
        for name in islice(names, TRIES):
            first = first or name
            if name not in self._ended and self._given.get(name, account_id) == account_id:
                break
        else:
            name = first
        if self._given.get(name) != account_id:
            if len(self._given) >= LIMIT:
                self._forget(now)
            self._given[name] = account_id
            self._of.setdefault(account_id, []).append(name)
        return name

    def end(self, account_id: int | None, likely: Iterable[str], now: float) -> list[str]:
        """Those of the account, and of `likely` ones what is nobody else's: none of them counts."""
        names: dict[str, None] = {}
        if account_id is not None:
            ours = self._of.pop(account_id, ())
            names = dict.fromkeys(name for name in ours if self._given.get(name) == account_id)
        for name in names:
            del self._given[name]
        names.update(dict.fromkeys(name for name in likely if name not in self._given))
        fresh = [name for name in names if name not in self._ended and _lasts(name, now)]
        self._ended.update(dict.fromkeys(fresh))
        if len(self._ended) > LIMIT:
            self._ended = dict.fromkeys(name for name in self._ended if _lasts(name, now))
            for name in list(islice(self._ended, max(len(self._ended) - LIMIT, 0))):
                del self._ended[name]
        return fresh

    def ended(self, now: float) -> list[str]:
        """All that ended before their time and have some left."""
        return [name for name in self._ended if _lasts(name, now)]

    def _forget(self, now: float) -> None:
        """Make room: for those whose time is over, and a tenth of the others, the oldest."""
        kept = [(name, one) for name, one in self._given.items() if _lasts(name, now)]
        kept = kept[-(LIMIT - LIMIT // 10) :]
        self._given = dict(kept)
        self._of = {}
        for name, one in kept:
            self._of.setdefault(one, []).append(name)


def _lasts(name: str, now: float) -> bool:
    return (expiry(name) or 0) >= now
