"""What TLS has to prove when mail goes to another server by SMTP.

Whether a host is to be trusted at all is said by its hop; this adds what a domain
publishes about itself:

    DANE      TLSA records of the host, where DNSSEC proves them (RFC 7672):
              TLS is required and the certificate must be the published one;
              only required where none is of usage 3, the one that is read here
    MTA-STS   a policy of mode `enforce` (RFC 8461): TLS is required, the
              certificate must be right, and the host must be in the policy

Without either, STARTTLS is used where it is offered and proves nothing, as
between all mail servers (RFC 7435).  What passes is encrypted end to end anyway.

A policy that is in force is looked at again when the DNS gives it another id,
and once a day.  What cannot be fetched then does not end it before its time.
"""

from __future__ import annotations

import re
import ssl
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256, sha512
from typing import NamedTuple

import gevent
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from gevent import socket
from gevent.ssl import SSLContext

from madmail.delivery.dns import Resolver, Status, Tlsa
from madmail.delivery.route import Hop
from madmail.smtp.client import Security

POLICY_TIME = 15.0  # seconds to fetch a policy
POLICY_LIMIT = 65536  # octets of one
POLICIES_LIMIT = 2000
SHORTEST, LONGEST = 300, 31557600  # seconds a policy is kept, RFC 8461 3.2
ABSENT_TIME = 3600  # seconds until a domain without a policy is asked again
LOOK_TIME = 60  # seconds between two looks at the id, for servers that do not answer such questions
RETRY_TIME = 300  # seconds until one whose policy could not be fetched is, RFC 8461 3.3
REFRESH_TIME = 86400  # seconds after which a policy is fetched anew, whatever its age may be
HOSTS_LIMIT = 64

_ID = re.compile(rb'v=STSv1\s*;(?:.*;)?\s*id=([A-Za-z0-9]{1,32})\s*;?', re.DOTALL)


def contexts() -> tuple[SSLContext, SSLContext]:
    """One that verifies by the roots of the system, and one that takes anything."""
    verified = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    verified.load_default_certs()
    unverified = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    for context in (verified, unverified):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    return verified, unverified


class Policy(NamedTuple):
    """RFC 8461 3.2."""

    enforce: bool
    hosts: tuple[str, ...]

    def allows(self, host: str) -> bool:
        """RFC 8461 4.1: a wildcard stands for one label."""
        parent = host.partition('.')[2]
        return host in self.hosts or f'*.{parent}' in self.hosts


NO_POLICY = Policy(False, ())


def parse_policy(text: str) -> tuple[Policy, int] | None:
    """A policy and the seconds it holds; None when it is none."""
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(':')
        if colon:
            fields.setdefault(name.strip(), []).append(value.strip())
    if fields.get('version') != ['STSv1'] or len(fields.get('mode', ())) != 1:
        return None
    age = fields.get('max_age', [''])[0]
    hosts = tuple(host.lower() for host in fields.get('mx', ())[:HOSTS_LIMIT])
    mode = fields['mode'][0]
    if mode not in ('enforce', 'testing', 'none') or not age.isdigit():
        return None
    if mode != 'none' and not hosts:
        return None
    return Policy(mode == 'enforce', hosts), max(SHORTEST, min(int(age), LONGEST))


class _Known(NamedTuple):
    ident: str  # that the DNS gave it, '' for none
    until: float  # it holds
    fresh: float  # until then nobody asks for it again under the same ident
    policy: Policy
    looked: float  # for the id


class NotKnown(Exception):
    """What the host demands of TLS could not be looked up."""


class TlsPolicies:
    """What is known of the peers; one a courier."""

    def __init__(
        self,
        resolver: Resolver,
        verified: SSLContext,
        unverified: SSLContext,
        clock: Callable[[], float],
        port: int = 443,
    ) -> None:
        self._resolver = resolver
        self._verified = verified
        self._unverified = unverified
        self._clock = clock
        self._port = port
        self._policies: OrderedDict[str, _Known] = OrderedDict()

    def allowed(self, hop: Hop) -> bool:
        """Whether the domain's MTA-STS policy lets its mail go to this host at all."""
        policy = self._policy(hop)
        return not policy.enforce or policy.allows(hop.host)

    def security(self, hop: Hop) -> Security:
        """What to ask of TLS on this hop.  Raises NotKnown."""
        if hop.insist:
            return Security(self._verified, hop.host, True)
        name = None if hop.literal else hop.host
        if hop.literal or not hop.verify:
            return Security(self._unverified, name)
        # RFC 7672 2.2.2: where the address is not proved, no TLSA record can be.
        if hop.secure and self._resolver.addresses(hop.host).secure:
            answer = self._resolver.tlsa(f'_{hop.port}._tcp.{hop.host}')
            if answer.status is Status.FAILED:
                raise NotKnown  # RFC 7672 2.1.2: somebody may hide what is published
            usable = [
                one
                for one in answer.values
                if one.usage == 3 and one.selector <= 1 and one.matching <= 2
            ]
            if answer.secure and usable:
                return Security(self._unverified, name, True, lambda der: matches(usable, der))
            if answer.secure and answer.values and not self._policy(hop).enforce:
                return Security(self._unverified, name, True)  # RFC 7672 2.2
        if self._policy(hop).enforce:
            return Security(self._verified, name, True)
        return Security(self._unverified, name)

    def _policy(self, hop: Hop) -> Policy:
        domain = hop.relay
        if hop.literal or not hop.verify or not domain or domain.startswith('['):
            return NO_POLICY
        now = self._clock()
        known = self._policies.get(domain)
        if known is not None and known.until <= now:
            known = None
        if known and 0 <= now - known.looked < LOOK_TIME:
            return known.policy
        ident = self._ident(domain)
        # RFC 8461 3.3: no id does not end a policy, another one asks for another look.
        if known and (not ident or (ident == known.ident and known.fresh > now)):
            self._policies[domain] = known._replace(looked=now)
            return known.policy
        text = self._fetch(f'mta-sts.{domain}') if ident else None
        found = parse_policy(text) if text is not None else None
        if found is not None:
            policy, age = found
            known = _Known(ident, now + age, now + min(age, REFRESH_TIME), policy, now)
        elif known is not None:
            known = known._replace(ident=ident, fresh=now + RETRY_TIME, looked=now)
        else:
            known = _Known(ident, now + ABSENT_TIME, now + ABSENT_TIME, NO_POLICY, now)
        self._policies[domain] = known
        self._policies.move_to_end(domain)
        if len(self._policies) > POLICIES_LIMIT:
            self._policies.popitem(last=False)
        return known.policy

    def _ident(self, domain: str) -> str:
        """RFC 8461 3.1: the id of the policy a domain has; '' if it has none, or nobody knows."""
        found = [_ID.match(text) for text in self._resolver.txt(f'_mta-sts.{domain}').values]
        idents = [match[1].decode() for match in found if match is not None]
        return idents[0] if len(idents) == 1 else ''

    def _fetch(self, host: str) -> str | None:
        """RFC 8461 3.3: over verified HTTPS, following no redirect."""
        addresses = self._resolver.addresses(host)
        with gevent.Timeout(POLICY_TIME, False):
            for address in addresses.values:
                try:
                    stream = socket.create_connection((address, self._port), POLICY_TIME)
                    with self._verified.wrap_socket(stream, server_hostname=host) as tls:
                        tls.sendall(
                            b'GET /.well-known/mta-sts.txt HTTP/1.0\r\nHost: %s\r\n\r\n'
                            % host.encode()
                        )
                        data = b''
                        while len(data) < POLICY_LIMIT and (more := tls.recv(8192)):
                            data += more
                except (OSError, ssl.SSLError, ValueError):
                    continue
                head, _, body = data.partition(b'\r\n\r\n')
                if re.match(rb'HTTP/1\.[01] 200[ \r]', head):
                    return body.decode('ascii', 'replace')
                return None
        return None


def matches(records: Sequence[Tlsa], certificate: bytes) -> bool:
    """RFC 6698 2.1 with usage 3 (DANE-EE): the names in it do not matter (RFC 7672 3.1.1)."""
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        key = parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except ValueError:
        return False
    for one in records:
        data = key if one.selector == 1 else certificate
        if one.matching == 1:
            data = sha256(data).digest()
        elif one.matching == 2:
            data = sha512(data).digest()
        if data == one.data:
            return True
    return False
