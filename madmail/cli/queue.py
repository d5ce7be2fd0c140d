"""queue status, list, show, retry, remove, purge: mail that waits for other relays."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import Any

from madmail.admin import queue
from madmail.admin.federation import spelled
from madmail.admin.purge import age
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.progress import Bar
from madmail.cli.result import Failure, Result, counted, duration, size, table

WIDTH = 60  # characters of an error in a table


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('queue', parents=options, help='mail that waits for other relays')
    verbs = family.add_subparsers(dest='verb', metavar='VERB')
    family.set_defaults(function=status, verb='status')

    def verb(name: str, function: Any, text: str, *aliases: str) -> Any:
        parser = verbs.add_parser(name, parents=options, help=text, aliases=aliases)
        parser.set_defaults(function=function, verb=name)
        return parser

    def which(parser: Any, *, required: bool) -> Any:
        group = parser.add_mutually_exclusive_group(required=required)
        group.add_argument('--all', action='store_true', help='everything')
        group.add_argument('--domain', metavar='DOMAIN', default='', help='what is for one domain')
        return group

    verb('status', status, 'how much waits, by destination')
    verb('list', list_, 'what waits').add_argument(
        '--domain', metavar='DOMAIN', default='', help='for one domain only'
    )
    verb('show', show, 'one entry').add_argument('id', metavar='ID')
    group = which(verb('retry', retry, 'try destinations now'), required=True)
    group.add_argument('id', metavar='ID', nargs='?', default='', help='the destination of one')
    remove_parser = verb('remove', remove, 'remove one entry', 'delete')
    remove_parser.add_argument('id', metavar='ID')
    purge_parser = verb('purge', purge, 'remove many: all, of a domain, the old', 'clear')
    which(purge_parser, required=False)
    purge_parser.add_argument(
        'user', metavar='USER', nargs='?', default='', help='what is from or to an address'
    )
    for side in ('sender', 'recipient'):
        purge_parser.add_argument(
            f'--{side}',
            choices=('true', 'false'),
            nargs='?',
            const='true',
            help=f'whether USER counts as the {side}; true',
        )
    purge_parser.add_argument('--older', metavar='AGE', help='that waits longer, such as 24h or 7d')
    purge_parser.add_argument('--dry-run', action='store_true', help='count, remove nothing')
    for parser in (remove_parser, purge_parser):
        parser.add_argument('-y', '--yes', action='store_true', help='do not ask')


def status(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        data = queue.status(access)
    rows = data['destinations']
    if not rows:
        return Result(data, 'Nothing waits.')
    text = f'{counted(data["count"], "message")}, {size(data["bytes"])}:\n' + table(
        ('destination', 'messages', 'size', 'waits', 'next try', 'last error'),
        [
            (
                row['domain'],
                row['count'],
                size(row['bytes']),
                _since(row['oldest_unix']),
                _until(row['next_attempt_unix']),
                _brief(row['last_error']),
            )
            for row in rows
        ],
    )
    return Result(data, text)


def list_(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        found = list(queue.entries(access, invocation.arguments.domain))
    data = {'entries': found, 'count': len(found)}
    if not found:
        return Result(data, 'Nothing waits.')
    text = table(
        ('id', 'destination', 'recipients', 'size', 'waits', 'tries', 'next try', 'last error'),
        [
            (
                one['id'],
                one['domain'],
                len(one['rcpt_to']),
                size(one['body_bytes']),
                _since(one['queued_at_unix']),
                one['tries_count'],
                'under way' if one['under_way'] else _until(one['next_attempt_unix']),
                _brief(one['last_error']),
            )
            for one in found
        ],
    )
    return Result(data, text)


def show(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        one = queue.show(access, invocation.arguments.id)
    rows = [
        ('destination', one['domain']),
        ('from', one['mail_from'] or '(a bounce)'),
        *(('to', recipient) for recipient in one['rcpt_to']),
        ('size', size(one['body_bytes'])),
        ('accepted', _when(one['queued_at_unix'])),
        ('tries', one['tries_count']),
        ('next try', 'under way' if one['under_way'] else _when(one['next_attempt_unix'])),
        ('last error', one['last_error'] or '-'),
    ]
    return Result(one, table((one['id'], ''), rows))


def retry(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        data = queue.retry(access, arguments.id, arguments.domain)
    names = data['domains']
    if not names:
        return Result(data, 'Nothing waits.')
    what = names[0] if len(names) == 1 else counted(len(names), 'destination')
    when = 'is tried now' if len(names) == 1 else 'are tried now'
    if not data['running']:
        when = 'is due when the relay starts' if len(names) == 1 else 'are due when it starts'
    return Result(data, f'{what} {when}.')


def remove(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        one = queue.show(access, invocation.arguments.id)
        invocation.confirm(f'Remove mail for {one["domain"]}, so that it is never sent?')
        data = queue.remove(access, invocation.arguments.id)
    return Result(data, f'Removed {data["id"]}.')


def purge(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    if arguments.user:
        return _purge_of(invocation)
    if arguments.sender or arguments.recipient:
        raise Failure('--sender and --recipient need USER')
    older = age(arguments.older) if arguments.older else 0
    domain = spelled(arguments.domain) if arguments.domain else ''
    what = f'mail that waits for {domain}' if domain else 'all mail that waits for other relays'
    if older:
        what += f' for more than {duration(older)}'
    with Access(invocation.load()) as access:
        if not arguments.dry_run:
            invocation.confirm(f'Remove {what}, so that it is never sent?')
        with Bar('purge', quiet=invocation.json) as bar:
            done = queue.purge(
                access, domain=domain, age=older, dry_run=arguments.dry_run, progress=bar
            )
    data: dict[str, Any] = {'deleted': done.count}
    if domain:
        data['domain'] = domain
    if older:
        data['older_secs'] = older
    if arguments.dry_run:
        data['dry_run'] = True
    verb = 'would be removed' if arguments.dry_run else 'removed'
    return Result(data, f'{counted(done.count, "message")} {verb}.')


def _purge_of(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    if arguments.all or arguments.domain or arguments.older:
        raise Failure('USER goes with --sender, --recipient and --dry-run only')
    sides = {side: getattr(arguments, side) != 'false' for side in ('sender', 'recipient')}
    if not any(sides.values()):
        raise Failure('with --sender=false and --recipient=false nothing is meant')
    words = ' or '.join(
        {'sender': 'from', 'recipient': 'to'}[side] for side in sides if sides[side]
    )
    with Access(invocation.load()) as access:
        user = arguments.user if '@' in arguments.user else access.address(arguments.user)
        if not arguments.dry_run:
            invocation.confirm(f'Remove mail {words} {user} that waits, so that it is never sent?')
        count = queue.purge_of(access, user, dry_run=arguments.dry_run, **sides)
    data: dict[str, Any] = {'deleted': count, 'username': user, **sides}
    if arguments.dry_run:
        data['dry_run'] = True
    verb = 'would be removed' if arguments.dry_run else 'removed'
    return Result(data, f'{counted(count, "message")} {verb}.')


def _since(moment: int) -> str:
    return duration(max(int(time.time()) - moment, 0))


def _until(moment: int) -> str:
    left = moment - int(time.time())
    return f'in {duration(left)}' if left > 0 else 'now'


def _when(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime('%Y-%m-%d %H:%M:%S UTC')


def _brief(text: str) -> str:
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + '…'
