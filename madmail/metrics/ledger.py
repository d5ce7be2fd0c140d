"""Sums over processes that outlive them.

A child's statistics are of its own life.  When it ends, what it counted last is
added to its kind's past.  A child that retires tells its last counts; one that
dies takes along what it counted since it was asked last (`INTERVAL`).
"""

from __future__ import annotations

from typing import Any

INTERVAL = 15.0  # seconds between two times all children are asked

# What is counted and therefore added up, by kind of process; the rest is a state of now.
COUNTED: dict[str, tuple[str, ...]] = {
    '': ('cpu_seconds', 'exceptions', 'lag'),
    'gate': (
        'accept_pauses',
        'connections',
        'crashes',
        'handshake_failures',
        'handshakes',
        'logins',
        'logins_denied',
        'logins_limited',
        'logins_troubled',
        'octets',
        'refused_connections',
        'registrations',
        'timeouts',
    ),
    'shard': ('durable', 'registrations_refused'),
    'shadowsocks': (
        'accept_pauses',
        'accepted',
        'crashes',
        'late',
        'octets',
        'opened',
        'rejected',
        'replayed',
        'shed',
        'unreachable',
    ),
    'turn': ('allocations', 'denied', 'dropped', 'octets'),
    'iroh': (
        'accept_pauses',
        'bad_requests',
        'connections',
        'crashes',
        'denied',
        'dropped',
        'evicted',
        'forwarded',
        'malformed',
        'muted',
        'octets',
        'refused_connections',
        'silent',
        'unreachable',
    ),
    'courier': ('delivered', 'bounced', 'deferred', 'push'),
}


class Ledger:
    """What the processes that ended have counted, by kind."""

    def __init__(self) -> None:
        self.past: dict[str, dict[str, Any]] = {}
        self.starts: dict[str, int] = {}

    def started(self, kind: str) -> None:
        self.starts[kind] = self.starts.get(kind, 0) + 1

    def ended(self, kind: str, statistics: dict[str, Any] | None) -> None:
        counts = counted(kind, statistics or {})
        self.past[kind] = add(self.past.get(kind, {}), counts)


def counted(kind: str, statistics: dict[str, Any]) -> dict[str, Any]:
    """The counts among a process's statistics; of a kind without a list, all numbers."""
    if kind not in COUNTED:
        return {name: value for name, value in statistics.items() if name != 'resident_bytes'}
    names = COUNTED[''] + COUNTED[kind]
    return {name: value for name, value in statistics.items() if name in names}


def add(one: Any, other: Any) -> Any:
    """Sum of numbers, of lists by place, of maps by key."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            key: add(one[key], other[key])
            if key in one and key in other
            else one.get(key, other.get(key))
            for key in one.keys() | other.keys()
        }
    if isinstance(one, list) and isinstance(other, list):
        return [add(a, b) for a, b in zip(one, other, strict=True)]
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one + other
    return other
