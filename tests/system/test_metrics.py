"""Figures of a real relay, over its metrics listener and nowhere else."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.metrics.test_exposition import samples
from tests.system import mail
from tests.system.relay import Relay, free_ports, running, wait_for

ROOT = Path(__file__).parents[2]
WEB: dict[str, int] = {}  # ports that do not greet


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    metrics, http = free_ports(2)
    directory = tmp_path_factory.mktemp('relay')
    options = {'listen.metrics': [f'127.0.0.1:{metrics}'], 'listen.http': [f'127.0.0.1:{http}']}
    with running(directory, options) as relay:
        WEB.update(metrics=metrics, http=http)
        yield relay


def get(path: str = '/metrics', listener: str = 'metrics') -> str:
    url = f'http://127.0.0.1:{WEB[listener]}{path}'
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.headers['Content-Type'].startswith('application/openmetrics-text')
        text: str = answer.read().decode()
        return text


def test_what_is_done_is_counted(relay: Relay) -> None:
    before = samples(get())
    alice, bob = relay.account('alice'), relay.account('bob')
    with relay.smtp(*alice) as client:
        for _ in range(3):
            client.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0], bob[0], size=5000))
    client = relay.imap(*bob)
    wait_for(client, 3)
    now = samples(get())

    def grown(name: str) -> float:
        return now[f'madmail_{name}'] - before[f'madmail_{name}']

    assert grown('messages_total{origin="sent"}') == 3
    assert grown('message_durable_seconds_count') == 3
    assert grown('registrations_total') == 2
    assert grown('accounts') == 2
    assert grown('logins_total{result="accepted"}') == 4
    assert grown('octets_total{service="smtp",direction="received"}') > 14000
    assert grown('octets_total{service="imap",direction="sent"}') > 14000
    assert now['madmail_sessions{service="imap"}'] == 1
    assert now['madmail_processes{kind="shard"}'] == 2
    assert now['madmail_disk_available_bytes'] > 0
    assert now['madmail_certificate_expiry_seconds'] > time.time()
    assert now['madmail_certificate_start_seconds'] < time.time()
    assert now['madmail_certificate_failures'] == 0
    assert sum(v for k, v in now.items() if k.startswith('madmail_exceptions_total')) == 0
    client.logout()


def test_nobody_is_named(relay: Relay) -> None:
    relay.account('somebody')
    page = get()
    assert '@' not in page
    assert 'somebody' not in page
    assert 'chat.example' not in page
    assert '127.0.0.1' not in page


def test_only_on_its_own_listener(relay: Relay) -> None:
    with pytest.raises(urllib.error.HTTPError, match='404'):
        get(listener='http')
    for path in ('/mxdeliv', '/', '/api/admin'):
        with pytest.raises(urllib.error.HTTPError, match='404'):
            get(path)


def test_sums_outlive_a_killed_gate(relay: Relay) -> None:
    relay.account()
    before = samples(get())
    for pid in relay.pids('gate'):
        os.kill(pid, signal.SIGKILL)
    relay.wait_ready()
    now = samples(get())
    for name, value in before.items():
        if name.split('{')[0].endswith('_total'):
            assert now[name] >= value, name
    assert now['madmail_process_starts_total{kind="gate"}'] >= 2


def test_alerts_and_dashboard_name_what_there_is(relay: Relay) -> None:
    known = {name.split('{')[0] for name in samples(get())}
    for file in ('prometheus-alerts.yaml', 'grafana-dashboard.json'):
        text = (ROOT / 'conf' / file).read_text()
        named = set(re.findall(r'\bmadmail_\w+', text))
        assert named
        assert named <= known, f'{file}: {named - known}'
