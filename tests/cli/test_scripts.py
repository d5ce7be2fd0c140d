"""scripts/run keeps the relay alive and gets out of the way; the CLI finds the running relay."""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LISTENERS = ('imap', 'imaps', 'submissions')


def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f'never happened: {what}'
        time.sleep(0.05)
    return value


def alive(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError:
        return False


class Kept:
    """A relay under scripts/run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / 'madmail.yaml'
        self.environment = {**os.environ, 'PYTHON': sys.executable}
        probes = [socket.create_server(('127.0.0.1', 0)) for _ in LISTENERS]
        self.ports = {n: p.getsockname()[1] for n, p in zip(LISTENERS, probes, strict=True)}
        for probe in probes:
            probe.close()
        listen = ', '.join(f'{name}: 127.0.0.1:{port}' for name, port in self.ports.items())
        self.text = (
            'domain: chat.example\nstate_dir: state\n'
            f'listen: {{{listen}}}\nprocesses: {{gates: 1, shards: 1}}\nmaster: {{grace: 5s}}\n'
        )
        self.config.write_text(self.text)
        self.process = subprocess.Popen(
            [str(CHECKOUT / 'scripts' / 'run'), '--config', str(self.config)],
            cwd=directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def read_until_link(self) -> str:
        assert self.process.stdout is not None
        said = b''
        deadline = time.monotonic() + 30
        while not re.search(rb'dclogin:\S+\n', said):
            readable, _, _ = select.select([self.process.stdout], [], [], 1)
            if readable:
                data = os.read(self.process.stdout.fileno(), 65536)
                assert data, self.process.communicate()
                said += data
            assert time.monotonic() < deadline, said
        return said.decode()

    def master(self) -> int:
        return int((self.directory / 'state' / 'master.pid').read_text())

    def cli(self, *words: str, code: int = 0) -> Any:
        done = subprocess.run(
            [str(CHECKOUT / 'scripts' / 'madmail'), '--config', str(self.config), '--json', *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stderr if code else done.stdout)

    def pids(self) -> list[int]:
        return [child['pid'] for child in self.cli('status')['data']['children']]

    def end(self) -> int:
        self.process.communicate(timeout=20)
        return self.process.returncode


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    if kept.process.poll() is None:
        kept.process.terminate()
        try:
            kept.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            kept.process.kill()
            kept.process.communicate()


def test_it_says_how_to_reach_it(kept: Kept) -> None:
    said = kept.read_until_link()
    for name, port in kept.ports.items():
        assert re.search(rf'{name} +127\.0\.0\.1:{port}\n', said)
    assert re.search(r'[0-9A-F]{2}(:[0-9A-F]{2}){31}', said)
    link = re.search(r'dclogin:(\S+)\n', said)
    assert link is not None
    assert re.match(r'[a-z0-9]{9}@chat\.example\?p=[A-Za-z0-9]{24}&', link[1])
    assert f'ih=127.0.0.1&ip={kept.ports["imaps"]}&is=ssl' in link[1]
    assert f'sh=127.0.0.1&sp={kept.ports["submissions"]}&ss=ssl&ic=3&v=1' in link[1]


def test_a_killed_master_is_started_again_and_its_children_with_it(kept: Kept) -> None:
    kept.read_until_link()
    master, children = kept.master(), kept.pids()
    os.kill(master, signal.SIGKILL)
    kept.read_until_link()
    assert kept.master() != master
    assert not any(map(alive, children))
    kept.process.terminate()
    assert kept.end() == 0


def test_a_killed_keeper_takes_the_relay_with_it(kept: Kept) -> None:
    kept.read_until_link()
    pids = [kept.master(), *kept.pids()]
    kept.process.kill()
    kept.process.wait()
    until(lambda: not any(map(alive, pids)), 'end of the relay')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_for_good(kept: Kept, number: int) -> None:
    kept.read_until_link()
    pids = kept.pids()
    kept.process.send_signal(number)
    assert kept.end() == 0
    assert not any(map(alive, pids))


def test_a_relay_that_ends_by_itself_is_not_started_again(kept: Kept) -> None:
    kept.read_until_link()
    second = subprocess.run(
        [str(CHECKOUT / 'scripts' / 'run'), '--config', str(kept.config)],
        env=kept.environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 5
    assert f'is in use by process {kept.master()}' in second.stderr
    assert kept.cli('stop')['data'] == {'stopped': True}
    assert kept.end() == 0


def test_hangup_and_the_command_reload(kept: Kept) -> None:
    kept.read_until_link()
    before = set(kept.pids())
    kept.process.send_signal(signal.SIGHUP)
    until(lambda: kept.cli('status')['data']['generation'] == 2, 'the reload')
    until(lambda: not set(kept.pids()) & before, 'new children')
    assert kept.cli('reload')['data'] == {'reloaded': True, 'generation': 3}
    kept.config.write_text(kept.text + 'limits: {quota: much}\n')
    error = kept.cli('reload', code=1)['error']
    assert 'limits.quota: expected a size' in error


def test_accounts_through_the_running_relay(kept: Kept) -> None:
    kept.read_until_link()
    kept.cli('accounts', 'create', 'alice', 'a password')
    assert 'exists already' in kept.cli('accounts', 'create', 'alice', 'x' * 9, code=1)['error']
    assert kept.cli('accounts', 'list')['data']['total'] == 1
    assert kept.cli('status')['data']['registered_users'] == 1
    assert kept.cli('accounts', 'delete', 'alice', '-y')['data']['username'] == 'alice@chat.example'
    assert kept.cli('accounts', 'list')['data']['total'] == 0
    assert kept.cli('blocklist', 'list')['data']['total'] == 1


def test_a_bad_configuration_is_exit_3(tmp_path: Path) -> None:
    config = tmp_path / 'bad.yaml'
    config.write_text('domian: chat.example\n')
    done = subprocess.run(
        [str(CHECKOUT / 'scripts' / 'run'), '--config', str(config)],
        env={**os.environ, 'PYTHON': sys.executable},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 3
    assert done.stderr == f'Error: {config}:1: domian: unknown setting; did you mean domain?\n'


def test_provision_says_what_it_does_and_refuses_what_it_does_not_know() -> None:
    def provision(*words: str) -> subprocess.CompletedProcess[str]:
        script = CHECKOUT / 'scripts' / 'provision'
        return subprocess.run(
            [str(script), *words], capture_output=True, text=True, timeout=30, check=False
        )

    asked = provision('--help')
    assert asked.returncode == 0
    assert '/var/lib/madmail' in asked.stdout
    assert '#' not in asked.stdout
    unknown = provision('--domian', 'chat.example.org')
    assert unknown.returncode == 2
    assert 'unknown argument --domian' in unknown.stderr
    assert subprocess.run(['bash', '-n', str(CHECKOUT / 'scripts' / 'provision')]).returncode == 0


def test_no_signal_makes_the_keeper_believe_that_the_relay_has_ended(tmp_path: Path) -> None:
    program = tmp_path / 'python'
    program.write_text(
        f'#!{sys.executable}\n'
        'import os, signal\n'
        "signal.signal(signal.SIGHUP, lambda *_: os.write(1, b'h'))\n"
        "os.write(1, b'r')\n"
        'while True:\n'
        '    signal.pause()\n'
    )
    program.chmod(0o755)
    keeper = subprocess.Popen(
        [str(CHECKOUT / 'scripts' / 'run')],
        env={**os.environ, 'PYTHON': str(program)},
        stdout=subprocess.PIPE,
    )
    try:
        assert keeper.stdout is not None
        assert keeper.stdout.read(1) == b'r'
        for _ in range(2000):
            keeper.send_signal(signal.SIGHUP)
            # bash may make one of two that come together
            if select.select([keeper.stdout], [], [], 0.1)[0]:
                assert os.read(keeper.stdout.fileno(), 100), 'the keeper has ended'
            time.sleep(random.random() * 0.0005)
        assert keeper.poll() is None
    finally:
        keeper.terminate()
        keeper.wait(20)
