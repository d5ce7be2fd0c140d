"""endpoint-cache list, set, get, remove: where mail for a domain goes instead."""

from __future__ import annotations

import argparse
import time
from typing import Any

from madmail.cli.access import Access
from madmail.cli.accounts import day
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, table
from madmail.delivery.federation import BadDomain, BadTarget, key, target
from madmail.store.control import Endpoint


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser(
        'endpoint-cache',
        aliases=['dns-cache'],
        parents=options,
        help='where mail for a domain goes instead of where DNS says',
    )
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)
    verbs.add_parser('list', parents=options, help='all of them').set_defaults(function=list_)
    set_parser = verbs.add_parser('set', parents=options, help='give a domain an endpoint')
    _key(set_parser)
    set_parser.add_argument(
        'target',
        metavar='ENDPOINT',
        help='https://HOST:PORT, http://…, smtp://…, or a host',
    )
    set_parser.add_argument('comment', metavar='COMMENT', nargs='?', default='')
    verify = set_parser.add_mutually_exclusive_group()
    verify.add_argument(
        '--verify',
        action='store_true',
        default=None,
        help='demand a right certificate (default for names)',
    )
    verify.add_argument(
        '--no-verify',
        dest='verify',
        action='store_false',
        help='accept any certificate (default for IP addresses)',
    )
    set_parser.set_defaults(function=set_)
    get_parser = verbs.add_parser('get', parents=options, help='the endpoint of a domain')
    _key(get_parser)
    get_parser.set_defaults(function=get)
    remove_parser = verbs.add_parser(
        'remove', aliases=['delete'], parents=options, help='ask DNS again for a domain'
    )
    _key(remove_parser)
    remove_parser.set_defaults(function=remove)


def _key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'domain',
        metavar='DOMAIN',
        help='a name, *.NAME for all below it, an IP address, or * for all others',
    )


def _domain(invocation: Invocation) -> str:
    try:
        return key(invocation.arguments.domain, every=True)
    except BadDomain as error:
        raise Failure(str(error)) from None


def set_(invocation: Invocation) -> Result:
    domain = _domain(invocation)
    where, comment = invocation.arguments.target.strip(), invocation.arguments.comment
    verify = invocation.arguments.verify
    try:
        found = target(where, verify)
    except BadTarget as error:
        raise Failure(str(error)) from None
    with Access(invocation.load()) as access:
        access.control.set_endpoint(domain, where, verify, comment, int(time.time()))
        access.publish('federation', {})
    data = {
        'lookup_key': domain,
        'target_host': where,
        'comment': comment,
        'verify': found.verify,
    }
    return Result(data, f'Mail to {domain} goes to {where}.')


def get(invocation: Invocation) -> Result:
    domain = _domain(invocation)
    with Access(invocation.load()) as access:
        found = access.control.endpoint(domain)
    if found is None:
        raise Failure(f'{domain} has no endpoint of its own')
    return Result(_entry(found), _table([found]))


def list_(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        found = access.control.endpoints()
    text = _table(found) if found else 'No domain has an endpoint of its own.'
    return Result({'entries': [_entry(one) for one in found], 'total': len(found)}, text)


def remove(invocation: Invocation) -> Result:
    domain = _domain(invocation)
    with Access(invocation.load()) as access:
        if not access.control.remove_endpoint(domain):
            raise Failure(f'{domain} has no endpoint of its own')
        access.publish('federation', {})
    return Result({'lookup_key': domain}, f'Mail to {domain} goes where DNS says.')


def _entry(endpoint: Endpoint) -> dict[str, object]:
    return {
        'lookup_key': endpoint.domain,
        'target_host': endpoint.target,
        'verify': _verify(endpoint),
        'comment': endpoint.comment,
        'created_at': endpoint.created,
        'updated_at': endpoint.updated,
    }


def _verify(endpoint: Endpoint) -> bool:
    try:
        return target(endpoint.target, endpoint.verify).verify
    except BadTarget:  # stored by a version that knew more
        return True


def _table(endpoints: list[Endpoint]) -> str:
    rows = [
        (
            one.domain,
            one.target,
            'verified' if _verify(one) else 'any',
            day(one.updated),
            one.comment,
        )
        for one in endpoints
    ]
    return table(('domain', 'endpoint', 'certificate', 'since', 'comment'), rows)
