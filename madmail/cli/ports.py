"""port …, submission-access, message-size, log, openrelay: settings by their old names."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import ports, settings, sizes
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, table

SUBMISSION = ('submission', 'submission-tls')
SHORT = {'shadowsocks': 'ss'}
NO_OPEN_RELAY = (
    'this relay takes mail to others from its own accounts only; there is no switch for it'
)


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    def family(name: str, text: str, function: Any) -> Any:
        parser = commands.add_parser(name, parents=options, help=text)
        verbs = parser.add_subparsers(dest='verb', metavar='VERB')
        parser.set_defaults(function=function, verb='status')  # now that `verb` is known
        return verbs

    def verb(verbs: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=function)
        return parser

    services = family('port', 'where the relay listens', port_status)
    verb(services, 'status', port_status, 'all listeners')
    for service in ports.SERVICES:
        spellings = {service.replace('-', '_'), SHORT.get(service, service)} - {service}
        named = services.add_parser(service, aliases=sorted(spellings), parents=options)
        named.set_defaults(service=service)
        verbs = named.add_subparsers(dest='action', metavar='VERB', required=True)
        verb(verbs, 'status', port, 'where it listens')
        verb(verbs, 'set', port, 'another port').add_argument('port', metavar='PORT', type=int)
        verb(verbs, 'reset', port, 'as the file says')
        verb(verbs, 'local', port, 'this host only')
        verb(verbs, 'public', port, 'all hosts')
        verb(verbs, 'enable', port, 'listen')
        verb(verbs, 'disable', port, 'do not listen')

    verbs = family(
        'submission-access', 'who may reach the ports for sending mail', submission_access
    )
    for name, text in (('status', ''), ('local', 'this host only'), ('public', 'all hosts')):
        verb(verbs, name, submission_access, text or 'what is in force')

    verbs = family('message-size', 'how large a message may be', message_size)
    verb(verbs, 'status', message_size, 'what is in force')
    verb(verbs, 'set', message_size, 'for all users').add_argument('size', metavar='SIZE')
    verb(verbs, 'reset', message_size, 'as the file says')

    verbs = family('log', 'the log, which is off unless you want one', log_)
    verb(verbs, 'status', log_, 'where it goes')
    parser = verb(verbs, 'on', log_, 'log, without addresses of any kind')
    parser.add_argument('target', metavar='PATH', nargs='?', default='stderr', help='or stderr')
    verb(verbs, 'off', log_, 'no log')

    verbs = family('openrelay', 'relaying for strangers, which this relay never does', openrelay)
    verb(verbs, 'status', openrelay, 'never')
    verb(verbs, 'enable', openrelay, 'is refused')
    verb(verbs, 'disable', openrelay, 'is so already')


def port_status(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        found = [ports.state(access, service) for service in ports.SERVICES]
    rows = [(s['name'], *_seen(s), ', '.join(s['addresses'])) for s in found]
    return Result({'services': found}, table(('service', 'port', 'mode', 'addresses'), rows))


def _seen(state: dict[str, Any]) -> tuple[Any, str]:
    """Port and mode for people: what does not listen is neither public nor local."""
    return (state['port'], state['mode']) if state['enabled'] else ('-', '-')


def port(invocation: Invocation) -> Result:
    service: str = invocation.arguments.service
    action: str = invocation.arguments.action
    with Access(invocation.load()) as access:
        if action == 'set':
            ports.move(access, service, invocation.arguments.port)
        elif action == 'reset':
            ports.reset(access, service)
        elif action in ('local', 'public'):
            ports.restrict(access, service, action == 'local')
        elif action in ('enable', 'disable'):
            ports.enable(access, service, action == 'enable')
        state = ports.state(access, service)
    data = dict(state)
    if action == 'set':
        data['port'] = str(state['port'])
    elif action == 'reset':
        data['reset'] = True
    elif action != 'status':
        data['reload_required'] = False  # it was done
    if not state['enabled']:
        return Result(data, f'{service}: does not listen')
    return Result(data, f'{service}: {", ".join(state["addresses"])} ({state["mode"]})')


def submission_access(invocation: Invocation) -> Result:
    verb = invocation.arguments.verb
    with Access(invocation.load()) as access:
        if verb != 'status':
            for service in SUBMISSION:
                if ports.state(access, service)['enabled']:
                    ports.restrict(access, service, verb == 'local')
        found = [ports.state(access, service) for service in SUBMISSION]
    modes = {state['mode'] for state in found if state['enabled']}
    mode = 'local' if modes == {'local'} else 'public'
    rows = [(s['name'], *_seen(s)) for s in found]
    return Result({'mode': mode, 'services': found}, table(('service', 'port', 'mode'), rows))


def message_size(invocation: Invocation) -> Result:
    verb = invocation.arguments.verb
    with Access(invocation.load()) as access:
        if verb == 'set':
            sizes.set_(access, sizes.MESSAGE, invocation.arguments.size)
        elif verb == 'reset':
            sizes.reset(access, sizes.MESSAGE)
        state = sizes.state(access, sizes.MESSAGE)
    data = {
        'appendlimit': state['row'],
        'max_message_size': state['row'],
        'effective_bytes': state['effective_bytes'],
        'source': 'db' if state['row'] else 'config',
    }
    return Result(data, f'Messages may have {state["effective"]}.')


def log_(invocation: Invocation) -> Result:
    verb = getattr(invocation.arguments, 'subverb', None) or invocation.arguments.verb
    with Access(invocation.load()) as access:
        if verb != 'status':
            target = 'off' if verb == 'off' else getattr(invocation.arguments, 'target', 'stderr')
            settings.change(access, 'log', target)
        target = str(access.settings['log'])
    return Result(
        {'enabled': target != 'off', 'target': target},
        'There is no log.' if target == 'off' else f'The log goes to {target}.',
    )


def openrelay(invocation: Invocation) -> Result:
    if invocation.arguments.verb == 'enable':
        raise Failure(NO_OPEN_RELAY)
    data = {'allowed': False, 'file_default': False, 'db_override': None, 'reload_required': False}
    return Result(data, 'Never: ' + NO_OPEN_RELAY + '.')
