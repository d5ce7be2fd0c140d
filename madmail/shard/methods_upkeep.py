"""The calls about upkeep and quota: tasks and purges as jobs, notices, limits of accounts.

Long work answers with a job at once; `job_state` waits for it as long as a call
may take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from madmail.message.notice import notice
from madmail.shard.calls import CallRefused
from madmail.store.interface import Account, Outcome, StoreFull
from madmail.store.spool import MemoryBody
from madmail.upkeep import removal
from madmail.upkeep.caretaker import ClockTrouble
from madmail.upkeep.job import Busy, Job, Work
from madmail.upkeep.task import find

if TYPE_CHECKING:
    from madmail.shard.process import Shard

LONGEST_WAIT = 10.0  # seconds, less than a call may take
PAGE = 500  # accounts with their usage in one answer
NOTICES = 20  # made and delivered between two pauses


class UpkeepMethods:
    """Those of one shard."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.methods: dict[str, Callable[..., Any]] = {
            'upkeep_status': self.upkeep_status,
            'upkeep_run': self.upkeep_run,
            'purge': self.purge,
            'outbox_purge': self.outbox_purge,
            'notice': self.notice,
            'job_state': self.job_state,
            'quota_info': self.quota_info,
            'quota_set': self.quota_set,
            'quota_list': self.quota_list,
            'message_size_set': self.message_size_set,
            'storage': self.storage,
        }

    # -- jobs

    def upkeep_status(self) -> dict[str, Any]:
        return self._shard.upkeep.status()

    def upkeep_run(
        self, task: str, age: int = 0, dry_run: bool = False, trust_clock: bool = False
    ) -> int:
        found = find(task)
        if found is None:
            raise CallRefused('no-task')
        try:
            job = self._shard.upkeep.run(found, age=age, dry_run=dry_run, trust_clock=trust_clock)
        except ClockTrouble as trouble:
            raise CallRefused(f'clock-{trouble.reason}') from None
        except Busy:
            raise CallRefused('busy') from None
        return job.id

    def purge(
        self,
        address: str = '',
        seen: bool | None = None,
        age: int = 0,
        dry_run: bool = False,
    ) -> int:
        """Remove messages of one account or all; read or not; that came `age` seconds ago."""
        account_id = self._account(address).id if address else 0
        before = int(time.time()) - age if age else None

        def work(job: Job) -> None:
            removal.messages(
                self._shard.store,
                job,
                account_id=account_id,
                seen=seen,
                before=before,
                dry_run=dry_run,
            )

        return self._begin('purge', work)

    def outbox_purge(self, domain: str = '', age: int = 0, dry_run: bool = False) -> int:
        """Remove what waits: for one domain or all, that came `age` seconds ago or at all."""
        before = int(time.time()) - age if age else None

        def work(job: Job) -> None:
            removal.waiting(self._shard.store, job, domain=domain, before=before, dry_run=dry_run)

        return self._begin('outbox', work)

    def notice(self, subject: str, body: str, notice_id: bytes, address: str = '') -> int:
        """Deliver a notice to one account or all.

        Under the same `notice_id` an account gets it once, so it may be asked for again.
        """
        domain = self._shard.domain
        store = self._shard.store

        def recipients(job: Job) -> Iterable[str]:
            if address:
                job.total = 1
                yield address
                return
            job.total = store.account_count()
            after = ''
            while page := store.accounts(after, PAGE):
                yield from (account.address for account in page)
                after = page[-1].address

        def work(job: Job) -> None:
            failed = job.detail['failed'] = {}
            job.detail['sent'] = 0
            now = time.time()
            for number, recipient in enumerate(recipients(job), 1):
                message = MemoryBody(notice(domain, recipient, subject, body, now))
                mark = blake2b(recipient.encode(), key=notice_id, digest_size=16).digest()
                try:
                    (outcome,) = store.deliver(message, [recipient], delivery_id=mark)
                    word = '' if outcome is Outcome.STORED else outcome.value
                except StoreFull:
                    word = 'full'
                if word:
                    failed[word] = failed.get(word, 0) + 1
                else:
                    job.detail['sent'] += 1
                job.done += 1
                if not number % NOTICES:
                    job.step()

        if address:
            self._account(address)
        return self._begin('notice', work)

    def job_state(self, job: int, wait: float = 0.0) -> dict[str, Any]:
        """How far a job is, once it has ended or `wait` seconds are over."""
        found = self._shard.upkeep.jobs.find(job)
        if found is None:
            raise CallRefused('no-job')
        found.ended.wait(min(wait, LONGEST_WAIT))
        return found.as_dict()

    def _begin(self, kind: str, work: Work) -> int:
        try:
            return self._shard.upkeep.begin(kind, work).id
        except Busy:
            raise CallRefused('busy') from None

    # -- limits

    def quota_info(self, address: str) -> dict[str, Any]:
        return self._usage(self._account(address))

    def quota_set(self, address: str, quota: int) -> dict[str, Any]:
        """Bytes; -1 = the relay's default, 0 = no limit."""
        account = self._account(address)
        self._shard.store.set_quota(account.id, quota)
        self._shard.store.trim(account.id)
        return self._usage(account._replace(quota=quota))

    def message_size_set(self, address: str, limit: int) -> dict[str, Any]:
        """Bytes; 0 = the relay's limit."""
        account = self._account(address)
        self._shard.store.set_message_size(account.id, limit)
        return self._usage(account._replace(message_size=limit))

    def quota_list(self, after: str = '', limit: int = PAGE) -> list[dict[str, Any]]:
        return [
            self._usage(account) for account in self._shard.store.accounts(after, min(limit, PAGE))
        ]

    def storage(self, after: int = 0) -> dict[str, Any]:
        """Bytes and messages of a slice of the mailboxes; ask again with `last` unless 0."""
        size, messages, last = self._shard.store.storage(after)
        return {
            'bytes': size,
            'messages': messages,
            'last': last,
            'accounts': self._shard.store.account_count(),
        }

    def _usage(self, account: Account) -> dict[str, Any]:
        used, messages = self._shard.store.usage(account.id)
        default: int = self._shard.settings['limits.quota']
        return {
            'address': account.address,
            'created': account.created_day,
            'used': used,
            'messages': messages,
            'quota': default if account.quota < 0 else account.quota,
            'own': account.quota >= 0,
            'message_size': account.message_size,
        }

    def _account(self, address: str) -> Account:
        account = self._shard.store.account(address)
        if account is None:
            raise CallRefused('missing')
        return account
