"""notice send: a message of the operator to one user or all."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from madmail.admin import notice
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.progress import Bar
from madmail.cli.result import Result


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('notice', parents=options, help='write to users')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)
    parser = verbs.add_parser('send', parents=options, help='to all accounts, or to one')
    parser.add_argument('--to', metavar='USER', default='', help='only this account')
    parser.add_argument('-s', '--subject', required=True)
    parser.add_argument('-b', '--body', help='else standard input')
    parser.add_argument('-y', '--yes', action='store_true', help='do not ask')
    parser.set_defaults(function=send)


def send(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    body = sys.stdin.read() if arguments.body is None else arguments.body
    with Access(invocation.load()) as access:
        if not arguments.to:
            users = notice.info(access)['total_users']
            invocation.confirm(f'Send this to all {users} accounts?')
        with Bar('sent', quiet=invocation.json) as bar:
            data = notice.send(access, arguments.subject, body, arguments.to, progress=bar)
    lines = [f'Sent to {data["sent"]} accounts.' if data['sent'] != 1 else 'Sent to 1 account.']
    lines += data.get('errors', ())
    return Result(data, '\n'.join(lines), exit_code=0 if data['sent'] or not data['failed'] else 1)
