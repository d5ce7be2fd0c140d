"""accounts …, and the short forms create-user, delete, ban-list: who has an account here."""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from madmail.admin import accounts, blocklist, registration, transfer
from madmail.admin.refused import Refused
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.progress import Bar
from madmail.cli.result import Failure, Result, size, table

DELETED = 'account deleted via CLI'
BANNED = 'banned via CLI'
ALL_DELETED = 'bulk delete via admin'
IMPORT_LIMIT = 512 * 1024 * 1024  # octets of a file

Options = list[argparse.ArgumentParser]


def add_commands(commands: Any, options: Options) -> None:
    family = commands.add_parser('accounts', parents=options, help='accounts of the relay')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)

    def add(name: str, function: Any, text: str, *, user: bool = True) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=function)
        if user:
            parser.add_argument('user', metavar='USER', help='address, or its part before the @')
        return parser

    add('list', list_, 'all accounts', user=False)
    add('status', status, 'figures, and who may register', user=False)
    add('info', info, 'one account')
    for name, function, text in (
        ('create', create, 'make an account'),
        ('password', password, 'set the password of an account and end its sessions'),
    ):
        add_password(add(name, function, text))
    _random_options(add('create-random', create_random, 'make one with a random name', user=False))
    _delete_options(add('delete', delete, 'delete an account and block its name'))
    ban_parser = add('ban', ban, 'delete an account, if there is one, and block its name')
    ban_parser.add_argument('reason', metavar='REASON', nargs='?', default=BANNED)
    add_yes(ban_parser)
    add_yes(add('unban', unban, 'take a name from the blocklist'))
    add('ban-list', ban_list, 'all blocked names', user=False)
    export_parser = add('export', export, 'names and password hashes, as JSON', user=False)
    export_parser.add_argument('-o', '--output', metavar='FILE', help='else standard output')
    import_parser = add('import', import_, 'accounts that another relay exported', user=False)
    import_parser.add_argument('file', metavar='FILE', help='- is standard input')
    add_yes(add('delete-all', delete_all, 'delete every account, block the names', user=False))
    _add_short_forms(commands, options)


def _add_short_forms(commands: Any, options: Options) -> None:
    parser = commands.add_parser('create-user', parents=options, help='accounts create-random')
    parser.set_defaults(function=create_random)
    _random_options(parser)
    parser = commands.add_parser('delete', parents=options, help='accounts delete')
    parser.add_argument('user', metavar='USER')
    parser.set_defaults(function=delete)
    _delete_options(parser)
    parser = commands.add_parser('ban-list', parents=options, help='accounts ban-list')
    parser.set_defaults(function=ban_list)


def add_password(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('given', metavar='PASSWORD', nargs='?', help='else -p or asked for')
    parser.add_argument('-p', '--password', help='else asked for')


def add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('-y', '--yes', action='store_true', help='do not ask')


def no_question(parser: argparse.ArgumentParser) -> None:
    """Take the -y of whoever gives it everywhere; nothing is asked anyway."""
    parser.add_argument('-y', '--yes', action='store_true', help=argparse.SUPPRESS)


def _random_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--json-only', action='store_true', help='a bare JSON object')


def _delete_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--no-block', action='store_true', help='the name stays free')
    parser.add_argument('--reason', default=DELETED, help='for the blocklist')
    add_yes(parser)


def day(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime('%Y-%m-%d') if unix else '-'


def list_(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        found = [
            {
                'username': account['address'],
                'created_at': account['created'],
                'first_login_at': account['first_login'] or None,
                'last_login_at': account['last_login'] or None,
            }
            for account in access.accounts()
        ]
    found.sort(key=lambda account: account['username'])
    rows = [(a['username'], day(a['created_at']), day(a['last_login_at'] or 0)) for a in found]
    text = table(('address', 'created', 'last login'), rows) if rows else 'No accounts.'
    return Result({'accounts': found, 'total': len(found)}, text)


def status(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        count = sum(1 for _ in access.accounts())
        rules = registration.status(access)
        data = {
            'login_count': count,
            'registration': rules['registration'],
            'registration_open': rules['open'],
            'token_required': rules['token_required'],
            'jit_enabled': rules['jit_enabled'],
            'blocklisted': len(access.control.blocklist()),
            'mail_directories': count,  # an account and its mail are one here
            'state_dir': str(access.state_dir),
            'database': 'sqlite',
        }
    rows = [
        ('accounts', count),
        ('registration', data['registration']),
        ('made at first login', 'yes' if data['jit_enabled'] else 'no'),
        ('blocked names', data['blocklisted']),
        ('state directory', data['state_dir']),
    ]
    return Result(data, table(('', ''), rows).strip())


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
        place = str(access.state_dir / 'shards')
    data: dict[str, Any] = {
        'username': address,
        'credentials': account is not None and not account['locked'],
        'blocklisted': blocked is not None,
        'block_reason': blocked.reason if blocked else None,
        'maildir_present': account is not None,
        'maildir_path': place,
    }
    rows: list[tuple[str, object]] = [('address', address)]
    if account is not None:
        data |= {
            'created_at': account['created'],
            'first_login_at': account['first_login'] or None,
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
            ('first login', day(account['first_login'])),
            ('last login', day(account['last_login'])),
            ('storage', f'{size(account["used"])} of {limit}'),
            ('messages', account['messages']),
            ('mailboxes', account['mailboxes']),
            ('sessions', account['sessions']),
        ]
        if account['locked']:
            rows.append(('login', 'removed'))
    else:
        rows.append(('account', 'none'))
    if blocked is not None:
        rows.append(('blocked', f'{day(blocked.since)}: {blocked.reason}'))
    return Result(data, table(('', ''), rows).strip())


def given_password(invocation: Invocation) -> bytes:
    """Of the arguments, or asked for."""
    given = invocation.arguments.password or getattr(invocation.arguments, 'given', None)
    return (given or invocation.secret('Password')).encode()


def create(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        accounts.create(access, address, given_password(invocation))
    return Result({'username': address}, f'Created {address}.')


def create_random(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        made = registration.create_account(access, operator=True)
    address, given, link = made['email'], made['password'], made['dclogin_url']
    data = {
        'username': address.rpartition('@')[0],
        'password': given,
        'email': address,
        'dclogin': link,
    }
    if invocation.arguments.json_only and not invocation.json:
        return Result(data, json.dumps({k: data[k] for k in ('email', 'password', 'dclogin')}))
    return Result(data, f'{address}\n{given}\n{link}')


def password(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        access.call(address, 'account_info')  # before anything is asked
        accounts.set_password(access, address, given_password(invocation))
    return Result({'username': address}, f'Changed the password of {address}.')


def delete(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        address = access.address(arguments.user)
        access.call(address, 'account_info')
        invocation.confirm(f'Delete {address} and all its mail?')
        accounts.delete(access, address, arguments.reason, block=not arguments.no_block)
    reason = None if arguments.no_block else arguments.reason
    return Result({'username': address, 'reason': reason}, f'Deleted {address}.')


def ban(invocation: Invocation) -> Result:
    reason = invocation.arguments.reason
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        invocation.confirm(f'Ban {address} and delete all its mail?')
        accounts.delete(access, address, reason)
    return Result({'username': address, 'reason': reason}, f'Banned {address}.')


def unban(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        if access.control.blocked(address) is None:
            raise Failure(f'{address} is not on the blocklist')
        invocation.confirm(f'Take {address} from the blocklist?')
        blocklist.unblock(access, address)
    return Result({'username': address}, f'{address} may be used again.')


def ban_list(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        entries = blocklist.entries(access)
    rows = [(one['username'], day(one['blocked_at']), one['reason']) for one in entries]
    text = table(('address', 'since', 'reason'), rows) if rows else 'Nobody is blocked.'
    return Result({'entries': entries, 'total': len(entries)}, text)


def export(invocation: Invocation) -> Result:
    output = invocation.arguments.output
    with ExitStack() as stack:
        file = stack.enter_context(_private(output)) if output else None  # as who we still are
        access = stack.enter_context(Access(invocation.load()))
        users = sorted(transfer.export(access), key=lambda user: user['username'])
        if file is not None:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.truncate(0)
            file.write(_lines(users))
    if output:
        path = str(Path(output).absolute())
        return Result({'count': len(users), 'output': path}, f'{len(users)} accounts in {output}.')
    return Result({'accounts': users, 'users': users}, _lines(users).rstrip('\n'))


def _private(path: str) -> TextIO:
    """A file that keeps what it has until there is something new; for nobody else's eyes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, 'w')


def _lines(users: list[dict[str, str]]) -> str:
    """A JSON array, a line an account."""
    return '[\n' + ',\n'.join(json.dumps(user) for user in users) + '\n]\n' if users else '[]\n'


def import_(invocation: Invocation) -> Result:
    entries = _read(invocation.arguments.file)
    with Access(invocation.load()) as access, Bar('accounts', quiet=invocation.json) as bar:
        data = transfer.import_(access, entries, bar)
    text = f'{data["imported"]} imported, {data["skipped"]} skipped.'
    data.setdefault('errors', [])
    return Result(data, '\n'.join([text, *data['errors']]))


def _read(name: str) -> Any:
    try:
        if name == '-':
            text = sys.stdin.read(IMPORT_LIMIT)
        else:
            with open(name, encoding='utf-8') as file:
                text = file.read(IMPORT_LIMIT)
        return json.loads(text)
    except OSError as error:
        raise Failure(f'{name}: {error.strerror}') from None
    except (ValueError, RecursionError):
        raise Failure(f'{name} is not JSON') from None


def delete_all(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        count = sum(1 for _ in access.accounts())
        invocation.confirm(f'Delete all {count} accounts and all mail?')
        with Bar('deleted', quiet=invocation.json) as bar:
            deleted = accounts.delete_all(
                access, ALL_DELETED, lambda done, _: bar(done, max(count, done))
            )
    return Result({'deleted': deleted}, f'Deleted {deleted} accounts.')
