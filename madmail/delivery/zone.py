"""What a relay should have in the DNS, as zone file lines, and whether it is there.

Pure: who asks name servers passes in what they said.  A relay on an IP address
needs nothing, so there is no zone for one.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from madmail.delivery.dkim import NEXT, RETIRED, Keys
from madmail.message import dkim_key
from madmail.settings import Settings

TTL = 3600
STRING = 255  # octets of one string of a TXT record (RFC 1035 3.3)
POLICY_AGE = 2_419_200  # seconds other relays may rely on the MTA-STS policy
SPF = 'v=spf1 a mx ~all'
DMARC = 'v=DMARC1;p=reject;adkim=s;aspf=s'
ADSP = 'dkim=discardable'
SERVICES = ('submission', 'submissions', 'imap', 'imaps')  # RFC 6186, RFC 8314


class Need(Enum):
    REQUIRED = 'required'
    RECOMMENDED = 'recommended'


class Record(NamedTuple):
    """`data` is as in a zone file, TXT without quotes; '' where only the operator knows it."""

    name: str  # without final dot
    kind: str
    data: str
    need: Need
    note: str = ''  # for the operator

    def line(self) -> str:
        """For a zone file; a comment where something is to be filled in."""
        data = self.data
        if not data:
            data = {'A': '<IPv4 address>', 'AAAA': '<IPv6 address>'}[self.kind]
        elif self.kind == 'TXT':
            data = quoted(data)
        text = f'{self.name}. {TTL} IN {self.kind} {data}'
        return text if self.data else f'; {text}'


def quoted(text: str) -> str:
    """A TXT value as strings of at most 255 octets."""
    escaped = [c if c not in '"\\' else f'\\{c}' for c in text]
    pieces = [escaped[i : i + STRING] for i in range(0, len(escaped), STRING)]
    return ' '.join('"' + ''.join(piece) + '"' for piece in pieces)


def sts_policy(domain: str) -> str:
    """The MTA-STS policy (RFC 8461 3.2), to be served at mta-sts.<domain>."""
    return f'version: STSv1\r\nmode: enforce\r\nmx: {domain}\r\nmax_age: {POLICY_AGE}\r\n'


def serves_policy(settings: Settings, verifiable: bool) -> bool:
    """Whether there is an MTA-STS policy: it has to be fetched, and borne out by each host."""
    return verifiable and bool(settings['listen.https']) and bool(settings['listen.smtp'])


def zone(
    settings: Settings, keys: Keys, addresses: Iterable[str], *, verifiable: bool = False
) -> list[Record]:
    """All records; `addresses` are those under which the world reaches this host.

    `verifiable` is whether others can verify the certificate.  Raises what `keys` raises.
    """
    domain: str = keys.domain
    required, recommended = Need.REQUIRED, Need.RECOMMENDED
    known = [ipaddress.ip_address(one) for one in addresses]
    records = [
        Record(domain, 'A' if one.version == 4 else 'AAAA', str(one), required) for one in known
    ]
    if not any(one.version == 4 for one in known):
        records.insert(0, Record(domain, 'A', '', recommended if known else required))
    if not any(one.version == 6 for one in known):
        records.append(Record(domain, 'AAAA', '', recommended, 'if the host has one'))
    records.append(Record(domain, 'MX', f'10 {domain}.', required))
    for key in keys.published():
        note = {NEXT: 'the next key', RETIRED: 'retired, to be removed after a week'}
        need = recommended if key.state == RETIRED else required
        records += [
            Record(name, 'TXT', text, need, note.get(key.state, ''))
            for name, text in keys.records(key)
        ]
    if serves_policy(settings, verifiable):
        # A policy that no certificate bears out would keep mail away.
        version = hashlib.sha256(sts_policy(domain).encode()).hexdigest()[:16]
        records += [
            Record(f'_mta-sts.{domain}', 'TXT', f'v=STSv1; id={version}', recommended),
            Record(f'mta-sts.{domain}', 'CNAME', f'{domain}.', recommended),
        ]
    elif serves_policy(settings, settings['tls.mode'] == 'acme'):
        # The certificate can only be for this name once it leads here.
        records.append(Record(f'mta-sts.{domain}', 'CNAME', f'{domain}.', recommended))
    if settings['tls.mode'] == 'acme' and settings['tls.acme_directory'] == 'letsencrypt':
        records.append(Record(domain, 'CAA', '0 issue "letsencrypt.org"', recommended))
    records += [
        Record(f'www.{domain}', 'CNAME', f'{domain}.', recommended),
        Record(domain, 'TXT', SPF, recommended),
        Record(f'_dmarc.{domain}', 'TXT', DMARC, recommended),
        Record(f'_adsp._domainkey.{domain}', 'TXT', ADSP, recommended),
    ]
    for service in SERVICES:
        if listeners := settings[f'listen.{service}']:
            port = listeners[0].port
            name = f'_{service}._tcp.{domain}'
            records.append(Record(name, 'SRV', f'0 1 {port} {domain}.', recommended))
    records += [
        Record(one.reverse_pointer, 'PTR', f'{domain}.', recommended, 'at the provider')
        for one in known
    ]
    return sorted(records, key=lambda record: record.need is recommended)


def text(records: Sequence[Record]) -> str:
    """The zone, ready to paste."""
    lines: list[str] = []
    for need in Need:
        lines += ['', f'; {need.value}']
        for record in records:
            if record.need is need and record.kind != 'PTR':
                if record.note:
                    lines.append(f'; {record.note}:')
                lines.append(record.line())
    if reverse := [record for record in records if record.kind == 'PTR']:
        lines += ['', '; recommended, at the provider of the address']
        lines += [f'; {record.line()}' for record in reverse]
    return '\n'.join(lines).strip()


# -- what is published


class Verdict(Enum):
    OK = 'ok'
    MISSING = 'missing'
    DIFFERENT = 'different'
    UNKNOWN = 'unknown'  # could not be looked up


class Finding(NamedTuple):
    record: Record
    seen: tuple[str, ...]  # as in a zone file, TXT without quotes
    verdict: Verdict

    @property
    def serious(self) -> bool:
        return self.record.need is Need.REQUIRED and self.verdict is not Verdict.OK


# (name, type) → what is published, None when that could not be found out
Look = Callable[[str, str], tuple[str, ...] | None]


def check(records: Iterable[Record], look: Look) -> list[Finding]:
    """Each record and what is published in its place; what is only a placeholder must exist."""
    return [_find(record, look) for record in records]


def _find(record: Record, look: Look) -> Finding:
    seen = look(record.name, record.kind)
    if record.kind == 'CNAME' and not seen:
        # The address of the host itself, written out, does as well.
        other = [look(record.name, kind) for kind in ('A', 'AAAA')]
        seen = (
            None if seen is None or None in other else tuple(v for one in other for v in one or ())
        )
        if seen:
            own = {v for kind in ('A', 'AAAA') for v in look(record.data.rstrip('.'), kind) or ()}
            return Finding(record, seen, Verdict.OK if own.issuperset(seen) else Verdict.DIFFERENT)
    if seen is None:
        return Finding(record, (), Verdict.UNKNOWN)
    if record.kind == 'TXT':
        seen = tuple(one for one in seen if _version(one) == _version(record.data))
    if not seen:
        # An address that nobody knows need not be there, unless there is no other.
        absent = not record.data and record.need is Need.RECOMMENDED
        return Finding(record, (), Verdict.OK if absent else Verdict.MISSING)
    if not record.data or any(_same(record, one) for one in seen):
        return Finding(record, seen, Verdict.OK)
    return Finding(record, seen, Verdict.DIFFERENT)


def _version(text: str) -> str:
    """What tells apart the kinds of text that share a name."""
    first = text.partition(';')[0].partition(' ')[0].strip()
    return first if first in ('v=spf1', 'v=STSv1', 'v=DMARC1') else ''


def _same(record: Record, seen: str) -> bool:
    """Whether it means the same, whatever its spelling."""
    if record.kind == 'MX':
        return seen.split()[-1].lower() == record.data.split()[-1]
    if record.kind != 'TXT':
        return seen.lower() == record.data.lower()
    if _version(record.data) == 'v=spf1':
        return seen.split() == record.data.split()
    if _version(record.data) == 'v=STSv1':
        return 'id=' in seen
    wanted, found = dkim_key.tags(record.data.encode()), dkim_key.tags(seen.encode())
    if wanted is None or found is None:
        return seen == record.data
    if b'p' in wanted and b'k' in wanted:
        key = dkim_key.parse(seen.encode())
        return isinstance(key, dkim_key.Key) and _key(found) == _key(wanted)
    return all(found.get(tag, b'').lower() == value.lower() for tag, value in wanted.items())


def _key(found: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    return found.get(b'k', b'rsa').lower(), dkim_key.unblanked(found[b'p'])
