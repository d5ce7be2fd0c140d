"""First logins create, later ones check, and two at once are one after another."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import Any

import gevent
import pytest

from madmail.account import names
from madmail.account import password as verifiers
from madmail.account.registry import Accounts, Made, Verdict, today
from madmail.settings import Settings
from madmail.store.interface import Account

SECRET = bytes(32)


class Memory:
    """A store of accounts that takes its time to write."""

    def __init__(self) -> None:
        self.rows: dict[str, Account] = {}
        self.logins: list[int] = []

    def account(self, address: str) -> Account | None:
        return self.rows.get(address)

    def create_account(self, address: str, password: str, day: int) -> Account | None:
        gevent.sleep(0.01)
        if address in self.rows:
            return None
        self.rows[address] = Account(len(self.rows) + 1, address, password, day, 0, -1)
        return self.rows[address]

    def record_login(self, account_id: int, day: int) -> None:
        self.logins.append(account_id)

    def replace_password(self, account_id: int, old: str, new: str) -> bool:
        gevent.sleep(0.01)
        for row in self.rows.values():
            if row.id == account_id and row.password == old:
                self.rows[row.address] = row._replace(password=new)
                return True
        return False


def offload(function, *arguments):
    gevent.sleep(0.001)
    return function(*arguments)


def registry(store: Memory, blocked: frozenset[str] = frozenset(), **settings: object) -> Accounts:
    return Accounts(store, Settings.defaults(**settings), SECRET, blocked, offload)


def test_the_first_login_creates_and_the_next_is_welcome() -> None:
    store = Memory()
    accounts = registry(store)
    first = accounts.login('alice@x.example', b'secret-enough')
    assert first.verdict is Verdict.CREATED
    again = accounts.login('alice@x.example', b'secret-enough')
    assert again.verdict is Verdict.WELCOME
    wrong = accounts.login('alice@x.example', b'secret-enougH')
    assert wrong.verdict is Verdict.DENIED
    # … also right after a right one, when the right one is remembered.
    assert accounts.login('alice@x.example', b'secret-enough').account


def test_parallel_first_logins_make_one_account_with_the_first_password() -> None:
    store = Memory()
    accounts = registry(store)
    jobs = [
        gevent.spawn(accounts.login, 'alice@x.example', given)
        for given in (b'password-one', b'password-one', b'password-two')
    ]
    gevent.joinall(jobs, raise_error=True)
    assert [job.value.verdict for job in jobs] == [
        Verdict.CREATED,
        Verdict.WELCOME,
        Verdict.DENIED,
    ]
    assert len(store.rows) == 1
    assert not accounts._locks


@pytest.mark.parametrize(
    ('address', 'given', 'settings'),
    [
        ('postmaster@x.example', b'long enough', {}),
        ('my-mailer-daemon1@x.example', b'long enough', {}),
        ('alice@x.example', b'admin', {}),
        ('alice@x.example', b'', {}),
        ('alice@x.example', b'p' * 2000, {}),
        ('ab@x.example', b'long enough', {}),
        ('alice+tag@x.example', b'long enough', {}),
        ('alice@x.example', b'long enough', {'accounts__jit': False}),
        ('alice@x.example', b'long enough', {'accounts__registration': 'closed'}),
        ('alice@x.example', b'long enough', {'accounts__registration': 'token'}),
        ('blocked@x.example', b'long enough', {}),
    ],
)
def test_names_and_passwords_against_the_rules_look_like_a_wrong_password(
    address: str, given: bytes, settings: dict[str, object]
) -> None:
    store = Memory()
    accounts = registry(store, frozenset({'blocked@x.example'}), **settings)
    assert accounts.login(address, given).verdict is Verdict.DENIED
    assert not store.rows


def test_a_changed_password_ends_the_memory_of_the_old_one() -> None:
    store = Memory()
    accounts = registry(store)
    accounts.login('alice@x.example', b'first-password')
    row = store.rows['alice@x.example']
    store.rows['alice@x.example'] = row._replace(password=accounts.encode(b'second-password'))
    assert accounts.login('alice@x.example', b'first-password').verdict is Verdict.DENIED
    assert accounts.login('alice@x.example', b'second-password').verdict is Verdict.WELCOME


class Keeper:
    """A gatekeeper that says `answer`."""

    def __init__(self, answer: str = '') -> None:
        self.answer = answer
        self.asked: list[object] = []
        self.inside = 0

    def enter(self, origin: object) -> str:
        self.asked.append(origin)
        self.inside += not self.answer
        return self.answer

    def leave(self) -> None:
        self.inside -= 1


@pytest.mark.parametrize('reason', ['disk', 'memory', 'load', 'flood', 'accounts'])
def test_a_refused_stranger_may_come_again_and_a_user_is_not_asked(reason: str) -> None:
    store, keeper = Memory(), Keeper()
    accounts = Accounts(store, Settings.defaults(), SECRET, frozenset(), offload, keeper)
    assert accounts.login('alice@x.example', b'secret-enough', (1, 2)).verdict is Verdict.CREATED
    keeper.answer = reason
    assert accounts.login('bob@x.example', b'secret-enough', (1, 2)).verdict is Verdict.TROUBLE
    assert accounts.login('alice@x.example', b'secret-enough', (1, 2)).verdict is Verdict.WELCOME
    assert keeper.asked == [(1, 2), (1, 2)]
    assert keeper.inside == 0
    later = reason in ('flood', 'accounts')
    assert accounts.register('bob@x.example', b'secret-enough', (3, 4)) is (
        Made.LATER if later else Made.SHORT
    )
    assert list(store.rows) == ['alice@x.example']


def test_who_breaks_the_rules_is_not_counted() -> None:
    keeper = Keeper()
    accounts = Accounts(Memory(), Settings.defaults(), SECRET, frozenset(), offload, keeper)
    assert accounts.login('root@x.example', b'secret-enough').verdict is Verdict.DENIED
    assert accounts.register('root@x.example', b'secret-enough', ()) is Made.NAME
    assert accounts.register('alice@x.example', b'short', ()) is Made.PASSWORD
    assert keeper.asked == []


def test_a_verifier_from_elsewhere_is_replaced_at_the_first_login() -> None:
    store = Memory()
    accounts = registry(store)
    digest = b64encode(sha256(b'\0' * 16 + b'some password').digest()).decode()
    old = f'sha256:{b64encode(bytes(16)).decode()}:{digest}'
    store.rows['alice@x.example'] = Account(1, 'alice@x.example', old, 0, 0, -1)
    assert accounts.login('alice@x.example', b'wrong password').verdict is Verdict.DENIED
    assert store.rows['alice@x.example'].password == old
    assert accounts.login('alice@x.example', b'some password').verdict is Verdict.WELCOME
    assert store.rows['alice@x.example'].password.startswith('scrypt:')
    assert accounts.login('alice@x.example', b'some password').verdict is Verdict.WELCOME
    assert accounts.login('alice@x.example', b'wrong password').verdict is Verdict.DENIED


def test_an_improvement_does_not_undo_a_change_of_the_password() -> None:
    store = Memory()
    accounts = registry(store)
    digest = b64encode(sha256(b'\0' * 16 + b'some password').digest()).decode()
    old = f'sha256:{b64encode(bytes(16)).decode()}:{digest}'
    store.rows['alice@x.example'] = Account(1, 'alice@x.example', old, 0, 0, -1)
    changed = accounts.encode(b'another password')

    def change() -> None:
        row = store.rows['alice@x.example']
        store.rows['alice@x.example'] = row._replace(password=changed)

    login = gevent.spawn(accounts.login, 'alice@x.example', b'some password')
    gevent.sleep(0.0005)  # while the old password is being checked
    change()
    login.join()
    assert store.rows['alice@x.example'].password == changed
    assert accounts.login('alice@x.example', b'some password').verdict is Verdict.DENIED


def test_the_login_day_is_written_once_a_day() -> None:
    store = Memory()
    accounts = registry(store)
    accounts.login('alice@x.example', b'secret-enough')
    store.rows['alice@x.example'] = store.rows['alice@x.example']._replace(last_login_day=today())
    store.logins.clear()
    accounts.login('alice@x.example', b'secret-enough')
    assert store.logins == []
    assert today(1_000_000) % 86400 == 0


def test_length_rules_follow_the_settings() -> None:
    settings = Settings.defaults(accounts__username_min_length=9, accounts__username_max_length=9)
    assert names.creatable('abcdefghi', settings)
    assert not names.creatable('abcdefgh', settings)
    assert not names.creatable('abcdefghij', settings)


def slow_registry(store: Memory, blocked: set[str], meanwhile: Any) -> Accounts:
    """One that does `meanwhile` when the first password has been checked in a thread."""
    waiting = [meanwhile]

    def slowly(function: Any, *arguments: Any) -> Any:
        result = function(*arguments)
        if function is verifiers.verify and waiting:
            waiting.pop()()
        return result

    return Accounts(store, Settings.defaults(), SECRET, blocked, slowly)


def test_what_happens_to_an_account_during_the_check_counts() -> None:
    given = b'password of a person'
    for end in ('deleted', 'blocked', 'locked', 'changed'):
        store, blocked = Memory(), set[str]()
        store.create_account('alice@x.example', verifiers.encode(given, SECRET), today())
        row = store.rows['alice@x.example']

        def meanwhile(
            end: str = end, store: Memory = store, blocked: set[str] = blocked, row: Account = row
        ) -> None:
            if end == 'deleted':
                store.rows.clear()
            elif end == 'blocked':
                blocked.add(row.address)
            else:
                other = verifiers.LOCKED
                if end == 'changed':
                    other = verifiers.encode(b'another password', SECRET)
                store.rows[row.address] = row._replace(password=other)

        accounts = slow_registry(store, blocked, meanwhile)
        assert accounts.login('alice@x.example', given).verdict is Verdict.DENIED, end
        assert store.logins == []


def test_a_verifier_that_another_login_has_replaced_is_no_wrong_password() -> None:
    given = b'password of a person'
    store = Memory()
    store.create_account('alice@x.example', verifiers.encode(given, SECRET), today())
    row = store.rows['alice@x.example']

    def meanwhile() -> None:
        store.rows[row.address] = row._replace(password=verifiers.encode(given, SECRET))

    accounts = slow_registry(store, set(), meanwhile)
    assert accounts.login('alice@x.example', given).verdict is Verdict.WELCOME
