"""doctor, certificate, completion, man: what an operator asks when something is odd."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import Any

from madmail.admin import doctor
from madmail.cli import manual
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, table
from madmail.master.exits import FAILED, OK
from madmail.tls import self_signed
from madmail.tls.certificate import Missing, describe
from madmail.tls.context import DIRECTORY

SIGNS = {doctor.OK: 'ok  ', doctor.WARN: 'warn', doctor.BAD: 'BAD '}


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        'doctor', parents=options, help='look for what is wrong, and say what to do'
    )
    parser.add_argument('--deep', action='store_true', help='read through the databases, too')
    parser.set_defaults(function=examine)
    family = commands.add_parser('certificate', parents=options, help='the TLS certificate')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)
    for verb, function, text in (
        ('status', certificate, 'names and times'),
        ('get', renew, 'make one if there is none (tls.mode self_signed)'),
        ('regenerate', renew, 'make a new one (tls.mode self_signed)'),
    ):
        verbs.add_parser(verb, parents=options, help=text).set_defaults(function=function)
    parser = commands.add_parser('completion', parents=options, help='script for a shell')
    parser.add_argument('shell', choices=manual.SHELLS)
    parser.set_defaults(function=completion)
    parser = commands.add_parser('man', parents=options, help='the manual page')
    parser.set_defaults(function=man)


def examine(invocation: Invocation) -> Result:
    checks = doctor.DEEP if invocation.arguments.deep else doctor.CHECKS
    with Access(invocation.load()) as access:
        findings = doctor.examine(access, checks)
    data = doctor.as_data(findings)
    lines = []
    for one in findings:
        lines.append(f'{SIGNS[one.level]}  {one.name}: {one.seen}')
        if one.advice:
            lines.append(f'      {one.advice}')
    if data['healthy']:
        lines.append('\nNothing is wrong.' if not data['warnings'] else '\nNothing is broken.')
    return Result(data, '\n'.join(lines), exit_code=OK if data['healthy'] else FAILED)


def certificate(invocation: Invocation) -> Result:
    settings = invocation.load()
    try:
        told = describe(settings, settings['state_dir'].absolute())
    except Missing as missing:
        raise Failure(f'there is no certificate: {missing}') from None
    left = told['not_after'] - int(time.time())
    data = {
        **told,
        'present': True,
        'domain': settings['domain'],
        'days_remaining': left // 86400,
        'status': 'valid' if left > 0 else 'expired',
    }
    rows = [
        ('file', told['cert_path']),
        ('kind', told['cert_type']),
        ('names', ', '.join(told['sans'])),
        ('issuer', told['issuer']),
        ('from', _day(told['not_before'])),
        ('until', f'{_day(told["not_after"])} ({left // 86400} days)'),
        ('SHA-256', told['sha256'].upper()),
    ]
    return Result(data, table(('', ''), rows).strip())


def renew(invocation: Invocation) -> Result:
    settings = invocation.load()
    if settings['tls.mode'] != 'self_signed':
        raise Failure(
            f'tls.mode is {settings["tls.mode"]}: the certificate is made elsewhere; '
            'the relay takes a new file over by itself'
        )
    with Access(settings) as access:
        directory = access.state_dir / DIRECTORY
        again = invocation.arguments.verb == 'regenerate'
        if again:
            invocation.confirm(
                'Clients that have checked the fingerprint will see another one. Make a new '
                'certificate?'
            )
            for path in self_signed.files(directory):
                path.unlink(missing_ok=True)
        self_signed.ensure(directory, str(settings['domain']))
        told = describe(settings, access.state_dir)
    data = {'domain': settings['domain'], 'action': 'issued' if again else 'kept', **told}
    return Result(data, f'SHA-256 {told["sha256"].upper()}, until {_day(told["not_after"])}.')


def completion(invocation: Invocation) -> Result:
    from madmail.cli.main import parser

    text = manual.completion(parser(), invocation.arguments.shell)
    return Result({'script': text}, text)


def man(invocation: Invocation) -> Result:
    from madmail.cli.main import parser

    text = manual.page(parser())
    return Result({'page': text}, text)


def _day(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime('%Y-%m-%d')
