"""doctor, completion, man: what an operator asks when something is odd."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import doctor
from madmail.admin.finding import BAD, WARN
from madmail.admin.finding import OK as FINE
from madmail.cli import manual
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Result
from madmail.master.exits import FAILED, OK

SIGNS = {FINE: 'ok  ', WARN: 'warn', BAD: 'BAD '}


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        'doctor', parents=options, help='look for what is wrong, and say what to do'
    )
    parser.add_argument('--deep', action='store_true', help='read through the databases, too')
    parser.set_defaults(function=examine)
    parser = commands.add_parser('completion', parents=options, help='script for a shell')
    parser.add_argument('shell', choices=manual.SHELLS)
    parser.set_defaults(function=completion)
    parser = commands.add_parser(
        'man', aliases=['generate-man'], parents=options, help='the manual page'
    )
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


def completion(invocation: Invocation) -> Result:
    from madmail.cli.main import parser

    text = manual.completion(parser(), invocation.arguments.shell)
    return Result({'script': text}, text)


def man(invocation: Invocation) -> Result:
    from madmail.cli.main import parser

    text = manual.page(parser())
    return Result({'page': text}, text)
