"""admin-token [rotate]: what a panel needs to administer this relay."""

from __future__ import annotations

import argparse
import io
import sys
from typing import Any

import segno

from madmail.admin import access
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Result, table


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        'admin-token', parents=options, help='the token of the admin API, and a code to log in'
    )
    parser.add_argument('--raw', action='store_true', help='nothing but the token')
    parser.add_argument('--no-qr', action='store_true', help='no code')
    parser.add_argument(
        'change',
        metavar='rotate',
        nargs='?',
        choices=('rotate',),
        help='a new token; the old one is worth nothing from then on',
    )
    parser.add_argument('-y', '--yes', action='store_true', help='do not ask')
    parser.set_defaults(function=admin_token)


def admin_token(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    rotate = arguments.change == 'rotate'
    with Access(invocation.load()) as relay:
        if rotate:
            invocation.confirm('Replace the token? All panels have to log in anew.')
        found = access.login(relay, rotate=rotate)
    data = {name: found[name] for name in ('token', 'api_url')}
    if rotate:
        data['rotated'] = True
    if arguments.raw and not invocation.json:
        sys.stdout.write(found['token'])  # no line end, for $(…) and files alike
        return Result(data)
    rows = [('API', found['api_url']), ('token', found['token']), ('panel', found['link'])]
    text = table(('', ''), rows).strip()
    if not arguments.no_qr and 'utf' in (sys.stdout.encoding or '').lower():
        code = io.StringIO()
        segno.make(found['payload'], error='l').terminal(out=code, compact=True)
        text = f'{text}\n\n{code.getvalue().rstrip()}'
    return Result(data, text)
