"""tasks list, run, run-all: what the relay does by itself, also by hand."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from madmail.admin import purge, upkeep
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.progress import Bar
from madmail.cli.result import Result, duration, table


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('tasks', parents=options, help='expiry and cleaning')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)
    list_parser = verbs.add_parser('list', parents=options, help='what is done, and when')
    list_parser.set_defaults(function=list_)
    run_parser = verbs.add_parser('run', parents=options, help='do a task now')
    run_parser.add_argument('task', metavar='TASK', help='name or alias, see "tasks list"')
    run_parser.add_argument(
        '--retention', metavar='AGE', help='24h, 7d, 720h: in place of what the settings say'
    )
    run_parser.set_defaults(function=run)
    all_parser = verbs.add_parser('run-all', parents=options, help='do all that is switched on')
    all_parser.set_defaults(function=run_all)
    for parser in (run_parser, all_parser):
        parser.add_argument('--dry-run', action='store_true', help='count, remove nothing')
        parser.add_argument(
            '--trust-clock', action='store_true', help='the clock is right, though it jumped'
        )


def list_(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        data = upkeep.tasks(access)
    rows = [
        (
            task['name'],
            'on' if task['enabled'] else 'off' if task['period_seconds'] else 'by hand',
            duration(task['period_seconds']) if task['period_seconds'] else '',
            _when(task['last_run']),
            _when(task['next_run']),
            '' if task['last_removed'] is None else task['last_removed'],
        )
        for task in data['tasks']
    ]
    text = table(('task', 'is', 'every', 'last', 'next', 'removed'), rows)
    if data['clock']:
        text += f'\n\nNothing expires: {data["clock"]}.'
    return Result(data, text)


def run(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    age = purge.age(arguments.retention) if arguments.retention else 0
    with Access(invocation.load()) as access, _bar(invocation, arguments.task) as bar:
        data = upkeep.run(access, arguments.task, age=age, progress=bar, **_how(arguments))
    return Result(data, _line(data))


def run_all(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access, _bar(invocation, 'removed') as bar:
        data = upkeep.run_all(access, progress=bar, **_how(invocation.arguments))
    return Result(data, '\n'.join(_line(one) for one in data['outcomes']))


def _bar(invocation: Invocation, what: str) -> Bar:
    return Bar(what, quiet=invocation.json)


def _how(arguments: argparse.Namespace) -> dict[str, Any]:
    return {'dry_run': arguments.dry_run, 'trust_clock': arguments.trust_clock}


def _line(outcome: dict[str, Any]) -> str:
    if outcome['skipped']:
        return f'{outcome["task"]}: skipped ({outcome["detail"]})'
    if 'renewed' in outcome:
        return f'{outcome["task"]}: {outcome["detail"]}'
    return f'{outcome["task"]}: {outcome["deleted"]} {outcome["detail"]}'


def _when(seconds: int | None) -> str:
    if seconds is None:
        return ''
    return datetime.fromtimestamp(seconds, UTC).strftime('%Y-%m-%d %H:%M')
