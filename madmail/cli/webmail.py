"""webimap, websmtp, webmail-cors: mail over HTTP for browsers."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import settings
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result

ORIGINS = 'webimap.cors_origins'


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    def family(name: str, text: str, **more: Any) -> Any:
        parser = commands.add_parser(name, parents=options, help=text, **more)
        return parser.add_subparsers(dest='verb', metavar='VERB', required=True)

    def verb(verbs: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=function)
        return parser

    for name, text in (('webimap', 'reading mail over HTTP'), ('websmtp', 'sending over HTTP')):
        verbs = family(name, text)
        verb(verbs, 'status', switch, 'whether it is on').set_defaults(service=name)
        verb(verbs, 'enable', switch, 'switch it on').set_defaults(service=name)
        verb(verbs, 'disable', switch, 'switch it off').set_defaults(service=name)
    verbs = family('webmail-cors', 'whose pages may use both', aliases=['webmail-dev'])
    verb(verbs, 'status', cors, 'what is in force')
    for name, text in (('set', 'these only'), ('add', 'one more'), ('remove', 'one less')):
        verb(verbs, name, cors, text).add_argument(
            'origin', metavar='ORIGIN', help='https://…, or *'
        )
    verb(verbs, 'reset', cors, 'as the file says')


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
        origins = list(access.settings[ORIGINS])
        both = [bool(access.settings[f'{name}.enabled']) for name in ('webimap', 'websmtp')]
    data = {
        'status': 'enabled' if all(both) else 'disabled',
        'browser_access_enabled': bool(origins),
        'cors_origins': ','.join(origins),
        'cors_origins_list': origins,
        'webimap_enabled': both[0],
        'websmtp_enabled': both[1],
        'auto_reflect_origin': '*' in origins,
    }
    return Result(data, '\n'.join(origins) or 'Pages of other origins are not allowed.')
