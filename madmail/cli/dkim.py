"""dkim show, rotate, activate: the keys under mail to other relays."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from madmail.account.address import mail_domain
from madmail.admin.records import look
from madmail.cli.accounts import day
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, table
from madmail.delivery import zone
from madmail.delivery.dkim import NEXT, Damaged, Keys, Known, Refused
from madmail.delivery.zone import Need, Record, Verdict
from madmail.master.exits import Stop
from madmail.master.plan import load_loop_modules
from madmail.master.privileges import owner
from madmail.master.state import read_shards
from madmail.settings import Settings

ON_IP = 'a relay on an IP address signs nothing and needs no DNS records'


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('dkim', parents=options, help='keys under mail to other relays')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)
    verbs.add_parser('show', parents=options, help='keys and their DNS records').set_defaults(
        function=show
    )
    verbs.add_parser('rotate', parents=options, help='make the next key').set_defaults(
        function=rotate
    )
    activate_parser = verbs.add_parser('activate', parents=options, help='sign with the next key')
    activate_parser.add_argument(
        '--force', action='store_true', help='also when its DNS record cannot be seen'
    )
    activate_parser.set_defaults(function=activate)


def open_keys(settings: Settings) -> Keys:
    """The relay's keys; run as root, we become their owner first.  Raises Failure."""
    state_dir = settings['state_dir'].absolute()
    try:
        if read_shards(state_dir) is None:
            raise Failure(
                f'there is no relay in {state_dir}; "madmail init" or "madmail run" makes one, '
                '--config or --state-dir names another'
            )
        identity = owner(state_dir)
        if identity:
            load_loop_modules()  # as that user we may not be able to read them
            identity.assume()
    except (Stop, OSError) as error:
        raise Failure(str(error)) from None
    return Keys(state_dir, mail_domain(settings['domain']), settings)


def _attempt(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except (Damaged, Refused, OSError) as error:
        raise Failure(str(error)) from None


def _needed(keys: Keys) -> Keys:
    if not keys.needed:
        raise Failure(ON_IP)
    return keys


def _shown(keys: Keys, one: Known) -> dict[str, Any]:
    records = [{'name': name, 'text': text} for name, text in keys.records(one)]
    return {'selector': one.selector, 'state': one.state, 'since': one.since, 'records': records}


def show(invocation: Invocation) -> Result:
    keys = open_keys(invocation.load())
    if not keys.needed:
        return Result({'domain': keys.domain, 'keys': []}, f'{ON_IP.capitalize()}.')
    known = _attempt(keys.known)
    rows = [(one.selector, one.state, day(one.since)) for one in known]
    lines = [table(('selector', 'state', 'since'), rows)]
    for one in _attempt(keys.published):
        lines += ['', *_lines(keys, one)]
    data = {'domain': keys.domain, 'keys': [_shown(keys, one) for one in known]}
    return Result(data, '\n'.join(lines))


def _records(keys: Keys, one: Known) -> list[Record]:
    return [Record(name, 'TXT', text, Need.REQUIRED) for name, text in keys.records(one)]


def _lines(keys: Keys, one: Known) -> list[str]:
    return [record.line() for record in _records(keys, one)]


def rotate(invocation: Invocation) -> Result:
    keys = _needed(open_keys(invocation.load()))
    one = _attempt(keys.rotate)
    lines = [
        f'Made the key {one.selector}. Publish its record beside the present one:',
        '',
        *_lines(keys, one),
        '',
        'When other servers can see it, "madmail dkim activate" signs with it.',
    ]
    return Result(_shown(keys, one), '\n'.join(lines))


def activate(invocation: Invocation) -> Result:
    settings = invocation.load()
    ask = look(settings)
    keys = _needed(open_keys(settings))
    fresh = next((one for one in _attempt(keys.known) if one.state == NEXT), None)
    if fresh is not None and not invocation.arguments.force:
        for finding in zone.check(_records(keys, fresh), ask):
            if finding.verdict is not Verdict.OK:
                raise Failure(
                    f'the record {finding.record.name} is {finding.verdict.value} in the DNS; '
                    'other relays would refuse our mail (--force activates all the same)'
                )
    one = _attempt(keys.activate)
    text = (
        f'Mail is signed with {one.selector} from now on. Leave the record of the former key '
        'for a week.'
    )
    return Result(_shown(keys, one), text)
