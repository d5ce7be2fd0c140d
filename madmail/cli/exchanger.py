"""exchanger …: relays with which mail is exchanged in other ways than straight."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import Any

from madmail.admin import exchangers
from madmail.cli.access import Access
from madmail.cli.accounts import no_question
from madmail.cli.invocation import Invocation
from madmail.cli.result import Result, table
from madmail.delivery.exchanger import INTERVAL, MODES, PROTOCOLS


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser(
        'exchanger', parents=options, help='relays that pass mail on, or fetch it'
    )
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)

    def verb(name: str, function: Any, text: str, *aliases: str) -> Any:
        parser = verbs.add_parser(name, aliases=aliases, parents=options, help=text)
        parser.set_defaults(function=function)
        return parser

    verb('list', list_, 'all of them')
    verb('status', status, 'polls, errors, counts, and what waits').add_argument(
        'name', metavar='NAME', nargs='?', default=''
    )
    add_parser = verb('add', add, 'a new one')
    add_parser.add_argument('name', metavar='NAME')
    add_parser.add_argument('url', metavar='URL', nargs='?', default='')
    _options(add_parser)
    update_parser = verb('update', update, 'change one', 'set')
    update_parser.add_argument('name', metavar='NAME')
    update_parser.add_argument('--url', default=None, metavar='URL')
    _options(update_parser)
    update_parser.add_argument(
        '--new-pull-token', action='store_true', help='make another token for it, shown once'
    )
    for name, function, text, alias in (
        ('remove', remove, 'forget one', ('delete',)),
        ('enable', enable, 'use one again', ()),
        ('disable', enable, 'leave one alone', ()),
        ('poll', poll, 'fetch mail there now', ()),
    ):
        parser = verb(name, function, text, *alias)
        parser.add_argument('name', metavar='NAME')
        if function is remove:
            no_question(parser)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--interval',
        '--poll-interval',
        type=int,
        default=None,
        metavar='SECONDS',
        help=f'between two polls, default {INTERVAL}',
    )
    parser.add_argument(
        '--protocol',
        choices=PROTOCOLS,
        default=None,
        help='how mail is fetched there: a (/me/full) or b (/pull, with --token)',
    )
    parser.add_argument('--token', default=None, help='with which mail is fetched there')
    parser.add_argument(
        '--fetch',
        dest='fetches',
        action='append',
        default=None,
        metavar='DOMAIN',
        help='fetch the mail of this domain instead of our own (again for more; * = all)',
    )
    polls = parser.add_mutually_exclusive_group()
    polls.add_argument(
        '--poll', dest='polls', action='store_true', default=None, help='fetch mail there'
    )
    polls.add_argument('--no-poll', dest='polls', action='store_false', help='fetch no mail there')
    parser.add_argument(
        '--domain',
        dest='domains',
        action='append',
        default=None,
        metavar='DOMAIN',
        help='mail for this domain goes by it (again for more; *.NAME, * = all others)',
    )
    parser.add_argument(
        '--mode',
        choices=MODES,
        default=None,
        help='how: push sends it there, pull waits until it is fetched, both what comes first',
    )
    carries = parser.add_mutually_exclusive_group()
    carries.add_argument(
        '--carry',
        dest='carries',
        action='store_true',
        default=None,
        help='be an exchanger: take mail for these domains from everybody',
    )
    carries.add_argument(
        '--no-carry', dest='carries', action='store_false', help='take it from our accounts only'
    )
    parser.add_argument(
        '--pull-token', default=None, metavar='TOKEN', help='with which it may fetch from us'
    )
    verify = parser.add_mutually_exclusive_group()
    verify.add_argument(
        '--verify', action='store_true', default=None, help='demand a right certificate'
    )
    verify.add_argument(
        '--no-verify', dest='verify', action='store_false', help='accept any certificate'
    )


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    names = (
        *('protocol', 'token', 'fetches', 'polls', 'domains', 'mode'),
        *('carries', 'pull_token', 'verify'),
    )
    given = {name: getattr(arguments, name) for name in names}
    for name in ('domains', 'fetches'):
        if given[name] == ['']:
            given[name] = []
    return {'poll_interval': arguments.interval, **given}


def add(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        entry = exchangers.add(access, arguments.name, arguments.url, **_given(arguments))
    return Result(entry, f'Added {entry["name"]}.' + _token(entry))


def update(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    given = _given(arguments)
    if arguments.new_pull_token:
        given['pull_token'] = ''
    with Access(invocation.load()) as access:
        entry = exchangers.update(access, arguments.name, url=arguments.url, **given)
    return Result(entry, f'Changed {entry["name"]}.' + _token(entry))


def remove(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        name = exchangers.remove(access, invocation.arguments.name)
    return Result({'name': name}, f'Removed {name}.')


def enable(invocation: Invocation) -> Result:
    on = invocation.arguments.verb == 'enable'
    with Access(invocation.load()) as access:
        entry = exchangers.enable(access, invocation.arguments.name, on)
    return Result(entry, f'{entry["name"]} is {"on" if on else "off"}.')


def poll(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        entry = exchangers.poll(access, invocation.arguments.name)
    good = not entry['last_error']
    text = (
        f'Polled {entry["name"]}; {entry["pulled_total"]} messages so far.'
        if good
        else f'{entry["name"]}: {entry["last_error"]}'
    )
    return Result(entry, text, exit_code=0 if good else 1)


def list_(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        found = exchangers.entries(access)
    rows = [
        (
            one['name'],
            one['url'] or '-',
            str(one['poll_interval']) if one['polls'] else '-',
            'yes' if one['enabled'] else 'no',
            _time(one['last_poll_at']),
            one['mode'] if one['domains'] else '-',
            ' '.join(one['domains']) + (' (carried)' if one['carries'] else ''),
        )
        for one in found
    ]
    head = ('name', 'endpoint', 'interval', 'enabled', 'last poll', 'mode', 'domains')
    text = table(head, rows) if rows else 'There is no exchanger.'
    return Result({'exchangers': found, 'total': len(found)}, text)


def status(invocation: Invocation) -> Result:
    name = invocation.arguments.name
    with Access(invocation.load()) as access:
        data = exchangers.status(access)
        if name:
            wanted = exchangers.get(access, name)['name']
            data['exchangers'] = [one for one in data['exchangers'] if one['name'] == wanted]
    rows = [
        (
            one['name'],
            _time(one['last_poll_at']),
            _time(one['last_success_at']),
            one['pulled_total'],
            one['refused_total'],
            one['waiting'],
            one['given_total'],
            one['last_error'] or '-',
        )
        for one in data['exchangers']
    ]
    head = ('name', 'last poll', 'success', 'pulled', 'refused', 'waiting', 'given', 'error')
    return Result(data, table(head, rows) if rows else 'There is no exchanger.')


def _time(unix: int | None) -> str:
    if unix is None:
        return 'never'
    return datetime.fromtimestamp(unix).strftime('%Y-%m-%d %H:%M:%S')


def _token(entry: dict[str, Any]) -> str:
    if 'pull_token' not in entry:
        return ''
    return f'\nIt fetches with this token, which is shown only now: {entry["pull_token"]}'
