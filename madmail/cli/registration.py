"""registration, jit, registration-tokens: who gets an account."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

from madmail.admin import registration, tokens
from madmail.cli.access import Access
from madmail.cli.accounts import no_question
from madmail.cli.invocation import Invocation
from madmail.cli.result import Result, table

Options = list[argparse.ArgumentParser]


def add_commands(commands: Any, options: Options) -> None:
    add_registration(commands, options)
    add_jit(commands, options)
    family = commands.add_parser(
        'registration-tokens',
        aliases=['reg-tokens', 'tokens'],
        parents=options,
        help='invitations that make a number of accounts',
    )
    # Whatever it was called as: the long name is the one in the answer.
    family.set_defaults(command='registration-tokens')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)
    create_parser = verbs.add_parser('create', parents=options, help='make a token')
    create_parser.add_argument('--token', default='', help='else made up')
    create_parser.add_argument('--max-uses', type=int, default=1, metavar='N', help='accounts')
    create_parser.add_argument('--comment', default='')
    create_parser.add_argument('--expires', default='', metavar='TIME', help='72h, 30d, 2027-01-31')
    create_parser.set_defaults(function=create)
    verbs.add_parser('list', parents=options, help='all tokens').set_defaults(function=list_)
    for name, function, text in (
        ('status', status, 'one token and its accounts that wait for a login'),
        ('delete', delete, 'no more accounts with it; those it made stay'),
    ):
        parser = verbs.add_parser(name, parents=options, help=text)
        parser.add_argument('token', metavar='TOKEN')
        parser.set_defaults(function=function)
        if function is delete:
            no_question(parser)


def add_registration(commands: Any, options: Options) -> None:
    family = commands.add_parser(
        'registration', parents=options, help='who may register on the web page'
    )
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)
    for name, aliases, text in (
        ('open', [], 'everybody'),
        ('token', [], 'who has a registration token'),
        ('close', ['closed'], 'nobody without a token'),
        ('status', [], 'what holds'),
    ):
        parser = verbs.add_parser(name, aliases=aliases, parents=options, help=text)
        parser.set_defaults(function=switch, verb=name)


def add_jit(commands: Any, options: Options) -> None:
    family = commands.add_parser('jit', parents=options, help='accounts made at their first login')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)
    for name, text in (
        ('enable', 'always, also while registration is closed or needs a token'),
        ('disable', 'never'),
        ('auto', 'while registration is open'),
        ('status', 'what holds'),
    ):
        parser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=jit, verb=name)


def switch(invocation: Invocation) -> Result:
    word = getattr(invocation.arguments, 'subverb', None) or invocation.arguments.verb
    with Access(invocation.load()) as access:
        if word == 'status':
            data = registration.status(access)
        else:
            data = registration.set_registration(access, 'closed' if word == 'close' else word)
    text = f'Registration on the web page: {data["registration"]}.\n{_first_logins(data)}'
    return Result(data, text)


def jit(invocation: Invocation) -> Result:
    word = getattr(invocation.arguments, 'subverb', None) or invocation.arguments.verb
    with Access(invocation.load()) as access:
        if word == 'status':
            data = registration.status(access)
        else:
            data = registration.set_jit(access, None if word == 'auto' else word == 'enable')
    return Result({'enabled': data['jit_enabled'], **data}, _first_logins(data))


def _first_logins(data: dict[str, Any]) -> str:
    if data['jit_enabled'] and not data['open']:
        return 'Whoever logs in with a new name gets an account all the same (madmail jit disable).'
    if data['jit_enabled']:
        return 'Whoever logs in with a new name gets an account.'
    return 'First logins make no accounts.'


def create(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    expires = tokens.expiry(arguments.expires)
    with Access(invocation.load()) as access:
        made = tokens.create(
            access,
            arguments.token,
            max_uses=arguments.max_uses,
            comment=arguments.comment,
            expires=expires,
        )
    data = {name: made[name] for name in ('token', 'max_uses', 'comment', 'expires_at')}
    if not invocation.json and not sys.stdout.isatty():
        sys.stdout.write(made['token'])  # for scripts: nothing else
        sys.stdout.flush()
        return Result(data)
    end = f', until {moment(made["expires_at"])}' if made['expires_at'] else ''
    return Result(data, f'{made["token"]}\nfor {made["max_uses"]} accounts{end}')


def list_(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        found = tokens.entries(access)
    rows = [
        (
            one['token'],
            one['status'],
            one['max_uses'],
            one['used_count'],
            one['pending'],
            moment(one['expires_at']),
            one['comment'],
        )
        for one in found
    ]
    head = ('token', 'status', 'uses', 'used', 'pending', 'expires', 'comment')
    return Result(
        {'tokens': found, 'total': len(found)}, table(head, rows) if rows else 'No tokens.'
    )


def status(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        data = tokens.status(access, invocation.arguments.token)
    rows: list[tuple[str, object]] = [
        ('token', data['token']),
        ('status', data['status']),
        (
            'uses',
            f'{data["used_count"]} used, {data["pending"]} pending, {data["max_uses"]} in all',
        ),
        ('expires', moment(data['expires_at'])),
        ('comment', data['comment']),
    ]
    rows += [
        ('waiting', f'{one["username"]} until {moment(one["until"])}')
        for one in data['pending_accounts']
    ]
    return Result(data, table(('', ''), rows).strip())


def delete(invocation: Invocation) -> Result:
    token = invocation.arguments.token
    with Access(invocation.load()) as access:
        tokens.remove(access, token)
    return Result({'token': token}, 'Deleted; accounts made with it stay.')


def moment(unix: int | None) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime('%Y-%m-%d %H:%MZ') if unix else 'never'
