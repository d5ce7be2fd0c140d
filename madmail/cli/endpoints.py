"""endpoint-cache list, set, get, remove: where mail for a domain goes instead."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import endpoints
from madmail.cli.access import Access
from madmail.cli.accounts import day
from madmail.cli.invocation import Invocation
from madmail.cli.result import Result, table


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


def set_(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        entry = endpoints.set_(
            access, arguments.domain, arguments.target, arguments.comment, arguments.verify
        )
    data = {name: entry[name] for name in ('lookup_key', 'target_host', 'comment', 'verify')}
    return Result(data, f'Mail to {entry["lookup_key"]} goes to {entry["target_host"]}.')


def get(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        entry = endpoints.get(access, invocation.arguments.domain)
    return Result(entry, _table([entry]))


def list_(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        entries = endpoints.entries(access)
    text = _table(entries) if entries else 'No domain has an endpoint of its own.'
    return Result({'entries': entries, 'total': len(entries)}, text)


def remove(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        domain = endpoints.remove(access, invocation.arguments.domain)
    return Result({'lookup_key': domain}, f'Mail to {domain} goes where DNS says.')


def _table(entries: list[dict[str, Any]]) -> str:
    rows = [
        (
            one['lookup_key'],
            one['target_host'],
            'verified' if one['verify'] else 'any',
            day(one['updated_at']),
            one['comment'],
        )
        for one in entries
    ]
    return table(('domain', 'endpoint', 'certificate', 'since', 'comment'), rows)
