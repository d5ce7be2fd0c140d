"""A notice of the operator to one account or all, straight into their INBOXes.

It is plain text and passes no policy.  Delta Chat since 2.51 throws unencrypted mail
away unless its user has switched `force_encryption` off; to who has, and in older
versions, it is a message from "Admin" in a chat of its own that asks for consent,
the subject before the text.
"""

from __future__ import annotations

import os
from typing import Any

from madmail.admin import work
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.message.notice import body_trouble, subject_trouble

REASONS = {
    'unknown': 'accounts were deleted meanwhile',
    'over_quota': 'mailboxes are full',
    'full': 'deliveries failed because the disk is full',
}


def info(relay: Relay) -> dict[str, Any]:
    """Whom a notice to all would reach."""
    users = sum(relay.call_shard(shard, 'statistics')['accounts'] for shard in range(relay.shards))
    return {'total_users': users, 'domain': relay.domain}


def send(
    relay: Relay,
    subject: str,
    body: str,
    recipient: str = '',
    *,
    progress: work.Progress | None = None,
    patience: float | None = None,
) -> dict[str, Any]:
    """To `recipient`, or to everybody.  Refused: invalid, missing."""
    trouble = subject_trouble(subject) or body_trouble(body)
    if trouble:
        raise Refused('invalid', trouble)
    address = relay.address(recipient.strip()) if recipient.strip() else ''
    if not address and not info(relay)['total_users']:
        raise Refused('invalid', 'there is nobody to send to')
    done = work.run(
        relay,
        'notice',
        address=address,
        progress=progress,
        patience=patience,
        subject=subject,
        body=body,
        notice_id=os.urandom(16),
    )
    failures: dict[str, int] = {}
    for detail in done.details:
        for word, count in detail.get('failed', {}).items():
            failures[word] = failures.get(word, 0) + count
    answer: dict[str, Any] = {
        'sent': sum(detail.get('sent', 0) for detail in done.details),
        'failed': sum(failures.values()),
    }
    if failures:
        answer['errors'] = [
            f'{count} {REASONS.get(word, word)}' for word, count in sorted(failures.items())
        ]
    if not done.finished:
        answer['unfinished'] = True
    return answer
