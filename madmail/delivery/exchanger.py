"""Exchangers: relays with which mail is exchanged in other ways than straight to its domain.

Where two relays cannot reach each other, a third stands between them.  It is
sent mail (push), and it holds mail until it is fetched (pull); each of the two
legs may be one or the other.  A row of the control database, an exchanger,
says how we deal with one neighbour:

    domains   mail for these goes by it, for `*` all other mail
    mode      push: it is sent to the neighbour's /mxdeliv; pull: it waits until
              the neighbour fetches it; both: whichever comes first
    carries   for these domains we are an exchanger ourselves: mail for them is
              taken from everybody, under the same rules as mail for us
    polls     we fetch mail there: that for our own domain, or for `fetches`

An exchanger is a way, nobody whose word is taken: what comes through it is
judged like what a stranger brings (`arrival`).

A neighbour that fetches from us shows a token of which the digest is kept here.
We speak both dialects there are (`exchanger_dialects`), at both ends.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from madmail.account.address import canonical_domain, ip_literal
from madmail.store.exchangers import Exchanger

MODES = ('push', 'pull', 'both')
PROTOCOLS = ('a', 'b')
EVERY = '*'  # as a domain: all that have no other way
LEAST_INTERVAL, INTERVAL, MOST_INTERVAL = 1, 60, 86400  # seconds between two polls
LIMIT = 200  # exchangers
DOMAINS_LIMIT = 200  # domains of one
NAME_LIMIT = 64  # characters
URL_LIMIT = 500
TOKEN_LEAST, TOKEN_MOST = 16, 256  # characters

Match = Callable[[str], str | None]


class BadUrl(ValueError):
    """Not the URL of an exchanger; the text is for the operator."""


class Place(NamedTuple):
    """A URL of http or https, understood."""

    scheme: str
    host: str  # lower case, an IP address without brackets
    port: int
    path: str  # without a slash at its end

    @property
    def authority(self) -> str:
        """For the Host field."""
        host = f'[{self.host}]' if ':' in self.host else self.host
        return f'{host}:{self.port}'

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f'{self.scheme}://{self.authority}'


def place(url: str) -> Place:
    """Raises BadUrl."""
    if len(url) > URL_LIMIT or not url.isascii() or any(c <= ' ' or c == '\x7f' for c in url):
        raise BadUrl(f'a URL has no blanks and at most {URL_LIMIT} characters')
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ''
    except ValueError as error:
        raise BadUrl(f'this is not a URL: {error}') from None
    if parts.scheme not in ('https', 'http'):
        raise BadUrl('the URL begins with https:// or http://')
    if parts.username is not None or parts.query or parts.fragment:
        raise BadUrl('the URL has no user name, ? or #; a token is given by itself')
    address = ip_literal(host)
    name = str(address) if address is not None else canonical_domain(host)
    if not name or port == 0:
        raise BadUrl('the URL names no host')
    return Place(
        parts.scheme, name, port or (443 if parts.scheme == 'https' else 80), parts.path.rstrip('/')
    )


def token_key(token: str) -> bytes:
    """What is kept of a token.  Tokens are random, so a plain digest is enough."""
    return hashlib.sha256(token.encode()).digest()


class Exchangers:
    """Those that are enabled, in memory; see the module for what they mean."""

    def __init__(self, rows: Sequence[Exchanger], names: Callable[[Sequence[str]], Match]) -> None:
        """`names` makes what finds the most exact of some domains; the first row wins."""
        self.rows = [row for row in rows if row.enabled]
        self._by_domain: dict[str, Exchanger] = {}
        for row in self.rows:
            for domain in row.domains:
                self._by_domain.setdefault(domain, row)
        self._match = names(tuple(self._by_domain))
        self.polled = [row for row in self.rows if row.polls and row.url]

    def named(self, name: str) -> Exchanger | None:
        return next((row for row in self.rows if row.name == name), None)

    def via(self, domain: str) -> Exchanger | None:
        """By which one mail for `domain` (spelled) goes."""
        found = self._match(domain)
        return None if found is None else self._by_domain[found]

    def pushed(self) -> dict[str, tuple[str, bool | None]]:
        """Domains whose mail may be sent, with URL and `verify` of where to."""
        found = {}
        for domain, row in self._by_domain.items():
            if row.url and row.mode != 'pull':
                try:
                    found[domain] = (place(row.url).origin, row.verify)
                except BadUrl:
                    continue  # stored by a version that knew more
        return found

    def waits(self, domain: str) -> bool:
        """Whether mail for `domain` is not sent but fetched."""
        row = self.via(domain)
        return row is not None and row.mode == 'pull'

    def shared(self, domain: str) -> bool:
        """Whether mail for `domain` may be fetched and is sent as well."""
        row = self.via(domain)
        return row is not None and row.mode == 'both'

    def carries(self, domain: str) -> bool:
        """Whether mail for `domain`, which is not ours, is taken from everybody."""
        row = self.via(domain)
        return row is not None and row.carries

    def by_token(self, token: str) -> Exchanger | None:
        """Who fetches with this token."""
        found = None
        key = token_key(token)
        for row in self.rows:
            if row.pull_key and hmac.compare_digest(row.pull_key, key):
                found = row
        return found

    def fetched_by(self, name: str, asked: str, present: Sequence[str]) -> list[str]:
        """Domains of which an exchanger gets mail that asks for `asked` (spelled, or `*`).

        `present` are those that mail waits for.
        """
        row = self.named(name)
        if row is None or row.mode == 'push':
            return []
        wanted = [one for one in present if asked == EVERY or one == asked]
        return [one for one in wanted if (way := self.via(one)) is not None and way.name == name]
