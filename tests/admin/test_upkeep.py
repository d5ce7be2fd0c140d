"""Quota, purges, notices and tasks as operations, and as resources of the admin API."""

from __future__ import annotations

import time
from typing import Any

import pytest

from madmail.admin import mail, notice, purge, quota, upkeep
from madmail.admin.refused import Refused
from madmail.cli.access import Access
from madmail.web.admin.upkeep import RESOURCES

DAY = 86_400
MESSAGE = b'Subject: x\n\nText\n'
PEOPLE = ('ann', 'bob', 'carol')


@pytest.fixture
def people(relay: Access) -> Access:
    """Three accounts of two shards: each with old and new mail, some of it read."""
    for name in PEOPLE:
        relay.call(relay.address(name), 'account_create', password=b'a good password')
        mail.add(relay, name, 'INBOX', MESSAGE, ('Seen',), int(time.time()) - 40 * DAY)
        mail.add(relay, name, 'INBOX', MESSAGE, ())
    return relay


def ask(relay: Access, method: str, name: str, **body: Any) -> tuple[int, Any]:
    answer = RESOURCES[f'/admin/{name}'][method](relay, body)
    return answer.status, answer.body


def test_quota_as_the_panel_asks_for_it(people: Access) -> None:
    _, whole = ask(people, 'GET', 'quota')
    assert whole == {
        'total_storage_bytes': 6 * (len(MESSAGE) + 3),
        'accounts_count': 3,
        'default_quota_bytes': 500 * 1024**2,
    }
    assert ask(people, 'PUT', 'quota', username='Ann', max_bytes=10**6) == (
        200,
        {'username': 'ann@relay.example', 'max_bytes': 10**6},
    )
    _, ann = ask(people, 'GET', 'quota', username='ann')
    assert (ann['max_bytes'], ann['is_default']) == (10**6, False)
    assert ask(people, 'DELETE', 'quota', username='ann')[1] == {'reset': 'ann@relay.example'}
    _, ann = ask(people, 'GET', 'quota', username='ann')
    assert (ann['max_bytes'], ann['is_default']) == (500 * 1024**2, True)
    assert ask(people, 'PUT', 'quota', max_bytes=2**30)[1]['username'] == '__GLOBAL_DEFAULT__'
    assert ask(people, 'GET', 'quota', username='bob')[1]['max_bytes'] == 2**30
    ask(people, 'PUT', 'quota', max_bytes=0)
    assert ask(people, 'GET', 'quota')[1]['default_quota_bytes'] == 500 * 1024**2
    assert len(list(quota.usage(people))) == 3


@pytest.mark.parametrize('most', [None, 'much', True, 2**60, 1.5])
def test_a_quota_that_is_no_number_is_refused(people: Access, most: object) -> None:
    with pytest.raises(Refused) as refused:
        ask(people, 'PUT', 'quota', username='ann', max_bytes=most)
    assert refused.value.word == 'invalid'


@pytest.mark.parametrize('method', ['GET', 'DELETE'])
def test_quota_of_nobody_is_missing(people: Access, method: str) -> None:
    with pytest.raises(Refused) as refused:
        ask(people, method, 'quota', username='nobody')
    assert refused.value.word == 'missing'


def test_own_message_sizes(people: Access) -> None:
    assert quota.set_message_size(people, 'ann', 1000)['append_limit'] == 1000
    assert quota.message_size(people, 'ann')['is_default'] is False
    assert quota.message_size(people, 'bob')['append_limit'] == 30 * 1024**2
    assert quota.set_message_size(people, 'ann', 10**9)['append_limit'] == 30 * 1024**2
    assert quota.set_message_size(people, 'ann', -1)['is_default'] is True


@pytest.mark.parametrize(
    ('body', 'count', 'left'),
    [
        ({'action': 'purge_user', 'username': 'ANN'}, 2, 4),
        ({'action': 'purge_all'}, 6, 0),
        ({'action': 'purge_blobs'}, 6, 0),
        ({'action': 'purge_read'}, 3, 3),
        ({'action': 'purge_read_blobs'}, 3, 3),
        ({'action': 'purge_older', 'retention': '1h'}, 0, 6),
        ({'action': 'purge_blobs_older', 'retention': 3600}, 0, 6),
        ({'action': 'purge_queue'}, 0, 6),
    ],
)
def test_purges(people: Access, body: dict[str, Any], count: int, left: int) -> None:
    _, dry = ask(people, 'POST', 'queue', **body, dry_run=True)
    assert (dry['deleted'], dry['dry_run']) == (count, True)
    assert sum(one['messages'] for one in quota.usage(people)) == 6
    _, done = ask(people, 'POST', 'queue', **body)
    assert (done['action'], done['deleted']) == (body['action'], count)
    assert sum(one['messages'] for one in quota.usage(people)) == left


@pytest.mark.parametrize(
    ('body', 'word'),
    [
        ({'action': 'purge_user'}, 'invalid'),
        ({'action': 'purge_user', 'username': 'nobody'}, 'missing'),
        ({'action': 'purge_older'}, 'invalid'),
        ({'action': 'purge_older', 'retention': '0h'}, 'invalid'),
        ({'action': 'purge_older', 'retention': 0}, 'invalid'),
        ({'action': 'purge_older', 'retention': -5}, 'invalid'),
        ({'action': 'purge_older', 'retention': True}, 'invalid'),
        ({'action': 'purge_blobs_older', 'retention': 'long'}, 'invalid'),
        ({'action': 'purge_everything'}, 'invalid'),
        ({}, 'invalid'),
    ],
)
def test_purges_that_make_no_sense(people: Access, body: dict[str, Any], word: str) -> None:
    with pytest.raises(Refused) as refused:
        ask(people, 'POST', 'queue', **body)
    assert refused.value.word == word
    assert sum(one['messages'] for one in quota.usage(people)) == 6


def test_ages() -> None:
    assert [purge.age(one) for one in ('24h', '30m', '7d', '90', 90)] == [
        86_400,
        1800,
        7 * DAY,
        90,
        90,
    ]


def test_a_notice_reaches_everybody_once(people: Access) -> None:
    assert ask(people, 'GET', 'notice')[1] == {'total_users': 3, 'domain': 'relay.example'}
    status, sent = ask(people, 'POST', 'notice', subject='Hello', body='Text')
    assert (status, sent) == (200, {'sent': 3, 'failed': 0})
    for name in PEOPLE:
        octets = b''.join(mail.read(people, name, 'INBOX', 3, uid=True))
        assert f'To: <{name}@relay.example>'.encode() in octets
    assert notice.send(people, 'Hello', 'Text', 'bob')['sent'] == 1
    assert len(list(mail.list_(people, 'bob', 'INBOX', uid=True))) == 4


def test_a_notice_that_finds_no_room_says_so(people: Access) -> None:
    for name in PEOPLE:
        quota.set_(people, name, 100)
    status, sent = ask(people, 'POST', 'notice', subject='Hello', body='Text' * 100)
    assert (status, sent['sent'], sent['failed']) == (500, 0, 3)
    assert sent['errors'] == ['3 mailboxes are full']


@pytest.mark.parametrize(
    'body',
    [
        {'subject': 'Hello'},
        {'body': 'Text'},
        {'subject': ' ', 'body': 'Text'},
        {'subject': 'a\r\nBcc: x', 'body': 'Text'},
        {'subject': 'a', 'body': 'Text', 'recipient': 'eve@elsewhere.example'},
    ],
)
def test_notices_that_cannot_be(people: Access, body: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        ask(people, 'POST', 'notice', **body)
    assert refused.value.word == 'invalid'


def test_tasks_by_the_api(people: Access) -> None:
    listed = {task['name']: task for task in ask(people, 'GET', 'tasks')[1]['tasks']}
    assert listed['prune-old-messages']['enabled']
    assert not listed['purge-seen']['enabled']
    assert ask(people, 'POST', 'tasks', task='retention', dry_run=True)[1]['deleted'] == 3
    assert ask(people, 'POST', 'tasks', task='retention')[1]['deleted'] == 3
    assert ask(people, 'POST', 'tasks', task='purge-seen')[1]['skipped']
    for body in (
        {'task': 'nonsense'},
        {'task': 'sweep', 'retention': '24h'},
        {'task': 'retention', 'retention': '5m'},
    ):
        with pytest.raises(Refused):
            ask(people, 'POST', 'tasks', **body)
    with pytest.raises(Refused):
        upkeep.run(people, 'prune-unread-older')


def test_folders_and_messages(people: Access) -> None:
    mail.create_mailbox(people, 'ann', 'Work/Old', 'archive')
    with pytest.raises(Refused) as refused:
        mail.create_mailbox(people, 'ann', 'Other', 'archive')
    assert refused.value.word == 'exists'
    for name in ('inbox', 'Work/Old', 'a*b', '', 'a//b', 'a\nb'):
        with pytest.raises(Refused):
            mail.create_mailbox(people, 'ann', name)
    assert mail.copy(people, 'ann', 'inbox', '1:*', 'Work/Old', uid=False) == 2
    assert mail.copy(people, 'ann', 'INBOX', '2', 'Work/Old', uid=True, move=True) == 1
    assert mail.rename_mailbox(people, 'ann', 'Work/Old', 'Kept')['name'] == 'Kept'
    rows = list(mail.list_(people, 'ann', 'Kept', full=True, uid=False))
    assert [(row['number'], row['uid'], row['flags']) for row in rows] == [
        (1, 1, ['\\Seen']),
        (2, 2, []),
        (3, 3, []),
    ]
    assert (
        mail.change_flags(people, 'ann', 'Kept', '2:*', 'replace', ['\\Flagged', 'w'], uid=False)
        == 2
    )
    assert mail.remove(people, 'ann', 'Kept', '1,3', uid=True) == 2
    (row,) = mail.list_(people, 'ann', 'Kept', uid=False)
    assert (row['uid'], row['flags']) == (2, ['\\Flagged', 'w'])
    for bad in ('', 'x', '0', '1:', '1;2'):
        with pytest.raises(Refused) as refused:
            mail.remove(people, 'ann', 'Kept', bad, uid=True)
        assert refused.value.word == 'invalid'
    with pytest.raises(Refused):
        mail.change_flags(people, 'ann', 'Kept', '1', 'add', ['two words'], uid=False)
    with pytest.raises(Refused):
        mail.add(people, 'ann', 'INBOX', b'nul \0')
    with pytest.raises(Refused):
        mail.remove_mailbox(people, 'ann', 'INBOX')
    assert mail.remove_mailbox(people, 'ann', 'Kept')['messages'] == 1
    assert [box['name'] for box in mail.mailboxes(people, 'ann')] == ['INBOX']


def test_a_page_is_not_the_end(people: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('madmail.shard.methods_mail.PAGE', 3)
    for _ in range(8):
        mail.add(people, 'ann', 'INBOX', MESSAGE)
    assert [row['uid'] for row in mail.list_(people, 'ann', 'INBOX', uid=True)] == list(
        range(1, 11)
    )
    monkeypatch.setattr('madmail.shard.methods_mail.PIECE', 5)
    assert b''.join(mail.read(people, 'ann', 'INBOX', 1, uid=False)).count(b'Text') == 1
