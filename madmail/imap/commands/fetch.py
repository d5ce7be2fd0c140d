"""FETCH and UID FETCH (RFC 3501 6.4.5, RFC 7162 3.1.4).

Messages are read in slices and written one by one; a body larger than a piece
is streamed, so that what is held does not depend on what is fetched.

A client takes a message that is not answered for a message that does not
exist, and never asks again.  So a message may be missing from the answer only
if it has been expunged; anything else that cannot be read ends the connection
(`Unreadable`), whatever has been sent by then.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

from madmail.imap import object_id, responses, responses_body
from madmail.imap.commands.registry import Tell, capability, command
from madmail.imap.syntax import Bad, Command, Fetch, FetchItem
from madmail.imap.view import Ranges, inside, part, runs
from madmail.message import transfer_encoding
from madmail.message.content import Content, content
from madmail.message.parts import Part
from madmail.message.structure import Span, Structure, cut
from madmail.store.interface import Body, Flag, FlagUpdate, Message, StoreFull

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession
    from madmail.imap.view import View

ROWS = 200  # messages read at once
PIECE = 65536  # octets of a body read and written at once
THREAD_SIZE = 256 * 1024  # octets above which a message is parsed in a thread
SEEN = Flag.SEEN.value

_SERVED = frozenset(
    (
        'FLAGS',
        'UID',
        'INTERNALDATE',
        'RFC822.SIZE',
        'ENVELOPE',
        'BODY',
        'BODYSTRUCTURE',
        'SECTION',
        'MODSEQ',
        'BINARY',
        'BINARY.SIZE',
        'EMAILID',
        'THREADID',
        'SAVEDATE',
    )
)

capability('BINARY', 'OBJECTID', 'SAVEDATE')


class Unreadable(Exception):
    """A message that exists cannot be read."""


@command('FETCH', selected=True, tell=Tell.EXISTS, vital=True)
def fetch(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Fetch)
    kinds = [item.kind for item in arguments.items]
    for kind in kinds:
        if kind not in _SERVED:
            raise Bad('Unknown FETCH item')
    view = session.view
    assert view is not None
    ranges = view.ranges(arguments.set, by_uid=command.uid, saved=session.saved)
    if 'MODSEQ' in kinds or arguments.changed_since is not None:
        session.enable('CONDSTORE')  # RFC 7162 3.1
    if arguments.partial is not None:
        ranges = _part(session, view, ranges, arguments.partial, arguments.changed_since)
    if arguments.changed_since is not None:
        return _changed(session, view, ranges, arguments)
    for low, high in ranges:
        while low <= high:
            rows, low = _slice(session, view, low, high)
            if arguments.sets_seen and not view.read_only:
                rows = _seen(session, view, rows)
            for row in rows:
                answer(session, view, row, arguments)
                session.check()
            session.check()  # thousands of ranges may hold no message
            session.progress(low, view.uid_end)
    if view.awaits_expunge(ranges):
        # RFC 5530 3; not NO, which some clients take for an answer without any data
        return b'OK [EXPUNGEISSUED] Some of the messages are gone'
    return b'OK Fetch completed'


def _part(
    session: ImapSession,
    view: View,
    ranges: Ranges,
    partial: tuple[int, int],
    changed_since: int | None,
) -> Ranges:
    """RFC 9394 3.3: of the messages that would be answered, those of a part; may switch."""
    uids = view.uids(ranges)
    if changed_since is not None:
        changed: set[int] = set()
        while rows := view.box.store.changed_since(view.box.id, changed_since, ROWS):
            changed_since = rows[-1].modseq
            changed.update(row.uid for row in rows)
            session.pause()
        uids = array('I', [uid for uid in uids if uid in changed])
    return runs(uids[part(partial, len(uids))])


def _changed(session: ImapSession, view: View, ranges: Ranges, arguments: Fetch) -> bytes:
    """FETCH with CHANGEDSINCE: costs what has changed, not what was asked for."""
    since = arguments.changed_since
    assert since is not None
    if arguments.vanished:
        if 'QRESYNC' not in session.enabled:
            raise Bad('VANISHED needs ENABLE QRESYNC')  # RFC 7162 3.2.6
        gone = [uid for uid in view.vanished_since(since) if inside(ranges, uid)]
        session.wire.write(responses.vanished(gone, earlier=True))
    items = arguments.items
    if not any(item.kind == 'MODSEQ' for item in items):
        # RFC 7162 3.1.4.1: implied
        arguments = arguments._replace(items=(*items, FetchItem('MODSEQ', b'MODSEQ')))
    shown: set[int] = set()  # what this command itself changes comes again, at the end
    while rows := session.shard.store.changed_since(view.box.id, since, ROWS):
        since = rows[-1].modseq
        entries = [(row, False) for row in rows if inside(ranges, row.uid) and row.uid not in shown]
        if arguments.sets_seen and not view.read_only:
            entries = _seen(session, view, entries)
            shown.update(row.uid for row, _ in entries)
        for entry in entries:
            answer(session, view, entry, arguments)
            session.check()
        session.check()  # there may be thousands outside of the set
    return b'OK Fetch completed'


def _slice(
    session: ImapSession, view: View, low: int, high: int
) -> tuple[list[tuple[Message, bool]], int]:
    """The next messages of a UID range, and where to go on.

    The flag says that FLAGS has to be told though it was not asked for.
    """
    store = session.shard.store
    view.box.load(low)
    rows = store.messages(view.box.id, low, high, ROWS)
    end = rows[-1].uid if len(rows) == ROWS else high
    if len(rows) != view.count(low, end):
        missing = set(view.live(low, end)).difference(row.uid for row in rows)
        # The store may be ahead of its events; then they were expunged just now.
        if not missing.issubset(store.expunged_since(view.box.id, view.box.modseq)):
            raise Unreadable
    return [(row, False) for row in rows], end + 1


def _seen(
    session: ImapSession, view: View, rows: list[tuple[Message, bool]]
) -> list[tuple[Message, bool]]:
    """Set \\Seen before it is told (RFC 3501 6.4.5: BODY[…] without PEEK)."""
    unseen = [row.uid for row, _ in rows if not row.flags & SEEN]
    if not unseen:
        return rows
    try:
        changes = session.shard.store.store_flags(
            view.box.id, unseen, FlagUpdate('add', SEEN), session
        )
    except StoreFull:
        return rows  # reading must work on a full disk
    now = {change[0]: change for change in changes}
    return [
        (
            row._replace(flags=now[row.uid][1], keywords=now[row.uid][2], modseq=now[row.uid][3]),
            True,
        )
        if row.uid in now
        else (row, False)
        for row, _ in rows
    ]


def answer(session: ImapSession, view: View, entry: tuple[Message, bool], arguments: Fetch) -> None:
    """One FETCH response."""
    row, tell_flags = entry
    body: Body | None = None
    if arguments.needs_body:
        body = session.shard.store.body(row.body_id)
        if body is None:
            if session.shard.store.message(view.box.id, row.uid) is None:
                return  # expunged since the slice was read
            raise Unreadable
    if row.keywords:
        session.announce_keywords(row.keywords)
    response = _Answer(session, view, row, body)
    if arguments.needs_body:
        response.prepare(arguments.items)
    for item in arguments.items:
        response.add(item)
        if tell_flags and item.kind == 'FLAGS':
            tell_flags = False
    if tell_flags:
        response.flags()
    response.end()


class _Answer:
    """One response while it is put together."""

    __slots__ = (
        '_body',
        '_contents',
        '_held',
        '_modseq',
        '_parts',
        '_row',
        '_session',
        '_started',
        '_structure',
        '_view',
    )

    def __init__(self, session: ImapSession, view: View, row: Message, body: Body | None) -> None:
        self._session = session
        self._view = view
        self._row = row
        self._body = body
        self._structure: Structure | None = None
        self._parts: list[bytes] = []  # attributes not written yet
        self._held = 0  # octets of sections among them
        self._started = False  # the head has been written
        self._contents: dict[tuple[int, ...], Content | None] = {}
        self._modseq = False  # and MODSEQ is among the attributes

    def prepare(self, items: tuple[FetchItem, ...]) -> None:
        """Raises Bad, before anything is written, for what cannot be decoded."""
        for item in items:
            if item.kind != 'BINARY' and item.kind != 'BINARY.SIZE':
                continue
            assert item.section is not None
            assert self._body is not None
            numbers = item.section.part
            if numbers:
                self._root()
            try:
                self._contents[numbers] = content(self._parsed(), self._body, numbers)
            except transfer_encoding.Unknown:
                # RFC 3516 4.2
                text = 'A part has an unknown transfer encoding'
                raise Bad(text, status=b'NO', code=b'UNKNOWN-CTE') from None

    def add(self, item: FetchItem) -> None:
        kind = item.kind
        row = self._row
        if kind == 'UID':
            self._parts.append(b'UID %d' % row.uid)
        elif kind == 'RFC822.SIZE':
            self._parts.append(b'RFC822.SIZE %d' % row.size)
        elif kind == 'SECTION':
            self._section(item)
        elif kind == 'FLAGS':
            self.flags()
        elif kind == 'MODSEQ':
            self.modseq()
        elif kind == 'INTERNALDATE':
            self._parts.append(b'INTERNALDATE ' + responses.internal_date(row.internal_date))
        elif kind == 'ENVELOPE':
            self._parts.append(b'ENVELOPE ' + responses_body.envelope(self._parsed().envelope()))
        elif kind == 'BINARY':
            self._binary(item)
        elif kind == 'BINARY.SIZE':
            self._binary_size(item)
        elif kind == 'EMAILID':
            salt = self._session.shard.store.salt(self._session.account.id)
            self._parts.append(b'EMAILID (%s)' % object_id.email_id(salt, row).encode())
        elif kind == 'THREADID':
            # RFC 8474 5.2: for servers that know no threads; subjects are encrypted here
            self._parts.append(b'THREADID NIL')
        elif kind == 'SAVEDATE':
            self._parts.append(b'SAVEDATE ' + responses.internal_date(row.saved))
        elif kind == 'BODYSTRUCTURE':
            self._parts.append(b'BODYSTRUCTURE ' + responses_body.body_structure(self._root()))
        else:
            self._parts.append(b'BODY ' + responses_body.body(self._root()))

    def flags(self) -> None:
        row, view = self._row, self._view
        view.told(row.uid, row.modseq)
        self._parts.append(
            b'FLAGS ' + responses.flag_list(row.flags, row.keywords, view.is_recent(row.uid))
        )
        if 'CONDSTORE' in self._session.enabled:
            self.modseq()

    def modseq(self) -> None:
        if not self._modseq:
            self._modseq = True
            self._view.saw(self._row.modseq)
            self._parts.append(b'MODSEQ (%d)' % self._row.modseq)

    def end(self) -> None:
        self._write(b')\r\n')

    def _write(self, tail: bytes) -> None:
        """What was collected, and `tail`."""
        text = b' '.join(self._parts)
        self._parts = []
        self._held = 0
        if self._started:
            self._session.wire.write(b' %s%s' % (text, tail) if text else tail)
        else:
            self._started = True
            self._view.box.load(self._row.uid)
            head = self._session.fetch_head(self._view, self._row.uid)
            self._session.wire.write(b'%s%s%s' % (head, text, tail))

    def _parsed(self) -> Structure:
        if self._structure is None:
            assert self._body is not None
            self._structure = Structure(self._body)
        return self._structure

    def _root(self) -> Part:
        """The part tree, made in a thread where that takes long."""
        structure = self._parsed()
        if self._row.size > THREAD_SIZE:
            return self._session.shard.offload(_root_of, structure)
        return structure.root

    def _section(self, item: FetchItem) -> None:
        section = item.section
        body = self._body
        assert section is not None
        assert body is not None
        found: Span | bytes | None
        if not section.part and not section.text and item.partial is None:
            found = Span(0, body.size)  # BODY[]: nothing has to be looked into
        else:
            if section.part:
                self._root()
            found = self._parsed().section(section.part, section.text, section.fields, item.partial)
        if found is None or isinstance(found, bytes):
            self._parts.append(responses.section(item.name, found))
        else:
            self._span(item.name, body, found)

    def _binary_size(self, item: FetchItem) -> None:
        assert item.section is not None
        found = self._contents[item.section.part]
        if found is None:
            size = 0  # RFC 3516 has no word for a part that does not exist
        elif found.encoded:
            size = sum(map(len, self._decoded(found, None)))
        else:
            size = found.span.length
        self._parts.append(b'%s %d' % (item.name, size))

    def _binary(self, item: FetchItem) -> None:
        """A part without its transfer encoding (RFC 3516 4.2).

        Gone over twice if it is large: its decoded length stands before it.
        """
        assert item.section is not None
        assert self._body is not None
        found = self._contents[item.section.part]
        if found is None:
            self._parts.append(responses.section(item.name, None))
            return
        if not found.encoded:
            self._span(item.name, self._body, cut(found.span, item.partial))
            return
        size = 0
        nul = False
        pieces: list[bytes] = []
        for piece in self._decoded(found, item.partial):
            size += len(piece)
            nul = nul or b'\0' in piece
            if size <= PIECE:
                pieces.append(piece)
        head = responses.binary_head(item.name, size, nul)
        if size <= PIECE:
            self._parts.append(head + b''.join(pieces))
            self._hold(size)
            return
        self._parts.append(head)
        self._write(b'')
        wire = self._session.wire
        self._session.in_literal = True
        for piece in self._decoded(found, item.partial):
            wire.drain()
            wire.write(piece)
        self._session.in_literal = False

    def _decoded(self, found: Content, partial: tuple[int, int] | None) -> Iterator[bytes]:
        try:
            for piece in found.pieces(partial):
                yield piece
                self._session.pause()
        except EOFError:
            raise Unreadable from None

    def _span(self, name: bytes, body: Body, span: Span) -> None:
        if span.length > PIECE:
            self._stream(name, body, span)
            return
        octets = body.read(span.offset, span.length)
        if len(octets) != span.length:
            raise Unreadable
        self._parts.append(responses.section(name, octets))
        self._hold(span.length)

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > PIECE:
            self._write(b'')
            self._session.check()

    def _stream(self, name: bytes, body: Body, span: Span) -> None:
        session = self._session
        wire = session.wire
        piece = body.read(span.offset, PIECE)  # before anything is promised
        if not piece:
            raise Unreadable
        self._parts.append(responses.section_head(name, span.length))
        self._write(piece)
        session.in_literal = True
        offset, end = span.offset + len(piece), span.offset + span.length
        while offset < end:
            wire.drain()
            piece = body.read(offset, min(PIECE, end - offset))
            if not piece:
                raise Unreadable
            wire.write(piece)
            offset += len(piece)
            session.pause()
        session.in_literal = False


def _root_of(structure: Structure) -> Part:
    return structure.root
