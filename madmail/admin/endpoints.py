"""Endpoints: where mail for a domain goes instead of where DNS says."""

from __future__ import annotations

import time
from typing import Any

from madmail.account.address import mail_domain
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.delivery.federation import BadDomain, BadTarget, key, target
from madmail.store.control import Endpoint

COMMENT_LIMIT = 500  # characters


def entries(relay: Relay) -> list[dict[str, Any]]:
    """In order of domain."""
    return [_entry(one) for one in relay.control.endpoints()]


def get(relay: Relay, domain: str) -> dict[str, Any]:
    """Refused: invalid, missing."""
    name = spelled(domain)
    found = relay.control.endpoint(name)
    if found is None:
        wider = _wider(relay, name)
        others = f'; that of {wider} is used' if wider else ''
        raise Refused('missing', f'{name} has no endpoint of its own{others}')
    return _entry(found)


def set_(
    relay: Relay, domain: str, where: str, comment: str = '', verify: bool | None = None
) -> dict[str, Any]:
    """New, or in place of the one there is; the entry as it is now.

    `where` is a URL of https, http or smtp, or a host; `verify` whether its certificate
    must be right, None = as for any host.  Refused: invalid.
    """
    name, where = spelled(domain), where.strip()
    if name == mail_domain(relay.settings['domain']):
        raise Refused('invalid', f'{name} is the domain of this relay')
    try:
        target(where, verify)
    except BadTarget as error:
        raise Refused('invalid', str(error)) from None
    if len(comment) > COMMENT_LIMIT or not comment.isprintable():
        raise Refused('invalid', f'a comment is one line of at most {COMMENT_LIMIT} characters')
    relay.control.set_endpoint(name, where, verify, comment, int(time.time()))
    relay.publish('federation', {})
    return get(relay, name)


def remove(relay: Relay, domain: str) -> str:
    """The name it was stored under.  Refused: invalid, missing."""
    name = spelled(domain)
    if not relay.control.remove_endpoint(name):
        raise Refused('missing', f'{name} has no endpoint of its own')
    relay.publish('federation', {})
    return name


def spelled(domain: str) -> str:
    """The stored spelling.  Refused: invalid."""
    try:
        return key(domain, every=True)
    except BadDomain as error:
        raise Refused('invalid', str(error)) from None


def _wider(relay: Relay, name: str) -> str:
    """The wildcard whose endpoint holds for a name that has none; '' when there is none."""
    labels = [] if name.startswith('[') else name.split('.')
    below = [f'*.{".".join(labels[n:])}' for n in range(1, len(labels))]
    return next((one for one in (*below, '*') if relay.control.endpoint(one)), '')


def _entry(endpoint: Endpoint) -> dict[str, Any]:
    try:
        verify = target(endpoint.target, endpoint.verify).verify
    except BadTarget:  # stored by a version that knew more
        verify = True
    return {
        'lookup_key': endpoint.domain,
        'target_host': endpoint.target,
        'verify': verify,
        'comment': endpoint.comment,
        'created_at': endpoint.created,
        'updated_at': endpoint.updated,
    }
