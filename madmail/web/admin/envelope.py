"""The envelope of the admin API: one POST, the real verb and resource inside.

    request   {"method": "GET", "resource": "/admin/status",
               "headers": {"Authorization": "Bearer …"}, "body": {…}}
    answer    {"status": 200, "resource": "/admin/status", "body": {…},
               "error": null, "version": "…"}

The token is taken from the inner headers only.  In the answer `resource` is
left out when the request did not come as far as a resource, `body` when there
is none.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from madmail import __version__
from madmail.admin.refused import Refused

DEPTH_LIMIT = 32  # of a body, objects and lists in each other
RESOURCE_LIMIT = 256  # characters
SCHEME = 'Bearer '


class Call(NamedTuple):
    """What is asked."""

    method: str  # upper case
    resource: str
    token: str  # '' = none, or not as a bearer's
    body: Any  # as JSON has it; None when absent


def parse(octets: bytes) -> Call:
    """Raises Refused('invalid')."""
    return call(decode(octets))


def decode(octets: bytes) -> Any:
    """JSON that can be stored and answered.  Raises Refused('invalid')."""
    try:
        given = json.loads(octets.decode(), parse_constant=_no_number)
        # Halves of a character (RFC 8259 8.2) can be neither stored nor answered.
        json.dumps(given, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refused('invalid', 'the request is not JSON') from None
    return given


def call(given: Any) -> Call:
    """What decoded JSON asks.  Raises Refused('invalid')."""
    if not isinstance(given, dict):
        raise Refused('invalid', 'the request is not a JSON object')
    resource = given.get('resource')
    if not isinstance(resource, str) or not resource or len(resource) > RESOURCE_LIMIT:
        raise Refused('invalid', 'resource is required')
    method = given.get('method', 'GET')
    if not isinstance(method, str):
        raise Refused('invalid', 'method must be a text')
    headers = given.get('headers')
    if headers is not None and not isinstance(headers, dict):
        raise Refused('invalid', 'headers must be an object')
    body = given.get('body')
    if _deep(body, DEPTH_LIMIT):
        raise Refused('invalid', 'body has too many levels')
    return Call(method.upper() or 'GET', resource, _token(headers or {}), body)


def answer(
    status: int, resource: str = '', body: Any = None, error: str | None = None
) -> dict[str, Any]:
    envelope: dict[str, Any] = {'status': status}
    if resource:
        envelope['resource'] = resource
    if body is not None:
        envelope['body'] = body
    envelope['error'] = error
    envelope['version'] = __version__
    return envelope


def _token(headers: dict[str, Any]) -> str:
    value = headers.get('Authorization')
    if value is None:
        value = headers.get('authorization')
    if not isinstance(value, str) or not value.startswith(SCHEME):
        return ''
    return value.removeprefix(SCHEME).strip()


def _deep(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    if levels == 0:
        return True
    inside = value.values() if isinstance(value, dict) else value
    return any(_deep(one, levels - 1) for one in inside)


def _no_number(word: str) -> float:
    raise ValueError(f'{word} is no JSON')
