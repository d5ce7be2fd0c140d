"""FETCH and UID FETCH (RFC 3501 6.4.5).

Messages are read in slices and written one by one; a body larger than a piece
is streamed, so that what is held does not depend on what is fetched.

A client takes a message that is not answered for a message that does not
exist, and never asks again.  So a message may be missing from the answer only
if it has been expunged; anything else that cannot be read ends the connection
(`Unreadable`), whatever has been sent by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from madmail.imap import responses, responses_body
from madmail.imap.commands.registry import Tell, command
from madmail.imap.syntax import Bad, Command, Fetch, FetchItem
from madmail.message.parts import Part
from madmail.message.structure import Span, Structure
from madmail.store.interface import Body, Flag, FlagUpdate, Message, StoreFull

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession
    from madmail.imap.view import View

ROWS = 200  # messages read at once
PIECE = 65536  # octets of a body read and written at once
THREAD_SIZE = 256 * 1024  # octets above which a message is parsed in a thread
SEEN = Flag.SEEN.value

_SERVED = frozenset(
    ('FLAGS', 'UID', 'INTERNALDATE', 'RFC822.SIZE', 'ENVELOPE', 'BODY', 'BODYSTRUCTURE', 'SECTION')
)


class Unreadable(Exception):
    """A message that exists cannot be read."""


@command('FETCH', selected=True, tell=Tell.EXISTS, vital=True)
def fetch(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Fetch)
    if arguments.changed_since is not None or arguments.vanished:
        raise Bad('CONDSTORE is not supported')
    for item in arguments.items:
        if item.kind not in _SERVED:
            raise Bad('Unknown FETCH item')
    view = session.view
    assert view is not None
    ranges = view.ranges(arguments.set, by_uid=command.uid, saved=session.saved)
    for low, high in ranges:
        while low <= high:
            rows, low = _slice(session, view, low, high)
            if arguments.sets_seen and not view.read_only:
                rows = _seen(session, view, rows)
            for row in rows:
                _answer(session, view, row, arguments)
                session.check()
    if view.awaits_expunge(ranges):
        if command.uid:
            return b'OK [EXPUNGEISSUED] Fetch completed'
        return b'NO [EXPUNGEISSUED] Some of the messages are gone'
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
        (row._replace(flags=now[row.uid][1], keywords=now[row.uid][2]), True)
        if row.uid in now
        else (row, False)
        for row, _ in rows
    ]


def _answer(
    session: ImapSession, view: View, entry: tuple[Message, bool], arguments: Fetch
) -> None:
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
    answer = _Answer(session, view, row, body)
    for item in arguments.items:
        answer.add(item)
        if tell_flags and item.kind == 'FLAGS':
            tell_flags = False
    if tell_flags:
        answer.flags()
    answer.end()


class _Answer:
    """One response while it is put together."""

    __slots__ = ('_body', '_held', '_parts', '_row', '_session', '_started', '_structure', '_view')

    def __init__(self, session: ImapSession, view: View, row: Message, body: Body | None) -> None:
        self._session = session
        self._view = view
        self._row = row
        self._body = body
        self._structure: Structure | None = None
        self._parts: list[bytes] = []  # attributes not written yet
        self._held = 0  # octets of sections among them
        self._started = False  # the head has been written

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
        elif kind == 'INTERNALDATE':
            self._parts.append(b'INTERNALDATE ' + responses.internal_date(row.internal_date))
        elif kind == 'ENVELOPE':
            self._parts.append(b'ENVELOPE ' + responses_body.envelope(self._parsed().envelope()))
        elif kind == 'BODYSTRUCTURE':
            self._parts.append(b'BODYSTRUCTURE ' + responses_body.body_structure(self._root()))
        else:
            self._parts.append(b'BODY ' + responses_body.body(self._root()))

    def flags(self) -> None:
        row, view = self._row, self._view
        view.told(row.uid)
        self._parts.append(
            b'FLAGS ' + responses.flag_list(row.flags, row.keywords, view.is_recent(row.uid))
        )

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
            number = self._view.sequence(self._row.uid)
            self._session.wire.write(b'* %d FETCH (%s%s' % (number, text, tail))

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
        elif found.length > PIECE:
            self._stream(item.name, body, found)
        else:
            octets = body.read(found.offset, found.length)
            if len(octets) != found.length:
                raise Unreadable
            self._parts.append(responses.section(item.name, octets))
            self._held += found.length
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
