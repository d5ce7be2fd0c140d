"""/admin/reload and /admin/restart: the processes of the relay."""

from __future__ import annotations

from typing import Any

from madmail.admin import processes
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.web.admin.answer import Answer, Handler

# What a path means is a live setting here, so these have nothing to wait for.
ROUTES = ('http', 'http_routes', 'routes')


def get(relay: Relay, body: dict[str, Any]) -> Answer:
    """What runs: `{"domain", "complete", "listeners", "processes", "trouble", "unusable",
    "memory", "load"}`.

    `complete` is false while processes are missing.  A listener has `name` and `address`, a
    process `kind`, `index`, `state`, `uptime_seconds`, `resident_bytes` (what it shares with
    others included) and `cpu_seconds`.  `trouble` says which services cannot run and
    `unusable` which stored settings are not in force, by name, and why.  `memory` is that of
    the host: `total_bytes` and `available_bytes`; `load` its average of one, five and fifteen
    minutes a core.
    """
    return Answer(body=processes.running(relay))


def reload(relay: Relay, body: dict[str, Any]) -> Answer:
    """Read the configuration again and apply it: `{"status", "message"}`.

    `scope` is `full` or one of `http`, `http_routes` and `routes`, which are in force
    already.  With `wait` true the answer comes when it is done (`reloaded`), at once
    otherwise (`reloading`); 409 when another one waits, 500 when it is refused and
    everything stays as it was.
    """
    scope = body.get('scope') or 'full'
    if not isinstance(scope, str) or not isinstance(body.get('wait'), bool | None):
        scope, wait = 'full', False
    else:
        wait = bool(body.get('wait'))
    if scope in ROUTES:
        return Answer(body={'status': 'reloaded', 'message': 'The routes are in force.'})
    if scope != 'full':
        raise Refused('invalid', f'scope must be full or {" or ".join(ROUTES)}')
    processes.reload(relay, wait=wait)
    if wait:
        return Answer(body={'status': 'reloaded', 'message': 'The configuration is in force.'})
    return Answer(body={'status': 'reloading', 'message': 'The configuration is being applied.'})


def restart(relay: Relay, body: dict[str, Any]) -> Answer:
    """Stop and begin again: `{"status": "restarting", "message"}`.  Connections are closed."""
    processes.restart(relay)
    return Answer(body={'status': 'restarting', 'message': 'The relay stops and begins again.'})


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/processes': {'GET': get},
    '/admin/reload': {'POST': reload},
    '/admin/restart': {'POST': restart},
}
