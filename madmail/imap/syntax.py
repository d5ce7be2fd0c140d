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

from typing import NamedTuple

from madmail.imap.search_keys import SearchKey
from madmail.imap.sequence_set import SequenceSet

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
    charset: bool = False  # SEARCH named one


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
