"""Who gets an account on a running relay, and that those who have one never notice."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from madmail.account import hashing
from madmail.admin import registration, tokens
from madmail.admin.refused import Refused
from madmail.cli.access import Access
from madmail.settings import load
from tests.system.relay import Relay, client_tls

WEAK = 'correct horse'
FLOOD = {
    'limits.registrations_per_minute_per_ip': 5,
    'limits.registrations_per_minute_per_network': 12,
    'limits.registrations_per_minute': 30,
}
# SHA-crypt of "Hello world!", by its specification
SHA_CRYPT = '$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5'


class Refusal(Exception):
    """What the server said instead of OK."""


@contextlib.contextmanager
def imap_from(source: str, relay: Relay, address: str, password: str) -> Iterator[ssl.SSLSocket]:
    """A login over IMAP from a loopback address; raises Refusal."""
    with (
        socket.create_connection(
            ('127.0.0.1', relay.ports['imaps']), 20, source_address=(source, 0)
        ) as plain,
        client_tls().wrap_socket(plain) as stream,
    ):
        lines = stream.makefile('rb')
        assert lines.readline().startswith(b'* OK')
        stream.sendall(f'a LOGIN "{address}" "{password}"\r\n'.encode())
        answer = lines.readline().decode()
        if not answer.startswith('a OK'):
            raise Refusal(answer.strip())
        yield stream


def login(source: str, relay: Relay, address: str, password: str) -> str:
    """'' or what was said."""
    try:
        with imap_from(source, relay, address, password):
            return ''
    except Refusal as refusal:
        return str(refusal)


def submission(relay: Relay, address: str, password: str) -> str:
    """The answer to AUTH."""
    from base64 import b64encode

    word = b64encode(f'\0{address}\0{password}'.encode()).decode()
    with relay.connect('submissions') as stream:
        lines = stream.makefile('rb')
        lines.readline()
        stream.sendall(f'EHLO x\r\nAUTH PLAIN {word}\r\n'.encode())
        while (line := lines.readline().decode()) and re.match(r'220|250', line):
            pass
        return line.strip()


def ask(relay: Relay, *words: str) -> Any:
    return json.loads(relay.cli('--json', *words).stdout)['data']


@contextlib.contextmanager
def setting(relay: Relay, name: str, value: str) -> Iterator[None]:
    """A live setting for a while."""
    with Access(load(relay.config)) as access:
        access.control.set_setting(name, value)
        access.publish('settings', {})
    try:
        yield
    finally:
        with Access(load(relay.config)) as access:
            access.control.remove_setting(name)
            access.publish('settings', {})


def eventually(condition: Callable[[], bool]) -> bool:
    """A live setting takes a moment to reach all processes."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_first_logins_make_accounts_or_not_as_switched_live(relay: Relay) -> None:
    known, password = relay.account()
    for words, makes in (
        (('jit', 'disable'), False),
        (('jit', 'enable'), True),
        (('registration', 'close'), True),
        (('jit', 'auto'), False),
        (('registration', 'token'), False),
        (('registration', 'open'), True),
    ):
        ask(relay, *words)
        address, fresh = relay.credentials()
        said = login('127.0.0.1', relay, address, fresh)
        assert (said == '') is makes, words
        if not makes:
            assert said == 'a NO [AUTHENTICATIONFAILED] Authentication failed'
            assert submission(relay, address, fresh).startswith('535 ')
        assert login('127.0.0.1', relay, known, password) == ''


def test_parallel_guests_never_overdraw_a_token(relay: Relay) -> None:
    token = ask(relay, 'tokens', 'create', '--max-uses', '10')['token']

    def guest(_: int) -> dict[str, str] | str:
        with Access(load(relay.config)) as access:
            try:
                return registration.create_account(access, token=token)
            except Refused as refused:
                return refused.text

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(guest, range(50)))
    made = [answer for answer in answers if isinstance(answer, dict)]
    assert len(made) == 10
    assert {answer for answer in answers if isinstance(answer, str)} == {
        'Invalid registration token: fully used'
    }
    data = ask(relay, 'tokens', 'status', token)
    assert (data['status'], data['used_count'], data['pending']) == ('exhausted', 0, 10)
    for account in made:
        assert login('127.0.0.1', relay, account['email'], account['password']) == ''
    data = ask(relay, 'tokens', 'status', token)
    assert (data['status'], data['used_count'], data['pending']) == ('exhausted', 10, 0)
    ask(relay, 'tokens', 'delete', token)
    assert login('127.0.0.1', relay, made[0]['email'], made[0]['password']) == ''


def test_a_flood_from_a_network_does_not_touch_its_users(room: Path) -> None:
    with Relay(room, FLOOD) as relay:
        relay.imap(*(user := relay.credentials('user'))).logout()  # one from 127.0.0.1
        neighbour = relay.credentials('neighbour')
        assert login('127.0.9.200', relay, *neighbour) == ''

        def strangers(source: str, count: int) -> list[str]:
            with ThreadPoolExecutor(8) as pool:
                logins = [relay.credentials('bot') for _ in range(count)]
                return list(pool.map(lambda one: login(source, relay, *one), logins))

        said = strangers('127.0.9.1', 15)
        # Shards ask without a lock, so two that ask at one moment may let one more in.
        assert 5 <= said.count('') <= 6
        assert {answer.split('] ')[0] for answer in said if answer} == {'a NO [UNAVAILABLE'}
        for last in range(2, 6):
            strangers(f'127.0.9.{last}', 4)
        assert login('127.0.9.77', relay, *relay.credentials('bot')).startswith('a NO [UNAVAIL')
        # The neighbour comes and goes, also from the address of the worst.
        for source in ('127.0.9.200', '127.0.9.1', '127.0.9.5'):
            assert login(source, relay, *neighbour) == ''
        assert login('127.0.9.1', relay, neighbour[0], 'wrong password').startswith(
            'a NO [AUTHENTICATIONFAILED'
        )
        # Another network is not meant, until it is too much in all.
        assert login('127.0.10.1', relay, *relay.credentials('guest')) == ''
        for number in range(11, 20):
            strangers(f'127.0.{number}.1', 4)
        assert login('127.0.77.1', relay, *relay.credentials('guest')).startswith('a NO [UNAVAIL')
        assert submission(relay, *relay.credentials('guest')).startswith('454 4.7.0')
        assert login('127.0.0.1', relay, *user) == ''
        count = ask(relay, 'accounts', 'status')['login_count']
        assert 30 <= count <= 32
        refused: dict[str, int] = {}
        for child in json.loads(relay.cli('--json', 'status').stdout)['data']['children']:
            refused |= child['statistics'].get('registrations_refused', {})
        assert refused.keys() == {'flood'}
        # An operator is not a stranger.
        assert '@' in ask(relay, 'accounts', 'create-random')['email']


def test_a_guest_by_the_web_counts_with_those_who_log_in(room: Path) -> None:
    with Relay(room, FLOOD) as relay, Access(load(relay.config)) as access:
        origin = (secrets.randbits(64), secrets.randbits(64))
        for _ in range(5):
            registration.create_account(access, origin=origin)
        token = tokens.create(access)['token']
        with pytest.raises(Refused) as refusal:
            registration.create_account(access, origin=origin, token=token)
        assert refusal.value.word == 'unavailable'
        assert tokens.status(access, token)['available'] == 1
        registration.create_account(access, origin=(1, origin[1]), token=token)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('limits.disk_reserve', '900T'),
        ('limits.memory_reserve', '900T'),
        ('limits.accounts', '1'),
    ],
)
def test_without_room_new_accounts_wait_and_old_ones_are_served(
    relay: Relay, name: str, value: str
) -> None:
    user = relay.account()
    with setting(relay, name, value):
        assert eventually(lambda: login('127.0.0.1', relay, *relay.credentials()) != '')
        stranger = relay.credentials()
        assert login('127.0.0.1', relay, *stranger).startswith('a NO [UNAVAILABLE]')
        assert submission(relay, *stranger).startswith('454 4.7.0')
        assert login('127.0.0.1', relay, *user) == ''
        with Access(load(relay.config)) as access, pytest.raises(Refused) as refusal:
            registration.create_account(access)
        assert refusal.value.word == 'unavailable'
        assert login('127.0.0.1', relay, stranger[0], 'another password').startswith('a NO')
    assert eventually(lambda: login('127.0.0.1', relay, *stranger) == '')


def test_imported_accounts_of_every_form_log_in(relay: Relay, tmp_path: Path) -> None:
    given = WEAK.encode()
    entries = {
        'sha-256': (hashing.sha256(given), WEAK),
        'bcrypt': (hashing.bcrypt(given), WEAK),
        'bare-bcrypt': (hashing.bcrypt(given, 4).removeprefix('bcrypt:'), WEAK),
        'argon': (hashing.argon2(given), WEAK),
        'sha-crypt': (SHA_CRYPT, 'Hello world!'),
    }
    file = tmp_path / 'accounts.json'
    file.write_text(json.dumps([{'username': n, 'hash': h} for n, (h, _) in entries.items()]))
    assert ask(relay, 'accounts', 'import', str(file))['imported'] == len(entries)
    for round_ in range(2):  # by the imported hash, then by ours
        for name, (_, password) in entries.items():
            address = f'{name}@{relay.domain}'
            wrong = login('127.0.0.1', relay, address, password + '.')
            assert wrong == 'a NO [AUTHENTICATIONFAILED] Authentication failed', (round_, name)
            assert login('127.0.0.1', relay, address, password) == '', (round_, name)
    users = {one['username']: one['hash'] for one in ask(relay, 'accounts', 'export')['users']}
    kept = {name: users[f'{name}@{relay.domain}'].partition(':')[0] for name in entries}
    assert kept == {
        'sha-256': 'scrypt',
        'bcrypt': 'bcrypt',  # harder to guess than ours
        'bare-bcrypt': 'scrypt',
        'argon': 'scrypt',
        'sha-crypt': 'scrypt',
    }


def test_the_end_of_all_accounts_ends_their_sessions(room: Path) -> None:
    with Relay(room) as relay:
        first, second = relay.account(), relay.account()
        with imap_from('127.0.0.1', relay, *first) as stream:
            assert ask(relay, 'accounts', 'delete-all', '-y') == {'deleted': 2}
            stream.settimeout(20)
            rest = b''
            while data := stream.recv(4096):
                rest += data
            assert rest.startswith(b'* BYE')
        for user in (first, second):
            assert login('127.0.0.1', relay, *user).startswith('a NO [AUTHENTICATIONFAILED')
        assert ask(relay, 'accounts', 'status')['blocklisted'] == 2
