"""imap-msgs: messages of a folder, one by one or by sets.

A set is one of message numbers (`1:5,9,*`), with -u of UIDs.
"""

from __future__ import annotations

import argparse
import sys
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

from madmail.admin import mail
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, size, table


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('imap-msgs', parents=options, help='messages of a folder')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)

    def add(name: str, function: Any, text: str, *names: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=function)
        parser.add_argument('user', metavar='USER', help='address, or its part before the @')
        for one in ('mailbox', *names):
            parser.add_argument(one, metavar=one.upper())
        if names:
            parser.add_argument('-u', '--uid', action='store_true', help='UIDs, not numbers')
        return parser

    add_parser = add('add', add_, 'store the message on standard input')
    add_parser.add_argument('-f', '--flag', action='append', default=[], help='repeatable')
    add_parser.add_argument('-d', '--date', metavar='RFC3339', help='2024-12-31T23:59:59Z')
    for name, text in (
        ('add-flags', 'give flags'),
        ('rem-flags', 'take flags'),
        ('set-flags', 'flags in place of all others'),
    ):
        parser = add(name, flags, text, 'set')
        few = '*' if name == 'set-flags' else '+'
        parser.add_argument('flags', metavar='FLAG', nargs=few, help='Seen, Flagged, a keyword')
    remove_parser = add('remove', remove, 'remove messages for good', 'set')
    remove_parser.add_argument('-y', '--yes', action='store_true', help='do not ask')
    add('copy', copy, 'copy to another folder', 'set', 'target')
    add('move', copy, 'move to another folder', 'set', 'target')
    list_parser = add('list', list_, 'what there is')
    list_parser.add_argument('set', metavar='SET', nargs='?', default='1:*')
    list_parser.add_argument('-u', '--uid', action='store_true', help='UIDs, not numbers')
    list_parser.add_argument('-f', '--full', action='store_true', help='with header fields')
    add('dump', dump, 'a whole message to standard output', 'number')


def add_(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    date = _date(arguments.date) if arguments.date else 0
    message = sys.stdin.buffer.read()
    with Access(invocation.load()) as access:
        data = mail.add(access, arguments.user, arguments.mailbox, message, arguments.flag, date)
    return Result(data, str(data['uid']))


def flags(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    mode = {'add-flags': 'add', 'rem-flags': 'remove', 'set-flags': 'replace'}[arguments.verb]
    with Access(invocation.load()) as access:
        count = mail.change_flags(
            access,
            arguments.user,
            arguments.mailbox,
            arguments.set,
            mode,
            arguments.flags,
            uid=arguments.uid,
        )
    return Result({'messages': count}, f'{count} messages.')


def remove(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        mail.mailbox(access, arguments.user, arguments.mailbox)
        invocation.confirm(f'Remove messages {arguments.set} from {arguments.mailbox}?')
        count = mail.remove(
            access, arguments.user, arguments.mailbox, arguments.set, uid=arguments.uid
        )
    return Result({'removed': count}, f'Removed {count} messages.')


def copy(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    move = arguments.verb == 'move'
    with Access(invocation.load()) as access:
        count = mail.copy(
            access,
            arguments.user,
            arguments.mailbox,
            arguments.set,
            arguments.target,
            uid=arguments.uid,
            move=move,
        )
    return Result({'messages': count}, f'{"Moved" if move else "Copied"} {count} messages.')


def list_(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        rows = list(
            mail.list_(
                access,
                arguments.user,
                arguments.mailbox,
                arguments.set,
                uid=arguments.uid,
                full=arguments.full,
            )
        )
    text = table(
        ('number', 'uid', 'date', 'size', 'flags'),
        [
            (
                row['number'],
                row['uid'],
                _when(row['date']),
                size(row['size']),
                ' '.join(row['flags']),
            )
            for row in rows
        ],
    )
    if arguments.full:
        head, *lines = text.split('\n')
        text = '\n'.join(
            [head, *(_with_header(line, row) for line, row in zip(lines, rows, strict=True))]
        )
    return Result({'messages': rows, 'total': len(rows)}, text)


def dump(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    if not arguments.number.isdecimal() or not int(arguments.number):
        raise Failure(f'{arguments.number} is not the number of a message')
    with Access(invocation.load()) as access:
        pieces = mail.read(
            access,
            arguments.user,
            arguments.mailbox,
            int(arguments.number),
            uid=arguments.uid,
        )
        if invocation.json:
            octets = b''.join(pieces)
            return Result({'size': len(octets), 'message_base64': b64encode(octets).decode()})
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    return Result()


def _with_header(line: str, row: dict[str, Any]) -> str:
    # Whatever a stranger wrote must not steer the terminal.
    shown = [
        f'    {name}: {"".join(c if c.isprintable() else "?" for c in value)}'
        for name, value in row['header'].items()
    ]
    return '\n'.join([line, *shown])


def _date(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Failure(f'{text} is not a date such as 2024-12-31T23:59:59Z') from None
    if moment.tzinfo is None:
        raise Failure(f'{text} has no time zone: add Z for UTC')
    seconds = int(moment.timestamp())
    if seconds <= 0:
        raise Failure(f'{text} is before 1970')
    return seconds


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime('%Y-%m-%d %H:%M:%S')
