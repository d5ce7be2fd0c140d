"""COPY and MOVE (RFC 3501 6.4.7, RFC 6851, RFC 4315 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madmail.imap import responses
from madmail.imap.commands.registry import Tell, capability, command
from madmail.imap.syntax import Bad, Command, Copy

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

capability('MOVE')


@command('COPY', selected=True)
def copy(session: ImapSession, command: Command) -> bytes:
    uids, target_id, uid_validity = _chosen(session, command)
    if not uids:
        return b'OK No messages copied'
    view = session.view
    assert view is not None
    pairs = session.shard.store.copy(view.box.id, uids, target_id)
    code = responses.copy_uid(uid_validity, pairs)
    return b'OK [%s] Copy completed' % code if code else b'OK Copy completed'


@command('MOVE', selected=True, writes=True, tell=Tell.EVERYTHING | Tell.OWN)
def move(session: ImapSession, command: Command) -> bytes:
    uids, target_id, uid_validity = _chosen(session, command)
    if not uids:
        return b'OK No messages moved'
    view = session.view
    assert view is not None
    pairs = session.shard.store.move(view.box.id, uids, target_id, session)
    code = responses.copy_uid(uid_validity, pairs)
    if code:
        # RFC 6851 4.3: before the EXPUNGE responses, which come as news
        session.wire.write(b'* OK [%s] Moved\r\n' % code)
    return b'OK Move completed'


def _chosen(session: ImapSession, command: Command) -> tuple[list[int], int, int]:
    """The UIDs, the target's id and UID validity; raises Bad."""
    arguments = command.arguments
    assert isinstance(arguments, Copy)
    view = session.view
    assert view is not None
    ranges = view.ranges(arguments.set, by_uid=command.uid, saved=session.saved)
    target = session.shard.store.mailbox(session.account.id, arguments.mailbox)
    if target is None:
        raise Bad('Mailbox does not exist', status=b'NO', code=b'TRYCREATE')
    if not command.uid and view.awaits_expunge(ranges):
        # RFC 3501 6.4.7: all or nothing
        raise Bad('Some of the messages are gone', status=b'NO', code=b'EXPUNGEISSUED')
    return view.uids(ranges).tolist(), target.id, target.uid_validity
