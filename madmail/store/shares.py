"""Contact pages, in the control database; see `madmail.admin.shares`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Protocol

Row = tuple[str, str, str, int]  # slug, url ('' = the name is only reserved), name, created


class _Execute(Protocol):
    def __call__(self, sql: str, parameters: Sequence[object] = ..., /) -> sqlite3.Cursor: ...


class Shares:
    """The part of the control database that knows contact pages."""

    _execute: _Execute

    def shares(self) -> list[Row]:
        """In order of slug, reserved names included."""
        found: list[Row] = self._execute(
            'SELECT slug, url, name, created FROM shares ORDER BY slug'
        ).fetchall()
        return found

    def share_count(self) -> int:
        count: int = self._execute('SELECT count(*) FROM shares').fetchone()[0]
        return count

    def share(self, slug: str) -> Row | None:
        found: Row | None = self._execute(
            "SELECT slug, url, name, created FROM shares WHERE slug = ? AND url != ''", (slug,)
        ).fetchone()
        return found

    def add_share(self, slug: str, url: str, name: str, created: int, key: bytes) -> bool:
        """False if the name is taken, in whatever case."""
        done = self._execute(
            'INSERT INTO shares VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING',
            (slug, url, name, created, key),
        )
        return done.rowcount > 0

    def change_share(self, slug: str, url: str, name: str) -> bool:
        done = self._execute(
            'UPDATE shares SET url = ?, name = ? WHERE slug = ?', (url, name, slug)
        )
        return done.rowcount > 0

    def remove_share(self, slug: str, key: bytes | None) -> bool:
        """With a key only if it is the page's own."""
        done = self._execute(
            'DELETE FROM shares WHERE slug = ?1 AND (?2 IS NULL OR key = ?2)', (slug, key)
        )
        return done.rowcount > 0
