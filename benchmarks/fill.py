"""Large stores in seconds: rows written by SQL into the database of a closed store.

    python benchmarks/fill.py DIRECTORY ADDRESS MESSAGES [--flags N]

makes ADDRESS's INBOX in the shard DIRECTORY hold MESSAGES more messages of 3 KB,
all with the same octets.  The store must be closed, so this runs before its
relay starts.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from madmail.store.sqlite import open_store  # noqa: E402
from tests.system import mail  # noqa: E402

NUMBERS = 'WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {})'


def fill(
    directory: Path,
    boxes: Sequence[int],
    each: int,
    body: bytes,
    *,
    first_date: int,
    last_date: int,
    flags: int = 0,
    run_length: int = 1 << 30,
) -> None:
    """`each` messages into every one of the mailboxes `boxes` (ids), arriving by turns.

    After `run_length` messages each, a UID is left out, as if one had been deleted.
    """
    count = each * len(boxes)
    connection = sqlite3.connect(directory / 'store.db', isolation_level=None)
    run = connection.execute
    run('PRAGMA synchronous = OFF')
    run('PRAGMA cache_size = -200000')
    # Indexes are made at the end, in order, which takes a tenth of the time.
    indexes = run(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'messages'"
        ' AND sql IS NOT NULL'
    ).fetchall()
    run('BEGIN')
    for name, _ in indexes:
        run(f'DROP INDEX {name}')
    (body_id,) = run('SELECT coalesce(max(id), 0) + 1 FROM bodies').fetchone()
    run(
        f'{NUMBERS.format(count)} INSERT INTO bodies SELECT ? + i, ?, NULL, ? FROM n',
        (body_id, len(body), body),
    )
    for turn, box in enumerate(boxes):
        uid, modseq = run(
            'SELECT uid_next, highest_modseq FROM mailboxes WHERE id = ?', (box,)
        ).fetchone()
        run(
            f'{NUMBERS.format(each)} INSERT INTO messages'
            ' (mailbox_id, uid, flags, keywords, internal_date, size, modseq, body_id)'
            " SELECT ?1, ?2 + i + i / ?12, ?3, '', ?4 + (i * ?5 + ?6) * (?7 - ?4) / ?8, ?9,"
            ' ?10 + 1 + i, ?11 + i * ?5 + ?6 FROM n',
            (
                box,
                uid,
                flags,
                first_date,
                len(boxes),
                turn,
                last_date,
                count,
                len(body),
                modseq,
                body_id,
                run_length,
            ),
        )
        run(
            'UPDATE mailboxes SET uid_next = uid_next + ?1 + (?1 - 1) / ?5,'
            ' highest_modseq = highest_modseq + ?1 + (?1 - 1) / ?5,'
            ' messages = messages + ?1, unseen = unseen + ?2, size = size + ?3 WHERE id = ?4',
            (each, 0 if flags & 1 else each, each * len(body), box, run_length),
        )
    for _, statement in indexes:
        run(statement)
    run('COMMIT')
    run('PRAGMA wal_checkpoint(TRUNCATE)')
    connection.close()
    with (directory / 'store.db').open('rb') as file:
        os.fsync(file.fileno())  # or the first fsync of what is measured pays for all of this


def inbox(directory: Path, address: str) -> int:
    """The id of the INBOX of an account, which is made if need be."""
    store = open_store(directory, quota_default=0, trim_from=1.0, trim_to=1.0)
    try:
        account = store.account(address) or store.create_account(address, '', 0)
        assert account is not None
        box = store.mailbox(account.id, 'INBOX')
        assert box is not None
        return box.id
    finally:
        store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('directory', type=Path)
    parser.add_argument('address')
    parser.add_argument('messages', type=int)
    parser.add_argument('--run-length', type=int, default=7, help='then a UID is left out')
    parser.add_argument('--flags', type=int, default=1, help='bits of store.interface.Flag')
    arguments = parser.parse_args()
    box = inbox(arguments.directory, arguments.address)
    fill(
        arguments.directory,
        [box],
        arguments.messages,
        mail.encrypted(arguments.address),
        first_date=1_700_000_000,
        last_date=1_750_000_000,
        flags=arguments.flags,
        run_length=arguments.run_length,
    )


if __name__ == '__main__':
    main()
