"""federation …: with whom the relay exchanges mail."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

from madmail.cli.access import Access
from madmail.cli.accounts import day
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, table
from madmail.delivery.destination import parked
from madmail.delivery.federation import BadDomain, key
from madmail.delivery.tracker import Peer
from madmail.settings import overlay

_WRONG_WAY = {
    'allow': 'the policy is ACCEPT, under which a rule would block {0}; all are allowed that have '
    'no rule ("federation remove {0}"), or change the policy first',
    'block': 'the policy is REJECT, under which a rule would allow {0}; all are blocked that have '
    'no rule ("federation remove {0}"), or change the policy first',
}


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('federation', parents=options, help='with whom mail is exchanged')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)

    def verb(name: str, function: Any, text: str) -> Any:
        parser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=function)
        return parser

    policy_parser = verb('policy', policy, 'who is accepted without a rule: all or nobody')
    policy_parser.add_argument('policy', type=str.lower, choices=('accept', 'reject'))
    verb('enable', enable, 'exchange mail with other relays')
    verb('disable', enable, 'exchange no mail with other relays')
    for name, function, text in (
        ('block', add, 'no mail to or from a domain (policy accept)'),
        ('allow', add, 'mail to and from a domain (policy reject)'),
        ('remove', remove, 'remove the rule of a domain'),
        ('dismiss', dismiss, 'throw mail to a domain away without a word'),
        ('undismiss', undismiss, 'send mail to a domain again'),
    ):
        verb(name, function, text).add_argument(
            'domain', metavar='DOMAIN', help='a name, *.NAME for all below it, or an IP address'
        )
    verb('flush', flush, 'remove all rules')
    verb('list', list_, 'the policy and its rules')
    verb('status', status, 'what is in force')
    verb('dismiss-list', dismiss_list, 'domains whose mail is thrown away')
    verb('dismiss-flush', dismiss_flush, 'throw nothing away any more')


def domain_key(text: str) -> str:
    """The stored spelling.  Raises Failure."""
    try:
        return key(text)
    except BadDomain as error:
        raise Failure(str(error)) from None


def _settings(access: Access) -> tuple[bool, str]:
    """Whether federation is on, and the policy."""
    overlay(access.settings, access.control.settings())
    return access.settings['federation.enabled'], access.settings['federation.policy'].upper()


def _set(access: Access, name: str, value: str) -> None:
    access.control.set_setting(name, value)
    access.publish('settings', {})


def policy(invocation: Invocation) -> Result:
    wanted = invocation.arguments.policy
    with Access(invocation.load()) as access:
        _set(access, 'federation.policy', wanted)
        count = len(access.control.rules())
    meaning = {
        'accept': f'All domains are accepted but {count} that have a rule.',
        'reject': f'All domains are rejected but {count} that have a rule.',
    }
    return Result({'policy': wanted.upper()}, f'{wanted.upper()}: {meaning[wanted]}')


def enable(invocation: Invocation) -> Result:
    on = invocation.arguments.verb == 'enable'
    with Access(invocation.load()) as access:
        _set(access, 'federation.enabled', 'true' if on else 'false')
    return Result({'enabled': on}, f'Federation is {"on" if on else "off"}.')


def add(invocation: Invocation) -> Result:
    domain = domain_key(invocation.arguments.domain)
    action = invocation.arguments.verb
    with Access(invocation.load()) as access:
        if _action(_settings(access)[1]) != action:
            raise Failure(_WRONG_WAY[action].format(domain))
        access.control.add_rule(domain, int(time.time()))
        total = len(access.control.rules())
        access.publish('federation', {})
    done = 'Blocked' if action == 'block' else 'Allowed'
    return Result({'domain': domain, 'action': action, 'total': total}, f'{done} {domain}.')


def remove(invocation: Invocation) -> Result:
    domain = domain_key(invocation.arguments.domain)
    with Access(invocation.load()) as access:
        if not access.control.remove_rule(domain):
            raise Failure(f'{domain} has no rule')
        remaining = len(access.control.rules())
        access.publish('federation', {})
    return Result({'domain': domain, 'remaining': remaining}, f'Removed the rule of {domain}.')


def flush(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        access.control.flush_rules()
        access.publish('federation', {})
    return Result({'flushed': True, 'total': 0}, 'Removed all rules.')


def list_(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        name = _settings(access)[1]
        rules = access.control.rules()
    action = _action(name)
    data = {
        'policy': name,
        'rules': [{'domain': one.domain, 'action': action} for one in rules],
    }
    rows = [(one.domain, action, day(one.since)) for one in rules]
    text = f'Policy {name}; ' + (f'{len(rows)} rules:' if rows else 'there are no rules.')
    if rows:
        text += '\n' + table(('domain', 'action', 'since'), rows)
    return Result(data, text)


def status(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        on, name = _settings(access)
        traffic = _traffic(access)
        data: dict[str, Any] = {
            'enabled': on,
            'policy': name,
            'rules': len(access.control.rules()),
            'dismissed': len(access.control.dismissed()),
            'endpoints': len(access.control.endpoints()),
            'traffic': traffic,
        }
    text = (
        f'Federation is {"on" if on else "off"}, policy {name}, {data["rules"]} rules, '
        f'{data["dismissed"]} domains dismissed, {data["endpoints"]} endpoints given.'
    )
    if traffic:
        head = ('domain', 'delivered', 'queued', 'failed https', 'http', 'smtp')
        text += '\n' + table(head, [tuple(row.values()) for row in traffic])
    return Result(data, text)


_TRAFFIC = (
    'domain',
    'successful_deliveries',
    'queued_messages',
    'failed_https',
    'failed_http',
    'failed_smtp',
)


def _traffic(access: Access) -> list[dict[str, Any]]:
    """Counts by destination, as of half a minute ago; the queue as of now."""
    waiting = Counter(entry['domain'] for entry in access.outbox() if not parked(entry['domain']))
    peers = dict(access.control.peers())
    rows = []
    for domain in sorted(waiting.keys() | peers):
        peer = Peer(**peers.get(domain, {}))
        values = (
            domain,
            peer.successes,
            waiting[domain],
            peer.failed_https,
            peer.failed_http,
            peer.failed_smtp,
        )
        rows.append(dict(zip(_TRAFFIC, values, strict=True)))
    return rows


def dismiss(invocation: Invocation) -> Result:
    domain = domain_key(invocation.arguments.domain)
    with Access(invocation.load()) as access:
        access.control.dismiss(domain, int(time.time()))
        total = len(access.control.dismissed())
        access.publish('federation', {})
    text = f'Mail to {domain} is thrown away.'
    return Result({'domain': domain, 'total': total}, text)


def undismiss(invocation: Invocation) -> Result:
    domain = domain_key(invocation.arguments.domain)
    with Access(invocation.load()) as access:
        if not access.control.undismiss(domain):
            raise Failure(f'{domain} is not dismissed')
        remaining = len(access.control.dismissed())
        access.publish('federation', {})
    return Result({'domain': domain, 'remaining': remaining}, f'Mail to {domain} is sent again.')


def dismiss_list(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        found = access.control.dismissed()
    domains = [{'domain': one.domain, 'added': day(one.since)} for one in found]
    text = 'No domain is dismissed.'
    if found:
        text = table(('domain', 'since'), [(one.domain, day(one.since)) for one in found])
    return Result({'domains': domains, 'total': len(domains)}, text)


def dismiss_flush(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        access.control.flush_dismissed()
        access.publish('federation', {})
    return Result({'flushed': True, 'total': 0}, 'No domain is dismissed any more.')


def _action(policy: str) -> str:
    """What a rule does under a policy."""
    return 'allow' if policy == 'REJECT' else 'block'
