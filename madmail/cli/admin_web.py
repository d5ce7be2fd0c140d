"""admin-web: the dashboard that the relay serves itself."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import access, settings
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result

ENABLED, PATH = 'panel.enabled', 'panel.path'


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser(
        'admin-web', parents=options, help='the dashboard, pages for administration'
    )
    verbs = family.add_subparsers(dest='verb', metavar='VERB')
    family.set_defaults(function=switch, verb='status')
    for name, text in (
        ('status', 'whether it is on, and where'),
        ('enable', 'serve it, and show a link to log in'),
        ('disable', 'do not serve it'),
    ):
        verbs.add_parser(name, parents=options, help=text).set_defaults(function=switch)
    parser = verbs.add_parser('path', parents=options, help='where it is')
    parser.add_argument('path', metavar='PATH', nargs='?', help='another path; switches it on, too')
    parser.add_argument('--reset', action='store_true', help='as the file says')
    parser.set_defaults(function=path_)


def switch(invocation: Invocation) -> Result:
    verb = invocation.arguments.verb
    with Access(invocation.load()) as relay:
        if verb in ('enable', 'disable'):
            settings.change(relay, ENABLED, 'true' if verb == 'enable' else 'false')
        found = relay.settings
        data = {'enabled': bool(found[ENABLED]), 'path': found[PATH]}
        lines = _lines(relay)
        if verb == 'enable' and access.panel_url(found):
            # It logs in whoever has it, so only who asked for the dashboard sees it.
            lines.append(f'To log in: {access.login(relay)["link"]}')
    return Result(data, '\n'.join(lines))


def path_(invocation: Invocation) -> Result:
    wanted, reset = invocation.arguments.path, invocation.arguments.reset
    if wanted is not None and reset:
        raise Failure('either a path or --reset')
    with Access(invocation.load()) as relay:
        data: dict[str, Any] = {}
        if reset:
            settings.change(relay, PATH, None)
            data['reset'] = True
        elif wanted is not None:
            settings.change(relay, PATH, f'/{wanted.strip("/")}')
            settings.change(relay, ENABLED, 'true')
            data['enabled'] = True
        data['path'] = relay.settings[PATH]
        lines = _lines(relay) if wanted is not None else [data['path']]
    return Result(data, '\n'.join(lines))


def _lines(relay: Access) -> list[str]:
    found = relay.settings
    if not found[ENABLED]:
        return [f'The dashboard is off; its path is {found[PATH]}.']
    if not found['admin.enabled']:
        return ['The dashboard is on, but the admin API it needs is off (admin.enabled).']
    address = access.panel_url(found)
    if not address:
        return ['The dashboard is on, but neither listen.https nor listen.http serves it.']
    return [f'The dashboard is at {address}']
