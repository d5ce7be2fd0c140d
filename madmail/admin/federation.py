"""Federation: with whom the relay exchanges mail, and how that goes."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, NamedTuple

from madmail.account.address import mail_domain
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.delivery.destination import parked
from madmail.delivery.federation import BadDomain, key
from madmail.delivery.tracker import Peer
from madmail.store.control import Listed

POLICIES = ('ACCEPT', 'REJECT')


def state(relay: Relay) -> dict[str, Any]:
    """`enabled`, and `policy` in capitals."""
    settings = relay.settings
    return {
        'enabled': settings['federation.enabled'],
        'policy': settings['federation.policy'].upper(),
    }


def enable(relay: Relay, on: bool) -> None:
    _set(relay, 'federation.enabled', 'true' if on else 'false')


def set_policy(relay: Relay, policy: str) -> None:
    """ACCEPT: all domains but those that have a rule; REJECT: only those.  Refused: invalid."""
    if policy.upper() not in POLICIES:
        raise Refused('invalid', f'the policy is {" or ".join(POLICIES)}')
    _set(relay, 'federation.policy', policy.lower())


def action(relay: Relay) -> str:
    """What a rule does under the policy in force: allow or block."""
    return 'allow' if state(relay)['policy'] == 'REJECT' else 'block'


# -- rules


def rules(relay: Relay) -> list[dict[str, Any]]:
    """In order of domain; `created_at` in Unix seconds."""
    return [_listed(one) for one in relay.control.rules()]


def add_rule(relay: Relay, domain: str) -> str:
    """The name it is stored under; nothing changes if there is one.  Refused: invalid."""
    name = foreign(relay, domain)
    relay.control.add_rule(name, int(time.time()))
    relay.publish('federation', {})
    return name


def remove_rule(relay: Relay, domain: str) -> str:
    """Refused: invalid, missing."""
    name = spelled(domain)
    if not relay.control.remove_rule(name):
        raise Refused('missing', f'{name} has no rule')
    relay.publish('federation', {})
    return name


def flush_rules(relay: Relay) -> None:
    relay.control.flush_rules()
    relay.publish('federation', {})


# -- domains whose mail is thrown away


def dismissed(relay: Relay) -> list[dict[str, Any]]:
    """In order of domain; `created_at` in Unix seconds."""
    return [_listed(one) for one in relay.control.dismissed()]


def dismiss(relay: Relay, domain: str) -> str:
    """The name it is stored under; nothing changes if it is dismissed.  Refused: invalid."""
    name = foreign(relay, domain)
    relay.control.dismiss(name, int(time.time()))
    relay.publish('federation', {})
    return name


def undismiss(relay: Relay, domain: str) -> str:
    """Refused: invalid, missing."""
    name = spelled(domain)
    if not relay.control.undismiss(name):
        raise Refused('missing', f'{name} is not dismissed')
    relay.publish('federation', {})
    return name


def flush_dismissed(relay: Relay) -> None:
    relay.control.flush_dismissed()
    relay.publish('federation', {})


# -- how it goes


class Server(NamedTuple):
    """Exchange with one domain; counts are as of half a minute ago."""

    domain: str
    peer: Peer  # what was sent there
    waiting: int  # messages, now
    inbound: int  # messages that came from there, their origin proved
    last_active: int  # Unix seconds, 0 = never

    @property
    def mean_latency_ms(self) -> float:
        return round(self.peer.latency_ms / self.peer.successes, 1) if self.peer.successes else 0


def servers(relay: Relay) -> list[Server]:
    """In order of domain."""
    waiting = queued(relay)
    peers = {domain: Peer(**counts) for domain, counts in relay.control.peers()}
    inbound = relay.control.inbound()
    found = []
    for domain in sorted({*waiting, *peers, *inbound}):
        peer = peers.get(domain, Peer())
        count, seen = inbound.get(domain, (0, 0))
        found.append(Server(domain, peer, waiting[domain], count, max(seen, peer.last_seen)))
    return found


def queued(relay: Relay) -> Counter[str]:
    """Messages that wait, by destination."""
    waiting: Counter[str] = Counter()
    for shard in range(relay.shards):
        found = relay.call_shard(shard, 'outbox_count')
        waiting.update({domain: count for domain, count in found.items() if not parked(domain)})
    return waiting


def spelled(domain: str) -> str:
    """The stored spelling.  Refused: invalid."""
    try:
        return key(domain)
    except BadDomain as error:
        raise Refused('invalid', str(error)) from None


def foreign(relay: Relay, domain: str) -> str:
    """The same for a domain that is not ours, which no rule would touch.  Refused: invalid."""
    name = spelled(domain)
    if name == mail_domain(relay.settings['domain']):
        raise Refused('invalid', f'{name} is the domain of this relay')
    return name


def _listed(one: Listed) -> dict[str, Any]:
    return {'domain': one.domain, 'created_at': one.since}


def _set(relay: Relay, name: str, value: str) -> None:
    relay.control.set_setting(name, value)
    relay.publish('settings', {})
