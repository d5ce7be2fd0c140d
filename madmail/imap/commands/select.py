"""SELECT, EXAMINE, CHECK, CLOSE, UNSELECT (RFC 3501 6.3.1, 6.4, RFC 3691, RFC 7162 3.2.5)."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from madmail.imap import object_id, responses
from madmail.imap.commands.registry import Tell, capability, command
from madmail.imap.sequence_set import SequenceSet
from madmail.imap.syntax import (
    Bad,
    Command,
    QResync,
    Select,
)
from madmail.imap.view import inside

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession
    from madmail.imap.view import View

capability('UNSELECT', 'CONDSTORE', 'QRESYNC', 'IMAP4rev2')

ROWS = 500  # messages told at once
MAX_PAIRS = 1000  # of message number and UID that are looked at


@command('SELECT', 'EXAMINE', tell=Tell.NOTHING, vital=True)
def select(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Select)
    resync = arguments.qresync
    if resync is not None and 'QRESYNC' not in session.enabled:
        raise Bad('QRESYNC has to be enabled first')  # RFC 7162 3.2.5
    wire = session.wire
    rev2 = 'IMAP4REV2' in session.enabled
    # RFC 3501 6.3.1: the old mailbox is deselected even if the new one cannot be selected
    if session.view is not None:
        session.close_mailbox()
        if rev2 or 'QRESYNC' in session.enabled:
            wire.write(b'* OK [CLOSED] Previous mailbox closed\r\n')  # RFC 7162 3.2.11
    if arguments.condstore:
        session.enable('CONDSTORE')
    row = session.shard.store.mailbox(session.account.id, arguments.mailbox)
    if row is None:
        return b'NO [NONEXISTENT] Mailbox does not exist'
    read_only = command.name == 'EXAMINE'
    view = session.shard.boxes.select(row, session, read_only=read_only)
    session.select(view)
    view.claim()
    session.write_flags()
    wire.write(responses.exists(view.exists))
    if not rev2:
        wire.write(responses.recent(view.recent_count))
    if view.exists and row.unseen == row.messages:
        # Only where it costs nothing to know; a client that wants more can SEARCH.
        wire.write(b'* OK [UNSEEN 1] First unseen\r\n')
    # Both in every answer: clients take a missing or smaller UIDNEXT for lost mail.
    wire.write(
        b'* OK [UIDVALIDITY %d] UIDs valid\r\n* OK [UIDNEXT %d] Predicted next UID\r\n'
        % (view.box.uid_validity, view.uid_end)
    )
    # RFC 8474 4.2: always; clients that do not know the code take it for text
    salt = session.shard.store.salt(row.account_id)
    wire.write(b'* OK [MAILBOXID (%s)] Mailbox\r\n' % object_id.mailbox_id(salt, row).encode())
    # RFC 7162 3.1.2.1: always, also for clients that do not use it
    view.told_modseq = view.complete_modseq()
    wire.write(b'* OK [HIGHESTMODSEQ %d] Highest\r\n' % view.told_modseq)
    if rev2:
        # RFC 9051 6.3.2
        wire.write(responses.list_(row.special_use.split(), row.name, utf8=session.utf8))
    if resync is not None and resync.uid_validity == view.box.uid_validity:
        _resynchronize(session, view, resync)
    if read_only:
        return b'OK [READ-ONLY] Examine completed'
    return b'OK [READ-WRITE] Select completed'


def _resynchronize(session: ImapSession, view: View, resync: QResync) -> None:
    """What has happened since the client was here (RFC 7162 3.2.5); may switch."""
    known = [(1, view.uid_end - 1)]
    if resync.known_uids is not None:
        known = resync.known_uids.resolve(view.uid_end - 1)
    gone = view.vanished_since(resync.modseq)
    if gone and resync.matching is not None:
        agreed = _agreed(view, resync.matching)
        gone = gone[bisect_right(gone, agreed) :]
    gone = [uid for uid in gone if inside(known, uid)]
    session.wire.write(responses.vanished(gone, earlier=True))
    since = resync.modseq
    while rows := session.shard.store.changed_since(view.box.id, since, ROWS):
        since = rows[-1].modseq
        rows = [row for row in rows if row.uid < view.uid_end and inside(known, row.uid)]
        if rows:
            view.box.load(min(row.uid for row in rows))
        for row in rows:
            if row.keywords:
                session.announce_keywords(row.keywords)
            view.told(row.uid, row.modseq)
            view.saw(row.modseq)
            flags = responses.flag_list(row.flags, row.keywords, view.is_recent(row.uid))
            session.wire.write(
                b'%sUID %d FLAGS %s MODSEQ (%d))\r\n'
                % (session.fetch_head(view, row.uid), row.uid, flags, row.modseq)
            )
        session.check()


def _agreed(view: View, matching: tuple[SequenceSet, SequenceSet]) -> int:
    """The UID up to which the client misses nothing, by its pairs of number and UID.

    Where a number still belongs to the same UID, nothing below was expunged.
    """
    numbers, uids = (
        [n for low, high in some.ranges for n in range(low, min(high, low + MAX_PAIRS) + 1)]
        for some in matching
    )
    for number, uid in reversed(list(zip(numbers[:MAX_PAIRS], uids[:MAX_PAIRS], strict=False))):
        if 0 < number <= view.exists and view.uid_at(number) == uid:
            return uid
    return 0


@command('CHECK', selected=True)
def check(session: ImapSession, command: Command) -> bytes:
    return b'OK Check completed'


@command('CLOSE', selected=True, tell=Tell.NOTHING)
def close(session: ImapSession, command: Command) -> bytes:
    view = session.view
    assert view is not None
    if not view.read_only:
        # RFC 3501 6.4.2: without EXPUNGE responses
        session.shard.store.expunge(view.box.id, None, session)
    session.close_mailbox()
    return b'OK Close completed'


@command('UNSELECT', selected=True, tell=Tell.NOTHING)
def unselect(session: ImapSession, command: Command) -> bytes:
    session.close_mailbox()
    return b'OK Unselect completed'
