"""Accounts of the shard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from hashlib import blake2b

from madmail.store.commit import Transaction
from madmail.store.database import Database, Row
from madmail.store.interface import Account, AccountGone, MailboxGone

COLUMNS = 'id, address, password, created_day, last_login_day, quota, message_size, first_login_day'


class Accounts(Database):
    """The part of the store that knows accounts."""

    _salt = b''

    def account(self, address: str) -> Account | None:
        """The account of a canonical address."""
        row = self._read(f'SELECT {COLUMNS} FROM accounts WHERE address = ?', (address,)).fetchone()
        return None if row is None else Account._make(row)

    def account_by_id(self, account_id: int) -> Account | None:
        row = self._read(f'SELECT {COLUMNS} FROM accounts WHERE id = ?', (account_id,)).fetchone()
        return None if row is None else Account._make(row)

    def accounts(self, after: str = '', limit: int = 1000) -> list[Account]:
        """In order of address, beginning behind `after`."""
        rows = self._read(
            f'SELECT {COLUMNS} FROM accounts WHERE address > ? ORDER BY address LIMIT ?',
            (after, limit),
        )
        return [Account._make(row) for row in rows.fetchall()]

    def account_count(self) -> int:
        return self._account_count

    def salt(self, account_id: int) -> bytes:
        """Octets nobody can guess, another value for every account, the same for its life."""
        if not self._salt:
            rows = self._read(
                "SELECT value FROM meta WHERE name IN ('salt_high', 'salt_low') ORDER BY name"
            )
            self._salt = b''.join([row[0].to_bytes(8, 'big', signed=True) for row in rows])
        owner = account_id.to_bytes(8, 'big')
        return blake2b(owner, key=self._salt, digest_size=16).digest()

    def usage(self, account_id: int) -> tuple[int, int]:
        """(bytes, messages) of all the account's mailboxes."""
        row = self._one(
            'SELECT coalesce(sum(size), 0), coalesce(sum(messages), 0)'
            ' FROM mailboxes WHERE account_id = ?',
            account_id,
        )
        return row[0], row[1]

    def create_account(self, address: str, password: str, day: int) -> Account | None:
        """Account with its INBOX, subscribed; None when the address is taken."""

        return self._submit(lambda tx: self._create(tx, address, password, day))

    def create_accounts(self, accounts: Sequence[tuple[str, str]], day: int) -> list[bool]:
        """Some accounts (address, verifier) in one commit; False for addresses that are taken.

        PERF: 60 µs an account on the loop; 100 of them are a good number.
        """

        def work(tx: Transaction) -> list[bool]:
            return [
                self._create(tx, address, password, day) is not None
                for address, password in accounts
            ]

        return self._submit(work)

    def _create(self, tx: Transaction, address: str, password: str, day: int) -> Account | None:
        if tx.execute('SELECT 1 FROM accounts WHERE address = ?', (address,)).fetchone():
            return None
        account_id = tx.execute(
            'INSERT INTO accounts (address, password, created_day) VALUES (?, ?, ?)',
            (address, password, day),
        ).lastrowid
        assert account_id is not None
        tx.execute(
            'INSERT INTO mailboxes (account_id, name, uid_validity) VALUES (?, ?, ?)',
            (account_id, 'INBOX', self._uid_validity(tx)),
        )
        tx.execute('INSERT INTO subscriptions VALUES (?, ?)', (account_id, 'INBOX'))
        tx.after.append(lambda: self._count_accounts(1))
        return Account(account_id, address, password, day, 0, -1)

    def set_password(self, account_id: int, password: str) -> None:
        """Store an encoded verifier.  Raises KeyError when there is no such account."""
        self._change_account('password', account_id, password)

    def replace_password(self, account_id: int, old: str, new: str) -> bool:
        """Only while the verifier is still `old`; whether it was."""

        def work(tx: Transaction) -> bool:
            statement = 'UPDATE accounts SET password = ? WHERE id = ? AND password = ?'
            return tx.execute(statement, (new, account_id, old)).rowcount > 0

        return self._submit(work)

    def set_quota(self, account_id: int, quota: int) -> None:
        """Bytes, -1 for the relay's default.  Raises KeyError when there is no such account."""
        self._change_account('quota', account_id, quota)

    def set_message_size(self, account_id: int, limit: int) -> None:
        """Bytes, 0 for the relay's limit.  Raises KeyError when there is no such account."""
        self._change_account('message_size', account_id, limit)

    def record_login(self, account_id: int, day: int) -> None:
        """Queue the new day; does not wait for durability, writes only if changed."""
        account = self.account_by_id(account_id)
        if account is not None and account.last_login_day < day:
            self._commit.post(
                lambda tx: tx.execute(
                    'UPDATE accounts SET last_login_day = ?,'
                    ' first_login_day = coalesce(nullif(first_login_day, 0), ?)'
                    ' WHERE id = ? AND last_login_day < ?',
                    (day, day, account_id, day),
                )
            )

    def add_bandwidth(self, month: str, octets: dict[int, tuple[int, int]]) -> None:
        """Octets received and sent by account id; months older than a year are forgotten."""
        oldest = f'{int(month[:4]) - 1}{month[4:]}'

        def work(tx: Transaction) -> None:
            tx.executemany(
                'INSERT INTO bandwidth SELECT id, ?2, ?3, ?4 FROM accounts WHERE id = ?1'
                ' ON CONFLICT DO UPDATE SET received = received + excluded.received,'
                ' sent = sent + excluded.sent',
                [(account_id, month, *counts) for account_id, counts in octets.items()],
            )
            tx.execute('DELETE FROM bandwidth WHERE month < ?', (oldest,))

        self._submit(work)

    def bandwidth(self, account_id: int) -> list[tuple[str, int, int]]:
        """Month, octets received, sent; newest first."""
        return self._read(
            'SELECT month, received, sent FROM bandwidth WHERE account_id = ? ORDER BY month DESC',
            (account_id,),
        ).fetchall()

    def delete_account(self, account_id: int, *, unused_only: bool = False) -> bool:
        """With everything it owns; False if there is none, or it was used and must not be.

        The address and its mailboxes are gone when this returns; their messages are
        removed in slices afterwards, across restarts if need be.  Mail that was
        accepted from it and waits in the outbox is still sent.
        """

        def work(tx: Transaction) -> bool:
            row = tx.execute(
                'SELECT address, last_login_day FROM accounts WHERE id = ?', (account_id,)
            ).fetchone()
            if row is None or (unused_only and row[1]):
                return False
            self._routes.pop(row[0], None)
            boxes: list[Row] = tx.execute(
                'SELECT id, messages FROM mailboxes WHERE account_id = ?', (account_id,)
            ).fetchall()
            for statement in (
                'DELETE FROM push_due WHERE token_id IN'
                ' (SELECT id FROM push_tokens WHERE account_id = ?)',
                'DELETE FROM push_tokens WHERE account_id = ?',
                'DELETE FROM accounts WHERE id = ?',
                'DELETE FROM mailboxes WHERE account_id = ?',
                'DELETE FROM subscriptions WHERE account_id = ?',
                'DELETE FROM metadata WHERE account_id = ?',
                'DELETE FROM bandwidth WHERE account_id = ?',
            ):
                tx.execute(statement, (account_id,))
            self._dig(tx, boxes)
            tx.events += [MailboxGone(box[0]) for box in boxes]
            tx.events.append(AccountGone(account_id))
            tx.after.append(lambda: self._count_accounts(-1))
            return True

        return self._submit(work)

    def _count_accounts(self, change: int) -> None:
        self._account_count += change

    def _change_account(self, column: str, account_id: int, value: str | int) -> None:
        def work(tx: Transaction) -> None:
            row = tx.execute(
                f'UPDATE accounts SET {column} = ? WHERE id = ? RETURNING address',
                (value, account_id),
            ).fetchone()
            if row is None:
                raise KeyError('No such account')
            self._routes.pop(row[0], None)

        self._submit(work)

    def _uid_validity(self, tx: Transaction) -> int:
        """New for every mailbox of the shard, also for one made again in the same second.

        RFC 3501 2.3.1.1 asks for a growing number; the time is one that also grows
        when a lost database is replaced by an empty one.
        """
        return self._meta_next(tx, 'uid_validity', int(time.time()))
