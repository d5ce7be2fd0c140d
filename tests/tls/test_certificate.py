"""The relay's certificate as its operator sees it, and whether others can verify it."""

from __future__ import annotations

from pathlib import Path

import pytest

from madmail.settings import Settings
from madmail.tls.certificate import verifiable
from tests.tls.authority import Authority, Pair

DOMAIN = 'relay.example'


def settings(pair: Pair, domain: str = DOMAIN) -> Settings:
    return Settings.defaults(
        domain=domain,
        tls__mode='file',
        tls__cert_file=str(pair.certificate),
        tls__key_file=str(pair.key),
    )


@pytest.mark.parametrize(
    ('names', 'signed', 'expected'),
    [
        ((DOMAIN,), True, True),
        (('Relay.Example', 'mta-sts.relay.example'), True, True),
        (('*.example',), True, True),
        (('other.example',), True, False),
        (('*.relay.example',), True, False),
        ((DOMAIN,), False, False),
    ],
)
def test_others_verify_what_was_issued_for_the_domain(
    tmp_path: Path, names: tuple[str, ...], signed: bool, expected: bool
) -> None:
    pair = Authority(tmp_path).issue(*names, signed=signed)
    assert verifiable(settings(pair), tmp_path) is expected


def test_nobody_verifies_what_has_ended(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue(DOMAIN, begins=-31, days=30)
    assert not verifiable(settings(pair), tmp_path)


def test_nobody_verifies_an_address_or_what_is_not_there(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue('192.0.2.1', DOMAIN)
    assert not verifiable(settings(pair, '192.0.2.1'), tmp_path)
    pair.certificate.unlink()
    assert not verifiable(settings(pair), tmp_path)
    assert not verifiable(Settings.defaults(domain=DOMAIN), tmp_path)
