"""Removal of mail at once: by account, flag, age, and what waits for other relays.

`dry_run` counts and removes nothing.  What is removed is told to connected
sessions, and its space is free when the answer comes.
"""

from __future__ import annotations

from typing import Any

from madmail.admin import queue, work
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.settings.kinds import Duration, Wrong

ACTIONS = {
    'purge_user': 'all messages of one account',
    'purge_all': 'all messages of all accounts',
    'purge_blobs': 'all messages of all accounts',
    'purge_read': 'all messages that were read',
    'purge_read_blobs': 'all messages that were read',
    'purge_older': 'messages that were not read and are older than a time',
    'purge_blobs_older': 'messages older than a time',
    'purge_queue': 'all mail that waits for other relays',
}


def perform(
    relay: Relay,
    action: str,
    *,
    username: str = '',
    retention: str | int | None = None,
    dry_run: bool = False,
    progress: work.Progress | None = None,
    patience: float | None = None,
) -> dict[str, Any]:
    """One of ACTIONS; `retention` such as 24h, 30m, 7d or a number of seconds."""
    if action not in ACTIONS:
        raise Refused('invalid', f'action must be one of {", ".join(ACTIONS)}')
    params: dict[str, Any] = {'dry_run': dry_run}
    address = ''
    if action == 'purge_user':
        if not username.strip():
            raise Refused('invalid', 'username is required')
        address = relay.address(username)
    elif action in ('purge_read', 'purge_read_blobs'):
        params['seen'] = True
    elif action == 'purge_older':
        params |= {'seen': False, 'age': age(retention)}
    elif action == 'purge_blobs_older':
        params['age'] = age(retention)
    if action == 'purge_queue':
        done = queue.purge(relay, dry_run=dry_run, progress=progress, patience=patience)
    else:
        done = work.run(
            relay, 'purge', address=address, progress=progress, patience=patience, **params
        )
    what = 'entries' if action == 'purge_queue' else 'messages'
    verb = 'would be removed' if dry_run else 'removed'
    message = f'{done.count} {what} {verb}'
    if not done.finished:
        message += ' so far, the rest goes on'
    answer = {'action': action, 'message': message, 'deleted': done.count}
    if dry_run:
        answer['dry_run'] = True
    return answer


def age(retention: str | int | None) -> int:
    """Seconds, above 0.  Refused: invalid."""
    if retention is None or isinstance(retention, bool) or retention == '':
        raise Refused('invalid', 'retention is required, for example 24h')
    try:
        seconds = Duration(1).check(
            retention.strip() if isinstance(retention, str) else int(retention)
        )
    except (Wrong, TypeError, ValueError):
        raise Refused('invalid', 'retention must be a duration above 0, such as 24h') from None
    assert isinstance(seconds, int)
    return seconds
