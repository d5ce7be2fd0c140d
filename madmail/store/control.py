"""The control database `<state_dir>/control.db`: what is global to the relay.

Settings rows (name → value as text, see `madmail.settings`), the blocklist, the
rules of federation, and the number of shards.  Several processes have it open;
writes are rare, short, and made by the master, the CLI or a web worker.  Who
needs a table at every message keeps it in memory and reloads it when the bus
says that it has changed, or, outside the bus, when `changes` does.

Open it after forking: an SQLite connection must not cross a fork.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from madmail import log
from madmail.settings import Settings, overlay
from madmail.store import schema
from madmail.store.exchangers import Exchangers
from madmail.store.registrations import Registrations
from madmail.store.shares import Shares

_log = log.get('control')


class Blocked(NamedTuple):
    address: str
    reason: str
    since: int  # Unix time


class Listed(NamedTuple):
    """A domain that has a federation rule or is dismissed."""

    domain: str  # as `delivery.federation.key` spells it
    since: int  # Unix time


class Endpoint(NamedTuple):
    """Where mail for a domain goes instead of where DNS says."""

    domain: str  # as `delivery.federation.key` spells it
    target: str  # URL or host, as it was given
    verify: bool | None  # the certificate; None = as for any host
    comment: str
    created: int  # Unix time
    updated: int


class Control(Registrations, Exchangers, Shares):
    """The open control database."""

    def __init__(self, state_dir: Path, *, any_thread: bool = False) -> None:
        """Made if it is not there.  Raises NewerVersion, OSError, sqlite3.Error.

        One thread uses it at a time; with `any_thread` not always the same.
        """
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = state_dir / 'control.db'
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            # Not even opened: closing it would give up the locks of any other connection
            # of this process (fcntl(2)), and SQLite would remove the log under it.
            pass
        self._connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=not any_thread
        )
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

    def changes(self) -> int:
        """A number that is another one after each change by somebody else.

        PERF: 4 µs, one look at the log's index in shared memory.
        """
        number: int = self._execute('PRAGMA data_version').fetchone()[0]
        return number

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

    def block_all(self, addresses: Sequence[str], reason: str, since: int) -> None:
        """Block canonical addresses; those that are blocked stay as they are."""
        with self._connection:
            self._execute('BEGIN IMMEDIATE')
            self._connection.executemany(
                'INSERT INTO blocklist VALUES (?, ?, ?) ON CONFLICT DO NOTHING',
                [(address, reason, since) for address in addresses],
            )

    def unblock(self, address: str) -> bool:
        """False if it was not blocked."""
        return self._execute('DELETE FROM blocklist WHERE address = ?', (address,)).rowcount > 0

    def flush_blocklist(self) -> int:
        """Unblock everybody; how many that were."""
        return self._execute('DELETE FROM blocklist').rowcount

    # -- federation; what the domains mean is in `delivery.federation`

    def rules(self) -> list[Listed]:
        """In order of domain."""
        rows = self._execute('SELECT domain, since FROM federation_rules ORDER BY domain')
        return [Listed._make(row) for row in rows.fetchall()]

    def add_rule(self, domain: str, since: int) -> bool:
        """False, and nothing changes, if there is one already."""
        statement = 'INSERT INTO federation_rules VALUES (?, ?) ON CONFLICT DO NOTHING'
        return self._execute(statement, (domain, since)).rowcount > 0

    def remove_rule(self, domain: str) -> bool:
        statement = 'DELETE FROM federation_rules WHERE domain = ?'
        return self._execute(statement, (domain,)).rowcount > 0

    def flush_rules(self) -> None:
        self._execute('DELETE FROM federation_rules')

    def dismissed(self) -> list[Listed]:
        """In order of domain."""
        rows = self._execute('SELECT domain, since FROM federation_dismissed ORDER BY domain')
        return [Listed._make(row) for row in rows.fetchall()]

    def dismiss(self, domain: str, since: int) -> bool:
        """False, and nothing changes, if it is dismissed already."""
        statement = 'INSERT INTO federation_dismissed VALUES (?, ?) ON CONFLICT DO NOTHING'
        return self._execute(statement, (domain, since)).rowcount > 0

    def undismiss(self, domain: str) -> bool:
        statement = 'DELETE FROM federation_dismissed WHERE domain = ?'
        return self._execute(statement, (domain,)).rowcount > 0

    def flush_dismissed(self) -> None:
        self._execute('DELETE FROM federation_dismissed')

    # -- exchange with other relays, see madmail.delivery.tracker

    def peers(self) -> list[tuple[str, dict[str, int]]]:
        """Counts by domain, seen last at the end."""
        rows = self._execute('SELECT * FROM peers ORDER BY last_seen')
        names = [column[0] for column in rows.description][1:]
        return [(row[0], dict(zip(names, row[1:], strict=True))) for row in rows.fetchall()]

    def set_peers(self, peers: Sequence[tuple[str, dict[str, int]]], limit: int) -> None:
        """Write some anew; only the `limit` that were seen last stay."""
        with self._connection:
            self._execute('BEGIN IMMEDIATE')
            for domain, counts in peers:
                marks = ', '.join('?' * (len(counts) + 1))
                names = ', '.join(('domain', *counts))
                self._execute(
                    f'INSERT OR REPLACE INTO peers ({names}) VALUES ({marks})',
                    (domain, *counts.values()),
                )
            self._execute(
                'DELETE FROM peers WHERE domain NOT IN'
                ' (SELECT domain FROM peers ORDER BY last_seen DESC LIMIT ?)',
                (limit,),
            )

    def inbound(self) -> dict[str, tuple[int, int]]:
        """Messages that came from a domain, and when the last did."""
        rows = self._execute('SELECT domain, count, last_seen FROM inbound_peers').fetchall()
        return {domain: (count, last_seen) for domain, count, last_seen in rows}

    def add_inbound(self, counts: Mapping[str, int], now: int, limit: int, oldest: int) -> None:
        """Only the `limit` that were seen last stay, and of them those seen since `oldest`."""
        with self._connection:
            self._execute('BEGIN IMMEDIATE')
            for domain, count in counts.items():
                self._execute(
                    'INSERT INTO inbound_peers VALUES (?, ?, ?) ON CONFLICT DO UPDATE'
                    ' SET count = count + excluded.count, last_seen = excluded.last_seen',
                    (domain, count, now),
                )
            self._execute(
                'DELETE FROM inbound_peers WHERE last_seen < ? OR domain NOT IN'
                ' (SELECT domain FROM inbound_peers ORDER BY last_seen DESC, count DESC LIMIT ?)',
                (oldest, limit),
            )

    # -- messages, see madmail.delivery.traffic

    def traffic(self) -> dict[str, int]:
        """How many, by kind."""
        return dict(self._execute('SELECT name, count FROM traffic').fetchall())

    def add_traffic(self, counts: Mapping[str, int]) -> None:
        with self._connection:
            self._execute('BEGIN IMMEDIATE')
            for name, count in counts.items():
                self._execute(
                    'INSERT INTO traffic VALUES (?, ?)'
                    ' ON CONFLICT DO UPDATE SET count = count + excluded.count',
                    (name, count),
                )

    # -- endpoints

    def endpoints(self) -> list[Endpoint]:
        """In order of domain."""
        rows = self._execute(
            'SELECT domain, target, verify, comment, created, updated FROM endpoints'
            ' ORDER BY domain'
        )
        return [
            Endpoint(domain, target, None if verify is None else bool(verify), *rest)
            for domain, target, verify, *rest in rows.fetchall()
        ]

    def endpoint(self, domain: str) -> Endpoint | None:
        return next((one for one in self.endpoints() if one.domain == domain), None)

    def set_endpoint(
        self, domain: str, target: str, verify: bool | None, comment: str, now: int
    ) -> None:
        """New, or in place of the one there is."""
        self._execute(
            'INSERT INTO endpoints VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET'
            ' target = excluded.target, verify = excluded.verify,'
            ' comment = excluded.comment, updated = excluded.updated',
            (domain, target, None if verify is None else int(verify), comment, now, now),
        )

    def remove_endpoint(self, domain: str) -> bool:
        return self._execute('DELETE FROM endpoints WHERE domain = ?', (domain,)).rowcount > 0

    # -- bandwidth

    def add_bandwidth(
        self, day: int, boot: int, octets: dict[tuple[str, str], int], *, keep: int
    ) -> None:
        """Add what sums of the master that started at `boot` have grown by since the last time.

        `day` counts from 1970; days before the last `keep` are forgotten.
        """
        self._execute('BEGIN IMMEDIATE')
        try:
            rows = self._execute('SELECT service, direction, boot, octets FROM bandwidth_marks')
            marks = {(row[0], row[1]): (row[2], row[3]) for row in rows.fetchall()}
            for (service, direction), total in octets.items():
                last_boot, last = marks.get((service, direction), (boot, 0))
                grown = total - last if last_boot == boot else total
                if grown > 0:
                    self._execute(
                        'INSERT INTO bandwidth VALUES (?, ?, ?, ?)'
                        ' ON CONFLICT DO UPDATE SET octets = octets + excluded.octets',
                        (day, service, direction, grown),
                    )
                self._execute(
                    'INSERT INTO bandwidth_marks VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE'
                    ' SET boot = excluded.boot, octets = excluded.octets',
                    (service, direction, boot, total),
                )
            self._execute('DELETE FROM bandwidth WHERE day <= ?', (day - keep,))
            self._execute('COMMIT')
        except BaseException:
            self._execute('ROLLBACK')
            raise

    def bandwidth(self) -> list[tuple[int, str, str, int]]:
        """Day since 1970, service, direction, octets; in order of day."""
        return self._execute(
            'SELECT day, service, direction, octets FROM bandwidth ORDER BY day, service, direction'
        ).fetchall()

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

    @property
    def addresses(self) -> frozenset[str]:
        return self._addresses

    def blocked_since(self, since: int) -> list[str]:
        """Those that were blocked then or later, in Unix seconds."""
        return [one.address for one in self._control.blocklist() if one.since >= since]

    def reload(self) -> None:
        """Read it anew; about 1 ms for a thousand addresses."""
        self._addresses = frozenset(blocked.address for blocked in self._control.blocklist())

    def close(self) -> None:
        self._control.close()


class LiveSettings:
    """The settings rows laid over a process's `Settings`, which stays the same object."""

    def __init__(self, state_dir: Path, settings: Settings) -> None:
        self._control = Control(state_dir)
        self._settings = settings
        self._changes = self._control.changes()
        self._unusable: set[str] = set()
        self.reload()

    def refresh(self) -> bool:
        """Read the rows anew if anything was changed: for when nobody told us."""
        changes = self._control.changes()
        if changes == self._changes:
            return False
        self._changes = changes
        self.reload()
        return True

    def reload(self) -> None:
        """Read the rows anew; one that does not fit any more is left out and logged once."""
        unusable = set(overlay(self._settings, self._control.settings()))
        for name in sorted(unusable - self._unusable):
            _log.warning('stored setting is not usable', setting=name)
        self._unusable = unusable

    def close(self) -> None:
        self._control.close()
