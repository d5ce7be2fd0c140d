"""webimap, websmtp, webmail-cors: mail over HTTP for browsers."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import settings
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result

ORIGINS = 'webimap.cors_origins'
SERVICES = ('webimap', 'websmtp')
NOBODY = 'Pages of other origins are not allowed.'


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    def family(name: str, text: str, function: Any, **more: Any) -> Any:
        parser = commands.add_parser(name, parents=options, help=text, **more)
        verbs = parser.add_subparsers(dest='verb', metavar='VERB')
        parser.set_defaults(command=name, function=function, verb='status', service=name)
        return verbs

    def verb(verbs: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=function)
        return parser

    for name, text in (('webimap', 'reading mail over HTTP'), ('websmtp', 'sending over HTTP')):
        verbs = family(name, text, switch)
        verb(verbs, 'status', switch, 'whether it is on')
        verb(verbs, 'enable', switch, 'switch it on')
        verb(verbs, 'disable', switch, 'switch it off')
    verbs = family('webmail-cors', 'whose pages may use both', cors, aliases=['webmail-dev'])
    verb(verbs, 'status', cors, 'what is in force')
    for name, text in (('set', 'these only'), ('add', 'one more'), ('remove', 'one less')):
        verb(verbs, name, cors, text).add_argument(
            'origin', metavar='ORIGIN', help='https://…, or *'
        )
    verb(verbs, 'reset', cors, 'as the file says')
    verb(verbs, 'enable', both, 'switch webimap and websmtp on').add_argument(
        'origin', metavar='ORIGIN', nargs='?', help='whose pages may use them, too'
    )
    verb(verbs, 'disable', both, 'switch webimap and websmtp off; the origins stay')


def switch(invocation: Invocation) -> Result:
    verb, service = invocation.arguments.verb, invocation.arguments.service
    name = f'{service}.enabled'
    with Access(invocation.load()) as access:
        if verb != 'status':
            settings.change(access, name, 'true' if verb == 'enable' else 'false')
        on = bool(access.settings[name])
    return Result({'enabled': on}, f'{service} is {"on" if on else "off"}.')


def cors(invocation: Invocation) -> Result:
    verb = invocation.arguments.verb
    with Access(invocation.load()) as access:
        known = list(access.settings[ORIGINS])
        if verb == 'reset':
            settings.change(access, ORIGINS, None)
        elif verb != 'status':
            origin: str = invocation.arguments.origin
            if verb == 'remove' and origin not in known:
                raise Failure(f'{origin} is not among them')
            left = [one for one in known if one != origin]
            chosen = {'set': [origin], 'add': [*left, origin], 'remove': left}[verb]
            settings.change(access, ORIGINS, ','.join(chosen))
        data = _state(access)
    return Result(data, '\n'.join(data['cors_origins_list']) or NOBODY)


def both(invocation: Invocation) -> Result:
    on = invocation.arguments.verb == 'enable'
    origin = getattr(invocation.arguments, 'origin', None)
    with Access(invocation.load()) as access:
        if origin:  # first, for it may be refused
            known = [one for one in access.settings[ORIGINS] if one != origin]
            settings.change(access, ORIGINS, ','.join([*known, origin]))
        for name in SERVICES:
            settings.change(access, f'{name}.enabled', 'true' if on else 'false')
        data = _state(access)
    text = f'webimap and websmtp are {"on" if on else "off"}.'
    return Result({**data, 'origin': origin} if on else data, text)


def _state(access: Access) -> dict[str, Any]:
    origins = list(access.settings[ORIGINS])
    on = [bool(access.settings[f'{name}.enabled']) for name in SERVICES]
    return {
        'status': 'enabled' if all(on) else 'disabled',
        'browser_access_enabled': bool(origins),
        'cors_origins': ','.join(origins),
        'cors_origins_list': origins,
        'webimap_enabled': on[0],
        'websmtp_enabled': on[1],
        'auto_reflect_origin': '*' in origins,
    }
