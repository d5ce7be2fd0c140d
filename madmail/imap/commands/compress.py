"""COMPRESS (RFC 4978)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from madmail.imap.commands.registry import Tell, capability, command
from madmail.imap.compress import Compressed
from madmail.imap.syntax import Bad, Command, Compress

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession
    from madmail.shard.wire import Wire


def _offered(session: ImapSession) -> str:
    return 'COMPRESS=DEFLATE' if session.shard.settings['imap.compress'] else ''


capability(_offered)


@command('COMPRESS', tell=Tell.NOTHING)
def compress(session: ImapSession, command: Command) -> bytes | None:
    arguments = command.arguments
    assert isinstance(arguments, Compress)
    if isinstance(session.wire, Compressed):
        return b'NO [COMPRESSIONACTIVE] Compression is active already'
    if arguments.mechanism.upper() != 'DEFLATE' or not _offered(session):
        raise Bad('Unknown compression mechanism')
    # RFC 4978 section 3: what follows the CRLF of this line is compressed, both ways.
    wire = cast('Wire', session.wire)
    wire.write(b'%s OK DEFLATE active\r\n' % command.tag)
    session.wire = layer = Compressed(wire, session)
    wire.become(layer)
    return None
