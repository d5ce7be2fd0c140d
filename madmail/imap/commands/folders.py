"""CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE (RFC 3501 6.3.3 to 6.3.7, RFC 6154 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madmail.imap import mailbox_name, object_id, responses
from madmail.imap.commands.list import parents
from madmail.imap.commands.registry import capability, command
from madmail.imap.mailbox_name import DELIMITER
from madmail.imap.syntax import Bad, Command, Create, Name, Rename
from madmail.store.interface import Mailbox

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

capability('CREATE-SPECIAL-USE')

MAX_SUBSCRIPTIONS = 1000  # an account


@command('CREATE')
def create(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Create)
    boxes = _boxes(session)
    if arguments.mailbox in boxes:
        return b'NO [ALREADYEXISTS] Mailbox exists already'
    _room(session, boxes, 1)
    taken = {use for row in boxes.values() for use in row.special_use.split()}
    if taken.intersection(arguments.special_use):
        # RFC 6154 3: a server may allow each use once
        return b'NO [USEATTR] Another mailbox has this use'
    row = session.shard.store.create_mailbox(
        session.account.id, arguments.mailbox, ' '.join(arguments.special_use)
    )
    found = object_id.mailbox_id(session.shard.store.salt(row.account_id), row)
    return b'OK [MAILBOXID (%s)] Create completed' % found.encode()  # RFC 8474 4.1


@command('DELETE')
def delete(session: ImapSession, command: Command) -> bytes:
    assert isinstance(command.arguments, Name)
    name = command.arguments.mailbox
    if name == 'INBOX':
        return b'NO [CANNOT] INBOX cannot be deleted'
    boxes = _boxes(session)
    row = boxes.get(name)
    if row is None:
        if name in parents(boxes):
            # RFC 3501 6.3.4: a \Noselect name with inferiors
            return b'NO [CANNOT] Only its inferiors exist'
        return b'NO [NONEXISTENT] Mailbox does not exist'
    if session.view is not None and session.view.box.id == row.id:
        session.close_mailbox()  # else the session would be told that its mailbox has gone
    session.shard.store.delete_mailbox(row.id)
    return b'OK Delete completed'


@command('RENAME')
def rename(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Rename)
    old, new = arguments.old, arguments.new
    boxes = _boxes(session)
    if new in boxes:
        return b'NO [ALREADYEXISTS] Mailbox exists already'
    if old == 'INBOX':
        # RFC 3501 6.3.5: its messages move, INBOX and its inferiors stay
        _room(session, boxes, 1)
        session.shard.store.rename_mailbox(boxes[old].id, new)
        return b'OK Rename completed'
    if new.startswith(old + DELIMITER):
        return b'NO [CANNOT] A mailbox cannot lie below itself'
    moved = [name for name in boxes if name == old or name.startswith(old + DELIMITER)]
    if not moved:
        return b'NO [NONEXISTENT] Mailbox does not exist'
    for name in moved:
        target = mailbox_name.check(new + name[len(old) :])
        if target in boxes and target not in moved:
            return b'NO [ALREADYEXISTS] Mailbox exists already'
    # Inferiors go with the mailbox; where it only is their \Noselect parent, with the topmost.
    above: set[str] = set()
    for name in sorted(moved):
        target = new + name[len(old) :]
        if not above.intersection(parents((name,))):
            session.shard.store.rename_mailbox(boxes[name].id, target)
        if 'IMAP4REV2' in session.enabled:
            # RFC 9051 6.3.6, 6.3.9.7
            uses = boxes[name].special_use.split()
            session.wire.write(responses.list_(uses, target, utf8=session.utf8, old_name=name))
        above.add(name)
    return b'OK Rename completed'


@command('SUBSCRIBE')
def subscribe(session: ImapSession, command: Command) -> bytes:
    assert isinstance(command.arguments, Name)
    name = command.arguments.mailbox.removesuffix(DELIMITER)
    boxes = _boxes(session)
    if name not in boxes and name not in parents(boxes):
        return b'NO [NONEXISTENT] Mailbox does not exist'
    store = session.shard.store
    subscriptions = store.subscriptions(session.account.id)
    if name not in subscriptions:
        if len(subscriptions) >= MAX_SUBSCRIPTIONS:
            return b'NO [LIMIT] Too many subscriptions'
        store.subscribe(session.account.id, name)
    return b'OK Subscribe completed'


@command('UNSUBSCRIBE')
def unsubscribe(session: ImapSession, command: Command) -> bytes:
    assert isinstance(command.arguments, Name)
    name = command.arguments.mailbox.removesuffix(DELIMITER)
    session.shard.store.unsubscribe(session.account.id, name)
    return b'OK Unsubscribe completed'


def _boxes(session: ImapSession) -> dict[str, Mailbox]:
    return {row.name: row for row in session.shard.store.mailboxes(session.account.id)}


def _room(session: ImapSession, boxes: dict[str, Mailbox], more: int) -> None:
    limit = session.shard.settings['limits.mailboxes_per_account']
    if limit and len(boxes) + more > limit:
        raise Bad('Too many mailboxes', status=b'NO', code=b'LIMIT')
