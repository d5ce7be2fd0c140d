"""CAPABILITY, NOOP, LOGOUT, ID, ENABLE (RFC 3501 6.1, RFC 2971, RFC 5161)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madmail.imap import responses
from madmail.imap.commands.registry import (
    ENABLES,
    Tell,
    capabilities,
    capability,
    command,
    enables,
)
from madmail.imap.syntax import Command, Enable

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

capability('ID', 'ENABLE', 'UTF8=ACCEPT', 'UIDONLY', 'INPROGRESS')
# RFC 6855, 7162, 9051, 9586
enables('UTF8=ACCEPT', 'CONDSTORE', 'QRESYNC', 'IMAP4rev2', 'UIDONLY')

# What kind of thing answers, and nothing about which product or version: that helps scanners only.
IDENTITY = (('name', 'IMAP server'),)


@command('CAPABILITY')
def capability_(session: ImapSession, command: Command) -> bytes:
    session.wire.write(b'* CAPABILITY %s\r\n' % capabilities(session))
    return b'OK Capability completed'


@command('NOOP')
def noop(session: ImapSession, command: Command) -> bytes:
    return b'OK Noop completed'


@command('LOGOUT', tell=Tell.NOTHING)
def logout(session: ImapSession, command: Command) -> None:
    # RFC 3501 6.1.3: BYE, then the tagged OK, then the connection is closed
    session.wire.write(b'* BYE Logging out\r\n%s OK Logout completed\r\n' % command.tag)
    session.wire.close()


@command('ID')
def id_(session: ImapSession, command: Command) -> bytes:
    # One write: a client's parser wants the line in one piece.
    session.wire.write(responses.identity(IDENTITY))
    return b'OK Id completed'


@command('ENABLE')
def enable(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Enable)
    # RFC 5161 3.1: what cannot be enabled, or is already, is passed over
    new = [name for name in arguments.capabilities if name in ENABLES]
    new = [name for name in dict.fromkeys(new) if name not in session.enabled]
    session.wire.write(responses.enabled([ENABLES[name] for name in new]))
    session.enable(*new)
    return b'OK Enable completed'
