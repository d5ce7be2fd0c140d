"""/admin/outbox: mail that waits for other relays, entry by entry."""

from __future__ import annotations

from itertools import islice
from typing import Any

from madmail.admin import queue
from madmail.admin.relay import Relay
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer, Handler

PART = 100  # entries told without a wish
MOST = 1000
PATIENCE = 20.0  # seconds; the rest goes on behind the answer


def get(relay: Relay, body: dict[str, Any]) -> Answer:
    """Sums, `destinations`, and `entries`: the oldest ones of each shard, or of `domain`.

    `limit` says how many (100).  An entry has `id`, `domain`, `mail_from`, `rcpt_to`,
    `body_bytes`, `tries_count`, `queued_at_unix`, `next_attempt_unix`, `last_error` and
    `under_way`; a destination `domain`, `count`, `bytes`, `oldest_unix`,
    `next_attempt_unix` and `last_error`.
    """
    domain = fields.text(body, 'domain', '')
    limit = fields.integer(body, 'limit', PART, least=0, most=MOST)
    entries = list(islice(queue.entries(relay, domain), limit))
    return Answer(body={**queue.status(relay), 'entries': entries})


def post(relay: Relay, body: dict[str, Any]) -> Answer:
    """`action` `retry`: try the destination of `id`, `domain`, or all now; `{"domains",
    "running"}`.
    """
    fields.action(body, 'retry')
    entry_id, domain = fields.text(body, 'id', ''), fields.text(body, 'domain', '')
    return Answer(body=queue.retry(relay, entry_id, domain))


def delete(relay: Relay, body: dict[str, Any]) -> Answer:
    """Remove `id`, or all for `domain`, without a word to the senders: `{"deleted": number}`."""
    entry_id = fields.text(body, 'id', '')
    if entry_id:
        return Answer(body={'deleted': queue.remove(relay, entry_id)['deleted']})
    done = queue.purge(relay, domain=fields.text(body, 'domain'), patience=PATIENCE)
    return Answer(body={'deleted': done.count})


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/outbox': {'GET': get, 'POST': post, 'DELETE': delete}
}
