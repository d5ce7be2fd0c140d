"""STORE and UID STORE (RFC 3501 6.4.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madmail.imap import responses
from madmail.imap.commands.registry import Tell, command
from madmail.imap.syntax import Bad, Command, Store
from madmail.store.interface import FlagUpdate

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

BATCH = 500  # messages changed in one transaction


@command('STORE', selected=True, writes=True, tell=Tell.EXISTS | Tell.FLAGS, vital=True)
def store(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Store)
    if arguments.unchanged_since is not None:
        raise Bad('CONDSTORE is not supported')
    view = session.view
    assert view is not None
    ranges = view.ranges(arguments.set, by_uid=command.uid, saved=session.saved)
    uids = view.uids(ranges)
    keywords = view.box.spell(arguments.flags.keywords)
    if keywords is None and arguments.mode != 'remove':
        return b'NO [LIMIT] Too many keywords in this mailbox'
    update = FlagUpdate(arguments.mode, arguments.flags.bits, keywords or ())
    for start in range(0, len(uids), BATCH):
        rows = session.shard.store.store_flags(
            view.box.id, uids[start : start + BATCH], update, session
        )
        if arguments.silent:
            for row in rows:
                view.supersede(row)
        elif rows:
            view.box.load(rows[0][0])
            lines = []
            for uid, bits, words, _ in rows:
                if words:
                    session.announce_keywords(words)
                view.told(uid)
                flags = responses.flag_list(bits, words, view.is_recent(uid))
                number = view.sequence(uid)
                # RFC 3501 6.4.8: UID in every answer to a UID command
                lines.append(
                    b'* %d FETCH (UID %d FLAGS %s)\r\n' % (number, uid, flags)
                    if command.uid
                    else b'* %d FETCH (FLAGS %s)\r\n' % (number, flags)
                )
            session.wire.write(b''.join(lines))
        session.check()
    if not command.uid and view.awaits_expunge(ranges):
        return b'NO [EXPUNGEISSUED] Some of the messages are gone'
    return b'OK Store completed'
