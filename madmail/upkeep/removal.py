"""The removal itself: messages by age and flag, accounts, files, mail that waits.

Every function goes through its shard in slices and tells a `Job` after each how
many it has removed, or with `dry_run` would remove.  Done twice it does no harm.
Times are Unix seconds, ages seconds.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable

from madmail.store.interface import Account, Store
from madmail.upkeep.job import Job

DAY = 86_400
EPOCH = calendar.timegm((2020, 1, 1, 0, 0, 0))  # what claims to be older has no date
BULK = 20_000  # messages expired between two pauses, about 150 ms of CPU
ACCOUNTS = 500  # looked at between two pauses
ENTRIES = 200  # of the outbox


def old_messages(
    store: Store,
    job: Job,
    before: int,
    now: int,
    *,
    since: int = EPOCH,
    larger_than: int = 0,
    dry_run: bool = False,
) -> None:
    """What is dated from `since` and before `before`; with `larger_than`, above so many bytes."""
    if dry_run:
        job.step(store.overdue(before, larger_than=larger_than, since=since))
        return
    while True:
        count = store.expire(before, BULK, larger_than, since=since)
        job.step(count)
        if count < BULK:
            break
    if not larger_than:
        _undated(store, job, before, now)


def _undated(store: Store, job: Job, before: int, now: int) -> None:
    """The same for messages whose date cannot be right: by the time that they are here."""
    after: tuple[int, int, int] | None = None
    while True:
        found, after = store.undated(EPOCH, now + DAY, now, after)
        boxes: dict[int, list[int]] = {}
        for mailbox_id, uid, since in found:
            if since < before:
                boxes.setdefault(mailbox_id, []).append(uid)
        for mailbox_id, uids in boxes.items():
            if store.mailbox_by_id(mailbox_id) is not None:
                job.step(len(store.remove(mailbox_id, uids)))
        if after is None:
            return
        job.step()


def messages(
    store: Store,
    job: Job,
    *,
    account_id: int = 0,
    seen: bool | None = None,
    before: int | None = None,
    dry_run: bool = False,
) -> None:
    """Messages of all accounts or one; with or without \\Seen; that came before a time."""
    mailbox_id = 0
    while ids := store.mailbox_ids(mailbox_id, account_id=account_id):
        for mailbox_id in ids:
            uid = 0
            while True:
                purged = store.purge(mailbox_id, uid, seen=seen, before=before, dry_run=dry_run)
                job.detail['bytes'] = job.detail.get('bytes', 0) + purged.size
                job.step(purged.messages)
                if not purged.last:
                    break
                uid = purged.last


def accounts(
    store: Store,
    job: Job,
    doomed: Callable[[Account], bool],
    delete: Callable[[Account], bool],
    now: int,
    *,
    dry_run: bool = False,
) -> None:
    """Accounts that `doomed` says, with everything they own.

    It is asked twice, the second time with the account as it is right before it goes.
    """
    today = now // DAY * DAY
    after = ''
    while page := store.accounts(after, ACCOUNTS):
        after = page[-1].address
        for account in page:
            if _misdated(account, today):
                store.redate_account(account.id, EPOCH, today)
            elif doomed(account):
                fresh = store.account_by_id(account.id)
                if fresh is not None and doomed(fresh):
                    job.step(1 if dry_run or delete(fresh) else 0)
        job.step()


def _misdated(account: Account, today: int) -> bool:
    """Whether it was made or used while the clock was wrong."""
    created, used = account.created_day, account.last_login_day
    if not EPOCH <= created <= today + DAY:
        return True
    return bool(used) and not EPOCH <= used <= today + DAY


def waiting(
    store: Store,
    job: Job,
    *,
    domain: str = '',
    before: int | None = None,
    dry_run: bool = False,
) -> None:
    """Mail that waits for other relays, without a word to its senders.

    All of it, or what is for one domain, what was accepted before a time, or both.
    """
    after = 0
    while page := store.outbox_list(after, ENTRIES, domain):
        after = page[-1].id
        some = [one for one in page if before is None or one.created < before]
        if not dry_run:
            for entry in some:
                store.outbox_remove(entry.id)
        job.step(len(some))
