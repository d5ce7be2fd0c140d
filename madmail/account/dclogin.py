"""A `dclogin:` link: everything Delta Chat needs to use the relay, in one code."""

from __future__ import annotations

import ipaddress
import secrets
import string
from collections.abc import Sequence
from urllib.parse import quote

from madmail.account.address import hostname, mail_domain
from madmail.account.password import strong
from madmail.settings import Address, Settings

_NAME = string.ascii_lowercase + string.digits
_PASSWORD = string.ascii_letters + string.digits
_DRAWS = 20  # one in a hundred looks like words


def random_name(settings: Settings) -> str:
    """A user name such as this relay allows."""
    length = min(
        max(settings['accounts.generated_name_length'], settings['accounts.username_min_length']),
        settings['accounts.username_max_length'],
    )
    return ''.join(secrets.choice(_NAME) for _ in range(length))


def random_password(settings: Settings) -> str:
    """One that is never typed, and `password.strong` if its length allows."""
    length = max(
        settings['accounts.generated_password_length'], settings['accounts.password_min_length']
    )
    for _ in range(_DRAWS):
        made = ''.join(secrets.choice(_PASSWORD) for _ in range(length))
        if strong(made.encode()):
            break
    return made


def link(
    settings: Settings,
    address: str,
    password: str,
    bound: Sequence[tuple[str, Address]] | None = None,
) -> str:
    """The link for `address`.

    `bound` are the listeners with their real ports; without it the configured
    ones count.  Ports and hosts are named only where there is a listener.
    """
    if bound is None:
        bound = [
            (name, address)
            for name in ('imaps', 'imap', 'submissions', 'submission')
            for address in settings[f'listen.{name}']
        ]
    fields = {'p': password}
    for prefix, choices in (
        ('i', (('imaps', 'ssl'), ('imap', 'starttls'))),
        ('s', (('submissions', 'ssl'), ('submission', 'starttls'))),
    ):
        for name, security in choices:
            found = next((a for listener, a in bound if listener == name), None)
            if found is not None:
                fields[f'{prefix}h'] = host(settings, found)
                fields[f'{prefix}p'] = str(found.port)
                fields[f'{prefix}s'] = security
                break
    if settings['tls.mode'] == 'self_signed':
        fields['ic'] = '3'
    fields['v'] = '1'
    # `+` would be read as a blank, so blanks and plus signs are both encoded.
    query = '&'.join(f'{key}={quote(value, safe="")}' for key, value in fields.items())
    return f'dclogin:{quote(address, safe="@")}?{query}'


def host(settings: Settings, listener: Address) -> str:
    """What a client connects to: the loopback address if only that listens, else our name."""
    if listener.host == 'localhost' or settings['domain'] == 'localhost':
        return '127.0.0.1' if ':' not in listener.host or listener.host == '::' else listener.host
    if ipaddress.ip_address(listener.host).is_loopback:
        return listener.host
    return hostname(settings)


def fresh(
    settings: Settings, bound: Sequence[tuple[str, Address]] | None = None
) -> tuple[str, str, str]:
    """A random address and password, which become an account at first login, and their link."""
    address = f'{random_name(settings)}@{mail_domain(settings["domain"])}'
    password = random_password(settings)
    return address, password, link(settings, address, password, bound)
