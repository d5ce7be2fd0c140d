"""Challenges of an authority for certificates, answered by the web workers."""

from __future__ import annotations

import pytest

from madmail.tls import challenges
from tests.web.conftest import WebRelay


def ask(relay: WebRelay, path: str, scheme: str = 'http') -> tuple[int, bytes, str]:
    client = relay.client(scheme)
    client.request('GET', path)
    answer = client.getresponse()
    found = answer.status, answer.read(), answer.getheader('Content-Type', '')
    client.close()
    return found


@pytest.mark.parametrize('scheme', ['http', 'https'])
def test_a_worker_answers_while_the_order_runs(relay: WebRelay, scheme: str) -> None:
    directory = relay.state_dir / 'tls'
    challenges.put(directory, 'token-1', 'token-1.thumbprint')
    answer = ask(relay, f'{challenges.PATH}token-1', scheme)
    assert answer == (200, b'token-1.thumbprint', 'application/octet-stream')
    challenges.clear(directory)
    assert ask(relay, f'{challenges.PATH}token-1', scheme)[0] == 404


@pytest.mark.parametrize(
    'token',
    [
        '',
        '..',
        '../self-signed.key',
        '..%2fself-signed.key',
        '%2e%2e%2fself-signed.key',
        '....//self-signed.key',
        '%00',
        'link',
        'a' * 200,
    ],
)
def test_nothing_else_is_read(relay: WebRelay, token: str) -> None:
    directory = relay.state_dir / 'tls'
    challenges.put(directory, 'token-2', 'token-2.thumbprint')
    link = directory / challenges.DIRECTORY / 'link'
    if not link.is_symlink():
        link.symlink_to('../self-signed.key')
    status, body, _ = ask(relay, challenges.PATH + token)
    assert status == 404
    assert b'KEY' not in body
