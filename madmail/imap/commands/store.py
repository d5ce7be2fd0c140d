"""STORE and UID STORE (RFC 3501 6.4.6, RFC 7162 3.1.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from madmail.imap import responses
from madmail.imap.commands.registry import Tell, command
from madmail.imap.syntax import Command, Store
from madmail.store.interface import FlagUpdate

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

BATCH = 500  # messages changed in one transaction


@command('STORE', selected=True, writes=True, tell=Tell.EXISTS | Tell.FLAGS, vital=True)
def store(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Store)
    view = session.view
    assert view is not None
    if arguments.unchanged_since is not None:
        session.enable('CONDSTORE')  # RFC 7162 3.1
    condstore = 'CONDSTORE' in session.enabled
    ranges = view.ranges(arguments.set, by_uid=command.uid, saved=session.saved)
    uids = view.uids(ranges)
    keywords = view.box.spell(arguments.flags.keywords)
    if keywords is None and arguments.mode != 'remove':
        return b'NO [LIMIT] Too many keywords in this mailbox'
    update = FlagUpdate(
        arguments.mode,
        arguments.flags.bits,
        keywords or (),
        unchanged_since=arguments.unchanged_since,
    )
    for start in range(0, len(uids), BATCH):
        rows = session.shard.store.store_flags(
            view.box.id, uids[start : start + BATCH], update, session
        )
        if arguments.silent:
            for row in rows:
                view.supersede(row)
        if rows and (condstore or not arguments.silent):
            view.box.load(rows[0][0])
            lines = []
            for uid, bits, words, modseq in rows:
                parts = []
                # RFC 3501 6.4.8: UID in every answer to a UID command; RFC 7162 3.2.4: in all
                if command.uid or session.by_uid:
                    parts.append(b'UID %d' % uid)
                if not arguments.silent:
                    if words:
                        session.announce_keywords(words)
                    view.told(uid, modseq)
                    flags = responses.flag_list(bits, words, view.is_recent(uid))
                    parts.append(b'FLAGS ' + flags)
                if condstore:
                    # RFC 7162 3.1.3: also for .SILENT
                    view.saw(modseq)
                    parts.append(b'MODSEQ (%d)' % modseq)
                lines.append(b'%s%s)\r\n' % (session.fetch_head(view, uid), b' '.join(parts)))
            session.wire.write(b''.join(lines))
        session.check()
        session.progress(start, len(uids))
    if update.modified:
        modified: Sequence[int] = update.modified
        if not command.uid:
            view.box.load(modified[0])
            modified = [view.sequence(uid) for uid in modified]
        # RFC 7162 3.1.3: what the others have changed comes as news before this
        return b'OK [MODIFIED %s] Some of the messages have changed' % responses.number_set(
            modified
        )
    if view.awaits_expunge(ranges):
        # RFC 5530 3; not NO, which says that nothing has been changed
        return b'OK [EXPUNGEISSUED] Some of the messages are gone'
    return b'OK Store completed'
