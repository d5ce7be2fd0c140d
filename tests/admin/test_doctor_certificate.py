"""What the doctor says of a certificate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from madmail.admin import doctor
from madmail.admin.finding import BAD, OK, WARN
from madmail.admin.relay import Relay
from madmail.settings import Settings
from tests.tls.authority import Authority

Examine = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    authority = Authority(tmp_path)

    def examined(*names: str, begins: int = -1, **options: Any) -> list[tuple[str, str]]:
        pair = authority.issue(*names, begins=begins)
        settings = Settings.defaults(
            {
                'domain': 'chat.example',
                'tls.mode': 'file',
                'tls.cert_file': str(pair.certificate),
                'tls.key_file': str(pair.key),
                **{name.replace('__', '.'): value for name, value in options.items()},
            }
        )
        relay = SimpleNamespace(settings=settings, state_dir=tmp_path)
        return [(one.level, one.seen) for one in doctor.certificate(cast(Relay, relay))]

    return examined


def test_one_for_what_clients_connect_to_is_good(examine: Examine) -> None:
    for names in (('chat.example',), ('Chat.Example', 'www.chat.example'), ('*.example',)):
        assert [level for level, _ in examine(*names)] == [OK]
    other = {'relay__hostname': 'mx.chat.example'}
    assert [level for level, _ in examine('mx.chat.example', **other)] == [OK]


def test_one_for_another_name_is_not(examine: Examine) -> None:
    assert examine('other.example')[-1] == (BAD, 'it is not for chat.example')
    found = examine('chat.example', relay__hostname='mx.chat.example')
    assert found[-1] == (BAD, 'it is not for mx.chat.example')


def test_one_that_has_ended_ends_soon_or_has_not_begun_is_told(examine: Examine) -> None:
    for begins, level, word in ((-31, BAD, 'ended'), (-28, BAD, 'ends'), (-25, WARN, 'ends')):
        ((found, seen),) = examine('chat.example', begins=begins)
        assert (found, seen.split()[0]) == (level, word)
    ((found, seen),) = examine('chat.example', begins=2)
    assert (found, seen.split()[0]) == (BAD, 'begins')
