"""The HTTP side of the admin API.

Every request that comes this far gets HTTP status 200 and JSON; what became of
it is the `status` of the envelope:

    400   no JSON, no resource, or a body that does not fit
    401   no token, or a wrong one
    403   plain HTTP from elsewhere (admin.require_tls)
    404   unknown resource, or nothing of that name
    405   the resource does not know the method
    408   the request came too slowly
    413   more than SIZE_LIMIT octets, found before the token is looked at
    429   too many wrong tokens from this address (Retry-After says how long)
    500   breakage

HTTP itself says 405 to other verbs, 404 while `admin.enabled` is off, and 204 or
403 to a preflight.  The right token always passes: guessing from the same
address costs its owner nothing, and 256 bits are not guessed.

`/__proxy` is for a panel opened at 127.0.0.1, which takes its page for an
application that speaks to the relay on its behalf: the envelope is `payload`,
and `targetUrl` must be this API.  It serves the loopback interface only.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import falcon

from madmail import log
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.web.access import WebAccess
from madmail.web.admin import envelope, registry
from madmail.web.admin.answer import STATUS
from madmail.web.admin.envelope import Call
from madmail.web.admin.path import ApiPath
from madmail.web.peers import client, is_loopback, is_secure
from madmail.web.services import Services
from madmail.web.upload import Cut, TooSlow, Upload

SIZE_LIMIT = 1024 * 1024  # octets
FREE_SIZE = 16 * 1024  # octets of a request that is read before the token is known to be right
CANDIDATES = 8  # tokens looked at in a larger one
PIECE_TIME = 10.0  # seconds for a piece of the request
FIRST_TIME = 15.0  # seconds before the whole must keep up upload.LOWEST_RATE
PREFLIGHT_AGE = '86400'  # seconds
FAILURES = 'limits.admin_failures_per_minute_per_ip'
LOCAL_HOSTS = ('127.0.0.1', 'localhost', '::1')

# What SQLite says of a disk that is full, read only or broken, which is no fault of ours.
TROUBLE = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
)

_BEARER = re.compile(rb'"Bearer +([0-9a-f]{64}) *"')

_log = log.get('admin')


class Stopped(Exception):
    """The answer is known before a resource was found."""

    def __init__(self, status: int, error: str, retry_after: float = 0.0) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.retry_after = retry_after


class AdminApi:
    """The resource at `admin.path`."""

    def __init__(self, services: Services, relay: Relay | None = None) -> None:
        self._services = services
        self.relay: Relay = relay or WebAccess(services)
        self._resources = registry.resources()
        self.path = ApiPath(services.settings, services.monotonic)

    def on_options(self, request: falcon.Request, response: falcon.Response) -> None:
        """The preflight of a browser (Fetch 3.3.2)."""
        if not self._share(request, response):
            raise falcon.HTTPForbidden
        response.status = falcon.HTTP_204

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        self._share(request, response)
        self.respond(request, response, envelope.parse)

    # -- in the order in which things are checked

    def respond(
        self,
        request: falcon.Request,
        response: falcon.Response,
        parse: Callable[[bytes], Call],
    ) -> None:
        upload = Upload(request.env, piece_time=PIECE_TIME, first_time=FIRST_TIME)
        env = request.env
        try:
            self._check_wire(env)
            octets = _read(upload)
            if len(octets) > FREE_SIZE and not self._holds_token(octets):
                raise self._unauthorized(env)
            call = parse(octets)
            if not self._services.admin_token.matches(call.token):
                raise self._unauthorized(env)
            answer = self.dispatch(call)
        except Stopped as stopped:
            answer = envelope.answer(stopped.status, error=stopped.error)
            if stopped.retry_after:
                response.set_header('Retry-After', str(math.ceil(stopped.retry_after)))
        except Refused as refused:
            answer = envelope.answer(STATUS[refused.word], error=refused.text)
        self._services.counters.count(
            'admin_refused' if answer['error'] is not None else 'admin_calls'
        )
        data = json.dumps(answer, ensure_ascii=False, separators=(',', ':')).encode()
        response.content_type = falcon.MEDIA_JSON
        response.set_header('Cache-Control', 'no-store')
        if upload.abandon():
            response.content_length = len(data)
            response.stream = _and_linger(data, upload)
        else:
            response.data = data

    def _check_wire(self, env: dict[str, Any]) -> None:
        settings = self._services.settings
        if not settings['admin.require_tls'] or is_secure(env, settings):
            return
        if not is_loopback(client(env, settings)):
            raise Stopped(403, 'the admin API is not served over plain HTTP')

    def _holds_token(self, octets: bytes) -> bool:
        """Whether the token is somewhere in a large request, before it is taken apart.

        PERF: a megabyte of JSON costs 150 ms, this look 1 ms; strangers get no more.
        """
        found = {match[1].decode() for match in islice(_BEARER.finditer(octets), CANDIDATES)}
        return any([self._services.admin_token.matches(one) for one in found])

    def _unauthorized(self, env: dict[str, Any]) -> Stopped:
        services = self._services
        wait = services.rate(FAILURES, client(env, services.settings))
        if wait:
            return Stopped(429, 'unauthorized: too many attempts from this address', wait)
        return Stopped(401, 'unauthorized')

    def dispatch(self, call: Call) -> dict[str, Any]:
        """The envelope of the answer to a call that may be made."""
        resource = call.resource
        methods = self._resources.get(resource)
        if methods is None:
            return envelope.answer(404, resource, error=f'unknown resource {resource}')
        handler = methods.get(call.method)
        if handler is None:
            known = ', '.join(methods)
            return envelope.answer(405, resource, error=f'{resource} knows {known} only')
        body = {} if call.body is None else call.body
        try:
            if not isinstance(body, dict):
                raise Refused('invalid', 'body must be a JSON object')
            answer = handler(self.relay, body)
            return envelope.answer(answer.status, resource, answer.body)
        except Refused as refused:
            return envelope.answer(STATUS[refused.word], resource, error=refused.text)
        except Exception as error:
            if getattr(error, 'sqlite_errorcode', 0) & 0xFF in TROUBLE:
                _log.error('control database failed')
                return envelope.answer(500, resource, error=f'nothing is stored: {error}')
            _log.exception('request failed', error)
            return envelope.answer(500, resource, error='internal error')

    # -- inside

    def _share(self, request: falcon.Request, response: falcon.Response) -> bool:
        """Let the page of an allowed origin see the answer (Fetch 3.2); whether it may."""
        response.append_header('Vary', 'Origin')
        origin = request.get_header('Origin')
        allowed = self._services.settings['admin.cors_origins']
        if not origin or not (origin.lower() in allowed or '*' in allowed):
            return False
        response.set_header('Access-Control-Allow-Origin', origin)
        response.set_header('Access-Control-Allow-Methods', 'POST, OPTIONS')
        response.set_header('Access-Control-Allow-Headers', 'Authorization, Content-Type')
        response.set_header('Access-Control-Max-Age', PREFLIGHT_AGE)
        return True


class LocalProxy:
    """The resource `/__proxy`."""

    def __init__(self, services: Services, api: AdminApi) -> None:
        self._services = services
        self._api = api

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        settings = self._services.settings
        if not settings['admin.enabled'] or not is_loopback(client(request.env, settings)):
            raise falcon.HTTPNotFound
        self._api.respond(request, response, self._parse)

    def _parse(self, octets: bytes) -> Call:
        given = envelope.decode(octets)
        if not isinstance(given, dict) or not isinstance(given.get('targetUrl'), str):
            raise Refused('invalid', 'targetUrl is required')
        self._check_target(given['targetUrl'])
        return envelope.call(given.get('payload'))

    def _check_target(self, url: str) -> None:
        """No request is passed on to anywhere: only this API is meant."""
        settings = self._services.settings
        try:
            parts = urlsplit(url)
            host = parts.hostname or ''
        except ValueError:
            raise Refused('invalid', 'targetUrl is not a URL') from None
        ours = (*LOCAL_HOSTS, settings['domain'])
        if (
            parts.scheme not in ('http', 'https')
            or host not in ours
            or not self._api.path.serves(parts.path.rstrip('/'))
        ):
            raise Refused('forbidden', 'targetUrl is not the admin API of this relay')


def _read(upload: Upload) -> bytes:
    """The request's body.  Raises Stopped."""
    too_big = Stopped(413, f'the request has more than {SIZE_LIMIT} octets')
    if upload.declared > SIZE_LIMIT:
        raise too_big
    pieces = []
    try:
        for piece in upload.pieces():
            if upload.received > SIZE_LIMIT:
                raise too_big
            pieces.append(piece)
    except TooSlow:
        raise Stopped(408, 'the request came too slowly') from None
    except Cut:
        raise Stopped(400, 'the request ends before its end') from None
    return b''.join(pieces)


def _and_linger(data: bytes, upload: Upload) -> Iterator[bytes]:
    """An answer to a request whose body nobody reads."""
    yield data
    yield from upload.linger()
