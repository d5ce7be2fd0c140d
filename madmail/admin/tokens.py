"""Registration tokens: invitations that make a number of accounts."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from madmail.account import bearer
from madmail.account.placement import shard_of
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.settings.kinds import Duration, Wrong
from madmail.store.registrations import Reservation, Token

SIZE = 18  # octets of chance in a token: 24 characters
MOST_USES = 10**9
COMMENT_LIMIT = 200  # characters
LATEST = 253402300799  # the end of the year 9999
PAGE = 500  # reservations looked at together

_FORM = re.compile(r'[A-Za-z0-9._~-]{4,128}\Z')


def entry(token: Token, now: int | None = None) -> dict[str, Any]:
    """A token as plain data; `expires_at` is None where it never does."""
    moment = int(time.time()) if now is None else now
    return {
        'token': token.token,
        'status': token.status(moment),
        'max_uses': token.max_uses,
        'used_count': token.used,
        'pending': token.pending,
        'available': token.available if token.status(moment) == 'active' else 0,
        'comment': token.comment,
        'created_at': token.created,
        'expires_at': token.expires or None,
    }


def entries(relay: Relay) -> list[dict[str, Any]]:
    """All of them, newest first."""
    settle(relay)
    return [entry(token) for token in relay.control.tokens()]


def status(relay: Relay, token: str) -> dict[str, Any]:
    """One token, with the accounts in `pending_accounts` that nobody has logged in to yet.

    Refused: missing.
    """
    settle(relay, token)
    found = _find(relay, token)
    waiting = relay.control.reservations(token, limit=PAGE)
    return {
        **entry(found),
        'pending_accounts': [
            {'username': one.address, 'status': 'awaiting first login', 'until': one.until}
            for one in waiting
        ],
    }


def create(
    relay: Relay, token: str = '', *, max_uses: int = 1, comment: str = '', expires: int = 0
) -> dict[str, Any]:
    """A new token, made up if none is given; `expires` in Unix time, 0 = never.

    Refused: invalid, exists.
    """
    now = int(time.time())
    name = token or bearer.fresh(SIZE)
    _check(name, max_uses, comment, expires, now)
    if not relay.control.add_token(name, max_uses, comment, now, expires):
        raise Refused('exists', 'there is such a token already')
    return entry(_find(relay, name))


def change(
    relay: Relay,
    token: str,
    *,
    max_uses: int | None = None,
    comment: str | None = None,
    expires: int | None = None,
) -> dict[str, Any]:
    """Other terms for a token; what is None stays.  Refused: invalid, missing."""
    old = _find(relay, token)
    uses = old.max_uses if max_uses is None else max_uses
    text = old.comment if comment is None else comment
    end = old.expires if expires is None else expires
    _check(token, uses, text, 0 if expires is None else end, int(time.time()))
    if not relay.control.change_token(token, uses, text, end):
        raise Refused('missing', 'there is no such token')
    return entry(_find(relay, token))


def remove(relay: Relay, token: str) -> None:
    """Accounts made with it stay as they are.  Refused: missing."""
    if not relay.control.remove_token(token):
        raise Refused('missing', 'there is no such token')


def expiry(text: str, now: int | None = None) -> int:
    """Unix time for `2027-01-31`, `2027-01-31T12:00:00Z`, or a duration from now such as 72h, 30d.

    0 for an empty text.  Refused: invalid.
    """
    text = text.strip()
    if not text:
        return 0
    moment = int(time.time()) if now is None else now
    try:
        length = Duration(1).parse(text)
        assert isinstance(length, int)
        return moment + length
    except Wrong:
        pass
    try:
        at = datetime.fromisoformat(text)
        # Where nothing else is said it is UTC, as everywhere here.
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise Refused(
            'invalid', 'expected a duration such as 72h or 30d, or a time such as 2027-01-31T12:00Z'
        ) from None


def reserve(relay: Relay, token: str, address: str) -> int:
    """Take one use for an account; the number of the reservation.

    Refused: forbidden, with the reason a guest is told.
    """
    answer = _reserve(relay, token, address)
    if answer == 'exhausted' and settle(relay, token, overdue_only=True):
        answer = _reserve(relay, token, address)
    if isinstance(answer, int):
        return answer
    reason = {'missing': 'not found', 'expired': 'expired', 'exhausted': 'fully used'}[answer]
    raise Refused('forbidden', f'Invalid registration token: {reason}')


def settle(relay: Relay, token: str = '', *, overdue_only: bool = False) -> int:
    """Bring reservations up to date: accounts that are used by now, accounts nobody came for.

    The latter are removed.  How many uses were given back.
    """
    now = int(time.time())
    back = after = 0
    overdue = now if overdue_only else 0
    while waiting := relay.control.reservations(token, overdue, after, PAGE):
        after = waiting[-1].id
        used = []
        for one, login in zip(waiting, _logins(relay, waiting), strict=True):
            if login:
                used.append(one.id)
            elif one.until < now and _expired(relay, one, login):
                relay.control.release(one.id)
                back += 1
        if used:
            relay.control.consume(used)
    return back


def give_back(relay: Relay, number: int, address: str) -> None:
    """The account was not made, as far as we know; if it was, nobody knows its password.

    Without an `address` it certainly was not.
    """
    try:
        if address:
            relay.call(address, 'account_expire')
    except Refused:
        return  # it is looked at again when the reservation is overdue
    relay.control.release(number)


def _expired(relay: Relay, one: Reservation, login: int | None) -> bool:
    if login is None:  # gone, or never made
        return True
    return bool(relay.call(one.address, 'account_expire'))


def _logins(relay: Relay, waiting: Sequence[Reservation]) -> list[int | None]:
    """The first login of each account, 0 never, None no account."""
    wanted: dict[int, list[str]] = {}
    for one in waiting:
        wanted.setdefault(shard_of(one.address, relay.shards), []).append(one.address)
    found: dict[str, int | None] = {}
    for shard, addresses in wanted.items():
        logins = relay.call_shard(shard, 'account_logins', addresses=addresses)
        found.update(zip(addresses, logins, strict=True))
    return [found[one.address] for one in waiting]


def _reserve(relay: Relay, token: str, address: str) -> int | str:
    now = int(time.time())
    until = now + relay.settings['accounts.reservation_time']
    return relay.control.reserve(token, address, now, until)


def _find(relay: Relay, token: str) -> Token:
    found = relay.control.token(token)
    if found is None:
        raise Refused('missing', 'there is no such token')
    return found


def _check(token: str, max_uses: int, comment: str, expires: int, now: int) -> None:
    if not _FORM.match(token):
        raise Refused('invalid', 'a token is 4 to 128 letters, digits and . _ ~ -')
    if not 1 <= max_uses <= MOST_USES:
        raise Refused('invalid', f'max_uses must be from 1 to {MOST_USES}')
    if len(comment) > COMMENT_LIMIT or not comment.isprintable():
        raise Refused('invalid', f'a comment is one line of at most {COMMENT_LIMIT} characters')
    if expires and not now < expires <= LATEST:
        raise Refused('invalid', 'the token would have expired already')
