"""Push tokens of accounts, and which of them are to be told of mail.

A token is what a device gave so that it can be woken; what is in it only the
notification service can read.  When it was renewed is kept as a day: when exactly
a device was on is nobody's business, and a renewal on the same day writes nothing.

A token that is due has a row in `push_due`, written by the delivery's own
transaction, so mail is never there without it.  One row a token, whatever comes:
`since` is the first message it stands for, `latest` the newest, `news` a number that
grows by one with each, from a random one, so that a late answer meets no later row.
Whoever sends notifications takes what is due and says later what became of it
(`push_settle`).  What came in between is seen by `news`, and makes the token due again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

from madmail.store.commit import Transaction
from madmail.store.interface import DueToken, MailboxMissing, Settled
from madmail.store.mailboxes import Mailboxes

DAY = 86_400  # seconds
KEPT_DAYS = 90  # a token is good for after its renewal
LONGEST = 5000  # seconds; no pause is longer, unless the clock was wrong meanwhile
FORGOTTEN = 200  # old tokens removed in one job


class Devices(Mailboxes):
    """The part of the store that knows devices."""

    notifying = True  # whether deliveries make tokens due
    announce_due: Callable[[], object] = staticmethod(lambda: None)  # on the loop, must not block

    def device_tokens(self, account_id: int) -> list[str]:
        """Tokens that are good, longest ago renewed first."""
        rows = self._read(
            'SELECT token FROM push_tokens WHERE account_id = ? AND renewed > ?'
            ' ORDER BY renewed, id',
            (account_id, _oldest()),
        )
        return [row[0] for row in rows.fetchall()]

    def add_device_token(self, account_id: int, token: str, limit: int) -> None:
        """Add or renew one; of more than `limit` the oldest go.  Raises MailboxMissing
        when the account is gone."""
        today = int(time.time()) // DAY * DAY
        known = self._read(
            'SELECT 1 FROM push_tokens WHERE account_id = ? AND token = ? AND renewed = ?',
            (account_id, token, today),
        ).fetchone()
        if known:
            return  # PERF: clients say it once a connection; only the first of a day is written

        def work(tx: Transaction) -> None:
            account = tx.execute(
                'SELECT address FROM accounts WHERE id = ?', (account_id,)
            ).fetchone()
            if account is None:
                raise MailboxMissing
            renewed = tx.execute(
                'UPDATE push_tokens SET renewed = ? WHERE account_id = ? AND token = ?',
                (today, account_id, token),
            ).rowcount
            if renewed:
                return
            tx.execute(
                'INSERT INTO push_tokens (account_id, token, renewed) VALUES (?, ?, ?)',
                (account_id, token, today),
            )
            over = tx.execute(
                'SELECT id FROM push_tokens WHERE account_id = ?'
                ' ORDER BY renewed DESC, id DESC LIMIT -1 OFFSET ?',
                (account_id, limit),
            ).fetchall()
            self._forget_tokens(tx, [row[0] for row in over])
            self._routes.pop(account[0], None)

        self._submit(work)

    def forget_old_tokens(self) -> int:
        """Remove a slice of those that are not good any more; how many."""

        def work(tx: Transaction) -> int:
            rows = tx.execute(
                'SELECT id FROM push_tokens WHERE renewed <= ? LIMIT ?', (_oldest(), FORGOTTEN)
            ).fetchall()
            self._forget_tokens(tx, [row[0] for row in rows])
            return len(rows)

        if not self._read(
            'SELECT 1 FROM push_tokens WHERE renewed <= ? LIMIT 1', (_oldest(),)
        ).fetchone():
            return 0
        return self._submit(work)

    # -- for who sends notifications

    def push_due(self, now: int, limit: int, skip: Sequence[int] = ()) -> list[DueToken]:
        """Tokens to be told now, longest due first, but for the ids `skip`."""
        rows = self._read(
            'SELECT d.token_id, t.token, d.since, d.tries, d.news FROM push_due d'
            ' JOIN push_tokens t ON t.id = d.token_id WHERE d.next_try <= ?'
            ' AND d.token_id NOT IN (SELECT value FROM json_each(?))'
            ' ORDER BY d.next_try, d.token_id LIMIT ?',
            (now, json.dumps(list(skip)), limit),
        )
        return [DueToken._make(row) for row in rows.fetchall()]

    def push_next(self, now: int) -> int:
        """When the next one comes due after `now`, Unix time; 0 = none waits."""
        row = self._one('SELECT min(next_try) FROM push_due WHERE next_try > ?', now)
        return row[0] or 0

    def push_waiting(self) -> int:
        """How many tokens are to be told, now or later."""
        return int(self._one('SELECT count(*) FROM push_due')[0])

    def push_settle(self, outcomes: Sequence[Settled]) -> int:
        """Take over what became of tokens that were due; how many of them are due again.

        One that is done with is due again at once for messages that came after it was
        taken.  May be repeated.
        """
        now = int(time.time())

        def work(tx: Transaction) -> int:
            again = 0
            for one in outcomes:
                if one.gone:
                    self._forget_tokens(tx, [one.id])
                elif one.next_try:
                    tx.execute(
                        'UPDATE push_due SET tries = ?, next_try = ? WHERE token_id = ?',
                        (one.tries, one.next_try, one.id),
                    )
                elif not tx.execute(
                    'DELETE FROM push_due WHERE token_id = ? AND news = ?', (one.id, one.news)
                ).rowcount:
                    again += tx.execute(
                        'UPDATE push_due SET since = latest, tries = 0, next_try = ?'
                        ' WHERE token_id = ?',
                        (now, one.id),
                    ).rowcount
            return again

        return self._submit(work)

    # -- inside

    def _make_due(self, tx: Transaction, account_id: int, now: int) -> None:
        """Mail came for an account that has devices.

        PERF: 10 us for an account with one token; for one without it is not called.
        """
        if tx.execute(
            'INSERT INTO push_due SELECT id, ?2, ?2, abs(random() / 4), 0, ?2 FROM push_tokens'
            ' WHERE account_id = ?1 AND renewed > ?3'
            ' ON CONFLICT DO UPDATE SET latest = excluded.latest, news = news + 1,'
            ' next_try = min(next_try, excluded.latest + ?4)',
            (account_id, now, _oldest(now), LONGEST),
        ).rowcount:
            tx.after.append(self.announce_due)

    def _forget_tokens(self, tx: Transaction, ids: Sequence[int]) -> None:
        # What is remembered of their accounts' routes may go on saying that they have devices.
        tx.executemany('DELETE FROM push_due WHERE token_id = ?', [(one,) for one in ids])
        tx.executemany('DELETE FROM push_tokens WHERE id = ?', [(one,) for one in ids])


def _oldest(now: float | None = None) -> int:
    """The day up to which a renewal is too long ago."""
    return int(time.time() if now is None else now) // DAY * DAY - KEPT_DAYS * DAY
