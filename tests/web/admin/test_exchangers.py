"""/admin/exchangers, in the calls of a panel and with what panels do not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.web.admin.double import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


EXCHANGERS = '/admin/exchangers'


def test_as_a_panel_asks(desk: Desk) -> None:
    assert desk.ask('GET', EXCHANGERS) == {'exchangers': [], 'total': 0}
    body = {'name': 'hub', 'url': 'https://hub.example', 'poll_interval': 60}
    made = desk.ask('POST', EXCHANGERS, body, status=201)
    assert (made['name'], made['enabled'], made['poll_interval']) == ('hub', True, 60)
    (one,) = desk.ask('GET', EXCHANGERS)['exchangers']
    assert one['last_poll_at'] is None
    assert one['created_at'].endswith('Z')
    desk.ask('POST', EXCHANGERS, {**body, 'poll_interval': 5}, status=201)  # an upsert
    assert desk.ask('PUT', EXCHANGERS, {'name': 'hub', 'enabled': False})['updated'] == 'hub'
    (one,) = desk.ask('GET', EXCHANGERS)['exchangers']
    assert (one['enabled'], one['poll_interval']) == (False, 5)
    assert desk.ask('DELETE', EXCHANGERS, {'name': 'hub'}) == {'deleted': 'hub'}
    desk.ask('DELETE', EXCHANGERS, {'name': 'hub'}, status=404)
    desk.ask('PUT', EXCHANGERS, {'name': 'hub', 'enabled': True}, status=404)


def test_what_carries_and_is_fetched(desk: Desk) -> None:
    body = {'name': 'far', 'domains': ['far.example'], 'mode': 'pull', 'carries': True}
    made = desk.ask('POST', EXCHANGERS, body, status=201)
    assert made['pull_token']
    assert made['pull_token'] not in str(desk.ask('GET', EXCHANGERS))
    fresh = desk.ask('PUT', EXCHANGERS, {'name': 'far', 'pull_token': ''})['pull_token']
    assert fresh != made['pull_token']
    desk.ask('POST', EXCHANGERS, body, status=409)


@pytest.mark.parametrize(
    'wrong',
    [
        {'name': ''},
        {'name': 'a b'},
        {'url': ''},
        {'url': 'nonsense'},
        {'poll_interval': 0},
        {'poll_interval': 'x'},
        {'domains': 'x'},
        {'domains': [5]},
        {'mode': 'x'},
        {'enabled': 'yes'},
    ],
)
def test_bad_input(desk: Desk, wrong: dict[str, object]) -> None:
    body = {'name': 'hub', 'url': 'https://hub.example', **wrong}
    desk.ask('POST', EXCHANGERS, body, status=400)
    assert desk.ask('GET', EXCHANGERS)['total'] == 0
