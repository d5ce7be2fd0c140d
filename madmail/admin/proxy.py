"""The Shadowsocks proxy: on and off, cipher, password, and the link for users.

A password is made when the proxy is first enabled and whenever the one there does not fit
the cipher; links that were given out before are worth nothing then, as with any new password.
"""

from __future__ import annotations

from typing import Any

from madmail.admin import ports, settings
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.realtime.shadowsocks.link import link
from madmail.realtime.shadowsocks.methods import METHODS, Method

SERVICE = 'shadowsocks'
ENABLED, CIPHER, PASSWORD = (f'{SERVICE}.{name}' for name in ('enabled', 'cipher', 'password'))
LISTEN = f'listen.{SERVICE}'


def state(relay: Relay) -> dict[str, Any]:
    """How it stands.

    `configured` (has a password), `enabled`, `answers` (None: the relay does not run), `port`
    (None: listens nowhere), `cipher`, `cipher_source` and `password_source` (live, file or
    default), `shadowsocks_url` (with the password; '' where there is no proxy), `connections`
    and `unique_ips` that use it now.
    """
    found = relay.settings
    told = relay.ask_master({'command': 'status'}) if relay.running else None
    return {
        'configured': bool(found[PASSWORD]),
        'enabled': bool(found[ENABLED]),
        'answers': None if told is None else any(one.get('answers') for one in _statistics(told)),
        'port': ports.state(relay, SERVICE)['port'],
        'cipher': found[CIPHER],
        'cipher_source': found.source(CIPHER),
        'password_source': found.source(PASSWORD),
        'shadowsocks_url': link(found),
        **usage(told or {'children': []}),
    }


def usage(told: dict[str, Any]) -> dict[str, int]:
    """`connections` and `unique_ips` that use it, out of the master's status."""
    processes = _statistics(told)
    return {
        name: sum(int(one.get(name, 0)) for one in processes)
        for name in ('connections', 'unique_ips')
    }


def _statistics(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [one['statistics'] for one in told['children'] if one['kind'] == SERVICE]


def turn(relay: Relay, on: bool) -> None:
    """Switch it; so on return.  With a password and a listener where there was none.

    Refused: invalid, failed, busy.
    """
    if on:
        if not relay.settings[PASSWORD]:
            settings.write(relay, PASSWORD, _method(relay).fresh_password())
        if not relay.settings[LISTEN]:
            ports.enable(relay, SERVICE, True)
    configured = relay.settings.configured(ENABLED) == on
    settings.write(relay, ENABLED, None if configured else 'true' if on else 'false')


def set_cipher(relay: Relay, text: str | None) -> None:
    """Another cipher, None = that of the file; with a new password if the one there does not fit.

    Refused: invalid, failed.
    """
    name = str(relay.settings.configured(CIPHER))
    if text is not None:
        name = text = text.strip().lower().replace('_', '-')
    method = METHODS.get(name)
    if method is None:
        raise Refused('invalid', f'the cipher is one of {", ".join(METHODS)}')
    changes = {CIPHER: text}
    password = str(relay.settings[PASSWORD])
    if password and not method.fits(password):
        configured = str(relay.settings.configured(PASSWORD))
        changes[PASSWORD] = None if method.fits(configured) else method.fresh_password()
    settings.write_together(relay, changes)


def set_password(relay: Relay, text: str | None) -> None:
    """Another password; None = that of the file or, without one there, a new one.

    Refused: invalid, failed.
    """
    method = _method(relay)
    if text is None and not method.fits(str(relay.settings.configured(PASSWORD))):
        text = method.fresh_password()
    if text is not None and not method.fits(text):
        raise Refused(
            'invalid', f'with {method.name} the password is the base64 of {method.size} octets'
        )
    settings.write(relay, PASSWORD, text)


def _method(relay: Relay) -> Method:
    return METHODS[str(relay.settings[CIPHER])]


# What sets one of our settings in place of `settings.write`, for panels.
WRITERS = {CIPHER: set_cipher, PASSWORD: set_password}
