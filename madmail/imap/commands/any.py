"""CAPABILITY, NOOP, LOGOUT, ID, ENABLE (RFC 3501 6.1, RFC 2971, RFC 5161)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madmail.imap import responses
from madmail.imap.commands.registry import Tell, capabilities, capability, command
from madmail.imap.syntax import Command

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

capability('ID', 'ENABLE')

# What kind of thing answers, and nothing about which product or version: that helps scanners only.
IDENTITY = (('name', 'IMAP server'),)


@command('CAPABILITY')
def capability_(session: ImapSession, command: Command) -> bytes:
    session.wire.write(b'* CAPABILITY %s\r\n' % capabilities(session.shard))
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
    # RFC 5161 3.1: what cannot be enabled is passed over; nothing needs enabling yet.
    session.wire.write(responses.enabled(()))
    return b'OK Enable completed'
