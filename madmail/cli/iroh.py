"""iroh: the relay of WebXDC channels."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import iroh
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Result, size, table


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('iroh', parents=options, help='the relay of WebXDC channels')
    verbs = family.add_subparsers(dest='verb', metavar='VERB')
    family.set_defaults(function=status, verb='status')
    for name, function, text in (
        ('status', status, 'how it stands, and what clients are told'),
        ('enable', switch, 'switch it on'),
        ('install', install, 'switch it on: it is a part of this program'),
        ('disable', switch, 'switch it off; clients then use those of other operators'),
    ):
        verbs.add_parser(name, parents=options, help=text).set_defaults(function=function)


def status(invocation: Invocation) -> Result:
    with Access(invocation.load()) as relay:
        data = iroh.state(relay)
    on = 'on' if data['enabled'] else 'off'
    if data['enabled'] and data['answers'] is False:
        on = 'on, but does not answer'
    rows = [
        ('relay', on),
        ('port', data['port'] or '-'),
        ('clients are told', data['relay_url'] or 'nothing'),
        ('nodes connected', data['clients']),
        ('received, sent', f'{size(data["received"])}, {size(data["sent"])}'),
    ]
    data |= {
        'configured': True,
        'admin_enabled': data['enabled'],
        'runtime_enabled': data['enabled'] and data['answers'] is not False,
        'listening': bool(data['answers']),
        'reload_required': False,
    }
    return Result(data, table(('', ''), rows).strip())


def switch(invocation: Invocation) -> Result:
    on = invocation.arguments.verb == 'enable'
    with Access(invocation.load()) as relay:
        iroh.turn(relay, on)
    text = 'on' if on else 'off'
    return Result({'enabled': on, 'reload_required': False}, f'The iroh relay is {text}.')


def install(invocation: Invocation) -> Result:
    with Access(invocation.load()) as relay:
        iroh.turn(relay, True)
        url = iroh.state(relay)['relay_url']
    data = {
        'configured': True,
        'config_updated': False,
        'enabled': True,
        'relay_url': url,
        'reload_required': False,
    }
    return Result(data, f'The iroh relay is on; clients are told {url or "nothing"}.')
