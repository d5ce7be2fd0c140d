"""When certificates are ordered, for which names, and how they are put in place."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from madmail.settings import Settings
from madmail.tls import acme, acme_schedule, self_signed
from madmail.tls.acme import Held, State
from madmail.tls.acme_names import Found, Names, names
from madmail.tls.certificate import describe, verifiable
from madmail.tls.context import ServerTLS
from tests.tls.authority import Authority

DAY, HOUR = 86_400, 3600
NOW = 1_800_000_000
SOURCE = 'https://authority.example/dir'


def held(left: int, life: int = 90 * DAY, *given: str) -> Held:
    end = NOW + left
    return Held(end - life, end, frozenset(given or ('chat.example',)), 'digest')


class TestSchedule:
    def test_a_third_of_the_life_is_left_at_renewal_and_half_of_a_short_one(self) -> None:
        assert acme_schedule.renewal(0, 90 * DAY) == 60 * DAY
        assert acme_schedule.renewal(0, 160 * HOUR) == 80 * HOUR

    def test_the_authority_may_suggest_another_time_but_not_one_too_late(self) -> None:
        assert acme_schedule.renewal(0, 90 * DAY, 20 * DAY) == 20 * DAY
        assert acme_schedule.renewal(0, 90 * DAY, 70 * DAY) == 70 * DAY
        assert acme_schedule.renewal(0, 90 * DAY, 89 * DAY) == 75 * DAY

    def due(self, found: Held | None, state: State | None = None, *more: str) -> int:
        return acme_schedule.due(
            found, ['chat.example', *more], SOURCE, state or State(source=SOURCE), NOW
        )

    def test_without_a_certificate_it_is_due(self) -> None:
        assert self.due(None) == NOW

    def test_it_is_due_when_its_time_has_come(self) -> None:
        assert self.due(held(30 * DAY)) == NOW
        assert self.due(held(31 * DAY)) == NOW + DAY

    def test_a_suggestion_counts_for_its_own_certificate_only(self) -> None:
        state = State(source=SOURCE, renew_at=NOW + 5, renew_for='digest')
        assert self.due(held(80 * DAY), state) == NOW + 5
        state.renew_for = 'another'
        assert self.due(held(80 * DAY), state) == NOW + 50 * DAY

    def test_it_is_due_for_a_new_name_and_from_another_authority(self) -> None:
        assert self.due(held(80 * DAY), None, 'mta-sts.chat.example') == NOW
        assert self.due(held(80 * DAY), State(source='https://other.example/dir')) == NOW
        assert self.due(held(80 * DAY), State()) == NOW + 50 * DAY  # it is not known from where

    def test_a_refused_name_is_left_alone_for_a_week(self) -> None:
        state = State(refused={'www.chat.example': NOW - DAY})
        others = ['www.chat.example', 'mta-sts.chat.example']
        wanted = acme_schedule.wanted('chat.example', others, state, NOW)
        assert wanted == ['chat.example', 'mta-sts.chat.example']
        later = NOW + 6 * DAY
        assert acme_schedule.wanted('chat.example', others, state, later) == [
            'chat.example',
            *others,
        ]
        assert acme_schedule.left_out(state, NOW) == ['www.chat.example']
        assert acme_schedule.left_out(state, later) == []

    def test_pauses_grow_up_to_a_quarter_of_a_day(self) -> None:
        pauses = [acme_schedule.pause(n, '', 0.0) for n in range(1, 9)]
        assert pauses[:4] == [HOUR // 4, HOUR // 2, HOUR, 2 * HOUR]
        assert pauses[-1] == acme_schedule.pause(10_000, '', 0.0) == 6 * HOUR
        assert acme_schedule.pause(1, 'rateLimited', 0.0) == 6 * HOUR
        assert acme_schedule.pause(1, '', 1.0) == HOUR // 4 + HOUR // 16

    def test_they_are_as_long_as_the_authority_asks_up_to_a_day(self) -> None:
        assert acme_schedule.pause(1, 'rateLimited', 0.0, 60.0) == HOUR // 4
        assert acme_schedule.pause(1, 'rateLimited', 0.0, 9 * HOUR) == 9 * HOUR
        assert acme_schedule.pause(1, 'rateLimited', 1.0, 9 * HOUR) == 9 * HOUR + HOUR // 4
        assert acme_schedule.pause(10, '', 0.0, 60.0) == 6 * HOUR
        assert acme_schedule.pause(1, '', 0.0, 1e9) == DAY

    @given(st.lists(st.floats(0, 1), min_size=40, max_size=40))
    def test_no_hour_has_five_tries_however_it_fails(self, spreads: list[float]) -> None:
        state, now, tries = State(), NOW, []
        for number, spread in enumerate(spreads, 1):
            now = acme_schedule.next_try(now, state, now)
            tries.append(now)
            state.tries.append(now)
            state.failures = number
            state.next = now + acme_schedule.pause(number, '', spread)
        assert all(b - a >= HOUR for a, b in zip(tries, tries[4:], strict=False))

    def test_who_asks_by_hand_has_four_tries_an_hour(self) -> None:
        state = State(tries=[NOW - 2 * HOUR, NOW - 30, NOW - 20, NOW - 10])
        assert acme_schedule.allowed(state, NOW) == NOW
        state.tries.append(NOW)
        assert acme_schedule.allowed(state, NOW) == NOW - 30 + HOUR

    def test_tries_of_a_clock_that_was_ahead_do_not_count(self) -> None:
        assert acme_schedule.allowed(State(tries=[NOW + DAY] * 8), NOW) == NOW

    def test_nor_does_anything_else_that_it_has_left(self) -> None:
        ahead = NOW + 400 * DAY
        state = State(failures=3, next=ahead, ask_at=ahead, refused={'www.chat.example': ahead})
        assert acme_schedule.next_try(NOW, state, NOW) == NOW
        assert acme_schedule.asks(state, NOW)
        names = 'chat.example', 'www.chat.example'
        assert acme_schedule.wanted(names[0], names[1:], state, NOW) == list(names)
        assert acme_schedule.wanted(names[0], names[1:], State(), 5) == list(names)  # 1970
        state.next, state.ask_at = NOW + 6 * HOUR, NOW + DAY
        assert acme_schedule.next_try(NOW, state, NOW) == state.next
        assert not acme_schedule.asks(state, NOW)
        assert acme_schedule.asks(state, NOW + DAY)


class TestNames:
    ZONE: ClassVar = {
        'chat.example.org': ['192.0.2.1', '2001:db8::1'],
        'mta-sts.chat.example.org': ['192.0.2.1'],
        'www.chat.example.org': ['192.0.2.1', '192.0.2.9'],
        'mx.example.org': ['192.0.2.7'],
    }

    def ask(self, name: str) -> Found:
        return Found(self.ZONE.get(name, ()), name != 'lost.example.org')

    def names(self, **given: object) -> Names:
        return names(Settings.defaults({'tls.mode': 'acme', **given}), self.ask)

    def test_names_that_lead_here_and_nowhere_else_come_along(self) -> None:
        found = self.names(domain='chat.example.org')
        assert found == ('chat.example.org', ('mta-sts.chat.example.org',), '')

    def test_a_policy_that_is_not_served_needs_no_name(self) -> None:
        listeners = {'listen.http': '0.0.0.0:80', 'listen.https': '0.0.0.0:443'}  # and no SMTP
        found = self.names(domain='chat.example.org', **listeners)
        assert found.others == ()

    def test_what_clients_connect_to_goes_first(self) -> None:
        given = {'domain': 'chat.example.org', 'relay.hostname': 'mx.example.org'}
        assert self.names(**given) == ('mx.example.org', (), '')
        self.ZONE = {**self.ZONE, 'chat.example.org': ['192.0.2.7']}
        assert self.names(**given).others == ('chat.example.org',)

    @pytest.mark.parametrize(
        ('domain', 'why'),
        [
            ('localhost', 'not a public name'),
            ('relay.internal', 'not a public name'),
            ('192.168.1.1', 'not a public address'),
            ('::1', 'not a public address'),
            ('nowhere.example.org', 'no address in the DNS'),
        ],
    )
    def test_what_no_authority_certifies_is_told_before_it_is_asked(
        self, domain: str, why: str
    ) -> None:
        assert why in self.names(domain=domain).trouble

    def test_a_private_authority_may_certify_private_addresses(self) -> None:
        given = {'domain': '192.168.1.1', 'tls.acme_directory': SOURCE}
        assert self.names(**given) == ('192.168.1.1', (), '')

    def test_silent_name_servers_do_not_keep_us_from_asking(self) -> None:
        assert self.names(domain='lost.example.org') == ('lost.example.org', (), '')

    def test_addresses_need_no_name_server(self) -> None:
        assert self.names(domain='[8.8.8.8]') == ('8.8.8.8', (), '')
        assert self.names(domain='2001:4860:4860::8888').first == '2001:4860:4860::8888'


def pair(authority: Authority, *given: str) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
    files = authority.issue(*given)
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return files.certificate.read_bytes() + authority.root.read_bytes(), key


class TestFiles:
    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        (tmp_path / 'authority').mkdir()
        return Authority(tmp_path / 'authority')

    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        directory = tmp_path / 'tls'
        directory.mkdir()
        return directory

    def test_chain_and_key_are_one_private_file(
        self, authority: Authority, directory: Path
    ) -> None:
        chain, key = pair(authority, 'chat.example', '192.0.2.1')
        placed = acme.put(directory, chain, key, ['chat.example'])
        assert placed == acme.held(directory)
        assert placed.names == {'chat.example', '192.0.2.1'}
        (file,) = directory.iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        assert len(x509.load_pem_x509_certificates(file.read_bytes())) == 2
        found = acme.key(directory)
        assert found is not None
        assert found.public_key() == key.public_key()
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(file, file)

    def test_what_does_not_fit_leaves_the_old_one(
        self, authority: Authority, directory: Path
    ) -> None:
        chain, key = pair(authority, 'chat.example')
        acme.put(directory, chain, key, ['chat.example'])
        before = (directory / acme.PEM_FILE).read_bytes()
        other, _ = pair(authority, 'chat.example')
        for wrong, wanted, why in (
            (b'no certificate', 'chat.example', 'no certificate'),
            (other, 'chat.example', 'another key'),
            (chain, 'two.example', r'not for two\.example'),
        ):
            with pytest.raises(acme.Unfit, match=why):
                acme.put(directory, wrong, key, [wanted])
        with pytest.raises(acme.Unfit, match='ended already'):
            acme.put(directory, chain, key, ['chat.example'], NOW + 40_000 * DAY)
        assert (directory / acme.PEM_FILE).read_bytes() == before
        assert len(list(directory.iterdir())) == 1

    def test_the_state_comes_back_and_nonsense_is_nothing(self, directory: Path) -> None:
        state = State(began=NOW, error='two\nlines \x1b[2J' + 'x' * 2000, tries=[1, 2])
        acme.store(directory, state)
        again = acme.load(directory)
        assert again == state
        assert again.error.startswith('two lines [2Jxxx')
        assert len(again.error) == acme.ERROR_LIMIT
        for nonsense in ('{', '[]', '{"tries": 3}', '{"tries": ["x"]}', '{"began": "now"}'):
            (directory / acme.STATE_FILE).write_text(nonsense)
            assert acme.load(directory) == State()
        (directory / acme.STATE_FILE).write_text(json.dumps({'began': 5, 'of later': 1}))
        assert acme.load(directory) == State(began=5)

    def test_a_key_that_cannot_be_read_is_not_taken_for_none(self, directory: Path) -> None:
        assert acme.key(directory) is None
        (directory / acme.PEM_FILE).mkdir()  # as good as a file of somebody else
        with pytest.raises(OSError, match='directory'):
            acme.key(directory)
        assert acme.held(directory) is None

    def test_two_do_not_order_at_once(self, directory: Path) -> None:
        with acme.lock(directory), pytest.raises(acme.Busy), acme.lock(directory):
            pass
        with acme.lock(directory):
            pass


class TestServing:
    SETTINGS = Settings.defaults({'domain': 'chat.example', 'tls.mode': 'acme'})

    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        (tmp_path / 'authority').mkdir()
        return Authority(tmp_path / 'authority')

    def test_its_own_certificate_is_served_until_there_is_one(
        self, authority: Authority, tmp_path: Path
    ) -> None:
        tls = ServerTLS(self.SETTINGS, tmp_path)
        assert describe(self.SETTINGS, tmp_path)['cert_type'] == 'self-signed'
        assert not verifiable(self.SETTINGS, tmp_path)
        assert not tls.changed()
        acme.put(tmp_path / 'tls', *pair(authority, 'chat.example'), ['chat.example'])
        assert tls.changed()
        tls.reload()
        assert not tls.changed()
        assert describe(self.SETTINGS, tmp_path)['cert_type'] == 'issued'
        assert verifiable(self.SETTINGS, tmp_path)
        acme.put(tmp_path / 'tls', *pair(authority, 'chat.example'), ['chat.example'])
        assert tls.changed()

    def test_one_that_cannot_be_read_does_not_keep_the_relay_from_starting(
        self, authority: Authority, tmp_path: Path
    ) -> None:
        self_signed.ensure(tmp_path / 'tls', 'chat.example')
        (tmp_path / 'tls' / acme.PEM_FILE).write_text('half a file')
        tls = ServerTLS(self.SETTINGS, tmp_path)
        tls.context('imap')
        assert not tls.changed()  # nothing new
        acme.put(tmp_path / 'tls', *pair(authority, 'chat.example'), ['chat.example'])
        assert tls.changed()
        tls.reload()
        assert not tls.changed()

    def test_one_for_trials_proves_nothing_to_others(
        self, authority: Authority, tmp_path: Path
    ) -> None:
        (tmp_path / 'tls').mkdir()
        acme.put(tmp_path / 'tls', *pair(authority, 'chat.example'), ['chat.example'])
        assert verifiable(self.SETTINGS, tmp_path)
        trial = Settings.defaults(
            {'domain': 'chat.example', 'tls.mode': 'acme', 'tls.acme_directory': 'staging'}
        )
        assert not verifiable(trial, tmp_path)
