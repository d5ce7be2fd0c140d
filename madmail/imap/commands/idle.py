"""IDLE (RFC 2177)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madmail.imap import responses
from madmail.imap.commands.registry import Tell, capability, command
from madmail.imap.syntax import Command

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

capability('IDLE')


@command('IDLE', tell=Tell.NOTHING)
def idle(session: ImapSession, command: Command) -> None:
    # Never NO: clients do not look for it and would wait for `+` in vain.
    session.wire.write(responses.continuation('idling'))
    session.enter_idle(command.tag)
