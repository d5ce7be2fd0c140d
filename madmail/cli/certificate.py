"""certificate status, get, regenerate, autocert: the TLS certificate."""

from __future__ import annotations

import argparse
import socket
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from madmail.account.address import ip_literal
from madmail.admin import certificate, settings
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, table
from madmail.master import control
from madmail.settings import Address, Settings
from madmail.settings.kinds import Wrong
from madmail.settings.network_kinds import Addresses
from madmail.tls import self_signed
from madmail.tls.certificate import describe
from madmail.tls.files import DIRECTORY

ACTIONS = {
    'issued': 'A new certificate is in place.',
    'kept': 'The certificate is not due to be renewed; --force does it all the same.',
    'tested': 'The trial succeeded; its certificate was thrown away.',
    'started': 'An order is under way; see "madmail certificate status".',
}


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('certificate', parents=options, help='the TLS certificate')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)
    parser = verbs.add_parser('status', parents=options, help='names and times')
    parser.set_defaults(function=status)
    order = argparse.ArgumentParser(add_help=False)
    order.add_argument('--domain', help='the domain of this relay; another one is refused')
    order.add_argument('--email', help='sets tls.acme_email')
    order.add_argument(
        '--http-listen',
        metavar='ADDRESS',
        help='where challenges are answered if the relay does not run, in place of listen.http',
    )
    order.add_argument(
        '--staging',
        action='store_true',
        help="a trial with Let's Encrypt's servers for trials; the certificate is thrown away",
    )
    order.add_argument('--new-key', action='store_true', help='for a key that others may know')
    order.add_argument('-y', '--yes', action='store_true', help='do not ask')
    parser = verbs.add_parser(
        'get', parents=[*options, order], help='have one issued or made, if it is missing or due'
    )
    parser.add_argument('--force', action='store_true', help='even if it is not due')
    parser.set_defaults(function=get)
    parser = verbs.add_parser(
        'regenerate', parents=[*options, order], help='have a new one issued, or make it'
    )
    parser.set_defaults(function=get, force=True)
    group = verbs.add_parser('autocert', parents=options, help='an authority issues and renews it')
    actions = group.add_subparsers(dest='action', metavar='ACTION', required=True)
    parser = actions.add_parser('enable', parents=options, help='tls.mode acme, from now on')
    parser.add_argument('--email', default='', help='where the authority can write to')
    parser.add_argument('--http-listen', metavar='ADDRESS', help='sets listen.http')
    parser.add_argument(
        '--staging', action='store_true', help="with Let's Encrypt's servers for trials"
    )
    parser.add_argument('--obtain', action='store_true', help='wait until there is one')
    parser.set_defaults(function=enable)
    parser = actions.add_parser('status', parents=options, help='how that goes')
    parser.set_defaults(function=autocert)


def status(invocation: Invocation) -> Result:
    with Access(invocation.load()) as relay:
        data = certificate.status(relay)
    if not data['present']:
        raise Failure(f'there is no certificate: {data["reason"]}')
    rows = [
        ('file', data['cert_path']),
        ('kind', data['cert_type']),
        ('names', ', '.join(data['sans'])),
        ('issuer', data['issuer']),
        ('from', _day(data['not_before'])),
        ('until', f'{_day(data["not_after"])} ({data["days_remaining"]} days)'),
        ('SHA-256', data['sha256'].upper()),
    ]
    text = table(('', ''), [*rows, *_orders(data.get('renewal'))]).strip()
    return Result(data, text)


def get(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    found = invocation.load()
    _check_domain(found, arguments.domain)
    prepared = _Port(found, arguments.http_listen)
    with prepared, Access(found) as relay:
        if relay.settings['tls.mode'] == 'self_signed' and not arguments.staging:
            return _own(invocation, relay)
        if arguments.email:
            settings.write(relay, 'tls.acme_email', arguments.email)
        data = certificate.get(
            relay,
            force=arguments.force or arguments.new_key,
            new_key=arguments.new_key,
            trial=arguments.staging,
            listeners=prepared.listeners,
        )
        if data['action'] in ('issued', 'kept'):
            data |= describe(relay.settings, relay.state_dir)
    return Result(data, ACTIONS[data['action']])


def _own(invocation: Invocation, relay: Access) -> Result:
    """The certificate that we make."""
    arguments = invocation.arguments
    directory = relay.state_dir / DIRECTORY
    again = arguments.verb == 'regenerate' or arguments.force or arguments.new_key
    if again:
        invocation.confirm(
            'Clients that have checked the fingerprint will see another one. Make a new '
            'certificate?'
        )
        for path in self_signed.files(directory):
            path.unlink(missing_ok=True)
    self_signed.ensure(
        directory, str(relay.settings['domain']), host=str(relay.settings['relay.hostname'])
    )
    told = describe(relay.settings, relay.state_dir)
    domain = relay.settings['domain']
    data = {'domain': domain, 'action': 'issued' if again else 'kept', **told}
    return Result(data, f'SHA-256 {told["sha256"].upper()}, until {_day(told["not_after"])}.')


def enable(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    found = invocation.load()
    prepared = _Port(found, arguments.http_listen)
    with prepared, Access(found) as relay:
        if arguments.http_listen:
            settings.write(relay, 'listen.http', arguments.http_listen)
        certificate.enable(relay, arguments.email, staging=arguments.staging)
        obtained = False
        if arguments.obtain:
            done = certificate.get(relay, listeners=prepared.listeners)
            obtained = done['action'] in ('issued', 'kept')
        data = {
            'enabled': True,
            'domain': relay.settings['domain'],
            'acme_email': relay.settings['tls.acme_email'],
            'obtained': obtained,
        }
    text = 'An authority issues the certificate and renews it. '
    text += 'It is in place.' if obtained else 'See "madmail certificate status".'
    return Result(data, text)


def autocert(invocation: Invocation) -> Result:
    with Access(invocation.load()) as relay:
        data = certificate.autocert(relay)
    if not data['enabled']:
        return Result(data, f'off: tls.mode is {data["tls_mode"]}')
    rows = [('domain', data['domain']), ('authority', data['directory'])]
    if data['present']:
        rows += [
            ('issuer', data['issuer']),
            ('until', f'{_day(data["not_after"])} ({data["days_remaining"]} days)'),
        ]
    return Result(data, table(('', ''), [*rows, *_orders(data)]).strip())


def _orders(told: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Lines about what is known of orders."""
    if told is None:
        return []
    rows = []
    if not told['issued']:
        rows.append(('authority', 'has issued none yet; the relay serves its own'))
    if told['renew_at']:
        rows.append(('renewal', _time(told['renew_at'])))
    if told['last_try']:
        rows.append(('last try', _time(told['last_try'])))
    if told['error']:
        rows.append(('failed', told['error']))
    if told['next_try']:
        rows.append(('next try', _time(told['next_try'])))
    if told['left_out']:
        rows.append(('refused names', ', '.join(told['left_out'])))
    return rows


def _check_domain(found: Settings, domain: str | None) -> None:
    if domain is None:
        return
    wanted = str(ip_literal(domain) or domain.rstrip('.').lower())
    if wanted not in (found['domain'], found['relay.hostname']):
        raise Failure(f'{domain} is not the domain of this relay, which is {found["domain"]}')


class _Port:
    """Port 80 for an order while the relay does not run.

    Bound before the rights of root are given up, so also when it turns out not to be
    needed.
    """

    def __init__(self, found: Settings, given: str | None) -> None:
        """Raises Failure."""
        try:
            self._addresses: Sequence[Address] = found['listen.http']
            if given:
                self._addresses = _addresses(given)
        except Wrong as wrong:
            raise Failure(f'--http-listen: expected {wrong}') from None
        self._sockets: list[socket.socket] = []
        self._trouble = ''
        self._found = found

    def __enter__(self) -> _Port:
        if self._runs():
            return self
        certificate.load()
        for address in self._addresses:
            family = socket.AF_INET6 if ':' in address.host else socket.AF_INET
            listener = socket.socket(family)
            self._sockets.append(listener)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((address.host, address.port))
                listener.listen(64)
            except OSError as error:
                self._trouble = f'{address}: {error.strerror}'
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._sockets:
            listener.close()

    def listeners(self) -> Sequence[socket.socket]:
        """Raises Failure when they could not be bound."""
        if self._trouble:
            raise Failure(f'challenges cannot be answered: {self._trouble}')
        if not self._sockets:
            raise Failure('challenges cannot be answered: listen.http is empty')
        return self._sockets

    def _runs(self) -> bool:
        try:
            control.ask(self._found['state_dir'].absolute(), {'command': 'unusable'})
        except (control.NotRunning, control.Refused, OSError):
            return False
        return True


def _addresses(text: str) -> Sequence[Address]:
    parse: Callable[[str], Any] = Addresses(80).parse
    found: Sequence[Address] = parse(text)
    return found


def _day(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime('%Y-%m-%d')


def _time(unix: int) -> str:
    text = datetime.fromtimestamp(unix, UTC).strftime('%Y-%m-%d %H:%M UTC')
    return f'{text} (now)' if unix <= time.time() < unix + 60 else text
