"""creds and hash: logins and password hashes, as the older command line has them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from madmail.account import hashing
from madmail.admin import accounts, transfer
from madmail.admin.refused import Refused
from madmail.cli import ports, registration, turn
from madmail.cli.access import Access
from madmail.cli.accounts import add_password, add_yes, given_password
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result

Options = list[argparse.ArgumentParser]


def add_commands(commands: Any, options: Options) -> None:
    family = commands.add_parser('creds', parents=options, help='logins of the accounts')
    family.add_argument('--cfg-block', help=argparse.SUPPRESS)
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)
    verbs.add_parser('list', parents=options, help='one login a line').set_defaults(function=list_)
    for name, function, text in (
        ('create', create, 'make an account'),
        ('password', password, 'set a password and end the sessions'),
    ):
        parser = verbs.add_parser(name, parents=options, help=text)
        parser.add_argument('user', metavar='USER')
        add_password(parser)
        parser.set_defaults(function=function)
        if name == 'create':
            _hash_options(parser, default=None)
    parser = verbs.add_parser('remove', parents=options, help='end the login; the mail stays')
    parser.add_argument('user', metavar='USER')
    add_yes(parser)
    parser.set_defaults(function=remove)
    for name, words, function in (
        ('registration', ('open', 'token', 'close', 'closed', 'status'), registration.switch),
        ('jit', ('enable', 'disable', 'auto', 'status'), registration.jit),
        ('turn', ('on', 'off', 'status'), turn.by_word),
        ('logging', ('on', 'off', 'status'), ports.log_),
    ):
        meant = 'log' if name == 'logging' else name
        parser = verbs.add_parser(name, parents=options, help=f'as "madmail {meant}"')
        parser.add_argument('subverb', metavar='WORD', choices=words, help=', '.join(words))
        parser.set_defaults(function=function)
    hash_parser = commands.add_parser('hash', parents=options, help='hash a password')
    hash_parser.add_argument('-p', '--password', help='else asked for')
    _hash_options(hash_parser, default='bcrypt')
    hash_parser.set_defaults(function=hash_)


def _hash_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument('--hash', choices=hashing.ALGORITHMS, default=default, dest='algorithm')
    for name, number in (
        ('bcrypt-cost', 10),
        ('argon2-time', 3),
        ('argon2-memory', 1024),
        ('argon2-threads', 1),
    ):
        parser.add_argument(f'--{name}', type=int, default=number, metavar='N')


def list_(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        logins = sorted(one['address'] for one in access.accounts() if not one['locked'])
    return Result({'logins': logins, 'total': len(logins)}, '\n'.join(logins))


def create(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        given = given_password(invocation)
        if invocation.arguments.algorithm is None:
            accounts.create(access, address, given)
        else:
            _create_hashed(access, address, _hashed(invocation, given))
    return Result({'username': address}, f'Created {address}.')


def _create_hashed(access: Access, address: str, verifier: str) -> None:
    answer = transfer.import_(access, [{'username': address, 'hash': verifier}])
    if not answer['imported']:
        errors = answer.get('errors')
        raise (
            Refused('invalid', errors[0])
            if errors
            else Refused('exists', 'the account exists already')
        )


def password(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        access.call(address, 'account_info')  # before anything is asked
        accounts.set_password(access, address, given_password(invocation))
    return Result({'username': address}, f'Changed the password of {address}.')


def remove(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        address = access.address(invocation.arguments.user)
        access.call(address, 'account_info')
        invocation.confirm(f'End the login of {address}? Its mail stays.')
        access.call(address, 'account_lock')
    return Result(
        {'username': address}, f'Nobody can log in as {address} until there is a password.'
    )


def hash_(invocation: Invocation) -> Result:
    given = invocation.arguments.password
    if given is None:
        given = invocation.secret('Password')
    if not given:
        print('Warning: the password is empty', file=sys.stderr)
    elif given != given.strip():
        print('Warning: the password begins or ends with a blank', file=sys.stderr)
    made = _hashed(invocation, given.encode())
    return Result({'hash': made, 'algorithm': invocation.arguments.algorithm}, made)


def _hashed(invocation: Invocation, given: bytes) -> str:
    arguments = invocation.arguments
    try:
        if arguments.algorithm == 'sha256':
            return hashing.sha256(given)
        if arguments.algorithm == 'argon2':
            return hashing.argon2(
                given, arguments.argon2_time, arguments.argon2_memory, arguments.argon2_threads
            )
        return hashing.bcrypt(given, arguments.bcrypt_cost)
    except (ValueError, MemoryError) as error:
        raise Failure(f'{arguments.algorithm}: {error}') from None
