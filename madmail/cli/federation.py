"""federation …: with whom the relay exchanges mail."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import federation
from madmail.cli.access import Access
from madmail.cli.accounts import day, no_question
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, counted, table
from madmail.delivery.tracker import TRANSPORTS

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
    no_question(verb('flush', flush, 'remove all rules'))
    verb('list', list_, 'the policy and its rules')
    verb('status', status, 'what is in force')
    verb('servers', servers, 'with whom mail was exchanged, and how that goes')
    verb('dismiss-list', dismiss_list, 'domains whose mail is thrown away')
    no_question(verb('dismiss-flush', dismiss_flush, 'throw nothing away any more'))


def policy(invocation: Invocation) -> Result:
    wanted = invocation.arguments.policy
    with Access(invocation.load()) as access:
        before = federation.state(access)['policy']
        federation.set_policy(access, wanted)
        count = len(federation.rules(access))
    done = f'{wanted}ed'
    text = f'{wanted.upper()}: all domains are {done}'
    if count:
        text += f' but those of {counted(count, "rule")}.'
        if before != wanted.upper():
            verbs = ('block', 'allow') if wanted == 'reject' else ('allow', 'block')
            text += '\nWhat a rule did is turned round: it was "{}" and is "{}" now.'.format(*verbs)
            text += ' See "federation list".'
    else:
        text += '; there are no rules.'
    return Result({'policy': wanted.upper()}, text)


def enable(invocation: Invocation) -> Result:
    on = invocation.arguments.verb == 'enable'
    with Access(invocation.load()) as access:
        federation.enable(access, on)
    return Result({'enabled': on}, f'Federation is {"on" if on else "off"}.')


def add(invocation: Invocation) -> Result:
    action = invocation.arguments.verb
    with Access(invocation.load()) as access:
        domain = federation.foreign(access, invocation.arguments.domain)
        if federation.action(access) != action:
            raise Failure(_WRONG_WAY[action].format(domain))
        federation.add_rule(access, domain)
        total = len(federation.rules(access))
    done = 'Blocked' if action == 'block' else 'Allowed'
    return Result({'domain': domain, 'action': action, 'total': total}, f'{done} {domain}.')


def remove(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        domain = federation.remove_rule(access, invocation.arguments.domain)
        remaining = len(federation.rules(access))
    return Result({'domain': domain, 'remaining': remaining}, f'Removed the rule of {domain}.')


def flush(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        federation.flush_rules(access)
    return Result({'flushed': True, 'total': 0}, 'Removed all rules.')


def list_(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        name = federation.state(access)['policy']
        action = federation.action(access)
        rules = federation.rules(access)
    data = {
        'policy': name,
        'rules': [{'domain': one['domain'], 'action': action} for one in rules],
    }
    rows = [(one['domain'], action, day(one['created_at'])) for one in rules]
    text = f'Policy {name}; ' + (
        f'{counted(len(rows), "rule")}:' if rows else 'there are no rules.'
    )
    if rows:
        text += '\n' + table(('domain', 'action', 'since'), rows)
    return Result(data, text)


def status(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        traffic = _traffic(access)
        data: dict[str, Any] = {
            **federation.state(access),
            'rules': len(access.control.rules()),
            'dismissed': len(access.control.dismissed()),
            'endpoints': len(access.control.endpoints()),
            'traffic': traffic,
        }
    text = (
        f'Federation is {"on" if data["enabled"] else "off"}, policy {data["policy"]}, '
        f'{counted(data["rules"], "rule")}, {counted(data["dismissed"], "domain")} dismissed, '
        f'{counted(data["endpoints"], "endpoint")} given.'
    )
    if traffic:
        head = ('domain', 'delivered', 'received', 'queued', 'failed https', 'http', 'smtp')
        text += '\n' + table(head, [tuple(row.values()) for row in traffic])
    return Result(data, text)


def _traffic(access: Access) -> list[dict[str, Any]]:
    """Counts by destination, as of half a minute ago; the queue as of now."""
    return [
        {
            'domain': one.domain,
            'successful_deliveries': one.peer.successes,
            'inbound_deliveries': one.inbound,
            'queued_messages': one.waiting,
            'failed_https': one.peer.failed_https,
            'failed_http': one.peer.failed_http,
            'failed_smtp': one.peer.failed_smtp,
        }
        for one in federation.servers(access)
    ]


def servers(invocation: Invocation) -> Result:
    """Who we exchange mail with, and how that goes."""
    with Access(invocation.load()) as access:
        found = federation.servers(access)
    data = [
        {
            'domain': one.domain,
            'successful_deliveries': one.peer.successes,
            'inbound_deliveries': one.inbound,
            'queued_messages': one.waiting,
            **{
                f'{what}_{way}': getattr(one.peer, f'{what}_{way}')
                for what in ('success', 'failed')
                for way in TRANSPORTS
            },
            'mean_latency_ms': one.mean_latency_ms,
            'last_active': one.last_active,
        }
        for one in found
    ]
    if not found:
        return Result({'servers': [], 'total': 0}, 'No mail was exchanged yet.')
    head = ('domain', 'sent https', 'http', 'smtp', 'failed', 'received', 'queued', 'ms', 'last')
    rows = [
        (
            one.domain,
            one.peer.success_https,
            one.peer.success_http,
            one.peer.success_smtp,
            one.peer.failed_https + one.peer.failed_http + one.peer.failed_smtp,
            one.inbound,
            one.waiting,
            round(one.mean_latency_ms),
            day(one.last_active) if one.last_active else '-',
        )
        for one in found
    ]
    return Result({'servers': data, 'total': len(data)}, table(head, rows))


def dismiss(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        domain = federation.dismiss(access, invocation.arguments.domain)
        total = len(federation.dismissed(access))
    text = f'Mail to {domain} is thrown away.'
    return Result({'domain': domain, 'total': total}, text)


def undismiss(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        domain = federation.undismiss(access, invocation.arguments.domain)
        remaining = len(federation.dismissed(access))
    return Result({'domain': domain, 'remaining': remaining}, f'Mail to {domain} is sent again.')


def dismiss_list(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        found = federation.dismissed(access)
    rows = [(one['domain'], day(one['created_at'])) for one in found]
    domains = [{'domain': domain, 'added': added} for domain, added in rows]
    text = table(('domain', 'since'), rows) if rows else 'No domain is dismissed.'
    return Result({'domains': domains, 'total': len(domains)}, text)


def dismiss_flush(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        federation.flush_dismissed(access)
    return Result({'flushed': True, 'total': 0}, 'No domain is dismissed any more.')
