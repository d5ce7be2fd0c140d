"""doctor, certificate, completion, man, and that every command behaves."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from madmail.admin import doctor
from madmail.admin.refused import Refused
from madmail.cli import manual
from madmail.cli.main import parser
from madmail.store.control import Control
from tests.system.relay import ROOT, Relay, running

COMMANDS = list(manual.commands(parser()))
LEAVES = [command for command in COMMANDS if not command.verbs]


def test_a_healthy_relay_and_a_sick_one(tmp_path: Path) -> None:
    with running(tmp_path) as relay:
        told = examine(relay)
        levels = {one['name']: one['level'] for one in told['checks']}
        assert levels['processes'] == levels['certificate'] == 'ok'
        assert levels['ports'] != 'bad'
        assert levels['databases'] == 'ok'
        assert levels['names'] == 'bad', 'chat.example has no address'
        control = Control(relay.state_dir)
        control.set_setting('limits.quota', 'much')
        control.close()
        relay.state_dir.chmod(0o755)
        relay.cli('reload')
        told = examine(relay)
        bad = {one['name'] for one in told['checks'] if one['level'] == 'bad'}
        assert {'settings', 'permissions'} <= bad
        assert not told['healthy']
        relay.state_dir.chmod(0o700)
    told = examine(relay)
    assert next(one for one in told['checks'] if one['name'] == 'processes')['level'] == 'bad'
    store = relay.state_dir / 'shards' / '0' / 'store.db'
    store.write_bytes(store.read_bytes()[:5000] + b'x' * 20000)
    told = json.loads(relay.cli('--json', 'doctor', '--deep', check=False).stdout or '{}')
    assert not told or not told['data']['healthy']


def test_a_domain_that_was_changed(tmp_path: Path) -> None:
    with running(tmp_path) as relay:
        relay.account('ann')
    told = {one['name']: one for one in examine(relay)['checks']}
    assert 'accounts' not in told
    relay.write_config(domain='other.example')
    told = {one['name']: one for one in examine(relay)['checks']}
    assert told['accounts']['level'] == 'bad'
    assert 'chat.example' in told['accounts']['seen']


def examine(relay: Relay) -> Any:
    answer = relay.cli('--json', 'doctor', '--deep', check=False)
    data = json.loads(answer.stdout)['data']
    assert answer.returncode == (0 if data['healthy'] else 1)
    for one in data['checks']:
        assert one['seen']
        assert one['level'] == 'ok' or one['advice'] or one['seen'].startswith('not examined')
    return data


def test_a_check_that_breaks_is_told() -> None:
    def broken(relay: Any) -> Any:
        raise Refused('unavailable', 'away')
        yield

    (found,) = doctor.examine(None, (broken,))  # type: ignore[arg-type]
    assert (found.name, found.level) == ('broken', 'warn')


def test_the_certificate_is_described_and_made_anew(tmp_path: Path) -> None:
    relay = Relay(tmp_path)
    assert relay.cli('certificate', 'status', check=False).returncode == 1
    with relay:
        first = json.loads(relay.cli('--json', 'certificate', 'status').stdout)['data']
        assert first['sans'] == ['chat.example']
        assert first['days_remaining'] > 300
    relay.cli('certificate', 'get')
    again = json.loads(relay.cli('--json', 'certificate', 'status').stdout)['data']
    assert again['sha256'] == first['sha256']
    made = subprocess.run(
        [
            sys.executable,
            '-m',
            'madmail',
            '--config',
            str(relay.config),
            'certificate',
            'regenerate',
        ],
        input='y\n',
        text=True,
        cwd=ROOT,
        capture_output=True,
    )
    assert made.returncode == 0
    fresh = json.loads(relay.cli('--json', 'certificate', 'status').stdout)['data']
    assert fresh['sha256'] != first['sha256']


@pytest.mark.parametrize('shell', manual.SHELLS)
def test_completion(shell: str, tmp_path: Path) -> None:
    text = manual.completion(parser(), shell)
    for command in COMMANDS:
        assert command.words[-1] in text
    if shell == 'bash':
        script = tmp_path / 'complete'
        script.write_text(
            f'{text}\nCOMP_WORDS=(madmail --json queue "") COMP_CWORD=3\n_madmail\n'
            'echo "${COMPREPLY[@]}"\nCOMP_WORDS=(madmail acc) COMP_CWORD=1\n_madmail\n'
            'echo "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run(['bash', str(script)], capture_output=True, text=True, check=True)
        queue, first = done.stdout.splitlines()
        assert 'retry' in queue.split()
        assert first == 'accounts'


def test_the_manual_page_has_every_command() -> None:
    text = manual.page(parser())
    assert text.startswith('.TH MADMAIL 8')
    for command in LEAVES:
        assert manual._roff(command.name) in text


def test_the_reference_is_current() -> None:
    page = ROOT / 'docs' / 'reference' / 'cli.md'
    assert page.read_text() == manual.reference(parser())


@pytest.mark.parametrize('command', COMMANDS, ids=lambda command: command.name)
def test_every_command_says_what_it_is(command: manual.Command) -> None:
    assert command.text or command.verbs or len(command.words) > 2


NEEDS_NONE = ('run', 'init', 'html-export', 'version', 'completion', 'man', 'hash', 'openrelay')


@pytest.mark.parametrize('command', LEAVES, ids=lambda command: command.name)
def test_every_command_fails_cleanly_without_a_relay(
    command: manual.Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from madmail.cli.main import main

    if command.words[0] in NEEDS_NONE:
        return
    monkeypatch.setattr('sys.stdin', io.StringIO())
    arguments = ['--json', '--state-dir', str(tmp_path / 'nothing'), *command.words]
    try:
        code = main(arguments)
    except SystemExit as done:
        code = int(done.code or 0)
    told = capsys.readouterr()
    assert code in (1, 2), told.out
    assert 'Traceback' not in told.err
    last = json.loads(told.err.splitlines()[-1])
    assert last['ok'] is False
    assert last['error']
    assert not (tmp_path / 'nothing').exists(), 'nothing is made by looking'
