"""Operations on exchangers: what is refused, what is kept, what is released."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from madmail.admin import exchangers
from madmail.admin.refused import Refused
from madmail.cli.access import Access
from madmail.delivery.exchanger import token_key
from madmail.store.exchangers import Polled
from madmail.store.interface import OutboxEntry
from madmail.store.spool import MemoryBody

URL = 'https://x.example/exchanger'


def test_a_plain_one_is_polled_and_its_dialect_goes_by_the_token(relay: Access) -> None:
    entry = exchangers.add(relay, 'x', f' {URL}/ ')
    assert entry['url'] == URL
    expected = {'enabled': True, 'polls': True, 'poll_interval': 60, 'protocol': 'a'}
    assert {name: entry[name] for name in expected} == expected
    assert entry['last_poll_at'] is None
    assert 'pull_token' not in entry
    assert exchangers.add(relay, 'y', URL, token='secret-token')['protocol'] == 'b'
    assert [one['name'] for one in exchangers.entries(relay)] == ['x', 'y']
    assert 'secret-token' not in str(exchangers.entries(relay))


def test_the_token_with_which_it_fetches_is_told_once(relay: Access) -> None:
    entry = exchangers.add(relay, 'b', domains=['B.example.'], mode='pull', carries=True)
    assert entry['domains'] == ['b.example']
    assert not entry['polls']
    token = entry['pull_token']
    row = relay.control.exchanger('b')
    assert row is not None
    assert row.pull_key == token_key(token)
    assert 'pull_token' not in exchangers.update(relay, 'b', poll_interval=5)
    other = exchangers.update(relay, 'b', pull_token='')['pull_token']
    assert other != token
    chosen = exchangers.update(relay, 'b', pull_token='x' * 16)
    assert 'pull_token' not in chosen
    kept = relay.control.exchanger('b')
    assert kept is not None
    assert kept.pull_key == token_key('x' * 16)
    assert not exchangers.update(relay, 'b', url=URL, mode='push', polls=False)['may_fetch']


def test_update_keeps_what_became_of_it(relay: Access) -> None:
    exchangers.add(relay, 'x', URL)
    relay.control.exchanger_polled('x', Polled(100, 90, 'it answered 500', 2, 5, 1))
    relay.control.exchanger_given('x', 7, 110)
    entry = exchangers.update(relay, 'x', enabled=False, poll_interval=5, verify=False)
    expected: dict[str, Any] = {
        'enabled': False,
        'poll_interval': 5,
        'verify': False,
        'last_poll_at': 100,
        'last_success_at': 90,
        'last_error': 'it answered 500',
        'failures': 2,
        'pulled_total': 5,
        'refused_total': 1,
        'given_total': 7,
    }
    assert {name: entry[name] for name in expected} == expected
    assert exchangers.update(relay, 'x', verify='auto')['verify'] is True


def test_older_panels_post_again_to_change(relay: Access) -> None:
    exchangers.set_(relay, 'x', URL)
    entry = exchangers.set_(relay, 'x', 'https://y.example', 5)
    assert (entry['url'], entry['poll_interval']) == ('https://y.example', 5)
    with pytest.raises(Refused, match='url is required'):
        exchangers.set_(relay, 'z', ' ')


@pytest.mark.parametrize(
    ('fields', 'text'),
    [
        ({'url': 'x.example'}, 'https://'),
        ({'url': 'https://u:p@x.example'}, 'token'),
        ({'url': ''}, 'URL, domains'),
        ({'poll_interval': 0}, 'interval'),
        ({'poll_interval': -5}, 'interval'),
        ({'poll_interval': True}, 'interval'),
        ({'poll_interval': 10**6}, 'interval'),
        ({'protocol': 'c'}, 'dialect'),
        ({'protocol': 'b'}, 'needs a token'),
        ({'fetches': ['b.example']}, 'dialect a'),
        ({'token': 'two words'}, 'printable'),
        ({'token': 't', 'fetches': ['*.b.example']}, 'by its name'),
        ({'domains': ['not a domain']}, 'not a domain'),
        ({'domains': 'b.example'}, 'list'),
        ({'domains': ['relay.example']}, 'stays here'),
        ({'domains': ['Relay.Example.']}, 'stays here'),
        ({'domains': ['*'], 'carries': True}, 'named only'),
        ({'carries': True}, 'named only'),
        ({'mode': 'sideways', 'domains': ['b.example']}, 'mode'),
        ({'url': '', 'domains': ['b.example'], 'mode': 'push'}, 'URL is required'),
        ({'url': '', 'domains': ['b.example'], 'mode': 'both'}, 'URL is required'),
        ({'url': '', 'domains': ['b.example'], 'mode': 'pull', 'polls': True}, 'URL is required'),
        ({'pull_token': 'x' * 20}, 'fetches nothing'),
        ({'domains': ['b.example'], 'mode': 'pull', 'pull_token': 'short'}, 'at least'),
        ({'domains': ['b.example'], 'mode': 'pull', 'pull_token': 'x/' * 10}, 'slash'),
        ({'enabled': 1}, 'true or false'),
        ({'colour': 'red'}, 'unknown'),
    ],
)
def test_what_cannot_work_is_refused_and_changes_nothing(
    relay: Access, fields: dict[str, Any], text: str
) -> None:
    given = {'url': URL, **fields}
    with pytest.raises(Refused, match=text) as refused:
        exchangers.add(relay, 'x', **given)
    assert refused.value.word == 'invalid'
    assert exchangers.entries(relay) == []


@pytest.mark.parametrize('name', ['', ' ', 'two words', '-x', 'x' * 65, 'ü', 'a/b'])
def test_names(relay: Access, name: str) -> None:
    with pytest.raises(Refused, match='letters'):
        exchangers.add(relay, name, URL)


def test_what_is_fetched_is_asked_for_as_it_is_written(relay: Access) -> None:
    names = ['192.0.2.1', '[192.0.2.1]', 'B.example', '192.0.2.1']
    entry = exchangers.add(relay, 'x', URL, token='secret', fetches=names)
    assert entry['fetches'] == ['192.0.2.1', '[192.0.2.1]', 'b.example']


def test_unknown_and_known_names(relay: Access) -> None:
    for call in (exchangers.get, exchangers.remove, exchangers.update, exchangers.poll):
        with pytest.raises(Refused) as refused:
            call(relay, 'nobody')
        assert refused.value.word == 'missing'
    exchangers.add(relay, 'x', URL)
    with pytest.raises(Refused) as refused:
        exchangers.add(relay, 'x', URL)
    assert refused.value.word == 'exists'
    with pytest.raises(Refused, match='does not run'):
        exchangers.poll(relay, 'x')


def test_a_domain_goes_one_way_and_a_token_means_one(relay: Access) -> None:
    given: dict[str, Any] = {'mode': 'pull', 'pull_token': 'x' * 20}
    exchangers.add(relay, 'b', domains=['b.example'], **given)
    with pytest.raises(Refused, match='goes by b already'):
        exchangers.add(relay, 'c', domains=['c.example', 'b.example'], mode='pull')
    with pytest.raises(Refused, match='has this token'):
        exchangers.add(relay, 'c', domains=['c.example'], **given)


def queue(relay: Access, domain: str) -> None:
    """Something that was found to be waiting, in each shard."""
    later = int(time.time()) + 3600
    for shard in range(relay.shards):
        relay.call_shard(shard, 'outbox_count')
        entry = OutboxEntry(0, '', domain, (f'bob@{domain}',), int(time.time()), next_try=later)
        store = relay._stopped[shard].store
        store.deliver(MemoryBody(b'x'), (), delivery_id=os.urandom(16), outbox=[entry])


@pytest.mark.parametrize('change', ['remove', 'disable', 'push', 'domains'])
def test_what_waits_is_sent_when_nobody_fetches_it_any_more(relay: Access, change: str) -> None:
    exchangers.add(relay, 'b', domains=['*.example'], mode='pull')
    exchangers.add(relay, 'c', domains=['c.test'], mode='pull')
    queue(relay, 'b.example')
    queue(relay, 'c.test')
    waiting = {one['name']: one['waiting'] for one in exchangers.status(relay)['exchangers']}
    assert waiting == {'b': 2, 'c': 2}
    now = int(time.time()) + 1

    def due() -> list[str]:
        return [
            one['domain']
            for shard in range(relay.shards)
            for one in relay.call_shard(shard, 'outbox_due', now=now)
        ]

    exchangers.update(relay, 'b', poll_interval=7)
    assert due() == []
    if change == 'remove':
        exchangers.remove(relay, 'b')
    elif change == 'disable':
        exchangers.enable(relay, 'b', False)
    elif change == 'push':
        exchangers.update(relay, 'b', url=URL, mode='push')
    else:
        exchangers.update(relay, 'b', domains=['other.test'])
    assert due() == ['b.example', 'b.example']
