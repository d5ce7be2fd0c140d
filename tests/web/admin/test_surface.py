"""Nothing that anybody sends breaks the admin API, and no answer holds a secret."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from madmail.cli.access import Access
from madmail.master.state import prepare
from madmail.web.admin import registry
from tests.web.admin.double import DOMAIN, Desk

NAMES = sorted(registry.resources())
SECRET = 'a-secret-that-nobody-may-see'
MEMBERS = sorted(
    {
        'action', 'body', 'comment', 'domain', 'dry_run', 'enabled', 'expires_at', 'expires_in',
        'limit', 'lookup_key', 'max_bytes', 'max_uses', 'name', 'offset', 'policy',
        'poll_interval', 'q', 'reason', 'recipient', 'retention', 'scope', 'size', 'slug',
        'subject', 'target_host', 'token', 'url', 'username', 'users', 'value', 'verify', 'wait',
    }
)  # fmt: skip
WORDS = [
    '', 'enable', 'disable', 'set', 'reset', 'open', 'close', 'delete_all', 'export', 'import',
    'ACCEPT', 'reject', 'bob', f'bob@{DOMAIN}', '*', '*.x', 'x.example', '64M', '30d', '72h',
    'full', '\0', '\n', '../..', "'; DROP TABLE accounts", 'purge_all', 'true', '-1', '9' * 30,
    'https://x', '[::1]', '😀', SECRET,
]  # fmt: skip

scalars = (
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.sampled_from(WORDS)
    | some.text(max_size=20)
)
values = some.recursive(
    scalars,
    lambda inner: (
        some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
bodies = some.dictionaries(some.sampled_from(MEMBERS), values, max_size=5) | values
methods = some.sampled_from(['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'get', '', 'X'])
resources = some.sampled_from(NAMES)


@pytest.fixture(scope='module')
def office() -> Iterator[Desk]:
    """A relay with real stores that does not run, so that the shards are asked in place."""
    with tempfile.TemporaryDirectory() as directory:
        state_dir = Path(directory) / 'state'
        prepare(state_dir, 1, 1, None).close()
        desk = Desk(state_dir, relay=Access)
        with desk.relay:
            desk.relay.call(f'bob@{DOMAIN}', 'account_create', password=b'long enough')
            yield desk


def _check(desk: Desk, text: bytes | str) -> dict[str, Any]:
    result = desk.post(text)
    assert result.status_code == 200
    answer: dict[str, Any] = result.json
    assert answer['status'] in (200, 201, 400, 401, 403, 404, 405, 409, 429, 503), answer
    assert desk.token not in result.text
    if answer['error'] is not None:
        assert 'body' not in answer
        assert isinstance(answer['error'], str)
        assert 'Traceback' not in answer['error']
        assert 'sqlite' not in answer['error'].lower()
    return answer


@settings(max_examples=600, deadline=None)
@given(methods, resources, bodies)
def test_any_body_to_any_resource(office: Desk, method: str, resource: str, body: Any) -> None:
    # Whatever was asked before: these stay, so that the next example is heard.
    control = office.relay.control
    for name in control.settings():
        if name.startswith(('admin.', 'web.')):
            control.remove_setting(name)
    given_ = {
        'method': method,
        'resource': resource,
        'headers': {'Authorization': f'Bearer {office.token}'},
        'body': body,
    }
    answer = _check(office, json.dumps(given_))
    assert answer['status'] != 401


@settings(max_examples=200, deadline=None)
@given(
    some.dictionaries(
        some.sampled_from(['method', 'resource', 'headers', 'body']), values, max_size=4
    )
    | values
)
def test_any_envelope(office: Desk, envelope: Any) -> None:
    assert _check(office, json.dumps(envelope))['status'] in (400, 401, 429)


@settings(max_examples=200, deadline=None)
@given(some.binary(max_size=100))
def test_any_octets(office: Desk, octets: bytes) -> None:
    assert _check(office, octets)['status'] in (400, 401, 429)
