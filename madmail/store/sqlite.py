"""The SQLite store: all its nouns together, and how to open it.

Each module adds one noun to the one before: `database` (connections, bodies,
removal), `accounts`, `messages` (reading), `room` (quota), `changes` (APPEND,
STORE, EXPUNGE, COPY, MOVE), `mailboxes`, `devices`, `delivering`, `outbox`, `leases`,
`purging`.  How writes become durable is in `commit`, the tables in `schema`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from madmail.store.purging import Purging

if TYPE_CHECKING:
    from madmail.store.interface import Store


class SqliteStore(Purging):
    """One shard's store in one directory.

    Made and used on one thread, the one of its gevent loop.  Where no loop runs
    (a CLI on a stopped relay) writes run one until they are durable.
    """


def open_store(
    directory: Path, *, quota_default: int, trim_from: float, trim_to: float
) -> SqliteStore:
    """Open or make the store in `directory`, a shard's.

    `quota_default` in bytes (0 = no limit), for accounts without their own; above
    `trim_from` of it the oldest messages go until `trim_to` is reached.  Raises
    NewerVersion, StoreInUse, OSError, sqlite3.Error.
    """
    return SqliteStore(directory, quota_default=quota_default, trim_from=trim_from, trim_to=trim_to)


if TYPE_CHECKING:

    def _is_a_store(store: SqliteStore) -> Store:
        return store
