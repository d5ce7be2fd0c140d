"""The arbiter with tiny roles in real processes: deaths, hangs, reloads, stops."""

from __future__ import annotations

import json
import os
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

from madmail.master import control, exits
from madmail.store.control import Control

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIG = """
domain: localhost
state_dir: ./state
listen: {{imap: 127.0.0.1:{port}}}
processes: {{gates: 2, shards: 2}}
master: {{heartbeat: 2s, grace: {grace}s}}
limits: {{send_burst: {burst}}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(('127.0.0.1', 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f'never happened: {what}'
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError:
        return False


class Relay:
    """A fake relay as its operator sees it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / 'state'
        self.port = free_port()
        self.write()
        self.process: subprocess.Popen[str] | None = None

    def write(self, text: str = '', *, burst: int = 1, grace: int = 5, port: int = 0) -> None:
        text = text or CONFIG.format(port=port or self.port, burst=burst, grace=grace)
        (self.directory / 'madmail.yaml').write_text(text)

    def launch(self, **environment: str) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / 'fake_relay.py'), 'madmail.yaml'],
            cwd=self.directory,
            env={**os.environ, 'PYTHONPATH': str(CHECKOUT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def start(self, **environment: str) -> Relay:
        process = self.launch(**environment)
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], 20)
        line = process.stdout.readline() if readable else ''
        assert line.startswith('ready'), process.communicate(timeout=5)
        return self

    def status(self) -> dict[str, Any]:
        status = control.ask(self.state, {'command': 'status'})
        assert status is not None
        return status

    def children(self, kind: str, *, state: str = 'serving') -> list[dict[str, Any]]:
        return [c for c in self.status()['children'] if c['kind'] == kind and c['state'] == state]

    def pids(self, kind: str) -> list[int]:
        return [c['pid'] for c in self.children(kind)]

    def all_pids(self) -> list[int]:
        return [c['pid'] for c in self.status()['children']]

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, timeout: float = 20) -> tuple[int, str]:
        assert self.process is not None
        _, errors = self.process.communicate(timeout=timeout)
        return self.process.returncode, errors

    def connect(self) -> socket.socket:
        return socket.create_connection(('127.0.0.1', self.port), timeout=10)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(tmp_path)
    yield relay
    if relay.process and relay.process.poll() is None:
        relay.process.kill()
        relay.process.communicate()


def test_children_start_with_their_own_descriptors_only(relay: Relay) -> None:
    relay.start()
    status = relay.status()
    kinds = [c['kind'] for c in status['children']]
    assert kinds == ['courier', 'gate', 'gate', 'shard', 'shard']
    assert status['complete']
    by_kind = {c['kind']: c['statistics'] for c in status['children']}
    assert by_kind['gate']['listeners'] == ['imap', 'smtp']
    assert by_kind['shard']['listeners'] == ['shard']
    assert by_kind['courier']['listeners'] == []
    counts = {
        kind: {c['statistics']['descriptors'] for c in status['children'] if c['kind'] == kind}
        for kind in by_kind
    }
    assert all(len(numbers) == 1 for numbers in counts.values())  # whoever was forked later too


@pytest.mark.parametrize('kind', ['gate', 'shard', 'courier'])
def test_a_killed_child_is_replaced_at_once(relay: Relay, kind: str) -> None:
    relay.start()
    before = relay.pids(kind)
    os.kill(before[0], signal.SIGKILL)
    began = time.monotonic()
    after = until(
        lambda: len(now := relay.pids(kind)) == len(before) and before[0] not in now and now,
        'replacement',
    )
    assert time.monotonic() - began < 3
    assert set(before[1:]) < set(after)
    assert relay.connect().recv(100) == b'generation 1\n'


@pytest.mark.parametrize('how', ['stuck', 'frozen'])
def test_a_child_whose_work_loop_hangs_is_killed_and_replaced(relay: Relay, how: str) -> None:
    relay.start()
    pid = relay.pids('courier')[0]
    (relay.state / f'{how}-courier').touch()
    until(lambda: not alive(pid), 'death of the stuck child')
    (relay.state / f'{how}-courier').unlink()
    until(lambda: relay.pids('courier') not in ([], [pid]), 'replacement')


def test_a_stopped_child_is_killed_and_replaced(relay: Relay) -> None:
    relay.start()
    pid = relay.pids('courier')[0]
    os.kill(pid, signal.SIGSTOP)
    until(lambda: relay.pids('courier') not in ([], [pid]), 'replacement')
    assert not alive(pid)


def test_a_sound_child_is_left_alone_beyond_the_heartbeat(relay: Relay) -> None:
    relay.start()
    before = relay.all_pids()
    time.sleep(5)
    assert relay.all_pids() == before


def test_a_child_that_cannot_start_stops_the_relay_with_the_reason(relay: Relay) -> None:
    relay.state.mkdir()
    (relay.state / 'break-courier').touch()
    relay.launch()
    code, errors = relay.end()
    assert code == 6
    assert errors == 'Error: courier 0 cannot start: the fake is broken\n'


@pytest.mark.parametrize('kind', ['courier', 'gate', 'shard'])
def test_a_child_that_cannot_start_again_is_tried_and_the_others_serve(
    relay: Relay, kind: str
) -> None:
    relay.start()
    others = set(relay.all_pids()) - set(relay.pids(kind))
    (relay.state / f'break-{kind}').touch()
    for pid in relay.pids(kind):
        os.kill(pid, signal.SIGKILL)
    name = f'{kind} 0'
    until(lambda: 'the fake is broken' in relay.status()['trouble'].get(name, ''), 'the reason', 20)
    assert not relay.status()['complete']
    assert set(relay.all_pids()) >= others
    with pytest.raises(control.Refused, match=f'{kind}.* cannot start: the fake is broken'):
        control.ask(relay.state, {'command': 'reload'})
    (relay.state / f'break-{kind}').unlink()
    control.ask(relay.state, {'command': 'reload'})  # at once, not when it is due
    until(lambda: relay.status()['complete'], 'all to serve', 20)
    assert relay.status()['trouble'] == {}


def test_a_courier_that_cannot_start_after_a_reload_is_tried_until_it_can(relay: Relay) -> None:
    relay.start()
    (relay.state / 'break-courier').touch()
    with pytest.raises(control.Refused, match='courier 0 cannot start: the fake is broken'):
        control.ask(relay.state, {'command': 'reload'})
    with relay.connect() as stream:
        assert stream.recv(100) == b'generation 2\n'
    (relay.state / 'break-courier').unlink()
    until(lambda: relay.status()['complete'], 'the courier by itself', 20)
    assert relay.status()['trouble'] == {}


def test_kill_of_the_master_ends_all_children(relay: Relay) -> None:
    relay.start()
    pids = relay.all_pids()
    relay.signal(signal.SIGKILL)
    until(lambda: not any(map(alive, pids)), 'end of all children', 3)
    relay.start()  # and the state directory is free again


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_stop_is_graceful_and_complete(relay: Relay, number: int) -> None:
    relay.start()
    pids = relay.all_pids()
    with relay.connect() as connection:
        connection.recv(100)
        relay.signal(number)
        assert relay.end() == (0, '')
    assert not any(map(alive, pids))
    assert not (relay.state / 'master.pid').exists()


def test_who_does_not_retire_is_killed_after_the_grace(relay: Relay) -> None:
    relay.write(grace=1)
    relay.start()
    (relay.state / 'slow-courier').touch()
    began = time.monotonic()
    relay.signal(signal.SIGTERM)
    assert relay.end()[0] == 0
    assert 0.9 < time.monotonic() - began < 5


def test_a_second_signal_kills_at_once(relay: Relay) -> None:
    relay.write(grace=300)
    relay.start()
    (relay.state / 'slow-shard').touch()
    relay.signal(signal.SIGTERM)
    time.sleep(0.5)
    assert relay.process is not None
    assert relay.process.poll() is None
    relay.signal(signal.SIGTERM)
    assert relay.end(5)[0] == 0


def test_sigterm_to_the_whole_process_group_is_a_stop(relay: Relay) -> None:
    relay.start()
    for pid in relay.all_pids():
        os.kill(pid, signal.SIGTERM)
    relay.signal(signal.SIGTERM)
    assert relay.end() == (0, '')


def test_a_terminated_gate_is_replaced_while_its_connections_go_on(relay: Relay) -> None:
    relay.start()
    before = relay.pids('gate')
    with relay.connect() as connection:
        connection.recv(100)
        for pid in before:
            os.kill(pid, signal.SIGTERM)
        until(lambda: len(set(relay.pids('gate')) - set(before)) == 2, 'two new gates')
        connection.sendall(b'still there\n')
        assert connection.recv(100) == b'still there\n'


def test_reload_replaces_everything_and_keeps_connections(relay: Relay) -> None:
    relay.start()
    before = relay.all_pids()
    with relay.connect() as old:
        assert old.recv(100) == b'generation 1\n'
        relay.write(burst=7)
        assert control.ask(relay.state, {'command': 'reload'}) == {
            'reloaded': True,
            'generation': 2,
        }
        status = relay.status()
        serving = [c for c in status['children'] if c['state'] == 'serving']
        lingering = [c for c in status['children'] if c['state'] != 'serving']
        assert len(serving) == 5
        assert {c['generation'] for c in serving} == {2}
        assert {c['statistics']['burst'] for c in serving} == {7}
        assert [c['kind'] for c in lingering] == ['gate']
        assert not {c['pid'] for c in serving} & set(before)
        indices = [c['index'] for c in status['children'] if c['kind'] == 'gate']
        assert len(set(indices)) == 3
        inherited = json.loads((relay.state / 'inherited').read_text())
        assert inherited['from'] in before  # the shard passed its sessions on
        old.sendall(b'hello\n')
        assert old.recv(100) == b'hello\n'
        with relay.connect() as new:
            assert new.recv(100) == b'generation 2\n'
    until(lambda: not relay.children('gate', state='retiring'), 'end of the lingering gate')


def test_connecting_never_fails_during_reloads(relay: Relay) -> None:
    relay.start()
    generations = set()
    for _ in range(3):
        relay.signal(signal.SIGHUP)
        for _ in range(60):
            with relay.connect() as connection:
                generations.add(connection.recv(100))
            time.sleep(0.005)
    until(lambda: relay.status()['generation'] >= 3, 'reloads')
    assert b'generation 1\n' in generations
    assert len(generations) > 1


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('limits: {send_brust: 1}\n', 'did you mean limits.send_burst?'),
        ('domain: other.example\nstate_dir: ./state\n', 'domain was changed'),
        (
            'state_dir: ./state\nlisten: {imap: 127.0.0.1:TAKEN}\n',
            'the port is taken by',
        ),
    ],
)
def test_a_bad_configuration_is_refused_and_nothing_changes(
    relay: Relay, text: str, why: str
) -> None:
    relay.start()
    before = relay.all_pids()
    with socket.create_server(('127.0.0.1', 0)) as taken:
        relay.write(text.replace('TAKEN', str(taken.getsockname()[1])))
        with pytest.raises(control.Refused, match=re.escape(why)):
            control.ask(relay.state, {'command': 'reload'})
    assert relay.all_pids() == before
    with relay.connect() as connection:
        assert connection.recv(100) == b'generation 1\n'


def test_a_reload_with_which_gates_do_not_start_is_refused(relay: Relay) -> None:
    relay.start()
    before = relay.all_pids()
    (relay.state / 'break-gate').touch()
    with pytest.raises(control.Refused, match='gate cannot start: the fake is broken'):
        control.ask(relay.state, {'command': 'reload'})
    assert until(lambda: relay.all_pids() == before, 'only the old children')
    (relay.state / 'break-gate').unlink()
    control.ask(relay.state, {'command': 'reload'})
    assert not set(relay.all_pids()) & set(before)


def test_a_shard_whose_successor_does_not_start_goes_on(relay: Relay) -> None:
    relay.start()
    before = relay.pids('shard')
    (relay.state / 'break-shard').touch()
    with pytest.raises(control.Refused, match='old settings are kept by shard 0'):
        control.ask(relay.state, {'command': 'reload'})
    assert relay.pids('shard') == before
    (relay.state / 'break-shard').unlink()
    control.ask(relay.state, {'command': 'reload'})
    assert not set(relay.pids('shard')) & set(before)


def test_reload_moves_listeners(relay: Relay) -> None:
    relay.start()
    former = relay.port
    with relay.connect() as old:
        old.recv(100)
        relay.port = free_port()
        relay.write()
        control.ask(relay.state, {'command': 'reload'})
        with relay.connect() as new:
            assert new.recv(100) == b'generation 2\n'
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(('127.0.0.1', former))
        old.sendall(b'x')
        assert old.recv(1) == b'x'


def test_slots_run_out_and_the_oldest_lingering_gate_ends(relay: Relay) -> None:
    relay.start(SLOTS='5')
    connections = []
    for number in (1, 2, 3, 4):
        if number > 1:
            control.ask(relay.state, {'command': 'reload'})
        connections.append(relay.connect())
        assert connections[-1].recv(100) == b'generation %d\n' % number
    connections[0].settimeout(10)
    assert connections[0].recv(10) == b''
    connections[-1].sendall(b'y')
    assert connections[-1].recv(1) == b'y'
    for connection in connections:
        connection.close()


def test_events_reach_all_other_processes_and_the_publisher_once(relay: Relay) -> None:
    relay.start()
    with relay.connect() as connection:
        connection.recv(100)
        connection.sendall(b'publish\n')
        connection.recv(100)
        until(
            lambda: [c['statistics']['events'] for c in relay.status()['children']] == [1] * 5,
            'one event for each',
        )
    control.ask(relay.state, {'command': 'publish', 'topic': 'news', 'data': {}})
    until(
        lambda: [c['statistics']['events'] for c in relay.status()['children']] == [2] * 5,
        'events published from outside',
    )


def test_a_taken_port_names_the_process(relay: Relay) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            '-c',
            'import socket,sys;s=socket.create_server(("127.0.0.1",0));'
            'print(s.getsockname()[1],flush=True);sys.stdin.read()',
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    try:
        port = int(holder.stdout.readline())
        relay.write(port=port)
        relay.launch()
        code, errors = relay.end()
    finally:
        holder.communicate('')
    assert code == 4
    assert errors.startswith(f'Error: listen.imap: 127.0.0.1:{port}: the port is taken by ')
    assert f'(process {holder.pid})' in errors


def test_a_second_master_is_refused_by_name(relay: Relay) -> None:
    relay.start()
    assert relay.process is not None
    first = relay.process
    relay.write(port=free_port())
    try:
        relay.launch()
        code, errors = relay.end()
    finally:
        relay.process = first
    assert code == 5
    assert errors == f'Error: state directory {relay.state} is in use by process {first.pid}\n'


@pytest.mark.parametrize(
    ('content', 'why'),
    [
        ('{"version": 99, "shards": 2}', 'is of version 99, this program knows 1'),
        ('{"version": 1}', 'state.json is damaged'),
        ('{"version": 1, "shards": 3}', 'was made with 3 shards, which is fixed'),
    ],
)
def test_a_state_directory_we_cannot_use_is_refused(relay: Relay, content: str, why: str) -> None:
    relay.state.mkdir()
    (relay.state / 'state.json').write_text(content)
    relay.launch()
    code, errors = relay.end()
    assert code == 5
    assert why in errors
    assert (relay.state / 'state.json').read_text() == content


def test_a_state_directory_that_cannot_be_made_is_refused(relay: Relay) -> None:
    relay.state.write_text('a file')
    relay.launch()
    code, errors = relay.end()
    assert code == 5
    assert f'state directory {relay.state}: ' in errors


def test_the_state_directory_is_private(relay: Relay) -> None:
    relay.start()
    assert relay.state.stat().st_mode & 0o777 == 0o700
    assert (relay.state / 'run' / 'control.sock').stat().st_mode & 0o777 == 0o600
    assert json.loads((relay.state / 'state.json').read_text()) == {'version': 1, 'shards': 2}


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give up root')
def test_children_of_root_run_as_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    import pwd
    import shutil
    import tempfile

    directory = Path(tempfile.mkdtemp(dir='/var/tmp'))
    directory.chmod(0o755)
    try:
        relay = Relay(directory)
        relay.write(CONFIG.format(port=relay.port, burst=1, grace=5) + 'user: nobody\n')
        relay.start()
        status = relay.status()
        nobody = pwd.getpwnam('nobody').pw_uid
        assert {c['statistics']['uid'] for c in status['children']} == {nobody}
        assert relay.state.stat().st_uid == nobody
        control.ask(relay.state, {'command': 'reload'})
        pids = relay.all_pids()
        relay.signal(signal.SIGKILL)
        until(lambda: not any(map(alive, pids)), 'end of all children', 3)
        relay.end()
    finally:
        shutil.rmtree(directory)


def test_usr1_reopens_the_log_everywhere(relay: Relay) -> None:
    path = relay.directory / 'log'
    relay.write(CONFIG.format(port=relay.port, burst=1, grace=5) + f'log: {path}\n')
    relay.start()
    path.rename(relay.directory / 'log.1')
    relay.signal(signal.SIGUSR1)
    until(lambda: path.exists() and 'statistics child=gate-0' in path.read_text(), 'statistics')
    until(lambda: path.read_text().count('statistics child=') == 5, 'statistics of all')


def test_a_long_state_directory_path_works(relay: Relay) -> None:
    deep = relay.directory / ('d' * 100) / ('e' * 100)
    relay.state = deep
    relay.write(CONFIG.format(port=relay.port, burst=1, grace=5).replace('./state', str(deep)))
    relay.start()
    assert relay.status()['complete']


# -- services that settings switch


def stored(relay: Relay, name: str, value: str | None) -> None:
    rows = Control(relay.state)
    if value is None:
        rows.remove_setting(name)
    else:
        rows.set_setting(name, value)
    rows.close()


def answers(port: int) -> tuple[str, str]:
    """What the service says over TCP and UDP."""
    with socket.create_connection(('127.0.0.1', port), timeout=10) as stream:
        by_stream = stream.recv(10).decode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(10)
        datagrams.connect(('127.0.0.1', port))
        datagrams.send(b'x')
        return by_stream, datagrams.recv(10).decode()


SERVICE = """
domain: localhost
state_dir: ./state
listen: {{imap: 127.0.0.1:{port}, metrics: 127.0.0.1:{service}}}
processes: {{gates: 1, shards: 1}}
master: {{heartbeat: 2s, grace: 5s}}
limits: {{max_recipients: {count}}}
"""


def with_service(relay: Relay, count: int) -> int:
    port = free_port()
    relay.write(SERVICE.format(port=relay.port, service=port, count=count))
    return port


def test_a_live_setting_switches_a_service_with_its_listeners(relay: Relay) -> None:
    port = with_service(relay, 0)
    relay.start()
    assert not relay.children('service')
    assert port not in {
        int(one['address'].rpartition(':')[2]) for one in relay.status()['listeners']
    }
    with relay.connect() as session:
        session.recv(100)
        stored(relay, 'limits.max_recipients', '1')
        control.ask(relay.state, {'command': 'publish', 'topic': 'settings', 'data': {}})
        until(lambda: relay.children('service'), 'the service')
        assert answers(port) == ('0', '0')
        stored(relay, 'limits.max_recipients', None)
        control.ask(relay.state, {'command': 'publish', 'topic': 'settings', 'data': {}})
        until(lambda: 'service' not in {c['kind'] for c in relay.status()['children']}, 'its end')
        with pytest.raises(ConnectionRefusedError):
            answers(port)
        session.sendall(b'x')  # nobody else was replaced
        assert session.recv(1) == b'x'
    assert relay.status()['generation'] == 1


def test_a_change_that_nobody_told_the_master_of_is_noticed(relay: Relay) -> None:
    with_service(relay, 0)
    relay.start()
    stored(relay, 'limits.max_recipients', '1')
    until(lambda: relay.children('service'), 'the service')


def test_processes_of_a_service_share_datagrams_by_peer(relay: Relay) -> None:
    port = with_service(relay, 3)
    relay.start()
    until(lambda: len(relay.children('service')) == 3, 'three of them')
    seen = set()
    for _ in range(64):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.settimeout(10)
            datagrams.connect(('127.0.0.1', port))
            said = set()
            for _ in range(3):
                datagrams.send(b'x')
                said.add(datagrams.recv(10))
            assert len(said) == 1, 'the datagrams of one peer went to several processes'
            seen |= said
    assert seen == {b'0', b'1', b'2'}
    stored(relay, 'limits.max_recipients', '1')
    control.ask(relay.state, {'command': 'publish', 'topic': 'settings', 'data': {}})
    until(lambda: len(relay.children('service')) == 1, 'one of them')
    until(
        lambda: len([c for c in relay.status()['children'] if c['kind'] == 'service']) == 1, 'end'
    )
    assert {answers(port)[1] for _ in range(20)} == {'0'}


def test_a_service_that_cannot_listen_does_not_keep_the_relay_down(relay: Relay) -> None:
    port = with_service(relay, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(('127.0.0.1', port))
        relay.start()
        assert re.search(r'taken by python\S* \(process \d+', relay.status()['trouble']['service'])
        relay.signal(signal.SIGHUP)  # nor from being reloaded
        until(lambda: relay.status()['generation'] == 2, 'a reload')
        assert relay.status()['trouble']
    control.ask(relay.state, {'command': 'reload'})
    until(lambda: relay.children('service'), 'the service')
    assert relay.status()['trouble'] == {}
    assert answers(port) == ('0', '0')


def test_a_service_that_cannot_start_does_not_end_the_relay(relay: Relay) -> None:
    with_service(relay, 1)
    relay.state.mkdir(mode=0o700)
    (relay.state / 'break-service').touch()
    relay.start()
    until(
        lambda: 'the fake is broken' in relay.status()['trouble'].get('service', ''), 'the reason'
    )
    with relay.connect() as stream:
        assert stream.recv(100) == b'generation 1\n'


def test_stored_settings_that_fail_do_not_keep_the_relay_from_starting(relay: Relay) -> None:
    port = with_service(relay, 0)
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        relay.start()
        stored(relay, 'listen.imap', f'127.0.0.1:{taken.getsockname()[1]}')
        stored(relay, 'listen.smtp', f'127.0.0.1:{port}')  # that of metrics
        stored(relay, 'log', '/nonexistent/directory/log')
        stored(relay, 'limits.send_burst', 'many')
        stored(relay, 'limits.of_another_version', '7')
        relay.signal(signal.SIGTERM)
        relay.end()
        relay.start()
        status = relay.status()
        assert status['unusable'].keys() == {
            'listen.imap',
            'listen.smtp',
            'log',
            'limits.send_burst',
            'limits.of_another_version',
        }
        assert 'taken' in status['unusable']['listen.imap']
        with relay.connect() as stream:  # as the file says
            assert stream.recv(100) == b'generation 1\n'
        control.ask(relay.state, {'command': 'reload'})  # of something else is not refused
        assert 'listen.imap' in relay.status()['unusable']
        stored(relay, 'listen.imap', f'127.0.0.1:{taken.getsockname()[1]}, 127.0.0.2:0')
        with pytest.raises(control.Refused, match='taken'):
            control.ask(relay.state, {'command': 'reload'})
        assert 'log' in relay.status()['unusable']
    stored(relay, 'listen.imap', None)
    control.ask(relay.state, {'command': 'reload'})
    assert 'listen.imap' not in relay.status()['unusable']


def test_all_processes_follow_the_log(relay: Relay, tmp_path: Path) -> None:
    relay.start()
    path = tmp_path / 'log'
    with relay.connect() as session:
        session.recv(100)
        stored(relay, 'log', str(path))
        control.ask(relay.state, {'command': 'publish', 'topic': 'settings', 'data': {}})
        control.ask(relay.state, {'command': 'reload'})
        assert relay.children('gate', state='retiring')  # it lingers, and logs

        def open_in() -> int:
            pids = relay.all_pids()
            links = [link for pid in pids for link in Path(f'/proc/{pid}/fd').iterdir()]
            return sum(os.path.exists(link) and link.resolve() == path for link in links)

        until(lambda: open_in() == len(relay.all_pids()), 'all have it open')
        stored(relay, 'log', None)
        control.ask(relay.state, {'command': 'publish', 'topic': 'settings', 'data': {}})
        until(lambda: open_in() == 0, 'nobody has it open')


@pytest.mark.parametrize('line', ['database: postgresql://x@h/n', 'bus: redis://h'])
def test_what_there_is_not_is_refused_and_not_ignored(relay: Relay, line: str) -> None:
    relay.write(f'{line}\n{CONFIG.format(port=relay.port, burst=1, grace=5)}')
    relay.launch()
    code, errors = relay.end()
    assert code == exits.CONFIGURATION
    assert f'{line.partition(":")[0]}: this version has' in errors
