"""What the doctor says of calls, channels, notifications and the proxy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from madmail.admin import doctor_services as checks
from madmail.admin.finding import BAD, OK, WARN, Check
from madmail.cli.access import Access

Examine = Callable[..., dict[str, tuple[str, str]]]
QUIET = {
    'turn': {'octets': {}},
    'iroh': {'octets': {}},
    'shadowsocks': {},
    'courier': {'push': {}},
    'shard': {'push_waiting': 3},
}


@pytest.fixture
def examine(open_relay: Callable[..., Access], monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Level and words of the worst finding of a check, on a relay said to run."""

    def look(
        check: Check, statistics: dict[str, Any], uptime: int = 3600, **settings: Any
    ) -> tuple[str, str]:
        kind = {'push': 'courier', 'proxy': 'shadowsocks'}.get(check.__name__, check.__name__)
        told = {
            'boot_time': time.time() - uptime,
            'children': [
                {'kind': one, 'statistics': {**quiet, **(statistics if one == kind else {})}}
                for one, quiet in QUIET.items()
            ],
        }
        relay = open_relay(f'state-{time.monotonic_ns()}', **settings)
        with monkeypatch.context() as patch:
            patch.setattr(relay, 'running', True)
            patch.setattr(relay, 'ask_master', lambda request: told)
            found = list(check(relay))
        assert all(one.level == OK or one.advice for one in found)
        found.sort(key=lambda one: (OK, WARN, BAD).index(one.level))
        return found[-1][1:3] if found else ('', '')

    return look  # type: ignore[return-value]


TURN = {'octets': {'turn': {'received': 1, 'sent': 2}}}
IROH = {'octets': {'iroh': {'received': 1, 'sent': 2}}}
PROXY = {
    'shadowsocks.enabled': True,
    'shadowsocks.cipher': 'aes-256-gcm',
    'shadowsocks.password': 'a password of some length',
}


@pytest.mark.parametrize(
    ('check', 'own', 'settings'),
    [
        (checks.turn, TURN, {'listen.turn': ['0.0.0.0:3478']}),
        (checks.iroh, IROH, {'listen.iroh': ['0.0.0.0:3340']}),
        (checks.proxy, {}, {**PROXY, 'listen.shadowsocks': ['0.0.0.0:8388']}),
    ],
)
class TestOneThatAnswersOrNot:
    def test_fine(self, examine: Examine, check: Check, own: Any, settings: Any) -> None:
        level, seen = examine(check, {**own, 'answers': True}, **settings)
        assert (level, 'answers' in seen) == (OK, True)

    def test_silent(self, examine: Examine, check: Check, own: Any, settings: Any) -> None:
        level, seen = examine(check, {**own, 'answers': False}, **settings)
        assert (level, 'does not answer' in seen) == (BAD, True)

    def test_not_yet(self, examine: Examine, check: Check, own: Any, settings: Any) -> None:
        level, seen = examine(check, {**own, 'answers': False}, 5, **settings)
        assert (level, 'not answered yet' in seen) == (WARN, True)


def test_what_is_off_is_no_finding(examine: Examine) -> None:
    assert examine(checks.turn, {}, **{'turn.enabled': False}) == ('', '')
    assert examine(checks.iroh, {}, **{'iroh.enabled': False}) == ('', '')
    assert examine(checks.proxy, {}) == ('', '')
    level, seen = examine(checks.push, {}, **{'push.mode': 'off'})
    assert (level, 'notifications are off' in seen) == (OK, True)


def test_on_and_listening_nowhere(examine: Examine) -> None:
    nowhere = {'listen.turn': [], 'listen.turns': []}
    level, seen = examine(checks.turn, TURN, **nowhere)
    assert (level, 'listens nowhere' in seen) == (WARN, True)  # on without anybody's doing
    assert examine(checks.proxy, {}, **PROXY, **{'listen.shadowsocks': []})[0] == BAD
    nowhere = {'listen.iroh': [], 'listen.http': [], 'listen.https': []}
    level, seen = examine(checks.iroh, {**IROH, 'answers': False}, **nowhere)
    assert (level, 'nothing leads to it' in seen) == (WARN, True)
    https = {**nowhere, 'listen.https': ['0.0.0.0:443']}
    level, seen = examine(checks.iroh, {**IROH, 'answers': True}, **https)
    assert (level, 'no address' in seen) == (BAD, True)


def test_turn_of_a_public_relay_that_only_this_host_reaches(examine: Examine) -> None:
    level, seen = examine(
        checks.turn, {**TURN, 'answers': True}, **{'listen.turn': ['127.0.0.1:3478']}
    )
    assert (level, 'this host only' in seen) == (WARN, True)


def test_turn_without_an_address_of_the_form_that_clients_read(examine: Examine) -> None:
    level, seen = examine(checks.turn, {**TURN, 'answers': True}, domain='[2001:db8::1]')
    assert (level, 'IPv6' in seen) == (BAD, True)


def test_push_while_the_service_answers_and_while_it_does_not(examine: Examine) -> None:
    assert examine(checks.push, {}) == (OK, '3 devices wait to be told of mail')
    level, seen = examine(checks.push, {'push_paused': True, 'push_failures': 7})
    assert (level, '7 times in a row' in seen) == (WARN, True)
    level, seen = examine(checks.push, {'push_paused': True})
    assert (level, 'asks to be left alone' in seen) == (WARN, True)
    assert examine(checks.push, {'push_failures': 9}, **{'push.mode': 'on'})[0] == WARN
