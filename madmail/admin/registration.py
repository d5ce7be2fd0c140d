"""Who gets an account: the rules, and accounts with names that the relay makes up."""

from __future__ import annotations

from typing import Any

from madmail.account import dclogin, names
from madmail.account.address import split
from madmail.account.admission import by_login
from madmail.account.flood import Origin
from madmail.admin import accounts, tokens
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay

TRIES = 5  # names drawn before we give up
WORDS = ('open', 'token', 'closed')


def status(relay: Relay) -> dict[str, Any]:
    """`open`, `token_required`, and `jit` and `jit_enabled`: the switch and what comes of it."""
    settings = relay.settings
    word = settings['accounts.registration']
    return {
        'registration': word,
        'open': word == 'open',
        'token_required': word == 'token',
        'jit': settings['accounts.jit'],
        'jit_enabled': by_login(settings),
    }


def set_registration(relay: Relay, word: str) -> dict[str, Any]:
    """open, token or closed.

    With token, first logins make no more accounts unless that is allowed afterwards:
    otherwise whoever knows how to log in would need no token.
    """
    if word not in WORDS:
        raise Refused('invalid', 'registration is open, token or closed')
    relay.control.set_setting('accounts.registration', word)
    if word == 'token' and relay.settings['accounts.jit'] is True:
        relay.control.set_setting('accounts.jit', 'auto')
    relay.publish('settings', {})
    return status(relay)


def set_jit(relay: Relay, value: bool | None) -> dict[str, Any]:
    """Whether first logins make accounts; None leaves it to whether registration is open."""
    text = 'auto' if value is None else 'true' if value else 'false'
    relay.control.set_setting('accounts.jit', text)
    relay.publish('settings', {})
    return status(relay)


def create_account(
    relay: Relay, *, token: str | None = None, origin: Origin = (), operator: bool = False
) -> dict[str, str]:
    """An account for a guest with a made-up name: `email`, `password`, `dclogin_url`.

    `origin` says where the guest is (`madmail.account.flood.origin`).  A token is asked
    for, valid, used; with one it does not matter whether registration is closed.  An
    `operator` is bound by none of that.  Refused: forbidden (closed, no or a bad token),
    unavailable (too many at once, or the host is short), failed.
    """
    token = (token or '').strip()
    settings = relay.settings
    if not operator and not token:
        if settings['accounts.registration'] == 'token':
            raise Refused('forbidden', 'Registration token is required')
        if settings['accounts.registration'] != 'open':
            raise Refused('forbidden', 'Registration is closed')
    password = dclogin.random_password(settings)
    reserved: int | None = None
    address = ''
    made = False
    try:
        for _ in range(TRIES):
            address = _free_name(relay)
            if token and reserved is None:
                reserved = tokens.reserve(relay, token, address)
            elif reserved is not None and not relay.control.rename(reserved, address):
                break
            if _made(relay, address, password, origin, operator):
                made = True
                link = dclogin.link(settings, address, password)
                return {'email': address, 'password': password, 'dclogin_url': link}
            address = ''  # somebody else's
        raise Refused('failed', 'no free name was found, try again')
    finally:
        if reserved is not None and not made:
            tokens.give_back(relay, reserved, address)


def create_named(relay: Relay, address: str, password: str = '') -> dict[str, str]:
    """An account of an operator's choice, as `create_account` tells it.

    Without a password one is made up.  Refused: exists, forbidden (blocked), invalid (name
    or password).
    """
    password = password or dclogin.random_password(relay.settings)
    accounts.create(relay, address, password.encode())
    link = dclogin.link(relay.settings, address, password)
    return {'email': address, 'password': password, 'dclogin_url': link}


def _free_name(relay: Relay) -> str:
    """An address that is neither forbidden nor blocked, and very probably free."""
    for _ in range(TRIES):
        address = relay.address(dclogin.random_name(relay.settings))
        allowed = names.creatable(split(address)[0], relay.settings)
        if allowed and relay.control.blocked(address) is None:
            return address
    raise Refused('failed', 'no free name was found, try again')


def _made(relay: Relay, address: str, password: str, origin: Origin, operator: bool) -> bool:
    """False when somebody has the name."""
    try:
        if operator:
            relay.call(address, 'account_create', password=password.encode())
        else:
            relay.call(address, 'account_register', password=password.encode(), origin=list(origin))
    except Refused as refused:
        if refused.word == 'exists':
            return False
        raise
    return True
