"""push status, auto, on, off: telling phones that there is mail."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import push
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Result, counted, table


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('push', parents=options, help='notifications to phones')
    verbs = family.add_subparsers(dest='verb', metavar='VERB')
    family.set_defaults(function=status, verb='status')
    verbs.add_parser('status', parents=options, help='mode and figures').set_defaults(
        function=status
    )
    for mode, text in (
        ('auto', 'send, and leave the service alone while it does not answer'),
        ('on', 'send, whether the service answers or not'),
        ('off', 'send none'),
    ):
        verbs.add_parser(mode, parents=options, help=text).set_defaults(function=switch)


def status(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        state = push.state(access)
        url = str(access.settings['push.url'])
        running = access.running
    data = {
        'mode': state['mode'],
        'runtime_enabled': state['running'],
        'failures': state['failures'],
        'auto_disable_threshold': state['threshold'],
        'paused': state['paused'],
        'successful_notifications': state['sent'],
        'waiting': state['waiting'],
        'url': url,
    }
    rows: list[tuple[str, Any]] = [
        ('mode', state['mode']),
        ('service', url),
        ('sent', state['sent']),
    ]
    if running:
        failures = counted(state['failures'], 'failure')
        answers = f'no, {failures} in a row' if state['failures'] else 'yes'
        if state['paused'] and not state['failures']:
            answers = 'yes, and asks to be left alone for a while'
        rows += [
            ('answers', answers),
            ('waiting', counted(state['waiting'], 'device')),
        ]
    return Result(data, table(('', ''), rows).strip())


def switch(invocation: Invocation) -> Result:
    mode = invocation.arguments.verb
    with Access(invocation.load()) as access:
        push.switch(access, mode)
        state = push.state(access)
    data = {'mode': state['mode'], 'runtime_enabled': state['running']}
    return Result(data, f'Notifications: {state["mode"]}.')
