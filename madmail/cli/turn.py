"""turn: calls between phones that cannot reach each other directly."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import turn
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Result, duration, size, table


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('turn', parents=options, help='the TURN server, for calls')
    verbs = family.add_subparsers(dest='verb', metavar='VERB')
    family.set_defaults(function=status, verb='status')
    for names, function, text in (
        (['status'], status, 'how it stands, and what clients are told'),
        (['on', 'enable'], switch, 'switch it on'),
        (['off', 'disable'], switch, 'switch it off; clients then use those of other operators'),
        (['rotate'], rotate, 'another secret; passwords given out before last out their time'),
    ):
        parser = verbs.add_parser(names[0], aliases=names[1:], parents=options, help=text)
        parser.set_defaults(function=function)
        if function is rotate:
            parser.add_argument(
                '--forget', action='store_true', help='former passwords count no more at all'
            )


def status(invocation: Invocation) -> Result:
    with Access(invocation.load()) as relay:
        data = turn.state(relay)
    on = 'on' if data['enabled'] else 'off'
    if data['enabled'] and data['port'] is None and data['tls_port'] is None:
        on = 'on, but listens nowhere ("madmail port turn enable")'
    elif data['enabled'] and data['answers'] is False:
        on = 'on, but does not answer'
    first, last = data['relay_ports']
    rows = [
        ('server', on),
        ('clients are told', data['host'] or 'nothing'),
        ('port, for TLS', f'{data["port"] or "-"}, {data["tls_port"] or "-"}'),
        ('ports of relays', f'{first} to {last}'),
        ('secret', 'given' if data['own_secret'] else 'of the relay'),
        ('passwords last', duration(data['ttl'])),
        ('relays in use', data['relays']),
        ('connections', data['connections']),
        ('received, sent', f'{size(data["received"])}, {size(data["sent"])}'),
    ]
    return Result(data, table(('', ''), rows).strip())


def by_word(invocation: Invocation) -> Result:
    """`creds turn on|off|status`."""
    return (status if invocation.arguments.subverb == 'status' else switch)(invocation)


def switch(invocation: Invocation) -> Result:
    word = getattr(invocation.arguments, 'subverb', None) or invocation.arguments.verb
    on = word in ('on', 'enable')
    with Access(invocation.load()) as relay:
        turn.turn(relay, on)
    data = {'enabled': on, 'reload_required': False}
    return Result(data, f'The TURN server is {"on" if on else "off"}.')


def rotate(invocation: Invocation) -> Result:
    forget = invocation.arguments.forget
    with Access(invocation.load()) as relay:
        turn.rotate(relay, forget=forget)
    text = 'Passwords are made from another secret now'
    return Result({'rotated': True, 'forgotten': forget}, f'{text}{"; no others count" * forget}.')
