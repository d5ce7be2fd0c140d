"""bandwidth: how much the relay, or one account, has carried."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import bandwidth
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Result, size, table


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        'bandwidth', parents=options, help='octets by day or month, of all or of an account'
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--days', metavar='N', type=int, default=0, help='the last N days')
    which.add_argument('--months', metavar='N', type=int, default=0, help='the last N months')
    which.add_argument('--account', metavar='USER', help='of one account (accounts.bandwidth)')
    parser.set_defaults(function=show)


def show(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        if arguments.account:
            address = access.address(arguments.account)
            found = bandwidth.account(access, address)
            on = bool(access.settings['accounts.bandwidth'])
            data = {'account': address, 'enabled': on, 'months': found}
            rows = [(one['month'], size(one['received']), size(one['sent'])) for one in found]
            text = table(('month', 'received', 'sent'), rows) if rows else 'Nothing is kept.'
            if not on:
                text += '\n"madmail settings set accounts.bandwidth true" keeps it.'
            return Result(data, text)
        by = 'month' if arguments.months else 'day'
        periods = bandwidth.installation(access, by, arguments.months or arguments.days)
    shown = [
        (
            one['period'],
            size(one['received']),
            size(one['sent']),
            ', '.join(
                f'{name} {size(counts["received"])}/{size(counts["sent"])}'
                for name, counts in one['services'].items()
            ),
        )
        for one in periods
    ]
    text = table((by, 'received', 'sent', 'by service'), shown) if shown else 'Nothing yet.'
    return Result({'by': by, 'periods': periods}, text)
