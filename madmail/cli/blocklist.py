"""blocklist list, add, remove: names that may not log in or be created."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import blocklist
from madmail.cli.access import Access
from madmail.cli.accounts import day
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, table


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('blocklist', parents=options, help='blocked names')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)
    verbs.add_parser('list', parents=options, help='all blocked names').set_defaults(function=list_)
    add_parser = verbs.add_parser('add', parents=options, help='block a name')
    add_parser.add_argument('user', metavar='USER')
    add_parser.add_argument('reason', metavar='REASON', nargs='?', default=blocklist.REASON)
    add_parser.set_defaults(function=add)
    remove_parser = verbs.add_parser('remove', parents=options, help='unblock a name')
    remove_parser.add_argument('user', metavar='USER')
    remove_parser.add_argument('-y', '--yes', action='store_true', help='do not ask')
    remove_parser.set_defaults(function=remove)


def list_(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        entries = blocklist.entries(access)
    rows = [(one['username'], day(one['blocked_at']), one['reason']) for one in entries]
    text = table(('address', 'since', 'reason'), rows) if rows else 'Nobody is blocked.'
    return Result({'entries': entries, 'total': len(entries)}, text)


def add(invocation: Invocation) -> Result:
    reason = invocation.arguments.reason
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        if not blocklist.block(access, address, reason):
            raise Failure(f'{address} is on the blocklist already')
    return Result({'username': address, 'reason': reason}, f'Blocked {address}.')


def remove(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        if access.control.blocked(address) is None:
            raise Failure(f'{address} is not on the blocklist')
        invocation.confirm(f'Unblock {address}?')
        blocklist.unblock(access, address)
    return Result({'username': address}, f'Unblocked {address}.')
