"""Accounts to and from other relays; the end of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from madmail.account import hashing
from madmail.account.placement import shard_of
from madmail.account.registry import Verdict
from madmail.admin import accounts, blocklist, transfer
from madmail.admin.refused import Refused
from madmail.cli.access import Access
from tests.admin.conftest import DOMAIN

Open = Callable[..., Access]
WEAK, STRONG = b'correct horse', b'x9QmZp2LrT7vKw4NcY8bHd'


def log_in(relay: Access, address: str, password: bytes) -> Verdict:
    login = relay._stopped[shard_of(address, relay.shards)].accounts.login(address, password)
    return login.verdict


def test_every_form_of_hash_logs_in_and_is_never_weakened(relay: Access) -> None:
    entries = [
        {'username': 'sha', 'hash': hashing.sha256(WEAK)},
        {'username': f'bcrypt@{DOMAIN}', 'hash': hashing.bcrypt(WEAK, 4)},
        {'username': 'rawbcrypt', 'hash': hashing.bcrypt(WEAK, 4).removeprefix('bcrypt:')},
        {'username': 'costly', 'hash': hashing.bcrypt(WEAK, 10)},
        {'username': 'Argon', 'hash': hashing.argon2(WEAK)},
        {
            'username': 'crypt',
            'hash': '$6$rounds=5000$toolongsaltstrin$lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwl'
            'lF7oGDZxUhx1yxdYcz/e1JSbq3y6JMxxl8audkUEm0',
        },
        {'username': 'plain', 'password': WEAK.decode()},
    ]
    assert transfer.import_(relay, entries) == {'imported': 7, 'skipped': 0}
    for name in ('sha', 'bcrypt', 'rawbcrypt', 'costly', 'argon', 'plain'):
        assert log_in(relay, f'{name}@{DOMAIN}', WEAK + b'!') is Verdict.DENIED, name
        assert log_in(relay, f'{name}@{DOMAIN}', WEAK) is Verdict.WELCOME, name
    assert log_in(relay, f'crypt@{DOMAIN}', b'This is just a test') is Verdict.WELCOME
    forms = {one['username']: one['hash'] for one in transfer.export(relay)}
    assert forms.pop(f'costly@{DOMAIN}').startswith('bcrypt:$2b$10$')
    assert len(forms) == 6
    assert all(verifier.startswith('scrypt:12:8:1:') for verifier in forms.values())


def test_an_export_moves_to_another_relay(open_relay: Open) -> None:
    old, new = open_relay('old'), open_relay('new')
    accounts.create(old, f'alice@{DOMAIN}', STRONG)
    accounts.create(old, f'bob@{DOMAIN}', WEAK)
    accounts.create(old, f'locked@{DOMAIN}', WEAK)
    old.call(f'locked@{DOMAIN}', 'account_lock')
    users = list(transfer.export(old))
    assert sorted(one['username'] for one in users) == [f'alice@{DOMAIN}', f'bob@{DOMAIN}']
    assert transfer.import_(new, {'users': users, 'total': 2}) == {'imported': 2, 'skipped': 0}
    assert log_in(new, f'alice@{DOMAIN}', STRONG + b'x') is Verdict.DENIED
    assert log_in(new, f'alice@{DOMAIN}', STRONG) is Verdict.WELCOME
    assert log_in(new, f'bob@{DOMAIN}', WEAK) is Verdict.WELCOME
    # The keyed verifier is keyed by the new relay's secret now.
    (alice,) = [one for one in transfer.export(new) if one['username'] == f'alice@{DOMAIN}']
    assert alice['hash'] != next(one['hash'] for one in users if 'alice' in one['username'])


def test_what_is_there_stays_and_what_is_wrong_is_told(relay: Access) -> None:
    accounts.create(relay, f'alice@{DOMAIN}', WEAK)
    blocklist.block(relay, f'banned@{DOMAIN}')
    entries: list[Any] = [
        {'username': 'alice', 'password': 'another password'},
        {'username': 'banned', 'password': 'another password'},
        {'username': 'eve@elsewhere.example', 'password': 'another password'},
        {'username': 'nothing'},
        {'username': 'short', 'password': 'x'},
        {'username': 'postmaster', 'password': 'another password'},
        {'username': 'sp ace', 'password': 'another password'},
        {'username': 'unknown', 'hash': '$1$md5$xxxx'},
        {'username': '__REGISTRATION_OPEN__', 'password': 'true'},
        {'username': '', 'password': 'another password'},
        {'username': 7, 'password': 'another password'},
        'a text',
        {'username': 'twice', 'password': 'the first one'},
        {'username': 'TWICE', 'password': 'the second one'},
    ]
    answer = transfer.import_(relay, entries)
    assert (answer['imported'], answer['skipped']) == (1, 13)
    told = '\n'.join(answer['errors'])
    assert len(answer['errors']) == 10
    for word in (
        'blocklist',
        'entry 3',
        'neither hash nor',
        'too short',
        'reserved',
        'unknown form',
    ):
        assert word in told
    assert '$1$' not in told
    assert log_in(relay, f'alice@{DOMAIN}', WEAK) is Verdict.WELCOME
    assert log_in(relay, f'twice@{DOMAIN}', b'the first one') is Verdict.WELCOME
    assert sum(1 for _ in relay.accounts()) == 2


@pytest.mark.parametrize('nothing', [[], {}, {'users': []}, None, 'x', 5, {'users': 'x'}])
def test_no_accounts_are_no_import(relay: Access, nothing: Any) -> None:
    with pytest.raises(Refused) as refusal:
        transfer.import_(relay, nothing)
    assert refusal.value.word == 'invalid'


def test_many_accounts_come_in_chunks_and_tell_their_progress(relay: Access) -> None:
    verifier = hashing.sha256(WEAK)
    entries = [{'username': f'user{n}', 'hash': verifier} for n in range(1000)]
    told: list[tuple[int, int]] = []
    answer = transfer.import_(relay, entries, lambda done, total: told.append((done, total)))
    assert answer == {'imported': 1000, 'skipped': 0}
    assert told == sorted(told)
    assert len(told) >= 10
    assert told[-1] == (1000, 1000)
    assert len({one['username'] for one in transfer.export(relay)}) == 1000
    assert transfer.import_(relay, entries) == {'imported': 0, 'skipped': 1000}


def test_all_accounts_go_and_their_names_are_blocked(relay: Access) -> None:
    for name in ('alice', 'bob', 'carol'):
        accounts.create(relay, f'{name}@{DOMAIN}', WEAK)
    blocklist.block(relay, f'bob@{DOMAIN}', 'an older reason')
    assert accounts.delete_all(relay, 'all of them') == 3
    assert list(relay.accounts()) == []
    reasons = {one['username']: one['reason'] for one in blocklist.entries(relay)}
    assert reasons == {
        f'alice@{DOMAIN}': 'all of them',
        f'bob@{DOMAIN}': 'an older reason',
        f'carol@{DOMAIN}': 'all of them',
    }
    assert log_in(relay, f'alice@{DOMAIN}', WEAK) is Verdict.DENIED
    assert accounts.delete_all(relay, 'again') == 0


def test_a_removed_login_leaves_the_account(relay: Access) -> None:
    address = f'alice@{DOMAIN}'
    accounts.create(relay, address, WEAK)
    relay.call(address, 'account_lock')
    assert relay.call(address, 'account_info')['locked'] is True
    for given in (WEAK, b'none', b'', STRONG):
        assert log_in(relay, address, given) is Verdict.DENIED
    accounts.set_password(relay, address, STRONG)
    assert log_in(relay, address, STRONG) is Verdict.WELCOME
    assert relay.call(address, 'account_info')['locked'] is False
