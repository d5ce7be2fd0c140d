"""Federation: with which domains this relay exchanges mail, and where it finds them.

Owns the meaning of three tables of the control database (`store.control`) and
of the settings `federation.enabled` and `federation.policy`:

    rules       who may exchange mail with us: all but these (policy accept) or
                only these (policy reject), in both directions
    dismissed   mail to these is taken from the user and thrown away
    endpoints   mail to these goes to a given scheme, host and port

Exchangers, a fourth, are in `exchanger`; where both know a domain the endpoint holds.

A domain is kept in one spelling (`key`): lower case, IDNA in ASCII, no dot at
the end, IP literals in brackets.  `example.org` means that name only,
`*.example.org` every name below it; an endpoint may also be given for `*`,
which is every domain that has none of its own.  The most exact entry wins.

The tables are in memory; `reload` when the bus says 'federation', and `refresh`
now and then, because what the bus says may be lost.  Settings
are looked up at each question, so a change of them needs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from madmail.account.address import canonical_domain, ip_literal
from madmail.delivery.exchanger import Exchangers
from madmail.settings import Settings
from madmail.smtp.reply import Fault, Reply
from madmail.store.control import Control

PATH = '/mxdeliv'
SCHEMES = ('https', 'http', 'smtp')
LABELS_LIMIT = 127  # of a domain name, RFC 1035 2.3.4

REJECTED_INBOUND = Reply(554, '5.7.1', 'Policy Rejection', 'federation', Fault.POLICY)
REJECTED_OUTBOUND = Reply(550, '5.7.1', 'Policy Rejection', 'federation', Fault.POLICY)
OFF_INBOUND = Reply(
    554, '5.7.1', 'This relay takes no mail from other servers', 'federation_off', Fault.POLICY
)
OFF_OUTBOUND = Reply(
    550, '5.7.1', 'This relay sends no mail to other servers', 'federation_off', Fault.POLICY
)


class BadDomain(ValueError):
    """Not a domain, or a wildcard where none can be; the text is for the operator."""


class BadTarget(ValueError):
    """Not an endpoint; the text is for the operator."""


class Override(NamedTuple):
    """Where to send mail for a domain, instead of what DNS says."""

    scheme: str  # 'https', 'http', 'smtp'; '' = https, then http, then smtp, as for any domain
    host: str  # lower case, an IP address without brackets
    port: int  # 0 = the usual one of the scheme
    path: str  # of the URL; '' for smtp
    verify: bool  # whether the certificate must be right


# -- spelling


@lru_cache(4096)
def _spelled(domain: str) -> str:
    """A domain of an address in the spelling of the tables, odd ones as they are."""
    return canonical_domain(domain) or domain.lower()


def key(text: str, *, every: bool = False) -> str:
    """The spelling under which a domain is stored; `every` allows `*`.  Raises BadDomain."""
    text = text.strip()
    if every and text == '*':
        return text
    below = text.startswith('*.')
    domain = canonical_domain(text[2:] if below else text)
    if domain is None or (below and domain.startswith('[')):
        raise BadDomain(f'{text or "an empty text"} is not a domain')
    return f'*.{domain}' if below else domain


def trusts_names(host: str) -> bool:
    """Whether a certificate can be expected to be right for `host`: a public name.

    IP addresses, and names that begin with an underscore, have self-signed ones.
    """
    return not host.startswith('_') and host != 'localhost' and ip_literal(host) is None


def target(text: str, verify: bool | None = None) -> Override:
    """`scheme://host[:port][/path]`, `host[:port]`, as an Override.  Raises BadTarget."""
    text = text.strip()
    scheme, separator, rest = text.partition('://')
    if not separator:
        scheme, rest = '', text
        if rest.count(':') > 1 and not rest.startswith('['):
            rest = f'[{rest}]'  # a bare IPv6 address
    scheme = scheme.lower()
    if scheme and scheme not in SCHEMES:
        raise BadTarget(f'{scheme}: use https, http or smtp')
    if any(character <= ' ' or character == '\x7f' for character in rest):
        raise BadTarget('an endpoint has no blanks')
    try:
        parts = urlsplit(f'//{rest}')
        host, port = parts.hostname or '', parts.port or 0
    except ValueError as error:
        raise BadTarget(f'{text}: {error}') from None
    address = ip_literal(host)
    name = str(address) if address is not None else canonical_domain(host)
    if not name or parts.username is not None or parts.fragment:
        raise BadTarget(f'{text}: expected scheme://host:port or a host')
    path = parts.path + (f'?{parts.query}' if parts.query else '')
    if scheme == 'smtp':
        if path not in ('', '/'):
            raise BadTarget(f'{text}: smtp has no path')
        path = ''
    elif path in ('', '/'):
        path = PATH
    return Override(scheme, name, port, path, trusts_names(name) if verify is None else verify)


class _Names:
    """A set of keys that can be asked about a domain."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = frozenset(keys)
        self._below = any(key.startswith('*') for key in self._keys)

    def match(self, domain: str) -> str | None:
        """The most exact key that means `domain` (spelled)."""
        if domain in self._keys:
            return domain
        if self._below:
            rest = domain
            for _ in range(LABELS_LIMIT):
                rest = rest.partition('.')[2]
                if not rest or domain.startswith('['):
                    break
                if f'*.{rest}' in self._keys:
                    return f'*.{rest}'
            if '*' in self._keys:
                return '*'
        return None


def matcher(keys: Sequence[str]) -> Callable[[str], str | None]:
    """Finds the most exact of some keys that means a domain."""
    return _Names(keys).match


class Federation:
    """The rules in force, one object a process; see the module for what they mean."""

    def __init__(self, state_dir: Path, settings: Settings, domain: str) -> None:
        """`domain` is the relay's own mail domain, which no rule touches."""
        self._control = Control(state_dir)
        self._settings = settings
        self._domain = domain
        self._changes = 0
        self.reload()

    def refresh(self) -> bool:
        """Read the tables anew if anything was changed: for when nobody told us."""
        if self._control.changes() == self._changes:
            return False
        self.reload()
        return True

    def reload(self) -> None:
        """Read the tables anew."""
        control = self._control
        self._changes = control.changes()
        self._rules = _Names(rule.domain for rule in control.rules())
        self._dismissed = _Names(one.domain for one in control.dismissed())
        self.exchangers = Exchangers(control.exchangers(), matcher)
        overrides = {
            domain: target(url, verify)
            for domain, (url, verify) in self.exchangers.pushed().items()
        }
        for endpoint in control.endpoints():
            try:
                overrides[endpoint.domain] = target(endpoint.target, endpoint.verify)
            except BadTarget:
                continue  # stored by a version that knew more
        self._overrides = overrides
        self._overridden = _Names(overrides)

    def close(self) -> None:
        self._control.close()

    def waits(self, domain: str) -> bool:
        """Whether mail to `domain` is not sent but fetched by an exchanger."""
        domain = _spelled(domain)
        return domain != self._domain and self.exchangers.waits(domain)

    def shared(self, domain: str) -> bool:
        """Whether mail to `domain` is sent, and an exchanger may fetch it as well."""
        domain = _spelled(domain)
        return domain != self._domain and self.exchangers.shared(domain)

    def carries(self, domain: str) -> bool:
        """Whether mail from elsewhere to `domain`, which is not ours, goes on from here."""
        domain = _spelled(domain)
        return (
            domain != self._domain
            and self.exchangers.carries(domain)
            and self.outbound(domain) is None
        )

    def inbound(self, domain: str) -> Reply | None:
        """Why mail from `domain` is not taken, None if it is.

        '' is the null reverse-path, which has no domain and passes; what such
        a message says in its From is asked about once it is known.
        """
        if not self._settings['federation.enabled']:
            return OFF_INBOUND
        return None if not domain or self._agrees(domain) else REJECTED_INBOUND

    def outbound(self, domain: str) -> Reply | None:
        """Why mail to `domain` is not sent, None if it is."""
        domain = _spelled(domain)
        if domain == self._domain:
            return None
        if not self._settings['federation.enabled']:
            return OFF_OUTBOUND
        return None if self._agrees(domain) else REJECTED_OUTBOUND

    def dismissed(self, domain: str) -> bool:
        """Whether mail to `domain` is thrown away without a word; never the own domain."""
        domain = _spelled(domain)
        return domain != self._domain and self._dismissed.match(domain) is not None

    def override(self, domain: str) -> Override | None:
        """Where mail to `domain` goes instead of where DNS says."""
        found = self._overridden.match(_spelled(domain))
        return None if found is None else self._overrides[found]

    def _agrees(self, domain: str) -> bool:
        """What the policy says of a domain that is not ours."""
        domain = _spelled(domain)
        if domain == self._domain:
            return True
        wanted = self._settings['federation.policy'] == 'reject'
        return (self._rules.match(domain) is not None) is wanted
