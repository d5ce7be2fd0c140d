"""Mailboxes and subscriptions."""

from __future__ import annotations

from madmail.store.commit import Transaction
from madmail.store.expiry import Expiry
from madmail.store.interface import (
    Mailbox,
    MailboxExists,
    MailboxGone,
    MailboxMissing,
    MailboxNamed,
    SubscriptionChanged,
)

COLUMNS = (
    'id, account_id, name, uid_validity, uid_next, highest_modseq,'
    ' messages, unseen, size, special_use'
)
UNSEEN_STEP = 2000  # rows looked at in one direction before trying the other


class Mailboxes(Expiry):
    """The part of the store that knows mailboxes.

    Everything STATUS asks for stands in the mailbox's row.
    """

    def mailboxes(self, account_id: int) -> list[Mailbox]:
        """All of an account's, in order of name."""
        rows = self._read(
            f'SELECT {COLUMNS} FROM mailboxes WHERE account_id = ? ORDER BY name', (account_id,)
        )
        return [Mailbox._make(row) for row in rows.fetchall()]

    def mailbox(self, account_id: int, name: str) -> Mailbox | None:
        row = self._read(
            f'SELECT {COLUMNS} FROM mailboxes WHERE account_id = ? AND name = ?',
            (account_id, name),
        ).fetchone()
        return None if row is None else Mailbox._make(row)

    def mailbox_by_id(self, mailbox_id: int) -> Mailbox | None:
        row = self._read(f'SELECT {COLUMNS} FROM mailboxes WHERE id = ?', (mailbox_id,)).fetchone()
        return None if row is None else Mailbox._make(row)

    def first_unseen(self, mailbox_id: int) -> int:
        """The lowest UID without \\Seen, 0 if there is none.

        Unseen mail is mostly at one end: looks from below, and from above until as
        many as the row counts have been met, by turns.
        """
        mailbox = self.mailbox_by_id(mailbox_id)
        if mailbox is None or not mailbox.unseen:
            return 0
        left, low, high, lowest = mailbox.unseen, 0, mailbox.uid_next, 0
        while low < high:
            found, low = self._one(
                'SELECT min(CASE WHEN flags & 1 THEN NULL ELSE uid END), max(uid)'
                ' FROM (SELECT uid, flags FROM messages WHERE mailbox_id = ? AND uid > ?'
                ' ORDER BY uid LIMIT ?)',
                mailbox_id,
                low,
                UNSEEN_STEP,
            )
            if found is not None:
                return int(found)
            if low is None:
                break
            found, count, high = self._one(
                'SELECT min(CASE WHEN flags & 1 THEN NULL ELSE uid END), sum(NOT flags & 1),'
                ' min(uid) FROM (SELECT uid, flags FROM messages WHERE mailbox_id = ? AND uid < ?'
                ' ORDER BY uid DESC LIMIT ?)',
                mailbox_id,
                high,
                UNSEEN_STEP,
            )
            if high is None:
                break
            left -= count
            lowest = found or lowest
            if left <= 0:
                break
        return lowest

    def deleted(self, mailbox_id: int) -> tuple[int, int]:
        """(messages, bytes) that carry \\Deleted."""
        row = self._one(
            'SELECT count(*), coalesce(sum(size), 0) FROM messages INDEXED BY deleted'
            ' WHERE mailbox_id = ? AND flags & 8',
            mailbox_id,
        )
        return row[0], row[1]

    def create_mailbox(self, account_id: int, name: str, special_use: str = '') -> Mailbox:
        """Raises MailboxExists, and MailboxMissing when the account is gone.

        The UID validity is new for every incarnation.
        """

        def work(tx: Transaction) -> Mailbox:
            if not tx.execute('SELECT 1 FROM accounts WHERE id = ?', (account_id,)).fetchone():
                raise MailboxMissing
            if tx.execute(
                'SELECT 1 FROM mailboxes WHERE account_id = ? AND name = ?', (account_id, name)
            ).fetchone():
                raise MailboxExists
            row = tx.execute(
                'INSERT INTO mailboxes (account_id, name, uid_validity, special_use)'
                f' VALUES (?, ?, ?, ?) RETURNING {COLUMNS}',
                (account_id, name, self._uid_validity(tx), special_use),
            ).fetchone()
            tx.events.append(MailboxNamed(account_id, row[0], '', name))
            return Mailbox._make(row)

        return self._submit(work)

    def delete_mailbox(self, mailbox_id: int) -> None:
        """Without inferiors.  Raises MailboxMissing, ValueError for INBOX (RFC 3501 6.3.4)."""

        def work(tx: Transaction) -> None:
            row = tx.execute(
                'SELECT name, messages, account_id FROM mailboxes WHERE id = ?', (mailbox_id,)
            ).fetchone()
            if row is None:
                raise MailboxMissing
            if row[0] == 'INBOX':
                raise ValueError('INBOX cannot be deleted')
            tx.execute('DELETE FROM mailboxes WHERE id = ?', (mailbox_id,))
            tx.execute('DELETE FROM metadata WHERE mailbox_id = ?', (mailbox_id,))
            self._dig(tx, [(mailbox_id, row[1])])
            tx.events.append(MailboxNamed(row[2], mailbox_id, row[0], ''))
            tx.events.append(MailboxGone(mailbox_id))

        self._submit(work)

    def rename_mailbox(self, mailbox_id: int, name: str) -> None:
        """With inferiors (`old/…`), in one transaction.

        Raises MailboxMissing and MailboxExists.  INBOX stays and its messages move to
        a new mailbox, in slices if there are many (RFC 3501 6.3.5).
        """
        mailbox = self.mailbox_by_id(mailbox_id)
        if mailbox is None:
            raise MailboxMissing
        if mailbox.name == 'INBOX':
            target = self.create_mailbox(mailbox.account_id, name)
            self.move(mailbox_id, self.uids(mailbox_id, 1, mailbox.uid_next - 1), target.id)
            return

        def work(tx: Transaction) -> None:
            row = tx.execute(
                'SELECT account_id, name FROM mailboxes WHERE id = ?', (mailbox_id,)
            ).fetchone()
            if row is None:
                raise MailboxMissing
            account_id, old = row
            names: dict[int, str] = dict(
                tx.execute(
                    'SELECT id, name FROM mailboxes WHERE account_id = ?', (account_id,)
                ).fetchall()
            )
            if name in names.values():
                raise MailboxExists
            moved = {
                box: name + former[len(old) :]
                for box, former in names.items()
                if former == old or former.startswith(old + '/')
            }
            staying = {former for box, former in names.items() if box not in moved}
            if not staying.isdisjoint(moved.values()):
                raise MailboxExists
            # Names may trade places (a → a/a), so first make them all free.
            tx.executemany(
                'UPDATE mailboxes SET name = ? WHERE id = ?',
                [(f'\0{box}', box) for box in moved],
            )
            tx.executemany(
                'UPDATE mailboxes SET name = ? WHERE id = ?',
                [(new, box) for box, new in moved.items()],
            )
            tx.events += [
                MailboxNamed(account_id, box, names[box], new) for box, new in moved.items()
            ]

        self._submit(work)

    # -- subscriptions

    def subscriptions(self, account_id: int) -> list[str]:
        rows = self._read(
            'SELECT name FROM subscriptions WHERE account_id = ? ORDER BY name', (account_id,)
        )
        return [row[0] for row in rows.fetchall()]

    def subscribe(self, account_id: int, name: str) -> None:
        """The mailbox need not exist (RFC 3501 6.3.6)."""

        def work(tx: Transaction) -> None:
            done = tx.execute(
                'INSERT INTO subscriptions SELECT id, ? FROM accounts WHERE id = ?'
                ' ON CONFLICT DO NOTHING',
                (name, account_id),
            )
            if done.rowcount:
                tx.events.append(SubscriptionChanged(account_id, name, True))

        self._submit(work)

    def unsubscribe(self, account_id: int, name: str) -> None:
        def work(tx: Transaction) -> None:
            done = tx.execute(
                'DELETE FROM subscriptions WHERE account_id = ? AND name = ?', (account_id, name)
            )
            if done.rowcount:
                tx.events.append(SubscriptionChanged(account_id, name, False))

        self._submit(work)
