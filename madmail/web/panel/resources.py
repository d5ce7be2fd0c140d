"""Serving the dashboard.

`dist` has `index.html` and `assets/`, whose names change with their contents, so that
browsers keep them for good; the page itself is never kept, because it tells where the
admin API is now.  Any other path below `panel.path` is a place within the page.

The page asks nothing of other hosts, and may not: scripts, styles and requests are
bound to this origin, and nothing in the page itself runs.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import falcon

from madmail.settings import Settings
from madmail.web.peers import client, is_loopback, is_secure
from madmail.web.services import Services
from madmail.web.site import files, pages

DIST = Path(__file__).parent / 'dist'
RECORD = 'sources.json'  # what the bundle was made from; not served
API_MARK = '"/api/admin"'  # in the page, where the path of the admin API is told
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types svelte-trusted-html"
)
HEADERS = {
    'Content-Security-Policy': POLICY,
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Permissions-Policy': 'camera=(), geolocation=(), microphone=()',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
    'X-Robots-Tag': 'noindex',
}
FOR_GOOD = 'public, max-age=31536000, immutable'
NEVER = 'no-cache, no-store, must-revalidate'
PLACE = re.compile(r'[A-Za-z0-9_-]{1,64}(?:/[A-Za-z0-9_-]{1,64}){0,7}')  # within the page
PACKED_LEAST = 1024  # octets below which packing gains nothing


class Asset(NamedTuple):
    data: bytes
    packed: bytes  # gzip (RFC 1952); empty = not worth it
    kind: str
    tag: str


@cache
def assets() -> dict[str, Asset]:
    """By the name below `assets/`.  PERF: 6 ms once a worker, at the first request."""
    found = {}
    for path in sorted((DIST / 'assets').iterdir()):
        data = path.read_bytes()
        packed = gzip.compress(data, 6, mtime=0) if len(data) > PACKED_LEAST else b''
        tag = hashlib.sha256(data).hexdigest()[:24]
        found[path.name] = Asset(data, packed, files.TYPES[path.suffix], tag)
    return found


@cache
def index() -> str:
    return (DIST / 'index.html').read_text('utf-8')


def page(settings: Settings) -> str:
    """The page, as it has to be at `panel.path`.

    Neither path can hold a character that means anything in HTML, see `MountPath`.
    """
    mount = settings['panel.path']
    told = index().replace('="./', f'="{mount}/')
    return told.replace(API_MARK, f'"{settings["admin.path"]}"', 1)


class Panel:
    """All that is below `panel.path`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(
        self, request: falcon.Request, response: falcon.Response, rest: str | None = None
    ) -> None:
        settings = self._services.settings
        response.set_headers(HEADERS)
        if self._moved(request, response):
            return
        if rest is None and not request.env['PATH_INFO'].endswith('/'):
            # Permanent, but not to be kept: the path is a setting.
            response.status = falcon.HTTP_308
            response.set_header('Location', f'{settings["panel.path"]}/')
            response.set_header('Cache-Control', NEVER)
            return
        if rest is not None and (rest == 'assets' or rest.startswith('assets/')):
            self._asset(request, response, rest[len('assets/') :])
            return
        if rest is not None and not PLACE.fullmatch(rest):
            raise falcon.HTTPNotFound  # a file, and there is none, or no honest path
        if pages.public(settings) and request.scheme == 'https':
            response.set_header('Strict-Transport-Security', 'max-age=31536000')
        response.content_type = falcon.MEDIA_HTML
        response.set_header('Cache-Control', NEVER)
        response.text = page(settings)

    on_head = on_get

    def on_options(
        self, request: falcon.Request, response: falcon.Response, rest: str | None = None
    ) -> None:
        response.status = falcon.HTTP_204
        response.set_header('Allow', 'GET, HEAD, OPTIONS')

    def _asset(self, request: falcon.Request, response: falcon.Response, name: str) -> None:
        found = assets().get(name)
        if found is None:
            raise falcon.HTTPNotFound
        response.etag = found.tag
        response.set_header('Cache-Control', FOR_GOOD)
        response.set_header('Vary', 'Accept-Encoding')
        if any(one in ('*', found.tag) for one in request.if_none_match or ()):
            response.status = falcon.HTTP_304
            return
        response.content_type = found.kind
        if found.packed and _takes_gzip(request.get_header('Accept-Encoding') or ''):
            response.set_header('Content-Encoding', 'gzip')
            response.data = found.packed
        else:
            response.data = found.data

    def _moved(self, request: falcon.Request, response: falcon.Response) -> bool:
        """Over plain HTTP from elsewhere the token must not be typed in at all."""
        settings = self._services.settings
        env = request.env
        if not settings['admin.require_tls'] or is_secure(env, settings):
            return False
        if is_loopback(client(env, settings)):
            return False
        if not settings['listen.https']:
            raise falcon.HTTPForbidden(title='The dashboard is not served over plain HTTP')
        response.status = falcon.HTTP_307
        response.set_header('Location', f'{pages.origin(settings)}{settings["panel.path"]}/')
        response.set_header('Cache-Control', NEVER)
        return True


def _takes_gzip(accepted: str) -> bool:
    """RFC 9110 12.5.3."""
    for part in accepted[:500].lower().split(','):
        name, _, weight = part.partition(';')
        if name.strip() in ('gzip', '*'):
            return weight.replace(' ', '') not in ('q=0', 'q=0.0', 'q=0.00', 'q=0.000')
    return False


def made_from() -> dict[str, str]:
    """Hashes of the sources that the bundle was made from, by path in `web/`."""
    found: dict[str, str] = json.loads((DIST / RECORD).read_text('utf-8'))['sources']
    return found
