"""GETQUOTA, GETQUOTAROOT, SETQUOTA (RFC 2087, RFC 9208)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madmail.imap import responses
from madmail.imap.commands.registry import capability, command
from madmail.imap.syntax import Command, GetQuota, Name

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

capability('QUOTA', 'QUOTA=RES-STORAGE')

ROOT = 'User quota'  # one root for the whole account; byte-equal in both responses


@command('GETQUOTAROOT')
def get_quota_root(session: ImapSession, command: Command) -> bytes:
    assert isinstance(command.arguments, Name)
    name = command.arguments.mailbox
    limit = _limit(session)
    if limit:
        session.wire.write(
            responses.quota_root(name, (ROOT,), session.utf8) + _quota(session, limit)
        )
    else:
        session.wire.write(responses.quota_root(name, (), session.utf8))
    return b'OK Getquotaroot completed'


@command('GETQUOTA')
def get_quota(session: ImapSession, command: Command) -> bytes:
    assert isinstance(command.arguments, GetQuota)
    limit = _limit(session)
    if command.arguments.root != ROOT or not limit:
        return b'NO [NONEXISTENT] No such quota root'
    session.wire.write(_quota(session, limit))
    return b'OK Getquota completed'


@command('SETQUOTA')
def set_quota(session: ImapSession, command: Command) -> bytes:
    return b'NO [NOPERM] Quota is set by the operator'


def _limit(session: ImapSession) -> int:
    """Octets; 0 = no limit."""
    account = session.shard.store.account_by_id(session.account.id) or session.account
    if account.quota >= 0:
        return account.quota
    limit: int = session.shard.settings['limits.quota']
    return limit


def _quota(session: ImapSession, limit: int) -> bytes:
    used = sum(row.size for row in session.shard.store.mailboxes(session.account.id))
    # RFC 9208 5.1: STORAGE counts units of 1024 octets
    return responses.quota(ROOT, (('STORAGE', (used + 1023) // 1024, limit // 1024),))
