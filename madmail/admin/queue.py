"""Mail that waits for other relays: what there is, trying it now, removing it.

An entry is named by its shard and its number there, `SHARD-NUMBER`.  A
destination is tried as a whole, because it is reachable for all its messages or
for none.  Mail that waits for a part of this relay is listed too, and a purge of
everything takes it along.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

from madmail.admin import work
from madmail.admin.federation import spelled
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.delivery.destination import parked

HERE = '(this relay)'  # the destination of mail for a shard that did not answer

_ID = re.compile(r'([0-9]{1,4})-([0-9]{1,18})')


def entries(relay: Relay, domain: str = '') -> Iterator[dict[str, Any]]:
    """What waits, shard by shard, oldest first; for one domain or all.  Refused: invalid."""
    name = spelled(domain) if domain else ''
    for shard in range(relay.shards):
        for entry in _pages(relay, shard, name):
            yield _shown(shard, entry)


def show(relay: Relay, entry_id: str) -> dict[str, Any]:
    """One entry.  Refused: invalid, missing."""
    return _shown(*_find(relay, entry_id))


def status(relay: Relay) -> dict[str, Any]:
    """Sums, and one row a destination in order of name; times are Unix seconds."""
    rows: dict[str, dict[str, Any]] = {}
    for shard in range(relay.shards):
        for entry in _pages(relay, shard):
            domain = _destination(entry)
            row = rows.setdefault(
                domain,
                {
                    'domain': domain,
                    'count': 0,
                    'bytes': 0,
                    'oldest_unix': entry['created'],
                    'next_attempt_unix': entry['next_try'],
                    'last_error': '',
                },
            )
            row['count'] += 1
            row['bytes'] += entry['size']
            row['oldest_unix'] = min(row['oldest_unix'], entry['created'])
            row['next_attempt_unix'] = min(row['next_attempt_unix'], entry['next_try'])
            row['last_error'] = entry['last_error'] or row['last_error']
    return {
        'count': sum(row['count'] for row in rows.values()),
        'bytes': sum(row['bytes'] for row in rows.values()),
        'initial_retry_secs': relay.settings['queue.first_retry'],
        'max_tries': relay.settings['queue.tries'] or None,
        'max_delivery_secs': relay.settings['queue.lifetime'] or None,
        'running': relay.running,
        'destinations': [rows[domain] for domain in sorted(rows)],
    }


def retry(relay: Relay, entry_id: str = '', domain: str = '') -> dict[str, Any]:
    """Try the destination of an entry, a domain, or without both everything now.

    Answers with the destinations that had mail and whether there is a courier to
    try them; without, they are due when the relay starts.  Refused: invalid, missing.
    """
    if entry_id:
        _, entry = _find(relay, entry_id)
        wanted = entry['domain']
        names = [_destination(entry)]
    else:
        wanted = spelled(domain) if domain else ''
        names = _waiting(relay)
        if wanted:
            names = [wanted] if wanted in names else []
            if not names:
                raise Refused('missing', f'nothing waits for {wanted}')
    for shard in range(relay.shards):
        relay.call_shard(shard, 'outbox_hasten', domain=wanted)
    relay.publish('outbox', {'retry': True, 'domain': wanted})
    return {'domains': names, 'running': relay.running}


def remove(relay: Relay, entry_id: str) -> dict[str, Any]:
    """Remove one entry without a word to its sender.  Refused: invalid, missing."""
    shard, entry = _find(relay, entry_id)
    relay.call_shard(shard, 'outbox_remove', entry_id=entry['id'])
    shown = _shown(shard, entry)
    return {
        'id': shown['id'],
        'mail_from': shown['mail_from'],
        'rcpt_to': shown['rcpt_to'],
        'deleted': 1,
    }


def purge(
    relay: Relay,
    *,
    domain: str = '',
    age: int = 0,
    dry_run: bool = False,
    progress: work.Progress | None = None,
    patience: float | None = None,
) -> work.Done:
    """Remove what waits without a word to its senders: all of it, what is for `domain`, what
    was accepted `age` seconds ago, or both.  Refused: invalid.
    """
    return work.run(
        relay,
        'outbox_purge',
        domain=spelled(domain) if domain else '',
        age=age,
        dry_run=dry_run,
        progress=progress,
        patience=patience,
    )


def purge_of(
    relay: Relay,
    address: str,
    *,
    sender: bool = True,
    recipient: bool = True,
    dry_run: bool = False,
) -> int:
    """Remove the entries that are from or to an address, as asked; how many."""
    wanted = address.lower()
    found = []
    for shard in range(relay.shards):
        for entry in _pages(relay, shard):
            shown = _shown(shard, entry)
            if (sender and shown['mail_from'].lower() == wanted) or (
                recipient and wanted in (one.lower() for one in shown['rcpt_to'])
            ):
                found.append((shard, entry['id']))
    if not dry_run:
        for shard, number in found:
            relay.call_shard(shard, 'outbox_remove', entry_id=number)
    return len(found)


def _pages(relay: Relay, shard: int, domain: str = '') -> Iterator[dict[str, Any]]:
    after = 0
    while page := relay.call_shard(shard, 'outbox_list', after=after, domain=domain):
        yield from page
        after = page[-1]['id']


def _waiting(relay: Relay) -> list[str]:
    """Destinations with mail, in order of name."""
    names: set[str] = set()
    for shard in range(relay.shards):
        names.update(relay.call_shard(shard, 'outbox_count'))
    return sorted({HERE if parked(name) else name for name in names})


def _find(relay: Relay, entry_id: str) -> tuple[int, dict[str, Any]]:
    match = _ID.fullmatch(entry_id.strip())
    if match is None:
        raise Refused('invalid', f'{entry_id} is not an id, such as 0-17; see "queue list"')
    shard = int(match[1])
    entry = None
    if shard < relay.shards:
        entry = relay.call_shard(shard, 'outbox_entry', entry_id=int(match[2]))
    if entry is None:
        raise Refused('missing', f'{entry_id} is not waiting')
    return shard, entry


def _destination(entry: dict[str, Any]) -> str:
    return HERE if parked(entry['domain']) else entry['domain']


def _shown(shard: int, entry: dict[str, Any]) -> dict[str, Any]:
    fetched = entry['leased_until'] > time.time()
    return {
        'id': f'{shard}-{entry["id"]}',
        'domain': _destination(entry),
        'mail_from': entry['sender'],
        'rcpt_to': entry['recipients'],
        'body_bytes': entry['size'],
        'tries_count': entry['tries'],
        'queued_at_unix': entry['created'],
        'next_attempt_unix': entry['next_try'],
        'last_error': entry['last_error'],
        'under_way': fetched,
    }
