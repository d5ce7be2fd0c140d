"""The tasks of upkeep: what there is, when it was done, and doing it by hand."""

from __future__ import annotations

from typing import Any

from madmail.admin import certificate, work
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.upkeep.clock import REASONS
from madmail.upkeep.task import TASKS, Task, find

ALL = ('prune-old-messages', 'prune-unused-accounts', 'prune-dormant-accounts', 'purge-seen')
LEAST_AGE = 3600  # seconds


def tasks(relay: Relay) -> dict[str, Any]:
    """All tasks; times are Unix seconds, null where there is none."""
    states = [relay.call_shard(shard, 'upkeep_status') for shard in range(relay.shards)]
    rows = []
    for number, task in enumerate(TASKS):
        each = [state['tasks'][number] for state in states]
        last = min((one['last'] for one in each), default=0)
        on = task.enabled(relay.settings)
        removed = [one['removed'] for one in each if one['removed'] is not None]
        rows.append(
            {
                'name': task.name,
                'aliases': list(task.aliases),
                'description': task.description,
                'enabled': on,
                'period_seconds': task.period or None,
                'last_run': last or None,
                'next_run': min(one['next'] for one in each) if on else None,
                'last_removed': sum(removed) if removed else None,
            }
        )
    if relay.settings['tls.mode'] == 'acme':
        rows.append(_renewal(relay))
    troubles = sorted({state['clock'] for state in states if state['clock']})
    settings = relay.settings
    return {
        'tasks': rows,
        'message_retention': settings['retention.messages'] or None,
        'unused_account_retention': settings['retention.unused_accounts'] or None,
        'periodic_jobs_enabled': relay.running,
        'clock': REASONS[troubles[0]] if troubles else None,
    }


def run(
    relay: Relay,
    name: str,
    *,
    age: int = 0,
    dry_run: bool = False,
    trust_clock: bool = False,
    progress: work.Progress | None = None,
    patience: float | None = None,
) -> dict[str, Any]:
    """Do a task now in all shards; `age` in seconds in place of what the settings say."""
    if name.strip().lower() in certificate.TASK:
        return certificate.run_task(relay, dry_run=dry_run, patience=patience)
    task = find(name)
    if task is None:
        known = ', '.join([*(task.name for task in TASKS), certificate.TASK[0]])
        raise Refused('missing', f'there is no task {name}; there are {known}')
    if age and not task.ages:
        raise Refused('invalid', f'{task.name} does not go by age')
    if age and age < LEAST_AGE:
        raise Refused('invalid', 'the age must be an hour or more')
    if task.ages and not age and not task.enabled(relay.settings):
        if not task.period:
            raise Refused('invalid', f'{task.name} needs an age, such as 24h')
        return _outcome(task, 0, f'{" and ".join(task.settings)}: off', skipped=True)
    done = work.run(
        relay,
        'upkeep_run',
        task=task.name,
        age=age,
        dry_run=dry_run,
        trust_clock=trust_clock,
        progress=progress,
        patience=patience,
    )
    detail = 'would be removed' if dry_run else 'removed'
    if not done.finished:
        detail += ' so far, the rest goes on'
    return _outcome(task, done.count, detail)


def _renewal(relay: Relay) -> dict[str, Any]:
    """The renewal of the certificate, as a task: by itself it is the courier's."""
    told = certificate.renewal(relay)
    name, *aliases = certificate.TASK
    return {
        'name': name,
        'aliases': aliases,
        'description': 'Have the certificate renewed by its authority',
        'enabled': True,
        'period_seconds': certificate.DAY // 2,
        'last_run': told['last_try'],
        'next_run': told['next_try'] or told['renew_at'],
        'last_removed': None,
    }


def run_all(relay: Relay, **how: Any) -> dict[str, Any]:
    """Everything that is on and goes by age, one after the other; takes what `run` takes."""
    return {'outcomes': [run(relay, name, **how) for name in ALL]}


def _outcome(task: Task, deleted: int, detail: str, *, skipped: bool = False) -> dict[str, Any]:
    return {'task': task.name, 'skipped': skipped, 'deleted': deleted, 'detail': detail}
