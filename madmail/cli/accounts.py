"""accounts list, info, create, create-random, delete, password, ban, unban."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from madmail.admin import blocklist
from madmail.admin.refused import Refused
from madmail.account import dclogin
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, size, table

DELETED = 'account deleted via CLI'
BANNED = 'banned via CLI'


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('accounts', parents=options, help='accounts of the relay')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)

    def add(name: str, function: Any, text: str, *, user: bool = True) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=function)
        if user:
            parser.add_argument('user', metavar='USER', help='address, or its part before the @')
        return parser

    add('list', list_, 'all accounts', user=False)
    add('info', info, 'one account')
    for name, function, text in (
        ('create', create, 'make an account'),
        ('password', password, 'set the password of an account and end its sessions'),
    ):
        parser = add(name, function, text)
        parser.add_argument('given', metavar='PASSWORD', nargs='?', help='else -p or asked for')
        parser.add_argument('-p', '--password', help='else asked for')
    add('create-random', create_random, 'make an account with a random name', user=False)
    delete_parser = add('delete', delete, 'delete an account and block its name')
    delete_parser.add_argument('--no-block', action='store_true', help='the name stays free')
    delete_parser.add_argument('-y', '--yes', action='store_true', help='do not ask')
    delete_parser.add_argument('--reason', default=DELETED, help='for the blocklist')
    ban_parser = add('ban', ban, 'delete an account, if there is one, and block its name')
    ban_parser.add_argument('reason', metavar='REASON', nargs='?', default=BANNED)
    ban_parser.add_argument('-y', '--yes', action='store_true', help='do not ask')
    unban_parser = add('unban', unban, 'take a name from the blocklist')
    unban_parser.add_argument('-y', '--yes', action='store_true', help='do not ask')


def day(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime('%Y-%m-%d') if unix else '-'


def list_(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        accounts = [
            {
                'username': account['address'],
                'created_at': account['created'],
                'last_login_at': account['last_login'] or None,
            }
            for account in access.accounts()
        ]
    accounts.sort(key=lambda account: account['username'])
    rows = [(a['username'], day(a['created_at']), day(a['last_login_at'] or 0)) for a in accounts]
    text = table(('address', 'created', 'last login'), rows) if rows else 'No accounts.'
    return Result({'accounts': accounts, 'total': len(accounts)}, text)


def info(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        blocked = access.control.blocked(address)
        try:
            account = access.call(address, 'account_info')
        except Refused as refused:
            if blocked is None or refused.word != 'missing':
                raise
            account = None
    data: dict[str, Any] = {
        'username': address,
        'credentials': account is not None,
        'blocklisted': blocked is not None,
        'block_reason': blocked.reason if blocked else None,
    }
    rows: list[tuple[str, object]] = [('address', address)]
    if account is not None:
        data |= {
            'created_at': account['created'],
            'last_login_at': account['last_login'] or None,
            'used_bytes': account['used'],
            'max_bytes': account['quota'],
            'messages': account['messages'],
            'mailboxes': account['mailboxes'],
            'sessions': account['sessions'],
        }
        limit = size(account['quota']) if account['quota'] else 'no limit'
        rows += [
            ('created', day(account['created'])),
            ('last login', day(account['last_login'])),
            ('storage', f'{size(account["used"])} of {limit}'),
            ('messages', account['messages']),
            ('mailboxes', account['mailboxes']),
            ('sessions', account['sessions']),
        ]
    else:
        rows.append(('account', 'none'))
    if blocked is not None:
        rows.append(('blocked', f'{day(blocked.since)}: {blocked.reason}'))
    return Result(data, table(('', ''), rows).strip())


def _password(invocation: Invocation) -> bytes:
    given = invocation.arguments.password or invocation.arguments.given
    return (given or invocation.secret('Password')).encode()


def create(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        _create(access, address, _password(invocation))
    return Result({'username': address}, f'Created {address}.')


def _create(access: Access, address: str, given: bytes) -> None:
    if access.control.blocked(address) is not None:
        raise Failure('the name is on the blocklist')
    access.call(address, 'account_create', password=given)


def create_random(invocation: Invocation) -> Result:
    settings = invocation.load()
    with Access(settings) as access:
        address, given, link = dclogin.fresh(settings)
        _create(access, address, given.encode())
    data = {
        'username': address.rpartition('@')[0],
        'password': given,
        'email': address,
        'dclogin': link,
    }
    return Result(data, f'{address}\n{given}\n{link}')


def password(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        access.call(address, 'account_info')  # before anything is asked
        access.call(address, 'account_password', password=_password(invocation))
    return Result({'username': address}, f'Changed the password of {address}.')


def delete(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        address = access.address(arguments.user)
        access.call(address, 'account_info')
        invocation.confirm(f'Delete {address} and all its mail?')
        if not arguments.no_block:
            blocklist.block(access, address, arguments.reason)
        access.call(address, 'account_delete')
    reason = None if arguments.no_block else arguments.reason
    return Result({'username': address, 'reason': reason}, f'Deleted {address}.')


def ban(invocation: Invocation) -> Result:
    reason = invocation.arguments.reason
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        invocation.confirm(f'Ban {address} and delete all its mail?')
        blocklist.block(access, address, reason)
        try:
            access.call(address, 'account_delete')
        except Refused as refused:
            if refused.word != 'missing':
                raise
    return Result({'username': address, 'reason': reason}, f'Banned {address}.')


def unban(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        if access.control.blocked(address) is None:
            raise Failure(f'{address} is not on the blocklist')
        invocation.confirm(f'Take {address} from the blocklist?')
        blocklist.unblock(access, address)
    return Result({'username': address}, f'{address} may be used again.')
