"""Exchangers in the control database: relays with which mail is exchanged in other ways.

A row is the operator's part (see `delivery.exchanger` for what it means) and
what became of it: the last poll, the last error, counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Exchanger(NamedTuple):
    name: str
    url: str  # '' = it cannot be reached
    enabled: bool
    polls: bool  # whether we fetch mail there
    poll_interval: int  # seconds
    protocol: str  # what we speak when we fetch: 'a' or 'b'
    token: str  # with which we fetch; '' = none
    fetches: tuple[str, ...]  # domains whose mail we fetch; () = ours, '*' = whatever it has
    domains: tuple[str, ...]  # domains whose mail goes by it, as `federation.key` spells them
    mode: str  # how: 'push', 'pull' or 'both'
    carries: bool  # whether mail for `domains` is taken from everybody
    pull_key: bytes  # SHA-256 of the token with which it fetches; b'' = it may not
    verify: bool | None  # its certificate; None = as for any host
    created: int = 0  # Unix time
    updated: int = 0
    last_poll_at: int = 0  # 0 = never
    last_success_at: int = 0
    last_error: str = ''
    failures: int = 0  # polls that failed since the last one that did not
    pulled_total: int = 0  # messages that were taken
    refused_total: int = 0  # messages that can never be
    last_given_at: int = 0
    given_total: int = 0  # messages it has fetched and acknowledged


class Polled(NamedTuple):
    """What a poller has to say of an exchanger."""

    last_poll_at: int
    last_success_at: int
    last_error: str
    failures: int
    pulled: int  # since it was last said
    refused: int


class _Execute(Protocol):
    def __call__(self, sql: str, parameters: Sequence[object] = ..., /) -> sqlite3.Cursor: ...


_NAMES = ', '.join(Exchanger._fields)
_GIVEN = Exchanger._fields[: Exchanger._fields.index('last_poll_at')]


def _exchanger(row: tuple[object, ...]) -> Exchanger:
    one = Exchanger._make(row)
    return one._replace(
        enabled=bool(one.enabled),
        polls=bool(one.polls),
        fetches=tuple(str(one.fetches).split()),
        domains=tuple(str(one.domains).split()),
        carries=bool(one.carries),
        verify=None if one.verify is None else bool(one.verify),
    )


class Exchangers:
    """The part of the control database that knows exchangers."""

    _execute: _Execute

    def exchangers(self) -> list[Exchanger]:
        """In order of name."""
        rows = self._execute(f'SELECT {_NAMES} FROM exchangers ORDER BY name')
        return [_exchanger(row) for row in rows.fetchall()]

    def exchanger(self, name: str) -> Exchanger | None:
        row = self._execute(f'SELECT {_NAMES} FROM exchangers WHERE name = ?', (name,)).fetchone()
        return None if row is None else _exchanger(row)

    def set_exchanger(self, one: Exchanger) -> None:
        """New, or its configuration in place of the one there is; what became of it stays."""
        row = one._replace(
            fetches=' '.join(one.fetches),  # type: ignore[arg-type]
            domains=' '.join(one.domains),  # type: ignore[arg-type]
        )[: len(_GIVEN)]
        changes = ', '.join(f'{name} = excluded.{name}' for name in _GIVEN[1:] if name != 'created')
        self._execute(
            f'INSERT INTO exchangers ({", ".join(_GIVEN)})'
            f' VALUES ({", ".join("?" * len(_GIVEN))}) ON CONFLICT DO UPDATE SET {changes}',
            row,
        )

    def remove_exchanger(self, name: str) -> bool:
        return self._execute('DELETE FROM exchangers WHERE name = ?', (name,)).rowcount > 0

    def exchanger_polled(self, name: str, polled: Polled) -> None:
        """Write what became of polls; ignored when the exchanger is gone."""
        self._execute(
            'UPDATE exchangers SET last_poll_at = ?, last_success_at = ?, last_error = ?,'
            ' failures = ?, pulled_total = pulled_total + ?, refused_total = refused_total + ?'
            ' WHERE name = ?',
            (*polled, name),
        )

    def exchanger_given(self, name: str, count: int, now: int) -> None:
        """Count messages that it has fetched."""
        self._execute(
            'UPDATE exchangers SET given_total = given_total + ?, last_given_at = ? WHERE name = ?',
            (count, now, name),
        )
