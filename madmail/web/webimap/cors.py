"""Which pages of other origins may use the mail of their visitors (Fetch standard).

`webimap.cors_origins` names them; `*` is everybody.  Without it only programs and
the relay's own pages can.
"""

from __future__ import annotations

from madmail.settings import Settings

METHODS = 'GET, POST, PUT, DELETE, OPTIONS'
HEADERS = 'Content-Type, X-Email, X-Password'


def allowed(settings: Settings, origin: str) -> str:
    """Access-Control-Allow-Origin for a page of `origin`; '' = not allowed."""
    origins = settings['webimap.cors_origins']
    if '*' in origins:
        return '*'
    return origin if origin in origins else ''


def headers(settings: Settings, origin: str | None) -> dict[str, str]:
    """For an answer to `origin`, None = the request has none."""
    if not origin:
        return {}
    found = allowed(settings, origin)
    if not found:
        return {'Vary': 'Origin'}
    return {
        'Access-Control-Allow-Origin': found,
        'Access-Control-Allow-Methods': METHODS,
        'Access-Control-Allow-Headers': HEADERS,
        'Access-Control-Max-Age': '86400',
        'Vary': 'Origin',
    }
