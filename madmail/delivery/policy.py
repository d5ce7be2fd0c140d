"""Who may send to whom, and how much: the rules that every entrance shares.

SMTP on all ports, HTTP federation and WebSMTP ask the same object, one a
shard, so a rule holds everywhere or nowhere.  What a message must look like is
not here but in `madmail.message.inspection`.

Recipients come out of `recipient` in one spelling: an address of this relay
canonical and without tag, any other with its domain canonical.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from madmail.account import names
from madmail.account.address import canonical, canonical_domain, is_local
from madmail.account.rates import Gcra
from madmail.settings import Settings
from madmail.smtp.grammar import Path
from madmail.smtp.reply import Fault, Reply

if TYPE_CHECKING:
    from madmail.delivery.federation import Federation

RECIPIENTS_LIMIT = 10_000  # a transaction, even where limits.max_recipients is 0
SECUREJOIN_RECIPIENTS = 5  # one contact with as many relays as the client allows

RELAY_DENIED = Reply(554, '5.7.1', 'Relay access denied', 'relay', Fault.PEER)
TOO_MANY_RECIPIENTS = Reply(452, '4.5.3', 'Too many recipients', 'recipients', Fault.POLICY)
TOO_BIG = Reply(552, '5.3.4', 'Message too big for this relay', 'size', Fault.POLICY)
NEEDS_TLS = Reply(530, '5.7.0', 'Must issue a STARTTLS command first', 'plaintext', Fault.POLICY)
SECUREJOIN_CROWD = Reply(
    523,
    '',
    'Encryption Needed: Invalid Unencrypted Mail (too many recipients for Secure-Join)',
    'securejoin_recipients',
    Fault.POLICY,
)
SECUREJOIN_RATE = Reply(450, '4.7.1', 'Too many Secure-Join requests', 'rate', Fault.POLICY)


class Policy:
    """The rules of one shard, with the rates of the accounts that are active in it."""

    def __init__(
        self, domain: str, settings: Settings, federation: Federation | None = None
    ) -> None:
        """Without `federation` mail is exchanged with every domain."""
        self.domain = domain
        self._settings = settings
        self._federation = federation
        self._sending = Gcra(0, 0)
        self._securejoin = Gcra(0, 0)

    # -- addresses

    def recipient(self, path: Path) -> str:
        """The one spelling of a recipient; never refuses."""
        if path.domain and not is_local(path.domain, self.domain):
            return f'{path.local}@{canonical_domain(path.domain) or path.domain}'
        local = path.local.lower()
        tag = local.find('+')
        if tag > 0 and local[0] != '"':  # RFC 5233: the tag is the owner's affair
            local = local[:tag]
        return f'{local}@{self.domain}'

    def local(self, recipient: str) -> bool:
        """Whether a spelled recipient belongs to this relay."""
        return recipient.rpartition('@')[2] == self.domain

    def ownable(self, recipient: str) -> bool:
        """Whether a local recipient can be an account at all; reserved names cannot."""
        address = canonical(recipient, self.domain)
        return address is not None and not names.reserved(address[: -len(self.domain) - 1])

    def sends_as(self, path: Path | None, account: str) -> bool:
        """Whether the reverse-path is the logged in account, in any spelling of its domain."""
        return path is not None and canonical(path.address, self.domain) == account

    # -- refusals; None = go on

    def inbound_recipient(self, recipient: str) -> Reply | None:
        """Without login, mail is taken only for this relay (any name of it, known or not)."""
        return None if self.local(recipient) else RELAY_DENIED

    def inbound_sender(self, path: Path | None) -> Reply | None:
        """Whether mail from elsewhere may have this reverse-path; asked at MAIL."""
        if self._federation is None:
            return None
        return self._federation.inbound(path.domain if path is not None else '')

    def inbound_author(self, address: str) -> Reply | None:
        """Whether mail from elsewhere may have this From; asked when it is known.

        The reverse-path may be null or anything; what the reader sees counts too.
        """
        if self._federation is None:
            return None
        return self._federation.inbound(address.rpartition('@')[2])

    def outbound_recipient(self, recipient: str) -> Reply | None:
        """Whether mail to a spelled recipient may leave."""
        if self._federation is None or self.local(recipient):
            return None
        return self._federation.outbound(recipient.rpartition('@')[2])

    def dismissed(self, domain: str) -> bool:
        """Whether mail to another domain is thrown away without a word."""
        return self._federation is not None and self._federation.dismissed(domain)

    def inbound_plaintext(self, tls: bool) -> Reply | None:
        return NEEDS_TLS if not tls and self._settings['policy.inbound_require_tls'] else None

    def sender(self, path: Path | None, account: str) -> Reply | None:
        """RFC 6409 6.1: who may write which reverse-path."""
        if self.sends_as(path, account):
            return None
        text = f'Sender address rejected: not owned by user {account}'
        return Reply(553, '5.7.1', text, 'sender', Fault.POLICY)

    def one_more(self, recipients: int) -> Reply | None:
        """Whether a transaction that has `recipients` may have another."""
        limit = self._settings['limits.max_recipients'] or RECIPIENTS_LIMIT
        return TOO_MANY_RECIPIENTS if recipients >= min(limit, RECIPIENTS_LIMIT) else None

    def sending_rate(self, account: str, now: float) -> Reply | None:
        """Count one transaction of `account` at monotonic time `now`.

        The colon behind the enhanced code is what clients and tests look for.
        """
        rate, burst = self._settings['limits.send_per_minute'], self._settings['limits.send_burst']
        gcra = self._sending
        if gcra.per_minute != rate or gcra.burst != burst:
            gcra.set(rate, burst)
        if not gcra.allow(account, now):
            return None
        return Reply(450, '4.7.1:', f'Too much mail from {account}', 'rate', Fault.POLICY)

    def securejoin(self, account: str, recipients: Iterable[str], now: float) -> Reply | None:
        """A plaintext Secure-Join request: to one contact, and rarely."""
        if sum(recipient != account for recipient in recipients) > SECUREJOIN_RECIPIENTS:
            return SECUREJOIN_CROWD
        hourly = self._settings['limits.securejoin_per_hour']
        gcra = self._securejoin
        if gcra.burst != hourly:
            gcra.set(hourly / 60, hourly)
        return SECUREJOIN_RATE if gcra.allow(account, now) else None
