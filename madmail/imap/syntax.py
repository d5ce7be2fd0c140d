"""What the IMAP grammar yields: plain values, no behaviour beyond their meaning.

Framing (`framing.Framer`) turns octets into a `Frame`, `grammar.parse(frame)`
turns a frame into a `Command` whose `arguments` are one of the tuples below,
chosen by the command's name.  Anything that is not well formed raises `Bad`.

Conventions: mailbox names are `str`, decoded from modified UTF-7 and with INBOX
in upper case; strings a client may fill with any octets (passwords, search
text, metadata values) are `bytes`; names of items and options are `str` in
upper case; times are Unix seconds, SEARCH days are days since 1970-01-01.

Entry points:

    framing.Framer(limit: int = 65536)
        .next(buffer: bytearray) -> Outcome       deletes what it consumed from the front
        .line(buffer: bytearray) -> bytes | TooLong | None    DONE, SASL answers
        .abandon() -> None                        forget the command begun
    grammar.parse(frame, *, utf8=False) -> Command
    grammar.parse_append(frame, *, utf8=False) -> (Command, Messages)     arguments: Append
    mailbox_name.decode(bytes, *, utf8=False) -> str      raises Bad
    mailbox_name.encode(str, *, utf8=False) -> bytes      modified UTF-7, not quoted
    mailbox_name.Pattern(reference, patterns).matches(name) -> bool
    responses.*                                   all return bytes, complete with CRLF
    message.structure.Structure(body)             ENVELOPE, BODYSTRUCTURE, sections
    message.search_text.header_contains, text_contains, sent_day, fold     for SEARCH
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

MAX_NUMBER = 0xFFFFFFFF  # RFC 3501 9: number is 32 bits
MAX_MODSEQ = 0x7FFFFFFFFFFFFFFF  # RFC 7162 7: mod-sequence-value is 63 bits


class Bad(Exception):
    """The command cannot be obeyed as written.

    `text` is 7-bit and quotes nothing the client sent.  `status` is b'BAD', or
    b'NO' where the syntax is right but the value can never be (a mailbox name
    against the rules, an unknown charset); `code` is the response code without
    brackets or b''.  `tag` is set by `grammar.parse` (b'*' if there is none).
    """

    def __init__(self, text: str, *, status: bytes = b'BAD', code: bytes = b'') -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.code = code
        self.tag = b'*'

    def line(self) -> bytes:
        """The tagged response, with CRLF."""
        code = b'[%s] ' % self.code if self.code else b''
        return b'%s %s %s%s\r\n' % (self.tag, self.status, code, self.text.encode('ascii'))


# -- framing ---------------------------------------------------------------


class Frame(NamedTuple):
    """One complete command: the line, each literal replaced by one NUL octet.

    Line ends and literal markers are gone; `~{n}` leaves b'~\\0'.  The n-th NUL
    stands for `literals[n]`.
    """

    line: bytes
    literals: tuple[bytes, ...] = ()


class Continue(NamedTuple):
    """The client waits: write `responses.CONTINUE`, then call the framer again."""


class AppendStart(NamedTuple):
    """An APPEND or REPLACE line up to, without, a message literal of `size` octets.

    `first` frames begin with tag and command (`grammar.parse_append`), later
    ones hold the text between two literals (`grammar_append.Messages.more`).
    The session writes the continuation if `synchronizing`, takes exactly
    `size` octets from the input itself, then calls the framer again.  To
    refuse a synchronizing literal it answers and calls `Framer.abandon()`.
    """

    frame: Frame
    size: int
    synchronizing: bool
    binary: bool  # literal8 (RFC 3516)
    first: bool


class AppendEnd(NamedTuple):
    """The line end behind the last message literal of an APPEND or REPLACE.

    `trailing` is the text before it, for `grammar_append.Messages.end`.
    """

    trailing: bytes = b''


class TooLong(NamedTuple):
    """A line or literal above the limit; already swallowed or never sent.

    The session answers `tag BAD [TOOBIG] …` and goes on, or says BYE and
    closes if `hopeless` (the client announced or sent absurd amounts).
    """

    tag: bytes  # b'*' if it could not be seen
    hopeless: bool


Outcome = Frame | Continue | AppendStart | AppendEnd | TooLong | None  # None: more input needed


# -- sequence sets -----------------------------------------------------------


class SequenceSet(NamedTuple):
    """RFC 3501 9 sequence-set: message numbers or UIDs, never expanded.

    `ranges` are (low, high) pairs in the order given with low <= high among
    plain numbers; 0 stands for `*` and is always second.  `saved` is `$`
    (RFC 5182), then `ranges` is empty.
    """

    ranges: tuple[tuple[int, int], ...]
    saved: bool = False

    def resolve(self, largest: int) -> list[tuple[int, int]]:
        """Disjoint ascending (low, high) pairs, `*` being `largest`.

        `largest` is the highest number or UID in use, 0 in an empty mailbox.
        Numbers above it stay in: a UID that does not exist is no error.
        """
        pairs = []
        for low, high in self.ranges:
            if high == 0:
                if largest == 0:
                    continue  # nothing is the last message of an empty mailbox
                # RFC 3501 9: 7:* holds the last message even if it is below 7
                low, high = (low, largest) if 0 < low <= largest else (largest, low or largest)
            pairs.append((low, high))
        if len(pairs) < 2:
            return pairs
        pairs.sort()
        merged = [pairs[0]]
        for low, high in pairs[1:]:
            last_low, last_high = merged[-1]
            if low <= last_high + 1:
                if high > last_high:
                    merged[-1] = (last_low, high)
            else:
                merged.append((low, high))
        return merged

    def positions(self, uids: Sequence[int]) -> list[range]:
        """Index ranges into the ascending `uids` that this set of UIDs selects."""
        count = len(uids)
        if count == 0:
            return []
        found = []
        for low, high in self.resolve(uids[count - 1]):
            first = bisect_left(uids, low)
            last = bisect_right(uids, high, first)
            if first < last:
                found.append(range(first, last))
        return found

    @property
    def highest(self) -> int:
        """The highest number named outright; above EXISTS it is BAD (not for UIDs)."""
        return max((max(pair) for pair in self.ranges), default=0)

    @property
    def has_star(self) -> bool:
        """`*` occurs, which names no message in an empty mailbox."""
        return any(high == 0 for _, high in self.ranges)


# -- small values ------------------------------------------------------------


class Flags(NamedTuple):
    """System flags as bits of `store.interface.Flag`, and keywords as written."""

    bits: int = 0
    keywords: tuple[str, ...] = ()


class Section(NamedTuple):
    """What stands inside BODY[…] (RFC 3501 6.4.5).

    `part` is () for the whole message.  `text` is '', 'HEADER', 'TEXT', 'MIME',
    'HEADER.FIELDS' or 'HEADER.FIELDS.NOT'; `fields` are field names in lower
    case for the last two.
    """

    part: tuple[int, ...] = ()
    text: str = ''
    fields: tuple[bytes, ...] = ()


class FetchItem(NamedTuple):
    """One FETCH data item.

    `kind` is FLAGS, UID, INTERNALDATE, RFC822.SIZE, ENVELOPE, BODY (without
    section), BODYSTRUCTURE, MODSEQ, EMAILID, THREADID, SAVEDATE, SECTION
    (octets: BODY[…], RFC822, RFC822.HEADER, RFC822.TEXT), BINARY or BINARY.SIZE
    (decoded octets, RFC 3516).  `name` is what the response says, complete with
    `[…]` and `<origin>`, never PEEK.
    """

    kind: str
    name: bytes
    section: Section | None = None
    peek: bool = True  # False: sets \\Seen
    partial: tuple[int, int] | None = None  # origin octet, length


# -- arguments, by command ---------------------------------------------------


class Login(NamedTuple):
    user: bytes
    password: bytes


class Authenticate(NamedTuple):
    mechanism: str
    initial: bytes | None  # decoded from base64; None = not given, b'' for '='


class Id(NamedTuple):
    parameters: tuple[tuple[bytes, bytes | None], ...]  # () for NIL


class Enable(NamedTuple):
    capabilities: tuple[str, ...]


class Compress(NamedTuple):
    mechanism: str


class QResync(NamedTuple):
    """RFC 7162 3.2.5 parameters of SELECT."""

    uid_validity: int
    modseq: int
    known_uids: SequenceSet | None
    matching: tuple[SequenceSet, SequenceSet] | None  # sequence numbers, UIDs


class Select(NamedTuple):
    """SELECT, EXAMINE"""

    mailbox: str
    condstore: bool = False
    qresync: QResync | None = None


class Create(NamedTuple):
    mailbox: str
    special_use: tuple[str, ...] = ()  # '\\Sent' … (RFC 6154), canonical case


class Name(NamedTuple):
    """DELETE, SUBSCRIBE, UNSUBSCRIBE, GETQUOTAROOT"""

    mailbox: str


class Rename(NamedTuple):
    old: str
    new: str


class List(NamedTuple):
    """LIST in both forms (RFC 3501 6.3.8, RFC 5258, RFC 5819, RFC 6154).

    `extended` is True if selection options, several patterns or RETURN were
    given.  `patterns` are decoded as mailbox names are.
    """

    reference: str
    patterns: tuple[str, ...]
    extended: bool = False
    selection: frozenset[str] = frozenset()  # SUBSCRIBED REMOTE RECURSIVEMATCH SPECIAL-USE
    returns: frozenset[str] = frozenset()  # SUBSCRIBED CHILDREN SPECIAL-USE STATUS
    status: tuple[str, ...] = ()  # items of RETURN (STATUS (…))


class Lsub(NamedTuple):
    reference: str
    pattern: str


class Status(NamedTuple):
    """Items: MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ SIZE DELETED
    MAILBOXID APPENDLIMIT DELETED-STORAGE"""

    mailbox: str
    items: tuple[str, ...]


class Begin(NamedTuple):
    """A message begins; `date` None = now."""

    flags: Flags
    date: int | None


class Octets(NamedTuple):
    """The literal that comes next.

    `kind` is message (a whole one), utf8 (the same, RFC 6855), text or url
    (of CATENATE).
    """

    kind: str


class Url(NamedTuple):
    """Octets of a message that is stored (RFC 4469)."""

    url: bytes


Step = Begin | Octets | Url


class Append(NamedTuple):
    """APPEND, REPLACE up to the first message literal, or whole if it has none.

    `replaced` is the message number or UID of REPLACE, 0 for `*`.
    """

    mailbox: str
    steps: tuple[Step, ...]
    replaced: int | None = None


class Fetch(NamedTuple):
    """FETCH; with the UID prefix `items` always holds UID.

    `sets_seen` and `needs_body` sum up the items; `needs_body` means the
    message's octets have to be read at all.
    """

    set: SequenceSet
    items: tuple[FetchItem, ...]
    sets_seen: bool = False
    needs_body: bool = False
    changed_since: int | None = None
    vanished: bool = False
    partial: tuple[int, int] | None = None  # as in Search


class Store(NamedTuple):
    set: SequenceSet
    mode: str  # 'add' | 'remove' | 'replace', as in store.interface.FlagUpdate
    flags: Flags
    silent: bool = False
    unchanged_since: int | None = None


class Copy(NamedTuple):
    """COPY, MOVE"""

    set: SequenceSet
    mailbox: str


class Expunge(NamedTuple):
    """UID EXPUNGE; plain EXPUNGE has no arguments."""

    set: SequenceSet


class GetMetadata(NamedTuple):
    """`depth` 0, 1, or -1 for infinity; entries in lower case (RFC 5464 3.2)."""

    mailbox: str
    entries: tuple[str, ...]
    max_size: int | None = None
    depth: int = 0


class SetMetadata(NamedTuple):
    mailbox: str
    values: tuple[tuple[str, bytes | None], ...]  # None removes


class EventGroup(NamedTuple):
    """RFC 5465 8: mailboxes, and the events wanted of them, both in upper case.

    `items` is what is to be fetched of new messages in the selected mailbox.
    """

    mailboxes: str  # SELECTED SELECTED-DELAYED INBOXES PERSONAL SUBSCRIBED SUBTREE MAILBOXES
    names: tuple[str, ...]  # for the last two
    events: frozenset[str]
    items: tuple[FetchItem, ...] = ()
    needs_body: bool = False


class Notify(NamedTuple):
    """`groups` () is NOTIFY NONE; `status`: STATUS responses at once."""

    groups: tuple[EventGroup, ...]
    status: bool = False


class GetQuota(NamedTuple):
    root: str


class SetQuota(NamedTuple):
    root: str
    resources: tuple[tuple[str, int], ...]


class Search(NamedTuple):
    """`returns` is None for the plain form, () for RETURN () which means ALL.

    `partial` is the range of PARTIAL (RFC 5267 4.4, RFC 9394): (first, last) counted
    from 1, or from the end as negative numbers, (-1, -100).
    """

    key: SearchKey
    returns: tuple[str, ...] | None = None  # MIN MAX ALL COUNT SAVE PARTIAL UPDATE CONTEXT
    partial: tuple[int, int] | None = None


class Criterion(NamedTuple):
    """ARRIVAL CC DATE FROM SIZE SUBJECT TO DISPLAYFROM DISPLAYTO (RFC 5256, RFC 5957)"""

    name: str
    reverse: bool


class Sort(NamedTuple):
    """SORT: a search with an order."""

    search: Search
    criteria: tuple[Criterion, ...]


class Thread(NamedTuple):
    algorithm: str  # ORDEREDSUBJECT REFERENCES REFS
    key: SearchKey


class CancelUpdate(NamedTuple):
    tags: tuple[bytes, ...]


# -- search keys (RFC 3501 6.4.4) --------------------------------------------


class Everything(NamedTuple):
    """ALL"""


class And(NamedTuple):
    keys: tuple[SearchKey, ...]


class Or(NamedTuple):
    left: SearchKey
    right: SearchKey


class Not(NamedTuple):
    key: SearchKey


class Numbers(NamedTuple):
    """A bare sequence set: message sequence numbers."""

    set: SequenceSet


class Uids(NamedTuple):
    set: SequenceSet


class FlagIs(NamedTuple):
    """SEEN, UNSEEN …: the bit of `store.interface.Flag` is set, or not."""

    bit: int
    present: bool


class Keyword(NamedTuple):
    name: str
    present: bool


class Recent(NamedTuple):
    """RECENT (True), OLD (False); NEW is And(Recent(True), FlagIs(SEEN, False))."""

    present: bool


class Comparison(Enum):
    BEFORE = '<'
    ON = '='
    SINCE = '>='


class Day(NamedTuple):
    """BEFORE ON SINCE, and with `sent` SENTBEFORE SENTON SENTSINCE.

    Times and zones are disregarded (RFC 3501 6.4.4): compare internal date
    // 86400, or `search_text.sent_day` of the header.
    """

    comparison: Comparison
    day: int
    sent: bool


class Size(NamedTuple):
    """LARGER (True) or SMALLER (False) than `octets`, both strict."""

    larger: bool
    octets: int


class Within(NamedTuple):
    """OLDER / YOUNGER (RFC 5032), `seconds` before now."""

    younger: bool
    seconds: int


class SavedDay(NamedTuple):
    """SAVEDBEFORE SAVEDON SAVEDSINCE (RFC 8514 4.3), days like `Day`."""

    comparison: Comparison
    day: int


class EmailIs(NamedTuple):
    """EMAILID (RFC 8474 6)."""

    id: str


class ModseqIs(NamedTuple):
    """MODSEQ n: mod-sequence at least n (RFC 7162 3.1.5)."""

    value: int


class Header(NamedTuple):
    """HEADER field text, and FROM TO CC BCC SUBJECT; `text` '' = the field exists."""

    field: str  # lower case
    text: str


class Text(NamedTuple):
    """TEXT (header and body) or, with `body_only`, BODY."""

    text: str
    body_only: bool


SearchKey = (
    Everything
    | And
    | Or
    | Not
    | Numbers
    | Uids
    | FlagIs
    | Keyword
    | Recent
    | Day
    | Size
    | Within
    | SavedDay
    | EmailIs
    | ModseqIs
    | Header
    | Text
)

Arguments = (
    Login
    | Authenticate
    | Id
    | Enable
    | Compress
    | Select
    | Create
    | Name
    | Rename
    | List
    | Lsub
    | Status
    | Append
    | Fetch
    | Store
    | Copy
    | Expunge
    | GetMetadata
    | SetMetadata
    | Notify
    | GetQuota
    | SetQuota
    | Search
    | Sort
    | Thread
    | CancelUpdate
    | None
)


class Command(NamedTuple):
    """One parsed command.

    `name` is in upper case without the prefix UID, which is `uid`.  `arguments`
    is None for CAPABILITY NOOP LOGOUT STARTTLS CHECK CLOSE UNSELECT EXPUNGE IDLE
    NAMESPACE, otherwise the tuple of the same name or one whose docstring
    names the command.
    """

    tag: bytes
    name: str
    uid: bool
    arguments: Arguments
