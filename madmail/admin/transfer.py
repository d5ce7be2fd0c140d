"""Accounts carried to and from other relays: names and password hashes, no mail.

An export is a list of `{"username", "hash"}`, an import a list of
`{"username", "hash" or "password"}`.  Accounts that exist are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from madmail.account.placement import shard_of
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay

PAGE = 500
CHUNK = 100  # accounts of one call, see `shard.methods_accounts`
ERRORS_LIMIT = 1000  # that are told
ENTRIES_LIMIT = 1_000_000

_REASONS = {
    'name': 'the name is reserved, too short, too long or has forbidden characters',
    'password': 'the password is too short or too long',
}

Progress = Callable[[int, int], None]


def export(relay: Relay) -> Iterator[dict[str, str]]:
    """All accounts that can be logged in to, shard by shard."""
    for shard in range(relay.shards):
        after = ''
        while page := relay.call_shard(shard, 'account_export', after=after, limit=PAGE):
            for address, verifier in page:
                if verifier:
                    yield {'username': address, 'hash': verifier}
            after = page[-1][0]


def import_(
    relay: Relay, entries: object, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """`imported` and `skipped` in numbers, and `errors` where entries were wrong.

    Names that exist are skipped without an error.  Refused: invalid, when it is no list.
    """
    if isinstance(entries, dict):
        entries = entries.get('users')  # as the admin API exports
    if not isinstance(entries, list) or not entries:
        raise Refused('invalid', 'expected a list of accounts: [{"username", "hash"}]')
    if len(entries) > ENTRIES_LIMIT:
        raise Refused('invalid', f'more than {ENTRIES_LIMIT} accounts at once')
    intake = _Intake(relay, progress, len(entries))
    for number, entry in enumerate(entries, 1):
        intake.take(number, entry)
    intake.finish()
    answer: dict[str, Any] = {'imported': intake.imported, 'skipped': intake.skipped}
    if intake.errors:
        answer['errors'] = intake.errors
    return answer


class _Intake:
    """One import under way."""

    def __init__(self, relay: Relay, progress: Progress, total: int) -> None:
        self._relay = relay
        self._progress = progress
        self._total = total
        self._blocked = {one.address for one in relay.control.blocklist()}
        self._waiting: dict[int, list[list[Any]]] = {}
        self.imported = self.skipped = 0
        self.errors: list[str] = []

    def take(self, number: int, entry: object) -> None:
        if not isinstance(entry, dict):
            self._skip(f'entry {number}: not an object')
            return
        name, verifier, given = (entry.get(key) for key in ('username', 'hash', 'password'))
        if not isinstance(name, str) or not name.strip():
            self._skip(f'entry {number}: no username')
            return
        name = name.strip()
        if name.startswith('__') and name.endswith('__'):
            self._skip('')  # a settings row of another relay's database
            return
        try:
            address = self._relay.address(name)
        except Refused as refused:
            self._skip(f'entry {number}: {refused.text}')
            return
        if address in self._blocked:
            self._skip(f'{address}: on the blocklist')
        elif isinstance(verifier, str) and verifier.strip():
            self._add(address, verifier.strip(), b'')
        elif isinstance(given, str) and given:
            self._add(address, '', given.encode())
        else:
            self._skip(f'{address}: neither hash nor password')

    def finish(self) -> None:
        for shard in list(self._waiting):
            self._send(shard)
        self._progress(self._total, self._total)

    def _add(self, address: str, verifier: str, password: bytes) -> None:
        shard = shard_of(address, self._relay.shards)
        waiting = self._waiting.setdefault(shard, [])
        waiting.append([address, verifier, password])
        if len(waiting) >= CHUNK:
            self._send(shard)

    def _send(self, shard: int) -> None:
        entries = self._waiting.pop(shard)
        words: Sequence[str] = self._relay.call_shard(shard, 'account_import', entries=entries)
        for (address, *_), word in zip(entries, words, strict=True):
            if not word:
                self.imported += 1
            elif word == 'exists':
                self._skip('')
            else:
                reason = _REASONS.get(word) or word.removeprefix('hash: ')
                self._skip(f'{address}: {reason}')
        self._progress(self.imported + self.skipped, self._total)

    def _skip(self, error: str) -> None:
        self.skipped += 1
        if error and len(self.errors) < ERRORS_LIMIT:
            self.errors.append(error)
