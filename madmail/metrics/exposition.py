"""The figures as OpenMetrics text (version 1.0), for Prometheus and its kin.

`FAMILIES` says what there is; docs/reference/metrics.md is made from it.  Labels
have few, fixed values: kinds of processes, services, directions, rooms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from madmail.metrics.histogram import BOUNDS, cumulative
from madmail.metrics.ledger import add, counted

CONTENT_TYPE = 'application/openmetrics-text; version=1.0.0; charset=utf-8'
PREFIX = 'madmail_'


@dataclass(frozen=True, slots=True)
class Family:
    name: str  # without the prefix; a counter's samples get `_total`
    type: str  # counter | gauge | histogram | info
    help: str
    labels: tuple[str, ...] = ()


FAMILIES = (
    Family('build', 'info', 'Version of the relay.', ('version',)),
    Family('start_time_seconds', 'gauge', 'When the relay was started, Unix time.'),
    Family('processes', 'gauge', 'Living processes.', ('kind',)),
    Family('process_starts', 'counter', 'Processes started.', ('kind',)),
    Family('process_cpu_seconds', 'counter', 'CPU time used, user and system.', ('kind',)),
    Family('process_resident_bytes', 'gauge', 'Memory in use, shared pages included.', ('kind',)),
    Family('loop_lag_seconds', 'histogram', 'How late event loops are.', ('kind',)),
    Family('exceptions', 'counter', 'Unhandled exceptions: faults of the program.', ('room',)),
    Family('accounts', 'gauge', 'Accounts.'),
    Family('registrations', 'counter', 'Accounts made at their first login.'),
    Family('registrations_refused', 'counter', 'Accounts not made.', ('reason',)),
    Family('connections', 'counter', 'Mail connections accepted.'),
    Family('connections_refused', 'counter', 'Mail connections over a limit.'),
    Family('connections_before_login', 'gauge', 'Mail connections without a session yet.'),
    Family('connections_timed_out', 'counter', 'Mail connections that never logged in.'),
    Family('accept_pauses', 'counter', 'Times out of file descriptors or memory.'),
    Family('tls_handshakes', 'counter', 'TLS handshakes.', ('result',)),
    Family('logins', 'counter', 'Logins.', ('result',)),
    Family('sessions', 'gauge', 'Open sessions.', ('service',)),
    Family('octets', 'counter', 'Octets to and from clients and peers.', ('service', 'direction')),
    Family('messages', 'counter', 'Messages accepted since the relay exists.', ('origin',)),
    Family(
        'message_durable_seconds', 'histogram', 'From the end of a message until it is on disk.'
    ),
    Family('queue_entries', 'gauge', 'Entries that wait for other relays.'),
    Family('queue_under_way', 'gauge', 'Entries being sent.'),
    Family('queue_destinations_down', 'gauge', 'Destinations that do not answer.'),
    Family('queue_attempts', 'counter', 'Attempts for entries of the queue.', ('result',)),
    Family('peers', 'gauge', 'Other relays known.', ('health',)),
    Family('peer_latency_seconds', 'gauge', 'Mean time of a delivery to another relay.'),
    Family('push_requests', 'counter', 'Push notifications by what became of them.', ('result',)),
    Family('push_waiting', 'gauge', 'Devices that are to be told of mail.'),
    Family('push_paused', 'gauge', '1 while the notification service is left alone.'),
    Family('web', 'counter', 'What happened at the web listeners.', ('event',)),
    Family('proxy', 'counter', 'What happened at the Shadowsocks proxy.', ('event',)),
    Family('proxy_connections', 'gauge', 'Open connections of the proxy.', ('state',)),
    Family('turn_relays', 'gauge', 'Relays that calls have.'),
    Family('turn_connections', 'gauge', 'TCP and TLS connections to the TURN server.'),
    Family('turn_allocations', 'counter', 'Relays given out.'),
    Family('turn_refusals', 'counter', 'Requests to it answered with an error.', ('code',)),
    Family('turn_dropped', 'counter', 'Packets it did not pass on.', ('reason',)),
    Family('iroh_clients', 'gauge', 'Nodes connected to the relay of WebXDC channels.'),
    Family('iroh_held_bytes', 'gauge', 'What waits there for clients that read slowly.'),
    Family('iroh_connections', 'counter', 'Connections to it.', ('result',)),
    Family('iroh_packets', 'counter', 'Packets of one node for another.', ('result',)),
    Family('disk_available_bytes', 'gauge', 'Free space where the state directory is.'),
    Family('disk_size_bytes', 'gauge', 'Size of that file system.'),
    Family('database_bytes', 'gauge', 'Size of the databases.'),
    Family('certificate_start_seconds', 'gauge', 'When the TLS certificate begins, Unix time.'),
    Family('certificate_expiry_seconds', 'gauge', 'When the TLS certificate ends, Unix time.'),
    Family('certificate_failures', 'gauge', 'Orders of a certificate that failed, in a row.'),
)
_BY_NAME = {family.name: family for family in FAMILIES}

Labels = tuple[str, ...]
Samples = dict[Labels, Any]  # a number, or a histogram as its map


def text(told: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """`told` is the master's status, `facts` what the databases and the disk know."""
    values = {name: samples for name, samples in _values(told, facts)}
    lines: list[str] = []
    for family in FAMILIES:
        samples = values.get(family.name)
        if samples:
            lines += _family(family, samples)
    lines.append('# EOF\n')
    return '\n'.join(lines)


def _family(family: Family, samples: Samples) -> Iterator[str]:
    name = PREFIX + family.name
    yield f'# TYPE {name} {family.type}'
    if name.endswith(('_seconds', '_bytes')):
        yield f'# UNIT {name} {name.rpartition("_")[2]}'
    yield f'# HELP {name} {family.help}'
    for values, value in sorted(samples.items()):
        labels = [f'{label}="{_escape(v)}"' for label, v in zip(family.labels, values, strict=True)]
        if family.type == 'histogram':
            yield from _histogram(name, labels, value)
        else:
            suffix = {'counter': '_total', 'info': '_info'}.get(family.type, '')
            yield f'{name}{suffix}{_braces(labels)} {_number(value)}'


def _histogram(name: str, labels: list[str], value: Mapping[str, Any]) -> Iterator[str]:
    counts = cumulative(value['counts'])
    for bound, count in zip((*map(_number, BOUNDS), '+Inf'), counts, strict=True):
        le = f'le="{bound}"'
        yield f'{name}_bucket{_braces([*labels, le])} {count}'
    yield f'{name}_count{_braces(labels)} {counts[-1]}'
    yield f'{name}_sum{_braces(labels)} {_number(value["sum"])}'


def _braces(labels: Iterable[str]) -> str:
    inside = ','.join(labels)
    return f'{{{inside}}}' if inside else ''


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else str(int(value))


def _escape(value: str) -> str:
    return value.replace('\\', r'\\').replace('"', r'\"').replace('\n', r'\n')


def _values(told: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[tuple[str, Samples]]:
    children = told['children']
    kinds = sorted({child['kind'] for child in children} | told['past'].keys())
    sums: dict[str, Any] = {}
    for kind in kinds:
        sums[kind] = dict(told['past'].get(kind, {}))
        for child in children:
            if child['kind'] == kind:
                sums[kind] = add(sums[kind], counted(kind, child['statistics']))

    def of_kind(name: str) -> Samples:
        return {(kind,): sums[kind][name] for kind in kinds if name in sums[kind]}

    def now(kind: str, name: str) -> int:
        return sum(c['statistics'].get(name, 0) for c in children if c['kind'] == kind)

    gate = sums.get('gate', {})
    shard = sums.get('shard', {})
    courier = sums.get('courier', {})

    yield 'build', {(told['version'],): 1}
    yield 'start_time_seconds', {(): told['boot_time']}
    living: Samples = {}
    resident: Samples = {}
    for child in children:
        label = (child['kind'],)
        living[label] = living.get(label, 0) + 1
        octets = child['statistics'].get('resident_bytes', 0)
        resident[label] = resident.get(label, 0) + octets
    yield 'processes', living
    yield 'process_starts', {(kind,): count for kind, count in told['starts'].items()}
    yield 'process_cpu_seconds', of_kind('cpu_seconds')
    yield 'process_resident_bytes', resident
    yield 'loop_lag_seconds', of_kind('lag')
    exceptions: dict[str, int] = {}
    for kind in kinds:
        exceptions = add(exceptions, sums[kind].get('exceptions', {}))
    yield 'exceptions', {(room,): count for room, count in exceptions.items()}
    yield 'accounts', {(): told['registered_users']}
    yield 'registrations', {(): gate.get('registrations', 0)}
    refused = shard.get('registrations_refused', {})
    yield 'registrations_refused', {(reason,): count for reason, count in refused.items()}
    yield 'connections', {(): gate.get('connections', 0)}
    yield 'connections_refused', {(): gate.get('refused_connections', 0)}
    yield 'connections_before_login', {(): now('gate', 'before_login')}
    yield 'connections_timed_out', {(): gate.get('timeouts', 0)}
    yield 'accept_pauses', {(): gate.get('accept_pauses', 0)}
    yield (
        'tls_handshakes',
        {('done',): gate.get('handshakes', 0), ('failed',): gate.get('handshake_failures', 0)},
    )
    yield (
        'logins',
        {
            ('accepted',): gate.get('logins', 0),
            ('denied',): gate.get('logins_denied', 0),
            ('limited',): gate.get('logins_limited', 0),
            ('troubled',): gate.get('logins_troubled', 0),
        },
    )
    imap = now('gate', 'imap')
    yield 'sessions', {('imap',): imap, ('smtp',): now('gate', 'pipes') - imap}
    flows: Samples = {}
    for kind in kinds:
        for service, octets in sums[kind].get('octets', {}).items():
            for direction, count in octets.items():
                flows[service, direction] = flows.get((service, direction), 0) + count
    yield 'octets', flows
    traffic = facts.get('traffic', {})
    yield 'messages', {(name,): traffic[name] for name in ('sent', 'received') if name in traffic}
    if 'durable' in shard:
        yield 'message_durable_seconds', {(): shard['durable']}
    yield 'queue_entries', {(): now('shard', 'queued')}
    yield 'queue_under_way', {(): now('courier', 'under_way')}
    yield 'queue_destinations_down', {(): now('courier', 'destinations_down')}
    yield (
        'queue_attempts',
        {(r,): courier.get(r, 0) for r in ('delivered', 'deferred', 'bounced')},
    )
    yield 'push_requests', {(result,): n for result, n in courier.get('push', {}).items()}
    yield 'push_waiting', {(): now('shard', 'push_waiting')}
    yield 'push_paused', {(): now('courier', 'push_paused')}
    peers = facts.get('peers')
    if peers:
        yield 'peers', {(health,): count for health, count in peers['health'].items()}
        yield 'peer_latency_seconds', {(): peers['mean_latency_ms'] / 1000}
    web = sums.get('web', {})
    yield 'web', {(event,): count for event, count in web.items() if isinstance(count, int)}
    if 'shadowsocks' in sums:
        past = sums['shadowsocks']
        yield 'proxy', {(event,): count for event, count in past.items() if isinstance(count, int)}
        yield (
            'proxy_connections',
            {
                ('open',): now('shadowsocks', 'connections'),
                ('silent',): now('shadowsocks', 'silent'),
            },
        )
    if 'turn' in sums:
        turn = sums['turn']
        yield 'turn_relays', {(): now('turn', 'relays')}
        yield 'turn_connections', {(): now('turn', 'streams')}
        yield 'turn_allocations', {(): turn.get('allocations', 0)}
        yield 'turn_refusals', {(code,): n for code, n in turn.get('denied', {}).items()}
        yield 'turn_dropped', {(reason,): n for reason, n in turn.get('dropped', {}).items()}
    if 'iroh' in sums:
        iroh = sums['iroh']
        yield 'iroh_clients', {(): now('iroh', 'clients')}
        yield 'iroh_held_bytes', {(): now('iroh', 'held')}
        ends = ('bad_requests', 'denied', 'evicted', 'malformed', 'muted', 'silent')
        results: Samples = {(name,): iroh.get(name, 0) for name in ends}
        results['accepted',] = iroh.get('connections', 0)
        results['refused',] = iroh.get('refused_connections', 0)
        yield 'iroh_connections', results
        packets = ('forwarded', 'unreachable', 'dropped')
        yield 'iroh_packets', {(name,): iroh.get(name, 0) for name in packets}
    for name in ('disk_available_bytes', 'disk_size_bytes', 'database_bytes'):
        if name in facts:
            yield name, {(): facts[name]}
    certificate = facts.get('certificate', {})
    if certificate.get('expiry'):
        yield 'certificate_start_seconds', {(): certificate['start']}
        yield 'certificate_expiry_seconds', {(): certificate['expiry']}
    if 'failures' in certificate:
        yield 'certificate_failures', {(): certificate['failures']}


def reference() -> str:
    """docs/reference/metrics.md."""
    lines = [
        '# Metrics',
        '',
        'Made by `python -m madmail.metrics.exposition`. Served as OpenMetrics on `listen.metrics`',
        'under `/metrics`; no figure carries an address or a domain.',
        '',
        '| name | type | labels | meaning |',
        '|---|---|---|---|',
    ]
    for family in FAMILIES:
        suffix = {'counter': '_total', 'info': '_info'}.get(family.type, '')
        labels = ', '.join(family.labels)
        lines.append(
            f'| `{PREFIX}{family.name}{suffix}` | {family.type} | {labels} | {family.help} |'
        )
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    from pathlib import Path

    page = Path(__file__).parents[2] / 'docs' / 'reference' / 'metrics.md'
    page.write_text(reference())
