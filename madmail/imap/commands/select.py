"""SELECT, EXAMINE, CHECK, CLOSE, UNSELECT (RFC 3501 6.3.1, 6.4, RFC 3691)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madmail.imap import responses
from madmail.imap.commands.registry import Tell, capability, command
from madmail.imap.syntax import Command, Select

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

capability('UNSELECT')


@command('SELECT', 'EXAMINE', tell=Tell.NOTHING, vital=True)
def select(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Select)
    # RFC 3501 6.3.1: the old mailbox is deselected even if the new one cannot be selected
    session.close_mailbox()
    row = session.shard.store.mailbox(session.account.id, arguments.mailbox)
    if row is None:
        return b'NO [NONEXISTENT] Mailbox does not exist'
    read_only = command.name == 'EXAMINE'
    view = session.shard.boxes.select(row, session, read_only=read_only)
    session.select(view)
    view.claim()
    session.write_flags()
    wire = session.wire
    wire.write(responses.exists(view.exists))
    wire.write(responses.recent(view.recent_count))
    if view.exists and row.unseen == row.messages:
        # Only where it costs nothing to know; a client that wants more can SEARCH.
        wire.write(b'* OK [UNSEEN 1] First unseen\r\n')
    # Both in every answer: clients take a missing or smaller UIDNEXT for lost mail.
    wire.write(
        b'* OK [UIDVALIDITY %d] UIDs valid\r\n* OK [UIDNEXT %d] Predicted next UID\r\n'
        % (view.box.uid_validity, view.uid_end)
    )
    if read_only:
        return b'OK [READ-ONLY] Examine completed'
    return b'OK [READ-WRITE] Select completed'


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
