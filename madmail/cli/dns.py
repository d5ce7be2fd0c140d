"""dns, dns check: what the relay needs in the DNS, and whether it is there."""

from __future__ import annotations

import argparse
import ipaddress
import socket
from typing import Any

from madmail.cli.dkim import ON_IP, look, open_keys
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, table
from madmail.delivery import zone
from madmail.delivery.dkim import Damaged
from madmail.delivery.zone import Finding, Need, Record, Verdict
from madmail.master.exits import FAILED, OK
from madmail.settings import Settings
from madmail.settings.declarations import LISTENERS
from madmail.tls import certificate

# Root servers.  Nothing is sent to them: a connected UDP socket shows our own address.
FAR = ((socket.AF_INET, '198.41.0.4'), (socket.AF_INET6, '2001:503:ba3e::2:30'))
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
    records = _records(settings)
    data = {'domain': settings['domain'], 'records': [_as_data(one) for one in records]}
    if not records:
        return Result(data, f'{ON_IP.capitalize()}.')
    return Result(
        data, '\n\n'.join([zone.text(records), *(f'; {line}' for line in _warned(settings))])
    )


def check(invocation: Invocation) -> Result:
    settings = invocation.load()
    ask = look(settings)
    findings = zone.check(_records(settings), ask)
    wrong = [one for one in findings if one.serious]
    data = {
        'domain': settings['domain'],
        'complete': not wrong,
        'records': [
            {**_as_data(one.record), 'seen': list(one.seen), 'verdict': one.verdict.value}
            for one in findings
        ],
    }
    text = '\n'.join([_report(findings), *(f'\n{line}' for line in _warned(settings) if findings)])
    return Result(data, text, exit_code=FAILED if wrong else OK)


def _warned(settings: Settings) -> list[str]:
    if _verifiable(settings):
        return []
    return [
        'The certificate is self-signed or not for this domain: other relays use SMTP instead of '
        'HTTPS, and those that want a right certificate send nothing; see tls.mode.'
    ]


def _records(settings: Settings) -> list[Record]:
    keys = open_keys(settings)
    if not keys.needed:
        return []
    try:
        return zone.zone(settings, keys, own_addresses(settings), verifiable=_verifiable(settings))
    except (Damaged, OSError) as error:
        raise Failure(str(error)) from None


def _verifiable(settings: Settings) -> bool:
    return certificate.verifiable(settings, settings['state_dir'].absolute())


def own_addresses(settings: Settings) -> list[str]:
    """The public addresses of this host, as far as it knows them."""
    found = [one.host for name in LISTENERS for one in settings[f'listen.{name}']]
    for family, far in FAR:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
                datagrams.connect((far, 53))
                found.append(datagrams.getsockname()[0])
        except OSError:
            continue  # no way there
    public = [one for one in found if one != 'localhost' and ipaddress.ip_address(one).is_global]
    return list(dict.fromkeys(public))


def _as_data(record: Record) -> dict[str, Any]:
    return {
        'name': record.name,
        'type': record.kind,
        'ttl': zone.TTL,
        'expected': record.data,
        'need': record.need.value,
        'note': record.note,
        'line': record.line(),
    }


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
