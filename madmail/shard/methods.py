"""The methods that a shard answers on call connections.

Each is named after what the store or the registry calls it.  Addresses are
canonical; a caller that asks about an account of another shard gets
`missing`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from madmail import log
from madmail.shard.calls import CallRefused, body_fields, body_from
from madmail.shard.methods_accounts import AccountMethods
from madmail.shard.methods_exchange import ExchangeMethods
from madmail.shard.methods_mail import MailMethods
from madmail.shard.methods_push import PushMethods
from madmail.shard.methods_status import StatusMethods
from madmail.shard.methods_upkeep import UpkeepMethods
from madmail.store.interface import MailboxExists, MailboxMissing, OutboxEntry, OverQuota, StoreFull

if TYPE_CHECKING:
    from madmail.shard.process import Shard

OUTBOX_PAGE = 500  # entries in one answer

_log = log.get('shard')


class ShardMethods:
    """The calls of one shard; `call` never raises."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._methods: dict[str, Callable[..., Any]] = {
            'deliver': self.deliver,
            'receive': self.receive,
            'outbox_due': self.outbox_due,
            'outbox_list': self.outbox_list,
            'outbox_older': self.outbox_older,
            'outbox_entry': self.outbox_entry,
            'outbox_postpone': self.outbox_postpone,
            'outbox_retry': self.outbox_retry,
            'outbox_remove': self.outbox_remove,
            'body': self.body,
            'statistics': self._shard.statistics,
            **AccountMethods(shard).methods,
            **StatusMethods(shard).methods,
            **UpkeepMethods(shard).methods,
            **MailMethods(shard).methods,
            **ExchangeMethods(shard).methods,
            **PushMethods(shard).methods,
        }

    def call(self, method: object, params: object) -> dict[str, Any]:
        function = self._methods.get(method) if isinstance(method, str) else None
        if function is None or not isinstance(params, dict):
            return {'ok': False, 'error': 'unknown-method'}
        try:
            return {'ok': True, 'result': function(**params)}
        except CallRefused as refused:
            return {'ok': False, 'error': refused.word}
        except StoreFull:
            return {'ok': False, 'error': 'full'}
        except (MailboxMissing, MailboxExists, OverQuota) as error:
            return {'ok': False, 'error': type(error).__name__}
        except TypeError:
            _log.exception('bad call')
            return {'ok': False, 'error': 'bad-request'}
        except Exception:
            _log.exception('call failed')
            return {'ok': False, 'error': 'failed'}

    def deliver(self, addresses: list[str], delivery_id: bytes, **body: Any) -> list[str]:
        outcomes = self._shard.store.deliver(body_from(body), addresses, delivery_id=delivery_id)
        return [outcome.value for outcome in outcomes]

    def receive(
        self, recipients: list[str], message_id: bytes, origin: str = '', **body: Any
    ) -> list[Any]:
        """Mail from elsewhere, judged already, to accounts of all shards; a Reply's fields.

        May be repeated at any shard, see Router.receive.
        """
        message = body_from(body)
        if message is None:
            raise CallRefused('bad-request')
        code, enhanced, text, cause, fault = self._shard.router.receive(
            recipients, message, message_id, origin
        )
        return [code, enhanced, text, cause, fault.value]

    # -- outbox

    def outbox_due(
        self, now: int, limit: int = 100, skip: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        return [_entry(entry) for entry in self._shard.store.outbox_due(now, limit, skip)]

    def outbox_older(self, created: int, limit: int = 100) -> list[dict[str, Any]]:
        return [_entry(entry) for entry in self._shard.store.outbox_older(created, limit)]

    def outbox_list(
        self, after: int = 0, limit: int = OUTBOX_PAGE, domain: str = ''
    ) -> list[dict[str, Any]]:
        """A page of what waits, in order of id, behind `after`."""
        found = self._shard.store.outbox_list(after, min(limit, OUTBOX_PAGE), domain)
        return [_entry(entry) for entry in found]

    def outbox_entry(self, entry_id: int) -> dict[str, Any] | None:
        entry = self._shard.store.outbox_entry(entry_id)
        return None if entry is None else _entry(entry)

    def outbox_retry(
        self,
        entry_id: int,
        next_try: int,
        error: str,
        recipients: list[str] | None = None,
        sender: str = '',
        **bounce: Any,
    ) -> None:
        self._shard.store.outbox_retry(
            entry_id,
            next_try,
            error,
            recipients=recipients,
            bounce=body_from(bounce),
            sender=sender,
            away=self._away(sender),
        )

    def outbox_postpone(self, domain: str, next_try: int, error: str) -> int:
        return self._shard.store.outbox_postpone(domain, next_try, error)

    def outbox_remove(self, entry_id: int, sender: str = '', **bounce: Any) -> None:
        self._shard.store.outbox_remove(
            entry_id, body_from(bounce), sender, away=self._away(sender)
        )

    def body(self, body_id: int) -> dict[str, Any]:
        body = self._shard.store.body(body_id)
        if body is None:
            raise CallRefused('missing')
        return body_fields(body)

    def _away(self, sender: str) -> OutboxEntry | None:
        """The entry as which a bounce leaves that is not for an account of this relay."""
        domain = sender.rpartition('@')[2]
        if not domain or domain == self._shard.domain:
            return None
        now = int(time.time())
        return OutboxEntry(0, '', domain, (sender,), now, next_try=now)


def _entry(entry: OutboxEntry) -> dict[str, Any]:
    return {
        'id': entry.id,
        'sender': entry.sender,
        'domain': entry.domain,
        'recipients': list(entry.recipients),
        'created': entry.created,
        'body_id': entry.body_id,
        'size': entry.size,
        'tries': entry.tries,
        'next_try': entry.next_try,
        'last_error': entry.last_error,
        'leased_until': entry.leased_until,
    }
