"""NOTIFY (RFC 5465)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madmail.imap.commands.registry import capability, command
from madmail.imap.notices import Notices
from madmail.imap.syntax import Command, Notify

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

capability('NOTIFY')


@command('NOTIFY')
def notify(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Notify)
    if session.notices is not None:
        session.notices.leave()
    # RFC 5465 3.1: replaces what was asked before
    notices = session.notices = Notices(session, arguments.groups)
    if session.view is not None:
        notices.selected(session.view.box.id, session.view.box.name)
    if arguments.status:
        notices.first_status()
    return b'OK Notify completed'
