"""Quota, purges, notices and tasks in the admin API.

Long work is waited for up to PATIENCE; what is not done by then goes on, and the
answer says how far it was.
"""

from __future__ import annotations

from typing import Any

from madmail.admin import notice, purge, quota, upkeep
from madmail.admin.relay import Relay
from madmail.message.notice import BODY_LIMIT, SUBJECT_LIMIT
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer

PATIENCE = 25.0  # seconds


def quota_get(relay: Relay, body: dict[str, Any]) -> Answer:
    """Of the account `username`: what it holds and may hold; without, of the relay."""
    username = fields.text(body, 'username', '')
    return Answer(200, quota.get(relay, username) if username else quota.overview(relay))


def quota_put(relay: Relay, body: dict[str, Any]) -> Answer:
    """Set `max_bytes` for `username`, or the default without one; 0 or less goes back."""
    most = fields.integer(body, 'max_bytes')
    username = fields.text(body, 'username', '')
    if username:
        return Answer(200, quota.set_(relay, username, most))
    return Answer(200, quota.set_default(relay, most))


def quota_delete(relay: Relay, body: dict[str, Any]) -> Answer:
    """Back to the default for `username`."""
    return Answer(200, quota.reset(relay, fields.text(body, 'username')))


def queue_post(relay: Relay, body: dict[str, Any]) -> Answer:
    """Remove mail at once: `action` says what, `dry_run` only counts.

    purge_user needs `username`; purge_older and purge_blobs_older need `retention`.
    """
    retention = body.get('retention')
    return Answer(
        200,
        purge.perform(
            relay,
            fields.action(body, *purge.ACTIONS),
            username=fields.text(body, 'username', ''),
            retention=retention if isinstance(retention, str | int) else None,
            dry_run=fields.boolean(body, 'dry_run', False),
            patience=PATIENCE,
        ),
    )


def notice_get(relay: Relay, body: dict[str, Any]) -> Answer:
    """Whom a notice would reach."""
    return Answer(200, notice.info(relay))


def notice_post(relay: Relay, body: dict[str, Any]) -> Answer:
    """Send `subject` and `body` to `recipient`, or to everybody without one."""
    sent = notice.send(
        relay,
        fields.text(body, 'subject', limit=SUBJECT_LIMIT),
        fields.text(body, 'body', limit=BODY_LIMIT),
        fields.text(body, 'recipient', ''),
        patience=PATIENCE,
    )
    return Answer(200 if sent['sent'] or sent.get('unfinished') else 500, sent)


def tasks_get(relay: Relay, body: dict[str, Any]) -> Answer:
    """The tasks of upkeep: when they were done and are due."""
    return Answer(200, upkeep.tasks(relay))


def tasks_post(relay: Relay, body: dict[str, Any]) -> Answer:
    """Do `task` now; `retention` in place of what the settings say, `dry_run` only counts."""
    retention = body.get('retention')
    return Answer(
        200,
        upkeep.run(
            relay,
            fields.text(body, 'task'),
            age=purge.age(retention) if isinstance(retention, str | int) else 0,
            dry_run=fields.boolean(body, 'dry_run', False),
            patience=PATIENCE,
        ),
    )


RESOURCES = {
    '/admin/quota': {'GET': quota_get, 'PUT': quota_put, 'DELETE': quota_delete},
    '/admin/queue': {'POST': queue_post},
    '/admin/notice': {'GET': notice_get, 'POST': notice_post},
    '/admin/tasks': {'GET': tasks_get, 'POST': tasks_post},
}
