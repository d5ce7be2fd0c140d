"""What a shard's store offers, whatever keeps the data.

A store belongs to exactly one shard process and is called only on that
process's loop.  Reads return at once.  Writes block the calling greenlet until
the change is durable (the commit group is on disk), so a caller may answer
250 or OK as soon as a write returns.  Numbers are bytes, Unix seconds or
counts; flags are the bits of `Flag`.

After each commit, and before the writers are woken, the store calls its
`observer` with the events of the commit group, in order.  Whoever wants to
tell sessions listens there, so no write path can forget to.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntFlag
from typing import NamedTuple, Protocol

INLINE_LIMIT = 128 * 1024  # bytes; a larger body is a file of the blob directory


class Flag(IntFlag):
    """System flags as stored (RFC 3501 2.3.2); \\Recent is never stored."""

    SEEN = 1
    ANSWERED = 2
    FLAGGED = 4
    DELETED = 8
    DRAFT = 16


class Body(Protocol):
    """A finished message: its octets, in memory or in a file."""

    size: int

    def read(self, offset: int = 0, length: int = -1) -> bytes:
        """Octets from `offset`; at most `length`, -1 for the rest."""


class Account(NamedTuple):
    id: int
    address: str  # canonical: lower case, IP literal in brackets
    password: str  # encoded verifier, see account.password
    created_day: int  # Unix time, rounded down to the day
    last_login_day: int  # 0 = never
    quota: int  # bytes; -1 = the relay's default
    message_size: int = 0  # largest message it may send or append, bytes; 0 = the relay's limit
    first_login_day: int = 0  # 0 = never


class Mailbox(NamedTuple):
    id: int
    account_id: int
    name: str  # INBOX in upper case; hierarchy delimiter '/'
    uid_validity: int
    uid_next: int
    highest_modseq: int
    messages: int
    unseen: int
    size: int  # bytes, all messages
    special_use: str  # '\\Sent' …, or ''


class Message(NamedTuple):
    uid: int
    flags: int
    keywords: tuple[str, ...]
    internal_date: int
    size: int
    modseq: int
    body_id: int
    saved: int = 0  # when it came into this mailbox (RFC 8514)


class Appended(NamedTuple):
    mailbox_id: int
    uids: Sequence[int]
    modseq: int


class FlagsChanged(NamedTuple):
    mailbox_id: int
    changes: Sequence[tuple[int, int, tuple[str, ...], int]]  # uid, flags, keywords, modseq
    origin: object | None  # the session that asked, passed through by identity


class Expunged(NamedTuple):
    mailbox_id: int
    uids: Sequence[int]
    modseq: int
    origin: object | None


class MailboxGone(NamedTuple):
    mailbox_id: int


class AccountGone(NamedTuple):
    account_id: int


class MailboxNamed(NamedTuple):
    """A mailbox was made (`old` is ''), renamed, or deleted (`new` is '')."""

    account_id: int
    mailbox_id: int
    old: str
    new: str


class SubscriptionChanged(NamedTuple):
    account_id: int
    name: str
    subscribed: bool


class MetadataChanged(NamedTuple):
    account_id: int
    mailbox_id: int  # 0 = the account's server entries
    entries: tuple[str, ...]


Event = (
    Appended
    | FlagsChanged
    | Expunged
    | MailboxGone
    | AccountGone
    | MailboxNamed
    | SubscriptionChanged
    | MetadataChanged
)
Observer = Callable[[Sequence[Event]], None]


class DueToken(NamedTuple):
    """A device that is to be told that there is mail."""

    id: int
    token: str  # opaque, for the notification service only
    since: int  # Unix time of the first message that it is about
    tries: int  # that failed
    news: int  # another number after each message that came


class Settled(NamedTuple):
    """What became of a DueToken."""

    id: int
    news: int  # as it was taken
    tries: int = 0  # that failed, this one too
    next_try: int = 0  # Unix time; 0 = nothing more to do for it
    gone: bool = False  # the notification service does not know it any more


class Purged(NamedTuple):
    """What a call of `purge` did."""

    messages: int
    size: int  # bytes, each message by itself
    last: int  # the highest UID that was looked at; 0 = the mailbox has no more


class Outcome(Enum):
    """What became of one recipient of a delivery."""

    STORED = 'stored'
    UNKNOWN = 'unknown'
    OVER_QUOTA = 'over_quota'


@dataclass(slots=True, frozen=True)
class OutboxEntry:
    """A message waiting for one remote domain; lives in the sender's shard."""

    id: int  # 0 until stored
    sender: str  # reverse-path, '' for a bounce
    domain: str
    recipients: tuple[str, ...]
    created: int
    body_id: int = 0
    size: int = 0
    tries: int = 0
    next_try: int = 0
    last_error: str = ''
    leased_until: int = 0  # Unix time; whose it is until then, see store.leases


@dataclass(slots=True)
class NewMessage:
    """A message for `append`."""

    body: Body
    flags: int = 0
    keywords: tuple[str, ...] = ()
    internal_date: int = 0  # 0 = now


@dataclass(slots=True)
class FlagUpdate:
    """STORE: the bits and keywords to add, remove or set."""

    mode: str  # 'add' | 'remove' | 'replace'
    flags: int = 0
    keywords: tuple[str, ...] = ()
    unchanged_since: int | None = None  # CONDSTORE; rows above it are left alone
    modified: list[int] = field(default_factory=list)  # out: uids that were left alone


class StoreFull(Exception):
    """The disk or database refuses to take more; callers answer 4xx / NO."""


class MailboxExists(Exception):
    """The name is taken."""


class MailboxMissing(Exception):
    """No mailbox of this name or id (any more)."""


class MessageMissing(Exception):
    """The message is gone."""


class OverQuota(Exception):
    """APPEND or COPY would exceed the account's quota and may not trim."""


class Store(Protocol):
    """One shard's accounts, mailboxes, messages and outbox."""

    observer: Observer | None

    # -- life
    def close(self) -> None:
        """Commit what is queued and close; later calls raise."""

    def limit(self, *, quota_default: int, trim_from: float, trim_to: float) -> None:
        """Quota of accounts without their own, and where trimming begins and ends, from now on."""

    def trim(self, account_id: int) -> None:
        """Have an account that stands above its mark give up what is too much; returns at once."""

    def barrier(self) -> None:
        """Return when every write queued so far is durable (the heartbeat)."""

    # -- accounts
    def account(self, address: str) -> Account | None: ...
    def account_by_id(self, account_id: int) -> Account | None: ...
    def salt(self, account_id: int) -> bytes:
        """Octets nobody can guess, another value for every account, the same for its life."""

    def accounts(self, after: str = '', limit: int = 1000) -> list[Account]:
        """In order of address, beginning behind `after`."""

    def account_count(self) -> int: ...
    def create_account(self, address: str, password: str, day: int) -> Account | None:
        """Account with its INBOX; None when the address is taken."""

    def create_accounts(self, accounts: Sequence[tuple[str, str]], day: int) -> list[bool]:
        """Some accounts (address, verifier) in one commit; False for addresses that are taken."""

    def set_password(self, account_id: int, password: str) -> None: ...
    def replace_password(self, account_id: int, old: str, new: str) -> bool:
        """Only while the verifier is still `old`; whether it was."""

    def set_quota(self, account_id: int, quota: int) -> None: ...
    def set_message_size(self, account_id: int, limit: int) -> None: ...
    def record_login(self, account_id: int, day: int) -> None:
        """Queue the new day; does not wait for durability, writes only if changed."""

    def add_bandwidth(self, month: str, octets: dict[int, tuple[int, int]]) -> None: ...
    def bandwidth(self, account_id: int) -> list[tuple[str, int, int]]: ...
    def delete_account(self, account_id: int, *, unused_only: bool = False) -> bool:
        """With everything it owns; False if there is none, or it was used and must not be."""

    # -- mailboxes
    def mailboxes(self, account_id: int) -> list[Mailbox]: ...
    def mailbox(self, account_id: int, name: str) -> Mailbox | None: ...
    def mailbox_by_id(self, mailbox_id: int) -> Mailbox | None: ...
    def deleted(self, mailbox_id: int) -> tuple[int, int]:
        """(messages, bytes) that carry \\Deleted."""

    def create_mailbox(self, account_id: int, name: str, special_use: str = '') -> Mailbox:
        """Raises MailboxExists.  The UID validity is new for every incarnation."""

    def delete_mailbox(self, mailbox_id: int) -> None: ...
    def rename_mailbox(self, mailbox_id: int, name: str) -> None:
        """With inferiors (`old/…`); INBOX moves its messages to a new mailbox (RFC 3501 6.3.5)."""

    def subscriptions(self, account_id: int) -> list[str]: ...
    def subscribe(self, account_id: int, name: str) -> None: ...
    def unsubscribe(self, account_id: int, name: str) -> None: ...

    # -- messages
    def uids(self, mailbox_id: int, first: int = 1, last: int = 0xFFFFFFFF) -> array[int]:
        """Ascending UIDs within the range, array('I')."""

    def messages(self, mailbox_id: int, first: int, last: int, limit: int = 1000) -> list[Message]:
        """Rows in order of UID within the range, at most `limit` of them."""

    def message(self, mailbox_id: int, uid: int) -> Message | None: ...
    def changed_since(self, mailbox_id: int, modseq: int, limit: int = 1000) -> list[Message]: ...
    def expunged_since(self, mailbox_id: int, modseq: int) -> list[int]: ...
    def body(self, body_id: int) -> Body | None:
        """The stored octets; a file is opened when it is read, not before."""

    def append(
        self,
        mailbox_id: int,
        messages: Sequence[NewMessage],
        origin: object | None = None,
        *,
        replacing: tuple[int, int] | None = None,
    ) -> list[int]:
        """All or nothing; the new UIDs.  Raises MailboxMissing, OverQuota, StoreFull.

        With `replacing`, a mailbox id and a UID, that message goes in the same
        transaction (RFC 8508); raises MessageMissing if it has gone already.
        """

    def store_flags(
        self, mailbox_id: int, uids: Iterable[int], update: FlagUpdate, origin: object | None = None
    ) -> list[tuple[int, int, tuple[str, ...], int]]:
        """The rows after the change: uid, flags, keywords, modseq."""

    def expunge(
        self, mailbox_id: int, uids: Iterable[int] | None = None, origin: object | None = None
    ) -> list[int]:
        """Remove messages that carry \\Deleted, all or those among `uids`; the UIDs removed."""

    def copy(self, mailbox_id: int, uids: Sequence[int], target_id: int) -> list[tuple[int, int]]:
        """Pairs (source UID, new UID); bodies are shared.  UIDs that are gone are skipped."""

    def move(
        self, mailbox_id: int, uids: Sequence[int], target_id: int, origin: object | None = None
    ) -> list[tuple[int, int]]:
        """COPY and expunge in one transaction (RFC 6851)."""

    # -- delivery
    def deliver(
        self,
        body: Body | None,
        addresses: Sequence[str],
        *,
        delivery_id: bytes,
        outbox: Sequence[OutboxEntry] = (),
        quiet: str = '',
    ) -> list[Outcome]:
        """Store one body for many accounts and remote domains, in one transaction.

        Devices of the accounts are to be told of it, but for those of the address
        `quiet`, who sent it.  One outcome an address.  A `delivery_id` (16 random octets) that was
        seen within the last day changes nothing and gives the outcomes of the
        first time, so a caller that lost the answer may ask again.
        """

    # -- outbox
    def outbox_due(self, now: int, limit: int = 100, skip: Sequence[str] = ()) -> list[OutboxEntry]:
        """Entries whose next try has come, longest due first, but for the domains `skip`."""

    def outbox_older(self, created: int, limit: int = 100) -> list[OutboxEntry]:
        """Entries accepted before `created`, oldest first."""

    def outbox_entry(self, entry_id: int) -> OutboxEntry | None: ...
    def outbox_list(self, after: int = 0, limit: int = -1, domain: str = '') -> list[OutboxEntry]:
        """What waits, oldest first: behind the id `after`, for one domain or all."""

    def outbox_count(self) -> dict[str, int]:
        """How many entries wait, by domain."""

    def outbox_retry(
        self,
        entry_id: int,
        next_try: int,
        error: str,
        *,
        recipients: Sequence[str] | None = None,
        bounce: Body | None = None,
        sender: str = '',
        away: OutboxEntry | None = None,
    ) -> None:
        """Count a failed try; with `recipients` only these are left, with a `bounce` about
        the others to local `sender` or as the entry `away`, all in one transaction.
        A lease of the entry ends."""

    def outbox_postpone(self, domain: str, next_try: int, error: str) -> int:
        """Put off everything for a domain without counting a try; how many entries."""

    def outbox_remove(
        self,
        entry_id: int,
        bounce: Body | None = None,
        sender: str = '',
        *,
        away: OutboxEntry | None = None,
    ) -> None:
        """Remove; with `bounce`, deliver it to local `sender`'s INBOX in the same transaction,
        or put it into the outbox as the entry `away`."""

    def outbox_hasten(self, domain: str, now: int) -> int:
        """Make everything for a domain due; how many entries were not."""

    def outbox_held(self, domain: str, limit: int) -> int:
        """How many entries a domain has; counts up to `limit`."""

    def outbox_free(self, domains: Sequence[str], now: int) -> bool:
        """Whether there is anything for one of the domains that nobody has leased."""

    def outbox_lease(
        self, domains: Sequence[str], now: int, until: int, limit: int, octets: int, single: bool
    ) -> list[OutboxEntry]:
        """The oldest entries of some domains that nobody has, kept from others `until` then."""

    def outbox_claim(self, entry_id: int, now: int, until: int) -> bool:
        """Lease one entry; False if somebody has it, or it is gone."""

    def outbox_acknowledge(self, entry_ids: Sequence[int], domains: Sequence[str]) -> int:
        """Remove entries of these domains that are safe elsewhere; how many there were."""

    # -- metadata (RFC 5464); mailbox_id 0 = the account's server entries
    def metadata(self, account_id: int, mailbox_id: int) -> dict[str, bytes]: ...
    def metadata_usage(self, account_id: int) -> tuple[int, int]:
        """(entries, bytes of their values) of the account and all its mailboxes."""

    def set_metadata(
        self, account_id: int, mailbox_id: int, changes: dict[str, bytes | None]
    ) -> None: ...

    # -- devices, see store.devices
    notifying: bool  # whether deliveries make tokens due
    announce_due: Callable[[], object]  # called when some are; must not block

    def device_tokens(self, account_id: int) -> list[str]:
        """Push tokens that are good, longest ago renewed first."""

    def add_device_token(self, account_id: int, token: str, limit: int) -> None:
        """Add or renew one; of more than `limit` the oldest go.  Raises MailboxMissing."""

    def forget_old_tokens(self) -> int:
        """Remove a slice of those that are not good any more; how many."""

    def push_due(self, now: int, limit: int, skip: Sequence[int] = ()) -> list[DueToken]:
        """Tokens to be told now, longest due first, but for the ids `skip`."""

    def push_next(self, now: int) -> int:
        """When the next one comes due after `now`, Unix time; 0 = none waits."""

    def push_waiting(self) -> int:
        """How many tokens are to be told, now or later."""

    def push_settle(self, outcomes: Sequence[Settled]) -> int:
        """Take over what became of some; how many are due again for newer messages."""

    # -- upkeep: bounded slices, see store.purging
    def expire(
        self, before: int, limit: int = ..., larger_than: int = 0, *, since: int = ...
    ) -> int:
        """Remove up to `limit` of the oldest messages dated from `since` and below `before`."""

    def overdue(self, before: int, larger_than: int = 0, *, since: int = ...) -> int:
        """How many messages `expire` would remove."""

    def mailbox_ids(self, after: int = 0, limit: int = 1000, account_id: int = 0) -> list[int]:
        """Mailboxes that hold messages, behind `after`; of all accounts or of one."""

    def purge(
        self,
        mailbox_id: int,
        after: int = 0,
        *,
        seen: bool | None = None,
        before: int | None = None,
        dry_run: bool = False,
    ) -> Purged:
        """Remove a slice of the messages behind UID `after`, by flag and time of arrival."""

    def remove(
        self, mailbox_id: int, uids: Sequence[int], origin: object | None = None
    ) -> list[int]:
        """Remove messages whatever their flags; the UIDs removed.  Raises MailboxMissing."""

    def undated(
        self, low: int, high: int, now: int, after: tuple[int, int, int] | None = None
    ) -> tuple[list[tuple[int, int, int]], tuple[int, int, int] | None]:
        """Messages whose date cannot be right: (mailbox id, UID, since when they are here)."""

    def redate_account(self, account_id: int, low: int, today: int) -> None:
        """Days of an account that are before `low` or after `today` become `today`."""

    def usage(self, account_id: int) -> tuple[int, int]:
        """(bytes, messages) of all the account's mailboxes."""

    def storage(self, after: int = 0) -> tuple[int, int, int]:
        """(bytes, messages, last) of a slice of the mailboxes behind id `after`; last 0 = end."""

    def sweep(self) -> int:
        """Remove blobs nobody refers to; how many."""

    def newest(self) -> int:
        """The latest Unix time something is known to have happened here; 0 = nothing has."""

    def note(self, name: str) -> int | None:
        """The number kept under a name."""

    def set_note(self, name: str, value: int) -> None: ...
