"""Octets of the relay and of an account, over restarts and crashes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from madmail.metrics.bandwidth import octets, record
from madmail.store.control import Control
from tests.system import mail
from tests.system.relay import Relay, running, wait_for


def told(boot: int, past: int, now: int) -> dict[str, Any]:
    def statistics(count: int) -> dict[str, Any]:
        return {'octets': {'imap': {'received': count, 'sent': 2 * count}}}

    return {
        'boot_time': boot,
        'past': {'gate': statistics(past)},
        'children': [{'kind': 'gate', 'statistics': statistics(now)}],
    }


def test_nothing_is_counted_twice(tmp_path: Path) -> None:
    control = Control(tmp_path)
    day = 86400.0
    assert octets(told(1, 5, 7)) == {('imap', 'received'): 12, ('imap', 'sent'): 24}
    record(control, told(1, 0, 100), day)
    record(control, told(1, 0, 100), day)
    record(control, told(1, 100, 50), day)  # a gate ended, another began
    assert control.bandwidth() == [(1, 'imap', 'received', 150), (1, 'imap', 'sent', 300)]
    record(control, told(2, 0, 10), 2 * day)  # the relay was started anew
    record(control, told(2, 0, 30), 2 * day)
    assert [row[3] for row in control.bandwidth() if row[0] == 2] == [30, 60]
    record(control, told(2, 0, 30), 500 * day)
    record(control, told(2, 0, 31), 500 * day)
    assert {row[0] for row in control.bandwidth()} == {500}
    control.close()


def data(relay: Relay, *words: str) -> Any:
    return json.loads(relay.cli('--json', 'bandwidth', *words).stdout)['data']


def test_a_relay_and_an_account(tmp_path: Path) -> None:
    with running(tmp_path, {'accounts.bandwidth': True}) as relay:
        alice, bob = relay.account('alice'), relay.account('bob')
        with relay.smtp(*alice) as client:
            for _ in range(3):
                text = mail.encrypted(alice[0], bob[0], size=100_000)
                client.sendmail(alice[0], [bob[0]], text)
        box = relay.imap(*bob)
        wait_for(box, 3)
        (month,) = data(relay, '--account', bob[0])['months']
        assert month['sent'] > 300_000
        assert month['month'] == time.strftime('%Y-%m', time.gmtime())
        (month,) = data(relay, '--account', alice[0])['months']
        assert month['received'] > 300_000
        box.logout()
        for pid in relay.pids('shard'):
            os.kill(pid, signal.SIGKILL)
        relay.wait_ready()
    # Written when the relay ended.
    (period,) = data(relay)['periods']
    assert period['services']['smtp']['received'] > 300_000
    assert period['services']['imap']['sent'] > 300_000
    assert period['received'] == sum(s['received'] for s in period['services'].values())
    assert data(relay, '--months', '2')['periods'][0]['sent'] == period['sent']
    assert data(relay, '--account', bob[0])['months'][0]['sent'] > 300_000
    relay.cli('accounts', 'delete', bob[0], '-y')


def test_nothing_is_kept_unless_wanted(tmp_path: Path) -> None:
    with running(tmp_path) as relay:
        bob = relay.account('bob')
        told = data(relay, '--account', bob[0])
        assert (told['enabled'], told['months']) == (False, [])
