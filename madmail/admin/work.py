"""Long work in the shards: started in all that are concerned, then waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from madmail.account.placement import shard_of
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay

WAIT = 0.5  # seconds of one look at a job: what a progress bar is late at most
Progress = Callable[[int, int], None]  # done, of how many; 0 = not known


@dataclass(slots=True)
class Done:
    """What the shards have done together."""

    count: int = 0
    finished: bool = True  # False: it goes on, patience was at its end
    details: list[dict[str, Any]] = field(default_factory=list)  # one a shard


def run(
    relay: Relay,
    method: str,
    *,
    address: str = '',
    progress: Progress | None = None,
    patience: float | None = None,
    **params: Any,
) -> Done:
    """Have a method that answers with a job done by all shards, or by that of `address`.

    With `patience` it is waited for no more than so many seconds.  Refused: as the
    method, and failed if a shard could not end it.
    """
    if address:
        shards: Sequence[int] = (shard_of(address, relay.shards),)
        params['address'] = address
    else:
        shards = range(relay.shards)
    jobs = {shard: relay.call_shard(shard, method, **params) for shard in shards}
    states: dict[int, dict[str, Any]] = {}
    end = None if patience is None else time.monotonic() + patience
    waiting = dict(jobs)
    while waiting and (end is None or time.monotonic() < end):
        for shard, job in tuple(waiting.items()):
            states[shard] = relay.call_shard(shard, 'job_state', job=job, wait=WAIT / len(waiting))
            if states[shard]['state'] in ('done', 'failed'):
                del waiting[shard]
            if progress is not None:
                progress(
                    sum(state['done'] for state in states.values()),
                    sum(state['total'] for state in states.values()),
                )
    if any(state['state'] == 'failed' for state in states.values()):
        raise Refused('failed', 'not all of it could be done; the log says more')
    return Done(
        sum(state['done'] for state in states.values()),
        not waiting,
        [states[shard]['detail'] for shard in shards if shard in states],
    )
