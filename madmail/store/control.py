"""The control database `<state_dir>/control.db`: what is global to the relay.

Settings rows (name → value as text, see `madmail.settings`), the blocklist, and
the number of shards.  Several processes have it open; writes are rare, short,
and made by the master, the CLI or a web worker.  Shards and gates keep the
blocklist in memory and reload it when the bus says that it has changed.

Open it after forking: an SQLite connection must not cross a fork.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

from madmail.store import schema


class Blocked(NamedTuple):
    address: str
    reason: str
    since: int  # Unix time


class Control:
    """The open control database."""

    def __init__(self, state_dir: Path) -> None:
        """Made if it is not there.  Raises NewerVersion, OSError, sqlite3.Error."""
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = state_dir / 'control.db'
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._execute = self._connection.execute
        try:
            self._execute('PRAGMA busy_timeout = 5000')
            self._execute('PRAGMA journal_mode = WAL')
            self._execute('PRAGMA synchronous = FULL')
            schema.migrate(self._connection, schema.CONTROL)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    # -- settings

    def settings(self) -> dict[str, str]:
        """All rows, by name."""
        return dict(self._execute('SELECT name, value FROM settings').fetchall())

    def set_setting(self, name: str, value: str) -> None:
        self._execute(
            'INSERT INTO settings VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value',
            (name, value),
        )

    def remove_setting(self, name: str) -> bool:
        """Back to the default; False if there was no row."""
        return self._execute('DELETE FROM settings WHERE name = ?', (name,)).rowcount > 0

    # -- blocklist

    def blocked(self, address: str) -> Blocked | None:
        row = self._execute(
            'SELECT address, reason, since FROM blocklist WHERE address = ?', (address,)
        ).fetchone()
        return None if row is None else Blocked._make(row)

    def blocklist(self) -> list[Blocked]:
        """In order of address."""
        rows = self._execute('SELECT address, reason, since FROM blocklist ORDER BY address')
        return [Blocked._make(row) for row in rows.fetchall()]

    def block(self, address: str, reason: str, since: int) -> bool:
        """Block a canonical address; False, and nothing changes, if it is blocked already."""
        return (
            self._execute(
                'INSERT INTO blocklist VALUES (?, ?, ?) ON CONFLICT DO NOTHING',
                (address, reason, since),
            ).rowcount
            > 0
        )

    def unblock(self, address: str) -> bool:
        """False if it was not blocked."""
        return self._execute('DELETE FROM blocklist WHERE address = ?', (address,)).rowcount > 0

    # -- shards

    @property
    def shards(self) -> int:
        """How many shards the state directory was made for; 0 = not made yet."""
        row = self._execute("SELECT value FROM meta WHERE name = 'shards'").fetchone()
        return 0 if row is None else int(row[0])

    def set_shards(self, count: int) -> int:
        """Fix the number of shards if it is not yet; the number that holds."""
        if count < 1:
            raise ValueError('There is at least one shard')
        self._execute("INSERT INTO meta VALUES ('shards', ?) ON CONFLICT DO NOTHING", (count,))
        return self.shards


class Blocklist:
    """The blocked addresses in memory: `address in blocklist`."""

    def __init__(self, state_dir: Path) -> None:
        self._control = Control(state_dir)
        self._addresses: frozenset[str] = frozenset()
        self.reload()

    def __contains__(self, address: object) -> bool:
        return address in self._addresses

    def __len__(self) -> int:
        return len(self._addresses)

    def reload(self) -> None:
        """Read it anew; about 1 ms for a thousand addresses."""
        self._addresses = frozenset(blocked.address for blocked in self._control.blocklist())

    def close(self) -> None:
        self._control.close()
