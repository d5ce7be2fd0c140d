"""GETMETADATA and SETMETADATA (RFC 5464).

`/shared/…` entries of the server come from the settings.  What clients set is
kept in the store, for the account ('' in commands, mailbox id 0) or for a
mailbox.

`/private/devicetoken` is a set of push tokens of the account, whatever mailbox
a client names (Delta Chat names INBOX).  Each SETMETADATA adds its token or
renews it; the oldest fall out.  It is kept as one value, a line a token,
`<day> <token>`, in order of the last renewal, where the day is Unix time
rounded down: when exactly a device was on is nobody's business.  It is told
only to a client that asks for exactly this entry.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from madmail.imap import responses
from madmail.imap.commands.registry import capability, command
from madmail.imap.syntax import Bad, Command, GetMetadata, SetMetadata

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

capability('METADATA')

DEVICE_TOKEN = '/private/devicetoken'
MAX_TOKEN = 4096  # octets
MAX_TOKENS = 20  # an account
MAX_VALUE = 65536  # octets of any other value
MAX_ENTRIES = 100  # a mailbox, or the account's own
MAX_ACCOUNT_ENTRIES = 1000  # the account with all its mailboxes
MAX_ACCOUNT_OCTETS = 1024 * 1024  # of values, likewise
DAY = 86400  # seconds

_TOKEN = re.compile(rb'[\x21-\x7e]+\Z')


def _text(name: str) -> Callable[[ImapSession], bytes]:
    return lambda session: str(session.shard.settings[name]).encode().replace(b'\0', b'')


def _recipients(session: ImapSession) -> bytes:
    return b'%d' % (session.shard.settings['limits.max_recipients'] or 0xFFFFFFFF)


# Entry of the server: its value for the client that asks, b'' for none.
SERVER_ENTRIES: dict[str, Callable[[ImapSession], bytes]] = {
    '/shared/comment': _text('relay.comment'),
    '/shared/admin': _text('relay.admin'),
    # Without it clients split large groups into several mails and register no push tokens.
    '/shared/vendor/deltachat/maxsmtprecipients': _recipients,
}


@command('GETMETADATA')
def get_metadata(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, GetMetadata)
    mailbox_id = _mailbox_id(session, arguments.mailbox)
    known = dict(session.shard.store.metadata(session.account.id, mailbox_id))
    tokens = known.pop(DEVICE_TOKEN, None)
    if not arguments.mailbox:
        for entry, read in SERVER_ENTRIES.items():
            value = read(session)
            if value:
                known[entry] = value
    found: dict[str, bytes] = {}
    for asked in arguments.entries:
        if asked == DEVICE_TOKEN:
            if mailbox_id and tokens is None:
                stored = session.shard.store.metadata(session.account.id, 0)
                tokens = stored.get(DEVICE_TOKEN)
            if tokens:
                found[asked] = b' '.join(token for _, token in device_tokens(tokens))
            continue
        for entry, value in known.items():
            if _covers(asked, entry, arguments.depth):
                found[entry] = value
    longest = 0
    if arguments.max_size is not None:
        # RFC 5464 4.2.1: leave out what is longer and say how long it would have been
        longest = max((len(v) for v in found.values() if len(v) > arguments.max_size), default=0)
        found = {k: v for k, v in found.items() if len(v) <= arguments.max_size}
    session.wire.write(responses.metadata(arguments.mailbox, list(found.items()), session.utf8))
    if longest:
        return b'OK [METADATA LONGENTRIES %d] Getmetadata completed' % longest
    return b'OK Getmetadata completed'


@command('SETMETADATA')
def set_metadata(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, SetMetadata)
    store = session.shard.store
    account_id = session.account.id
    mailbox_id = _mailbox_id(session, arguments.mailbox)
    changes: dict[str, bytes | None] = {}
    tokens: dict[str, bytes | None] = {}
    for entry, value in arguments.values:
        if entry == DEVICE_TOKEN:
            present = store.metadata(account_id, 0).get(DEVICE_TOKEN, b'')
            tokens[entry] = None if value is None else with_token(present, value, time.time())
            continue
        if not arguments.mailbox and not entry.startswith('/private/'):
            return b'NO [NOPERM] Server entries are set by the operator'
        if not entry.startswith(('/private/', '/shared/')):
            return b'NO Entry names begin with /private/ or /shared/'
        if value is not None:
            if len(value) > MAX_VALUE:
                return b'NO [METADATA MAXSIZE %d] Value is too long' % MAX_VALUE
            try:
                value.decode()
            except UnicodeDecodeError:
                return b'NO Value is not UTF-8'  # clients fail on reading it back
        changes[entry] = value
    if changes:
        _bounded(session, mailbox_id, changes)
    if tokens and not mailbox_id:
        changes.update(tokens)
        tokens = {}
    if changes:
        store.set_metadata(account_id, mailbox_id, changes)
    if tokens:
        store.set_metadata(account_id, 0, tokens)
    return b'OK Setmetadata completed'


def _bounded(session: ImapSession, mailbox_id: int, changes: dict[str, bytes | None]) -> None:
    """Raises Bad where the account would hold too much; removing is always possible."""
    if all(value is None for value in changes.values()):
        return
    store = session.shard.store
    present = store.metadata(session.account.id, mailbox_id)
    after = {**present, **changes}
    kept = {name: value for name, value in after.items() if value is not None}
    entries, octets = store.metadata_usage(session.account.id)
    entries += len(kept) - len(present)
    octets += sum(map(len, kept.values())) - sum(map(len, present.values()))
    own = len(kept) - (DEVICE_TOKEN in kept)
    if own > MAX_ENTRIES or entries > MAX_ACCOUNT_ENTRIES or octets > MAX_ACCOUNT_OCTETS:
        # RFC 5464 4.3
        raise Bad('Too many entries', status=b'NO', code=b'METADATA TOOMANY')


def device_tokens(value: bytes) -> list[tuple[int, bytes]]:
    """(Unix time of the day it was renewed, token), longest ago first."""
    return [
        (int(day), token) for day, _, token in (line.partition(b' ') for line in value.split(b'\n'))
    ]


def with_token(value: bytes, token: bytes, now: float) -> bytes:
    """The stored value with one token added or renewed; raises Bad."""
    if len(token) > MAX_TOKEN:
        raise Bad('Token is too long', status=b'NO', code=b'METADATA MAXSIZE %d' % MAX_TOKEN)
    if not _TOKEN.match(token):
        raise Bad('Token is not printable ASCII', status=b'NO')
    kept = [pair for pair in device_tokens(value) if pair[1] != token] if value else []
    kept.append((int(now) // DAY * DAY, token))
    return b'\n'.join(b'%d %s' % pair for pair in kept[-MAX_TOKENS:])


def _mailbox_id(session: ImapSession, name: str) -> int:
    if not name:
        return 0
    row = session.shard.store.mailbox(session.account.id, name)
    if row is None:
        raise Bad('Mailbox does not exist', status=b'NO', code=b'NONEXISTENT')
    return row.id


def _covers(asked: str, entry: str, depth: int) -> bool:
    """RFC 5464 4.2.2: DEPTH 0 the entry alone, 1 also one level below, -1 all below."""
    if entry == asked:
        return True
    if not depth or not entry.startswith(asked + '/'):
        return False
    return depth < 0 or '/' not in entry[len(asked) + 1 :]
