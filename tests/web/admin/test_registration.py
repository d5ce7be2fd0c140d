"""Registration, tokens and carried accounts by the admin API, over a relay that is real."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from madmail.account import hashing
from madmail.cli.access import Access
from madmail.master.state import prepare
from madmail.settings import Settings
from tests.web.admin.double import DOMAIN, Desk

TIME = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ')
WEAK = 'correct horse'


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Desk]:
    opened: list[Access] = []

    def relay(settings: Settings) -> Access:
        prepare(settings['state_dir'], 2, 2, None).close()
        opened.append(Access(settings))
        return opened[-1]

    yield Desk(tmp_path / 'state', relay=relay)
    for access in opened:
        access.__exit__()


def test_registration_opens_and_closes(office: Desk) -> None:
    switch = '/admin/registration'
    assert office.ask('GET', switch) == {'status': 'open', 'token_required': False}
    assert office.ask('POST', switch, {'action': 'close'})['status'] == 'closed'
    by_token = {'status': 'open', 'token_required': True}
    assert office.ask('POST', switch, {'action': 'token'}) == by_token
    assert office.ask('POST', switch, {'action': 'open'}) == by_token
    required = '/admin/settings/registration_token_required'
    assert office.ask('GET', '/admin/settings')['registration'] == 'open'
    assert office.ask('POST', required, {'action': 'disable'}) == {'status': 'disabled'}
    assert office.ask('GET', switch) == {'status': 'open', 'token_required': False}
    office.ask('POST', switch, {'action': 'ajar'}, status=400)
    office.ask('POST', switch, status=400)


def test_first_logins_have_their_own_switch(office: Desk) -> None:
    switch = '/admin/registration/jit'
    assert office.ask('GET', switch) == {'status': 'enabled'}
    assert office.ask('POST', switch, {'action': 'disable'}) == {'status': 'disabled'}
    office.ask('POST', '/admin/registration', {'action': 'close'})
    assert office.ask('POST', switch, {'action': 'enable'}) == {'status': 'enabled'}
    assert office.ask('POST', switch, {'action': 'auto'}) == {'status': 'disabled'}
    assert office.relay.control.settings()['accounts.jit'] == 'auto'


def test_tokens_as_panels_make_them(office: Desk) -> None:
    resource = '/admin/registration-token'
    assert office.ask('GET', resource) == {'tokens': [], 'total': 0}
    made = office.ask('POST', resource, {}, status=201)
    assert made.keys() == {
        *('token', 'max_uses', 'used_count', 'pending_reservations'),
        *('comment', 'created_at', 'expires_at', 'status'),
    }
    assert len(made['token']) == 24
    assert (made['max_uses'], made['status'], made['expires_at']) == (1, 'active', None)
    assert TIME.fullmatch(made['created_at'])
    terms = {'token': 'party', 'max_uses': 5, 'comment': 'all of us', 'expires_in': '72h'}
    made = office.ask('POST', resource, terms, status=201)
    assert TIME.fullmatch(made['expires_at'])
    changed = office.ask('POST', resource, {'token': 'party', 'max_uses': 2})
    assert (changed['max_uses'], changed['comment'], changed['expires_at']) == (2, '', None)
    timed = {'token': 'timed', 'expires_at': '2099-01-01T00:00:00Z', 'expires_in': 60}
    assert office.ask('POST', resource, timed, status=201)['expires_at'] == '2099-01-01T00:00:00Z'
    assert office.ask('GET', resource)['total'] == 3
    assert office.ask('DELETE', resource, {'token': 'party'}) == {'deleted': 'party'}
    office.ask('DELETE', resource, {'token': 'party'}, status=404)
    office.ask('DELETE', resource, {}, status=400)


@pytest.mark.parametrize(
    'terms',
    [
        {'expires_at': 'tomorrow'},
        {'expires_at': '2020-01-01T00:00:00Z'},
        {'expires_in': -5},
        {'expires_in': 'soon'},
        {'max_uses': 'many'},
        {'max_uses': 10**12},
        {'token': 'with blanks'},
        {'token': 7},
        {'comment': 'x' * 300},
    ],
)
def test_bad_terms_make_no_token(office: Desk, terms: dict[str, Any]) -> None:
    office.ask('POST', '/admin/registration-token', terms, status=400)
    assert office.ask('GET', '/admin/registration-token')['total'] == 0


def test_accounts_go_out_and_in(office: Desk) -> None:
    resource = '/admin/accounts'
    made = office.ask('POST', resource, status=201)
    users = [
        {'username': f'alice@{DOMAIN}', 'hash': hashing.sha256(WEAK.encode())},
        {'username': 'bob@elsewhere.example', 'password': WEAK},
        {'username': made['email'], 'password': WEAK},
    ]
    answer = office.ask('PATCH', resource, {'action': 'import', 'users': users})
    assert (answer['imported'], answer['skipped'], len(answer['errors'])) == (1, 2, 1)
    exported = office.ask('PATCH', resource, {'action': 'export'})
    assert exported['total'] == 2
    assert {user['username'] for user in exported['users']} == {f'alice@{DOMAIN}', made['email']}
    office.ask('PATCH', resource, {'action': 'import', 'users': []}, status=400)
    office.ask('PATCH', resource, {'action': 'dance'}, status=400)
    office.relay.control.set_setting('accounts.export_by_api', 'false')
    office.relay.publish('settings', {})
    office.ask('PATCH', resource, {'action': 'export'}, status=403)
    assert office.ask('PATCH', resource, {'action': 'delete_all'}) == {'deleted': 2}
    (first, second) = office.ask('GET', '/admin/blocklist')['blocked']
    assert {first['reason'], second['reason']} == {'bulk delete via admin'}


def test_a_password_is_set(office: Desk) -> None:
    address = office.ask('POST', '/admin/accounts', status=201)['email']
    before = office.ask('PATCH', '/admin/accounts', {'action': 'export'})['users']
    body = {'action': 'set_password', 'username': address, 'password': WEAK}
    assert office.ask('PATCH', '/admin/accounts', body) == {'username': address}
    assert office.ask('PATCH', '/admin/accounts', {'action': 'export'})['users'] != before
    office.ask('PATCH', '/admin/accounts', {**body, 'password': 'short'}, status=400)
    office.ask('PATCH', '/admin/accounts', {**body, 'password': None}, status=400)
    office.ask('PATCH', '/admin/accounts', {**body, 'username': 'nobody'}, status=404)
