"""federation … and endpoint-cache … on a stopped relay."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from madmail.delivery.federation import Federation
from madmail.delivery.tracker import Peer
from madmail.settings import load, overlay
from madmail.store.control import Control
from tests.cli.test_cli import Shell, shell

__all__ = ['shell']  # the fixture


def _federation(shell: Shell) -> Federation:
    """What the relay would have in force."""
    settings = load(shell.config)
    directory: Path = settings['state_dir']
    assert overlay(settings, Control(directory).settings()) == {}
    return Federation(directory, settings, 'chat.example')


def test_rules_under_accept(shell: Shell) -> None:
    data = shell.data('federation', 'block', 'Bücher.Example.')
    assert data == {'domain': 'xn--bcher-kva.example', 'action': 'block', 'total': 1}
    assert shell.data('federation', 'block', '[192.0.2.1]')['total'] == 2
    assert shell.data('federation', 'block', '192.0.2.1')['total'] == 2
    assert shell.data('federation', 'list') == {
        'policy': 'ACCEPT',
        'rules': [
            {'domain': '[192.0.2.1]', 'action': 'block'},
            {'domain': 'xn--bcher-kva.example', 'action': 'block'},
        ],
    }
    assert _federation(shell).inbound('192.0.2.1') is not None
    removed = shell.data('federation', 'remove', '192.0.2.1')
    assert removed == {'domain': '[192.0.2.1]', 'remaining': 1}
    assert 'no rule' in shell.error('federation', 'remove', '192.0.2.1')
    assert shell.data('federation', 'flush') == {'flushed': True, 'total': 0}
    assert shell.data('federation', 'list')['rules'] == []


def test_rules_under_reject(shell: Shell) -> None:
    assert shell.data('federation', 'policy', 'reject') == {'policy': 'REJECT'}
    allowed = shell.data('federation', 'allow', '*.friends.example')
    assert allowed == {'domain': '*.friends.example', 'action': 'allow', 'total': 1}
    federation = _federation(shell)
    assert federation.outbound('a.friends.example') is None
    assert federation.outbound('friends.example') is not None
    assert shell.data('federation', 'policy', 'ACCEPT') == {'policy': 'ACCEPT'}
    assert _federation(shell).outbound('friends.example') is None


def test_a_rule_never_does_the_opposite_of_its_word(shell: Shell) -> None:
    assert 'would block' in shell.error('federation', 'allow', 'other.example')
    shell.data('federation', 'policy', 'reject')
    assert 'would allow' in shell.error('federation', 'block', 'other.example')
    assert shell.data('federation', 'list')['rules'] == []


def test_a_change_of_policy_tells_what_becomes_of_rules(shell: Shell) -> None:
    assert 'there are no rules' in shell('federation', 'policy', 'reject')[1]
    assert 'turned' not in shell('federation', 'policy', 'accept')[1]
    shell.data('federation', 'block', 'other.example')
    said = shell('federation', 'policy', 'reject')[1]
    assert 'those of 1 rule.' in said
    assert 'it was "block" and is "allow" now' in said
    assert 'turned' not in shell('federation', 'policy', 'reject')[1]


def test_no_rule_touches_our_own_domain(shell: Shell) -> None:
    own = load(shell.config)['domain']
    for command in (
        ('federation', 'block', own.upper()),
        ('federation', 'dismiss', own),
        ('endpoint-cache', 'set', own, 'https://other.example'),
    ):
        assert 'the domain of this relay' in shell.error(*command)


def test_a_missing_endpoint_names_the_wider_one(shell: Shell) -> None:
    assert 'is used' not in shell.error('endpoint-cache', 'get', 'a.b.example')
    shell.data('endpoint-cache', 'set', '*', 'smtp://mx.example')
    assert 'that of * is used' in shell.error('endpoint-cache', 'get', 'a.b.example')
    shell.data('endpoint-cache', 'set', '*.b.example', 'smtp://mx.example')
    assert 'that of *.b.example is used' in shell.error('endpoint-cache', 'get', 'a.b.example')


def test_the_switch(shell: Shell) -> None:
    assert shell.data('federation', 'disable') == {'enabled': False}
    assert _federation(shell).inbound('other.example') is not None
    assert shell.data('federation', 'status')['enabled'] is False
    assert shell.data('federation', 'enable') == {'enabled': True}
    assert _federation(shell).inbound('other.example') is None


def test_traffic_by_destination(shell: Shell) -> None:
    control = Control(load(shell.config)['state_dir'])
    control.set_peers([('other.example', {**asdict(Peer(3, 1, 1, 5, 2, 4)), 'last_seen': 1})], 10)
    control.add_inbound({'other.example': 7, '[192.0.2.1]': 1}, 1_700_000_000, 10, 0)
    _, found = shell.data('federation', 'status')['traffic']
    assert [found] == [
        {
            'domain': 'other.example',
            'successful_deliveries': 5,
            'inbound_deliveries': 7,
            'queued_messages': 0,
            'failed_https': 5,
            'failed_http': 2,
            'failed_smtp': 4,
        }
    ]
    assert 'other.example' in shell('federation', 'status')[1]
    servers = shell.data('federation', 'servers')
    assert servers['total'] == 2
    assert servers['servers'][0]['domain'] == '[192.0.2.1]'
    assert servers['servers'][1] == {
        'domain': 'other.example',
        'successful_deliveries': 5,
        'inbound_deliveries': 7,
        'queued_messages': 0,
        'success_https': 3,
        'success_http': 1,
        'success_smtp': 1,
        'failed_https': 5,
        'failed_http': 2,
        'failed_smtp': 4,
        'mean_latency_ms': 0.0,
        'last_active': 1_700_000_000,
    }
    assert 'other.example' in shell('federation', 'servers')[1]


def test_the_command_line_wins_over_the_file(shell: Shell) -> None:
    shell.config.write_text(shell.config.read_text() + 'federation: {policy: reject}\n')
    assert shell.data('federation', 'list')['policy'] == 'REJECT'
    shell.data('federation', 'policy', 'accept')
    assert shell.data('federation', 'list')['policy'] == 'ACCEPT'


def test_dismissing(shell: Shell) -> None:
    assert shell.data('federation', 'dismiss', 'Gone.example') == {
        'domain': 'gone.example',
        'total': 1,
    }
    listed = shell.data('federation', 'dismiss-list')
    assert listed['total'] == 1
    assert listed['domains'][0].keys() == {'domain', 'added'}
    assert _federation(shell).dismissed('gone.example')
    assert shell.data('federation', 'undismiss', 'gone.example')['remaining'] == 0
    assert 'not dismissed' in shell.error('federation', 'undismiss', 'gone.example')
    shell.data('federation', 'dismiss', 'gone.example')
    assert shell.data('federation', 'dismiss-flush') == {'flushed': True, 'total': 0}
    assert shell.data('federation', 'dismiss-list') == {'domains': [], 'total': 0}


@pytest.mark.parametrize('word', ['', ' ', 'a b', '@x', '*', 'x..y'])
@pytest.mark.parametrize('verb', ['block', 'remove', 'dismiss', 'undismiss'])
def test_what_is_no_domain_is_refused(shell: Shell, verb: str, word: str) -> None:
    assert 'is not a domain' in shell.error('federation', verb, word)


def test_an_endpoints_life(shell: Shell) -> None:
    where = 'https://127.0.0.1:8443'
    assert shell.data('endpoint-cache', 'set', 'Other.example', where, 'a test') == {
        'lookup_key': 'other.example',
        'target_host': where,
        'comment': 'a test',
        'verify': False,
    }
    entry = shell.data('endpoint-cache', 'get', 'OTHER.example')
    assert (entry['target_host'], entry['comment']) == (where, 'a test')
    assert entry['created_at'] == entry['updated_at'] > 0
    shell.data('dns-cache', 'set', 'other.example', 'smtp://mx.example:2525', '--no-verify')
    assert shell.data('endpoint-cache', 'list') == {
        'entries': [
            {
                'lookup_key': 'other.example',
                'target_host': 'smtp://mx.example:2525',
                'verify': False,
                'comment': '',
                'created_at': entry['created_at'],
                'updated_at': shell.data('endpoint-cache', 'get', 'other.example')['updated_at'],
            }
        ],
        'total': 1,
    }
    override = _federation(shell).override('other.example')
    assert override is not None
    assert (override.scheme, override.host, override.port) == ('smtp', 'mx.example', 2525)
    assert shell.data('endpoint-cache', 'delete', 'other.example') == {
        'lookup_key': 'other.example'
    }
    assert 'no endpoint' in shell.error('endpoint-cache', 'get', 'other.example')
    assert 'no endpoint' in shell.error('endpoint-cache', 'remove', 'other.example')


def test_one_endpoint_for_all_others(shell: Shell) -> None:
    shell.data('endpoint-cache', 'set', '*', 'exchanger.example')
    override = _federation(shell).override('any.example')
    assert override is not None
    assert (override.scheme, override.host, override.verify) == ('', 'exchanger.example', True)


@pytest.mark.parametrize('where', ['', 'ftp://x', 'https://', 'x y', 'https://x:port'])
def test_what_is_no_endpoint_is_refused(shell: Shell, where: str) -> None:
    assert shell.error('endpoint-cache', 'set', 'other.example', where)
    assert shell.data('endpoint-cache', 'list')['total'] == 0
