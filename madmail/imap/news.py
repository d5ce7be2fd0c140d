"""News: what a client is told of its mailbox without having asked.

EXISTS, EXPUNGE or VANISHED, flags and mod-sequences of the selected mailbox, as
far as a command, IDLE or NOTIFY lets them be told at that moment.

With CONDSTORE a client takes the highest mod-sequence it has seen for the point
up to which it knows everything (RFC 7162 3.1, 3.2.5).  That is wrong while news
are held back: FETCH must not say that another session has expunged something,
but may well show a newer message.  So before each status line the server
compares what the client takes for that point with what it really was told, and
says HIGHESTMODSEQ where they differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from madmail.imap import responses
from madmail.imap.commands import fetch
from madmail.imap.commands.registry import Tell
from madmail.imap.syntax import Fetch

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession
    from madmail.imap.view import Change, View

BATCH = 500  # EXPUNGE or FETCH lines between two looks at the clock


def tell(session: ImapSession, what: Tell) -> None:
    """Write all news of these kinds; may switch."""
    view = session.view
    if view is None or not what:
        return
    if what & Tell.EXPUNGE:
        while view.pending:
            if not session.by_uid or view.contexts is not None:
                view.load_news(BATCH, flags=False)
            _expunges(session, view)
            if view.pending:
                session.check()
    if what & Tell.EXISTS and view.grown:
        first = view.uid_end
        _arrivals(session, view)
        if session.notices is not None and session.notices.shown is not None:
            _show(session, view, first, session.notices.shown)
    if what & Tell.FLAGS:
        while view.changed:
            changes = view.changes(BATCH)
            if changes:
                view.box.load(min(change[0] for change in changes))
                _changes(session, view, changes)
            if view.changed:
                session.check()
        if view.contexts is not None:
            view.contexts.refresh(session)


def at_hand(session: ImapSession, view: View, what: Tell) -> bool:
    """Whether `write` can tell all of these news at once, without reading anything."""
    if shows(session, view, what):
        return False
    return view.at_hand(BATCH, expunges=bool(what & Tell.EXPUNGE), flags=bool(what & Tell.FLAGS))


def shows(session: ImapSession, view: View, what: Tell) -> bool:
    """Whether the client wants more than EXISTS of new messages, or has searches kept."""
    contexts = view.contexts
    if contexts is not None and what & Tell.FLAGS and (contexts.due or view.grown):
        return True
    notices = session.notices
    return (
        notices is not None
        and notices.shown is not None
        and bool(what & Tell.EXISTS)
        and view.grown
    )


def load(session: ImapSession, view: View, what: Tell) -> None:
    """Have what the next `write` needs; may switch."""
    view.load_news(BATCH, expunges=bool(what & Tell.EXPUNGE), flags=bool(what & Tell.FLAGS))


def write(session: ImapSession, view: View, what: Tell) -> None:
    """A batch of the news, loaded, without switching."""
    if what & Tell.EXPUNGE and view.pending:
        _expunges(session, view)
    if what & Tell.EXISTS and view.grown:
        _arrivals(session, view)
    if what & Tell.FLAGS and view.changed:
        _changes(session, view, view.changes(BATCH))
    if session.enabled:
        code = highest_modseq(session, view)
        if code:
            session.wire.write(b'* OK [%s] Highest\r\n' % code)


def highest_modseq(session: ImapSession, view: View) -> bytes:
    """The response code that sets the client right, b'' where it is."""
    if 'CONDSTORE' not in session.enabled:
        return b''
    known, view.told_modseq = view.told_modseq, view.complete_modseq()
    if known == view.told_modseq:
        return b''
    if known < view.told_modseq and 'QRESYNC' not in session.enabled:
        return b''  # it may ask again for more than it needs
    return b'HIGHESTMODSEQ %d' % view.told_modseq


def _expunges(session: ImapSession, view: View) -> None:
    if view.contexts is not None:
        # RFC 5267 4.3.4: before, so that message numbers are valid
        session.wire.write(view.contexts.removed(view.pending[-BATCH:]))
    if session.by_uid:
        # RFC 7162 3.2.10: for all expunges, once QRESYNC is enabled
        session.wire.write(responses.vanished(view.vanished(BATCH)))
    else:
        numbers = view.expunges(BATCH)
        session.wire.write(b''.join([b'* %d EXPUNGE\r\n' % number for number in numbers]))


def _arrivals(session: ImapSession, view: View) -> None:
    before = view.recent_count
    exists, recent = view.arrivals()
    if recent != before:
        session.wire.write(b'* %d EXISTS\r\n* %d RECENT\r\n' % (exists, recent))
    else:
        session.wire.write(b'* %d EXISTS\r\n' % exists)


def _show(session: ImapSession, view: View, first: int, wanted: Fetch) -> None:
    """What NOTIFY wants to see of messages from UID `first` on (RFC 5465 5.1); may switch."""
    while rows := session.shard.store.messages(view.box.id, first, view.uid_end - 1, BATCH):
        for row in rows:
            fetch.answer(session, view, (row, False), wanted)
            session.check()
        first = rows[-1].uid + 1


def _changes(session: ImapSession, view: View, changes: Sequence[Change]) -> None:
    condstore = 'CONDSTORE' in session.enabled
    lines = []
    for uid, flags, keywords, modseq in changes:
        if keywords:
            session.announce_keywords(keywords)
        words = responses.flag_list(flags, keywords, view.is_recent(uid))
        head = session.fetch_head(view, uid)
        if condstore:
            view.saw(modseq)
            lines.append(b'%sUID %d FLAGS %s MODSEQ (%d))\r\n' % (head, uid, words, modseq))
        else:
            lines.append(b'%sUID %d FLAGS %s)\r\n' % (head, uid, words))
    session.wire.write(b''.join(lines))
