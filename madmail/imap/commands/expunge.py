"""EXPUNGE and UID EXPUNGE (RFC 3501 6.4.3, RFC 4315 2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madmail.imap.commands.registry import Tell, capability, command
from madmail.imap.syntax import Command, Expunge

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

capability('UIDPLUS')


@command('EXPUNGE', selected=True, writes=True, tell=Tell.EVERYTHING | Tell.OWN)
def expunge(session: ImapSession, command: Command) -> bytes:
    view = session.view
    assert view is not None
    chosen = None
    if isinstance(command.arguments, Expunge):
        chosen = view.uids(view.ranges(command.arguments.set, by_uid=True, saved=session.saved))
        if not chosen:
            return b'OK Expunge completed'
    # The store's event puts them among the news, which are told before the status line.
    session.shard.store.expunge(view.box.id, chosen, session)
    return b'OK Expunge completed'
