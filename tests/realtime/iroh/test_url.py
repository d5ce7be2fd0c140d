"""What clients are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from madmail.realtime.iroh import probe
from madmail.realtime.iroh.url import NAME, SECURE, relay_url
from madmail.settings import SettingError, Settings

BOTH = {NAME, SECURE}


def url(up: set[str], **more: object) -> str:
    settings = Settings.defaults({'domain': 'chat.example', **more})
    return relay_url(settings, up.__contains__)


@pytest.mark.parametrize(
    ('settings', 'up', 'expected'),
    [
        ({}, {NAME}, 'http://chat.example:3340'),
        ({}, BOTH, 'https://chat.example'),
        ({}, set(), ''),
        ({}, {SECURE}, ''),
        ({'iroh.enabled': False}, BOTH, ''),
        ({'iroh.relay_url': 'https://else.example:4'}, {NAME}, 'https://else.example:4'),
        ({'iroh.relay_url': 'https://else.example:4'}, set(), ''),
        ({'relay.hostname': 'mail.chat.example'}, {NAME}, 'http://mail.chat.example:3340'),
        ({'domain': '203.0.113.5'}, {NAME}, 'http://203.0.113.5:3340'),
        ({'domain': '2001:db8::5'}, {NAME}, 'http://[2001:db8::5]:3340'),
        ({'domain': '203.0.113.5'}, BOTH, 'https://203.0.113.5'),
        ({'domain': '2001:db8::5'}, BOTH, 'http://[2001:db8::5]:3340'),
        ({'listen.iroh': '0.0.0.0:80'}, {NAME}, 'http://chat.example'),
        ({'listen.iroh': ['127.0.0.1:1', '0.0.0.0:2']}, {NAME}, 'http://chat.example:2'),
        ({'listen.iroh': '127.0.0.1:1'}, {NAME}, 'http://chat.example:1'),
        ({'listen.http': '0.0.0.0:80'}, {NAME}, 'http://chat.example'),
        ({'listen.https': '0.0.0.0:8443'}, BOTH, 'https://chat.example:8443'),
        ({'listen.https': '0.0.0.0:8443'}, {NAME}, ''),
    ],
)
def test_the_url_is_one_that_works(
    settings: dict[str, object], up: set[str], expected: str
) -> None:
    assert url(up, **settings) == expected


@pytest.mark.parametrize(
    'given',
    [
        'ftp://x',
        'https://',
        'https://x/relay',
        'chat.example',
        'https://x:0',
        'http://a b',
        'x' * 9,
    ],
)
def test_a_url_that_cannot_work_is_refused(given: str) -> None:
    with pytest.raises(SettingError):
        Settings.defaults({'iroh.relay_url': given})


def test_without_https_no_certificate_is_trusted(tmp_path: Path) -> None:
    assert not probe.trusted(Settings.defaults({'listen.https': ()}))
    assert not probe.trusted(Settings.defaults())  # self-signed
