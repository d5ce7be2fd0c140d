"""GETMETADATA and SETMETADATA (RFC 5464).

`/shared/…` entries of the server come from the settings.  What clients set is
kept in the store, for the account ('' in commands, mailbox id 0) or for a
mailbox.

`/private/devicetoken` is the set of push tokens of the account (see store.devices),
whatever mailbox a client names (Delta Chat names INBOX).  Each SETMETADATA adds its
token or renews it; the oldest fall out.  An empty one or NIL, which can name no
device, takes nothing from anybody: one phone must not silence the others.  It is told
only to a client that asks for exactly this entry.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from madmail.imap import responses
from madmail.imap.commands.registry import capability, command
from madmail.imap.syntax import Bad, Command, GetMetadata, SetMetadata
from madmail.realtime.iroh.url import NAME as IROH
from madmail.realtime.iroh.url import relay_url
from madmail.realtime.turn import offer

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

capability('METADATA')


def _push(session: ImapSession) -> str:
    """Clients give their tokens where they see it."""
    return 'XDELTAPUSH' if session.shard.settings['push.mode'] != 'off' else ''


capability(_push)

DEVICE_TOKEN = '/private/devicetoken'
MAX_TOKEN = 4096  # octets
MAX_TOKENS = 20  # an account
MAX_VALUE = 65536  # octets of any other value
MAX_ENTRIES = 100  # a mailbox, or the account's own
MAX_ACCOUNT_ENTRIES = 1000  # the account with all its mailboxes
MAX_ACCOUNT_OCTETS = 1024 * 1024  # of values, likewise

_TOKEN = re.compile(rb'[\x21-\x7e]+\Z')


def _text(name: str) -> Callable[[ImapSession], bytes]:
    return lambda session: str(session.shard.settings[name]).encode().replace(b'\0', b'')


def _recipients(session: ImapSession) -> bytes:
    return b'%d' % (session.shard.settings['limits.max_recipients'] or 0xFFFFFFFF)


def _iroh(session: ImapSession) -> bytes:
    settings, presence = session.shard.settings, session.shard.presence
    if settings['iroh.enabled']:
        presence.settle(IROH)
    return relay_url(settings, presence.has).encode()


def _turn(name: str) -> Callable[[ImapSession], bytes]:
    return lambda session: session.shard.turn.value(session.account, name)


# Entry of the server: its value for the client that asks, b'' for none.
SERVER_ENTRIES: dict[str, Callable[[ImapSession], bytes]] = {
    '/shared/comment': _text('relay.comment'),
    '/shared/admin': _text('relay.admin'),
    # Without it clients split large groups into several mails and register no push tokens.
    '/shared/vendor/deltachat/maxsmtprecipients': _recipients,
    '/shared/vendor/deltachat/irohrelay': _iroh,
    offer.ENTRY: _turn('turn'),
    offer.TLS_ENTRY: _turn('turns'),
}


@command('GETMETADATA')
def get_metadata(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, GetMetadata)
    mailbox_id = _mailbox_id(session, arguments.mailbox)
    known = dict(session.shard.store.metadata(session.account.id, mailbox_id))
    if not arguments.mailbox:
        for entry, read in SERVER_ENTRIES.items():
            if not any(_covers(asked, entry, arguments.depth) for asked in arguments.entries):
                continue  # credentials are made, and services waited for, when asked for
            value = read(session)
            if value:
                known[entry] = value
    found: dict[str, bytes] = {}
    for asked in arguments.entries:
        if asked == DEVICE_TOKEN:
            tokens = session.shard.store.device_tokens(session.account.id)
            if tokens:
                found[asked] = ' '.join(tokens).encode('ascii')
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
    tokens: list[str] = []
    for entry, value in arguments.values:
        if entry == DEVICE_TOKEN:
            tokens.append(_token(value or b''))
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
    if changes:
        store.set_metadata(account_id, mailbox_id, changes)
    for token in tokens:
        if token:
            store.add_device_token(account_id, token, MAX_TOKENS)
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
    if len(kept) > MAX_ENTRIES or entries > MAX_ACCOUNT_ENTRIES or octets > MAX_ACCOUNT_OCTETS:
        # RFC 5464 4.3
        raise Bad('Too many entries', status=b'NO', code=b'METADATA TOOMANY')


def _token(value: bytes) -> str:
    """A token as it is kept; raises Bad."""
    if len(value) > MAX_TOKEN:
        raise Bad('Token is too long', status=b'NO', code=b'METADATA MAXSIZE %d' % MAX_TOKEN)
    if value and not _TOKEN.match(value):
        raise Bad('Token is not printable ASCII', status=b'NO')
    return value.decode('ascii')


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
