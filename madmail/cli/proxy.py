"""proxy: the Shadowsocks proxy, a way to this relay from networks that block it."""

from __future__ import annotations

import argparse
import io
import re
import sys
from typing import Any

import segno

from madmail.admin import ports, proxy, settings
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, table

MASKED = re.compile(r'(?<=^ss://)[^@]+')
SOURCES = {'live': 'set at run time', 'file': 'of the configuration file', 'default': 'default'}


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser(
        'proxy',
        aliases=['pr'],
        parents=options,
        help='the Shadowsocks proxy, a way here from networks that block this relay',
    )
    verbs = family.add_subparsers(dest='verb', metavar='VERB')
    family.set_defaults(command='proxy', function=status, verb='status')

    def verb(verbs: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=function)
        return parser

    verb(verbs, 'status', status, 'how it stands')
    verb(verbs, 'enable', switch, 'switch it on; a password is made if there is none')
    verb(verbs, 'disable', switch, 'switch it off')
    for name, text, function in (
        ('cipher', 'how it is sealed', cipher),
        ('password', 'what its users know', password),
        ('port', 'where it listens', port),
    ):
        parser = verb(verbs, name, function, text)
        actions = parser.add_subparsers(dest='action', metavar='VERB')
        parser.set_defaults(action='status')  # now that `action` is known
        verb(actions, 'status', function, 'what is in force')
        set_parser = verb(actions, 'set', function, 'another one')
        if name == 'password':
            set_parser.add_argument('value', metavar='PASSWORD', nargs='?', help='else asked for')
            reset = 'that of the file, or a new one; old links are worth nothing then'
        else:
            kind = int if name == 'port' else str
            set_parser.add_argument('value', metavar=name.upper(), type=kind)
            reset = 'as the file says'
        verb(actions, 'reset', function, reset)
    parser = verb(verbs, 'link', link, 'what users are given; it holds the password')
    parser.add_argument('--qr', action='store_true', help='as a code to scan, too')


def status(invocation: Invocation) -> Result:
    with Access(invocation.load()) as relay:
        data = proxy.state(relay)
    data['password_db_override'] = data['password_source'] == 'live'
    data['ws_enabled'] = data['grpc_enabled'] = False
    # Whoever reads a status may not be meant to have the password; `link` is for that.
    data['shadowsocks_url'] = MASKED.sub(settings.MASK, data['shadowsocks_url'])
    return Result(data, _text(data))


def _text(data: dict[str, Any]) -> str:
    on = 'on' if data['enabled'] else 'off'
    if data['enabled'] and data['port'] is None:
        on = 'on, but listens nowhere ("madmail port shadowsocks enable")'
    elif data['enabled'] and data['answers'] is False:
        on = 'on, but does not answer'
    rows = [
        ('proxy', on),
        ('port', data['port'] or '-'),
        ('cipher', f'{data["cipher"]} ({SOURCES[data["cipher_source"]]})'),
        (
            'password',
            SOURCES[data['password_source']] if data['configured'] else 'none yet',
        ),
        ('link', data['shadowsocks_url'] or '-'),
        ('in use', f'{data["connections"]} from {data["unique_ips"]} addresses'),
    ]
    return table(('', ''), rows).strip()


def switch(invocation: Invocation) -> Result:
    on = invocation.arguments.verb == 'enable'
    with Access(invocation.load()) as relay:
        proxy.turn(relay, on)
    text = 'The proxy is on; "madmail proxy link --qr" is for users.' if on else 'The proxy is off.'
    return Result({'enabled': on, 'reload_required': False}, text)


def cipher(invocation: Invocation) -> Result:
    action = invocation.arguments.action
    with Access(invocation.load()) as relay:
        before = relay.settings[proxy.PASSWORD]
        if action != 'status':
            proxy.set_cipher(relay, invocation.arguments.value if action == 'set' else None)
        name, source = relay.settings[proxy.CIPHER], relay.settings.source(proxy.CIPHER)
        renewed = relay.settings[proxy.PASSWORD] != before
    text = f'{name} ({SOURCES[source]})'
    if action == 'status':
        return Result(
            {'cipher': name, 'db_override': name if source == 'live' else None, 'source': source},
            text,
        )
    if renewed:
        text += ', with a password that fits it; links given out before do not work any more'
    data = {'value': name} if action == 'set' else {'effective': name, 'source': source}
    return Result({**data, 'password_changed': renewed, 'reload_required': False}, text)


def password(invocation: Invocation) -> Result:
    action = invocation.arguments.action
    with Access(invocation.load()) as relay:
        if action != 'status':
            value = None
            if action == 'set':
                value = invocation.arguments.value
                if value is None:
                    value = invocation.secret('Password')
            proxy.set_password(relay, value)
        source = relay.settings.source(proxy.PASSWORD)
        configured = bool(relay.settings[proxy.PASSWORD])
    if action == 'status':
        data = {'configured': configured, 'db_override': source == 'live', 'source': source}
        return Result(data, SOURCES[source] if configured else 'none yet')
    # The password itself is told by nothing but `link`.
    return Result(
        {'configured': configured, 'source': source, 'reload_required': False},
        'Links given out before do not work any more.',
    )


def port(invocation: Invocation) -> Result:
    action = invocation.arguments.action
    with Access(invocation.load()) as relay:
        if action == 'set':
            ports.move(relay, proxy.SERVICE, invocation.arguments.value)
        elif action == 'reset':
            ports.reset(relay, proxy.SERVICE)
        data = ports.state(relay, proxy.SERVICE)
    where = ', '.join(data['addresses']) or 'listens nowhere'
    return Result(data, f'shadowsocks: {where}')


def link(invocation: Invocation) -> Result:
    with Access(invocation.load()) as relay:
        found = proxy.link(relay.settings)
    if not found:
        raise Failure('the proxy is off or listens nowhere: "madmail proxy enable"')
    text = found
    if invocation.arguments.qr and 'utf' in (sys.stdout.encoding or '').lower():
        code = io.StringIO()
        segno.make(found, error='l').terminal(out=code, compact=True)
        text = f'{found}\n\n{code.getvalue().rstrip()}'
    return Result({'shadowsocks_url': found}, text)
