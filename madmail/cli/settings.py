"""settings …: every setting of the relay, what it is, and changing it while the relay runs."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from madmail.admin import settings
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Result, table


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser(
        'settings', parents=options, help='every setting, and changing it while the relay runs'
    )
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)

    def verb(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=function)
        return parser

    parser = verb('list', list_, 'all settings and where their values come from')
    parser.add_argument('prefix', metavar='PREFIX', nargs='?', default='', help='such as limits.')
    parser.add_argument('--changed', action='store_true', help='only those that are not default')
    verb('get', get, 'one setting and what it means').add_argument('name', metavar='NAME')
    parser = verb('set', set_, 'change a setting for good; no connection is dropped')
    parser.add_argument('name', metavar='NAME')
    parser.add_argument('value', metavar='VALUE')
    verb('reset', reset, 'back to what the file says').add_argument('name', metavar='NAME')


def list_(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        found = [
            one
            for one in settings.everything(access)
            if one['name'].startswith(arguments.prefix)
            and not (arguments.changed and one['source'] == 'default')
        ]
        unusable = dict(access.unusable)
    rows = [(one['name'], one['value'], _source(one), one['applies']) for one in found]
    text = table(('setting', 'value', 'from', 'applies'), rows) if rows else 'None.'
    for name, why in unusable.items():
        text += f'\nWARNING: the stored value of {name} is not in force: {why}'
    return Result({'settings': found, 'unusable': unusable, 'total': len(found)}, text)


def get(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        one = settings.one(access, invocation.arguments.name)
    lines = [
        f'{one["name"]}: {one["value"] or "(empty)"}',
        f'  from {_source(one)}; default {one["default"] or "(empty)"}; applies {one["applies"]}',
        textwrap.fill(one['doc'], 78, initial_indent='  ', subsequent_indent='  '),
    ]
    return Result(one, '\n'.join(lines))


def set_(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        one = settings.change(access, arguments.name, arguments.value)
        told = _when(access, one)
    return Result(one, f'{one["name"]}: {one["value"] or "(empty)"}{told}')


def reset(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        one = settings.change(access, invocation.arguments.name, None)
        told = _when(access, one)
    return Result(one, f'{one["name"]}: {one["value"] or "(empty)"}, from {_source(one)}{told}')


def _source(one: dict[str, Any]) -> str:
    return {'live': 'you', 'none': 'nobody'}.get(one['source'], str(one['source']))


def _when(access: Access, one: dict[str, Any]) -> str:
    return '' if access.running else ' (from the next start on: the relay does not run)'
