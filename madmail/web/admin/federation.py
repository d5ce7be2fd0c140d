"""/admin/federation/… and /admin/settings/federation: with whom mail is exchanged."""

from __future__ import annotations

from typing import Any

from madmail.admin import federation
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.web.admin import fields, sizes
from madmail.web.admin.answer import Answer, Handler


def get_settings(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"enabled", "policy", "max_federation_size", "federation_size_effective",
    "federation_size_effective_bytes"}`; the policy is ACCEPT or REJECT.
    """
    return Answer(body={**federation.state(relay), **sizes.federation_members(relay)})


def post_settings(relay: Relay, body: dict[str, Any]) -> Answer:
    """Change `enabled` (true or false), `policy` (ACCEPT or REJECT) or both; answers as GET."""
    enabled = None if body.get('enabled') is None else fields.boolean(body, 'enabled')
    policy = fields.text(body, 'policy', '')
    if policy:
        federation.set_policy(relay, policy)
    if enabled is not None:
        federation.enable(relay, enabled)
    return get_settings(relay, {})


def get_rules(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"rules": [{domain, created_at}], "total"}`: blocked under ACCEPT, allowed under REJECT."""
    rules = federation.rules(relay)
    return Answer(body={'rules': rules, 'total': len(rules)})


def post_rule(relay: Relay, body: dict[str, Any]) -> Answer:
    """Add a rule for `domain` (a name, `*.name` or an IP address): `{"domain", "total"}`."""
    domain = fields.text(body, 'domain')
    federation.add_rule(relay, domain)
    return Answer(body={'domain': domain, 'total': len(federation.rules(relay))})


def delete_rule(relay: Relay, body: dict[str, Any]) -> Answer:
    """Remove the rule of `domain`, if it has one: `{"domain", "remaining"}`."""
    domain = fields.text(body, 'domain')
    _unless_missing(federation.remove_rule, relay, domain)
    return Answer(body={'domain': domain, 'remaining': len(federation.rules(relay))})


def get_dismissed(relay: Relay, body: dict[str, Any]) -> Answer:
    """Domains whose mail is thrown away: `{"domains": [{domain, created_at}], "total"}`."""
    domains = federation.dismissed(relay)
    return Answer(body={'domains': domains, 'total': len(domains)})


def post_dismissed(relay: Relay, body: dict[str, Any]) -> Answer:
    """Take mail to `domain` from users and throw it away: `{"domain", "total"}`."""
    domain = fields.text(body, 'domain')
    federation.dismiss(relay, domain)
    return Answer(body={'domain': domain, 'total': len(federation.dismissed(relay))})


def delete_dismissed(relay: Relay, body: dict[str, Any]) -> Answer:
    """Send mail to `domain` again: `{"domain", "remaining"}`."""
    domain = fields.text(body, 'domain')
    _unless_missing(federation.undismiss, relay, domain)
    return Answer(body={'domain': domain, 'remaining': len(federation.dismissed(relay))})


def get_servers(relay: Relay, body: dict[str, Any]) -> Answer:
    """Exchange by domain, as of half a minute ago, the queue as of now: `{"servers", "total"}`.

    Each has `domain`, `queued_messages`, `failed_` and `success_` with `http`, `https` and
    `smtp`, `inbound_deliveries`, `successful_deliveries`, `mean_latency_ms` and `last_active`
    (Unix seconds).
    """
    servers = [
        {
            'domain': one.domain,
            'queued_messages': one.waiting,
            'failed_http': one.peer.failed_http,
            'failed_https': one.peer.failed_https,
            'failed_smtp': one.peer.failed_smtp,
            'success_http': one.peer.success_http,
            'success_https': one.peer.success_https,
            'success_smtp': one.peer.success_smtp,
            'inbound_deliveries': one.inbound,
            'successful_deliveries': one.peer.successes,
            'mean_latency_ms': one.mean_latency_ms,
            'last_active': one.last_active,
        }
        for one in federation.servers(relay)
    ]
    return Answer(body={'servers': servers, 'total': len(servers)})


def _unless_missing(remove: Any, relay: Relay, domain: str) -> None:
    try:
        remove(relay, domain)
    except Refused as refused:
        if refused.word != 'missing':
            raise


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/settings/federation': {'GET': get_settings, 'POST': post_settings},
    '/admin/federation/rules': {'GET': get_rules, 'POST': post_rule, 'DELETE': delete_rule},
    '/admin/federation/silent-dismiss': {
        'GET': get_dismissed,
        'POST': post_dismissed,
        'DELETE': delete_dismissed,
    },
    '/admin/federation/servers': {'GET': get_servers},
}
