"""What users are given: an `ss://` link (SIP002).

The user part of an AEAD method is base64 in the alphabet for URLs without padding; clients take
a `/` or `+` there for something else.  That of a 2022 method stands as it is, percent-encoded.
"""

from __future__ import annotations

import base64
from urllib.parse import quote

from madmail.account import dclogin
from madmail.realtime.shadowsocks.methods import METHODS
from madmail.settings import Settings


def link(settings: Settings) -> str:
    """The link to the proxy; '' where it is off, does not listen or has no password yet."""
    listeners = settings['listen.shadowsocks']
    password = str(settings['shadowsocks.password'])
    if not (settings['shadowsocks.enabled'] and listeners and password):
        return ''
    listener = listeners[0]
    host = dclogin.host(settings, listener)
    return write(
        str(settings['shadowsocks.cipher']), password, host, listener.port, str(settings['domain'])
    )


def write(method: str, password: str, host: str, port: int, label: str) -> str:
    """The link for a host, a name or an IP address with or without brackets."""
    if METHODS[method].modern:
        user = f'{method}:{quote(password, safe="")}'
    else:
        octets = f'{method}:{password}'.encode()
        user = base64.urlsafe_b64encode(octets).decode().rstrip('=')
    host = host.strip('[]')
    at = f'[{host}]' if ':' in host else host
    return f'ss://{user}@{at}:{port}#{quote(label, safe="")}'
