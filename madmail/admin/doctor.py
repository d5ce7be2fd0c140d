"""Looking for what is wrong with a relay, and saying what to do.

Each check gives findings; nothing is asked of anybody outside but name servers,
for the relay's own records.  A check that cannot be made says so and is no fault.
"""

from __future__ import annotations

import ipaddress
import os
import resource
import socket
import sqlite3
import ssl
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from madmail.account.address import ip_literal
from madmail.admin import doctor_services, status
from madmail.admin import processes as host
from madmail.admin.certificate import renewal
from madmail.admin.finding import BAD, OK, WARN, Check, Finding
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.settings import Address
from madmail.settings.declarations import LISTENERS
from madmail.tls import acme_names
from madmail.tls.certificate import Missing, describe

GREETING_TIME = 5.0  # seconds
DESCRIPTORS = 65_536  # file descriptors for ten thousand connections and some
LITTLE_MEMORY = 512 * 1024 * 1024
CERTIFICATE_WARN, CERTIFICATE_BAD = 14 * 86_400, 3 * 86_400  # seconds left
ACCOUNTS = 100  # of each shard are looked at
HTTP_01 = 80  # RFC 8555 8.3: this port and no other
QUEUE_AGE = 12 * 3600  # seconds an entry may wait without a word
FIRST_WORDS = {
    'smtp': b'220',
    'submission': b'220',
    'submissions': b'220',
    'imap': b'* OK',
    'imaps': b'* OK',
}
IMPLICIT = ('submissions', 'imaps', 'https')


def examine(relay: Relay, checks: tuple[Check, ...] | None = None) -> list[Finding]:
    """All findings.  A check that breaks is a finding itself."""
    found: list[Finding] = []
    for check in checks if checks is not None else CHECKS:
        name = check.__name__.strip('_')
        try:
            found += check(relay)
        except Refused as refused:
            found.append(Finding(name, WARN, f'not examined: {refused.text}'))
        except (OSError, sqlite3.Error) as error:
            found.append(Finding(name, WARN, f'not examined: {error}'))
    return found


def processes(relay: Relay) -> Iterator[Finding]:
    if not relay.running:
        yield Finding('processes', BAD, 'the relay does not run', 'start it: scripts/run')
        return
    told = status.processes(relay)
    serving = sum(child['state'] == 'serving' for child in told['children'])
    if told['complete']:
        yield Finding('processes', OK, f'{serving} processes serve')
    else:
        yield Finding(
            'processes', WARN, 'not all processes serve', 'wait a little, then see "madmail status"'
        )
    faults = sum(sum(c['statistics'].get('exceptions', {}).values()) for c in told['children'])
    if faults:
        yield Finding(
            'faults',
            WARN,
            f'{faults} unhandled exceptions since the processes began',
            'a fault of the program: "madmail log on", and report what it says',
        )
    for name, why in told['trouble'].items():
        yield Finding(name, BAD, f'{name} does not run: {why}', 'mend that, then "madmail reload"')


def stored_settings(relay: Relay) -> Iterator[Finding]:
    unusable = getattr(relay, 'unusable', {})
    for name, why in unusable.items():
        yield Finding(
            'settings',
            BAD,
            f'the stored value of {name} is not in force: {why}',
            f'"madmail settings reset {name}", or set another',
        )
    if not unusable:
        yield Finding('settings', OK, 'all stored settings are in force')
    if not relay.settings['policy.require_encryption']:
        yield Finding(
            'settings',
            BAD,
            'unencrypted mail is accepted',
            '"madmail settings set policy.require_encryption true"',
        )


def clock(relay: Relay) -> Iterator[Finding]:
    """Against the newest file, and what upkeep thinks of it."""
    now = time.time()
    newest = max((path.stat().st_mtime for path in _databases(relay)), default=now)
    if newest > now + 60:
        yield Finding(
            'clock', BAD, 'the clock is behind the databases', 'set it; run an NTP service'
        )
    for shard in range(relay.shards) if relay.running else ():
        trouble = relay.call_shard(shard, 'upkeep_status').get('clock') or ''
        if trouble:
            yield Finding(
                'clock',
                BAD,
                f'nothing expires, for the clock cannot be trusted ({trouble})',
                'set it right; "madmail tasks run TASK --trust-clock" if it is',
            )
            return
    yield Finding('clock', OK, datetime.fromtimestamp(now, UTC).strftime('%Y-%m-%d %H:%M:%S UTC'))


def limits(relay: Relay) -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        yield Finding(
            'file descriptors',
            WARN,
            f'{hard} for a process, enough for about {hard // 3} connections',
            f'raise LimitNOFILE (systemd) or minfds (supervisord) to {DESCRIPTORS}',
        )
    else:
        yield Finding('file descriptors', OK, f'up to {"any number" if hard < 0 else hard}')
    backlog = _number('/proc/sys/net/core/somaxconn')
    if backlog is not None and backlog < 1024:
        yield Finding(
            'backlog',
            WARN,
            f'{backlog} connections may wait to be accepted',
            'sysctl net.core.somaxconn=4096',
        )


def memory(relay: Relay) -> Iterator[Finding]:
    told = host.memory()
    available, total = told['available_bytes'], told['total_bytes']
    seen = f'{available >> 20} MB of {total >> 20} MB free'
    if available < LITTLE_MEMORY // 4:
        yield Finding('memory', BAD, seen, 'end other programs, or take a larger machine')
    elif total < LITTLE_MEMORY:
        yield Finding('memory', WARN, seen, '512 MB are the least for comfort')
    else:
        yield Finding('memory', OK, seen)


def disk(relay: Relay) -> Iterator[Finding]:
    found = os.statvfs(relay.state_dir)
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    reserve = relay.settings['limits.disk_reserve']
    seen = f'{free >> 20} MB of {total >> 20} MB free'
    advice = 'enlarge the disk, or lower retention.messages or limits.quota'
    if free < reserve:
        yield Finding('disk', BAD, f'{seen}: no new accounts are made', advice)
    elif free < total / 10:
        yield Finding('disk', WARN, seen, advice)
    else:
        yield Finding('disk', OK, seen)
    if found.f_files and found.f_favail < found.f_files / 50:
        yield Finding('disk', BAD, f'{found.f_favail} inodes free', 'large messages are files')


def permissions(relay: Relay) -> Iterator[Finding]:
    mode = relay.state_dir.stat().st_mode
    if mode & 0o007:
        yield Finding(
            'permissions',
            BAD,
            f'everybody can look into {relay.state_dir}',
            f'chmod 700 {relay.state_dir}',
        )
        return
    owner = relay.state_dir.stat().st_uid
    for path in _databases(relay):
        if path.stat().st_uid != owner:
            yield Finding(
                'permissions',
                BAD,
                f'{path} belongs to somebody else than its directory',
                f'chown --reference={relay.state_dir} {path}',
            )
            return
    yield Finding('permissions', OK, 'the state directory is for the relay alone')


def databases(relay: Relay) -> Iterator[Finding]:
    """SQLite's own quick look at each; seconds for a gigabyte."""
    for path in _databases(relay):
        connection = sqlite3.connect(path.as_uri() + '?mode=rw', uri=True)
        try:
            (said,) = connection.execute('PRAGMA quick_check(1)').fetchone()
        finally:
            connection.close()
        if said != 'ok':
            yield Finding(
                'databases', BAD, f'{path} is damaged', 'restore a backup; look at the disk (SMART)'
            )
            return
    yield Finding('databases', OK, 'not damaged')


def ports(relay: Relay) -> Iterator[Finding]:
    """Every listener is asked for its first words, on this host."""
    if not relay.running:
        return
    answering = 0
    for name in LISTENERS:
        for address in relay.settings[f'listen.{name}']:
            if not address.port:
                continue
            try:
                _greet(name, address)
                answering += 1
            except (OSError, ValueError) as error:
                yield Finding(
                    'ports',
                    BAD,
                    f'{name} does not answer at {address}: {error}',
                    'see "madmail status"; another program, or a firewall of this host?',
                )
    yield Finding('ports', OK, f'{answering} listeners answer (from this host)')
    public = ip_literal(relay.settings['domain']) is not None or '.' in relay.settings['domain']
    if public and not _public(relay.settings['listen.smtp']):
        yield Finding(
            'ports',
            WARN,
            'port 25 is not open to others: relays without HTTPS cannot deliver here',
            'listen.smtp: 0.0.0.0:25',
        )


def certificate(relay: Relay) -> Iterator[Finding]:
    orders = renewal(relay) if relay.settings['tls.mode'] == 'acme' else None
    if orders is not None:
        yield from _orders(relay, orders)
        if not orders['issued']:
            return
    try:
        told = describe(relay.settings, relay.state_dir)
    except Missing as missing:
        yield Finding('certificate', BAD, str(missing), 'see tls.mode, tls.cert_file')
        return
    left = told['not_after'] - time.time()
    until = datetime.fromtimestamp(told['not_after'], UTC).strftime('%Y-%m-%d')
    own = told['tls_management'] == 'self_signed'
    # Some authorities issue for six days; those are renewed with three left.
    life = told['not_after'] - told['not_before']
    begins = datetime.fromtimestamp(told['not_before'], UTC).strftime('%Y-%m-%d %H:%M UTC')
    if told['not_before'] > time.time():
        yield Finding('certificate', BAD, f'begins on {begins}', 'is the clock of this host right?')
    elif left < 0:
        yield Finding('certificate', BAD, f'ended on {until}', 'renew it, then "madmail reload"')
    elif left < min(CERTIFICATE_BAD, life / 10) and not own:
        yield Finding('certificate', BAD, f'ends on {until}', 'renew it now')
    elif left < min(CERTIFICATE_WARN, life / 4) and not own:
        yield Finding('certificate', WARN, f'ends on {until}', 'renew it')
    else:
        yield Finding('certificate', OK, f'{told["cert_type"]}, until {until}')
    name = acme_names.first(relay.settings)  # what clients connect to
    names = {name, f'*.{name.partition(".")[2]}'}
    if not own and names.isdisjoint(one.lower() for one in told['sans']):
        yield Finding(
            'certificate',
            BAD,
            f'it is not for {name}',
            'clients refuse it; get one for that name',
        )


def _orders(relay: Relay, told: dict[str, Any]) -> Iterator[Finding]:
    """Of certificates from an authority."""
    if told['error']:
        again = told['next_try']
        when = datetime.fromtimestamp(again, UTC).strftime('%H:%M UTC') if again else 'later'
        yield Finding(
            'certificate',
            WARN if told['issued'] else BAD,
            f'the authority issued none: {told["error"]}',
            f'mend that, then "madmail certificate get"; it is tried again at {when}',
        )
    elif not told['issued']:
        advice = '"madmail certificate get"' if relay.running else 'start the relay'
        yield Finding('certificate', BAD, 'no authority has issued one yet', advice)
    if all(address.port != HTTP_01 for address in relay.settings['listen.http']):
        yield Finding(
            'certificate',
            WARN,
            'authorities look at port 80, where nothing of this relay listens',
            'listen.http: 0.0.0.0:80, unless that port is passed on to it',
        )


def queue(relay: Relay) -> Iterator[Finding]:
    waiting = sum(sum(relay.call_shard(n, 'outbox_count').values()) for n in range(relay.shards))
    oldest = 0
    now = int(time.time())
    for shard in range(relay.shards):
        for entry in relay.call_shard(shard, 'outbox_older', created=now - QUEUE_AGE, limit=1):
            oldest = max(oldest, now - entry['created'])
    if oldest:
        yield Finding(
            'queue',
            WARN,
            f'{waiting} wait for other relays, one for {oldest // 3600} hours',
            '"madmail queue list" tells why',
        )
    else:
        yield Finding('queue', OK, f'{waiting} wait for other relays')


def names(relay: Relay) -> Iterator[Finding]:
    """The relay's name leads to this host."""
    domain = relay.settings['domain']
    if ip_literal(domain) is not None or domain == 'localhost':
        return
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(domain, None)}
    except socket.gaierror:
        yield Finding('names', BAD, f'{domain} has no address', 'publish what "madmail dns" prints')
        return
    if all(ipaddress.ip_address(one).is_loopback for one in found):
        yield Finding('names', WARN, f'{domain} leads to this host only', 'see /etc/hosts')
    else:
        yield Finding(
            'names', OK, f'{domain} has an address; "madmail dns check" looks at all records'
        )


def accounts(relay: Relay) -> Iterator[Finding]:
    """That accounts are of the domain that is set: others cannot log in, nor get mail."""
    for shard in range(relay.shards):
        for account in relay.call_shard(shard, 'account_list', after='', limit=ACCOUNTS):
            domain = account['address'].rpartition('@')[2]
            if domain != relay.domain:
                yield Finding(
                    'accounts',
                    BAD,
                    f'the state directory has accounts of {domain}, which cannot log in here',
                    f'domain: {domain}, or another state_dir for {relay.settings["domain"]}',
                )
                return


CHECKS: tuple[Check, ...] = (
    processes,
    stored_settings,
    clock,
    limits,
    memory,
    disk,
    permissions,
    ports,
    *doctor_services.CHECKS,
    certificate,
    queue,
    names,
    accounts,
)
DEEP: tuple[Check, ...] = (*CHECKS, databases)


def as_data(findings: list[Finding]) -> dict[str, Any]:
    return {
        'healthy': not any(one.level == BAD for one in findings),
        'checks': [one._asdict() for one in findings],
        'bad': sum(one.level == BAD for one in findings),
        'warnings': sum(one.level == WARN for one in findings),
    }


def _databases(relay: Relay) -> list[Path]:
    found = [relay.state_dir / 'control.db']
    found += [relay.state_dir / 'shards' / str(n) / 'store.db' for n in range(relay.shards)]
    return [path for path in found if path.exists() and stat.S_ISREG(path.stat().st_mode)]


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def _public(addresses: tuple[Address, ...]) -> bool:
    return any(
        one.host != 'localhost' and not ipaddress.ip_address(one.host).is_loopback
        for one in addresses
    )


def _greet(name: str, address: Address) -> None:
    """Raises OSError, or ValueError with what is wrong."""
    host = {'0.0.0.0': '127.0.0.1', '::': '::1'}.get(address.host, address.host)
    with socket.create_connection((host, address.port), GREETING_TIME) as plain:
        stream: socket.socket = plain
        if name in IMPLICIT:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            stream = context.wrap_socket(plain)
        if name in ('http', 'https'):
            stream.sendall(
                b'GET /robots.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
            )
            wanted = b'HTTP/1.1'
        else:
            wanted = FIRST_WORDS[name]
        said = stream.recv(100)
        if not said.startswith(wanted):
            raise ValueError('it is another service' if said else 'it says nothing')
