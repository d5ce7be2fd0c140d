"""The rows of a database, out of one state of it and into a new one.

A member of rows is a msgpack map: `version` (of the schema), `table`, `columns`,
`rows`.  The first of a database has no table, so that an empty one is whole too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack

from madmail.backup.archive import Damaged
from madmail.store import schema

MEMBER = 1024 * 1024  # octets of rows in a member, about
ROW = 64  # octets a row is taken for beside its texts


class Source:
    """One state of a database that others go on changing."""

    def __init__(self, path: Path) -> None:
        """Raises sqlite3.Error.  The state is that of this moment."""
        self._connection = sqlite3.connect(
            path.as_uri() + '?mode=rw', uri=True, isolation_level=None
        )
        try:
            self._connection.execute('PRAGMA busy_timeout = 5000')
            self._connection.execute('PRAGMA query_only = 1')
            self._connection.execute('BEGIN')
            self.version = schema.version(self._connection)  # the read that begins it
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def blobs(self) -> Iterator[str]:
        """Names of the files that this state refers to."""
        rows = self._connection.execute('SELECT blob FROM bodies WHERE blob IS NOT NULL')
        return (row[0] for row in rows)

    def members(self, without: Collection[str] = ()) -> Iterator[bytes]:
        """All rows of all tables but `without`."""
        yield self._pack(None, (), ())
        found = self._connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
            " AND (name NOT LIKE 'sqlite_%' OR name = 'sqlite_sequence')"
        )
        for (table,) in found.fetchall():
            if table not in without:
                yield from self._rows(table)

    def _rows(self, table: str) -> Iterator[bytes]:
        cursor = self._connection.execute(f'SELECT * FROM "{table}"')
        columns = [column[0] for column in cursor.description]
        rows: list[Sequence[Any]] = []
        octets = 0
        for row in cursor:
            rows.append(row)
            octets += ROW + sum(len(value) for value in row if isinstance(value, (bytes, str)))
            if octets >= MEMBER:
                yield self._pack(table, columns, rows)
                rows, octets = [], 0
        if rows:
            yield self._pack(table, columns, rows)

    def _pack(
        self, table: str | None, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> bytes:
        packed: bytes = msgpack.packb(
            {'version': self.version, 'table': table, 'columns': columns, 'rows': rows}
        )
        return packed


class Target:
    """A new database that is filled with rows; without a `path` they are only looked at.

    `blobs` are the names of files that the rows refer to.
    """

    def __init__(self, path: Path | None, migrations: Sequence[schema.Migration]) -> None:
        self.connection = sqlite3.connect(path or ':memory:', isolation_level=None)
        self.blobs: set[str] = set()
        self._looking = path is None
        self._migrations = migrations
        self._version: int | None = None
        self._columns: dict[str, list[str]] = {}
        self.connection.execute('PRAGMA journal_mode = OFF')
        self.connection.execute('PRAGMA synchronous = OFF')

    def load(self, packed: bytes) -> None:
        """Take in one member.  Raises Damaged, NewerVersion."""
        try:
            member = msgpack.unpackb(packed)
            version, table = member['version'], member['table']
            columns, rows = member['columns'], member['rows']
            if self._version is None:
                self._begin(version)
            if version != self._version:
                raise Damaged('its rows do not fit together')
            if table is None:
                return
            known = self._columns.get(table)
            if known is None or columns != known:
                raise Damaged('it has rows of a table that there is not')
            if table == 'bodies':
                column = columns.index('blob')
                self.blobs.update(row[column] for row in rows if row[column] is not None)
            if any(len(row) != len(columns) for row in rows):
                raise Damaged('its rows do not fit together')
            if self._looking:
                return
            marks = ', '.join('?' * len(columns))
            self.connection.executemany(f'INSERT INTO "{table}" VALUES ({marks})', rows)
        except (ValueError, KeyError, TypeError, msgpack.UnpackException, sqlite3.Error) as error:
            raise Damaged(f'its rows cannot be read ({type(error).__name__})') from None

    def finish(self) -> None:
        """All rows are there: bring them to the newest schema.  Raises Damaged."""
        if self._version is None:
            raise Damaged('a database is missing')
        self.connection.commit()
        schema.migrate(self.connection, self._migrations)

    def close(self) -> None:
        self.connection.close()

    def _begin(self, version: Any) -> None:
        if type(version) is not int or version < 1:
            raise Damaged('its rows have no version')
        if version > len(self._migrations):
            raise schema.NewerVersion(version, len(self._migrations))
        schema.migrate(self.connection, self._migrations[:version])
        self._version = version
        self.connection.execute('BEGIN')
        found = self.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in found.fetchall():
            info = self.connection.execute(f'PRAGMA table_info("{table}")').fetchall()
            self._columns[table] = [row[1] for row in info]
            self.connection.execute(f'DELETE FROM "{table}"')  # what the migrations put in
