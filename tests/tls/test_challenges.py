"""Challenges: who asks for what is expected gets it, and nobody else anything."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from madmail.tls import challenges
from madmail.tls.challenge_server import ChallengeServer

TOKEN, ANSWER = 'Abc_123-xyz', 'Abc_123-xyz.thumbprint'
TRICKS = (
    '',
    '.',
    '..',
    '../acme.pem',
    '..%2facme.pem',
    '/etc/passwd',
    'a/b',
    'a\\b',
    'a\0b',
    'a' * 129,
    'tökén',
    f'{TOKEN}.tmp',
    f'.{TOKEN}',
)


def test_what_is_put_is_found_until_it_is_cleared(tmp_path: Path) -> None:
    assert challenges.find(tmp_path, TOKEN) is None
    challenges.clear(tmp_path)
    challenges.put(tmp_path, TOKEN, ANSWER)
    assert challenges.find(tmp_path, TOKEN) == ANSWER.encode()
    challenges.clear(tmp_path)
    assert challenges.find(tmp_path, TOKEN) is None
    assert not list((tmp_path / challenges.DIRECTORY).iterdir())


@pytest.mark.parametrize('trick', TRICKS)
def test_nothing_but_a_token_is_looked_for(trick: str, tmp_path: Path) -> None:
    (tmp_path / 'acme.pem').write_text('secret')
    (tmp_path / challenges.DIRECTORY).mkdir()
    (tmp_path / challenges.DIRECTORY / f'{TOKEN}.tmp').write_text('half')
    assert challenges.find(tmp_path, trick) is None
    with pytest.raises(ValueError):
        challenges.put(tmp_path, trick, ANSWER)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / 'acme.pem').write_text('secret')
    (tmp_path / challenges.DIRECTORY).mkdir()
    (tmp_path / challenges.DIRECTORY / TOKEN).symlink_to('../acme.pem')
    assert challenges.find(tmp_path, TOKEN) is None


def test_there_are_only_so_many(tmp_path: Path) -> None:
    for number in range(challenges.LIMIT):
        challenges.put(tmp_path, f'token{number}', ANSWER)
    with pytest.raises(ValueError, match='too many'):
        challenges.put(tmp_path, 'one-more', ANSWER)
    with pytest.raises(ValueError):
        challenges.put(tmp_path / 'other', TOKEN, 'x' * (challenges.ANSWER_LIMIT + 1))


class TestServer:
    @pytest.fixture
    def port(self, tmp_path: Path) -> Iterator[int]:
        challenges.put(tmp_path, TOKEN, ANSWER)
        listener = socket.create_server(('127.0.0.1', 0))
        port: int = listener.getsockname()[1]
        server = ChallengeServer(tmp_path, [listener.detach()])
        yield port
        server.close()

    def get(self, port: int, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=10)
        connection.request('GET', path)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def test_it_answers_challenges_and_nothing_else(self, port: int) -> None:
        assert self.get(port, challenges.PATH + TOKEN) == (200, ANSWER.encode())
        for path in ('/', '/acme.pem', f'{challenges.PATH}../acme.pem', challenges.PATH):
            assert self.get(port, path)[0] == 404
