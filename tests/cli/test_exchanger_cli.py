"""exchanger … on a stopped relay."""

from __future__ import annotations

import pytest

from tests.cli.test_cli import Shell, shell

__all__ = ['shell']  # the fixture

URL = 'https://x.example/exchanger'


def test_a_life(shell: Shell) -> None:
    assert shell.data('exchanger', 'list') == {'exchangers': [], 'total': 0}
    added = shell.data('exchanger', 'add', 'x', URL, '--interval', '5', '--token', 'secret')
    assert (added['url'], added['poll_interval'], added['protocol']) == (URL, 5, 'b')
    changed = shell.data('exchanger', 'update', 'x', '--url', 'https://y.example', '--no-verify')
    assert (changed['url'], changed['poll_interval'], changed['verify']) == (
        *('https://y.example', 5),
        False,
    )
    assert shell.data('exchanger', 'set', 'x', '--poll-interval', '9')['poll_interval'] == 9
    assert shell.data('exchanger', 'disable', 'x')['enabled'] is False
    assert shell.data('exchanger', 'enable', 'x')['enabled'] is True
    [entry] = shell.data('exchanger', 'list')['exchangers']
    assert entry['name'] == 'x'
    assert shell.data('exchanger', 'status', 'x')['exchangers'][0]['waiting'] == 0
    assert 'does not run' in shell.error('exchanger', 'poll', 'x')
    assert shell.data('exchanger', 'remove', 'x') == {'name': 'x'}
    assert 'no exchanger x' in shell.error('exchanger', 'remove', 'x')


def test_what_people_read(shell: Shell) -> None:
    code, said, _ = shell('exchanger', 'add', 'b', '--domain', 'b.example', '--mode', 'pull')
    assert code == 0
    first, second = said.splitlines()
    assert first == 'Added b.'
    assert len(second.rpartition(' ')[2]) == 32
    code, said, _ = shell('exchanger', 'list')
    assert [line.split() for line in said.splitlines()] == [
        ['name', 'endpoint', 'interval', 'enabled', 'last', 'poll', 'mode', 'domains'],
        ['b', '-', '-', 'yes', 'never', 'pull', 'b.example'],
    ]
    code, said, _ = shell('exchanger', 'status')
    assert said.splitlines()[1].split() == ['b', 'never', 'never', '0', '0', '0', '0', '-']


@pytest.mark.parametrize(
    ('words', 'text'),
    [
        (('add', 'x'), 'URL, domains'),
        (('add', 'x', 'x.example'), 'https://'),
        (('add', 'x', URL, '--interval', '0'), '1 to 86400'),
        (('update', 'x', '--interval', '5'), 'no exchanger'),
        (('add', 'x', URL, '--domain', '*', '--carry'), 'named only'),
        (('add', 'x', URL, '--domain', 'chat.example'), 'stays here'),
    ],
)
def test_refusals(shell: Shell, words: tuple[str, ...], text: str) -> None:
    assert text in shell.error('exchanger', *words)


def test_domains_can_be_taken_away(shell: Shell) -> None:
    shell.data('exchanger', 'add', 'x', URL, '--domain', 'a.example', '--domain', 'b.example')
    assert shell.data('exchanger', 'update', 'x', '--domain', '')['domains'] == []
