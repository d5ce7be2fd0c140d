"""Schema of a shard's database and of the control database, as numbered migrations.

`PRAGMA user_version` counts the migrations a file has been through.  Each one
runs in a transaction of its own together with its number, so an interrupted
upgrade goes on where it stopped.  A file from a newer program is refused
untouched: `NewerVersion`.

Notes on the shard's tables:

- `messages` is clustered by (mailbox, UID) and holds nothing large, so a range
  of 100,000 rows is a few hundred pages read in order.  `by_date` grows at its
  right end only, and serves expiry; the other indexes are partial and cost a
  delivery nothing.
- `bodies` is not touched again after it is written: SQLite rewrites a whole row
  with all of its overflow pages to change one column.  How many messages refer
  to a body is in `shared`, and only for bodies with more than one.
- Counters live in the mailbox row, changed by the same UPDATE that allocates
  the UID.
- `expunged` holds UID ranges, a bounded number a mailbox; `log_floor` is the
  modseq up to which it has forgotten.
- `graves` names mailboxes that are gone but whose messages are still being
  removed in slices.
- `spent` lists small bodies that nobody refers to any more and that expiry is
  about to remove, as JSON; `highest` is the highest of them, for no body may get
  its id before.
- Flag 32 (`TOUCHED`) marks messages that were changed after they came, and only
  those are in an index by modseq.  The others are in order of modseq by their
  UIDs already.  PERF: a full index costs a lone delivery 10 % more CPU.
- `saved` is when a message came into its mailbox (RFC 8514), or 0 where that is its
  internal date: always for what was delivered, and as the best guess for what is older
  than the column.
- `meta` holds the octets that object ids are salted with (RFC 8474), as two numbers.
- `leased_until` of an outbox entry is when it may be taken again by others than who has
  taken it: another relay that fetches, or the courier where both may.
- `push_due` is beside `push_tokens`, because its rows change with every message and
  tokens are long; see store.devices.
- `delivered` remembers delivery ids for a day or two, by day, so that it needs
  no second index to be purged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

Migration = Sequence[str]

SHARD: Sequence[Migration] = (
    (
        'CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID',
        """CREATE TABLE accounts (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            address TEXT NOT NULL UNIQUE,
            password TEXT NOT NULL,
            created_day INTEGER NOT NULL,
            last_login_day INTEGER NOT NULL DEFAULT 0,
            quota INTEGER NOT NULL DEFAULT -1)""",
        """CREATE TABLE mailboxes (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            account_id INTEGER NOT NULL,
            name TEXT NOT NULL,
            uid_validity INTEGER NOT NULL,
            uid_next INTEGER NOT NULL DEFAULT 1,
            highest_modseq INTEGER NOT NULL DEFAULT 1,
            messages INTEGER NOT NULL DEFAULT 0,
            unseen INTEGER NOT NULL DEFAULT 0,
            size INTEGER NOT NULL DEFAULT 0,
            special_use TEXT NOT NULL DEFAULT '',
            log_floor INTEGER NOT NULL DEFAULT 0,
            UNIQUE (account_id, name))""",
        """CREATE TABLE messages (
            mailbox_id INTEGER NOT NULL,
            uid INTEGER NOT NULL,
            flags INTEGER NOT NULL,
            keywords TEXT NOT NULL,
            internal_date INTEGER NOT NULL,
            size INTEGER NOT NULL,
            modseq INTEGER NOT NULL,
            body_id INTEGER NOT NULL,
            PRIMARY KEY (mailbox_id, uid)) WITHOUT ROWID""",
        'CREATE INDEX touched ON messages (mailbox_id, modseq) WHERE flags & 32',
        'CREATE INDEX by_date ON messages (internal_date)',
        'CREATE INDEX by_date_large ON messages (internal_date) WHERE size > 131072',
        'CREATE INDEX deleted ON messages (mailbox_id, uid) WHERE flags & 8',
        """CREATE TABLE bodies (
            id INTEGER PRIMARY KEY,
            size INTEGER NOT NULL,
            blob TEXT,
            data BLOB)""",
        'CREATE INDEX by_blob ON bodies (blob) WHERE blob IS NOT NULL',
        'CREATE TABLE shared (body_id INTEGER PRIMARY KEY, refs INTEGER NOT NULL)',
        """CREATE TABLE expunged (
            mailbox_id INTEGER NOT NULL,
            modseq INTEGER NOT NULL,
            first INTEGER NOT NULL,
            last INTEGER NOT NULL,
            PRIMARY KEY (mailbox_id, modseq, first)) WITHOUT ROWID""",
        'CREATE TABLE graves (mailbox_id INTEGER PRIMARY KEY)',
        """CREATE TABLE subscriptions (
            account_id INTEGER NOT NULL,
            name TEXT NOT NULL,
            PRIMARY KEY (account_id, name)) WITHOUT ROWID""",
        """CREATE TABLE metadata (
            account_id INTEGER NOT NULL,
            mailbox_id INTEGER NOT NULL,
            name TEXT NOT NULL,
            value BLOB NOT NULL,
            PRIMARY KEY (account_id, mailbox_id, name)) WITHOUT ROWID""",
        """CREATE TABLE delivered (
            day INTEGER NOT NULL,
            id BLOB NOT NULL,
            outcomes TEXT NOT NULL,
            PRIMARY KEY (day, id)) WITHOUT ROWID""",
        """CREATE TABLE outbox (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            sender TEXT NOT NULL,
            domain TEXT NOT NULL,
            recipients TEXT NOT NULL,
            created INTEGER NOT NULL,
            body_id INTEGER NOT NULL,
            size INTEGER NOT NULL,
            tries INTEGER NOT NULL,
            next_try INTEGER NOT NULL,
            last_error TEXT NOT NULL)""",
        'CREATE INDEX due ON outbox (next_try)',
    ),
    (
        'ALTER TABLE messages ADD COLUMN saved INTEGER NOT NULL DEFAULT 0',
        "INSERT INTO meta VALUES ('salt_high', random()), ('salt_low', random())",
    ),
    (
        """CREATE TABLE spent (
            id INTEGER PRIMARY KEY,
            highest INTEGER NOT NULL,
            bodies TEXT NOT NULL)""",
    ),
    ('CREATE INDEX outbox_domain ON outbox (domain, next_try)',),
    ('ALTER TABLE accounts ADD COLUMN message_size INTEGER NOT NULL DEFAULT 0',),
    (
        'ALTER TABLE accounts ADD COLUMN first_login_day INTEGER NOT NULL DEFAULT 0',
        # An account was made by its first login, as a rule.
        'UPDATE accounts SET first_login_day = created_day WHERE last_login_day > 0',
    ),
    (
        'ALTER TABLE outbox ADD COLUMN leased_until INTEGER NOT NULL DEFAULT 0',
        'CREATE INDEX outbox_waiting ON outbox (domain)',  # in order of id
    ),
    (
        """CREATE TABLE bandwidth (
            account_id INTEGER NOT NULL,
            month TEXT NOT NULL,
            received INTEGER NOT NULL,
            sent INTEGER NOT NULL,
            PRIMARY KEY (account_id, month)) WITHOUT ROWID""",
    ),
    (
        # Ids are never given again: what is said of a token must not hit another.
        """CREATE TABLE push_tokens (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            account_id INTEGER NOT NULL,
            token TEXT NOT NULL,
            renewed INTEGER NOT NULL)""",
        'CREATE INDEX push_tokens_account ON push_tokens (account_id)',
        'CREATE INDEX push_tokens_renewed ON push_tokens (renewed)',
        """CREATE TABLE push_due (
            token_id INTEGER PRIMARY KEY,
            since INTEGER NOT NULL,
            latest INTEGER NOT NULL,
            news INTEGER NOT NULL,
            tries INTEGER NOT NULL,
            next_try INTEGER NOT NULL)""",
        'CREATE INDEX push_due_next ON push_due (next_try)',
        # They were one annotation, a line a token: its day and itself.
        """INSERT INTO push_tokens (account_id, token, renewed)
            WITH RECURSIVE lines (account_id, line, rest) AS (
                SELECT account_id, '', CAST(value AS TEXT) || char(10) FROM metadata
                WHERE mailbox_id = 0 AND name = '/private/devicetoken'
                UNION ALL
                SELECT account_id, substr(rest, 1, instr(rest, char(10)) - 1),
                substr(rest, instr(rest, char(10)) + 1) FROM lines WHERE rest <> '')
            SELECT account_id, substr(line, instr(line, ' ') + 1), CAST(line AS INTEGER)
            FROM lines WHERE line <> ''""",
        "DELETE FROM metadata WHERE mailbox_id = 0 AND name = '/private/devicetoken'",
    ),
)

CONTROL: Sequence[Migration] = (
    (
        'CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID',
        'CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID',
        """CREATE TABLE blocklist (
            address TEXT PRIMARY KEY,
            reason TEXT NOT NULL,
            since INTEGER NOT NULL) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE federation_rules (
            domain TEXT PRIMARY KEY,
            since INTEGER NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE federation_dismissed (
            domain TEXT PRIMARY KEY,
            since INTEGER NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE endpoints (
            domain TEXT PRIMARY KEY,
            target TEXT NOT NULL,
            verify INTEGER,
            comment TEXT NOT NULL,
            created INTEGER NOT NULL,
            updated INTEGER NOT NULL) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE peers (
            domain TEXT PRIMARY KEY,
            success_https INTEGER NOT NULL,
            success_http INTEGER NOT NULL,
            success_smtp INTEGER NOT NULL,
            failed_https INTEGER NOT NULL,
            failed_http INTEGER NOT NULL,
            failed_smtp INTEGER NOT NULL,
            latency_ms INTEGER NOT NULL,
            last_seen INTEGER NOT NULL) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE registration_tokens (
            token TEXT PRIMARY KEY,
            max_uses INTEGER NOT NULL,
            used INTEGER NOT NULL,
            comment TEXT NOT NULL,
            created INTEGER NOT NULL,
            expires INTEGER NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE reservations (
            id INTEGER PRIMARY KEY,
            token TEXT NOT NULL,
            address TEXT NOT NULL,
            until INTEGER NOT NULL)""",
        'CREATE INDEX reservations_token ON reservations (token, until)',
    ),
    ('CREATE TABLE traffic (name TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID',),
    (
        """CREATE TABLE exchangers (
            name TEXT PRIMARY KEY,
            url TEXT NOT NULL,
            enabled INTEGER NOT NULL,
            polls INTEGER NOT NULL,
            poll_interval INTEGER NOT NULL,
            protocol TEXT NOT NULL,
            token TEXT NOT NULL,
            fetches TEXT NOT NULL,
            domains TEXT NOT NULL,
            mode TEXT NOT NULL,
            carries INTEGER NOT NULL,
            pull_key BLOB NOT NULL,
            verify INTEGER,
            created INTEGER NOT NULL,
            updated INTEGER NOT NULL,
            last_poll_at INTEGER NOT NULL DEFAULT 0,
            last_success_at INTEGER NOT NULL DEFAULT 0,
            last_error TEXT NOT NULL DEFAULT '',
            failures INTEGER NOT NULL DEFAULT 0,
            pulled_total INTEGER NOT NULL DEFAULT 0,
            refused_total INTEGER NOT NULL DEFAULT 0,
            last_given_at INTEGER NOT NULL DEFAULT 0,
            given_total INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE shares (
            slug TEXT PRIMARY KEY COLLATE NOCASE,
            url TEXT NOT NULL,
            name TEXT NOT NULL,
            created INTEGER NOT NULL,
            key BLOB NOT NULL) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE bandwidth (
            day INTEGER NOT NULL,
            service TEXT NOT NULL,
            direction TEXT NOT NULL,
            octets INTEGER NOT NULL,
            PRIMARY KEY (day, service, direction)) WITHOUT ROWID""",
        """CREATE TABLE bandwidth_marks (
            service TEXT NOT NULL,
            direction TEXT NOT NULL,
            boot INTEGER NOT NULL,
            octets INTEGER NOT NULL,
            PRIMARY KEY (service, direction)) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE inbound_peers (
            domain TEXT PRIMARY KEY,
            count INTEGER NOT NULL,
            last_seen INTEGER NOT NULL) WITHOUT ROWID""",
    ),
)


class NewerVersion(Exception):
    """The database was written by a newer madmail than this one."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f'The database has schema {found}, this version of madmail knows up to {known}; '
            'install the newer version again'
        )
        self.found = found
        self.known = known


def version(connection: sqlite3.Connection) -> int:
    """How many migrations the database has been through."""
    found: int = connection.execute('PRAGMA user_version').fetchone()[0]
    return found


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Bring the database to the newest schema; raises NewerVersion.

    The connection is in autocommit mode.  Two processes may do this at once.
    """
    if version(connection) > len(migrations):
        raise NewerVersion(version(connection), len(migrations))
    while version(connection) < len(migrations):
        connection.execute('BEGIN IMMEDIATE')
        try:
            number = version(connection)  # another process may have been faster
            if number < len(migrations):
                for statement in migrations[number]:
                    connection.execute(statement)
                connection.execute(f'PRAGMA user_version = {number + 1}')
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
