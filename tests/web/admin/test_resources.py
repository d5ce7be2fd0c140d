"""What the resources do, by the calls that panels make."""

from __future__ import annotations

import re
from typing import Any

import pytest

from madmail.admin.refused import Refused
from madmail.delivery.tracker import Peer
from tests.web.admin.double import DOMAIN, Desk

TIME = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ')


# -- accounts


def test_an_accounts_life(desk: Desk) -> None:
    assert desk.ask('GET', '/admin/accounts') == {'accounts': [], 'total': 0}
    made = desk.ask('POST', '/admin/accounts', {'ignored': True}, status=201)
    assert made.keys() >= {'email', 'password'}
    address = made['email']
    assert re.fullmatch(rf'[a-z0-9]{{9,}}@{re.escape(DOMAIN)}', address)
    assert len(made['password']) >= 20
    listed = desk.ask('GET', '/admin/accounts')
    assert listed['total'] == 1
    assert listed['accounts'] == [
        {
            'username': address,
            'used_bytes': 0,
            'max_bytes': 1000,
            'is_default_quota': True,
            'created_at': 1_700_000_000,
            'first_login_at': 0,
            'last_login_at': 0,
        }
    ]
    assert desk.ask('DELETE', '/admin/accounts', {'username': address}) == {
        'deleted': address,
        'blocked': address,
        'reason': 'deleted via admin panel',
    }
    assert desk.ask('GET', '/admin/accounts')['accounts'] == []
    (blocked,) = desk.ask('GET', '/admin/blocklist')['blocked']
    assert (blocked['username'], blocked['reason']) == (address, 'deleted via admin panel')


def test_deleting_nobody_blocks_the_name(desk: Desk) -> None:
    answer = desk.ask('DELETE', '/admin/accounts', {'username': 'ghost'})
    assert answer['blocked'] == f'ghost@{DOMAIN}'
    assert desk.relay.control.blocked(f'ghost@{DOMAIN}')


def test_a_part_of_the_accounts(desk: Desk) -> None:
    for name in ('dora', 'anna', 'berta', 'carl'):
        desk.relay._account_create(f'{name}@{DOMAIN}', b'')

    def names(**body: Any) -> list[str]:
        listed = desk.ask('GET', '/admin/accounts', body)
        return [one['username'].partition('@')[0] for one in listed['accounts']]

    assert names() == ['anna', 'berta', 'carl', 'dora']
    assert names(limit=2) == ['anna', 'berta']
    assert names(limit=2, offset=3) == ['dora']
    assert names(q='R') == names(q='r')
    assert desk.ask('GET', '/admin/accounts', {'q': 'ert', 'limit': 1})['total'] == 1
    for wrong in ({'limit': -1}, {'offset': 'x'}, {'q': 7}, {'limit': True}):
        desk.ask('GET', '/admin/accounts', wrong, status=400)


@pytest.mark.parametrize('username', ['', ' ', 'a b', 'bob@elsewhere.example', None, 7, [], 'x\0y'])
@pytest.mark.parametrize(
    ('method', 'resource'),
    [
        ('DELETE', '/admin/accounts'),
        ('POST', '/admin/blocklist'),
        ('DELETE', '/admin/blocklist'),
    ],
)
def test_what_is_no_address_is_refused(
    desk: Desk, method: str, resource: str, username: Any
) -> None:
    desk.ask(method, resource, {'username': username}, status=400)
    assert desk.relay.control.blocklist() == []


# -- blocklist


def test_the_blocklist(desk: Desk) -> None:
    control = desk.relay.control
    control.block(f'old@{DOMAIN}', 'long ago', 1_600_000_000)
    answer = desk.ask('POST', '/admin/blocklist', {'username': f'New@{DOMAIN.upper()}'})
    assert answer == {'blocked': f'new@{DOMAIN}'}
    assert 'blocklist' in desk.relay.told
    listed = desk.ask('GET', '/admin/blocklist')
    assert listed['total'] == 2
    assert [one['username'].partition('@')[0] for one in listed['blocked']] == ['new', 'old']
    assert listed['blocked'][0]['reason'] == 'manually blocked'
    assert listed['blocked'][1]['blocked_at'] == '2020-09-13T12:26:40Z'
    assert desk.ask('DELETE', '/admin/blocklist', {'username': 'old'}) == {
        'unblocked': f'old@{DOMAIN}'
    }
    desk.ask('DELETE', '/admin/blocklist', {'username': 'old'}, status=404)
    assert desk.ask('PATCH', '/admin/blocklist', {'action': 'delete_all'}) == {'unblocked': 1}
    assert control.blocklist() == []
    desk.ask('PATCH', '/admin/blocklist', {'action': 'other'}, status=400)
    desk.ask('POST', '/admin/blocklist', {'username': 'x', 'reason': 'a\nb'}, status=400)


# -- federation


def test_federation_settings(desk: Desk) -> None:
    resource = '/admin/settings/federation'
    assert desk.ask('GET', resource) == {
        'enabled': True,
        'policy': 'ACCEPT',
        'max_federation_size': None,
        'federation_size_effective': '70M',
        'federation_size_effective_bytes': 70 * 1024**2,
    }
    assert desk.ask('POST', resource, {'policy': 'reject'})['policy'] == 'REJECT'
    assert desk.relay.settings['federation.policy'] == 'reject'
    answer = desk.ask('POST', resource, {'enabled': False, 'policy': 'Accept'})
    assert (answer['enabled'], answer['policy']) == (False, 'ACCEPT')
    desk.ask('POST', resource, {'policy': 'MAYBE'}, status=400)
    desk.ask('POST', resource, {'policy': 'reject', 'enabled': 'yes'}, status=400)
    assert desk.ask('GET', resource)['policy'] == 'ACCEPT'  # nothing is half done


def test_rules_and_dismissed_domains(desk: Desk) -> None:
    for resource, name in (
        ('/admin/federation/rules', 'rules'),
        ('/admin/federation/silent-dismiss', 'domains'),
    ):
        assert desk.ask('GET', resource) == {name: [], 'total': 0}
        answer = desk.ask('POST', resource, {'domain': 'Bad.Example'})
        assert answer == {'domain': 'Bad.Example', 'total': 1}
        desk.ask('POST', resource, {'domain': '192.0.2.1'})
        listed = desk.ask('GET', resource)
        assert [one['domain'] for one in listed[name]] == ['[192.0.2.1]', 'bad.example']
        assert all(isinstance(one['created_at'], int) for one in listed[name])
        gone = {'domain': '[192.0.2.1]', 'remaining': 1}
        assert desk.ask('DELETE', resource, {'domain': '[192.0.2.1]'}) == gone
        assert desk.ask('DELETE', resource, {'domain': '[192.0.2.1]'}) == gone
        for wrong in ('', 'a b', None, 5):
            desk.ask('POST', resource, {'domain': wrong}, status=400)
            desk.ask('DELETE', resource, {'domain': wrong}, status=400)
    assert desk.relay.told.count('federation') >= 6


def test_an_override_is_no_rule(desk: Desk) -> None:
    entry = {'lookup_key': 'Other.example', 'target_host': 'https://127.0.0.1:8443'}
    made = desk.ask('POST', '/admin/dns', {**entry, 'comment': 'a test'}, status=201)
    assert made['lookup_key'] == 'other.example'
    assert (made['comment'], made['verify']) == ('a test', False)
    assert desk.ask('GET', '/admin/federation/rules')['total'] == 0
    desk.ask('POST', '/admin/dns', {'lookup_key': '*', 'target_host': 'x.example'}, status=201)
    listed = desk.ask('GET', '/admin/dns')
    assert [one['lookup_key'] for one in listed['overrides']] == ['*', 'other.example']
    assert listed['total'] == 2
    for wrong in (
        {},
        {'lookup_key': 'x.example'},
        {'lookup_key': '', 'target_host': 'y'},
        {'lookup_key': 'x.example', 'target_host': 'ftp://y'},
        {'lookup_key': 'x.example', 'target_host': 'y', 'verify': 1},
        {'lookup_key': 'x.example', 'target_host': 'y.example', 'comment': 'x' * 501},
    ):
        desk.ask('POST', '/admin/dns', wrong, status=400)
    gone = desk.ask('DELETE', '/admin/dns', {'lookup_key': 'OTHER.example'})
    assert gone == {'deleted': 'other.example'}
    desk.ask('DELETE', '/admin/dns', {'lookup_key': 'other.example'}, status=404)


def test_servers(desk: Desk) -> None:
    assert desk.ask('GET', '/admin/federation/servers') == {'servers': [], 'total': 0}
    _exchange(desk)
    listed = desk.ask('GET', '/admin/federation/servers')
    assert listed['total'] == 3
    assert listed['servers'][0] == {
        'domain': '[192.0.2.1]',
        'queued_messages': 0,
        'failed_http': 0,
        'failed_https': 0,
        'failed_smtp': 0,
        'success_http': 2,
        'success_https': 0,
        'success_smtp': 0,
        'inbound_deliveries': 3,
        'successful_deliveries': 2,
        'mean_latency_ms': 50.0,
        'last_active': 1_700_000_005,
    }
    assert listed['servers'][1]['queued_messages'] == 4


def _exchange(desk: Desk) -> None:
    from dataclasses import asdict

    seen = 1_700_000_000
    desk.relay.control.set_peers(
        [
            ('[192.0.2.1]', asdict(Peer(success_http=2, latency_ms=100, last_seen=seen))),
            ('bad.example', asdict(Peer(success_https=1, failed_https=9, last_seen=seen))),
            ('fair.example', asdict(Peer(5, 0, 0, 1, 0, 0, 500, seen))),
        ],
        10,
    )
    desk.relay.control.add_inbound({'[192.0.2.1]': 3}, seen + 5, 10, 0)
    desk.relay.waiting = {'bad.example': 4, 'shard:0:' + '00' * 16: 9}


# -- sizes


def test_message_size(desk: Desk) -> None:
    resource = '/admin/message-size'
    configured = {'config_bytes': 30 * 1024**2, 'config': '30M'}
    assert desk.ask('GET', resource) == {
        'effective_bytes': 30 * 1024**2,
        'effective': '30M',
        'appendlimit': None,
        'max_message_size': None,
        **configured,
    }
    assert desk.ask('PUT', resource, {'size': '64M'}) == {
        'size': '64M',
        'effective_bytes': 64 * 1024**2,
        'effective': '64M',
        'appendlimit': '64M',
        'max_message_size': '64M',
        **configured,
    }
    assert desk.relay.settings['limits.max_message_size'] == 64 * 1024**2
    assert desk.ask('PUT', resource, {'size': '1G 512M'})['effective'] == '1536M'
    answer = desk.ask('DELETE', resource)
    assert (answer['reset'], answer['effective']) == (True, '30M')
    for wrong in ('', '0', '5', 'x', '64X', '-1M', '9999G', None, 7, '1 1 1 M'):
        desk.ask('PUT', resource, {'size': wrong}, status=400)


def test_message_size_of_an_account(desk: Desk) -> None:
    resource = '/admin/message-size'
    desk.relay._account_create(f'bob@{DOMAIN}', b'')
    put = desk.ask('PUT', resource, {'size': '5M', 'username': 'bob'})
    assert put['append_limit'] == 5 * 1024**2
    assert desk.ask('GET', resource, {'username': 'bob'})['is_default'] is False
    assert desk.ask('DELETE', resource, {'username': 'bob'})['is_default'] is True
    assert desk.ask('GET', resource)['effective'] == '30M'
    desk.ask('GET', resource, {'username': 'nobody'}, status=404)


def test_federation_size(desk: Desk) -> None:
    resource = '/admin/federation-size'
    assert desk.ask('GET', resource)['max_federation_size'] is None
    put = desk.ask('PUT', resource, {'size': '10M'})
    assert (put['effective'], put['max_federation_size'], put['config']) == ('10M', '10M', '70M')
    assert desk.ask('GET', '/admin/settings/federation')['max_federation_size'] == '10M'
    assert desk.ask('DELETE', resource)['effective_bytes'] == 70 * 1024**2


# -- processes


def test_reload(desk: Desk) -> None:
    def reload(body: Any = None) -> Any:
        return desk.ask('POST', '/admin/reload', body)['status']

    desk.relay.answers['reload'] = {'generation': 2}
    assert reload({}) == reload({'scope': 7}) == reload({'wait': 'x'}) == 'reloading'
    assert reload({'scope': 'full', 'wait': True}) == 'reloaded'
    assert [request['wait'] for request in desk.relay.asked] == [False] * 3 + [True]
    for scope in ('http', 'http_routes', 'routes'):
        assert reload({'scope': scope, 'wait': True}) == 'reloaded'
    assert len(desk.relay.asked) == 4
    desk.ask('POST', '/admin/reload', {'scope': 'imap'}, status=400)
    desk.relay.answers['reload'] = Refused('busy', 'another one')
    desk.ask('POST', '/admin/reload', {}, status=409)
    desk.relay.answers['reload'] = Refused('failed', 'a port is taken')
    assert desk.ask('POST', '/admin/reload', {}, status=500) == 'a port is taken'
    desk.ask('GET', '/admin/reload', status=405)


def test_restart(desk: Desk) -> None:
    assert desk.ask('POST', '/admin/restart')['status'] == 'restarting'
    assert desk.relay.asked == [{'command': 'restart'}]
