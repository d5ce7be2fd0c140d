"""imap-acct: accounts by what they hold; quota and message size; removal of mail.

`quota` at the top is the same as `imap-acct quota`.
"""

from __future__ import annotations

import argparse
from typing import Any

from madmail.account import bearer
from madmail.admin import accounts, mail, purge, quota, upkeep
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.progress import Bar
from madmail.cli.result import Failure, Result, size, table
from madmail.settings.kinds import Size, Wrong

FOLDERS = {
    'sent': 'Sent',
    'trash': 'Trash',
    'junk': 'Junk',
    'drafts': 'Drafts',
    'archive': 'Archive',
}
NO_LIMIT = 'no limit'


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('imap-acct', parents=options, help='what accounts hold')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)

    def add(name: str, function: Any, text: str, *, user: bool = False) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=function)
        if user:
            parser.add_argument('user', metavar='USER', help='address, or its part before the @')
        return parser

    add('list', list_, 'all accounts with what they hold')
    create_parser = add('create', create, 'make an account with its folders', user=True)
    create_parser.add_argument('-p', '--password', help='else a random one, which is printed')
    create_parser.add_argument('--no-specialuse', action='store_true', help='INBOX only')
    for special, name in FOLDERS.items():
        create_parser.add_argument(f'--{special}-name', metavar='NAME', default=name)
    remove_parser = add('remove', remove, 'delete an account; its name stays free', user=True)
    limit_parser = add('appendlimit', append_limit, 'the largest message it may send', user=True)
    limit_parser.add_argument('-v', '--value', metavar='BYTES', help='-1 = none of its own')
    add('stat', stat, 'what the relay holds')
    _add_quota(verbs.add_parser('quota', parents=options, help='room of accounts'), options)
    purging = [
        add('purge-msgs', _purging('purge_user'), 'remove all messages of an account', user=True),
        add('purge-all', _purging('purge_all'), 'remove all messages of all accounts'),
        add('purge-read', _purging('purge_read'), 'remove all messages that were read'),
    ]
    unread_parser = add('prune-unread', prune_unread, 'remove old messages nobody has read')
    unread_parser.add_argument('retention', metavar='AGE', nargs='?', default='720h')
    unused_parser = add('prune-unused', prune_unused, 'delete accounts nobody has logged in to')
    unused_parser.add_argument('retention', metavar='AGE', help='such as 720h')
    for parser in (*purging, unread_parser, unused_parser):
        parser.add_argument('--dry-run', action='store_true', help='count, remove nothing')
    for parser in (remove_parser, *purging, unread_parser, unused_parser):
        parser.add_argument('-y', '--yes', action='store_true', help='do not ask')
    top = commands.add_parser('quota', parents=options, help='room of accounts')
    _add_quota(top, options)


def _add_quota(family: argparse.ArgumentParser, options: list[argparse.ArgumentParser]) -> None:
    verbs = family.add_subparsers(dest='action', metavar='VERB', required=True)

    def add(name: str, function: Any, text: str, *arguments: str) -> None:
        parser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=function)
        for argument in arguments:
            parser.add_argument(argument, metavar=argument.upper())

    add('get', quota_get, 'of one account', 'user')
    add('set', quota_set, 'of one account, such as 2G', 'user', 'limit')
    add('reset', quota_reset, 'back to the default', 'user')
    add('list', quota_list, 'of all accounts')
    add('set-default', quota_default, 'of accounts without their own', 'limit')


def list_(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        rows = list(quota.usage(access))
    text = table(
        ('account', 'used', 'messages', 'quota'),
        [(row['username'], size(row['used_bytes']), row['messages'], _most(row)) for row in rows],
    )
    return Result({'accounts': rows, 'total': len(rows)}, text)


def create(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    password = arguments.password or bearer.fresh(16)
    with Access(invocation.load()) as access:
        address = access.address(arguments.user)
        accounts.create(access, address, password.encode())
        folders = []
        if not arguments.no_specialuse:
            for special in FOLDERS:
                name = getattr(arguments, f'{special}_name')
                mail.create_mailbox(access, address, name, special)
                folders.append(name)
    data: dict[str, Any] = {'username': address, 'mailboxes': ['INBOX', *folders]}
    text = f'Created {address}.'
    if not arguments.password:
        data['password'] = password
        text += f'\nPassword: {password}'
    return Result(data, text)


def remove(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        access.call(address, 'account_info')
        invocation.confirm(f'Delete {address} and all its mail?')
        access.call(address, 'account_delete')
    return Result({'username': address}, f'Deleted {address}.')


def stat(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        data = quota.overview(access)
    rows = [
        ('accounts', data['accounts_count']),
        ('stored', size(data['total_storage_bytes'])),
        ('default quota', size(data['default_quota_bytes']) or NO_LIMIT),
    ]
    return Result(data, table(('', ''), rows).strip())


def append_limit(invocation: Invocation) -> Result:
    given = invocation.arguments.value
    with Access(invocation.load()) as access:
        if given is None:
            data = quota.message_size(access, invocation.arguments.user)
        else:
            limit = 0 if given.strip() == '-1' else _size(given)
            data = quota.set_message_size(access, invocation.arguments.user, limit)
    limit = data['append_limit']
    return Result(data, f'{data["username"]}: {size(limit) if limit else NO_LIMIT}')


# -- quota


def quota_get(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        data = quota.get(access, invocation.arguments.user)
    return Result(data, f'{data["username"]}: {size(data["used_bytes"])} of {_most(data)}')


def quota_set(invocation: Invocation) -> Result:
    most = _size(invocation.arguments.limit)
    with Access(invocation.load()) as access:
        data = quota.set_(access, invocation.arguments.user, most)
    return Result(data, f'{data["username"]}: {size(most) if most else "the default"}')


def quota_reset(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        data = quota.reset(access, invocation.arguments.user)
    return Result(data, f'{data["reset"]}: the default')


def quota_list(invocation: Invocation) -> Result:
    return list_(invocation)


def quota_default(invocation: Invocation) -> Result:
    most = _size(invocation.arguments.limit)
    with Access(invocation.load()) as access:
        data = quota.set_default(access, most)
        now = access.settings['limits.quota']
    return Result(data, f'The default quota is {size(now) if now else NO_LIMIT}.')


def _most(row: dict[str, Any]) -> str:
    most = size(row['max_bytes']) if row['max_bytes'] else NO_LIMIT
    return most if row['is_default'] else f'{most} (own)'


def _size(text: str) -> int:
    try:
        number = Size().parse(text.strip())
    except Wrong as wrong:
        raise Failure(f'{text} is not {wrong}') from None
    assert isinstance(number, int)
    return number


# -- removal


def _purging(action: str) -> Any:
    def function(invocation: Invocation) -> Result:
        arguments = invocation.arguments
        user = getattr(arguments, 'user', '')
        with Access(invocation.load()) as access:
            if user:
                access.call(access.address(user), 'account_info')
            if not arguments.dry_run:
                whose = f' of {user}' if user else ''
                invocation.confirm(f'Remove {purge.ACTIONS[action]}{whose}?')
            with Bar('removed', quiet=invocation.json) as bar:
                data = purge.perform(
                    access, action, username=user, dry_run=arguments.dry_run, progress=bar
                )
        return Result(data, data['message'].capitalize() + '.')

    return function


def prune_unread(invocation: Invocation) -> Result:
    return _prune(invocation, 'prune-unread-older', 'Remove unread messages older than {}?')


def prune_unused(invocation: Invocation) -> Result:
    question = 'Delete accounts that nobody has logged in to for {}?'
    return _prune(invocation, 'prune-unused-accounts', question)


def _prune(invocation: Invocation, task: str, question: str) -> Result:
    arguments = invocation.arguments
    age = purge.age(arguments.retention)
    if not arguments.dry_run:
        invocation.confirm(question.format(arguments.retention))
    with Access(invocation.load()) as access, Bar(task, quiet=invocation.json) as bar:
        data = upkeep.run(access, task, age=age, dry_run=arguments.dry_run, progress=bar)
    return Result(data, f'{data["task"]}: {data["deleted"]} {data["detail"]}')
