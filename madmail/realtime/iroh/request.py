"""The bit of HTTP that comes before the relay protocol, and the few pages beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from madmail.realtime.iroh.messages import choose
from madmail.web.webimap import websocket

LIMIT = 8192  # octets of a request's header
FIELDS_LIMIT = 64

RELAY_PATHS = ('/relay', '/derp')
PROBE_PATHS = ('/ping', '/generate_204', '/healthz')
UPGRADE = 'iroh derp http'

# Captive portal checks: the answer to a challenge proves that it comes from here.
CHALLENGES = (
    ('x-tailscale-challenge', 'X-Tailscale-Response'),
    ('x-iroh-challenge', 'X-Iroh-Response'),
)
_CHALLENGE = re.compile(r'[A-Za-z0-9._-]{1,63}')
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINE = re.compile(rb'([!-~]{1,32}) ([!-~]{1,4096}) HTTP/1\.([01])')

HOME = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Relay</title></head>\n'
    '<body><h1>Relay</h1><p>This is a relay for real-time channels of chat apps. '
    'There is nothing to see here.</p></body></html>\n'
)


class BadRequest(Exception):
    """It is no request of HTTP/1, or one out of bounds."""


class Request(NamedTuple):
    method: str
    path: str  # without a query
    fields: Mapping[str, str]  # names in lower case; the first of each name


class Upgrade(NamedTuple):
    """The answer that ends HTTP; then the relay protocol begins."""

    head: bytes
    websocket: bool
    protocol: str  # of 1.x; '' for that of 0.35


def parse(data: bytes) -> tuple[Request, int] | None:
    """A request's header and how many octets it has; None if it is not all here.

    Raises BadRequest.
    """
    end = data.find(b'\r\n\r\n', 0, LIMIT)
    if end < 0:
        if len(data) >= LIMIT:
            raise BadRequest
        _check_start(data)
        return None
    first, *lines = data[:end].split(b'\r\n')
    line = _LINE.fullmatch(first)
    if not line or len(lines) > FIELDS_LIMIT:
        raise BadRequest
    fields: dict[str, str] = {}
    for one in lines:
        name, colon, value = one.partition(b':')
        if not colon or not _TOKEN.fullmatch(name) or b'\0' in value or b'\r' in value:
            raise BadRequest
        fields.setdefault(name.decode().lower(), value.strip(b' \t').decode('latin-1'))
    path = line[2].partition(b'?')[0].decode()
    return Request(line[1].decode(), path, fields), end + 4


def _check_start(data: bytes) -> None:
    """Notice early what will never be a request, such as TLS.  Raises BadRequest."""
    if data and not 0x41 <= data[0] <= 0x5A:  # methods are written in capitals
        raise BadRequest


def answer(request: Request) -> Upgrade | bytes:
    """An upgrade, or the whole answer after which the connection ends."""
    path = request.path
    if request.method != 'GET':
        return page(404, 'Not Found', head=request.method == 'HEAD')
    if path in RELAY_PATHS:
        return _upgrade(request)
    if path in PROBE_PATHS:
        return probe(path, request.fields)
    if path in ('/', '/index.html'):
        return page(200, HOME, 'text/html; charset=utf-8')
    if path == '/robots.txt':
        return page(200, 'User-agent: *\nDisallow: /\n')
    return page(404, 'Not Found')


def probe(path: str, fields: Mapping[str, str]) -> bytes:
    """The answer to a client that measures the way to here."""
    return page(*probed(path, fields))


def probed(path: str, fields: Mapping[str, str]) -> tuple[int, str, str, tuple[str, ...]]:
    """Status, text, its type, and further header lines."""
    if path == '/ping':
        return 200, '', 'text/plain', ('Access-Control-Allow-Origin: *',)
    if path == '/healthz':
        return 200, '{"status":"ok"}', 'application/json', ()
    lines = []
    for name, response in CHALLENGES:
        asked = fields.get(name, '')
        if _CHALLENGE.fullmatch(asked):
            lines.append(f'{response}: response {asked}')
    return 204, '', '', tuple(lines)


def _upgrade(request: Request) -> Upgrade | bytes:
    # Clients of 0.35 send no Connection header, so nobody is asked for one.
    wanted = request.fields.get('upgrade', '').lower()
    if wanted == UPGRADE:
        return Upgrade(_switching(f'Upgrade: {UPGRADE}'), False, '')
    if wanted != 'websocket':
        return page(400, '')
    if request.fields.get('sec-websocket-version') != '13':
        return page(400, '', more=('Sec-WebSocket-Version: 13',))
    accept = websocket.accept(request.fields.get('sec-websocket-key', ''))
    if accept is None:
        return page(400, '')
    lines = ['Upgrade: websocket', f'Sec-WebSocket-Accept: {accept}']
    protocol = choose(request.fields.get('sec-websocket-protocol', ''))
    if protocol:
        lines.append(f'Sec-WebSocket-Protocol: {protocol}')
    return Upgrade(_switching(*lines), True, protocol)


def _switching(*lines: str) -> bytes:
    return '\r\n'.join(
        ('HTTP/1.1 101 Switching Protocols', 'Connection: upgrade', *lines, '', '')
    ).encode()


_REASONS = {
    200: 'OK',
    204: 'No Content',
    400: 'Bad Request',
    404: 'Not Found',
    408: 'Request Timeout',
    429: 'Too Many Requests',
    503: 'Service Unavailable',
}


def page(
    status: int,
    text: str,
    kind: str = 'text/plain',
    more: tuple[str, ...] = (),
    *,
    head: bool = False,
) -> bytes:
    """A whole answer; with `head` without its body."""
    body = text.encode()
    lines = [f'HTTP/1.1 {status} {_REASONS[status]}', 'Connection: close', *more]
    if status != 204:
        lines.append(f'Content-Length: {len(body)}')
        lines.append(f'Content-Type: {kind}')
    return '\r\n'.join((*lines, '', '')).encode() + (b'' if head else body)
