"""How the relay is doing: figures of its processes, databases and disk."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from madmail import __version__
from madmail.account.address import ip_literal
from madmail.admin import federation
from madmail.admin.relay import Relay
from madmail.delivery.tracker import Peer

BAD = 0.3  # share of successes below which exchange with a peer goes badly


def processes(relay: Relay) -> dict[str, Any]:
    """What the master knows, see `madmail.master.control.status`.  Refused: unavailable."""
    return relay.ask_master({'command': 'status'})


def users(told: dict[str, Any]) -> int:
    count: int = told['registered_users']
    return count


def uptime(told: dict[str, Any]) -> int:
    """Seconds since the relay was started."""
    return max(int(time.time()) - int(told['boot_time']), 0)


def traffic(relay: Relay, told: dict[str, Any]) -> dict[str, int]:
    """Messages since the relay exists: `sent` by accounts, `received` from elsewhere."""
    totals = {'sent': 0, 'received': 0, **relay.control.traffic()}
    for child in told['children']:
        for name, count in child['statistics'].get('traffic', {}).items():
            totals[name] = totals.get(name, 0) + count
    return totals


def peers(relay: Relay) -> dict[str, Any]:
    """Exchange with other relays in sums."""
    found = federation.servers(relay)
    all_peers = [one.peer for one in found]
    served = [one.domain for one in found if one.peer.successes]
    means = [peer.latency_ms / peer.successes for peer in all_peers if peer.latency_ms]
    health = {'perfect': 0, 'federated': 0, 'bad': 0}
    for peer in all_peers:
        if word := _health(peer):
            health[word] += 1
    return {
        'known': len(found),
        'served': len(served),
        'ip_servers': sum(ip_literal(domain.strip('[]')) is not None for domain in served),
        'outbound': sum(peer.successes for peer in all_peers),
        'queued': sum(one.waiting for one in found),
        'failed': sum(_failures(peer) for peer in all_peers),
        'mean_latency_ms': round(sum(means) / len(means)) if means else 0,
        'health': health,
    }


def disk(path: Path) -> dict[str, Any]:
    """Of the file system that holds `path`; zeros when it cannot be told."""
    try:
        found = os.statvfs(path)
    except OSError:
        return {'total_bytes': 0, 'used_bytes': 0, 'available_bytes': 0, 'percent_used': 0.0}
    total = found.f_blocks * found.f_frsize
    available = found.f_bavail * found.f_frsize
    return {
        'total_bytes': total,
        'used_bytes': total - available,
        'available_bytes': available,
        'percent_used': round(100 * (total - available) / total, 1) if total else 0.0,
    }


def size_of(directory: Path) -> int:
    """Octets of all files below, sockets and what vanishes meanwhile left out.

    PERF: 3 µs a file, in the caller's thread.
    """
    total = 0
    waiting = [directory]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(Path(entry.path))
                        elif entry.is_file(follow_symlinks=False):
                            total += entry.stat(follow_symlinks=False).st_size
                    except OSError:
                        continue
        except OSError:
            continue
    return total


def databases(state_dir: Path) -> int:
    """Octets of the database files, without the messages kept beside them."""
    total = 0
    for path in (state_dir / 'control.db', *(state_dir / 'shards').glob('*/*.db')):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def tokens(relay: Relay) -> int:
    """Registration tokens, whether they still make accounts or not."""
    return len(relay.control.tokens())


def version() -> str:
    return __version__


def _failures(peer: Peer) -> int:
    return peer.failed_https + peer.failed_http + peer.failed_smtp


def _health(peer: Peer) -> str:
    """The class of a peer; '' without any activity."""
    failures = _failures(peer)
    if not failures:
        return 'perfect' if peer.successes else ''
    return 'bad' if peer.successes / (peer.successes + failures) < BAD else 'federated'
