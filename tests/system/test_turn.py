"""TURN under the master: several processes, settings that change, and what is told of it."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from madmail.account.secret import load
from madmail.realtime.turn.credentials import derived_secret
from madmail.realtime.turn.message import long_term_key
from tests.realtime.turn.client import Denied, TurnClient
from tests.system.relay import Relay, free_ports

PROCESSES = 2
PASSWORD = 'a long password'


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    (port,) = free_ports(1)
    options: dict[str, Any] = {
        'domain': '127.0.0.1',
        'listen.turn': [f'127.0.0.1:{port}'],
        'turn': {
            'relay_port_min': 24000,
            'relay_port_max': 24999,
            'processes': PROCESSES,
            'relays_per_account': 0,
            'relays_per_minute_per_ip': 0,
        },
    }
    with Relay(tmp_path_factory.mktemp('turn'), options) as relay:
        answers(relay)
        yield relay


def told(relay: Relay) -> Any:
    return json.loads(relay.cli('--json', 'turn', 'status').stdout)['data']


def answers(relay: Relay) -> None:
    until(lambda: told(relay)['answers'])


def until(condition: Any, wait: float = 30.0) -> None:
    end = time.monotonic() + wait
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def caller(relay: Relay, number: int = 0, transport: str = 'udp') -> TurnClient:
    port = int(relay.options['listen']['turn'][0].rpartition(':')[2])
    return TurnClient(
        ('127.0.0.1', port),
        transport=transport,
        name=str(int(time.time()) + 3600 + number),
        realm='127.0.0.1',
        secret=derived_secret(load(relay.state_dir)).encode(),
    )


def by_process(relay: Relay) -> list[int]:
    """Relays of each process."""
    children = relay.status()['data']['children']
    return [one['statistics'].get('relays', 0) for one in children if one['kind'] == 'turn']


def test_clients_of_all_processes_can_call_each_other(relay: Relay) -> None:
    clients = [caller(relay, number, ('udp', 'tcp')[number % 4 == 3]) for number in range(12)]
    places = [client.allocate() for client in clients]
    until(lambda: sum(by_process(relay)) == 12)
    assert len(by_process(relay)) == PROCESSES
    assert all(by_process(relay))  # 1 in 2,000 is not so by chance
    for number, client in enumerate(clients):
        client.bind(0x4000, places[number ^ 1])
        # every one with a few, of the same and of the other process
        client.bind(0x4001, places[(number + 5) % 12])
        client.permit(places[(number - 5) % 12])
    for number, client in enumerate(clients):
        client.channel_data(0x4000, b'neighbour')
        assert clients[number ^ 1].receive()[4:] == b'neighbour'
    for number, client in enumerate(clients):
        client.channel_data(0x4001, b'further')
        assert b'further' in clients[(number + 5) % 12].receive()
    for client in clients:
        client.refresh(0)
        client.close()


def test_a_process_that_died_is_replaced(relay: Relay) -> None:
    before = relay.pids('turn')
    assert len(before) == PROCESSES
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(set(relay.pids('turn')) - set(before)) == 1)
    answers(relay)
    for number in range(6):
        client = caller(relay, number)
        until(lambda: served(client))  # noqa: B023
        client.close()


def credentials(relay: Relay, user: str) -> list[str]:
    """What an account is told: host, port, name, password."""
    with relay.imap(user, PASSWORD) as session:
        session.xatom('GETMETADATA', '""', '/shared/vendor/deltachat/turn')
        answer = repr(session.response('METADATA')[1])
    found = re.search(r'127\.0\.0\.1:[0-9]+:[0-9]+:[A-Za-z0-9+/=]+', answer)
    assert found is not None
    return found[0].split(':', 3)


def test_what_an_account_was_told_ends_with_it(relay: Relay) -> None:
    told: dict[str, str] = {}
    callers: dict[str, TurnClient] = {}
    for user in ('blocked1', 'deleted1', 'staying1'):
        address = f'{user}@[127.0.0.1]'
        _, port, name, password = credentials(relay, address)
        told[user] = name
        callers[user] = TurnClient(('127.0.0.1', int(port)), name=name, realm='127.0.0.1')
        callers[user].key = long_term_key(name, '127.0.0.1', password)
        callers[user].allocate()
    relay.cli('blocklist', 'add', 'blocked1@[127.0.0.1]')
    relay.cli('accounts', 'delete', '--yes', 'deleted1@[127.0.0.1]')
    for user in ('blocked1', 'deleted1'):
        until(lambda: refused(callers[user]))  # noqa: B023
    assert callers['staying1'].refresh(600) == 600
    for pid in relay.pids('turn'):
        os.kill(pid, signal.SIGKILL)
    answers(relay)
    again = TurnClient(callers['staying1'].socket.getpeername(), realm='127.0.0.1')
    for user, name in told.items():
        again.name, again.key = name, callers[user].key
        until(lambda: served(again) if user == 'staying1' else refused(again))  # noqa: B023


def refused(client: TurnClient) -> bool:
    """Whether it is told that its name and password are wrong."""
    client.socket.settimeout(1)
    client.nonce = b''
    try:
        client.refresh(600)
    except Denied as denied:
        return denied.code == 401
    except (TimeoutError, OSError):
        pass
    return False


def served(client: TurnClient) -> bool:
    client.socket.settimeout(1)
    try:
        client.allocate()
        client.refresh(0)
    except (TimeoutError, OSError, Denied):
        return False
    return True


def test_an_account_has_its_relays_in_all_processes_together(relay: Relay) -> None:
    relay.cli('settings', 'set', 'turn.relays_per_account', '4')
    holding = [caller(relay, 90) for _ in range(4)]

    def held() -> bool:
        # With each process having its own limit there would be room in one of them.
        more = [caller(relay, 90) for _ in range(8)]
        found = [served(one) for one in more]
        for one in more:
            one.close()
        return not any(found)

    for client in holding:
        client.allocate()
    until(held)
    for client in holding:
        client.refresh(0)
    until(lambda: served(holding[0]))
    for client in holding:
        client.close()
    relay.cli('settings', 'reset', 'turn.relays_per_account')


def test_settings_apply_at_once(relay: Relay) -> None:
    relay.cli('settings', 'set', 'turn.relay_port_max', '24003')
    relay.cli('settings', 'set', 'turn.processes', '1')
    relay.cli('settings', 'set', 'turn.share_ports', 'true')

    def found() -> bool:
        client = caller(relay)
        try:
            return client.allocate().port <= 24003 and len(relay.pids('turn')) == 1
        except (OSError, Denied):
            return False
        finally:
            client.close()

    until(found)
    clients = [caller(relay, number) for number in range(8)]
    assert {client.allocate().port for client in clients} == {24000, 24001, 24002, 24003}
    for client in clients:
        client.close()
    refused = relay.cli('settings', 'set', 'turn.relay_port_min', '24004', check=False)
    assert refused.returncode == 1
    assert 'turn.relay_port_min' in refused.stderr
    for name in ('share_ports', 'processes', 'relay_port_max'):
        relay.cli('settings', 'reset', f'turn.{name}')
    until(lambda: len(relay.pids('turn')) == PROCESSES)


def test_the_port_is_moved_by_command(relay: Relay) -> None:
    (port,) = free_ports(1)
    relay.cli('port', 'turn', 'set', str(port))
    try:
        old = caller(relay)
        old.socket.settimeout(1)
        with pytest.raises(OSError):
            old.allocate()
        until(lambda: told(relay)['answers'])
        assert told(relay)['port'] == port
    finally:
        relay.cli('port', 'turn', 'reset')
    until(lambda: told(relay)['answers'])
    client = caller(relay)
    until(lambda: served(client))
    client.close()


def test_the_log_and_figures_hold_no_addresses(relay: Relay) -> None:
    status = json.dumps(
        [one for one in relay.status()['data']['children'] if one['kind'] == 'turn']
    )
    assert '127.0.0.1' not in status
    levels = {
        one['name']: one['level']
        for one in json.loads(relay.cli('--json', 'doctor', check=False).stdout)['data']['checks']
    }
    assert levels['turn'] == 'ok'
    figures = told(relay)
    assert {'enabled', 'answers', 'relays', 'received', 'sent', 'port'} <= figures.keys()
