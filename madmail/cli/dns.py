"""dns, dns check: what the relay needs in the DNS, and whether it is there."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import records
from madmail.cli.dkim import ON_IP, open_keys
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, table
from madmail.delivery import zone
from madmail.delivery.dkim import Damaged
from madmail.delivery.zone import Finding, Need, Record, Verdict
from madmail.master.exits import FAILED, OK
from madmail.settings import Settings

WIDTH = 60  # characters of a value in a table


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('dns', parents=options, help='the DNS records of this relay')
    family.set_defaults(function=dns, verb=None)
    verbs = family.add_subparsers(dest='verb', metavar='VERB')
    verbs.add_parser('check', parents=options, help='compare with what is published').set_defaults(
        function=check
    )


def dns(invocation: Invocation) -> Result:
    settings = invocation.load()
    wanted = _records(settings)
    data = {'domain': settings['domain'], 'records': [records.as_data(one) for one in wanted]}
    if not wanted:
        return Result(data, f'{ON_IP.capitalize()}.')
    return Result(
        data, '\n\n'.join([zone.text(wanted), *(f'; {line}' for line in _warned(settings))])
    )


def check(invocation: Invocation) -> Result:
    settings = invocation.load()
    ask = records.look(settings)
    findings = zone.check(_records(settings), ask)
    wrong = [one for one in findings if one.serious]
    data = {
        'domain': settings['domain'],
        'complete': not wrong,
        'records': [records.found_as_data(one) for one in findings],
    }
    text = '\n'.join([_report(findings), *(f'\n{line}' for line in _warned(settings) if findings)])
    return Result(data, text, exit_code=FAILED if wrong else OK)


def _warned(settings: Settings) -> list[str]:
    return records.warnings(settings, settings['state_dir'].absolute())


def _records(settings: Settings) -> list[Record]:
    keys = open_keys(settings)
    try:
        return records.wanted(settings, settings['state_dir'].absolute(), keys)
    except (Damaged, OSError) as error:
        raise Failure(str(error)) from None


def _report(findings: list[Finding]) -> str:
    if not findings:
        return f'{ON_IP.capitalize()}.'
    rows = [
        (one.verdict.value, one.record.need.value, one.record.name, one.record.kind, _brief(one))
        for one in findings
    ]
    lines = [table(('', 'need', 'name', 'type', 'seen'), rows)]
    wanted = [one for one in findings if one.verdict in (Verdict.MISSING, Verdict.DIFFERENT)]
    for need in Need:
        if some := [one.record for one in wanted if one.record.need is need]:
            lines += ['', f'Expected ({need.value}):', '', *(record.line() for record in some)]
    if any(one.verdict is Verdict.UNKNOWN for one in findings):
        lines += ['', 'What is unknown could not be looked up; see dns.servers.']
    if not any(one.serious for one in findings):
        lines += ['', 'All that is required is there.']
    return '\n'.join(lines)


def _brief(finding: Finding) -> str:
    if not finding.seen and finding.verdict is Verdict.OK:
        return '(none, and none is needed)'
    text = ', '.join(finding.seen)
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + '…'
