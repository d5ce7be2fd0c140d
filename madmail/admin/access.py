"""How the operator gets at the admin API: its address, its token, the login link."""

from __future__ import annotations

import base64
import json
from typing import Any

from madmail.admin import access_token
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.settings import Settings

PANEL = 'https://admin.madmail.chat/'  # where the relay serves none itself
USUAL = {'https': 443, 'http': 80}


def url(settings: Settings) -> str:
    """Of the API as seen from outside; '' when nothing serves it.

    HTTPS if that listens, HTTP otherwise; the port only where it is not the usual one.
    """
    for scheme, port in USUAL.items():
        listeners = settings[f'listen.{scheme}']
        if listeners:
            host = settings['domain']
            host = f'[{host}]' if ':' in host else host
            found = listeners[0].port
            where = host if found == port else f'{host}:{found}'
            return f'{scheme}://{where}{settings["admin.path"]}'
    return ''


def panel_url(settings: Settings) -> str:
    """Of the relay's own dashboard; '' when that is off or nothing serves it."""
    address = url(settings)
    if not settings['panel.enabled'] or not settings['admin.enabled'] or not address:
        return ''
    return f'{address.removesuffix(settings["admin.path"])}{settings["panel.path"]}/'


def login(relay: Relay, *, rotate: bool = False) -> dict[str, Any]:
    """`token`, made if there is none or with `rotate`, `api_url` and `link` for the panel.

    Refused: unavailable (the API is switched off, or nothing serves it).
    """
    if not relay.settings['admin.enabled']:
        raise Refused('unavailable', 'the admin API is switched off (admin.enabled)')
    address = url(relay.settings)
    if not address:
        raise Refused('unavailable', 'neither listen.https nor listen.http serves the admin API')
    try:
        if rotate:
            token = access_token.rotate(relay.state_dir)
        else:
            token = access_token.load(relay.state_dir)
    except OSError as error:
        raise Refused('failed', f'{access_token.NAME}: {error.strerror}') from None
    payload = json.dumps({'u': address, 't': token}, separators=(',', ':')).encode()
    packed = base64.urlsafe_b64encode(payload).rstrip(b'=').decode()
    panel = panel_url(relay.settings) or PANEL
    return {'token': token, 'api_url': address, 'payload': packed, 'link': f'{panel}#{packed}'}
