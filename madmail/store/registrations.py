"""Registration tokens and their reservations, in the control database.

    registration_tokens  a token may be used `max_uses` times, until it expires
    reservations         uses taken and not yet final

Whoever wants an account takes a use for it first (`reserve`, one transaction, so
no two can take the last one) and makes the account then.  The use counts as
pending until somebody has logged in to the account, which makes it final
(`consume`), or until the reservation is overdue and is given back (`release`),
with the account removed before.  So there are never more accounts of a token
than it may make, and an account once used owes the token nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Token(NamedTuple):
    token: str
    max_uses: int
    used: int
    pending: int
    comment: str
    created: int  # Unix time
    expires: int  # Unix time; 0 = never

    @property
    def available(self) -> int:
        return max(self.max_uses - self.used - self.pending, 0)

    def status(self, now: int) -> str:
        """'active', 'exhausted' or 'expired'."""
        if self.expires and self.expires <= now:
            return 'expired'
        return 'active' if self.available else 'exhausted'


class Reservation(NamedTuple):
    id: int
    token: str
    address: str  # canonical, of the account
    until: int  # Unix time


class _Execute(Protocol):
    def __call__(self, sql: str, parameters: Sequence[object] = ..., /) -> sqlite3.Cursor: ...


_TOKENS = (
    'SELECT token, max_uses, used,'
    ' (SELECT count(*) FROM reservations WHERE reservations.token = registration_tokens.token),'
    ' comment, created, expires FROM registration_tokens'
)


class Registrations:
    """The part of the control database that knows tokens."""

    _connection: sqlite3.Connection
    _execute: _Execute

    def tokens(self) -> list[Token]:
        """Newest first."""
        rows = self._execute(f'{_TOKENS} ORDER BY created DESC, token')
        return [Token._make(row) for row in rows.fetchall()]

    def token(self, token: str) -> Token | None:
        row = self._execute(f'{_TOKENS} WHERE token = ?', (token,)).fetchone()
        return None if row is None else Token._make(row)

    def add_token(self, token: str, max_uses: int, comment: str, now: int, expires: int) -> bool:
        """False, and nothing changes, if there is such a token already."""
        return (
            self._execute(
                'INSERT INTO registration_tokens VALUES (?, ?, 0, ?, ?, ?) ON CONFLICT DO NOTHING',
                (token, max_uses, comment, now, expires),
            ).rowcount
            > 0
        )

    def change_token(self, token: str, max_uses: int, comment: str, expires: int) -> bool:
        """What was used stays used; False if there is no such token."""
        return (
            self._execute(
                'UPDATE registration_tokens SET max_uses = ?, comment = ?, expires = ?'
                ' WHERE token = ?',
                (max_uses, comment, expires, token),
            ).rowcount
            > 0
        )

    def remove_token(self, token: str) -> bool:
        """Accounts made with it stay, also those nobody has used yet; False if unknown."""
        with self._connection:
            self._execute('BEGIN IMMEDIATE')
            self._execute('DELETE FROM reservations WHERE token = ?', (token,))
            statement = 'DELETE FROM registration_tokens WHERE token = ?'
            return self._execute(statement, (token,)).rowcount > 0

    def reserve(self, token: str, address: str, now: int, until: int) -> int | str:
        """Take one use; its number, or why not: 'missing', 'expired', 'exhausted'."""
        with self._connection:
            self._execute('BEGIN IMMEDIATE')
            found = self.token(token)
            if found is None:
                return 'missing'
            status = found.status(now)
            if status != 'active':
                return status
            number = self._execute(
                'INSERT INTO reservations (token, address, until) VALUES (?, ?, ?)',
                (token, address, until),
            ).lastrowid
            assert number is not None
            return number

    def rename(self, number: int, address: str) -> bool:
        """Another name for the account; False if the reservation is not there any more."""
        statement = 'UPDATE reservations SET address = ? WHERE id = ?'
        return self._execute(statement, (address, number)).rowcount > 0

    def reservations(
        self, token: str = '', overdue: int = 0, after: int = 0, limit: int = 1000
    ) -> list[Reservation]:
        """In order of their numbers, behind `after`.

        Of one token, if it is given; with `overdue` only those that were due before it.
        """
        rows = self._execute(
            "SELECT id, token, address, until FROM reservations WHERE (? = '' OR token = ?)"
            ' AND (? = 0 OR until < ?) AND id > ? ORDER BY id LIMIT ?',
            (token, token, overdue, overdue, after, limit),
        )
        return [Reservation._make(row) for row in rows.fetchall()]

    def consume(self, numbers: Sequence[int]) -> None:
        """Somebody has logged in to the accounts: the uses are final."""
        with self._connection:
            self._execute('BEGIN IMMEDIATE')
            for number in numbers:
                row = self._execute(
                    'DELETE FROM reservations WHERE id = ? RETURNING token', (number,)
                ).fetchone()
                if row is not None:
                    self._execute(
                        'UPDATE registration_tokens SET used = used + 1 WHERE token = ?', row
                    )

    def release(self, number: int) -> None:
        """No account came of it, or it is gone again: the use is free."""
        self._execute('DELETE FROM reservations WHERE id = ?', (number,))
