"""First logins create, later ones check, and two at once are one after another."""

from __future__ import annotations

import gevent
import pytest

from madmail.account import names
from madmail.account.registry import Accounts, Verdict, today
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


def offload(function, *arguments):
    gevent.sleep(0.001)
    return function(*arguments)


def registry(store: Memory, blocked: frozenset[str] = frozenset(), **settings: object) -> Accounts:
    return Accounts(store, Settings.defaults(**settings), SECRET, blocked, offload)


def test_the_first_login_creates_and_the_next_is_welcome() -> None:
    store = Memory()
    accounts = registry(store)
    first = accounts.login('alice@x.example', b'secret-enough', may_register=True)
    assert first.verdict is Verdict.CREATED
    again = accounts.login('alice@x.example', b'secret-enough', may_register=False)
    assert again.verdict is Verdict.WELCOME
    wrong = accounts.login('alice@x.example', b'secret-enougH', may_register=True)
    assert wrong.verdict is Verdict.DENIED
    # … also right after a right one, when the right one is remembered.
    assert accounts.login('alice@x.example', b'secret-enough', may_register=True).account


def test_parallel_first_logins_make_one_account_with_the_first_password() -> None:
    store = Memory()
    accounts = registry(store)
    jobs = [
        gevent.spawn(accounts.login, 'alice@x.example', given, may_register=True)
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
    ('address', 'given', 'settings', 'register'),
    [
        ('postmaster@x.example', b'long enough', {}, True),
        ('my-mailer-daemon1@x.example', b'long enough', {}, True),
        ('alice@x.example', b'admin', {}, True),
        ('alice@x.example', b'', {}, True),
        ('alice@x.example', b'p' * 2000, {}, True),
        ('ab@x.example', b'long enough', {}, True),
        ('alice+tag@x.example', b'long enough', {}, True),
        ('alice@x.example', b'long enough', {'accounts__jit': False}, True),
        ('alice@x.example', b'long enough', {'accounts__registration': 'closed'}, True),
        ('alice@x.example', b'long enough', {}, False),
        ('blocked@x.example', b'long enough', {}, True),
    ],
)
def test_names_and_passwords_against_the_rules_look_like_a_wrong_password(
    address: str, given: bytes, settings: dict[str, object], register: bool
) -> None:
    store = Memory()
    accounts = registry(store, frozenset({'blocked@x.example'}), **settings)
    assert accounts.login(address, given, may_register=register).verdict is Verdict.DENIED
    assert not store.rows


def test_a_changed_password_ends_the_memory_of_the_old_one() -> None:
    store = Memory()
    accounts = registry(store)
    accounts.login('alice@x.example', b'first-password', may_register=True)
    row = store.rows['alice@x.example']
    store.rows['alice@x.example'] = row._replace(password=accounts.encode(b'second-password'))
    assert (
        accounts.login('alice@x.example', b'first-password', may_register=True).verdict
        is Verdict.DENIED
    )
    assert (
        accounts.login('alice@x.example', b'second-password', may_register=True).verdict
        is Verdict.WELCOME
    )


def test_the_login_day_is_written_once_a_day() -> None:
    store = Memory()
    accounts = registry(store)
    accounts.login('alice@x.example', b'secret-enough', may_register=True)
    store.rows['alice@x.example'] = store.rows['alice@x.example']._replace(last_login_day=today())
    store.logins.clear()
    accounts.login('alice@x.example', b'secret-enough', may_register=True)
    assert store.logins == []
    assert today(1_000_000) % 86400 == 0


def test_length_rules_follow_the_settings() -> None:
    settings = Settings.defaults(accounts__username_min_length=9, accounts__username_max_length=9)
    assert names.creatable('abcdefghi', settings)
    assert not names.creatable('abcdefgh', settings)
    assert not names.creatable('abcdefghij', settings)
