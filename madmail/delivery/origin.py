"""Whether mail from elsewhere comes from the domain in its From: one check for every entrance.

A domain proves itself by a DKIM signature of its own (see `message.dkim`); who
connected and what the envelope says means nothing.  An IP address as domain can
publish no key and needs none, except ours: our own users' mail never comes
from outside.
"""

from __future__ import annotations

from collections.abc import Sequence

from madmail.account.address import canonical_domain, ip_literal
from madmail.delivery.dns import Resolver, Status
from madmail.message import header
from madmail.message.dkim import FetchKey, Outcome, Verification
from madmail.settings import Settings
from madmail.smtp.reply import Fault, Reply

# The texts are those of other chatmail relays; tests look for them.
UNSIGNED = Reply(554, '5.7.1', 'No DKIM signature found', 'dkim_missing', Fault.POLICY)
INVALID = Reply(554, '5.7.1', 'No valid DKIM signature found', 'dkim_invalid', Fault.POLICY)
NO_KEY = Reply(451, '4.4.3', 'The DKIM key could not be looked up', 'dkim_dns', Fault.POLICY)


class Origin:
    """The check of one message, fed with all of it as it came."""

    __slots__ = ('_buffer', '_fetch_key', '_open', '_own', '_scan', '_verification')

    def __init__(self, fetch_key: FetchKey, own_domain: str, *, required: bool = True) -> None:
        """Without `required` everything passes."""
        self._fetch_key = fetch_key
        self._own = own_domain
        self._verification = Verification() if required else None
        self._buffer = bytearray()  # the header block until it is whole
        self._scan = 0
        self._open = True

    def feed(self, octets: bytes) -> None:
        """The next octets of the message."""
        verification = self._verification
        if verification is None:
            return
        if not self._open:
            verification.feed(octets)
            return
        buffer = self._buffer
        buffer += octets
        end = header.end_of_block(buffer, self._scan)
        if end:
            self._close(end)
        elif len(buffer) > header.BLOCK_LIMIT:
            self._close(0)
        else:
            self._scan = max(0, len(buffer) - 3)

    def finish(self) -> Reply | None:
        """At the end of the message: None, or why it is refused.  May wait for the DNS."""
        verification = self._verification
        if verification is None:
            return None
        if self._open:
            self._close(len(self._buffer))
        domain = verification.domain
        if domain.startswith('[') and ip_literal(domain) is not None:
            return UNSIGNED if canonical_domain(domain) == self._own else None
        result = verification.finish(self._fetch_key)
        if result.outcome is Outcome.VALID:
            return None
        if result.outcome is Outcome.MISSING:
            return UNSIGNED
        if result.outcome is Outcome.FAILED:
            return NO_KEY
        return INVALID._replace(cause=f'dkim_{result.cause}')

    def _close(self, end: int) -> None:
        """Judge the header block; `end` is 0 when it is longer than any that we read."""
        assert self._verification is not None
        self._open = False
        if 0 < end <= header.BLOCK_LIMIT:
            self._verification.feed_header(bytes(self._buffer[:end]))
            self._verification.feed(bytes(self._buffer[end:]))
        self._buffer = bytearray()


class Origins:
    """Makes the checks of one process: `origins()` is an Origin for the next message."""

    def __init__(self, settings: Settings, domain: str, resolver: Resolver | None = None) -> None:
        """`domain` is ours, as `mail_domain` spells it.  Raises ValueError for bad dns settings."""
        self._settings = settings
        self._domain = domain
        self._resolver = resolver or Resolver.configured(settings)

    def __call__(self) -> Origin:
        required = self._settings['federation.dkim'] == 'require'
        return Origin(self._fetch_key, self._domain, required=required)

    def _fetch_key(self, name: str) -> Sequence[bytes] | None:
        answer = self._resolver.txt(name)
        return None if answer.status is Status.FAILED else answer.values
